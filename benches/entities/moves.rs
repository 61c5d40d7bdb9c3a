//! Moves: how long questions wait while shards move as planned; that none is lost, and order is kept.

use crate::cost::started;
use crate::entity::{Command, Kept};
use crate::{Found, millis, sized};
use otava::prelude::*;
use otava::{Ended, Entities};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SENDERS: u64 = 32;

/// Each sender asks entities of its own, one question after the other, and never twice: so an entity's
/// count tells whether one was lost, done twice, or overtaken.
async fn send(entities: Entities<Command>, sender: u64, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut counts = [0; 8];
    while !over.load(Ordering::Relaxed) {
        for (place, count) in counts.iter_mut().enumerate() {
            let entity = entities.entity(format!("{sender}-{place}"));
            let begin = Instant::now();
            let asked = entity.ask(|to| Command::Add(1, to));
            let said = asked.within(Duration::from_secs(30)).await.unwrap();
            waits.push(begin.elapsed());
            *count += 1;
            assert_eq!(said, *count, "sender {sender}, entity {place}");
        }
    }
    waits
}

/// Two nodes under load; a third comes, then the oldest leaves.
pub(crate) async fn planned(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let first = started(folder.path(), "node-1").await;
    let mut nodes = vec![first];
    let addr = nodes[0].id().addr;
    for name in ["node-2", "node-3"] {
        let node = Node::builder("bench", name).data(folder.path());
        nodes.push(node.seeds([addr]).start().await.unwrap());
    }
    let entities: Vec<_> = nodes
        .iter()
        .map(|node| node.entities::<Kept>(EntityOptions::default()).unwrap())
        .collect();
    for node in &nodes[..2] {
        node.join().await.unwrap();
    }
    entities[1].all_hosted().await;
    let over = Arc::new(AtomicBool::new(false));
    let senders =
        (0..SENDERS).map(|sender| tokio::spawn(send(entities[1].clone(), sender, over.clone())));
    let senders: Vec<_> = senders.collect();
    let pause = Duration::from_millis(sized(5_000, scale));
    tokio::time::sleep(pause).await;
    nodes[2].join().await.unwrap();
    let fair = entities[1].homes().len() / 3 - 1;
    let began = Instant::now();
    while entities[2].local_stats().shards < fair {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let balanced = began.elapsed();
    tokio::time::sleep(pause).await;
    let began = Instant::now();
    assert_eq!(nodes[0].leave().await, Ended::Left);
    let left = began.elapsed();
    tokio::time::sleep(pause).await;
    over.store(true, Ordering::Relaxed);
    let mut waits = Vec::new();
    for sender in senders {
        waits.extend(sender.await.unwrap());
    }
    for node in &nodes[1..] {
        node.leave().await;
    }
    let asked = waits.len() as f64;
    vec![
        ("asked", asked),
        ("balanced_s", balanced.as_secs_f64()),
        ("oldest_left_s", left.as_secs_f64()),
        ("wait_p50_ms", millis(&mut waits, 50)),
        ("wait_p99_ms", millis(&mut waits, 99)),
        ("wait_max_ms", millis(&mut waits, 100)),
    ]
}
