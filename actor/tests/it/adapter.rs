//! Proves: a narrowed or adapted reference is the same actor in every way, and a message through it is
//! delivered in order, given back, or counted.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, act, say, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, AskError, Context, DeadLetterEvent, DeadLetterReason, Ended,
    Props, ReplyTo, TellError,
};
use std::collections::HashSet;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

#[derive(Debug, Eq, PartialEq)]
struct Add(u64);

struct Get(ReplyTo<u64>);

impl From<Add> for Sums {
    fn from(Add(n): Add) -> Self {
        Self::Add(n)
    }
}

impl From<Get> for Sums {
    fn from(Get(reply_to): Get) -> Self {
        Self::Get(reply_to)
    }
}

#[tokio::test(start_paused = true)]
async fn a_narrowed_reference_is_the_same_actor() {
    let system = system();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    let other = system.spawn("other", Adder(0)).unwrap();
    let add = adder.narrow::<Add>();
    let add_twice = adder.adapt(|Add(n)| Sums::Add(2 * n));
    let add_via = add.adapt(|n: u64| Add(n));
    let itself = adder.adapt(|sums: Sums| sums);
    assert!(itself == adder && adder.narrow::<Sums>() == itself);
    assert!(add == add_twice && add != other.narrow() && itself != other);
    assert_eq!(HashSet::from([adder.clone(), itself]).len(), 1);
    assert_eq!((add.uid(), add.path()), (adder.uid(), adder.path()));
    assert_eq!(format!("{add:?}"), format!("{adder:?}"));
    assert!(add.remote_target().is_none());
    add.tell(Add(1)).unwrap();
    assert_eq!((add.queued(), add_via.queued()), (1, 1));
    add_twice.send(Add(10)).await.unwrap();
    add_via.tell(100).unwrap();
    assert_eq!(adder.narrow::<Get>().ask(Get).await, Ok(121));
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&add_via);
    add.stop_after_queued();
    assert!(adder.is_stopped() && add.is_stopped());
    let news = probe.expect_terminated(&adder, SOON).await;
    assert!(news.is(&add) && news.reason == Ended::Stopped);
    other.narrow::<Add>().stop();
    assert!(other.is_stopped());
}

/// The message comes back as it was, and the refusal is counted under its own type.
#[tokio::test(start_paused = true)]
async fn a_refused_message_comes_back_unconverted() {
    let system = system();
    let props = Props::once(Adder(0)).mailbox_capacity(NonZeroUsize::MIN);
    let adder = system.spawn_with("adder", props).unwrap();
    let converted = Arc::new(AtomicU64::new(0));
    let counter = converted.clone();
    let add = adder.adapt(move |Add(n)| {
        counter.fetch_add(1, SeqCst);
        Sums::Add(n)
    });
    let mut letters = system.dead_letters().subscribe();
    add.tell(Add(1)).unwrap();
    match add.adapt(Add).tell(2) {
        Err(TellError::Full(2)) => {}
        other => panic!("{other:?}"),
    }
    match letters.recv().await {
        Some(DeadLetterEvent::Letter(letter)) => {
            assert_eq!(letter.message_type, "u64");
            assert_eq!(letter.path, *adder.path());
        }
        other => panic!("{other:?}"),
    }
    let waiting = tokio::spawn({
        let add = add.clone();
        async move { add.send(Add(3)).await }
    });
    assert_eq!(waiting.await.unwrap(), Ok(()));
    assert_eq!(adder.ask(Sums::Get).await, Ok(4));
    adder.stop();
    assert_eq!(add.tell(Add(5)), Err(TellError::Stopped(Add(5))));
    assert_eq!(add.send(Add(6)).await, Err(TellError::Stopped(Add(6))));
    assert_eq!(converted.load(SeqCst), 2);
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::RefusedFull), 1);
    assert_eq!(letters.count(DeadLetterReason::RefusedStopped), 2);
    assert_eq!(letters.total(), 3);
}

/// The mailbox fills up, or the actor stops, while the function runs.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_converted_already_is_not_lost_unseen() {
    let (system, log) = (system(), Log::default());
    let props = Puppet::props("a", &log).mailbox_capacity(NonZeroUsize::MIN);
    let actor = system.spawn_with("a", props).unwrap();
    let full = actor.clone();
    let fills = actor.adapt(move |text: &'static str| {
        full.tell(say("was faster")).unwrap();
        say(text)
    });
    fills.tell("beyond the bound").unwrap();
    assert!(actor.tell(say("refused")).unwrap_err().is_full());
    actor.ask(Order::Sync).await.unwrap_err();
    tokio::time::sleep(SOON).await;
    assert_eq!(
        log.take(),
        ["a: started", "a: was faster", "a: beyond the bound"]
    );
    let stopped = actor.clone();
    let stops = actor.adapt(move |text: &'static str| {
        stopped.stop();
        say(text)
    });
    let letters = system.dead_letters();
    stops.tell("too late").unwrap();
    assert_eq!(letters.count(DeadLetterReason::LeftInMailbox), 1);
}

/// A panic in the function is neither the sender's nor the actor's.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_function_is_contained_and_counted() {
    let system = system();
    let adder = system.spawn("adder", Adder(1)).unwrap();
    let broken = adder.adapt(|Get(_): Get| panic!("no"));
    broken.tell(Get(ReplyTo::channel(None).0)).unwrap();
    let path = adder.path().clone();
    let answer = broken.ask(Get).await.unwrap_err();
    assert!(matches!(answer, AskError::NoReply { path: asked, .. } if asked == path));
    broken.send(Get(ReplyTo::channel(None).0)).await.unwrap();
    assert_eq!(adder.ask(Sums::Get).await, Ok(1));
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::NotConverted), 3);
    assert_eq!(letters.total(), 3);
}

/// L8 through a narrowed reference: a late reply is counted for the actor.
#[tokio::test(start_paused = true)]
async fn a_late_reply_through_a_narrowed_reference_is_counted() {
    let system = system();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    let slow = adder.adapt(|Get(r)| Sums::Late(r, Duration::from_millis(50)));
    let waited = Duration::from_millis(30);
    let asked = slow
        .ask(|reply_to| {
            assert!(reply_to.deadline().is_none());
            Get(reply_to)
        })
        .within(waited);
    let path = adder.path().clone();
    let answer = asked.await.unwrap_err();
    assert!(
        matches!(answer, AskError::Timeout { path: p, waited: w, .. } if p == path && w == waited)
    );
    assert_eq!(adder.ask(Sums::Get).await, Ok(0));
    assert_eq!(system.dead_letters().count(DeadLetterReason::LateReply), 1);
}

/// Messages of one sender keep their order, whichever reference of the actor they go through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_one_over_all_references_to_an_actor() {
    let system = ActorSystem::new("test");
    let last = Arc::new(AtomicU64::new(0));
    let props =
        Props::once(Ascending(last.clone())).mailbox_capacity(NonZeroUsize::new(64).unwrap());
    let actor = system.spawn_with("ascending", props).unwrap();
    let half = actor.adapt(|n: u32| u64::from(n));
    for n in 1..=10_000_u32 {
        if n % 2 == 0 {
            actor.send(u64::from(n)).await.unwrap();
        } else {
            half.send(n).await.unwrap();
        }
    }
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&half);
    actor.stop_after_queued();
    let news = probe.expect_terminated(&actor, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
    assert_eq!(system.shutdown().await.blocked, []);
    assert_eq!(last.load(SeqCst), 10_000);
}

/// Takes numbers, each one more than the one before.
struct Ascending(Arc<AtomicU64>);

impl Actor for Ascending {
    type Msg = u64;
    type Err = Infallible;

    async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        assert_eq!(self.0.swap(n, SeqCst) + 1, n);
        Ok(())
    }
}

/// Watching through a narrowed reference, and taking that back through another one.
#[tokio::test(start_paused = true)]
async fn watches_of_all_references_are_one() {
    let (system, log) = (system(), Log::default());
    let watcher = system.spawn("w", Puppet::new("w", &log)).unwrap();
    let [a, b] = ["a", "b"].map(|name| system.spawn(name, Adder(0)).unwrap());
    let (watched, narrowed): (_, [ActorRef<Add>; 2]) =
        ([a.clone(), b.clone()], [a.narrow(), b.narrow()]);
    let watch = act(move |_, ctx| {
        watched.iter().for_each(|actor| ctx.watch(actor));
        narrowed.iter().for_each(|actor| ctx.watch(actor));
        ctx.unwatch(&narrowed[0]);
        Ok(())
    });
    watcher.tell(watch).unwrap();
    watcher.ask(Order::Sync).await.unwrap();
    a.stop();
    b.stop();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["w: started", "w: b ended, Stopped"]);
}
