//! Cost: what asking an entity costs beside asking an actor, and what keeping an event does.

use crate::entity::{Command, Kept, Plain};
use crate::{Found, sized};
use otava::prelude::*;
use otava::{AskError, Entities, Journal, ShardingConfig};
use otava_persistence::{AppendRequest, EventRecord, PersistenceId};
use otava_sharding::{AllocationStore, MemoryAllocationStore, Sharding};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Askers at once, each with a question under way.
const AT_ONCE: u64 = 64;
const ENTITIES: u64 = 1_000;

pub(crate) async fn started(data: &Path, name: &str) -> Node {
    let node = Node::builder("bench", name).data(data);
    node.start().await.unwrap()
}

fn plain(node: &Node, store: Arc<dyn AllocationStore>) -> Entities<Command> {
    let config = ShardingConfig::default();
    let factory = |_| Props::new(Plain::default);
    Sharding::start(node.cluster(), "plain", store, config, factory).unwrap()
}

/// Runs `at_once` askers until each has asked its part of `n`; returns nanoseconds a question.
async fn nanos<F>(n: u64, at_once: u64, ask: impl Fn(u64) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = Result<u64, AskError>> + Send,
{
    let begin = Instant::now();
    let askers = (0..at_once).map(|asker| {
        let ask = ask.clone();
        tokio::spawn(async move {
            for turn in 0..n / at_once {
                ask(turn * at_once + asker).await.unwrap();
            }
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await.unwrap();
    }
    begin.elapsed().as_nanos() as f64 / (n / at_once * at_once) as f64
}

/// Asks both ways in turns, three times, and compares the best of each: one at a time, and many at once.
async fn compared<F, G>(
    n: u64,
    entity: impl Fn(u64) -> F + Clone + Send + 'static,
    actor: impl Fn(u64) -> G + Clone + Send + 'static,
) -> Found
where
    F: Future<Output = Result<u64, AskError>> + Send,
    G: Future<Output = Result<u64, AskError>> + Send,
{
    let mut best = [f64::INFINITY; 4];
    nanos(ENTITIES, 1, entity.clone()).await;
    for _ in 0..3 {
        best[0] = best[0].min(nanos(n / 4, 1, entity.clone()).await);
        best[1] = best[1].min(nanos(n / 4, 1, actor.clone()).await);
        best[2] = best[2].min(nanos(n, AT_ONCE, entity.clone()).await);
        best[3] = best[3].min(nanos(n, AT_ONCE, actor.clone()).await);
    }
    vec![
        ("entity_ns", best[0]),
        ("actor_ns", best[1]),
        ("ratio", best[0] / best[1]),
        ("entity_at_once_ns", best[2]),
        ("actor_at_once_ns", best[3]),
        ("ratio_at_once", best[2] / best[3]),
    ]
}

pub(crate) async fn ask_local(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let node = started(folder.path(), "node-1").await;
    let entities = plain(&node, Arc::new(MemoryAllocationStore::new()));
    node.join().await.unwrap();
    entities.all_hosted().await;
    let spawned = |n| {
        node.system()
            .spawn(&format!("plain-{n}"), Plain::default())
            .unwrap()
    };
    let actors = (0..ENTITIES).map(spawned);
    let actors: Arc<[_]> = actors.collect();
    let entities: Arc<[_]> = (0..ENTITIES)
        .map(|n| entities.entity(format!("e-{n}")))
        .collect();
    let place = |n: u64| usize::try_from(n % ENTITIES).unwrap();
    let of_entity = move |n| {
        entities[place(n)]
            .ask(|to| Command::Add(1, to))
            .into_future()
    };
    let of_actor = move |n| actors[place(n)].ask(|to| Command::Add(1, to)).into_future();
    let found = compared(sized(400_000, scale), of_entity, of_actor).await;
    node.leave().await;
    found
}

pub(crate) async fn ask_other_node(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let first = started(folder.path(), "node-1").await;
    let store: Arc<dyn AllocationStore> = Arc::new(MemoryAllocationStore::new());
    let _hosted = plain(&first, store.clone());
    let actor = first.system().spawn("plain", Plain::default()).unwrap();
    first.remote().publish("plain", &actor).unwrap();
    first.join().await.unwrap();
    let second = Node::builder("bench", "node-2").data(folder.path());
    let second = second.seeds([first.id().addr]).start().await.unwrap();
    let entities = plain(&second, store);
    second.join().await.unwrap();
    entities.all_hosted().await;
    // Only entities whose home stays the first node, so that every question goes over the wire.
    let homes = loop {
        let homes = entities.homes();
        let here = homes.values().flatten().filter(|home| *home == second.id());
        let balanced = here.count() * 2 >= homes.len() - 1;
        if balanced && homes.values().all(Option::is_some) {
            break homes;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let is_there = |id: &String| homes[&entities.shard_of(id)].as_ref() == Some(first.id());
    let there = (0..).map(|n| format!("e-{n}")).filter(is_there);
    let there: Arc<[_]> = there.take(100).map(|id| entities.entity(id)).collect();
    let actor = second.remote().resolve::<Command>(first.id(), "plain");
    let place = |n: u64| usize::try_from(n % 100).unwrap();
    let of_entity = move |n| there[place(n)].ask(|to| Command::Add(1, to)).into_future();
    let of_actor = move |_| actor.ask(|to| Command::Add(1, to)).into_future();
    let found = compared(sized(40_000, scale), of_entity, of_actor).await;
    second.leave().await;
    first.leave().await;
    found
}

/// Commands a second with one durable event each, beside bare appends of such events.
pub(crate) async fn durable(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let node = started(folder.path(), "node-1").await;
    let entities = node.entities::<Kept>(EntityOptions::default()).unwrap();
    node.join().await.unwrap();
    entities.all_hosted().await;
    let mut found = Found::new();
    let n = sized(40_000, scale);
    for (names, at_once) in [
        (["commands_64", "appends_64", "ratio_64"], 64),
        (["commands_256", "appends_256", "ratio_256"], 256),
    ] {
        let asked = entities.clone();
        let entity = move |n: u64| {
            let id = format!("e-{}", n % at_once);
            asked.entity(id).ask(|to| Command::Add(1, to)).into_future()
        };
        let commands = 1e9 / nanos(n, at_once, entity).await;
        let appends = 1e9 / appends(node.journal(), n, at_once).await;
        found.extend(
            names
                .into_iter()
                .zip([commands, appends, commands / appends]),
        );
    }
    node.leave().await;
    found
}

async fn appends(journal: &Arc<dyn Journal>, n: u64, at_once: u64) -> f64 {
    let begin = Instant::now();
    let writers = (0..at_once).map(|writer| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let id = PersistenceId::new("bare", &format!("{at_once}-{writer}"));
            for seq in 0..n / at_once {
                let event = EventRecord::new("bench.Event", 1, vec![7; 193]);
                let request = AppendRequest::new(id.clone(), seq, vec![event]);
                journal.append(request).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    begin.elapsed().as_nanos() as f64 / (n / at_once * at_once) as f64
}
