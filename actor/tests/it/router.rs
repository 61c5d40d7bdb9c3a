//! Proves: who gets a message of a router, what happens when that one cannot take it, and how groups
//! follow their routees.

use crate::support::{Log, SOON, system};
use otava_actor::router::key_hash;
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, Context, Pool, PoolHandle, Props, ReplyTo, RouteeGroup, Router,
    Routing, TellError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// A routee that says who it is.
pub(crate) struct Worker {
    instance: usize,
    log: Log,
}

pub(crate) enum Job {
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
pub(crate) fn workers(log: &Log, room: usize) -> impl FnMut() -> Props<Worker> + Send + 'static {
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

pub(crate) fn pool(system: &ActorSystem, size: usize) -> PoolHandle<Job> {
    let pool = Pool::new(size, workers(&Log::default(), 100));
    system.spawn_pool("pool", pool).unwrap()
}

pub(crate) async fn who(router: &Router<Job>) -> String {
    router.ask(Job::Who).await.unwrap().0
}

/// Keeps every routee busy for `time`.
pub(crate) async fn busy(router: &Router<Job>, time: Duration) {
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
    let group = RouteeGroup::of(routees.clone()).routing(Routing::broadcast());
    let group = system.spawn_routee_group("group", group).unwrap();
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
async fn a_group_drops_dead_routees_and_ends_with_the_last() {
    let system = system();
    let (mut probes, routees) = probes(&system, 3);
    let twice = routees.iter().chain(&routees).cloned();
    let group = system
        .spawn_routee_group("group", RouteeGroup::of(twice))
        .unwrap();
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
    let recipe = RouteeGroup::of([routees[0].clone()]).keep_when_empty();
    let group = system.spawn_routee_group("group", recipe).unwrap();
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
    let outer = RouteeGroup::of([pool.actor_ref().clone()]);
    let outer = system.spawn_routee_group("outer", outer).unwrap();
    assert_eq!(who(&outer).await, "routee-0");
    assert_eq!(who(&outer).await, "routee-1");
    pool.actor_ref().stop();
    tokio::time::sleep(MS).await;
    assert!(outer.is_stopped() && outer.actor_ref().is_stopped());
    assert_eq!(system.actors(), []);
}
