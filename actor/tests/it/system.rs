//! Proves: L10, a system ends within its limit, names what blocked, and leaves nothing behind.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, act, system};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Props, ReplyTo, SpawnError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::Instant;

/// L10: many actors; all hooks run.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_everything() {
    let (system, log) = (system(), Log::default());
    for n in 0..5_000 {
        system
            .spawn(&format!("a{n}"), Puppet::new("a", &log))
            .unwrap();
    }
    assert_eq!(system.shutdown().await.blocked, []);
    let stopped = log
        .take()
        .iter()
        .filter(|line| *line == "a: stopped")
        .count();
    assert_eq!(stopped, 5_000);
    assert_eq!(system.actors(), []);
    assert!(matches!(
        system.spawn("late", Adder(0)),
        Err(SpawnError::Stopping { .. })
    ));
    assert_eq!(
        system.shutdown().await.blocked,
        [],
        "a second one finds it done"
    );
    system.ended().await;
}

/// Has children, and takes its time to end.
struct Branch {
    children: u64,
    ends_after: Duration,
    /// How many have ended: of the children, and of all.
    ended: Arc<AtomicU64>,
    all_ended: Arc<AtomicU64>,
}

impl Branch {
    fn leaf(n: u64, ended: &Arc<AtomicU64>, all_ended: &Arc<AtomicU64>) -> Self {
        let is_slow = n.is_multiple_of(97);
        Self {
            children: 0,
            ends_after: Duration::from_secs(if is_slow { 5 } else { 0 }),
            ended: ended.clone(),
            all_ended: all_ended.clone(),
        }
    }
}

impl Actor for Branch {
    type Msg = ReplyTo<()>;
    type Err = SpawnError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), SpawnError> {
        for n in 0..self.children {
            let leaf = Self::leaf(n, &self.ended, &self.all_ended);
            ctx.spawn_anonymous(Props::once(leaf))?;
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        reply_to: ReplyTo<()>,
        _: &mut Context<Self>,
    ) -> Result<(), SpawnError> {
        let _ = reply_to.send(());
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Context<Self>) {
        if !self.ends_after.is_zero() {
            tokio::time::sleep(self.ends_after).await;
        }
        let ended = self.ended.load(SeqCst);
        assert!(
            ended >= self.children,
            "{ended} of {} children",
            self.children
        );
        if self.children == 0 {
            self.ended.fetch_add(1, SeqCst);
        }
        self.all_ended.fetch_add(1, SeqCst);
    }
}

/// A tree of 100,000 actors that are all at work, and who has ended of them.
async fn forest(system: &ActorSystem) -> Arc<AtomicU64> {
    let all_ended = Arc::new(AtomicU64::new(0));
    for n in 0..100 {
        let ended = Arc::new(AtomicU64::new(0));
        let branch = Branch {
            children: 999,
            ..Branch::leaf(1, &ended, &all_ended)
        };
        let branch = system.spawn(&format!("branch-{n}"), branch).unwrap();
        branch.ask(|reply_to| reply_to).await.unwrap();
    }
    assert_eq!(system.actors().len(), 100_000);
    all_ended
}

/// L10: 100,000 actors, of which a thousand need 5 s for their stop hook: these wait side by side,
/// children end before their parents, and everything is over within the limit.
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_actors_end_children_first() {
    let system = system();
    let all_ended = forest(&system).await;
    let begun = Instant::now();
    assert_eq!(system.shutdown().await.blocked, []);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_secs(6),
        "{took:?}"
    );
    assert_eq!(all_ended.load(SeqCst), 100_000);
    assert_eq!(system.actors(), []);
}

/// L10: with less time than these hooks need, exactly they are named; the others have ended in order.
#[tokio::test(start_paused = true)]
async fn hooks_that_block_beyond_the_limit_are_named() {
    let limit = Duration::from_secs(2);
    let system = ActorSystem::builder("test").shutdown_limit(limit).build();
    let all_ended = forest(&system).await;
    let begun = Instant::now();
    let blocked = system.shutdown().await.blocked;
    assert!(begun.elapsed() < limit + Duration::from_millis(10));
    assert_eq!(blocked.len(), 100 * 11, "the leaves that need 5 s");
    assert!(blocked.iter().all(|path| path.name().starts_with('$')));
    assert_eq!(
        all_ended.load(SeqCst),
        100 * (999 - 11),
        "their parents wait"
    );
    assert_eq!(system.actors(), []);
    system.ended().await;
}

/// L10: bounded, and the blocked actor is named, not its parents.
#[tokio::test(start_paused = true)]
async fn a_shutdown_names_who_blocks_it() {
    let limit = Duration::from_secs(2);
    let system = ActorSystem::builder("test").shutdown_limit(limit).build();
    let log = Log::default();
    let own = log.clone();
    let parent = system.spawn("parent", Puppet::new("parent", &log)).unwrap();
    parent
        .tell(act(move |_, ctx| {
            let child = ctx.spawn("child", Puppet::new("child", &own)).unwrap();
            child.tell(Order::Sleep(SOON * 100)).unwrap();
            Ok(())
        }))
        .unwrap();
    parent.ask(Order::Sync).await.unwrap();
    let other = system.spawn("other", Puppet::new("other", &log)).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    let blocked = system.shutdown().await.blocked;
    assert_eq!(
        blocked.iter().map(|path| path.as_str()).collect::<Vec<_>>(),
        ["test/parent/child"]
    );
    assert!(begun.elapsed() < limit + Duration::from_millis(10));
    assert!(parent.is_stopped() && other.is_stopped());
    assert_eq!(system.actors(), []);
    system.ended().await;
}

/// Holds something whose release shows that the actor's memory is gone.
fn held(system: &ActorSystem, name: &str, token: &Arc<()>) -> ActorRef<Order> {
    let actor = system
        .spawn_with(name, Puppet::props("a", &Log::default()))
        .unwrap();
    let token = token.clone();
    actor
        .tell(act(move |_, ctx| {
            let kept = token.clone();
            ctx.timer_every("keeps", SOON, move || {
                let _kept = &kept;
                Order::Sleep(Duration::ZERO)
            });
            Ok(())
        }))
        .unwrap();
    actor
}

/// Dropping the last handle stops the actors; nothing of the system stays in memory.
#[tokio::test(start_paused = true)]
async fn a_dropped_system_ends_by_itself() {
    let token = Arc::new(());
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let system = system();
    let actor = held(&system, "a", &token);
    actor.ask(Order::Sync).await.unwrap();
    assert_eq!(Arc::strong_count(&token), 2);
    drop(system.clone());
    assert!(!actor.is_stopped(), "another handle is left");
    drop(system);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(actor.is_stopped());
    assert_eq!(Arc::strong_count(&token), 1);
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        before
    );
}

/// The runtime goes away under a living system: no panic, no leak, and later tells are refused.
#[test]
fn a_runtime_that_goes_away_takes_the_actors_with_it() {
    for workers in [0, 2] {
        let runtime = match workers {
            0 => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            n => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(n)
                .enable_all()
                .build()
                .unwrap(),
        };
        let token = Arc::new(());
        let told = Arc::new(());
        let (system, actors) = runtime.block_on(async {
            let system = system();
            let actors: Vec<_> = (0..50)
                .map(|n| held(&system, &format!("a{n}"), &token))
                .collect();
            for actor in &actors {
                actor.ask(Order::Sync).within(SOON).await.unwrap();
                let told = told.clone();
                actor.on_terminated(move |_| drop(told)).detach();
            }
            actors[7].tell(Order::Sleep(SOON)).unwrap();
            (system, actors)
        });
        drop(runtime);
        assert!(
            actors
                .iter()
                .all(|actor| actor.tell(Order::Sleep(SOON)).is_err())
        );
        assert_eq!(
            (Arc::strong_count(&token), Arc::strong_count(&told)),
            (1, 1)
        );
        assert!(matches!(
            system.spawn("b", Adder(0)),
            Err(SpawnError::Stopping { .. })
        ));
    }
}

/// Systems in one process share nothing, and may talk to each other.
#[tokio::test(start_paused = true)]
async fn two_systems_live_side_by_side() {
    let [one, two] = ["one", "two"].map(ActorSystem::new);
    let [a, b] = [&one, &two].map(|system| system.spawn("same", Adder(1)).unwrap());
    assert!(a != b && a.path() != b.path());
    let to = b.clone();
    let bridge = one
        .spawn_with("bridge", Puppet::props("x", &Log::default()))
        .unwrap();
    bridge
        .tell(act(move |_, _| {
            to.tell(Sums::Add(4)).unwrap();
            Ok(())
        }))
        .unwrap();
    bridge.ask(Order::Sync).await.unwrap();
    assert_eq!(b.ask(Sums::Get).await, Ok(5));
    one.shutdown().await;
    assert!(a.is_stopped() && !b.is_stopped());
    assert_eq!(b.ask(Sums::Get).await, Ok(5));
}

#[tokio::test(start_paused = true)]
async fn a_system_hands_out_time_and_randomness() {
    let draw = |seed| {
        let system = ActorSystem::builder("test").seed(seed).build();
        [system.rng().next_u64(), system.rng().next_u64()]
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
    assert_ne!(draw(3)[0], draw(3)[1]);
    let system = system();
    let later = system.now() + Duration::from_secs(3);
    system.sleep_until(later).await;
    assert_eq!(system.now(), later);
    let actor = system.spawn_anonymous(Props::once(Adder(0))).unwrap();
    assert_eq!(actor.ask(Sums::Get).await, Ok(0));
}
