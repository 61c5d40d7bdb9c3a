//! Proves: events reach those who subscribed to their type, once, in order, as long as they live.

use crate::support::{Log, Order, Puppet, SOON, act, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, ActorSystem, DeadLetterReason, Props};
use std::num::NonZeroUsize;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, PartialEq)]
struct Paid(u32);

#[derive(Clone)]
struct Shipped(u32);

/// What a subscriber makes of both.
#[derive(Debug, PartialEq)]
enum News {
    Paid(u32),
    Shipped(u32),
}

impl From<Paid> for News {
    fn from(Paid(order): Paid) -> Self {
        assert_ne!(order, 13, "not this one");
        Self::Paid(order)
    }
}

impl From<Shipped> for News {
    fn from(Shipped(order): Shipped) -> Self {
        Self::Shipped(order)
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_those_who_want_its_type() {
    let system = system();
    let events = system.event_stream();
    let mut all = TestProbe::<News>::new(&system);
    let mut paid = TestProbe::<Paid>::new(&system);
    assert_eq!(events.publish(Paid(0)), 0);
    events.subscribe::<Paid>(all.actor_ref());
    events.subscribe::<Shipped>(all.actor_ref());
    events.subscribe::<Paid>(paid.actor_ref());
    assert_eq!(system.event_stream().publish(Paid(1)), 2);
    assert_eq!(events.publish(Shipped(2)), 1);
    for n in 3..100 {
        events.publish(Paid(n + 100));
    }
    assert_eq!(all.expect_msg(SOON).await, News::Paid(1));
    assert_eq!(all.expect_msg(SOON).await, News::Shipped(2));
    assert_eq!(paid.expect_msg(SOON).await, Paid(1));
    for n in 3..100 {
        assert_eq!(all.expect_msg(SOON).await, News::Paid(n + 100));
        assert_eq!(paid.expect_msg(SOON).await, Paid(n + 100));
    }
    let other = crate::support::system();
    assert_eq!(
        other.event_stream().publish(Paid(1)),
        0,
        "systems share nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn subscribing_twice_is_once_and_unsubscribing_ends_it() {
    let system = system();
    let events = system.event_stream();
    let mut probe = TestProbe::<News>::new(&system);
    events.subscribe::<Paid>(probe.actor_ref());
    events.subscribe::<Paid>(probe.actor_ref());
    events.subscribe::<Shipped>(probe.actor_ref());
    assert_eq!(events.publish(Paid(1)), 1);
    assert!(events.unsubscribe::<Paid>(probe.actor_ref()));
    assert!(!events.unsubscribe::<Paid>(probe.actor_ref()));
    assert_eq!(
        (events.publish(Paid(2)), events.publish(Shipped(3))),
        (0, 1)
    );
    assert_eq!(probe.expect_msg(SOON).await, News::Paid(1));
    assert_eq!(probe.expect_msg(SOON).await, News::Shipped(3));
    probe.expect_no_msg(SOON).await;
}

/// No dead letters for a dead subscriber: it is no subscriber any more.
#[tokio::test(start_paused = true)]
async fn a_dead_subscriber_is_dropped() {
    let system = system();
    let events = system.event_stream();
    let [a, b] = [(); 2].map(|()| TestProbe::<Paid>::new(&system));
    events.subscribe::<Paid>(a.actor_ref());
    events.subscribe::<Paid>(b.actor_ref());
    a.actor_ref().stop();
    tokio::time::sleep(MS).await;
    assert_eq!(events.publish(Paid(1)), 1);
    events.subscribe::<Paid>(a.actor_ref());
    assert_eq!(events.publish(Paid(2)), 1, "the dead cannot subscribe");
    assert_eq!(system.dead_letters().total(), 0);
}

impl From<Paid> for Order {
    fn from(Paid(order): Paid) -> Self {
        Self::Say(format!("paid {order}"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_subscriber_loses_the_event_and_that_is_counted() {
    let (system, log) = (system(), Log::default());
    let events = system.event_stream();
    let props = Props::once(Puppet::new("p", &log)).mailbox_capacity(NonZeroUsize::MIN);
    let puppet: ActorRef<Order> = system.spawn_with("p", props).unwrap();
    events.subscribe::<Paid>(&puppet);
    puppet.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(MS).await;
    assert_eq!((events.publish(Paid(1)), events.publish(Paid(2))), (1, 0));
    assert_eq!(
        system.dead_letters().count(DeadLetterReason::RefusedFull),
        1
    );
    tokio::time::sleep(2 * SOON).await;
    assert_eq!(log.take(), ["p: started", "p: paid 1"]);
}

/// It costs that subscriber the event, not the others, and not the publisher.
#[tokio::test(start_paused = true)]
async fn a_conversion_that_panics_is_contained() {
    let (system, log) = (system(), Log::default());
    let events = system.event_stream();
    let mut picky = TestProbe::<News>::new(&system);
    let mut other = TestProbe::<Paid>::new(&system);
    events.subscribe::<Paid>(picky.actor_ref());
    events.subscribe::<Paid>(other.actor_ref());
    let publisher = system.spawn("p", Puppet::new("p", &log)).unwrap();
    let publish = act(move |puppet, ctx| {
        let reached = [13, 14].map(|n| ctx.system().event_stream().publish(Paid(n)));
        puppet.log.add(format!("{reached:?}"));
        Ok(())
    });
    publisher.tell(publish).unwrap();
    assert_eq!(other.expect_msg(SOON).await, Paid(13));
    assert_eq!(picky.expect_msg(SOON).await, News::Paid(14));
    assert_eq!(log.take(), ["p: started", "[1, 2]"]);
}

/// On threads: while subscribers come and go, the others miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_come_and_go_cost_the_others_nothing() {
    let system = ActorSystem::new("test");
    let events = system.event_stream();
    let mut stays = TestProbe::<Paid>::new(&system);
    events.subscribe::<Paid>(stays.actor_ref());
    let publisher = {
        let events = events.clone();
        tokio::spawn(async move {
            for n in 0..20_000 {
                events.publish(Paid(n));
            }
        })
    };
    for _ in 0..300 {
        let passing = TestProbe::<Paid>::new(&system);
        let mut ended = TestProbe::<()>::new(&system);
        ended.watch(passing.actor_ref());
        events.subscribe::<Paid>(passing.actor_ref());
        passing.actor_ref().stop();
        ended.expect_terminated(passing.actor_ref(), SOON).await;
    }
    publisher.await.unwrap();
    for n in 0..20_000 {
        assert_eq!(stays.expect_msg(SOON).await, Paid(n));
    }
    stays.actor_ref().stop();
    system.shutdown().await;
    assert_eq!(events.publish(Paid(0)), 0, "nobody is left");
}
