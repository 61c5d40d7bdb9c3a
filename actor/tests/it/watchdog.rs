//! Proves: an actor that holds its thread is named, and keeps neither others, timers nor stops waiting.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, act};
use otava_actor::{ActorRef, ActorSystem, Watchdog};
use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Hands on the lines of the watchdog. When the last handle on it is gone, the other end sees that.
struct Lines(Mutex<Sender<String>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().ends_with("::watchdog")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        let _ = self.0.lock().unwrap().send(line.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

/// A system whose watchdog warns after `limit`, and its log.
fn watched(limit: Duration) -> (ActorSystem, Receiver<String>) {
    let (lines, log) = channel();
    let lines = Lines(Mutex::new(lines));
    let system = tracing::subscriber::with_default(lines, || {
        ActorSystem::builder("test")
            .watchdog(Watchdog::WarnAfter(limit))
            .build()
    });
    (system, log)
}

const NEVER: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(10);
/// Nothing is held for as long, on however busy a machine.
const LONG: Duration = Duration::from_secs(60);

fn puppet(system: &ActorSystem, name: &str) -> ActorRef<Order> {
    system
        .spawn(name, Puppet::new("p", &Log::default()))
        .unwrap()
}

/// An order that says when it is begun, does `first`, and blocks its thread until `gate` is dropped.
fn block(
    first: impl FnOnce() + Send + 'static,
) -> (Order, Receiver<()>, Sender<std::convert::Infallible>) {
    let ((begun, on_begun), (gate, closed)) = (channel(), channel());
    let order = act(move |_, _| {
        first();
        begun.send(()).unwrap();
        assert_eq!(
            closed.recv_timeout(SOON * 6),
            Err(RecvTimeoutError::Disconnected),
            "nobody opened the gate"
        );
        Ok(())
    });
    (order, on_begun, gate)
}

/// An order that reports.
fn report(done: &Sender<()>) -> Order {
    let done = done.clone();
    act(move |_, _| {
        done.send(()).unwrap();
        Ok(())
    })
}

fn wait(on: &Receiver<()>) {
    on.recv_timeout(SOON).unwrap();
}

/// What an actor has told just before it blocks lies in the slot of its worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_blocking_actor_has_told_runs_nevertheless() {
    let (system, _log) = watched(NEVER);
    for others in [1, 2, 5] {
        let ((done, on_done), mut told) = (channel(), Vec::new());
        for n in 0..others {
            let other = puppet(&system, &format!("other{others}-{n}"));
            other.ask(Order::Sync).await.unwrap();
            told.push(other);
        }
        let blocker = puppet(&system, &format!("blocker{others}"));
        let (order, begun, gate) = block(move || {
            for other in told {
                other.tell(report(&done)).unwrap();
            }
        });
        blocker.tell(order).unwrap();
        wait(&begun);
        (0..others).for_each(|_| wait(&on_done));
        drop(gate);
        blocker.ask(Order::Sync).await.unwrap();
    }
    assert_eq!(system.times_blocked(), 0, "the limit is far away");
}

/// Timers of others fire, and others stop and are seen to, on the thread that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_and_stops_of_others_go_on() {
    let (system, _log) = watched(NEVER);
    let (ticks, on_tick) = channel();
    let ticker = puppet(&system, "ticker");
    ticker
        .tell(act(move |_, ctx| {
            ctx.timer_every("tick", Duration::from_millis(1), move || report(&ticks));
            Ok(())
        }))
        .unwrap();
    wait(&on_tick);
    let blocker = puppet(&system, "blocker");
    let (order, begun, gate) = block(|| {});
    blocker.tell(order).unwrap();
    wait(&begun);
    while on_tick.try_recv().is_ok() {}
    (0..20).for_each(|_| wait(&on_tick));
    let (gone, on_gone) = channel();
    ticker
        .on_terminated(move |_| gone.send(()).unwrap())
        .detach();
    ticker.stop();
    wait(&on_gone);
    drop(gate);
    assert_eq!(system.shutdown().await.blocked, []);
}

/// The log of whoever built the system names it once, and once more when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocking_actor_is_named_once_and_when_it_is_back() {
    let (system, log) = watched(SHORT);
    let blocker = puppet(&system, "blocker");
    for times in 1..=2 {
        let (order, begun, gate) = block(|| {});
        blocker.tell(order).unwrap();
        wait(&begun);
        let line = log.recv_timeout(SOON).unwrap();
        assert!(line.contains("WARN") && line.contains("does not give its thread back"));
        assert!(line.contains("actor=test/blocker held="), "{line}");
        assert_eq!(system.blocked_actors(), [blocker.path().clone()]);
        assert_eq!(system.times_blocked(), times);
        drop(gate);
        let line = log.recv_timeout(SOON).unwrap();
        assert!(line.contains("has given its thread back"), "{line}");
        assert!(line.contains("actor=test/blocker held="), "{line}");
        assert_eq!(system.blocked_actors(), []);
    }
}

/// With all workers blocked nobody runs, but the watchdog does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_that_block_all_workers_are_named() {
    let (system, log) = watched(SHORT);
    let mut gates = Vec::new();
    for name in ["a", "b"] {
        let (order, begun, gate) = block(|| {});
        puppet(&system, name).tell(order).unwrap();
        wait(&begun);
        gates.push(gate);
    }
    let lines = [(); 2].map(|()| log.recv_timeout(SOON).unwrap());
    for name in ["actor=test/a ", "actor=test/b "] {
        assert!(lines.iter().any(|line| line.contains(name)), "{lines:?}");
    }
    drop(gates);
    assert_eq!(system.shutdown().await.blocked, []);
}

/// An asker's thread may run the actor it asks: there it is seen as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_blocks_its_asker_is_named() {
    let (system, log) = watched(SHORT);
    let blocker = puppet(&system, "blocker");
    blocker.ask(Order::Sync).await.unwrap();
    let other = puppet(&system, "other");
    let (done, on_done) = channel();
    let (order, begun, gate) = block(move || other.tell(report(&done)).unwrap());
    let asking = blocker.ask(|reply_to| {
        act(move |puppet, ctx| {
            let Order::Act(order) = order else {
                return Ok(());
            };
            order(puppet, ctx)?;
            let _ = reply_to.send(());
            Ok(())
        })
    });
    let asked = tokio::spawn(asking.within(NEVER).into_future());
    wait(&begun);
    wait(&on_done);
    let line = log.recv_timeout(SOON).unwrap();
    assert!(line.contains("actor=test/blocker "), "{line}");
    drop(gate);
    asked.await.unwrap().unwrap();
}

/// An `async` handler whose awaits are all ready never yields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_never_yields_is_named() {
    let (system, log) = watched(SHORT);
    let (gate, closed) = channel::<()>();
    let busy = system.spawn("busy", Busy(Some(closed))).unwrap();
    busy.tell(()).unwrap();
    let line = log.recv_timeout(SOON).unwrap();
    assert!(line.contains("actor=test/busy "), "{line}");
    let adder = system.spawn("adder", Adder(3)).unwrap();
    assert_eq!(adder.ask(Sums::Get).within(SOON).await, Ok(3));
    drop(gate);
    assert_eq!(system.shutdown().await.blocked, []);
}

struct Busy(Option<Receiver<()>>);

impl otava_actor::Actor for Busy {
    type Msg = ();
    type Err = std::convert::Infallible;

    async fn handle(
        &mut self,
        (): (),
        _: &mut otava_actor::Context<Self>,
    ) -> Result<(), Self::Err> {
        let gate = Mutex::new(self.0.take().unwrap());
        let is_open = || {
            gate.lock()
                .unwrap()
                .recv_timeout(Duration::from_micros(100))
        };
        while is_open() == Err(RecvTimeoutError::Timeout) {
            std::future::ready(()).await;
        }
        Ok(())
    }
}

/// Each worker task is in a handler that has given its thread away and waits for another actor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_in_block_in_place_do_not_keep_others_waiting() {
    let (system, _log) = watched(NEVER);
    let tasks = || system.handle().metrics().num_alive_tasks();
    let before = tasks();
    let other = puppet(&system, "other");
    let ((begun, on_begun), (ended, on_ended)) = (channel(), channel());
    let mut gates = Vec::new();
    for name in ["a", "b"] {
        let ((gate, closed), begun, ended) = (channel(), begun.clone(), ended.clone());
        gates.push(gate);
        puppet(&system, name)
            .tell(act(move |_, _| {
                tokio::task::block_in_place(|| {
                    begun.send(()).unwrap();
                    closed.recv_timeout(SOON * 6).unwrap();
                });
                ended.send(()).unwrap();
                Ok(())
            }))
            .unwrap();
        wait(&on_begun);
    }
    other
        .tell(act(move |_, _| {
            gates.into_iter().for_each(|gate| gate.send(()).unwrap());
            Ok(())
        }))
        .unwrap();
    (0..2).for_each(|_| wait(&on_ended));
    // The tasks that helped end.
    let all_gone = async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, all_gone).await.unwrap();
    assert_eq!(system.shutdown().await.blocked, []);
}

/// A task of users that blocks its thread right after it has told something: tokio keeps the worker
/// task that this has woken for that thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_blocking_task_has_told_runs_nevertheless() {
    let (system, _log) = watched(NEVER);
    let actor = puppet(&system, "a");
    let (done, on_done) = channel();
    actor.ask(Order::Sync).await.unwrap();
    let (gate, closed) = channel::<()>();
    let blocked = tokio::spawn(async move {
        actor.tell(report(&done)).unwrap();
        closed.recv_timeout(SOON * 6)
    });
    wait(&on_done);
    drop(gate);
    assert_eq!(blocked.await.unwrap(), Err(RecvTimeoutError::Disconnected));
}

/// Whatever a handler does on the thread of its asker, the next one is served as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_on_the_thread_of_their_asker_may_do_anything() {
    let (system, _log) = watched(NEVER);
    let restart = otava_actor::Supervision::Restart {
        limit: 1_000,
        within: SOON,
    };
    let props = Puppet::props("p", &Log::default()).on_failure(restart);
    let actor = system.spawn_with("a", props).unwrap();
    let adder = system.spawn("adder", Adder(3)).unwrap();
    let ask = async move {
        for _ in 0..100 {
            let sum = actor.ask(|reply_to| {
                let adder = adder.clone();
                act(move |_, ctx| {
                    // Another system's or one's own handler on this thread, in the midst of this one.
                    let sum = tokio::task::block_in_place(|| {
                        let handle = ctx.system().handle().clone();
                        handle.block_on(adder.ask(Sums::Get).into_future())
                    });
                    let _ = reply_to.send(sum.unwrap());
                    Ok(())
                })
            });
            assert_eq!(sum.within(SOON).await, Ok(3));
            let late = |reply_to| Sums::Late(reply_to, Duration::from_micros(1));
            assert_eq!(adder.ask(late).within(SOON).await, Ok(3));
            let lost = actor.ask(|reply_to: otava_actor::ReplyTo<()>| {
                act(move |_, _| {
                    let _lost = reply_to;
                    std::panic::resume_unwind(Box::new("on purpose"))
                })
            });
            assert!(lost.within(SOON).await.is_err());
            actor.ask(Order::Sync).within(SOON).await.unwrap();
        }
    };
    tokio::spawn(ask).await.unwrap();
    assert_eq!(system.shutdown().await.blocked, []);
}

/// The thread has the log of whoever built the system; it lets go of it when it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thread_ends_with_its_system() {
    let (system, log) = watched(LONG);
    puppet(&system, "a").ask(Order::Sync).await.unwrap();
    assert_eq!(log.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
    system.shutdown().await;
    assert_eq!(log.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));

    let (system, log) = watched(LONG);
    puppet(&system, "a").ask(Order::Sync).await.unwrap();
    drop(system);
    assert_eq!(log.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
}

/// Also if the runtime goes first.
#[test]
fn the_thread_ends_with_its_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (system, log) = runtime.block_on(async {
        let (system, log) = watched(LONG);
        puppet(&system, "a").ask(Order::Sync).await.unwrap();
        (system, log)
    });
    drop(runtime);
    assert_eq!(log.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    assert_eq!(system.actors(), []);
}

/// There is no thread where it could change the order of events.
#[tokio::test(start_paused = true)]
async fn one_worker_has_no_watchdog() {
    let (system, log) = watched(Duration::ZERO);
    puppet(&system, "a").ask(Order::Sync).await.unwrap();
    assert_eq!(
        log.try_recv(),
        Err(std::sync::mpsc::TryRecvError::Disconnected)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watchdog_that_is_off_has_no_thread() {
    let (lines, log) = channel();
    let lines = Lines(Mutex::new(lines));
    let system = tracing::subscriber::with_default(lines, || {
        let builder = ActorSystem::builder("test");
        builder.watchdog(Watchdog::Off).build()
    });
    puppet(&system, "a").ask(Order::Sync).await.unwrap();
    assert_eq!(log.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
}
