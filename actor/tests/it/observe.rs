//! Proves: what is measured, traced, logged and drawn of actors, and that nothing is when nobody asks.

use crate::support::{Log, Order, Puppet, SOON, act, say, system};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use otava_actor::testkit::LogSpy;
use otava_actor::{ActorState, ActorSystem, DeadLetterReason, Props, Supervision};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Level;

/// Keeps every value in memory, by name and labels. Installed for one thread, so for one test.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

struct Series(Memory, String);

impl Memory {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()));
        let labels: Vec<String> = labels.collect();
        Arc::new(Series(
            self.clone(),
            format!("{} {}", key.name(), labels.join(",")),
        ))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.0
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// The sum of what counters were incremented by, or the level of a gauge.
    fn sum(&self, name: &str) -> f64 {
        self.values(name).iter().sum()
    }
}

impl Series {
    fn add(&self, value: f64) {
        let mut all = self.0.0.lock().unwrap();
        all.entry(self.1.clone()).or_default().push(value);
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, _: u64) {
        panic!("counters only go up by steps");
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.add(value);
    }
    fn decrement(&self, value: f64) {
        self.add(-value);
    }
    fn set(&self, _: f64) {
        panic!("gauges move by steps");
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorder for Memory {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

const PUPPET: &str = "system=test,actor_type=Puppet";

#[tokio::test(start_paused = true)]
async fn actors_are_counted_and_timed_by_their_type() {
    let memory = Memory::default();
    let _guard = metrics::set_default_local_recorder(&memory);
    let system = ActorSystem::builder("test").metrics(true).build();
    let log = Log::default();
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let props = || Puppet::props("a", &log).on_failure(restart);
    let a = system.spawn_with("a", props()).unwrap();
    let b = system.spawn_with("b", props()).unwrap();
    let sum = |name: &str| memory.sum(&format!("{name} {PUPPET}"));
    assert_eq!(sum("otava_actors_alive"), 2.0);
    a.tell(Order::Sleep(Duration::from_millis(250))).unwrap();
    a.tell(say("one")).unwrap();
    a.tell(act(|_, _| Err("no".to_owned()))).unwrap();
    a.ask(Order::Sync).await.unwrap();
    assert_eq!(sum("otava_actor_messages_total"), 4.0);
    assert_eq!(sum("otava_actor_failures_total"), 1.0);
    assert_eq!(sum("otava_actor_restarts_total"), 1.0);
    let times = memory.values(&format!("otava_actor_handle_seconds {PUPPET}"));
    assert_eq!(times, [0.25, 0.0, 0.0, 0.0]);
    let depths = memory.values(&format!("otava_actor_mailbox_depth {PUPPET}"));
    assert_eq!(depths, [3.0, 2.0, 1.0, 0.0]);
    let waits = memory.values(&format!("otava_actor_mailbox_wait_seconds {PUPPET}"));
    assert_eq!(waits, [0.0, 0.25, 0.25, 0.25]);

    a.tell(act(|_, _| panic!("again"))).unwrap();
    a.tell(say("left")).unwrap();
    b.stop();
    assert!(b.tell(say("refused")).is_err());
    tokio::time::sleep(Duration::from_millis(1)).await;
    system.shutdown().await;
    assert_eq!(sum("otava_actor_failures_total"), 2.0);
    assert_eq!(sum("otava_actors_spawned_total"), 2.0);
    assert_eq!(sum("otava_actors_stopped_total"), 2.0);
    assert_eq!(sum("otava_actors_alive"), 0.0);
    for reason in ["left_in_mailbox", "refused_stopped"] {
        let name = format!("otava_dead_letters_total system=test,reason={reason}");
        assert_eq!(memory.sum(&name), 1.0, "{reason}");
    }
    let names: Vec<String> = memory.0.lock().unwrap().keys().cloned().collect();
    assert!(
        names.iter().all(|name| !name.contains('/')),
        "no paths: {names:?}"
    );
}

/// Also an actor that is ended from outside counts as stopped, once.
#[tokio::test(start_paused = true)]
async fn an_actor_that_is_given_up_is_counted_as_stopped() {
    let memory = Memory::default();
    let _guard = metrics::set_default_local_recorder(&memory);
    let limit = Duration::from_millis(10);
    let system = ActorSystem::builder("test")
        .metrics(true)
        .shutdown_limit(limit)
        .build();
    let log = Log::default();
    let a = system.spawn("a", Puppet::new("a", &log)).unwrap();
    a.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(limit).await;
    assert_eq!(system.shutdown().await.blocked.len(), 1);
    assert_eq!(memory.sum(&format!("otava_actors_alive {PUPPET}")), 0.0);
    assert_eq!(
        memory.sum(&format!("otava_actors_stopped_total {PUPPET}")),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_measured_unless_it_is_switched_on() {
    let memory = Memory::default();
    let _guard = metrics::set_default_local_recorder(&memory);
    let system = system();
    let log = Log::default();
    let a = system.spawn("a", Puppet::new("a", &log)).unwrap();
    a.ask(Order::Sync).await.unwrap();
    assert!(memory.0.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handled_in_a_span_of_its_own() {
    let spy = LogSpy::up_to(Level::DEBUG);
    let system = system();
    let log = Log::default();
    let a = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let b = system.spawn("b", Puppet::new("b", &log)).unwrap();
    a.tell(act(move |_, ctx| {
        tracing::info!("in the handler");
        b.tell(act(|_, _| {
            tracing::info!("in the other");
            Ok(())
        }))
        .unwrap();
        ctx.pipe_to_self(async {}, |()| say("piped"));
        Ok(())
    }))
    .unwrap();
    let caused = || {
        spy.spans()
            .into_iter()
            .filter(|span| !span.follows_from.is_empty())
    };
    // A handler that waits is in its span again after the wait.
    a.tell(Order::Sleep(SOON)).unwrap();
    a.ask(Order::Sync).within(2 * SOON).await.unwrap();
    for (text, actor) in [("in the handler", "test/a"), ("in the other", "test/b")] {
        let event = spy.expect_event(Level::INFO, text);
        assert_eq!(event.spans.len(), 1);
        let span = &event.spans[0];
        assert_eq!(
            (span.name.as_str(), span.target.as_str()),
            ("message", "otava::message")
        );
        assert_eq!(span.fields["actor"], actor);
        assert!(span.fields["message_type"].ends_with("Order"));
    }
    // The message to b was sent by the first one to a; those sent by the test have no cause.
    let caused: Vec<_> = caused().collect();
    assert_eq!(caused.len(), 1);
    assert_eq!(caused[0].fields["actor"], "test/b");
    assert_eq!(caused[0].follows_from, [1]);
    assert_eq!(spy.spans()[0].fields["actor"], "test/a");
}

#[tokio::test(start_paused = true)]
async fn without_a_listener_at_debug_no_span_is_made() {
    let spy = LogSpy::up_to(Level::INFO);
    let system = system();
    let log = Log::default();
    let a = system.spawn("a", Puppet::new("a", &log)).unwrap();
    a.ask(Order::Sync).await.unwrap();
    assert_eq!(spy.spans(), []);
    assert_eq!(spy.events(), []);
}

#[tokio::test(start_paused = true)]
async fn births_and_ends_are_told_at_debug_and_failures_at_warn() {
    let spy = LogSpy::up_to(Level::DEBUG);
    let system = system();
    let log = Log::default();
    let a = system.spawn("a", Puppet::new("a", &log)).unwrap();
    a.tell(act(|_, _| Err("no".to_owned()))).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    system.shutdown().await;
    let born = spy.expect_event(Level::DEBUG, "starts");
    let failed = spy.expect_event(Level::WARN, "failed");
    let ended = spy.expect_event(Level::DEBUG, "ended");
    for event in [&born, &failed, &ended] {
        assert_eq!(event.fields["actor"], "test/a");
    }
    assert_eq!(failed.fields["failure"], "no");
    assert_eq!(ended.fields["reason"], "Failed");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_logged_first_at_info_then_rarely() {
    let spy = LogSpy::up_to(Level::DEBUG);
    let system = system();
    let path = otava_actor::ActorPath::new("test/gone");
    let report = |times: usize| {
        for _ in 0..times {
            system
                .dead_letters()
                .report(&path, DeadLetterReason::Expired, "Secret");
        }
    };
    let lines = || {
        let events = spy.events().into_iter();
        events
            .filter(|event| event.message.contains("dead letter"))
            .count()
    };
    report(100);
    let first = spy.expect_event(Level::INFO, "first dead letter");
    assert_eq!(first.fields["reason"], "expired");
    assert_eq!(first.fields["actor"], "test/gone");
    assert_eq!(lines(), 0, "the other 99 wait");
    tokio::time::sleep(Duration::from_secs(1)).await;
    report(100);
    let later = spy.expect_event(Level::DEBUG, "dead letters");
    assert_eq!(later.fields["new"], "100");
    assert_eq!(lines(), 0);
    system
        .dead_letters()
        .report(&path, DeadLetterReason::LateReply, "Secret");
    spy.expect_event(Level::INFO, "first dead letter");
}

#[tokio::test(start_paused = true)]
async fn the_tree_shows_what_each_actor_does() {
    let system = ActorSystem::new("shop");
    let log = Log::default();
    let a = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let b = system.spawn("b", Puppet::new("b", &log)).unwrap();
    let child_log = log.clone();
    a.tell(act(move |_, ctx| {
        for name in ["y", "x"] {
            ctx.spawn(name, Puppet::new(name, &child_log)).unwrap();
        }
        Ok(())
    }))
    .unwrap();
    a.ask(Order::Sync).await.unwrap();
    b.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    b.tell(say("waits")).unwrap();
    a.tell(say("soon")).unwrap();
    let tree = system.tree();
    let seen: Vec<_> = tree
        .actors()
        .iter()
        .map(|one| (one.path.name(), one.level, one.state))
        .collect();
    assert_eq!(
        seen,
        [
            ("a", 0, ActorState::Queued),
            ("x", 1, ActorState::Idle),
            ("y", 1, ActorState::Idle),
            ("b", 0, ActorState::Waiting),
        ]
    );
    assert_eq!(tree.left_out(), 0);
    let printed = tree.to_string();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "shop: 4 actors");
    assert!(lines[2].starts_with("    x #"), "{printed}");
    assert!(lines[4].contains("waiting, 1 queued"), "{printed}");
}

#[tokio::test(start_paused = true)]
async fn a_large_tree_is_cut_and_says_so() {
    let system = ActorSystem::new("shop");
    let log = Log::default();
    let parent = system.spawn("a-parent", Puppet::new("p", &log)).unwrap();
    for name in ["b", "c"] {
        system
            .spawn_with(name, Props::once(Puppet::new("top", &log)))
            .unwrap();
    }
    parent
        .tell(act(|puppet, ctx| {
            for _ in 0..100 {
                ctx.spawn_anonymous(Puppet::props("child", &puppet.log))
                    .unwrap();
            }
            Ok(())
        }))
        .unwrap();
    parent.ask(Order::Sync).await.unwrap();
    let tree = system.tree_up_to(10);
    assert_eq!((tree.actors().len(), tree.left_out()), (10, 93));
    assert_eq!(tree.actors()[0].children, 100);
    assert!(
        tree.to_string().contains("(and 93 more children)"),
        "{tree}"
    );
    let tree = system.tree_up_to(2);
    assert_eq!((tree.actors().len(), tree.left_out()), (2, 101));
    assert!(
        tree.to_string()
            .starts_with("shop: 2 actors (and 1 more at the top)"),
        "{tree}"
    );
    assert_eq!(system.tree_up_to(0).actors(), []);
    assert_eq!(system.tree().actors().len(), 103);
}
