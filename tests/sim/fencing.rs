//! Proves: a node that others have replaced cannot write, however long it believes in itself.

use crate::counter::Command;
use crate::fleet::{ENTITIES, Member, entity_of, options, start};
use crate::world::{World, addr, seed, settled};
use otava::{ClusterConfig, Entities, Journal, PersistentEntity};
use otava_persistence::PersistenceId;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TRY: Duration = Duration::from_millis(500);

async fn is_taken(counters: &Entities<Command>, n: u64) -> bool {
    let entity = counters.entity(entity_of(n));
    let asked = entity.ask(|reply_to| Command::Take(n, reply_to));
    asked.within(TRY).await.is_ok()
}

async fn written(world: &World) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for e in 0..ENTITIES {
        let id = PersistenceId::new(crate::counter::Counter::KIND, &entity_of(e));
        let page = world.journal.read(&id, 1, usize::MAX).await.unwrap();
        for event in page.events {
            let n = otava_persistence::format::decode(&event.record.payload).unwrap();
            assert!(all.insert(n), "{n} was written twice");
        }
    }
    all
}

/// S8: a node is cut off and does not notice for a minute. From the moment at which the majority has
/// its shards, what it is told is refused and not acknowledged, and its region gives the shards up.
#[tokio::test(start_paused = true)]
async fn a_replaced_node_acknowledges_nothing() {
    let mut world = World::new(seed(), 3);
    let mut members = Vec::new();
    for number in 1..=2 {
        members.push(start(&mut world, number).await);
    }
    let mut slow = ClusterConfig::default();
    slow.stable_after = Some(Duration::from_secs(60));
    let node = world.start_with(3, slow).await;
    let counters = node.entities::<crate::counter::Counter>(options()).unwrap();
    members.push(Member { node, counters });
    for member in &members {
        member.node.join().await.unwrap();
    }
    // The third has its share, and entities that run.
    while members[2].counters.local_stats().shards < 4 {
        sleep(Duration::from_millis(50)).await;
    }
    let mut acknowledged = BTreeSet::new();
    for n in 0..ENTITIES {
        assert!(is_taken(&members[2].counters, n).await);
        acknowledged.insert(n);
    }
    let lost = &members[2];
    assert!(lost.counters.local_stats().entities > 0);

    world.net.isolate(addr(3));
    let mut next = ENTITIES;
    let replaced = async {
        settled(&members[0].node, 2).await;
        members[0].counters.all_hosted().await;
        let of_lost = |home: &Option<_>| home.as_ref() == Some(lost.node.id());
        while members[0].counters.homes().values().any(of_lost) {
            sleep(Duration::from_millis(10)).await;
        }
        for e in 0..ENTITIES {
            while !is_taken(&members[0].counters, 1_000_000 * ENTITIES + e).await {}
        }
    };
    let goes_on = async {
        loop {
            if is_taken(&lost.counters, next).await {
                acknowledged.insert(next);
            }
            next += 1;
            sleep(Duration::from_millis(5)).await;
        }
    };
    let before = acknowledged_while(replaced, goes_on).await;
    assert!(before < Duration::from_secs(12), "{before:?}");
    let of_cut = acknowledged.len() as u64 - ENTITIES;
    assert!(of_cut > 3, "{of_cut} acknowledged while it was cut off");

    // Its entities are still told things, but the shards are no longer its own.
    let from = next + 1;
    for n in from..from + 2 * ENTITIES {
        assert!(!is_taken(&lost.counters, n).await, "{n} was acknowledged");
    }
    assert_eq!(lost.counters.local_stats().entities, 0);
    assert_eq!(lost.node.state().up().count(), 3, "it knows of nothing");
    let written = written(&world).await;
    let missing: Vec<_> = acknowledged.difference(&written).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(written.range(from..1_000_000 * ENTITIES).next().is_none());
}

/// Runs the second until the first is done; says how long that took.
async fn acknowledged_while(done: impl Future, goes_on: impl Future) -> Duration {
    let began = Instant::now();
    tokio::select! {
        biased;
        _ = done => {}
        _ = goes_on => unreachable!("it has no end"),
    }
    began.elapsed()
}
