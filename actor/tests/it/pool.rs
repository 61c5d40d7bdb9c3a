//! Proves: the life of a pool: its routees are replaced, supervised, added and taken away, and no
//! message is lost by that.

use crate::router::{Job, MS, busy, pool, who, workers};
use crate::support::{Adder, Log, SOON, Sums, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, AskError, Context, DeadLetterReason, Ended, Pool, PoolHandle,
    Props, ReplyTo, Resizer, RouteeEnded, RouteeGroup, Router, Routing, SpawnError, Supervision,
    TellError,
};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

#[tokio::test(start_paused = true)]
async fn an_ended_routee_is_replaced_after_its_delay() {
    let system = system();
    let policy = RouteeEnded::Replace {
        min: 100 * MS,
        max: SOON,
    };
    let recipe = Pool::new(1, workers(&Log::default(), 9)).on_routee_ended(policy);
    let pool = system.spawn_pool("pool", recipe).unwrap();
    assert_eq!(pool.ask(Job::Who).await, Ok(("routee-0".into(), 0)));
    pool.tell(Job::Die).unwrap();
    tokio::time::sleep(50 * MS).await;
    let letters = system.dead_letters();
    let refused = letters.count(DeadLetterReason::RefusedFull);
    assert!(
        pool.tell(Job::Log(1)).unwrap_err().is_full(),
        "nobody is there"
    );
    assert_eq!(letters.count(DeadLetterReason::RefusedFull), refused + 1);
    let waiting = tokio::time::Instant::now();
    pool.send(Job::Log(1)).await.unwrap();
    assert!((49 * MS..52 * MS).contains(&waiting.elapsed()));
    assert_eq!(pool.ask(Job::Who).await, Ok(("routee-0".into(), 1)));
}

/// Failures go to the strategy in the recipe first; a restart is no end.
#[tokio::test(start_paused = true)]
async fn each_routee_is_supervised_as_its_recipe_says() {
    let system = system();
    let mut recipe = workers(&Log::default(), 9);
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let recipe = Pool::new(1, move || recipe().on_failure(restart));
    let pool = system.spawn_pool("pool", recipe).unwrap();
    let routee = pool.routees().remove(0);
    pool.tell(Job::Die).unwrap();
    let second = Ok(("routee-0".into(), 1));
    assert_eq!(pool.ask(Job::Who).await, second, "another instance");
    assert_eq!(pool.routees(), [routee]);
}

/// The factory of recipes is code of the user too.
#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_is_tried_again() {
    let (system, log) = (system(), Log::default());
    let (mut recipe, calls) = (workers(&log, 9), AtomicUsize::new(0));
    let pool = Pool::new(1, move || {
        let call = calls.fetch_add(1, SeqCst);
        assert!(call == 0 || call > 3, "no recipe today");
        recipe()
    });
    let pool = system.spawn_pool("pool", pool).unwrap();
    pool.tell(Job::Die).unwrap();
    tokio::time::sleep(MS).await;
    let begun = tokio::time::Instant::now();
    pool.send(Job::Log(1)).await.unwrap();
    // 100 ms, then 200, 400 and 800 after each panic.
    assert!(
        (1_498 * MS..1_502 * MS).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_forgets_ends_with_its_last_routee() {
    let system = system();
    let recipe = Pool::new(2, workers(&Log::default(), 9)).on_routee_ended(RouteeEnded::Forget);
    let pool = system.spawn_pool("pool", recipe).unwrap();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(pool.actor_ref());
    pool.tell(Job::Die).unwrap();
    tokio::time::sleep(MS).await;
    assert_eq!(who(&pool).await, "routee-1");
    pool.tell(Job::Die).unwrap();
    let news = probe.expect_terminated(pool.actor_ref(), SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
    assert!(matches!(
        pool.tell(Job::Log(1)),
        Err(TellError::Stopped(Job::Log(1)))
    ));
    assert!(matches!(
        pool.send(Job::Log(1)).await,
        Err(TellError::Stopped(_))
    ));
    let path = pool.path().clone();
    assert_eq!(pool.ask(Job::Who).await, Err(AskError::Stopped { path }));
    assert!(matches!(
        pool.resize(2).await,
        Err(AskError::Stopped { .. })
    ));
    assert!(pool.is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_shrinks_handles_what_is_queued() {
    let (system, log) = (system(), Log::default());
    let pool = system
        .spawn_pool("pool", Pool::new(4, workers(&log, 99)))
        .unwrap();
    busy(&pool, SOON).await;
    (0..40).for_each(|n| pool.tell(Job::Log(n)).unwrap());
    let before = pool.routees();
    assert_eq!(pool.resize(1).await, Ok(1));
    assert_eq!(pool.routees(), before[..1]);
    assert!(before[1..].iter().all(ActorRef::is_stopped));
    pool.tell(Job::Log(40)).unwrap();
    assert_eq!(before[0].queued(), 11);
    tokio::time::sleep(2 * SOON).await;
    assert_eq!(log.take().len(), 41);
    assert_eq!(pool.resize(3).await, Ok(3));
    let names: Vec<_> = pool
        .routees()
        .iter()
        .map(|r| r.path().name().to_owned())
        .collect();
    assert_eq!(names, ["routee-0", "routee-1", "routee-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_follows_its_load() {
    let (system, log) = (system(), Log::default());
    let resizer = Resizer::between(2..=4).every(100 * MS);
    let recipe = Pool::new(2, workers(&log, 99)).resizer(resizer);
    let pool = system.spawn_pool("pool", recipe).unwrap();
    let busy = |pool: &Router<Job>| {
        for routee in pool.routees() {
            routee.tell(Job::Sleep(250 * MS)).unwrap();
            routee.tell(Job::Log(1)).unwrap();
        }
    };
    busy(&pool);
    tokio::time::sleep(150 * MS).await;
    assert_eq!(pool.routees().len(), 3, "all were busy");
    tokio::time::sleep(100 * MS).await;
    assert_eq!(pool.routees().len(), 3, "the new one is idle");
    tokio::time::sleep(100 * MS).await;
    assert_eq!(pool.routees().len(), 2, "all are idle");
    for size in [3, 4, 4] {
        busy(&pool);
        tokio::time::sleep(100 * MS).await;
        assert_eq!(pool.routees().len(), size);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_handles_everything_and_ends() {
    let (system, log) = (system(), Log::default());
    let pool = system
        .spawn_pool("pool", Pool::new(3, workers(&log, 99)))
        .unwrap();
    busy(&pool, SOON).await;
    (0..30).for_each(|n| pool.tell(Job::Log(n)).unwrap());
    pool.drain().await;
    assert_eq!(log.take().len(), 30);
    assert!(matches!(pool.tell(Job::Log(1)), Err(TellError::Stopped(_))));
    pool.drain().await;
    assert_eq!(system.actors(), []);
}

/// Neither the one who waits nor the pool keeps the other from ending.
#[tokio::test(start_paused = true)]
async fn a_routee_that_waits_at_its_own_pool_does_not_block_its_end() {
    let (system, log) = (system(), Log::default());
    let policy = RouteeEnded::Replace {
        min: 10 * SOON,
        max: 10 * SOON,
    };
    let recipe = Pool::new(2, workers(&log, 1)).on_routee_ended(policy);
    let pool = system.spawn_pool("pool", recipe).unwrap();
    let [a, b] = <[_; 2]>::try_from(pool.routees()).unwrap();
    a.tell(Job::Pass(pool.router().clone())).unwrap();
    a.stop_after_queued();
    b.stop();
    tokio::time::sleep(MS).await;
    assert_eq!(log.take(), [""; 0], "it waits for a routee");
    assert_eq!(system.shutdown().await.blocked, []);
    assert_eq!(log.take(), ["refused"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_start_leaves_nothing_behind() {
    let system = system();
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let bad = Pool::new(2, move || Props::once(Adder(0)).on_failure(restart));
    let error = system.spawn_pool("pool", bad).unwrap_err();
    assert!(matches!(error, SpawnError::NoFactory { .. }));
    let panics = || {
        let pool = Pool::new(1, || -> Props<Adder> { panic!("no recipe") });
        let _ = system.spawn_pool("pool", pool);
    };
    let unwound = std::panic::AssertUnwindSafe(panics);
    assert!(std::panic::catch_unwind(unwound).is_err());
    tokio::time::sleep(MS).await;
    assert_eq!(system.actors(), []);
    pool(&system, 1);
    let again = system.spawn_pool("pool", Pool::new(1, || Props::once(Adder(0))));
    assert!(matches!(again, Err(SpawnError::NameTaken { .. })));
}

/// On threads: whatever the pool's size becomes meanwhile, each message is handled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_while_the_size_changes() {
    let system = ActorSystem::new("test");
    let sums = Arc::new(AtomicU64::new(0));
    let recipe = {
        let sums = sums.clone();
        move || {
            let sums = sums.clone();
            Props::new(move || Summer(sums.clone()))
                .mailbox_capacity(NonZeroUsize::new(16).unwrap())
        }
    };
    let pool = system.spawn_pool("pool", Pool::new(4, recipe)).unwrap();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let router = pool.router().clone();
            tokio::spawn(async move {
                for n in 1..=5_000 {
                    router.send(n).await.unwrap();
                }
            })
        })
        .collect();
    let mut rng = otava_actor::Rng::seeded(5);
    while senders.iter().any(|sender| !sender.is_finished()) {
        let size = 1 + rng.below(6) as usize;
        assert_eq!(pool.resize(size).await, Ok(size), "seed 5");
    }
    for sender in senders {
        sender.await.unwrap();
    }
    pool.drain().await;
    assert_eq!(sums.load(SeqCst), 4 * 5_000 * 5_001 / 2);
    assert_eq!(system.shutdown().await.blocked, []);
}

struct Summer(Arc<AtomicU64>);

impl Actor for Summer {
    type Msg = u64;
    type Err = std::convert::Infallible;

    async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Self::Err> {
        self.0.fetch_add(n, SeqCst);
        Ok(())
    }
}

/// A pool as a child: it ends with its parent, and its name is taken as long as it lives.
#[tokio::test(start_paused = true)]
async fn a_pool_may_be_a_child() {
    struct Parent(Option<PoolHandle<Sums>>);
    impl Actor for Parent {
        type Msg = ReplyTo<Router<Sums>>;
        type Err = SpawnError;

        async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), SpawnError> {
            let pool = Pool::new(2, || Props::once(Adder(1)));
            self.0 = Some(ctx.spawn_pool("pool", pool)?);
            Ok(())
        }

        async fn handle(
            &mut self,
            reply_to: ReplyTo<Router<Sums>>,
            ctx: &mut Context<Self>,
        ) -> Result<(), SpawnError> {
            let group = RouteeGroup::of(self.0.iter().map(|pool| pool.actor_ref().clone()));
            let group = ctx.spawn_routee_group("group", group)?;
            let _ = reply_to.send(group.router().clone());
            Ok(())
        }
    }
    let system = system();
    let parent = system.spawn("parent", Parent(None)).unwrap();
    let router = parent.ask(|reply_to| reply_to).await.unwrap();
    assert_eq!(router.path().as_str(), "test/parent/group");
    assert_eq!(router.ask(Sums::Get).await, Ok(1));
    parent.stop();
    tokio::time::sleep(MS).await;
    assert_eq!(system.actors(), []);
    assert!(router.is_stopped());
}

/// What the recipes and the key function hold is let go with the pool, by those who only have a
/// handle too.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_pool() {
    let token = Arc::new(());
    let (system, log) = (system(), Log::default());
    let [of_factory, of_key] = [token.clone(), token.clone()];
    let mut make = workers(&log, 9);
    let factory = move || {
        let _held = &of_factory;
        make()
    };
    let key = move |_: &Job| {
        let _held = &of_key;
        7
    };
    let recipe = Pool::new(3, factory).routing(Routing::hashed_by(key));
    let pool = system.spawn_pool("pool", recipe).unwrap();
    pool.send(Job::Log(1)).await.unwrap();
    pool.resize(5).await.unwrap();
    assert_eq!(Arc::strong_count(&token), 3);
    pool.stop();
    tokio::time::sleep(MS).await;
    assert_eq!(Arc::strong_count(&token), 2, "the handle has the routing");
    drop(pool);
    assert_eq!(Arc::strong_count(&token), 1);
}
