//! Proves: L1, a failure of any kind in any place does what the strategy says, and nothing else.

use crate::support::{Log, Order, Puppet, SOON, act, say, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, Context, Ended, Props, SpawnError, Supervision, Terminated,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

fn restart(limit: u32) -> Supervision {
    Supervision::Restart {
        limit,
        within: Duration::from_secs(1),
    }
}

/// Waits for the end of `actor` and says why it ended.
async fn end_of<M: Send + 'static>(system: &ActorSystem, actor: &ActorRef<M>) -> Ended {
    let mut probe = TestProbe::<()>::new(system);
    probe.watch(actor);
    probe.expect_terminated(actor, SOON).await.reason
}

/// The ways to fail in a handler.
fn failures() -> Vec<(&'static str, Order)> {
    vec![
        ("err", act(|_, _| Err("no".into()))),
        ("panic", act(|_, _| panic!("no"))),
        ("formatted panic", act(|_, _| panic!("no {}", 1))),
        (
            "payload that is no text",
            act(|_, _| std::panic::panic_any(7_u64)),
        ),
    ]
}

/// L1: stop is the default.
#[tokio::test(start_paused = true)]
async fn a_failure_stops_the_actor_by_default() {
    for (name, failure) in failures() {
        let (system, log) = (system(), Log::default());
        let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
        actor.tell(failure).unwrap();
        actor.tell(say("never")).unwrap();
        assert_eq!(end_of(&system, &actor).await, Ended::Failed, "{name}");
        assert_eq!(log.take(), ["a: started", "a: stopped"], "{name}");
    }
}

/// L1: restart; the mailbox stays, the failed message does not come again, hooks run in order.
#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_next_message() {
    for (name, failure) in failures() {
        let (system, log) = (system(), Log::default());
        let props = Puppet::props("a", &log).on_failure(restart(1));
        let actor = system.spawn_with("a", props).unwrap();
        for order in [say("one"), failure, say("two"), say("three")] {
            actor.tell(order).unwrap();
        }
        actor.stop_after_queued();
        assert_eq!(end_of(&system, &actor).await, Ended::Stopped, "{name}");
        let expected = [
            "a: started",
            "a: one",
            "a: started",
            "a: two",
            "a: three",
            "a: stopped",
        ];
        assert_eq!(log.take(), expected, "{name}");
    }
}

/// L1: over the limit within the window it stops; failures further apart do not add up.
#[tokio::test(start_paused = true)]
async fn the_limit_of_restarts_holds_within_its_window() {
    let (system, log) = (system(), Log::default());
    let props = Puppet::props("a", &log).on_failure(restart(2));
    let actor = system.spawn_with("a", props).unwrap();
    let fail = || act(|_, _| Err("no".into()));
    for _ in 0..6 {
        actor.tell(fail()).unwrap();
        tokio::time::sleep(Duration::from_millis(501)).await;
    }
    assert!(!actor.is_stopped());
    for _ in 0..3 {
        actor.tell(fail()).unwrap();
    }
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    let starts = log
        .take()
        .iter()
        .filter(|line| line.ends_with("started"))
        .count();
    assert!((8..=9).contains(&starts), "{starts}");
}

/// L1: a failure in the start hook counts like any other.
#[tokio::test(start_paused = true)]
async fn a_failing_start_hook_is_supervised() {
    let err: fn(&Log, &mut Context<Puppet>) -> Result<(), String> = |_, _| Err("no".into());
    for on_started in [err, |_, _| panic!("no")] {
        let (system, log) = (system(), Log::default());
        let own = log.clone();
        let props = Props::new(move || Puppet {
            on_started,
            ..Puppet::new("a", &own)
        })
        .on_failure(restart(2));
        let actor = system.spawn_with("a", props).unwrap();
        assert_eq!(end_of(&system, &actor).await, Ended::Failed);
        assert_eq!(
            log.take(),
            ["a: started", "a: started", "a: started", "a: stopped"]
        );
    }
}

/// L1: a panic in the factory is a failure of the actor.
#[tokio::test(start_paused = true)]
async fn a_panicking_factory_is_supervised() {
    let (system, log) = (system(), Log::default());
    let (made, own) = (Arc::new(AtomicU32::new(0)), log.clone());
    let counter = made.clone();
    let props = Props::new(move || {
        assert!(
            counter.fetch_add(1, SeqCst) != 1,
            "the second instance cannot be made"
        );
        Puppet::new("a", &own)
    });
    let actor = system
        .spawn_with("a", props.on_failure(restart(2)))
        .unwrap();
    actor.tell(act(|_, _| Err("no".into()))).unwrap();
    actor.ask(Order::Sync).await.unwrap();
    assert_eq!(made.load(SeqCst), 3);
    assert_eq!(log.take(), ["a: started", "a: started"]);

    let props = Props::new(|| -> Puppet { panic!("never") });
    let never = system.spawn_with("never", props).unwrap();
    assert_eq!(end_of(&system, &never).await, Ended::Failed);
}

/// L1: a panic in a timer's function, and in the handler of a tick.
#[tokio::test(start_paused = true)]
async fn failures_that_come_from_timers_are_supervised() {
    let (system, log) = (system(), Log::default());
    let props = Puppet::props("a", &log).on_failure(restart(9));
    let actor = system.spawn_with("a", props).unwrap();
    let tick = Duration::from_millis(1);
    actor
        .tell(act(move |_, ctx| {
            ctx.timer_every("t", tick, || panic!("no tick"));
            Ok(())
        }))
        .unwrap();
    tokio::time::sleep(tick * 5).await;
    assert_eq!(
        log.take(),
        ["a: started", "a: started"],
        "the timer went with its instance"
    );
    actor
        .tell(act(move |_, ctx| {
            ctx.timer_once("t", tick, act(|_, _| panic!("no")));
            Ok(())
        }))
        .unwrap();
    tokio::time::sleep(tick * 5).await;
    assert_eq!(log.take(), ["a: started"]);
}

/// L1: a panic in the stop hook is contained: the actor ends, once, and its parent too.
#[tokio::test(start_paused = true)]
async fn a_panicking_stop_hook_is_contained() {
    let (system, log) = (system(), Log::default());
    let own = log.clone();
    let parent = system.spawn("p", Puppet::new("p", &log)).unwrap();
    parent
        .tell(act(move |_, ctx| {
            let child = Puppet {
                on_stopped: |_| panic!("no"),
                ..Puppet::new("c", &own)
            };
            ctx.spawn("c", child).unwrap();
            Ok(())
        }))
        .unwrap();
    parent.stop_after_queued();
    assert_eq!(end_of(&system, &parent).await, Ended::Stopped);
    assert_eq!(
        log.take(),
        ["p: started", "c: started", "c: stopped", "p: stopped"]
    );
}

/// Fails when told that someone ended, and when it is dropped.
struct Fragile(Log, ActorRef<Order>);

impl Actor for Fragile {
    type Msg = ();
    type Err = String;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        self.0.add("started");
        ctx.watch(&self.1);
        Ok(())
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), String> {
        Ok(())
    }

    async fn terminated(&mut self, _: Terminated, _: &mut Context<Self>) -> Result<(), String> {
        self.0.add("told");
        panic!("in terminated")
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("in drop")
    }
}

/// L1: panics in `terminated` and in the actor's own `Drop`; the new instance watches a dead actor
/// again and is told again.
#[tokio::test(start_paused = true)]
async fn panics_in_terminated_and_in_drop_are_contained() {
    let (system, log) = (system(), Log::default());
    let other = system
        .spawn("other", Puppet::new("other", &Log::default()))
        .unwrap();
    let (own, watched) = (log.clone(), other.clone());
    let props = Props::new(move || Fragile(own.clone(), watched.clone())).on_failure(restart(1));
    let actor = system.spawn_with("fragile", props).unwrap();
    other.stop();
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    assert_eq!(log.take(), ["started", "told", "started", "told"]);
}

/// A restart that cannot be done is refused where it is asked for.
#[tokio::test(start_paused = true)]
async fn a_given_value_cannot_be_restarted() {
    let system = system();
    let props = Props::once(Puppet::new("a", &Log::default())).on_failure(restart(1));
    let refused = system.spawn_with("a", props).unwrap_err();
    assert!(matches!(refused, SpawnError::NoFactory { path } if path.as_str() == "test/a"));
}

/// A restart stops the children first, and their names are free again.
#[tokio::test(start_paused = true)]
async fn a_restart_waits_for_the_children_of_the_old_instance() {
    let (system, log) = (system(), Log::default());
    let own = log.clone();
    let props = Props::new(move || {
        let on_started = |log: &Log, ctx: &mut Context<Puppet>| {
            let child = ctx
                .spawn("c", Puppet::new("c", log))
                .map_err(|e| e.to_string())?;
            child
                .tell(Order::Sleep(Duration::from_millis(20)))
                .map_err(|e| e.to_string())
        };
        Puppet {
            on_started,
            ..Puppet::new("p", &own)
        }
    });
    let parent = system
        .spawn_with("p", props.on_failure(restart(1)))
        .unwrap();
    parent.ask(Order::Sync).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    parent.tell(act(|_, _| Err("no".into()))).unwrap();
    parent.ask(Order::Sync).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        log.take(),
        [
            "p: started",
            "c: started",
            "c: stopped",
            "p: started",
            "c: started"
        ]
    );
}

/// L1: thousands of failures on real threads leave the system alive, each restart counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_panics_leaves_the_schedulers_alive() {
    let (system, log) = (system(), Log::default());
    let within = Duration::from_secs(3_600);
    let props = Puppet::props("a", &log).on_failure(Supervision::Restart {
        limit: 2_000,
        within,
    });
    let actor = system.spawn_with("a", props).unwrap();
    for _ in 0..2_000 {
        actor.tell(act(|_, _| panic!("again"))).unwrap();
    }
    actor.ask(Order::Sync).within(SOON).await.unwrap();
    assert_eq!(log.take().len(), 2_001);
}
