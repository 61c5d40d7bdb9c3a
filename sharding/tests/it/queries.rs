//! Proves: what lives where can be asked for, and references to entities travel in messages.

use crate::living::{Do, Ledger, ask, living_on};
use crate::support::{Cluster, SECOND, SHARDS, addr};
use otava_actor::AskError;
use otava_sharding::{QueryError, ShardingConfig, client};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

fn config() -> ShardingConfig {
    ShardingConfig::default().shards(SHARDS)
}

#[tokio::test(start_paused = true)]
async fn entities_of_all_shards_are_found_page_by_page() {
    let cluster = Cluster::started(1, 3).await;
    let ledger = Arc::new(Ledger::default());
    let all = living_on(&cluster, 3, &ledger, &config()).await;
    for id in 0..200 {
        ask(&all[id % 3], &format!("e{id:03}"), 1).await;
    }
    let mut found = BTreeSet::new();
    for shard in 0..SHARDS {
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = all[0]
                .ids_of(shard, after.as_deref(), 3, SECOND)
                .await
                .unwrap();
            assert!(page.ids.len() <= 3 && page.ids.is_sorted());
            for id in &page.ids {
                assert_eq!(all[0].shard_of(id), shard);
                assert!(found.insert(id.clone()), "{id} twice");
            }
            after = page.ids.last().cloned().or(after);
            if !page.more {
                break;
            }
        }
    }
    assert_eq!(found.len(), 200);
    let none = all[0].ids_of(SHARDS, None, 1, SECOND).await;
    assert!(matches!(none, Err(QueryError::NoSuchShard { .. })));
}

/// Who does not answer is named, with its shards; the others count.
#[tokio::test(start_paused = true)]
async fn statistics_name_who_is_silent() {
    let cluster = Cluster::started(2, 3).await;
    let ledger = Arc::new(Ledger::default());
    let all = living_on(&cluster, 3, &ledger, &config()).await;
    for id in 0..60 {
        ask(&all[0], &format!("e{id}"), 1).await;
        ask(&all[1], &format!("e{id}"), 2).await;
    }
    let stats = all[2].stats(SECOND).await;
    assert!(stats.is_complete() && stats.nodes.len() == 3, "{stats:?}");
    assert_eq!(stats.entities(), 60);
    let shards = stats.nodes.values().flat_map(|node| &node.shards);
    let (entities, handled) = shards.fold((0, 0), |(entities, handled), (_, of)| {
        (entities + of.entities, handled + of.handled)
    });
    assert_eq!((entities, handled), (60, 120));
    cluster.crash(3);
    let begin = tokio::time::Instant::now();
    let stats = all[0].stats(SECOND).await;
    assert!(begin.elapsed() <= SECOND * 2);
    let lost = &cluster.nodes[&3].id;
    assert_eq!(stats.nodes.len(), 2);
    let silent: Vec<_> = stats.silent.keys().collect();
    assert_eq!(silent, [lost]);
    let homes = all[0].homes();
    let there = homes.iter().filter(|(_, home)| home.as_ref() == Some(lost));
    assert_eq!(stats.silent[lost].len(), there.count());
    let shard = stats.silent[lost][0];
    let silent = all[0].ids_of(shard, None, 1, SECOND).await;
    assert!(
        matches!(silent, Err(QueryError::Silent { .. })),
        "{silent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn changes_of_homes_are_told() {
    let mut cluster = Cluster::started(3, 2).await;
    let ledger = Arc::new(Ledger::default());
    let all = living_on(&cluster, 2, &ledger, &config()).await;
    let mut homes = all[0].homes();
    let mut changes = all[0].changes();
    let left = cluster.nodes[&2].id.clone();
    cluster.begin_leave(2);
    all[1].hand_over(SECOND * 20).await.unwrap();
    sleep(SECOND).await;
    let mut moved = 0;
    while let Ok(change) = tokio::time::timeout(SECOND, changes.recv()).await {
        let change = change.unwrap();
        assert_eq!(
            homes.insert(change.shard, change.to.clone()),
            Some(change.from)
        );
        moved += u32::from(change.to.is_some());
    }
    assert_eq!(homes, all[0].homes());
    assert!(!homes.values().flatten().any(|home| *home == left));
    assert_eq!(moved, SHARDS / 2);
}

/// A reference in a message leads to the entity from wherever it is read; where its kind is not started,
/// the message is not understood.
#[tokio::test(start_paused = true)]
async fn references_to_entities_travel_in_messages() {
    let cluster = Cluster::started(4, 3).await;
    let ledger = Arc::new(Ledger::default());
    let all = living_on(&cluster, 3, &ledger, &config()).await;
    for number in 1..=30 {
        let from = all[number as usize % 3].entity(format!("from{number}"));
        let to = all[0].entity(format!("to{number}"));
        assert_eq!((to.kind(), to.id()), ("living", &*format!("to{number}")));
        from.send(Do::Pass(to, number)).await.unwrap();
    }
    sleep(SECOND).await;
    for number in 1..=30 {
        assert_eq!(ledger.handled(&format!("to{number}")), [number]);
    }
    let remote = cluster.outsider(9);
    let client = client::<Do>(&remote, "living", &[addr(1)], SHARDS).unwrap();
    let to = client.entity("of-a-client");
    client.entity("x").send(Do::Pass(to, 7)).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(ledger.handled("of-a-client"), [7]);
}

/// A kind that a node does not know: the message that names it is not understood there.
#[tokio::test(start_paused = true)]
async fn a_reference_of_an_unknown_kind_is_not_understood() {
    use otava_actor::{Actor, Context, ReplyTo};
    use otava_remote::RemoteMessage;
    use otava_sharding::EntityRef;
    use serde::{Deserialize, Serialize};

    #[derive(Deserialize, Serialize)]
    struct Take(
        EntityRef<Do>,
        #[serde(with = "otava_remote::wire")] ReplyTo<String>,
    );
    impl RemoteMessage for Take {
        const NAME: &'static str = "test.Take";
    }
    struct Taker;
    impl Actor for Taker {
        type Msg = Take;
        type Err = std::convert::Infallible;
        async fn handle(
            &mut self,
            Take(entity, reply_to): Take,
            _: &mut Context<Self>,
        ) -> Result<(), Self::Err> {
            let _ = reply_to.send(entity.id().to_owned());
            Ok(())
        }
    }

    let cluster = Cluster::started(5, 2).await;
    let ledger = Arc::new(Ledger::default());
    // Only the first node has the kind.
    let all = living_on(&cluster, 1, &ledger, &config()).await;
    let asked = |n: u16| {
        let node = &cluster.nodes[&n];
        let taker = node.system.spawn("taker", Taker).unwrap();
        node.remote.publish("taker", &taker).unwrap();
        let remote = &cluster.nodes[&1].remote;
        let taker = remote.resolve::<Take>(&node.id, "taker");
        let entity = all[0].entity("a");
        async move { taker.ask(|reply_to| Take(entity, reply_to)).await }
    };
    assert_eq!(asked(1).await.as_deref(), Ok("a"));
    let answer = asked(2).await;
    assert!(
        matches!(answer, Err(AskError::NotUnderstood { .. })),
        "{answer:?}"
    );
    sleep(Duration::from_millis(1)).await;
}
