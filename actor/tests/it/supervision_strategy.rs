//! Proves: L1, each strategy does to an actor that failed what it promises, in the promised order.

use crate::supervision_support::{Do, Doll, Fail, act, end_of, fail, settle};
use crate::support::{Log, SOON, system};
use otava_actor::{Actor, ActorSystem, Context, Ended, Fault, Props, Supervision, TellError};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

fn restart(limit: u32) -> Supervision {
    Supervision::Restart {
        limit,
        within: SOON,
    }
}

/// The ways to fail in a handler.
fn failures() -> Vec<(&'static str, Do)> {
    vec![
        ("error", fail(Fail::Hard)),
        ("error that cannot be printed", fail(Fail::Unspeakable)),
        ("panic", act(|_, _| panic!("no"))),
        (
            "payload that is no text",
            act(|_, _| std::panic::panic_any(7_u64)),
        ),
        ("error after a wait", Do::FailLater(Ok(Fail::Hard))),
        ("panic after a wait", Do::FailLater(Err("no"))),
    ]
}

/// L1: stop, resume and restart, for each way to fail.
#[tokio::test(start_paused = true)]
async fn each_failure_does_what_the_strategy_says() {
    let stop: (_, &[_]) = (Supervision::Stop, &["a1: stopped", "a1: dropped"]);
    let resume: (_, &[_]) = (
        Supervision::Resume,
        &["a1: next", "a1: stopped", "a1: dropped"],
    );
    let again: (_, &[_]) = (
        restart(1),
        &[
            "a1: restarting",
            "a1: dropped",
            "a2: started",
            "a2: next",
            "a2: stopped",
            "a2: dropped",
        ],
    );
    for (strategy, after) in [stop, resume, again] {
        for (name, failure) in failures() {
            let (system, log) = (system(), Log::default());
            let props = Doll::props("a", &log).on_failure(strategy);
            let actor = system.spawn_with("a", props).unwrap();
            actor.tell(failure).unwrap();
            actor.tell(Do::Say("next")).unwrap();
            actor.stop_after_queued();
            let ended = end_of(&system, &actor).await;
            let failed = strategy == Supervision::Stop;
            assert_eq!(ended == Ended::Failed, failed, "{strategy:?}, {name}");
            let lines = log.take();
            assert_eq!(lines[0], "a1: started");
            assert_eq!(lines[1..], *after, "{strategy:?}, {name}");
        }
    }
}

/// L1: what a resumed actor has set up stays: its timers, also the one that failed, its children and
/// its watches.
#[tokio::test(start_paused = true)]
async fn a_resumed_actor_keeps_what_it_has() {
    let (system, log) = (system(), Log::default());
    let props = Doll::props("a", &log).on_failure(Supervision::Resume);
    let actor = system.spawn_with("a", props).unwrap();
    let (second, own) = (Duration::from_secs(1), log.clone());
    let mut tick = 0;
    actor
        .tell(act(move |_, ctx| {
            ctx.timer_every("t", second, move || {
                tick += 1;
                assert!(tick != 2, "no second tick");
                Do::Say("tick")
            });
            let child = ctx.spawn_with("c", Doll::props("c", &own)).unwrap();
            ctx.watch(&child);
            Err(Fail::Soft)
        }))
        .unwrap();
    tokio::time::sleep(second * 7 / 2).await;
    actor
        .tell(act(|_, ctx| {
            ctx.child::<Do>("c").unwrap().stop();
            Err(Fail::Soft)
        }))
        .unwrap();
    settle().await;
    let expected = [
        "a1: started",
        "c1: started",
        "a1: tick",
        "a1: tick",
        "c1: stopped",
        "c1: dropped",
        "a1: c ended, Stopped",
    ];
    assert_eq!(log.take(), expected);
}

/// L1: there is nothing to go on with before the instance is ready.
#[tokio::test(start_paused = true)]
async fn a_failed_start_cannot_be_resumed() {
    let (system, log) = (system(), Log::default());
    let props = Doll::starting("a", &log, |_, _| Err(Fail::Hard)).on_failure(Supervision::Resume);
    let actor = system.spawn_with("a", props).unwrap();
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    let props = Props::try_new(|| Err(Fail::Hard)).on_failure(Supervision::Resume);
    let actor = system.spawn_with::<Doll>("b", props).unwrap();
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    assert_eq!(log.take(), ["a1: started", "a1: stopped", "a1: dropped"]);
}

/// L1: the decider sees the error with its type, the text of a panic, and nothing else decides.
#[tokio::test(start_paused = true)]
async fn a_decider_chooses_by_the_failure() {
    let (system, log) = (system(), Log::default());
    let seen = log.clone();
    let props = Doll::props("a", &log).decide(move |fault| match fault {
        Fault::Error(Fail::Soft) => Supervision::Resume,
        Fault::Error(_) => restart(9),
        Fault::Panic(text) => {
            seen.add(text);
            Supervision::Stop
        }
        other => panic!("{other}"),
    });
    let actor = system.spawn_with("a", props).unwrap();
    for (failure, instance) in [(Fail::Soft, 1), (Fail::Hard, 2), (Fail::Soft, 2)] {
        actor.tell(fail(failure)).unwrap();
        assert_eq!(actor.ask(Do::Which).await.unwrap(), instance);
    }
    log.take();
    actor.tell(act(|_, _| panic!("so it {}", "ends"))).unwrap();
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    assert_eq!(log.take(), ["so it ends", "a2: stopped", "a2: dropped"]);
}

/// L1: a decider that panics, or wants what cannot be done, means stop.
#[tokio::test(start_paused = true)]
async fn a_bad_decision_is_a_stop() {
    let (system, log) = (system(), Log::default());
    let panics = Doll::props("a", &log).decide(|_| panic!("undecided"));
    let impossible = Props::once(Doll::new("b", 1, &log)).decide(|_| restart(1));
    for (name, props) in [("a", panics), ("b", impossible)] {
        let actor = system.spawn_with(name, props).unwrap();
        actor.tell(fail(Fail::Hard)).unwrap();
        assert_eq!(end_of(&system, &actor).await, Ended::Failed, "{name}");
    }
}

/// L1: an actor that fails at each start, without a limit, lets others run and obeys a stop.
#[tokio::test(start_paused = true)]
async fn an_endless_failure_does_not_keep_others_waiting() {
    let (system, log) = (system(), Log::default());
    let quiet = Log::default();
    let endless = Doll::starting("a", &quiet, |_, _| Err(Fail::Hard)).on_failure(restart(u32::MAX));
    let endless = system.spawn_with("a", endless).unwrap();
    let other = system.spawn_with("b", Doll::props("b", &log)).unwrap();
    for _ in 0..10 {
        assert_eq!(other.ask(Do::Which).await.unwrap(), 1);
    }
    assert!(quiet.take().len() > 10, "it went on meanwhile");
    endless.stop();
    assert_eq!(end_of(&system, &endless).await, Ended::Failed);
}

/// L1: the order of a restart, and a panic in the hook does not stop it.
#[tokio::test(start_paused = true)]
async fn a_restart_keeps_its_order_also_if_its_hook_panics() {
    let (system, log) = (system(), Log::default());
    let (own, mut factory) = (log.clone(), Doll::factory("a", &log));
    let props = Props::new(move || {
        own.add("made");
        let child = own.clone();
        let mut doll = factory();
        doll.on_restarting = || panic!("in the hook");
        doll.on_started = Arc::new(move |_, ctx| {
            ctx.spawn_with("c", Doll::props("c", &child)).unwrap();
            Ok(())
        });
        doll
    });
    let actor = system
        .spawn_with("a", props.on_failure(restart(1)))
        .unwrap();
    actor.ask(Do::Which).await.unwrap();
    settle().await;
    log.take();
    actor.tell(fail(Fail::Hard)).unwrap();
    actor.tell(Do::Say("next")).unwrap();
    settle().await;
    let expected = [
        "a1: restarting",
        "c1: stopped",
        "c1: dropped",
        "a1: dropped",
        "made",
        "a2: started",
        "a2: next",
        "c1: started",
    ];
    assert_eq!(log.take(), expected);
}

/// L1: kept children go on, are found by the next instance, and count as its children; old watches
/// are gone.
#[tokio::test(start_paused = true)]
async fn kept_children_outlive_the_instance() {
    let (system, log) = (system(), Log::default());
    let own = log.clone();
    let props = Doll::starting("a", &log, move |doll, ctx| {
        let found = ctx.child::<Do>("c").is_some();
        doll.say(if found { "found" } else { "missed" });
        assert!(ctx.child::<u64>("c").is_none(), "of another type");
        if !found {
            let child = ctx.spawn_with("c", Doll::props("c", &own)).unwrap();
            ctx.watch(&child);
        }
        Ok(())
    });
    let props = props.on_failure(restart(9)).keep_children();
    let actor = system.spawn_with("a", props).unwrap();
    actor.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    let expected = [
        "a1: started",
        "a1: missed",
        "a1: restarting",
        "a1: dropped",
        "a2: started",
        "a2: found",
        "c1: started",
    ];
    assert_eq!(log.take(), expected);
    actor
        .tell(act(|_, ctx| {
            ctx.child::<Do>("c").unwrap().stop();
            Ok(())
        }))
        .unwrap();
    settle().await;
    assert_eq!(log.take(), ["c1: stopped", "c1: dropped"]);
    // The name of a child that has ended is free, and nothing is found under it.
    actor.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    assert!(log.take().contains(&"a3: missed".to_owned()));
    actor.stop();
    assert_eq!(end_of(&system, &actor).await, Ended::Stopped);
    let expected = ["c1: stopped", "c1: dropped", "a3: stopped", "a3: dropped"];
    assert_eq!(log.take(), expected);
}

/// L1: a factory that fails is a failure like any other; no hook runs on what does not exist.
#[tokio::test(start_paused = true)]
async fn a_failing_factory_counts_against_the_limit() {
    let (system, log) = (system(), Log::default());
    let (tried, mut factory) = (Arc::new(AtomicU32::new(0)), Doll::factory("a", &log));
    let counter = tried.clone();
    let props = Props::try_new(move || match counter.fetch_add(1, SeqCst) {
        0 | 2 => Ok(factory()),
        1 | 3 => Err(Fail::Soft),
        _ => panic!("not even an error"),
    });
    let actor = system
        .spawn_with("a", props.on_failure(restart(4)))
        .unwrap();
    actor.tell(fail(Fail::Hard)).unwrap();
    assert_eq!(actor.ask(Do::Which).await.unwrap(), 2);
    log.take();
    actor.tell(fail(Fail::Hard)).unwrap();
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    assert_eq!(tried.load(SeqCst), 5);
    assert_eq!(log.take(), ["a2: restarting", "a2: dropped"]);
}

/// Counts its drops, each of which panics unless it was defused or another panic is on its way already.
struct Grenade(Option<Arc<AtomicU32>>);

impl Grenade {
    fn new(drops: &Arc<AtomicU32>) -> Self {
        Self(Some(drops.clone()))
    }

    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        let Some(drops) = &self.0 else { return };
        drops.fetch_add(1, SeqCst);
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

struct Holder;

impl Actor for Holder {
    type Msg = Grenade;
    type Err = Grenade;

    fn handle(
        &mut self,
        msg: Grenade,
        _: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Grenade>> + Send {
        let mut error = Some(Grenade(msg.0.clone()));
        std::future::poll_fn(move |_| {
            let _held = &msg;
            std::task::Poll::Ready(Err(error.take().unwrap()))
        })
    }
}

impl std::fmt::Display for Grenade {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("printed")
    }
}

/// L1: panics in the drop of a message, of a handler, of an error, of a factory and of a decider:
/// each value is dropped, and whoever watches is told.
#[tokio::test(start_paused = true)]
async fn panics_in_drops_of_all_kinds_are_contained() {
    let (system, drops) = (system(), Arc::new(AtomicU32::new(0)));
    let grenade = || Grenade::new(&drops);
    let (in_factory, in_decider) = (grenade(), grenade());
    let props = Props::new(move || {
        let _held = &in_factory;
        Holder
    });
    let props = props.decide(move |_| {
        let _held = &in_decider;
        restart(1)
    });
    let actor = system.spawn_with("a", props).unwrap();
    // Two are handled: each is held by its handler's future, whose drop panics.
    for _ in 0..4 {
        assert!(actor.tell(grenade()).is_ok());
    }
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    // 4 messages, 2 errors, 1 factory, 1 decider.
    assert_eq!(drops.load(SeqCst), 8);
}

/// L1: an async factory is awaited, tried again after a failure, and not waited for by a stop.
#[tokio::test(start_paused = true)]
async fn an_async_factory_is_awaited_and_a_stop_drops_it() {
    let (system, log) = (ActorSystem::new("test"), Log::default());
    let (drops, mut tried) = (Arc::new(AtomicU32::new(0)), 0);
    let (own, counter) = (log.clone(), drops.clone());
    let props = Props::new_async(move || {
        tried += 1;
        let (tried, log, grenade) = (tried, own.clone(), Grenade::new(&counter));
        async move {
            tokio::time::sleep(SOON / 2).await;
            grenade.defuse();
            match tried {
                1 => Err(Fail::Soft),
                2 => panic!("not made"),
                _ => Ok(Doll::new("a", tried, &log)),
            }
        }
    });
    let props = props
        .on_failure(restart(u32::MAX))
        .mailbox_capacity(NonZeroUsize::new(2).unwrap());
    let actor = system.spawn_with("a", props).unwrap();
    let begun = system.now();
    actor.tell(Do::Say("waited")).unwrap();
    let instance = actor.ask(Do::Which).within(10 * SOON).await;
    assert_eq!(instance.unwrap(), 3);
    assert_eq!(system.now().saturating_since(begun), SOON * 3 / 2);
    assert_eq!(log.take(), ["a3: started", "a3: waited"]);
    actor.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    for _ in 0..2 {
        actor.tell(Do::Say("never")).unwrap();
    }
    let full = actor.tell(Do::Say("too much"));
    assert!(matches!(full, Err(TellError::Full(Do::Say("too much")))));
    let before = system.now();
    actor.stop();
    assert_eq!(end_of(&system, &actor).await, Ended::Stopped);
    assert_eq!(system.now(), before, "the stop did not wait");
    assert_eq!(drops.load(SeqCst), 1, "of the future that was given up");
    assert_eq!(log.take(), ["a3: restarting", "a3: dropped"]);
}
