//! Proves: remembered entities live on without a message, whatever happens to their nodes.

use crate::counter::{Command, Counter};
use otava::prelude::*;
use otava::testkit::{SimCluster, Simulation, seeds};
use otava::{Entities, ShardingConfig};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const ENTITIES: u64 = 30;

fn options() -> EntityOptions {
    let sharding = ShardingConfig::default().shards(16);
    EntityOptions::default().sharding(sharding).remembered()
}

/// Waits until as many entities live in the whole cluster.
async fn live(cluster: &SimCluster<Entities<Command>>, count: u64) {
    let all_live = async {
        loop {
            let nodes = cluster.numbers().into_iter();
            let hosted = nodes.filter_map(|number| cluster.node(number));
            let live: usize = hosted.map(|(_, it)| it.local_stats().entities).sum();
            if live as u64 == count {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let limit = Duration::from_secs(60);
    let seen = timeout(limit, all_live).await;
    assert!(seen.is_ok(), "{count} entities do not live");
}

/// S6: all that were started start again after random faults, and after a stop of the whole cluster,
/// although nobody sends anything.
#[test]
fn remembered_entities_start_again_without_messages() {
    for seed in seeds(2) {
        let host = |node: &Node| node.entities::<Counter>(options()).unwrap();
        Simulation::seeded(seed).run(host, async |cluster| {
            let (_, counters) = cluster.some_node();
            for n in 0..ENTITIES {
                let entity = counters.entity(format!("r-{n}"));
                entity.ask(|to| Command::Take(n, to)).await.unwrap();
            }
            live(&cluster, ENTITIES).await;
            cluster.random_faults(Duration::from_secs(40)).await;
            live(&cluster, ENTITIES).await;
            for number in cluster.numbers() {
                cluster.crash(number).await;
            }
            for number in 1..=3 {
                cluster.start(number).await;
            }
            live(&cluster, ENTITIES).await;
        });
    }
}
