//! Proves: acknowledged commands survive splits, crashes, joins and leaves, each counted once.

use crate::counter::{Command, Counter};
use crate::world::{World, addr, seed, settled};
use otava::prelude::*;
use otava::{ClusterConfig, Ended, Entities, ShardingConfig, Status, Strategy};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{sleep, timeout};

const ENTITIES: u64 = 24;
const TRY: Duration = Duration::from_secs(1);

fn options() -> EntityOptions {
    EntityOptions::default().sharding(ShardingConfig::default().shards(16))
}

struct Member {
    node: Node,
    counters: Entities<Command>,
}

async fn start(world: &mut World, number: u16) -> Member {
    let node = world.start(number).await;
    let counters = node.entities::<Counter>(options()).unwrap();
    Member { node, counters }
}

/// Starts the nodes 1 to `count`, and waits until they are up and every shard has a home.
async fn started(world: &mut World, count: u16) -> Vec<Member> {
    let mut members = Vec::new();
    for number in 1..=count {
        members.push(start(world, number).await);
    }
    for member in &members {
        member.node.join().await.unwrap();
    }
    for member in &members {
        member.counters.all_hosted().await;
    }
    members
}

/// Sends numbers to all entities through one node, each again until it is acknowledged.
fn send_through(member: &Member, from: u64, count: u64) -> JoinHandle<()> {
    let counters = member.counters.clone();
    tokio::task::spawn_local(async move {
        for n in from..from + count {
            let entity = counters.entity(format!("c-{}", n % ENTITIES));
            while entity
                .ask(|reply_to| Command::Take(n, reply_to))
                .within(TRY)
                .await
                .is_err()
            {
                sleep(Duration::from_millis(100)).await;
            }
        }
    })
}

/// Every number that was sent is there, once.
async fn check(counters: &Entities<Command>, sent: u64) {
    let mut seen = BTreeSet::new();
    for e in 0..ENTITIES {
        let entity = counters.entity(format!("c-{e}"));
        let mut taken = entity.ask(Command::Get).within(TRY).await;
        while taken.is_err() {
            sleep(Duration::from_millis(100)).await;
            taken = entity.ask(Command::Get).within(TRY).await;
        }
        for n in taken.unwrap() {
            assert_eq!(n % ENTITIES, e, "{n} came to the wrong entity");
            assert!(seen.insert(n), "{n} was counted twice");
        }
    }
    assert_eq!(
        seen,
        (0..sent).collect(),
        "not everything that was acknowledged is there"
    );
}

async fn run<F: Future<Output = ()>>(what: F) {
    let local = LocalSet::new();
    timeout(Duration::from_secs(900), local.run_until(what))
        .await
        .unwrap();
}

/// S2: the coordinator's node is killed under load; its shards answer within detection, stable-after
/// and 5 s; nothing that was acknowledged is lost, nothing is counted twice.
#[tokio::test(start_paused = true)]
async fn a_killed_coordinator_loses_nothing() {
    run(killed_coordinator(seed())).await;
}

async fn killed_coordinator(seed: u64) {
    let mut world = World::new(seed, 3);
    let members = started(&mut world, 3).await;
    let oldest = members[0].node.state().oldest().unwrap().id.clone();
    assert_eq!(members[0].counters.coordinator(), Some(oldest.clone()));
    let senders = [
        send_through(&members[1], 0, 400),
        send_through(&members[2], 400, 400),
    ];
    sleep(Duration::from_millis(300)).await;
    assert_eq!(oldest.addr, addr(1));
    world.net.crash(addr(1));
    let killed = tokio::time::Instant::now();
    settled(&members[1].node, 2).await;
    for e in 0..ENTITIES {
        let entity = members[1].counters.entity(format!("c-{e}"));
        while entity.ask(Command::Get).within(TRY).await.is_err() {}
    }
    let took = killed.elapsed();
    println!("all entities answered {took:?} after the kill");
    assert!(took < Duration::from_secs(4 + 3 + 5), "{took:?}");
    for sender in senders {
        sender.await.unwrap();
    }
    check(&members[2].counters, 800).await;
}

/// S3: both sides of a split go on writing for as long as they can; the smaller side ends; what it
/// acknowledged is there.
#[tokio::test(start_paused = true)]
async fn a_split_with_writes_on_both_sides_loses_nothing() {
    run(split_with_writes(seed())).await;
}

async fn split_with_writes(seed: u64) {
    let mut world = World::new(seed, 3);
    let mut members = started(&mut world, 5).await;
    let acknowledged = Rc::new(std::cell::Cell::new(0_u64));
    let on_minority = {
        let (counters, acknowledged) = (members[4].counters.clone(), acknowledged.clone());
        tokio::task::spawn_local(async move {
            // One by one, until this side no longer answers.
            for n in 1_000_000.. {
                let entity = counters.entity(format!("c-{}", n % ENTITIES));
                match entity
                    .ask(|reply_to| Command::Take(n, reply_to))
                    .within(TRY)
                    .await
                {
                    Ok(()) => acknowledged.set(acknowledged.get() + 1),
                    Err(AskError::Stopped { .. }) => return,
                    Err(_) => {}
                }
            }
        })
    };
    let on_majority = send_through(&members[0], 0, 600);
    sleep(Duration::from_secs(1)).await;
    world.split(&[1, 2, 3], &[4, 5]);
    let minority: Vec<_> = members.drain(3..).collect();
    for member in &minority {
        assert_eq!(member.node.ended().await, Ended::Downed);
    }
    on_minority.await.unwrap();
    on_majority.await.unwrap();
    assert!(acknowledged.get() > 10, "{}", acknowledged.get());
    let counters = &members[0].counters;
    let mut of_minority = 0;
    let mut of_majority = BTreeSet::new();
    for e in 0..ENTITIES {
        let taken = counters
            .entity(format!("c-{e}"))
            .ask(Command::Get)
            .await
            .unwrap();
        of_minority += taken.iter().filter(|&&n| n >= 1_000_000).count() as u64;
        let before = of_majority.len() + taken.iter().filter(|&&n| n < 1_000_000).count();
        of_majority.extend(taken.into_iter().filter(|&n| n < 1_000_000));
        assert_eq!(of_majority.len(), before, "something was counted twice");
    }
    assert_eq!(of_majority, (0..600).collect());
    // What was not acknowledged may be there too: the answer may have been lost.
    assert!(
        of_minority >= acknowledged.get(),
        "{of_minority} of {}",
        acknowledged.get()
    );
}

/// S1: a node joins and another leaves under load: nothing has to be sent twice, nothing is lost.
#[tokio::test(start_paused = true)]
async fn planned_moves_lose_nothing() {
    run(planned_moves(seed())).await;
}

async fn planned_moves(seed: u64) {
    let mut world = World::new(seed, 2);
    let mut members = started(&mut world, 2).await.into_iter();
    let (a, b) = (members.next().unwrap(), members.next().unwrap());
    // Each asks once only, and waits for the answer: nothing is sent again.
    let senders = [0, 2_000].map(|from| {
        let counters = b.counters.clone();
        tokio::task::spawn_local(async move {
            for n in from..from + 2_000 {
                let entity = counters.entity(format!("c-{}", n % ENTITIES));
                let asked = entity.ask(|reply_to| Command::Take(n, reply_to));
                asked.within(Duration::from_secs(30)).await.unwrap();
            }
        })
    });
    let c = start(&mut world, 3).await;
    c.node.join().await.unwrap();
    let of_c = |c: &Member| {
        let homes = c.counters.homes();
        homes
            .values()
            .flatten()
            .filter(|home| *home == c.node.id())
            .count()
    };
    while of_c(&c) < 5 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(a.node.leave().await, Ended::Left);
    settled(&b.node, 2).await;
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(c.counters.homes().values().flatten().count(), 16);
    check(&c.counters, 4_000).await;
}

/// C5: while 3 cannot be reached and nobody decides, 4 is weakly up: it gets no shard, and what it sends
/// waits until it is a full member.
#[tokio::test(start_paused = true)]
async fn a_weakly_up_node_gets_no_shards() {
    let mut world = World::new(seed(), 2);
    let config = ClusterConfig::default().with_downing(Strategy::Manual);
    let mut members = Vec::new();
    for number in 1..=4 {
        if number == 4 {
            world.net.crash(addr(3));
            members.pop();
        }
        let node = world.start_with(number, config.clone()).await;
        let counters = node.entities::<Counter>(options()).unwrap();
        if number < 4 {
            node.join().await.unwrap();
            counters.all_hosted().await;
        }
        members.push(Member { node, counters });
    }
    let [first, _, fourth] = members.as_slice() else {
        unreachable!("three are left");
    };
    let joining = fourth.node.clone();
    let joining = tokio::spawn(async move { joining.join().await });
    let counters = fourth.counters.clone();
    let asked = tokio::spawn(async move {
        let entity = counters.entity("c-1");
        let asked = entity.ask(|reply_to| Command::Take(1, reply_to));
        asked.within(Duration::from_secs(120)).await
    });
    let me = fourth.node.id().clone();
    let has_shards = |member: &Member| {
        let homes = member.counters.homes();
        homes.into_values().flatten().any(|home| home == me)
    };
    let mut states = first.node.cluster().subscribe();
    let is_weak = |member: &otava::Member| member.status == Status::WeaklyUp;
    let seen = states.wait_for(|state| state.get(&me).is_some_and(is_weak));
    timeout(Duration::from_secs(20), seen)
        .await
        .unwrap()
        .unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fourth.counters.local_stats().shards, 0);
    assert!(!has_shards(first) && !asked.is_finished() && !joining.is_finished());

    let lost = first.node.state().unreachable.first().cloned().unwrap();
    first.node.cluster().down(&lost).await;
    joining.await.unwrap().unwrap();
    asked.await.unwrap().unwrap();
    settled(&first.node, 3).await;
    sleep(Duration::from_secs(60)).await;
    assert!(has_shards(first), "{:?}", first.counters.homes());
}
