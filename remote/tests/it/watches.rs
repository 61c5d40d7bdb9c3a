//! Proves: each watch is told the truth, once, whatever happens to runs and connections.

use crate::cuts::{GIVE_UP, Node, SOON, addr, pair};
use crate::nodes::{Command, Number};
use otava_actor::Ended;
use otava_actor::testkit::TestProbe;
use otava_remote::{RemoteEvent, VirtualWorld};
use std::time::Duration;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// The time before anybody was watched is no silence.
#[tokio::test(start_paused = true)]
async fn a_node_may_be_watched_long_after_it_was_last_heard_of() {
    let world = VirtualWorld::new(1);
    let (a, b) = pair(&world);
    let first = b.counter();
    let mut probe = TestProbe::<Number>::new(&a.system);
    sleep(GIVE_UP * 3).await;
    let counter = a.sees(&b);
    probe.watch(&counter);
    probe.expect_no_msg(SECOND).await;
    first.stop();
    let news = probe.expect_terminated(&counter, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);

    // Nothing was said while the path was cut, so the connection was not missed. The
    // second is for the last acknowledgement.
    sleep(SECOND).await;
    world.cut(addr(1), addr(2));
    sleep(GIVE_UP * 3).await;
    world.heal_all();
    let second = b.counter();
    probe.watch(&counter);
    probe.expect_no_msg(SECOND).await;
    second.stop();
    let news = probe.expect_terminated(&counter, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
}

/// Time goes on, so nobody turns round and round over it.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_given_up_costs_nothing_any_more() {
    let world = VirtualWorld::new(2);
    let a = Node::start(&world, "a", 1);
    let nobody = a.remote.resolve_at::<Command>(addr(9), "counter");
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&nobody);
    let news = probe.expect_terminated(&nobody, GIVE_UP * 2).await;
    assert_eq!(news.reason, Ended::NodeLost);
    sleep(GIVE_UP * 10).await;

    // And with a node that was there once.
    let b = Node::start(&world, "b", 2);
    let _counter = b.counter();
    let counter = a.sees(&b);
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    world.cut(addr(1), addr(2));
    probe.watch(&counter);
    probe.expect_terminated(&counter, GIVE_UP * 2).await;
    sleep(GIVE_UP * 10).await;
    // Another run at the place of nobody is watched as if nothing had been.
    let c = Node::start(&world, "c", 9);
    let local = c.counter();
    probe.watch(&nobody);
    probe.expect_no_msg(SECOND).await;
    local.stop();
    let news = probe.expect_terminated(&nobody, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
}

/// What a node watched here before it left is forgotten, and the node is not held to answer.
#[tokio::test(start_paused = true)]
async fn a_node_that_said_goodbye_is_left_in_peace() {
    let world = VirtualWorld::new(3);
    let (a, b) = pair(&world);
    let local = a.counter();
    let probe = TestProbe::<Number>::new(&b.system);
    probe.watch(&b.sees(&a));
    sleep(SECOND).await;
    let mut events = a.remote.events();
    b.remote.shutdown().await;
    sleep(SECOND).await;
    local.stop();
    sleep(GIVE_UP * 3).await;
    a.remote.shutdown().await;
    drop(a);
    while let Some(event) = events.recv().await {
        assert!(!matches!(event, RemoteEvent::Quarantined(_)), "{event:?}");
    }
}

/// Breaking with a run that is over touches nothing of the run that is there.
#[tokio::test(start_paused = true)]
async fn a_break_with_an_old_run_leaves_the_present_one_alone() {
    let world = VirtualWorld::new(4);
    let (a, b) = pair(&world);
    let old = b.remote.id().clone();
    a.remote.keep_connected(addr(2));
    sleep(SECOND).await;
    world.crash(addr(2));
    drop(b);
    let b = Node::start_run(&world, "b", 2, 99);
    let local = b.counter();
    sleep(5 * SECOND).await;
    assert!(a.remote.is_connected(b.remote.id()));
    let anyone = a.remote.resolve_at::<Command>(addr(2), "counter");
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&anyone);
    let asked = anyone.clone();
    let ask = tokio::spawn(async move { asked.ask(Command::Wait).within(SOON).await });
    sleep(SECOND).await;
    a.remote.quarantine(&old, "it is out of the cluster");
    probe.expect_no_msg(SECOND).await;
    assert_eq!(ask.await.unwrap(), Ok(0));
    local.stop();
    let news = probe.expect_terminated(&anyone, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
}

/// A reference to a run that this node never met, and that is over: its watcher must not be held by
/// the run that took its place.
#[tokio::test(start_paused = true)]
async fn a_watch_of_one_run_never_reaches_another() {
    let world = VirtualWorld::new(5);
    let (a, b) = pair(&world);
    let _old = b.counter();
    let old = a.sees(&b);
    world.crash(addr(2));
    drop(b);
    let b = Node::start_run(&world, "b", 2, 99);
    let _local = b.counter();
    assert_eq!(a.sees(&b).ask(Command::Get).within(SOON).await, Ok(0));
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&old);
    let news = probe.expect_terminated(&old, SOON).await;
    assert_eq!(news.reason, Ended::NodeLost);
}
