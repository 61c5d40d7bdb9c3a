//! Proves: L5, whoever watches is told exactly once, after everything that the dead actor sent.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, act, say, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Ended, Props, ReplyTo, Terminated};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::sync::oneshot;

/// L5: before, during and after the death.
#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_once_whenever_it_begins() {
    let system = system();
    let actor = system.spawn("a", Adder(0)).unwrap();
    let mut before = TestProbe::<()>::new(&system);
    before.watch(&actor);
    actor.stop();
    let mut during = TestProbe::<()>::new(&system);
    during.watch(&actor);
    let news = before.expect_terminated(&actor, SOON).await;
    assert_eq!((news.reason, news.uid), (Ended::Stopped, actor.uid()));
    during.expect_terminated(&actor, SOON).await;
    let mut after = TestProbe::<()>::new(&system);
    after.watch(&actor);
    after.expect_terminated(&actor, SOON).await;
    for mut probe in [before, during, after] {
        probe.expect_no_msg(SOON).await;
    }
}

/// L5: the news comes after the messages, although it is news of the system.
#[tokio::test(start_paused = true)]
async fn the_news_comes_behind_what_the_dead_actor_sent() {
    let system = system();
    let mut probe = TestProbe::<u32>::new(&system);
    let actor = system
        .spawn("a", Puppet::new("a", &Log::default()))
        .unwrap();
    probe.watch(&actor);
    let to = probe.actor_ref().clone();
    actor
        .tell(act(move |_, _| {
            (0..500).for_each(|n| to.tell(n).unwrap());
            Err("and dies".into())
        }))
        .unwrap();
    for n in 0..500 {
        assert_eq!(probe.expect_msg(SOON).await, n);
    }
    assert_eq!(
        probe.expect_terminated(&actor, SOON).await.reason,
        Ended::Failed
    );
}

/// L5: watching twice is watching once; after unwatch nothing comes, also if it is queued already.
#[tokio::test(start_paused = true)]
async fn twice_is_once_and_unwatch_takes_back_what_is_queued() {
    let (system, log) = (system(), Log::default());
    let watcher = system.spawn("w", Puppet::new("w", &log)).unwrap();
    let [a, b] = ["a", "b"].map(|name| system.spawn(name, Adder(0)).unwrap());
    let watched = [a.clone(), b.clone()];
    watcher
        .tell(act(move |_, ctx| {
            watched.iter().for_each(|actor| ctx.watch(actor));
            watched.iter().for_each(|actor| ctx.watch(actor));
            Ok(())
        }))
        .unwrap();
    watcher.ask(Order::Sync).await.unwrap();
    // While the watcher is busy, both end, so the news waits in its mailbox.
    watcher.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(SOON / 2).await;
    let unwatched = a.clone();
    watcher
        .tell(act(move |_, ctx| {
            ctx.unwatch(&unwatched);
            Ok(())
        }))
        .unwrap();
    a.stop();
    b.stop();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["w: started", "w: b ended, Stopped"]);
    // Whoever watches again is told again.
    watcher
        .tell(act(move |_, ctx| {
            ctx.watch(&a);
            ctx.unwatch(&a);
            ctx.watch(&a);
            Ok(())
        }))
        .unwrap();
    watcher.ask(Order::Sync).await.unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["w: a ended, Stopped"]);
}

/// A watch survives a restart of the watched actor, which is no end.
#[tokio::test(start_paused = true)]
async fn a_restart_is_not_an_end() {
    let (system, log) = (system(), Log::default());
    let restart = otava_actor::Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let props = Puppet::props("a", &log).on_failure(restart);
    let actor = system.spawn_with("a", props).unwrap();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    actor.tell(act(|_, _| Err("once".into()))).unwrap();
    actor.tell(say("alive")).unwrap();
    probe.expect_no_msg(SOON / 2).await;
    actor.stop();
    probe.expect_terminated(&actor, SOON).await;
}

/// L5: callbacks of code that is no actor.
#[tokio::test(start_paused = true)]
async fn callbacks_are_called_once_or_taken_back() {
    let system = system();
    let actor = system.spawn("a", Adder(0)).unwrap();
    let called = Arc::new(AtomicU32::new(0));
    let count = |by: u32| {
        let called = called.clone();
        move |_: Terminated| {
            called.fetch_add(by, SeqCst);
        }
    };
    let kept = actor.on_terminated(count(1));
    drop(actor.on_terminated(count(10)));
    actor.on_terminated(count(100)).detach();
    actor.on_terminated(|_| panic!("contained")).detach();
    actor.stop();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    probe.expect_terminated(&actor, SOON).await;
    assert_eq!(called.load(SeqCst), 101);
    actor.on_terminated(count(1_000)).detach();
    assert_eq!(called.load(SeqCst), 1_101, "a dead actor answers at once");
    drop(kept);
}

/// Watches one actor from its start and counts the news.
struct Watcher {
    target: ActorRef<Sums>,
    told: Arc<AtomicU32>,
}

impl Actor for Watcher {
    type Msg = ();
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        ctx.watch(&self.target);
        Ok(())
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Infallible> {
        Ok(())
    }

    async fn terminated(&mut self, _: Terminated, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.told.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// L5: 1,000 watchers on threads, some before, some while, some after the actor dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_are_each_told_once() {
    let system = ActorSystem::new("test");
    let target = system.spawn("target", Adder(0)).unwrap();
    let told: Vec<_> = (0..1_000).map(|_| Arc::new(AtomicU32::new(0))).collect();
    let mut watchers = Vec::new();
    for (n, told) in told.iter().enumerate() {
        let watcher = Watcher {
            target: target.clone(),
            told: told.clone(),
        };
        watchers.push(system.spawn(&format!("w{n}"), watcher).unwrap());
        if n == 500 {
            target.stop();
        }
    }
    while told.iter().any(|told| told.load(SeqCst) == 0) {
        tokio::task::yield_now().await;
    }
    let shutdown = system.shutdown().await;
    assert_eq!(shutdown.blocked, []);
    assert!(told.iter().all(|told| told.load(SeqCst) == 1));
}

/// Watches and unwatches whatever it is sent.
struct Fickle(Arc<AtomicU32>);

enum Interest {
    Watch(ActorRef<Sums>),
    Unwatch(ActorRef<Sums>, ReplyTo<u32>),
}

impl Actor for Fickle {
    type Msg = Interest;
    type Err = Infallible;

    async fn handle(&mut self, msg: Interest, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Interest::Watch(target) => ctx.watch(&target),
            Interest::Unwatch(target, reply_to) => {
                ctx.unwatch(&target);
                let _ = reply_to.send(self.0.load(SeqCst));
            }
        }
        Ok(())
    }

    async fn terminated(&mut self, _: Terminated, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// L5: an unwatch races with the end on threads: whoever was not told by then is never told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unwatch_that_races_with_the_end_is_kept() {
    let system = ActorSystem::new("test");
    let mut races = Vec::new();
    for _ in 0..500 {
        let target = system.spawn_anonymous(Props::once(Adder(0))).unwrap();
        let fickle = Props::once(Fickle(Arc::default()));
        let fickle = system.spawn_anonymous(fickle).unwrap();
        fickle.tell(Interest::Watch(target.clone())).unwrap();
        let stopping = target.clone();
        let stop = tokio::task::spawn_blocking(move || stopping.stop());
        let watched = target.clone();
        let unwatch = fickle.ask(|reply_to| Interest::Unwatch(watched, reply_to));
        let before = unwatch.within(SOON).await.unwrap();
        stop.await.unwrap();
        assert!(before <= 1, "told {before} times");
        races.push((target, fickle, before));
    }
    for (target, fickle, before) in races {
        let (over, ended) = oneshot::channel::<()>();
        let _watching = target.on_terminated(|_| drop(over));
        let _ = tokio::time::timeout(SOON, ended).await.unwrap();
        // The news of the end would be handled before this question.
        let again = fickle.ask(|reply_to| Interest::Unwatch(target, reply_to));
        assert_eq!(
            again.within(SOON).await,
            Ok(before),
            "told after the unwatch"
        );
    }
    assert_eq!(system.shutdown().await.blocked, []);
}

/// Has children, and counts their ends.
struct Parent {
    ends: Vec<(String, Ended)>,
}

enum OfParent {
    Spawn(&'static str),
    Ends(ReplyTo<Vec<(String, Ended)>>),
}

struct Child;

impl Actor for Child {
    type Msg = ();
    type Err = String;

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), String> {
        Err("as told".to_owned())
    }
}

impl Actor for Parent {
    type Msg = OfParent;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        ctx.watch_children();
        Ok(())
    }

    async fn handle(&mut self, what: OfParent, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match what {
            OfParent::Spawn(name) => {
                let child = ctx.spawn(name, Child).unwrap();
                if name.starts_with('f') {
                    child.tell(()).unwrap();
                } else {
                    child.stop();
                }
            }
            OfParent::Ends(reply_to) => drop(reply_to.send(self.ends.clone())),
        }
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let name = who.path.as_str().rsplit('/').next().unwrap().to_owned();
        assert!(ctx.child::<()>(&name).is_none(), "its name is free");
        self.ends.push((name, who.reason));
        Ok(())
    }
}

/// L5: who watches all its children is told of each end once, with the reason.
#[tokio::test(start_paused = true)]
async fn a_parent_may_watch_all_its_children() {
    let system = system();
    let parent = system.spawn("p", Parent { ends: Vec::new() }).unwrap();
    for name in ["s1", "f1", "s2", "f2"] {
        parent.tell(OfParent::Spawn(name)).unwrap();
        tokio::time::sleep(SOON).await;
    }
    let ends = parent.ask(OfParent::Ends).await.unwrap();
    let expected = [
        ("s1", Ended::Stopped),
        ("f1", Ended::Failed),
        ("s2", Ended::Stopped),
        ("f2", Ended::Failed),
    ];
    assert_eq!(ends, expected.map(|(name, how)| (name.to_owned(), how)));
}
