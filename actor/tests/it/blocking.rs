//! Proves: a blocking actor has a thread of its own, and is an actor in every other respect.

use crate::support::{Adder, Log, SOON, Sums};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    ActorRef, ActorSystem, BlockingActor, BlockingContext, Ended, Pool, Props, ReplyTo, Supervision,
};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{Thread, ThreadId};
use std::time::Duration;
use tokio::sync::oneshot;

/// Not `Send`: it never leaves its thread.
struct Blocker {
    log: Log,
    handled: Rc<u32>,
}

enum Job {
    /// Asks an adder, from within.
    Ask(ActorRef<Sums>, ReplyTo<u64>),
    Fail,
    Panic,
    Stop,
    /// Says that it is at work, and blocks until somebody sends.
    Wait(oneshot::Sender<()>, Receiver<()>),
    Meet(Arc<Barrier>, ReplyTo<ThreadId>),
    Who(ReplyTo<(Thread, u32)>),
}

impl BlockingActor for Blocker {
    type Msg = Job;
    type Err = &'static str;

    fn started(&mut self, ctx: &mut BlockingContext<Job>) -> Result<(), &'static str> {
        self.log.add(format!("{} started", ctx.path().name()));
        Ok(())
    }

    fn handle(&mut self, job: Job, ctx: &mut BlockingContext<Job>) -> Result<(), &'static str> {
        self.handled = Rc::new(*self.handled + 1);
        match job {
            Job::Ask(adder, reply_to) => {
                let sum = ctx
                    .system()
                    .handle()
                    .block_on(async { adder.ask(Sums::Get).await });
                let _ = reply_to.send(sum.map_err(|_| "no sum")?);
            }
            Job::Fail => return Err("it was told to"),
            Job::Panic => panic!("it was told to"),
            Job::Stop => ctx.stop_self(),
            Job::Wait(at_work, until) => {
                let _ = at_work.send(());
                let _ = until.recv();
                self.log.add("waited");
            }
            Job::Meet(barrier, reply_to) => {
                barrier.wait();
                let _ = reply_to.send(std::thread::current().id());
            }
            Job::Who(reply_to) => {
                let _ = reply_to.send((std::thread::current(), *self.handled));
            }
        }
        Ok(())
    }

    fn stopped(&mut self, _: &mut BlockingContext<Job>) {
        self.log.add("stopped");
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.log.add("dropped");
    }
}

fn blocker(log: &Log) -> impl FnMut() -> Blocker + Send + 'static {
    let log = log.clone();
    move || Blocker {
        log: log.clone(),
        handled: Rc::new(0),
    }
}

/// Lets `actor` block; it goes on when the result is used.
async fn block(actor: &ActorRef<Job>) -> Sender<()> {
    let (at_work, begun) = oneshot::channel();
    let (release, until) = channel();
    actor.tell(Job::Wait(at_work, until)).unwrap();
    begun.await.unwrap();
    release
}

/// On a runtime with a single thread, which would be blocked.
#[tokio::test]
async fn a_blocked_handler_blocks_nobody_else() {
    let (system, log) = (ActorSystem::new("test"), Log::default());
    let actor = system.spawn_blocking("files", blocker(&log)).unwrap();
    let (thread, _) = actor.ask(Job::Who).await.unwrap();
    assert_eq!(thread.name(), Some("files"));
    assert_ne!(thread.id(), std::thread::current().id());
    let release = block(&actor).await;
    let adder = system.spawn("adder", Adder(7)).unwrap();
    assert_eq!(adder.ask(Sums::Get).await, Ok(7));
    assert_eq!(log.take(), ["files started"], "it is still blocked");
    release.send(()).unwrap();
    let (again, handled) = actor.ask(Job::Who).await.unwrap();
    assert_eq!((again.id(), handled), (thread.id(), 3));
    assert_eq!(actor.ask(|reply_to| Job::Ask(adder, reply_to)).await, Ok(7));
    assert_eq!(system.shutdown().await.blocked, []);
    assert_eq!(log.take(), ["waited", "stopped", "dropped"]);
}

#[tokio::test]
async fn a_stop_waits_for_the_message_in_work_and_the_thread_is_gone_after_it() {
    let (system, log) = (ActorSystem::new("test"), Log::default());
    let actor = system.spawn_blocking("a", blocker(&log)).unwrap();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    let release = block(&actor).await;
    actor.tell(Job::Fail).unwrap();
    actor.stop();
    assert!(actor.is_stopped() && actor.tell(Job::Stop).is_err());
    assert_eq!(log.take(), ["a started"]);
    release.send(()).unwrap();
    let news = probe.expect_terminated(&actor, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
    assert_eq!(log.take(), ["waited", "stopped", "dropped"]);
    let itself = system.spawn_blocking("b", blocker(&log)).unwrap();
    probe.watch(&itself);
    itself.tell(Job::Stop).unwrap();
    probe.expect_terminated(&itself, SOON).await;
}

#[tokio::test]
async fn an_error_and_a_panic_on_the_thread_are_failures_of_the_actor() {
    let (system, log) = (ActorSystem::new("test"), Log::default());
    let restart = Supervision::Restart {
        limit: 2,
        within: SOON * 10,
    };
    let props = Props::blocking(blocker(&log)).on_failure(restart);
    let actor = system.spawn_with("a", props).unwrap();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    let (first, _) = actor.ask(Job::Who).await.unwrap();
    actor.tell(Job::Panic).unwrap();
    let (second, handled) = actor.ask(Job::Who).await.unwrap();
    assert_eq!(handled, 1, "a new instance");
    assert_ne!(first.id(), second.id());
    actor.tell(Job::Fail).unwrap();
    actor.ask(Job::Who).await.unwrap();
    let restarted = ["a started", "dropped"];
    assert_eq!(
        log.take()[..5],
        [restarted, restarted, restarted].concat()[..5]
    );
    actor.tell(Job::Panic).unwrap();
    let news = probe.expect_terminated(&actor, SOON).await;
    assert_eq!(news.reason, Ended::Failed);
    assert_eq!(log.take(), ["stopped", "dropped"]);
}

#[tokio::test]
async fn a_factory_that_panics_on_the_thread_is_a_failure() {
    let system = ActorSystem::new("test");
    let actor = system
        .spawn_blocking("a", || -> Blocker { panic!("no actor") })
        .unwrap();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    let news = probe.expect_terminated(&actor, SOON).await;
    assert_eq!(news.reason, Ended::Failed);
}

/// L10: nobody can end a thread, but the system ends, and the thread does when it can.
#[tokio::test]
async fn a_thread_that_blocks_beyond_a_shutdown_is_named_and_given_up() {
    let limit = Duration::from_millis(50);
    let system = ActorSystem::builder("test").shutdown_limit(limit).build();
    let log = Log::default();
    let (alive, ended) = oneshot::channel::<()>();
    let mut make = blocker(&log);
    let factory = move || {
        // Dropped with the factory, at the end of the thread.
        let _held = &alive;
        make()
    };
    let actor = system.spawn_blocking("a", factory).unwrap();
    let release = block(&actor).await;
    assert_eq!(system.shutdown().await.blocked, [actor.path().clone()]);
    assert_eq!(log.take(), ["a started"]);
    release.send(()).unwrap();
    assert!(ended.await.is_err());
    assert_eq!(log.take(), ["waited", "dropped"]);
}

/// Two at once, or they would never meet.
#[tokio::test]
async fn a_pool_of_blocking_actors_works_in_parallel() {
    let (system, log) = (ActorSystem::new("test"), Log::default());
    let pool = Pool::new(2, move || Props::blocking(blocker(&log)));
    let pool = system.spawn_pool("pool", pool).unwrap();
    let barrier = Arc::new(Barrier::new(2));
    let meet = || {
        pool.ask(|reply_to| Job::Meet(barrier.clone(), reply_to))
            .within(SOON)
    };
    let (a, b) = tokio::join!(meet().into_future(), meet().into_future());
    assert_ne!(a.unwrap(), b.unwrap());
}
