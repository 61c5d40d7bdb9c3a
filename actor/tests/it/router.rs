//! Proves: pools and groups: who gets a message, what happens to it when that one cannot take it, and
//! how routees come and go.

use crate::support::{Adder, Log, SOON, Sums, system};
use otava_actor::router::key_hash;
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, AskError, Context, DeadLetterReason, Ended, Group, Pool,
    PoolHandle, Props, ReplyTo, Resizer, RouteeEnded, Router, Routing, SpawnError, Supervision,
    TellError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A routee that says who it is.
struct Worker {
    instance: usize,
    log: Log,
}

enum Job {
    Die,
    Log(u64),
    /// Sends a job to a router from within.
    Pass(Router<Job>),
    Sleep(Duration),
    Who(ReplyTo<(String, usize)>),
}

impl Actor for Worker {
    type Msg = Job;
    type Err = &'static str;

    async fn handle(&mut self, job: Job, ctx: &mut Context<Self>) -> Result<(), &'static str> {
        match job {
            Job::Die => return Err("it was told to"),
            Job::Log(n) => self.log.add(n.to_string()),
            Job::Pass(router) => {
                let refused = router.send(Job::Log(0)).await.is_err();
                self.log.add(if refused { "refused" } else { "passed" });
            }
            Job::Sleep(time) => tokio::time::sleep(time).await,
            Job::Who(reply_to) => {
                let _ = reply_to.send((ctx.path().name().to_owned(), self.instance));
            }
        }
        Ok(())
    }
}

/// A recipe of workers, each with a mailbox for `room` messages.
fn workers(log: &Log, room: usize) -> impl FnMut() -> Props<Worker> + Send + 'static {
    let (log, made) = (log.clone(), Arc::new(AtomicUsize::new(0)));
    move || {
        let (log, made) = (log.clone(), made.clone());
        let make = move || Worker {
            instance: made.fetch_add(1, SeqCst),
            log: log.clone(),
        };
        Props::new(make).mailbox_capacity(NonZeroUsize::new(room).unwrap())
    }
}

fn pool(system: &ActorSystem, size: usize) -> PoolHandle<Job> {
    let pool = Pool::new(size, workers(&Log::default(), 100));
    system.spawn_pool("pool", pool).unwrap()
}

async fn who(router: &Router<Job>) -> String {
    router.ask(Job::Who).await.unwrap().0
}

/// Keeps every routee busy for `time`.
async fn busy(router: &Router<Job>, time: Duration) {
    for routee in router.routees() {
        routee.tell(Job::Sleep(time)).unwrap();
    }
    tokio::time::sleep(MS).await;
}

fn probes(system: &ActorSystem, n: usize) -> (Vec<TestProbe<u32>>, Vec<ActorRef<u32>>) {
    let probes: Vec<_> = (0..n).map(|_| TestProbe::new(system)).collect();
    let refs = probes.iter().map(|probe| probe.actor_ref().clone());
    let refs = refs.collect();
    (probes, refs)
}

#[tokio::test(start_paused = true)]
async fn routees_take_turns_and_are_there_at_once() {
    let system = system();
    let pool = pool(&system, 3);
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(who(&pool).await);
    }
    let turn = ["routee-0", "routee-1", "routee-2"];
    assert_eq!(names, [turn, turn].concat());
    assert_eq!(pool.routees()[2].path().as_str(), "test/pool/routee-2");
}

#[tokio::test(start_paused = true)]
async fn a_full_routee_is_passed_over_until_all_are_full() {
    let (system, log) = (system(), Log::default());
    let pool = system
        .spawn_pool("pool", Pool::new(3, workers(&log, 2)))
        .unwrap();
    busy(&pool, SOON).await;
    pool.routees()[1].tell(Job::Log(0)).unwrap();
    for n in 1..6 {
        pool.tell(Job::Log(n)).unwrap();
    }
    assert!(pool.routees().iter().all(|routee| routee.queued() == 2));
    assert!(matches!(
        pool.tell(Job::Log(6)),
        Err(TellError::Full(Job::Log(6)))
    ));
    tokio::time::sleep(2 * SOON).await;
    let mut handled = log.take();
    handled.sort();
    assert_eq!(handled, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_room_at_a_full_pool() {
    let (system, log) = (system(), Log::default());
    let pool = system
        .spawn_pool("pool", Pool::new(2, workers(&log, 1)))
        .unwrap();
    busy(&pool, SOON).await;
    pool.tell(Job::Log(1)).unwrap();
    pool.tell(Job::Log(2)).unwrap();
    let begun = tokio::time::Instant::now();
    pool.send(Job::Log(3)).await.unwrap();
    assert!(begun.elapsed() > SOON / 2, "it had to wait");
    tokio::time::sleep(MS).await;
    assert_eq!(log.take(), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn the_least_loaded_routee_is_chosen() {
    let (system, log) = (system(), Log::default());
    let recipe = Pool::new(3, workers(&log, 100)).routing(Routing::least_loaded());
    let pool = system.spawn_pool("pool", recipe).unwrap();
    busy(&pool, SOON).await;
    let routees = pool.routees();
    for (routee, waiting) in routees.iter().zip([4, 1, 3]) {
        (0..waiting).for_each(|n| routee.tell(Job::Log(n)).unwrap());
    }
    (0..4).for_each(|n| pool.tell(Job::Log(n)).unwrap());
    let queued: Vec<usize> = routees.iter().map(ActorRef::queued).collect();
    assert_eq!(queued, [4, 4, 4]);
}

/// The choices are the same in each run with the same seed, and all routees get some.
#[tokio::test(start_paused = true)]
async fn random_choices_follow_the_seed() {
    let draw = async |seed| {
        let system = ActorSystem::builder("test").seed(seed).build();
        let recipe = Pool::new(3, workers(&Log::default(), 9)).routing(Routing::random());
        let pool = system.spawn_pool("pool", recipe).unwrap();
        let mut names = Vec::new();
        for _ in 0..40 {
            names.push(who(&pool).await);
        }
        names
    };
    let (a, b, c) = (draw(1).await, draw(1).await, draw(2).await);
    assert!(a == b && a != c);
    assert_eq!(a.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_everyone_who_has_room() {
    let system = system();
    let (mut probes, routees) = probes(&system, 3);
    let group = Group::of(routees.clone()).routing(Routing::broadcast());
    let group = system.spawn_group("group", group).unwrap();
    group.tell(7).unwrap();
    for probe in &mut probes {
        assert_eq!(probe.expect_msg(SOON).await, 7);
    }
    routees[1].stop();
    group.tell(8).unwrap();
    group.send(9).await.unwrap();
    for n in [8, 9] {
        assert_eq!(probes[0].expect_msg(SOON).await, n);
        assert_eq!(probes[2].expect_msg(SOON).await, n);
    }
}

fn hashed(size: usize, log: &Log, room: usize) -> Pool<Worker> {
    let key = |job: &Job| match job {
        Job::Log(n) => key_hash(n),
        _ => 0,
    };
    Pool::new(size, workers(log, room)).routing(Routing::hashed_by(key))
}

/// Whose queue grew by the message of each key.
async fn owners(pool: &Router<Job>, keys: u64) -> BTreeMap<u64, String> {
    busy(pool, MS).await;
    busy(pool, SOON).await;
    let mut owners = BTreeMap::new();
    for key in 0..keys {
        let routees = pool.routees();
        let before: Vec<usize> = routees.iter().map(ActorRef::queued).collect();
        pool.tell(Job::Log(key)).unwrap();
        let grown = (0..routees.len()).find(|&i| routees[i].queued() > before[i]);
        owners.insert(key, routees[grown.unwrap()].path().name().to_owned());
    }
    tokio::time::sleep(2 * SOON).await;
    owners
}

/// Also over the replacement of a routee; and a pool that grows moves few keys, all to the new one.
#[tokio::test(start_paused = true)]
async fn a_key_stays_with_its_routee() {
    let (system, log) = (system(), Log::default());
    let pool = system.spawn_pool("pool", hashed(4, &log, 999)).unwrap();
    let before = owners(&pool, 200).await;
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(before, owners(&pool, 200).await);
    pool.routees()[2].stop();
    tokio::time::sleep(SOON).await;
    assert_eq!(pool.routees().len(), 4);
    assert_eq!(
        before,
        owners(&pool, 200).await,
        "the new routee has the old keys"
    );
    pool.resize(5).await.unwrap();
    let after = owners(&pool, 200).await;
    let moved: Vec<_> = after
        .iter()
        .filter(|(key, owner)| before[key] != **owner)
        .collect();
    assert!(moved.iter().all(|(_, owner)| *owner == "routee-4"));
    assert!(
        (10..80).contains(&moved.len()),
        "{} of 200 moved",
        moved.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_owner_of_a_key_gives_the_message_back() {
    let (system, log) = (system(), Log::default());
    let pool = system.spawn_pool("pool", hashed(2, &log, 1)).unwrap();
    busy(&pool, SOON).await;
    pool.tell(Job::Log(5)).unwrap();
    assert!(pool.tell(Job::Log(5)).unwrap_err().is_full());
    let free = pool
        .routees()
        .iter()
        .filter(|routee| routee.queued() == 0)
        .count();
    assert_eq!(free, 1, "another routee would have had room");
}

/// A stopped owner: its keys go to their heir until it has a successor.
#[tokio::test(start_paused = true)]
async fn keys_of_a_dead_routee_are_served_by_the_others() {
    let (system, log) = (system(), Log::default());
    let pool = system.spawn_pool("pool", hashed(3, &log, 99)).unwrap();
    pool.routees()[0].stop();
    (0..50).for_each(|n| pool.tell(Job::Log(n)).unwrap());
    tokio::time::sleep(MS).await;
    assert_eq!(log.take().len(), 50);
}

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

#[tokio::test(start_paused = true)]
async fn a_group_drops_dead_routees_and_ends_with_the_last() {
    let system = system();
    let (mut probes, routees) = probes(&system, 3);
    let twice = routees.iter().chain(&routees).cloned();
    let group = system.spawn_group("group", Group::of(twice)).unwrap();
    assert_eq!(group.routees(), routees);
    routees[0].stop();
    tokio::time::sleep(MS).await;
    assert_eq!(group.routees(), routees[1..]);
    group.tell(1).unwrap();
    group.tell(2).unwrap();
    assert_eq!(
        probes[1].expect_msg(SOON).await + probes[2].expect_msg(SOON).await,
        3
    );
    assert_eq!(group.remove(&routees[1]).await, Ok(1));
    assert!(!routees[1].is_stopped(), "a group does not own its routees");
    group.on_terminated(|_| {}).detach();
    routees[2].stop();
    tokio::time::sleep(MS).await;
    assert!(group.is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_kept_group_waits_for_new_routees() {
    let system = system();
    let (mut probes, routees) = probes(&system, 2);
    let recipe = Group::of([routees[0].clone()]).keep_when_empty();
    let group = system.spawn_group("group", recipe).unwrap();
    routees[0].stop();
    tokio::time::sleep(MS).await;
    assert!(group.tell(1).unwrap_err().is_full());
    let waiting = {
        let group = group.clone();
        tokio::spawn(async move { group.send(2).await })
    };
    tokio::time::sleep(MS).await;
    assert_eq!(group.add(&routees[1]).await, Ok(1));
    waiting.await.unwrap().unwrap();
    assert_eq!(probes[1].expect_msg(SOON).await, 2);
    group.stop();
    tokio::time::sleep(MS).await;
    assert!(
        matches!(group.tell(3), Err(TellError::Stopped(3))),
        "although its routee lives"
    );
    assert!(!routees[1].is_stopped());
}

/// A group may hold a pool: a router is an ordinary reference.
#[tokio::test(start_paused = true)]
async fn routers_nest_and_are_watched_and_stopped_like_actors() {
    let system = system();
    let pool = pool(&system, 2);
    let outer = Group::of([pool.actor_ref().clone()]);
    let outer = system.spawn_group("outer", outer).unwrap();
    assert_eq!(who(&outer).await, "routee-0");
    assert_eq!(who(&outer).await, "routee-1");
    pool.actor_ref().stop();
    tokio::time::sleep(MS).await;
    assert!(outer.is_stopped() && outer.actor_ref().is_stopped());
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
            let group = Group::of(self.0.iter().map(|pool| pool.actor_ref().clone()));
            let group = ctx.spawn_group("group", group)?;
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
