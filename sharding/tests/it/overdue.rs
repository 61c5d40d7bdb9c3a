//! Proves: an entity that does not end keeps its shard for a limited time only, and does no harm later.

use crate::support::{Cluster, Cmd, KIND, SECOND, SHARDS, put};
use otava_actor::{AskError, DeadLetterReason};
use otava_sharding::{AllocationStore, Entities, ExternalAllocation};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// An id in this shard.
fn id_in(entities: &Entities<Cmd>, shard: u32, name: &str) -> String {
    let mut ids = (0..).map(|n: u32| format!("{name}-{n}"));
    ids.find(|id| entities.shard_of(id) == shard).unwrap()
}

async fn home_of(entities: &Entities<Cmd>, id: &str) -> Result<String, AskError> {
    entities.entity(id).ask(Cmd::Where).within(SECOND * 3).await
}

fn is_at(entities: &Entities<Cmd>, shard: u32, node: &str) -> bool {
    let home = entities.homes().remove(&shard).flatten();
    home.is_some_and(|home| &*home.name == node)
}

/// Waits until the shard is at home there.
async fn until_at(entities: &Entities<Cmd>, shard: u32, node: &str, limit: Duration) {
    let begin = Instant::now();
    while !is_at(entities, shard, node) {
        assert!(begin.elapsed() < limit, "{shard} is not at {node}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// S2: in every shard a handler never returns, and a node joins: shards move nevertheless, round after
/// round, until there is balance, and all entities of those answer on the new home.
#[tokio::test(start_paused = true)]
async fn handlers_that_never_return_stop_no_move() {
    let mut cluster = Cluster::new(31);
    cluster.config.stop_within = SECOND;
    cluster.join(1);
    cluster.until_balanced().await;
    let entities = cluster.entities(1).clone();
    let mut ids = Vec::new();
    for shard in 0..SHARDS {
        let hung = id_in(&entities, shard, "hung");
        let well = id_in(&entities, shard, "well");
        assert_eq!(home_of(&entities, &well).await.as_deref(), Ok("n1"));
        entities.entity(&hung).send(Cmd::Sleep(None)).await.unwrap();
        ids.push((shard, hung, well));
    }
    cluster.join(2);
    let begin = Instant::now();
    let moved = |(shard, ..): &(u32, String, String)| is_at(&entities, *shard, "n2");
    while !ids.iter().any(moved) {
        assert!(begin.elapsed() < SECOND * 5, "no shard moves");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(begin.elapsed() > SECOND, "they had their time");
    cluster.until_balanced().await;
    ids.retain(moved);
    assert_eq!(ids.len(), SHARDS as usize / 2);
    for (_, hung, well) in &ids {
        assert_eq!(home_of(&entities, well).await.as_deref(), Ok("n2"));
        assert_eq!(home_of(&entities, hung).await.as_deref(), Ok("n2"));
    }
}

/// S2: the same by a fence: somebody else has a later epoch, and the shard comes back to where a handler
/// of it does not return.
#[tokio::test(start_paused = true)]
async fn a_fenced_shard_comes_back_without_the_one_that_does_not_end() {
    let mut cluster = Cluster::new(32);
    cluster.config.stop_within = SECOND;
    cluster.join(1);
    cluster.until_balanced().await;
    let entities = cluster.entities(1).clone();
    let shard = entities.shard_of("hung");
    let well = id_in(&entities, shard, "well");
    let nap = Cmd::Sleep(Some(SECOND * 90));
    entities.entity("hung").send(nap).await.unwrap();
    let scope = format!("{KIND}/{}", SHARDS + shard);
    let term = cluster.store.next_term(KIND).await.unwrap();
    let foreign = (term << 32) + 7;
    cluster.store.claim(&scope, foreign).await.unwrap();
    assert!(put(&entities, &well).await.is_err(), "it is refused");
    let begin = Instant::now();
    while put(&entities, &well).await.is_err() {
        assert!(begin.elapsed() < SECOND * 30);
        sleep(Duration::from_millis(100)).await;
    }
    assert!(cluster.store.current(&scope) > foreign);
    let meanwhile = put(&entities, "hung").await;
    assert!(
        matches!(meanwhile, Err(AskError::NotStarted { .. })),
        "the one before lives: {meanwhile:?}"
    );
}

/// S2: the shard comes back to where an entity has not ended, which ends later: there are never two, no
/// message of before is handled, whoever asked is told, and the shard goes on as any other.
#[tokio::test(start_paused = true)]
async fn a_late_end_does_no_harm() {
    let places = ExternalAllocation::default();
    let mut cluster = Cluster::new(33);
    cluster.config = cluster.config.clone().strategy(places.clone());
    cluster.config.stop_within = SECOND * 4;
    cluster.join(1);
    cluster.until_balanced().await;
    let entities = cluster.entities(1).clone();
    cluster.join(2);
    let shard = entities.shard_of("hung");
    let well = id_in(&entities, shard, "well");
    places.place(shard, "n1");
    until_at(&entities, shard, "n1", SECOND * 10).await;
    let begin = Instant::now();
    let hung = entities.entity("hung");
    hung.send(Cmd::Sleep(Some(SECOND * 30))).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let (sender, number, reply_to) = (1, 1, None);
    let left = Cmd::Put {
        sender,
        number,
        reply_to,
    };
    hung.send(left).await.unwrap();
    let asked = tokio::spawn(async move { hung.ask(Cmd::Where).within(SECOND * 60).await });
    sleep(Duration::from_millis(100)).await;
    places.place(shard, "n2");
    until_at(&entities, shard, "n2", SECOND * 10).await;
    assert_eq!(put(&entities, "hung").await, Ok(1), "a new instance");
    assert_eq!(home_of(&entities, &well).await.as_deref(), Ok("n2"));
    places.place(shard, "n1");
    until_at(&entities, shard, "n1", SECOND * 5).await;
    assert_eq!(home_of(&entities, &well).await.as_deref(), Ok("n1"));
    let meanwhile = put(&entities, "hung").await;
    assert!(
        matches!(meanwhile, Err(AskError::NotStarted { .. })),
        "the one before lives: {meanwhile:?}"
    );
    assert!(!asked.is_finished());
    assert!(begin.elapsed() < SECOND * 29, "it has not ended yet");
    let answer = asked.await.unwrap();
    assert!(
        matches!(answer, Err(AskError::NoReply { .. })),
        "{answer:?}"
    );
    let letters = cluster.nodes[&1].system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::LeftInMailbox), 2);
    sleep(SECOND).await;
    assert_eq!(put(&entities, "hung").await, Ok(1), "a new instance");
    assert_eq!(home_of(&entities, "hung").await.as_deref(), Ok("n1"));
    places.place(shard, "n2");
    // Sooner than somebody is left behind.
    until_at(&entities, shard, "n2", SECOND * 3).await;
    assert_eq!(put(&entities, "hung").await, Ok(1));
    let rows = cluster.journal.rows();
    assert!(rows.iter().all(|row| row.sender == 0), "{rows:?}");
}
