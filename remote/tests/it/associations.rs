//! Proves: associations are made once, closed when idle, forgotten when nobody needs them.

use crate::cuts::{Node, SOON, addr, pair};
use crate::nodes::{Command, Number};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorSystem, AskError, Ended, ReplyTo};
use otava_remote::{Remote, RemoteConfig, RemoteEvent, RemoteEvents, VirtualWorld};
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn node(world: &VirtualWorld, name: &str, port: u16, change: impl Fn(&mut RemoteConfig)) -> Node {
    let mut config = RemoteConfig::default();
    change(&mut config);
    let system = ActorSystem::new(name);
    let network = Arc::new(world.network(addr(port), name));
    let remote = Remote::builder(&system, "test", name, network)
        .config(config)
        .seeded(u64::from(port))
        .start()
        .unwrap();
    Node { system, remote }
}

/// What has happened so far.
async fn so_far(events: &mut RemoteEvents) -> Vec<RemoteEvent> {
    let mut all = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.recv()).await {
        all.push(event);
    }
    all
}

/// R8: a hundred addresses where nobody is hold up no living node, and cost nothing for long.
#[tokio::test(start_paused = true)]
async fn unreachable_nodes_hold_up_nobody() {
    let world = VirtualWorld::new(8);
    let (a, b) = pair(&world);
    let _counter = b.counter();
    let counter = a.sees(&b);
    for round in 0..20 {
        for port in 100..200 {
            let nobody = a.remote.resolve_at::<Number>(addr(port), "nobody");
            nobody.tell(Number(round)).unwrap();
        }
        let since = tokio::time::Instant::now();
        assert!(counter.ask(Command::Get).within(SOON).await.is_ok());
        assert!(since.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let stats = a.remote.stats();
    assert_eq!(stats.peers, 101);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        a.remote.stats().dropped,
        2_000,
        "what nobody took is counted"
    );
    // References are gone, so the addresses are forgotten; the living node is not.
    tokio::time::sleep(21 * MINUTE).await;
    assert_eq!(a.remote.stats().peers, 1);
    assert!(counter.ask(Command::Get).within(SOON).await.is_ok());
}

/// R9: both call each other at the same moment: one association comes of it, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn simultaneous_dials_make_one_association() {
    for seed in 0..30 {
        let world = VirtualWorld::new(seed);
        let delay = Duration::from_millis(1)..Duration::from_millis(1 + seed % 10 * 5);
        world.set_delay(delay);
        let (a, b) = pair(&world);
        let mut events = [a.remote.events(), b.remote.events()];
        let mut at_a = TestProbe::<Number>::new(&a.system);
        let mut at_b = TestProbe::<Number>::new(&b.system);
        a.remote.publish("numbers", at_a.actor_ref()).unwrap();
        b.remote.publish("numbers", at_b.actor_ref()).unwrap();
        let to_b = a.remote.resolve_at::<Number>(addr(2), "numbers");
        let to_a = b.remote.resolve_at::<Number>(addr(1), "numbers");
        for n in 0..100 {
            to_b.tell(Number(n)).unwrap();
            to_a.tell(Number(n)).unwrap();
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(seed % 4)).await;
            }
        }
        for n in 0..100 {
            assert_eq!(at_b.expect_msg(SOON).await.0, n, "seed {seed}");
            assert_eq!(at_a.expect_msg(SOON).await.0, n, "seed {seed}");
        }
        tokio::time::sleep(SOON).await;
        for events in &mut events {
            let all = so_far(events).await;
            let once = matches!(all[..], [RemoteEvent::Connected(_)]);
            assert!(once, "seed {seed}: {all:?}");
        }
    }
}

/// A connection that nobody uses is closed, and made again when somebody does.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_made_again() {
    let world = VirtualWorld::new(1);
    let idle = |config: &mut RemoteConfig| config.idle_close = MINUTE;
    let (a, b) = (node(&world, "a", 1, idle), node(&world, "b", 2, idle));
    let _counter = b.counter();
    let counter = a.sees(&b);
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    for _ in 0..10 {
        tokio::time::sleep(MINUTE / 2).await;
        counter.tell(Command::Add(1)).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(a.remote.is_connected(b.remote.id()), "it was used");
    tokio::time::sleep(3 * MINUTE).await;
    assert!(!a.remote.is_connected(b.remote.id()));
    assert!(!b.remote.is_connected(a.remote.id()));
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(10));

    // Whoever watches needs it, on either side.
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&counter);
    tokio::time::sleep(5 * MINUTE).await;
    assert!(a.remote.is_connected(b.remote.id()));
    b.remote.withdraw("counter");
    b.system.shutdown().await;
    let news = probe.expect_terminated(&counter, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
}

/// What is sent at the very moment at which an idle connection is closed is not lost, on either side,
/// and neither is an ask without a deadline.
#[tokio::test(start_paused = true)]
async fn what_is_sent_while_an_idle_connection_is_closed_arrives() {
    const DELAY: Duration = Duration::from_millis(5);
    let mut closed = 0;
    for offset in 0..60 {
        let world = VirtualWorld::new(offset);
        world.set_delay(DELAY..DELAY + Duration::from_micros(1));
        let idle = |config: &mut RemoteConfig| config.idle_close = MINUTE;
        let (a, b) = (node(&world, "a", 1, idle), node(&world, "b", 2, idle));
        let _counter = b.counter();
        let counter = a.sees(&b);
        let mut at_a = TestProbe::<Number>::new(&a.system);
        a.remote.publish("numbers", at_a.actor_ref()).unwrap();
        let numbers = b.remote.resolve::<Number>(a.remote.id(), "numbers");
        assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
        let mut events = a.remote.events();
        // It is found unused when it was so for a whole period.
        tokio::time::sleep(2 * MINUTE - 6 * DELAY + Duration::from_millis(offset)).await;
        numbers.tell(Number(1)).unwrap();
        counter.tell(Command::Add(1)).unwrap();
        let (reply_to, answer) = ReplyTo::channel(None);
        counter.tell(Command::Get(reply_to)).unwrap();
        numbers.tell(Number(2)).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await;
        assert!(matches!(answer, Ok(Ok(1))), "{offset} ms: {answer:?}");
        for n in 1..=2 {
            assert_eq!(at_a.expect_msg(SOON).await.0, n, "{offset} ms");
        }
        closed += so_far(&mut events).await.len();
        let stats = [a.remote.stats(), b.remote.stats()];
        assert!(stats.iter().all(|it| it.dropped + it.peer_faults == 0));
    }
    assert!(
        closed > 20,
        "it was closed at that moment only {closed} times"
    );
}

/// A node is remembered as long as anything was agreed with it, or a reference leads to it.
#[tokio::test(start_paused = true)]
async fn a_node_is_forgotten_when_nothing_is_lost_by_it() {
    let world = VirtualWorld::new(2);
    let quick = |config: &mut RemoteConfig| {
        config.idle_close = MINUTE;
        config.forget_after = MINUTE;
    };
    let a = node(&world, "a", 1, quick);
    let (asked, watched, broken_with) = (
        node(&world, "b", 2, quick),
        node(&world, "c", 3, quick),
        node(&world, "d", 4, quick),
    );
    for other in [&asked, &watched, &broken_with] {
        let _counter = other.counter();
        let ask = a.sees(other).ask(Command::Get).within(SOON);
        assert_eq!(ask.await, Ok(0));
    }
    let kept = a.sees(&asked);
    kept.tell(Command::Add(1)).unwrap();
    let probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&a.sees(&watched));
    tokio::time::sleep(SOON).await;
    a.remote.quarantine(broken_with.remote.id(), "a test");
    assert_eq!(a.remote.stats().peers, 3);
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(a.remote.stats().peers, 3, "a reference, a watch, a break");
    drop(kept);
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(a.remote.stats().peers, 2);
    // It is met again as if it were new.
    let ask = a.sees(&asked).ask(Command::Get).within(SOON);
    assert_eq!(ask.await, Ok(1));
    assert_eq!(a.remote.stats().peers, 3);
}

/// An ask without a deadline ends with its connection: the answer may be lost with it.
#[tokio::test(start_paused = true)]
async fn an_endless_ask_ends_with_its_connection() {
    let world = VirtualWorld::new(3);
    let (a, b) = pair(&world);
    let _counter = b.counter();
    let counter = a.sees(&b);
    let (reply_to, answer) = ReplyTo::channel(None);
    counter.tell(Command::Wait(reply_to)).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.cut(addr(1), addr(2));
    let ended = tokio::time::timeout(SOON, answer).await.unwrap();
    assert!(matches!(ended, Err(AskError::NoReply { .. })), "{ended:?}");
    assert_eq!(a.remote.stats().open_ports, 0);
    world.heal_all();
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
}
