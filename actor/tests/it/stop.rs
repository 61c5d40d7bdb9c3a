//! Proves: L4, a stop is orderly: each hook once, each message handled or accounted for, children
//! before parents, nothing after the end.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, act, say, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorSystem, Context, DeadLetterEvent, DeadLetterReason, Ended, Props, SpawnError,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// `stop`: the message in work is finished, what waits becomes dead letters.
#[tokio::test(start_paused = true)]
async fn stop_drops_what_waits_and_counts_it() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let mut letters = system.dead_letters().subscribe();
    actor
        .tell(act(|_, ctx| {
            ctx.stop_self();
            Ok(())
        }))
        .unwrap();
    for _ in 0..3 {
        actor.tell(say("never")).unwrap();
    }
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    assert_eq!(
        probe.expect_terminated(&actor, SOON).await.reason,
        Ended::Stopped
    );
    assert_eq!(log.take(), ["a: started", "a: stopped"]);
    assert_eq!(
        system.dead_letters().count(DeadLetterReason::LeftInMailbox),
        3
    );
    match letters.recv().await {
        Some(DeadLetterEvent::Letter(letter)) => assert_eq!(letter.path, *actor.path()),
        other => panic!("{other:?}"),
    }
    assert!(actor.tell(say("refused")).is_err() && actor.is_stopped());
}

/// `stop_after_queued`: what waits is handled, what comes later is refused; a stop cuts it short.
#[tokio::test(start_paused = true)]
async fn a_drain_handles_what_is_queued() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    for n in 0..200 {
        actor.tell(say(n.to_string())).unwrap();
    }
    actor.stop_after_queued();
    actor.stop_after_queued();
    assert!(actor.tell(say("refused")).is_err());
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&actor);
    probe.expect_terminated(&actor, SOON).await;
    let lines = log.take();
    assert_eq!((lines.len(), lines[201].as_str()), (202, "a: stopped"));
    assert_eq!(
        system.dead_letters().count(DeadLetterReason::LeftInMailbox),
        0
    );

    let actor = system.spawn("b", Puppet::new("b", &log)).unwrap();
    actor.tell(Order::Sleep(SOON)).unwrap();
    actor.tell(say("never")).unwrap();
    actor.stop_after_queued();
    tokio::time::sleep(Duration::from_millis(1)).await;
    actor.stop();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["b: started", "b: stopped"]);
}

/// Children end before their parents; all hooks run once; names are free again afterwards.
#[tokio::test(start_paused = true)]
async fn a_tree_stops_from_its_leaves() {
    let (system, log) = (system(), Log::default());
    let own = log.clone();
    let root = system.spawn("root", Puppet::new("root", &log)).unwrap();
    let grow = act(move |_, ctx| {
        for (child, leaf) in [("a", "a1"), ("b", "b1")] {
            let actor = ctx.spawn(child, Puppet::new(child, &own)).unwrap();
            let own = own.clone();
            let spawn = act(move |_, ctx| {
                let leaf = ctx.spawn(leaf, Puppet::new(leaf, &own)).unwrap();
                leaf.tell(Order::Sleep(Duration::from_millis(5))).unwrap();
                Ok(())
            });
            actor.tell(spawn).unwrap();
        }
        let names: Vec<_> = ctx
            .children()
            .iter()
            .map(|path| path.name().to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
        Ok(())
    });
    root.tell(grow).unwrap();
    root.ask(Order::Sync).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(system.actors().len(), 5);
    log.take();
    root.stop();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&root);
    probe.expect_terminated(&root, SOON).await;
    let lines = log.take();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let place = |name: &str| {
        lines
            .iter()
            .position(|line| *line == format!("{name}: stopped"))
    };
    for (first, then) in [("a1", "a"), ("b1", "b"), ("a", "root"), ("b", "root")] {
        assert!(place(first).unwrap() < place(then).unwrap(), "{lines:?}");
    }
    system.spawn("root", Puppet::new("root", &log)).unwrap();
}

/// Names are unique among the living siblings, and checked.
#[tokio::test(start_paused = true)]
async fn names_are_unique_among_living_siblings() {
    let system = system();
    let actor = system.spawn("a", Adder(0)).unwrap();
    let path = actor.path().clone();
    assert_eq!(
        system.spawn("a", Adder(0)),
        Err(SpawnError::NameTaken { path })
    );
    assert!(matches!(
        system.spawn("a/b", Adder(0)),
        Err(SpawnError::BadName { .. })
    ));
    let again = Arc::new(std::sync::Mutex::new(None));
    let (slot, spawner) = (again.clone(), system.clone());
    // Whoever is told of the end finds the name free.
    actor
        .on_terminated(move |_| *slot.lock().unwrap() = Some(spawner.spawn("a", Adder(0))))
        .detach();
    actor.stop();
    tokio::time::sleep(SOON).await;
    let second = again.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(second.path(), actor.path());
    assert!(second.uid() != actor.uid() && second != actor);
    assert_eq!(second.ask(Sums::Get).await, Ok(0));
    let anonymous = system.spawn_anonymous(Props::once(Adder(0))).unwrap();
    assert!(anonymous.path().name().starts_with('$'));
}

/// An actor that is past its last message starts no child.
#[tokio::test(start_paused = true)]
async fn a_stopping_actor_spawns_no_child() {
    let (system, log) = (system(), Log::default());
    let on_stopped = |ctx: &mut Context<Puppet>| {
        let refused = ctx.spawn("late", Adder(0)).unwrap_err();
        assert!(matches!(refused, SpawnError::Stopping { .. }));
        ctx.me().tell(say("never")).unwrap_err();
    };
    let actor = system
        .spawn(
            "a",
            Puppet {
                on_stopped,
                ..Puppet::new("a", &log)
            },
        )
        .unwrap();
    actor.stop();
    assert_eq!(system.shutdown().await.blocked, []);
    let refused = system.spawn("b", Adder(0)).unwrap_err();
    assert!(matches!(refused, SpawnError::Stopping { .. }));
}

/// Counts hooks and messages, and notices anything after the end.
struct Ledger {
    handled: Arc<AtomicU64>,
    ends: Arc<AtomicU64>,
    over: bool,
}

impl Actor for Ledger {
    type Msg = u64;
    type Err = String;

    async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), String> {
        assert!(!self.over, "a message after the end");
        self.handled.fetch_add(1, SeqCst);
        if n % 7 == 3 {
            tokio::task::yield_now().await;
        }
        if n % 50 == 49 {
            Err("restart".into())
        } else {
            Ok(())
        }
    }

    async fn stopped(&mut self, _: &mut Context<Self>) {
        self.over = true;
        self.ends.fetch_add(1, SeqCst);
    }
}

/// L4: 8 senders, restarts, watchers and two stops race, a thousand times; the sums are exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_racing_stop_accounts_for_every_message() {
    for round in 0..1_000_u64 {
        let system = ActorSystem::new("test");
        let (handled, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (h, e) = (handled.clone(), ends.clone());
        let props = Props::new(move || Ledger {
            handled: h.clone(),
            ends: e.clone(),
            over: false,
        });
        let restart = otava_actor::Supervision::Restart {
            limit: u32::MAX,
            within: SOON,
        };
        let actor = system
            .spawn_with("ledger", props.on_failure(restart))
            .unwrap();
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let actor = actor.clone();
                tokio::task::spawn_blocking(move || {
                    (0..200).filter(|&n| actor.tell(n).is_err()).count() as u64
                })
            })
            .collect();
        let told = Arc::new(AtomicU64::new(0));
        let counter = told.clone();
        let _watching = actor.on_terminated(move |_| {
            counter.fetch_add(1, SeqCst);
        });
        while handled.load(SeqCst) < round % 150 * 8 {
            tokio::task::yield_now().await;
        }
        actor.stop();
        actor.stop_after_queued();
        actor.stop();
        let mut refused = 0;
        for sender in senders {
            refused += sender.await.unwrap();
        }
        assert_eq!(system.shutdown().await.blocked, []);
        let letters = system.dead_letters();
        let left = letters.count(DeadLetterReason::LeftInMailbox);
        assert_eq!(
            handled.load(SeqCst) + refused + left,
            1_600,
            "round {round}"
        );
        assert_eq!(letters.count(DeadLetterReason::RefusedStopped), refused);
        assert_eq!(
            (ends.load(SeqCst), told.load(SeqCst)),
            (1, 1),
            "round {round}"
        );
    }
}

/// A panic in the destructor of a message that is dropped with the mailbox does no harm.
#[tokio::test(start_paused = true)]
async fn a_message_that_panics_when_dropped_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    struct Never;
    impl Actor for Never {
        type Msg = Bomb;
        type Err = Infallible;
        async fn handle(&mut self, _: Bomb, _: &mut Context<Self>) -> Result<(), Infallible> {
            Ok(())
        }
    }
    let system = system();
    let actor = system.spawn("never", Never).unwrap();
    for _ in 0..3 {
        actor.tell(Bomb).unwrap();
    }
    actor.stop();
    assert_eq!(system.shutdown().await.blocked, []);
    assert_eq!(
        system.dead_letters().count(DeadLetterReason::LeftInMailbox),
        3
    );
}
