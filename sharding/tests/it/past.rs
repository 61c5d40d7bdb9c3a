//! Proves: what goes past the region to an entity of this node keeps its order, is lost nowhere, and
//! counts as what goes through it.

use crate::living::{Do, Ledger, ask, count, living, living_on};
use crate::support::{Cluster, SECOND, SHARDS};
use otava_actor::{Rng, TellError};
use otava_sharding::{Entities, MemoryAllocationStore, Passivation, ShardingConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

const IDS: u64 = 8;

fn config(passivation: Passivation) -> ShardingConfig {
    ShardingConfig::default()
        .shards(SHARDS)
        .passivation(passivation)
}

/// Sends numbers to entities by every way there is, until told to end; how many.
async fn hammer(entities: Entities<Do>, from: u64, ends: Arc<AtomicBool>) -> usize {
    let mut rng = Rng::seeded(from);
    let mut number = 0;
    let id = |n: u64| format!("e{from}-{n}");
    while !ends.load(Ordering::Relaxed) {
        for _ in 0..64 {
            number += 1;
            let entity = entities.entity(id(rng.below(IDS)));
            match rng.below(16) {
                0 => {
                    ask(&entities, entity.id(), number).await;
                }
                1..9 => {
                    if let Err(TellError::Full(message)) = entity.tell(count(number)) {
                        entity.send(message).await.unwrap();
                    }
                }
                _ => entity.send(count(number)).await.unwrap(),
            }
            match rng.below(64) {
                0 => entity.send(Do::Passivate).await.unwrap(),
                1 => entity.send(Do::Stop).await.unwrap(),
                2 => tokio::task::yield_now().await,
                _ => {}
            }
        }
        // No mailbox is full of what was sent before.
        for n in 0..IDS {
            number += 1;
            ask(&entities, &id(n), number).await;
        }
    }
    usize::try_from(number).unwrap()
}

/// S1, S5: on threads, several senders on each node, entities that stop and are passivated, and shards that
/// move all the time: each message is handled once, in the order of its sender, by the one instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_keep_their_order_while_entities_and_shards_come_and_go() {
    let mut cluster = Cluster::started(11, 2).await;
    let ledger = Arc::new(Ledger::default());
    let store = Arc::new(MemoryAllocationStore::new());
    let few = config(Passivation::least_recently_used(12));
    let start = |cluster: &Cluster, n| living(cluster, n, &ledger, &store, few.clone());
    let all = [start(&cluster, 1), start(&cluster, 2)];
    for entities in &all {
        entities.all_hosted().await;
    }
    let ends = Arc::new(AtomicBool::new(false));
    let senders = (0..6).map(|from| {
        let entities = all[usize::try_from(from % 2).unwrap()].clone();
        tokio::spawn(hammer(entities, from, ends.clone()))
    });
    let senders: Vec<_> = senders.collect();
    for n in 3..6 {
        cluster.add(n);
        let entities = start(&cluster, n);
        cluster.tell_members();
        let of_it = cluster.nodes[&n].id.clone();
        let some = |homes: &Entities<Do>| {
            let homes = homes.homes();
            homes
                .values()
                .flatten()
                .filter(|home| **home == of_it)
                .count()
        };
        while some(&entities) < 8 {
            sleep(Duration::from_millis(10)).await;
        }
        cluster.begin_leave(n);
        entities.hand_over(SECOND * 20).await.unwrap();
    }
    ends.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for sender in senders {
        sent += sender.await.unwrap();
    }
    assert_eq!(ledger.check(), sent);
    assert!(ledger.all_starts() > 100, "{}", ledger.all_starts());
    for node in cluster.nodes.values() {
        assert_eq!(node.system.dead_letters().total(), 0);
    }
}

/// S5: a message that went past the region spares the entity, as one that went through it.
#[tokio::test(start_paused = true)]
async fn the_least_recently_used_one_is_the_one_without_messages() {
    let cluster = Cluster::started(12, 1).await;
    let ledger = Arc::new(Ledger::default());
    let three = config(Passivation::least_recently_used(3));
    let all = living_on(&cluster, 1, &ledger, &three).await;
    for (number, id) in (0..).zip(["a", "b", "c", "a", "d"]) {
        ask(&all[0], id, number).await;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ledger.alive(), ["a", "c", "d"]);
}

/// S5: and makes it more frequently used.
#[tokio::test(start_paused = true)]
async fn the_least_frequently_used_one_is_the_one_with_few_messages() {
    let cluster = Cluster::started(13, 1).await;
    let ledger = Arc::new(Ledger::default());
    let two = config(Passivation::least_frequently_used(2));
    let all = living_on(&cluster, 1, &ledger, &two).await;
    for (number, id) in (0..).zip(["a", "a", "a", "a", "b", "b", "c"]) {
        ask(&all[0], id, number).await;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ledger.alive(), ["a", "c"]);
}

/// S5: a busy entity is not idle, whichever node its messages come from, and one that was busy is idle at its
/// time, and no later.
#[tokio::test(start_paused = true)]
async fn an_entity_is_idle_from_its_last_message_on() {
    let cluster = Cluster::started(14, 2).await;
    let ledger = Arc::new(Ledger::default());
    let idle = config(Passivation::idle(SECOND * 60));
    let all = living_on(&cluster, 2, &ledger, &idle).await;
    for number in 0..30 {
        ask(&all[usize::from(number >= 10)], "busy", number).await;
        sleep(SECOND * 10).await;
    }
    assert_eq!(ledger.starts("busy"), 1);
    sleep(SECOND * 49).await;
    assert_eq!(ledger.alive(), ["busy"]);
    sleep(SECOND * 2).await;
    assert_eq!(ledger.alive(), [] as [String; 0]);
}
