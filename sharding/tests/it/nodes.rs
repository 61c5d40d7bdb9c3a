//! Proves: entities are reached over real regions and a network, and survive what happens to nodes.

use crate::support::{Cluster, Cmd, KIND, SECOND, SHARDS, addr, put, send_numbers};
use otava_actor::{AskError, DeadLetterReason};
use otava_sharding::{AllocationStore, ExternalAllocation, LeastLoad, StartError, client};
use std::collections::BTreeSet;
use std::time::Duration;

/// S1: every node reaches every entity, each of which runs once.
#[tokio::test(start_paused = true)]
async fn every_node_reaches_every_entity() {
    let cluster = Cluster::started(1, 3).await;
    let counts = cluster.counts();
    assert_eq!(counts.iter().sum::<usize>(), SHARDS as usize);
    let mut seen = BTreeSet::new();
    for id in 0..50 {
        let id = format!("id/{id}~%$");
        let homes = cluster.entities(1).homes();
        let home = homes[&cluster.entities(1).shard_of(&id)].clone().unwrap();
        for n in 1..=3 {
            let entity = cluster.entities(n).entity(&id);
            let node = entity.ask(Cmd::Where).await.unwrap();
            assert_eq!(node, *home.name);
            seen.insert(node);
        }
    }
    assert_eq!(seen.len(), 3);
    let entities: usize = (1..=3)
        .map(|n| cluster.entities(n).local_stats().entities)
        .sum();
    assert_eq!(entities, 50);
    let coordinator = cluster.entities(3).coordinator().unwrap();
    assert_eq!(coordinator, cluster.nodes[&1].id);
    let letters = cluster.nodes[&1].system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::LeftInMailbox), 0);
}

/// S1: nodes join and leave under load: nothing is lost, nothing comes twice, order is kept.
#[tokio::test(start_paused = true)]
async fn planned_moves_lose_nothing_and_keep_order() {
    for seed in 0..3 {
        let mut cluster = Cluster::started(seed, 3).await;
        let (rounds, ids) = (300, 40);
        let senders: Vec<_> = [2u16, 3]
            .map(|n| {
                let entities = cluster.entities(n).clone();
                tokio::spawn(send_numbers(entities, u32::from(n), rounds, ids))
            })
            .into();
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.join(4);
        cluster.until_balanced().await;
        cluster.leave(1).await;
        cluster.until_balanced().await;
        for sender in senders {
            sender.await.unwrap();
        }
        tokio::time::sleep(SECOND).await;
        cluster.journal.check();
        let rows = cluster.journal.rows().len() as u64;
        assert_eq!(rows, rounds * u64::from(ids) * 2, "seed {seed}");
        assert_eq!(*cluster.journal.refused.lock().unwrap(), 0);
    }
}

/// S2: a node dies, the coordinator first and then another: all entities answer soon after it is
/// downed, and no number is written twice.
#[tokio::test(start_paused = true)]
async fn entities_answer_again_after_crashes() {
    let mut cluster = Cluster::started(5, 4).await;
    for victim in [1, 3] {
        let entities = cluster.entities(2).clone();
        let sender = tokio::spawn(send_numbers(entities, u32::from(victim), 300, 20));
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.crash(victim);
        tokio::time::sleep(SECOND).await;
        cluster.down(victim);
        let entities = cluster.entities(4).clone();
        for id in 0..200 {
            let answer = put(&entities, &format!("after-{victim}-{id}")).await;
            assert!(answer.is_ok(), "{id}: {answer:?}");
        }
        sender.await.unwrap();
    }
    tokio::time::sleep(SECOND).await;
    cluster.until_balanced().await;
    let rows = cluster.journal.rows();
    let numbered = rows.iter().filter(|row| row.sender > 0);
    let keys: Vec<_> = numbered
        .map(|row| (&row.id, row.sender, row.number))
        .collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert!(keys.len() > 6_000, "{}", keys.len());
}

/// L1: an entity that fails is started anew by its next message; one that stops by itself as well,
/// and what was sent meanwhile is not lost.
#[tokio::test(start_paused = true)]
async fn an_entity_that_ended_starts_again() {
    let cluster = Cluster::started(6, 2).await;
    let entities = cluster.entities(1);
    for id in ["a", "b", "c", "d"] {
        assert_eq!(put(entities, id).await, Ok(1));
        assert_eq!(put(entities, id).await, Ok(2));
        entities.entity(id).send(Cmd::Fail).await.unwrap();
        tokio::time::sleep(SECOND).await;
        assert_eq!(put(entities, id).await, Ok(1));
        entities.entity(id).send(Cmd::Stop).await.unwrap();
        let meanwhile = put(entities, id).await;
        assert!(
            meanwhile.is_ok(),
            "by the old or a new instance: {meanwhile:?}"
        );
        tokio::time::sleep(SECOND).await;
        entities.entity(id).send(Cmd::Stop).await.unwrap();
        tokio::time::sleep(SECOND).await;
        assert_eq!(put(entities, id).await, Ok(1), "a new instance");
    }
}

/// An entity that does not start: who asks learns it at once.
#[tokio::test(start_paused = true)]
async fn an_entity_that_cannot_start_answers_nobody() {
    let cluster = Cluster::started(7, 2).await;
    let before = tokio::time::Instant::now();
    let long = "x".repeat(513);
    for id in [
        "broken-1", "broken-2", "broken-3", "panic-1", "panic-2", "", &long,
    ] {
        let answer = put(cluster.entities(1), id).await;
        let as_expected = match id.split_once('-') {
            Some(("panic", _)) => matches!(answer, Err(AskError::NotStarted { .. })),
            // It was started, and failed.
            Some(_) => matches!(answer, Err(AskError::NoReply { .. })),
            None => matches!(answer, Err(AskError::Unreachable { .. })),
        };
        assert!(as_expected, "{id}: {answer:?}");
    }
    assert!(before.elapsed() < SECOND);
    assert_eq!(put(cluster.entities(1), &"x".repeat(512)).await, Ok(1));
}

/// S8: somebody else has a later epoch: the write is refused, the shard is given up, and comes back
/// by a new term with a higher epoch.
#[tokio::test(start_paused = true)]
async fn a_fenced_shard_is_given_up_and_comes_back() {
    let cluster = Cluster::started(8, 2).await;
    let entities = cluster.entities(1);
    assert_eq!(put(entities, "a").await, Ok(1));
    let scope = format!("{KIND}/{}", SHARDS + entities.shard_of("a"));
    let term = cluster.store.next_term(KIND).await.unwrap();
    let foreign = (term << 32) + 7;
    cluster.store.claim(&scope, foreign).await.unwrap();
    assert!(put(entities, "a").await.is_err());
    assert_eq!(*cluster.journal.refused.lock().unwrap(), 1);
    let back = async {
        while put(entities, "a").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SECOND * 30, back).await.unwrap();
    assert!(cluster.store.current(&scope) > foreign);
    assert_eq!(
        cluster.journal.rows().last().unwrap().epoch,
        cluster.store.current(&scope)
    );
}

/// S7: with the coordinator away messages wait, within an exact bound, what is over it is counted;
/// they are delivered as soon as the home is known.
#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_delivered_at_once() {
    let mut cluster = Cluster::new(9);
    cluster.config.buffer_per_shard_max = 100;
    cluster.config.buffer_max = 150;
    cluster.add(1);
    let entities = cluster.entities(1).clone();
    let other = (0..).map(|n| format!("o{n}"));
    let other = other.filter(|id| entities.shard_of(id) != entities.shard_of("a"));
    let other = other.into_iter().next().unwrap();
    for id in ["a", &other] {
        for number in 1..=110 {
            let cmd = Cmd::Put {
                sender: 1,
                number,
                reply_to: None,
            };
            entities.entity(id).send(cmd).await.unwrap();
        }
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(entities.local_stats().buffered, 150);
    let letters = cluster.nodes[&1].system.dead_letters().clone();
    assert_eq!(letters.count(DeadLetterReason::RefusedFull), 70);
    cluster.tell_members();
    entities.all_hosted().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.journal.rows().len(), 150);
    cluster.journal.check();
}

/// S7: a million messages while nobody coordinates, to all shards and to one: as many wait as may, all
/// others are counted, and what waits is on its way within 100 ms of the homes being known.
#[tokio::test(start_paused = true)]
async fn a_million_messages_wait_within_bounds() {
    for (ids, bound) in [(2_000, 100_000), (1, 10_000)] {
        let mut cluster = Cluster::new(16);
        cluster.add(1);
        let entities = cluster.entities(1).clone();
        let of = |n: u64| entities.entity(format!("e{}", n % ids));
        let targets: Vec<_> = (0..ids).map(of).collect();
        let sent = if ids == 1 { 100_000 } else { 1_000_000 };
        for number in 0..sent {
            let cmd = Cmd::Put {
                sender: 1,
                number: number / ids + 1,
                reply_to: None,
            };
            let target = &targets[(number % ids) as usize];
            target.send(cmd).await.unwrap();
        }
        tokio::time::sleep(SECOND).await;
        assert_eq!(entities.local_stats().buffered, bound);
        let letters = cluster.nodes[&1].system.dead_letters().clone();
        let dropped = letters.count(DeadLetterReason::RefusedFull);
        assert_eq!(dropped, sent - bound as u64);
        cluster.tell_members();
        entities.all_hosted().await;
        let begin = tokio::time::Instant::now();
        while entities.local_stats().buffered > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(begin.elapsed() <= Duration::from_millis(100));
        tokio::time::sleep(SECOND * 60).await;
        assert_eq!(cluster.journal.rows().len(), bound);
        cluster.journal.check();
    }
}

/// S8: the coordinator is cut off and replaced while the store takes ten seconds for each answer. It goes
/// on deciding and writing all that time, and when it wakes up its claims and its writes are refused.
#[tokio::test(start_paused = true)]
async fn a_replaced_coordinator_behind_a_slow_store_is_refused() {
    let mut cluster = Cluster::started(17, 3).await;
    let old = cluster.entities(1).clone();
    let here = |id: &String| {
        let home = old.homes()[&old.shard_of(id)].clone();
        home.is_some_and(|home| &*home.name == "n1")
    };
    let mine: Vec<String> = (0..200).map(|n| format!("e{n}")).filter(here).collect();
    let id = &mine[0];
    assert_eq!(put(&old, id).await, Ok(1));
    cluster.slow.set_delay(SECOND * 10);
    cluster.world.isolate(addr(1));
    let asleep = cluster.down_behind(1);
    // Nobody else has claimed its shards yet, so its writes count.
    assert_eq!(put(&old, id).await, Ok(2));
    assert_eq!(*cluster.journal.refused.lock().unwrap(), 0);
    let entities = cluster.entities(2).clone();
    let begin = tokio::time::Instant::now();
    while put(&entities, id).await.is_err() {
        // Taking over asks the store four times, and the shard once more.
        assert!(begin.elapsed() < SECOND * 60);
    }
    assert!(begin.elapsed() > SECOND * 50, "the store was slow");
    // It wakes up. It has not heard of anything.
    assert_eq!(asleep.entities.coordinator().as_ref(), Some(&asleep.id));
    assert!(put(&old, id).await.is_err());
    assert_eq!(*cluster.journal.refused.lock().unwrap(), 1);
    let scope = format!("{KIND}/{}", SHARDS + old.shard_of(id));
    let epoch = cluster.store.current(&scope);
    assert!(epoch >> 32 >= 2, "by the term of the new coordinator");
    // It tries to start the shard anew by its own term, which takes the slow store ten seconds.
    tokio::time::sleep(SECOND * 14).await;
    assert!(put(&old, id).await.is_err());
    assert_eq!(cluster.store.current(&scope), epoch);
    asleep.system.shutdown().await;
    cluster.slow.set_delay(Duration::ZERO);
    assert!(put(&entities, id).await.is_ok());
    let rows = cluster.journal.rows();
    let of_id = rows.iter().filter(|row| row.id == *id);
    let nodes: Vec<&str> = of_id.map(|row| &*row.node).collect();
    assert_eq!(nodes[..2], ["n1", "n1"]);
    assert!(nodes[2..].iter().all(|node| *node != "n1"), "{nodes:?}");
}

/// A client that is no member, through one contact and, when that is gone, through the next.
#[tokio::test(start_paused = true)]
async fn a_client_reaches_entities_through_contacts() {
    let mut cluster = Cluster::started(10, 3).await;
    let remote = cluster.outsider(9);
    let contacts = [addr(3), addr(2)];
    let client = client::<Cmd>(&remote, KIND, &contacts, SHARDS).unwrap();
    for id in 0..40 {
        let id = format!("e{id}");
        let node = client.entity(&id).ask(Cmd::Where).await.unwrap();
        let shard = client.shard_of(&id);
        let home = cluster.entities(1).homes()[&shard].clone().unwrap();
        assert_eq!(node, *home.name);
    }
    cluster.crash(3);
    cluster.down(3);
    // Until its silence is noticed.
    tokio::time::sleep(SECOND * 3).await;
    for id in 0..40 {
        let id = format!("e{id}");
        let asked = client.entity(&id).ask(Cmd::Where).within(SECOND * 3);
        assert_ne!(asked.await.unwrap(), "n3");
    }
    for number in 1..=100 {
        let cmd = Cmd::Put {
            sender: 1,
            number,
            reply_to: None,
        };
        client.entity("told").tell(cmd).unwrap();
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(cluster.journal.rows().len(), 100);
    cluster.journal.check();
}

/// C2: the last node leaves: its entities handle what they have and stop.
#[tokio::test(start_paused = true)]
async fn the_last_node_can_leave_too() {
    let mut cluster = Cluster::started(11, 2).await;
    for id in 0..20 {
        put(cluster.entities(2), &format!("e{id}")).await.unwrap();
    }
    cluster.leave(2).await;
    assert_eq!(put(cluster.entities(1), "e1").await.map(|_| ()), Ok(()));
    cluster.leave(1).await;
}

/// A hand-over that cannot be done in time says what is still here.
#[tokio::test(start_paused = true)]
async fn a_hand_over_says_what_it_left() {
    let cluster = Cluster::started(12, 1).await;
    let left = cluster.entities(1).hand_over(SECOND).await.unwrap_err();
    assert_eq!((left.shards, left.buffered), (SHARDS as usize, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kind_starts_once_and_with_sensible_settings() {
    let mut cluster = Cluster::new(13);
    let remote = cluster.outsider(9);
    for shards in [0, 3, 131_072] {
        let refused = client::<Cmd>(&remote, KIND, &[addr(1)], shards);
        assert_eq!(refused.unwrap_err(), StartError::BadShards(shards));
    }
    let nobody = client::<Cmd>(&remote, KIND, &[], 1);
    assert_eq!(nobody.unwrap_err(), StartError::NoContacts);
    cluster.join(1);
    let error = cluster.start_again(1, KIND).unwrap_err();
    assert!(matches!(error, StartError::Spawn(_)), "{error}");
    let error = cluster.start_again(1, "a/b").unwrap_err();
    assert_eq!(error, StartError::BadKind("a/b".to_owned()));
    cluster.start_again(1, "other").unwrap();
}

/// S4: busy shards leave the node that has too many of them, and stay then.
#[tokio::test(start_paused = true)]
async fn shards_move_by_what_they_carry() {
    let mut cluster = Cluster::new(14);
    cluster.config = cluster.config.clone().strategy(LeastLoad {
        measure_every: SECOND,
        ..LeastLoad::default()
    });
    for n in 1..=2 {
        cluster.add(n);
    }
    cluster.tell_members();
    cluster.until_balanced().await;
    let entities = cluster.entities(1).clone();
    let home = |id: &str| entities.homes()[&entities.shard_of(id)].clone();
    let mut shards = BTreeSet::new();
    let ids = (0..).map(|n| format!("busy-{n}"));
    let mut busy: Vec<String> = Vec::new();
    for id in ids {
        let here = home(&id).as_ref() == Some(&cluster.nodes[&1].id);
        if here && shards.insert(entities.shard_of(&id)) {
            busy.push(id);
        }
        if busy.len() == 6 {
            break;
        }
    }
    let mut moves = Vec::new();
    for number in 1..=4_000 {
        for id in &busy {
            let cmd = Cmd::Put {
                sender: 1,
                number,
                reply_to: None,
            };
            entities.entity(id).send(cmd).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let homes: Vec<_> = busy.iter().filter_map(|id| home(id)).collect();
        if homes.len() == busy.len() && moves.last() != Some(&homes) {
            moves.push(homes);
        }
    }
    let last = moves.last().unwrap();
    let here = last
        .iter()
        .filter(|at| **at == cluster.nodes[&1].id)
        .count();
    assert_eq!(here, 3, "{moves:?}");
    assert!(moves.len() <= 4, "no shard comes back: {moves:?}");
    tokio::time::sleep(SECOND).await;
    cluster.journal.check();
    assert_eq!(cluster.journal.rows().len(), 4_000 * busy.len());
}

/// S4: shards live where somebody says at run time, also under the next coordinator.
#[tokio::test(start_paused = true)]
async fn shards_live_where_they_are_told_to() {
    let homes = ExternalAllocation::default();
    let mut cluster = Cluster::new(15);
    cluster.config = cluster.config.clone().strategy(homes.clone());
    for n in 1..=3 {
        cluster.add(n);
    }
    cluster.tell_members();
    cluster.until_balanced().await;
    let entities = cluster.entities(3).clone();
    let shards: Vec<u32> = entities.homes().into_keys().take(16).collect();
    for shard in &shards {
        homes.place(*shard, "n2");
    }
    tokio::time::sleep(SECOND * 15).await;
    let at = |shard: &u32| entities.homes()[shard].clone().unwrap().name.to_string();
    assert!(shards.iter().all(|shard| at(shard) == "n2"));
    cluster.leave(1).await;
    homes.place(shards[0], "n3");
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(at(&shards[0]), "n3");
    assert!(shards[1..].iter().all(|shard| at(shard) == "n2"));
}
