//! Proves: entities stop when they are idle or too many, fail and come back, and nothing is lost by it.

use crate::living::{Do, Ledger, ask, count, living_on};
use crate::support::{Cluster, SECOND, SHARDS};
use otava_actor::{AskError, DeadLetterReason, Rng};
use otava_sharding::{Entities, Passivation, ShardingConfig};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

fn config(passivation: Passivation) -> ShardingConfig {
    ShardingConfig::default()
        .shards(SHARDS)
        .passivation(passivation)
}

/// Sends numbers to entities that are asked to stop all the time, by every way there is.
async fn race(entities: Entities<Do>, from: u64, seed: u64) {
    let mut rng = Rng::seeded(seed);
    for number in 0..5_000 {
        let entity = entities.entity(format!("e{from}-{}", rng.below(40)));
        entity.send(count(number)).await.unwrap();
        match rng.below(8) {
            0 => entity.send(Do::Passivate).await.unwrap(),
            1 => entity.send(Do::Stop).await.unwrap(),
            2 => tokio::task::yield_now().await,
            _ => {}
        }
    }
}

/// S5: entities are passivated, are too many, and stop by themselves, while messages come from three
/// nodes and shards move: each message is handled once and in order, by one instance at a time, none
/// by one that has ended.
#[tokio::test(start_paused = true)]
async fn races_of_messages_and_passivation_lose_nothing() {
    for seed in 0..3 {
        let mut cluster = Cluster::started(seed, 3).await;
        let ledger = Arc::new(Ledger::default());
        let few = Passivation::least_recently_used(10).idle_after(Duration::from_millis(2));
        let all = living_on(&cluster, 3, &ledger, &config(few)).await;
        let senders = (0..)
            .zip(&all)
            .map(|(from, entities)| tokio::spawn(race(entities.clone(), from, seed * 10 + from)));
        let senders: Vec<_> = senders.collect();
        sleep(Duration::from_millis(20)).await;
        cluster.begin_leave(3);
        all[2].hand_over(SECOND * 20).await.unwrap();
        for sender in senders {
            sender.await.unwrap();
        }
        sleep(SECOND * 5).await;
        assert_eq!(ledger.check(), 15_000, "seed {seed}");
        assert!(ledger.all_starts() > 1_000, "{}", ledger.all_starts());
        assert_eq!(ledger.alive(), [] as [String; 0], "all are idle");
        assert_eq!(cluster.nodes[&1].system.dead_letters().total(), 0);
    }
}

/// S5: the same on threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_on_threads_lose_nothing() {
    let mut cluster = Cluster::new(7);
    cluster.add(1);
    cluster.tell_members();
    let ledger = Arc::new(Ledger::default());
    let few = config(Passivation::least_frequently_used(10));
    let all = living_on(&cluster, 1, &ledger, &few).await;
    let senders = (0..4).map(|from| tokio::spawn(race(all[0].clone(), from, 70 + from)));
    let senders: Vec<_> = senders.collect();
    for sender in senders {
        sender.await.unwrap();
    }
    // What an entity has when it is asked comes before the answer.
    for from in 0..4 {
        for id in 0..40 {
            ask(&all[0], &format!("e{from}-{id}"), 5_000).await;
        }
    }
    assert_eq!(ledger.check(), 20_000 + 160);
    assert!(ledger.all_starts() > 200, "{}", ledger.all_starts());
}

/// S5: an idle entity stops at its time, and its next message starts it.
#[tokio::test(start_paused = true)]
async fn idle_entities_stop() {
    let cluster = Cluster::started(1, 1).await;
    let ledger = Arc::new(Ledger::default());
    let all = living_on(&cluster, 1, &ledger, &config(Passivation::default())).await;
    let entities = &all[0];
    assert_eq!(ask(entities, "a", 1).await, 1);
    sleep(SECOND * 100).await;
    assert_eq!(ask(entities, "a", 2).await, 1);
    sleep(SECOND * 119).await;
    assert_eq!(entities.local_stats().entities, 1);
    sleep(SECOND * 2).await;
    assert_eq!(entities.local_stats().entities, 0);
    assert_eq!(ask(entities, "a", 3).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_by_memory_stops_those_that_were_used_long_ago() {
    let cluster = Cluster::started(2, 1).await;
    let ledger = Arc::new(Ledger::default());
    let all = living_on(&cluster, 1, &ledger, &config(Passivation::memory(1_000))).await;
    for (number, id) in (0..).zip(["a", "b", "c", "d"]) {
        ask(&all[0], id, number).await;
        all[0].entity(id).send(Do::Hold(300)).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ledger.alive(), ["b", "c", "d"]);
    all[0].entity("b").send(Do::Hold(900)).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(ledger.alive(), ["b"]);
    assert_eq!(all[0].local_stats().entities, 1);
}

/// S6: an entity that fails comes back after a wait that grows; what is sent meanwhile waits, within its
/// bound, and who asks beyond it is told at once.
#[tokio::test(start_paused = true)]
async fn a_failed_entity_comes_back_and_messages_wait() {
    let cluster = Cluster::started(3, 1).await;
    let ledger = Arc::new(Ledger::default());
    let mut config = config(Passivation::never());
    config.buffer_per_shard_max = 10;
    let all = living_on(&cluster, 1, &ledger, &config).await;
    let entity = all[0].entity("a");
    entity.start().unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ledger.starts("a"), 1);
    entity.send(Do::Fail).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    for number in 1..=12 {
        entity.send(count(number)).await.unwrap();
    }
    let begin = tokio::time::Instant::now();
    let refused = entity.ask(|reply_to| Do::Count {
        number: 13,
        reply_to: Some(reply_to),
    });
    assert!(matches!(refused.await, Err(AskError::Full { .. })));
    assert!(begin.elapsed() < Duration::from_millis(10));
    assert_eq!(all[0].local_stats().waiting, 10);
    let letters = cluster.nodes[&1].system.dead_letters().clone();
    assert_eq!(letters.count(DeadLetterReason::RefusedFull), 3);
    sleep(Duration::from_millis(150)).await;
    assert_eq!(ledger.starts("a"), 1, "too early");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(ledger.handled("a"), (1..=10).collect::<Vec<_>>());
    // While it does not get well the waits grow.
    ledger.sick.store(true, Ordering::Relaxed);
    entity.send(Do::Fail).await.unwrap();
    for second in 0..60 {
        let number = 20 + second;
        let _ = entity.tell(count(number));
        sleep(SECOND).await;
    }
    let starts = ledger.starts("a");
    assert!((8..16).contains(&starts), "{starts}");
    ledger.sick.store(false, Ordering::Relaxed);
    let _ = entity.tell(count(100));
    sleep(SECOND * 13).await;
    assert_eq!(ledger.handled("a").last(), Some(&100));
    ledger.check();
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// What an idle entity costs: run it alone, `cargo test --release .. -- --ignored --nocapture idle_entity`.
#[tokio::test(start_paused = true)]
#[ignore = "prints figures"]
#[expect(clippy::print_stdout, reason = "what it is for")]
async fn figures_of_an_idle_entity() {
    let cluster = Cluster::started(1, 1).await;
    let ledger = Arc::new(Ledger::default());
    let entities = 100_000_u64;
    let all = living_on(&cluster, 1, &ledger, &config(Passivation::default())).await;
    let (before, begin) = (resident(), std::time::Instant::now());
    for id in 0..entities {
        all[0]
            .entity(format!("e{id}"))
            .send(Do::Idle)
            .await
            .unwrap();
    }
    ask(&all[0], "last", 1).await;
    let took = begin.elapsed() / entities as u32;
    let bytes = (resident() - before) / entities;
    println!("{bytes} bytes and {took:?} an entity");
    assert!(bytes < 1_024, "{bytes}");
}
