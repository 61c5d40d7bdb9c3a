//! Idle: what a live entity costs that does nothing, and how long one takes to start.

use crate::cost::started;
use crate::entity::{Command, Plain};
use crate::{Found, resident, sized};
use otava::actor::Ask;
use otava::prelude::*;
use otava_sharding::{MemoryAllocationStore, Passivation, Sharding, ShardingConfig};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Questions under way at once while entities are started.
const AT_ONCE: usize = 512;

type Reached = otava::Entities<Command>;

async fn started_with(node: &Node, passivation: Passivation) -> Reached {
    let store = Arc::new(MemoryAllocationStore::new());
    let config = ShardingConfig::default().passivation(passivation);
    let factory = |_| Props::new(Plain::default);
    let entities = Sharding::start(node.cluster(), "plain", store, config, factory).unwrap();
    node.join().await.unwrap();
    entities.all_hosted().await;
    entities
}

/// Asks these entities, in turn.
async fn ask(entities: &Reached, from: u64, to: u64) {
    let mut under_way = VecDeque::with_capacity(AT_ONCE);
    for n in from..to {
        if under_way.len() == AT_ONCE {
            let asked: Ask<_, u64, _> = under_way.pop_front().unwrap();
            asked.await.unwrap();
        }
        let entity = entities.entity(format!("e-{n}"));
        under_way.push_back(entity.ask(|to| Command::Add(1, to)));
    }
    for asked in under_way {
        asked.await.unwrap();
    }
}

pub(crate) async fn many(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let node = started(folder.path(), "node-1").await;
    let entities = started_with(&node, Passivation::default()).await;
    // What only the first ones need is there after these.
    let n = sized(100_000, scale);
    ask(&entities, 0, n / 10).await;
    let (before, begin) = (resident(), Instant::now());
    ask(&entities, n / 10, n / 10 + n).await;
    let starting = begin.elapsed();
    let bytes = (resident() - before) / n as f64;
    let begin = Instant::now();
    ask(&entities, n / 10, n / 10 + n).await;
    let again = begin.elapsed();
    node.leave().await;
    let micros = |took: std::time::Duration| took.as_nanos() as f64 / 1e3 / n as f64;
    vec![
        ("live", n as f64),
        ("bytes_each", bytes),
        ("first_ask_us", micros(starting)),
        ("ask_us", micros(again)),
        ("start_us", micros(starting) - micros(again)),
    ]
}

/// Ten times as many as may live: each start passivates another one.
pub(crate) async fn passivated(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let node = started(folder.path(), "node-1").await;
    let live = sized(100_000, scale);
    let limit = Passivation::least_recently_used(usize::try_from(live).unwrap());
    let entities = started_with(&node, limit).await;
    // Twice as many as may live, so that what comes and goes has found its place.
    ask(&entities, 0, 2 * live).await;
    let before = resident();
    ask(&entities, 2 * live, 12 * live).await;
    let bytes = (resident() - before) / (10 * live) as f64;
    let found = vec![
        ("live", entities.local_stats().entities as f64),
        ("passivated", (10 * live) as f64),
        ("bytes_each", bytes),
        ("resident_mib", resident() / 1024.0 / 1024.0),
    ];
    node.leave().await;
    found
}
