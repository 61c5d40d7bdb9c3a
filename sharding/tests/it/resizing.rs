//! Proves: the number of shards of a running kind can be doubled and halved, and is kept.

use crate::clusters::Whole;
use crate::support::{Cluster, Cmd, KIND, SECOND, SHARDS, addr, send_numbers};
use otava_sharding::{Entities, ResizeError, client};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(20);

/// Asks one entity after the other without a pause until told to stop; the longest wait, and how many
/// answers there were.
async fn longest_wait(entities: Entities<Cmd>, until: Instant) -> (Duration, u64) {
    let (mut longest, mut answers) = (Duration::ZERO, 0);
    while Instant::now() < until {
        let begin = Instant::now();
        let entity = entities.entity(format!("asked-{}", answers % 50));
        entity.ask(Cmd::Where).within(SECOND * 5).await.unwrap();
        longest = longest.max(begin.elapsed());
        answers += 1;
    }
    (longest, answers)
}

/// S9: under load the number of shards is doubled, quartered and doubled again: every message arrives once
/// and in order, nobody waits longer than for any planned move, and a client and a node that comes later
/// count as the others do.
#[tokio::test(start_paused = true)]
async fn shards_split_and_merge_under_load() {
    let mut cluster = Cluster::started(31, 3).await;
    cluster.slow.set_delay(Duration::from_millis(2));
    let outside = cluster.outsider(9);
    let client = client::<Cmd>(&outside, KIND, &[addr(2)], SHARDS).unwrap();
    let (rounds, ids) = (1_500, 30);
    let senders = [1u16, 3].map(|n| {
        let entities = cluster.entities(n).clone();
        tokio::spawn(send_numbers(entities, u32::from(n), rounds, ids))
    });
    let until = Instant::now() + SECOND * 7;
    let asking = tokio::spawn(longest_wait(cluster.entities(2).clone(), until));
    sleep(SECOND / 2).await;
    for shards in [SHARDS * 2, SHARDS / 2, SHARDS] {
        let entities = cluster.entities(2).clone();
        entities.resize(shards, LIMIT).await.unwrap();
        assert_eq!(entities.shards(), shards);
        assert_eq!(entities.homes().len(), shards as usize);
        let hosted: usize = cluster.counts().iter().sum();
        assert_eq!(hosted, shards as usize);
        sleep(SECOND).await;
        assert_eq!(client.shard_of("a"), entities.shard_of("a"));
        client.entity("a").ask(Cmd::Where).await.unwrap();
    }
    cluster.join(4);
    cluster.until_balanced().await;
    assert_eq!(cluster.entities(4).shards(), SHARDS);
    let (longest, answers) = asking.await.unwrap();
    assert!(
        longest <= Duration::from_millis(200),
        "{longest:?} of {answers}"
    );
    for sender in senders {
        sender.await.unwrap();
    }
    sleep(SECOND).await;
    cluster.journal.check();
    let rows = cluster.journal.rows().len() as u64;
    assert_eq!(rows, rounds * u64::from(ids) * 2);
    assert_eq!(*cluster.journal.refused.lock().unwrap(), 0);
}

/// S2, S9: over real memberships the node that coordinates dies right after it was told; the next one goes
/// on with the layout that it finds, and the wish of the node that lives is fulfilled.
#[tokio::test(start_paused = true)]
async fn a_wish_outlives_the_coordinator() {
    let whole = Whole::new(32);
    let mut nodes: Vec<_> = (1..=3).map(|n| whole.start(n)).collect();
    for node in &nodes {
        node.cluster.join().await.unwrap();
        node.entities.all_hosted().await;
    }
    sleep(SECOND * 10).await;
    let oldest = nodes[0].entities.coordinator().unwrap();
    let place = nodes.iter().position(|node| *node.cluster.me() == oldest);
    let victim = nodes.remove(place.unwrap());
    let entities = nodes[0].entities.clone();
    let resized = tokio::spawn(async move { entities.resize(SHARDS * 2, SECOND * 40).await });
    sleep(Duration::from_millis(8)).await;
    whole.crash(&victim);
    resized.await.unwrap().unwrap();
    for node in &nodes {
        assert_eq!(node.entities.shards(), SHARDS * 2);
        node.entities.entity("a").ask(Cmd::Where).await.unwrap();
    }
}

/// S9: after all nodes have stopped the number that was set last counts, whatever is configured; what cannot
/// be is refused.
#[tokio::test(start_paused = true)]
async fn the_number_that_was_set_outlives_all_nodes() {
    let mut before = Cluster::started(33, 2).await;
    let entities = before.entities(1).clone();
    for shards in [0, 3, 131_072] {
        let refused = entities.resize(shards, LIMIT).await;
        assert_eq!(refused, Err(ResizeError::BadShards(shards)));
    }
    entities.resize(SHARDS, LIMIT).await.unwrap();
    entities.resize(SHARDS * 2, LIMIT).await.unwrap();
    let id = "kept";
    entities.entity(id).ask(Cmd::Where).await.unwrap();
    before.leave(2).await;
    before.leave(1).await;
    let mut after = Cluster::new(34);
    (after.store, after.slow) = (before.store.clone(), before.slow.clone());
    after.config.shards = SHARDS / 4;
    after.join(1);
    after.entities(1).all_hosted().await;
    assert_eq!(after.entities(1).shards(), SHARDS * 2);
    let asked = after.entities(1).entity(id).ask(Cmd::Where);
    asked.await.unwrap();
    let put = after.entities(1).entity(id).ask(|reply_to| Cmd::Put {
        sender: 1,
        number: 1,
        reply_to: Some(reply_to),
    });
    assert_eq!(put.await, Ok(1), "its write is not fenced");
}
