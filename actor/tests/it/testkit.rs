//! Proves: the tools of the test kit see what they should, and fail when they should.

use crate::support::{Log, Order, Puppet, SOON, act, say, system};
use futures_util::FutureExt;
use otava_actor::testkit::{ActorRunner, DeadLetterSpy, Effect, Fish, LogSpy, TestProbe};
use otava_actor::{
    ActorSystem, Ask, DeadLetterReason, Ended, Props, ReplyTo, Supervision, Time, TimerKey,
};
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tracing::Level;

/// The text with which an expectation fails.
async fn failure<T>(expectation: impl Future<Output = T>) -> String {
    let panic = AssertUnwindSafe(expectation).catch_unwind().await.err();
    otava_actor::describe_panic(panic.expect("the expectation should fail"))
}

fn told<const N: usize>(system: &ActorSystem, numbers: [u32; N]) -> TestProbe<u32> {
    let probe = TestProbe::new(system);
    for number in numbers {
        probe.actor_ref().tell(number).unwrap();
    }
    probe
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_match_fails_the_test() {
    let system = system();
    let mut probe = told(&system, [1, 2]);
    assert_eq!(probe.expect_msg_matching(SOON, |n| *n == 1).await, 1);
    let text = failure(probe.expect_msg_matching(SOON, |n| *n == 1)).await;
    assert!(text.contains("u32"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn fishing_keeps_skips_catches_and_fails() {
    let system = system();
    let mut probe = told(&system, [1, 2, 3, 4, 9]);
    let judge = |n: &u32| match n {
        4 => Fish::Catch,
        n if n % 2 == 0 => Fish::Skip,
        9 => Fish::Fail("nine".to_owned()),
        _ => Fish::Keep,
    };
    assert_eq!(probe.fish_for(SOON, judge).await, [1, 3, 4]);
    assert!(failure(probe.fish_for(SOON, judge)).await.contains("nine"));
    probe.actor_ref().tell(2).unwrap();
    let text = failure(probe.fish_for(SOON, judge)).await;
    assert!(text.contains("kept 0, skipped 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn messages_in_any_order_come_as_often_as_they_are_listed() {
    let system = system();
    let mut probe = told(&system, [3, 1, 3]);
    probe.expect_msgs_in_any_order(SOON, [1, 3, 3]).await;
    let mut probe = told(&system, [3, 1, 1]);
    let text = failure(probe.expect_msgs_in_any_order(SOON, [1, 3, 3])).await;
    assert!(text.contains("[3]"), "{text}");
    let text = failure(probe.expect_msgs_in_any_order(SOON, [5])).await;
    assert!(text.contains("[5]"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn ends_come_in_any_order() {
    let system = system();
    let log = Log::default();
    let [a, b, c] =
        ["a", "b", "c"].map(|name| system.spawn(name, Puppet::new(name, &log)).unwrap());
    let mut probe = TestProbe::<u8>::new(&system);
    for actor in [&a, &b, &c] {
        probe.watch(actor);
    }
    b.stop();
    a.stop();
    let ended = probe.expect_terminated_in_any_order([&a, &b], SOON).await;
    assert_eq!(ended.len(), 2);
    c.stop();
    let text = failure(probe.expect_terminated_in_any_order([&a], SOON)).await;
    assert!(text.contains("test/c"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn within_bounds_all_that_is_expected_in_it() {
    let system = system();
    let mut probe = told(&system, [1]);
    let second = Duration::from_secs(1);
    let begun = system.now();
    let text = failure(probe.within(second, async |probe| {
        assert_eq!(probe.expect_msg(SOON).await, 1);
        probe.expect_msg(SOON).await
    }));
    assert!(text.await.contains("nothing came"));
    assert_eq!(system.now().saturating_since(begun), second);
    let late = probe.within(second, async |_| tokio::time::sleep(2 * second).await);
    assert!(failure(late).await.contains("longer than 1s"));
}

#[tokio::test(start_paused = true)]
async fn the_spy_sees_dead_letters_and_their_absence() {
    let system = system();
    let mut spy = DeadLetterSpy::new(&system);
    let probe = TestProbe::<u8>::new(&system);
    spy.expect_none(SOON).await;
    probe.actor_ref().stop();
    for _ in 0..3 {
        assert!(probe.actor_ref().tell(1).is_err());
    }
    let (reason, path) = (DeadLetterReason::RefusedStopped, probe.actor_ref().path());
    let letter = spy.expect(reason, path, SOON).await;
    assert_eq!(letter.message_type, "u8");
    let text = failure(spy.expect(DeadLetterReason::LateReply, path, SOON)).await;
    assert!(
        text.contains("LateReply") && text.contains("RefusedStopped"),
        "{text}"
    );
    assert!(
        failure(spy.expect_none(SOON))
            .await
            .contains("RefusedStopped")
    );
}

#[test]
fn the_log_spy_sees_events_with_their_spans_on_its_own_thread_only() {
    let log = LogSpy::up_to(Level::DEBUG);
    let elsewhere = std::thread::spawn(|| tracing::error!("elsewhere"));
    elsewhere.join().unwrap();
    log.expect_nothing(Level::WARN);
    let outer = tracing::info_span!("outer", depth = 1);
    outer.in_scope(|| {
        tracing::debug_span!("inner").in_scope(|| tracing::warn!(left = 3, "running low"));
        tracing::trace!("too fine");
    });
    let event = log.expect_event(Level::WARN, "low");
    assert_eq!(event.fields["left"], "3");
    let spans: Vec<&str> = event.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(spans, ["outer", "inner"]);
    assert_eq!(event.spans[0].fields["depth"], "1");
    assert_eq!(log.events(), [], "an expected event is taken out");
}

#[test]
#[should_panic(expected = "running low")]
fn an_event_that_is_missing_fails_the_test_with_the_log() {
    let log = LogSpy::new();
    tracing::warn!("running low");
    log.expect_event(Level::ERROR, "running");
}

fn puppet(log: &Log) -> ActorRunner<Puppet> {
    ActorRunner::with_props(Puppet::props("a", log).on_failure(Supervision::Restart {
        limit: 1,
        within: SOON,
    }))
}

#[test]
fn a_runner_handles_one_message_and_returns_its_effects() {
    let log = Log::default();
    let mut runner = puppet(&log);
    assert_eq!(runner.effects(), [Effect::Started]);
    let child_log = log.clone();
    let effects = runner.run(act(move |_, ctx| {
        let child = ctx
            .spawn("child", Puppet::new("child", &child_log))
            .unwrap();
        ctx.watch(&child);
        ctx.timer_every(1, SOON, || say("tick"));
        ctx.timer_once("gone", SOON, say("never"));
        ctx.cancel_timer("gone");
        ctx.pipe_to_self(async { 7 }, |n| say(format!("piped {n}")));
        child.stop();
        Ok(())
    }));
    let child = otava_actor::ActorPath::new("runner/actor/child");
    let timer = |key: TimerKey, repeated| Effect::TimerSet {
        key,
        after: SOON,
        repeated,
    };
    assert_eq!(
        effects,
        [
            Effect::Spawned(child.clone()),
            Effect::Watched(child),
            timer(1.into(), true),
            timer("gone".into(), false),
            Effect::TimerCancelled("gone".into()),
            Effect::Piped,
            Effect::Handled,
            // The piped message, and the end of the child: all that follows without the clock.
            Effect::Handled,
            Effect::Handled,
        ]
    );
    let lines = log.take();
    assert!(lines.contains(&"a: piped 7".to_owned()), "{lines:?}");
    assert!(
        lines.contains(&"a: child ended, Stopped".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn the_clock_of_a_runner_stands_still_unless_it_is_moved() {
    let log = Log::default();
    let mut runner = puppet(&log);
    runner.run(act(|_, ctx| {
        ctx.timer_every("tick", Duration::from_secs(2), || say("tick"));
        Ok(())
    }));
    log.take();
    assert_eq!(runner.now(), Time::ZERO);
    assert_eq!(runner.advance(Duration::from_millis(1_999)), []);
    assert_eq!(runner.advance(Duration::from_millis(1)), [Effect::Handled]);
    assert_eq!(runner.advance(Duration::from_secs(6)).len(), 3);
    assert_eq!(log.take(), ["a: tick"; 4]);
    assert_eq!(runner.now(), Time::ZERO + Duration::from_secs(8));
    // A handler that waits for the clock moves it.
    runner.run(Order::Sleep(Duration::from_millis(500)));
    assert_eq!(runner.now(), Time::ZERO + Duration::from_millis(8_500));
}

#[test]
fn a_runner_shows_failure_restart_and_end() {
    let log = Log::default();
    let mut runner = puppet(&log);
    runner.effects();
    let failed = Effect::Failed("no".to_owned());
    assert_eq!(
        runner.run(act(|_, _| Err("no".to_owned()))),
        [failed, Effect::Restarted, Effect::Started]
    );
    assert!(!runner.has_ended());
    let failed = Effect::Failed("panic: boom".to_owned());
    assert_eq!(
        runner.run(act(|_, _| panic!("boom"))),
        [failed, Effect::Ended(Ended::Failed)]
    );
    assert!(runner.has_ended());
    let refused = std::panic::catch_unwind(AssertUnwindSafe(|| runner.run(say("late"))));
    let text = otava_actor::describe_panic(refused.unwrap_err());
    assert!(text.contains("has stopped"), "{text}");
}

#[test]
fn a_runner_asks_stops_and_has_probes() {
    let log = Log::default();
    let mut runner = ActorRunner::with_props(Props::once(Puppet::new("a", &log)));
    let mut probe = runner.probe::<&str>();
    let to = probe.actor_ref().clone();
    runner.run(act(move |_, ctx| {
        to.tell("hello").unwrap();
        ctx.stop_self_after_queued();
        Ok(())
    }));
    assert_eq!(probe.received(), ["hello"]);
    assert!(runner.has_ended());

    let mut runner = ActorRunner::with_props(Props::once(Puppet::new("b", &log)));
    let sync = |port: ReplyTo<()>| Order::Sync(port);
    assert_eq!(runner.ask(sync), Ok(()));
    assert_eq!(runner.stop().last(), Some(&Effect::Ended(Ended::Stopped)));
    let ask: Ask<_, ()> = runner.actor_ref().ask(Order::Sync);
    assert!(runner.block_on(ask.into_future()).is_err());
}

#[test]
fn a_runner_refuses_to_wait_for_what_never_comes() {
    use otava_actor::{Actor, Context};
    struct Stuck;
    impl Actor for Stuck {
        type Msg = ();
        type Err = std::convert::Infallible;
        async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Self::Err> {
            std::future::pending().await
        }
    }
    let mut runner = ActorRunner::new(Stuck);
    let stuck = std::panic::catch_unwind(AssertUnwindSafe(|| runner.run(())));
    let text = otava_actor::describe_panic(stuck.unwrap_err());
    assert!(text.contains("does not come"), "{text}");
}
