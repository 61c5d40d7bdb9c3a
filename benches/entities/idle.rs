//! Idle: what a live entity costs that does nothing, and how long one takes to start.

use crate::cost::started;
use crate::entity::{Command, Plain};
use crate::{Found, resident, sized};
use otava::ShardingConfig;
use otava::actor::Ask;
use otava::prelude::*;
use otava_sharding::{MemoryAllocationStore, Sharding};
use std::sync::Arc;
use std::time::Instant;

/// Questions under way at once while entities are started.
const AT_ONCE: usize = 512;

pub(crate) async fn many(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let node = started(folder.path(), "node-1").await;
    let (store, config) = (
        Arc::new(MemoryAllocationStore::new()),
        ShardingConfig::default(),
    );
    let factory = |_| Props::new(Plain::default);
    let entities = Sharding::start(node.cluster(), "plain", store, config, factory).unwrap();
    node.join().await.unwrap();
    entities.all_hosted().await;
    let ask = async |from: u64, to: u64| {
        let mut under_way = std::collections::VecDeque::with_capacity(AT_ONCE);
        for n in from..to {
            if under_way.len() == AT_ONCE {
                let asked: Ask<_, u64> = under_way.pop_front().unwrap();
                asked.await.unwrap();
            }
            under_way.push_back(
                entities
                    .entity(format!("e-{n}"))
                    .ask(|to| Command::Add(1, to)),
            );
        }
        for asked in under_way {
            asked.await.unwrap();
        }
    };
    // What only the first ones need is there after these.
    let n = sized(100_000, scale);
    ask(0, n / 10).await;
    let (before, begin) = (resident(), Instant::now());
    ask(n / 10, n / 10 + n).await;
    let starting = begin.elapsed();
    let bytes = (resident() - before) / n as f64;
    let begin = Instant::now();
    ask(n / 10, n / 10 + n).await;
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
