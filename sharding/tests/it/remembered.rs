//! Proves: remembered entities live without messages, and a store that fails loses none of them.

use crate::living::{Do, Ledger, ask, count, living, living_on};
use crate::support::{Cluster, SECOND, SHARDS};
use futures_util::future::BoxFuture;
use otava_sharding::{
    MemoryAllocationStore, MemoryRememberStore, Remember, RememberError, RememberStore,
    RememberedPage, RememberedShard, ShardingConfig, StoreError,
};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::sleep;

/// At which step a store fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Add,
    AddAgain,
    FirstPage,
    LaterPage,
    Remove,
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It says that it could not.
    Error,
    /// It panics.
    Panic,
    /// It does not answer at all.
    Silence,
    /// It does what it was told, and answers when nobody waits any more.
    TooLate,
}

/// A store that fails some times at one step.
#[derive(Default)]
struct Faulty {
    inner: MemoryRememberStore,
    fault: Mutex<Option<(Step, Fault, u32)>>,
    /// Pages are made so small that there are later ones.
    page_max: Option<usize>,
    forgotten: Mutex<Vec<Arc<str>>>,
    failures: Mutex<u32>,
}

impl Faulty {
    fn fail(&self, step: Step, fault: Fault, times: u32) {
        *self.fault.lock().unwrap() = Some((step, fault, times));
    }

    fn next(&self, step: Step) -> Option<Fault> {
        let mut armed = self.fault.lock().unwrap();
        let (at, fault, times) = armed.as_mut()?;
        if *at != step || *times == 0 {
            return None;
        }
        *times -= 1;
        *self.failures.lock().unwrap() += 1;
        Some(*fault)
    }

    async fn at<T>(
        &self,
        step: Step,
        act: impl Future<Output = Result<T, RememberError>>,
    ) -> Result<T, RememberError> {
        match self.next(step) {
            None => act.await,
            Some(Fault::Error) => Err(StoreError::new("as told").into()),
            Some(Fault::Panic) => panic!("as told"),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::TooLate) => {
                let result = act.await;
                sleep(SECOND * 30).await;
                result
            }
        }
    }
}

impl RememberStore for Faulty {
    fn load<'a>(
        &'a self,
        shard: &'a RememberedShard,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<RememberedPage, RememberError>> {
        let step = match after {
            Some(_) => Step::LaterPage,
            None => Step::FirstPage,
        };
        let limit = self.page_max.unwrap_or(limit);
        Box::pin(self.at(
            step,
            async move { self.inner.load(shard, after, limit).await },
        ))
    }

    fn add<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>> {
        let forgotten = self.forgotten.lock().unwrap();
        let step = match ids.iter().any(|id| forgotten.contains(id)) {
            true => Step::AddAgain,
            false => Step::Add,
        };
        Box::pin(self.at(step, async { self.inner.add(shard, ids).await }))
    }

    fn remove<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>> {
        self.forgotten.lock().unwrap().extend_from_slice(ids);
        Box::pin(self.at(Step::Remove, async { self.inner.remove(shard, ids).await }))
    }
}

fn config(store: &Arc<Faulty>) -> ShardingConfig {
    let store: Arc<dyn RememberStore> = store.clone();
    let mut config = ShardingConfig::default()
        .shards(SHARDS)
        .remember(Remember::started(store));
    config.remember_within = SECOND;
    config
}

/// S6: the store fails by an error, a panic, no answer or a late one, at each of five points; then the
/// node that has the entities dies. Every message that was accepted is handled, whoever is remembered
/// lives again once, whoever has stopped does not.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_loses_nobody() {
    let steps = [
        Step::FirstPage,
        Step::LaterPage,
        Step::Add,
        Step::Remove,
        Step::AddAgain,
    ];
    let faults = [Fault::Error, Fault::Panic, Fault::Silence, Fault::TooLate];
    for (seed, step) in (0..).zip(steps) {
        for fault in faults {
            a_life_with_faults(seed, step, fault).await;
        }
    }
}

async fn a_life_with_faults(seed: u64, step: Step, fault: Fault) {
    let what = format!("{step:?} by {fault:?}");
    let mut cluster = Cluster::started(seed, 2).await;
    let ledger = Arc::new(Ledger::default());
    let store = Arc::new(Faulty {
        page_max: Some(2),
        ..Faulty::default()
    });
    let claims = Arc::new(MemoryAllocationStore::new());
    if matches!(step, Step::Add | Step::Remove | Step::AddAgain) {
        store.fail(step, fault, 3);
    }
    let start = |cluster: &Cluster, n| living(cluster, n, &ledger, &claims, config(&store));
    let all = [start(&cluster, 1), start(&cluster, 2)];
    for entities in &all {
        entities.all_hosted().await;
    }
    for id in 0..100 {
        let entity = all[0].entity(format!("e{id}"));
        entity.send(count(1)).await.unwrap();
        entity.send(count(2)).await.unwrap();
    }
    sleep(SECOND * 20).await;
    assert_eq!(ledger.check(), 200, "{what}");
    // Some stop by themselves, some of those are needed again.
    for id in 0..40 {
        let entity = all[0].entity(format!("e{id}"));
        entity.send(Do::Passivate).await.unwrap();
    }
    sleep(SECOND * 20).await;
    for id in 0..20 {
        let entity = all[0].entity(format!("e{id}"));
        entity.send(count(3)).await.unwrap();
    }
    sleep(SECOND * 20).await;
    assert_eq!(ledger.check(), 220, "{what}");
    let is_stopped = |id: &str| id[1..].parse::<u32>().is_ok_and(|n| (20..40).contains(&n));
    let expected: Vec<String> = (0..100).map(|n| format!("e{n}")).collect();
    let mut expected: Vec<String> = expected.into_iter().filter(|id| !is_stopped(id)).collect();
    expected.sort();
    assert_eq!(store.inner.all("living").len(), 80, "{what}");
    assert_eq!(ledger.alive(), expected, "{what}");
    // The node with half of them is gone.
    if matches!(step, Step::FirstPage | Step::LaterPage) {
        store.fail(step, fault, 3);
    }
    let before = ledger.all_starts();
    cluster.nodes[&2].system.shutdown().await;
    cluster.crash(2);
    cluster.down(2);
    sleep(SECOND * 40).await;
    assert_eq!(ledger.alive(), expected, "{what}");
    let again = ledger.all_starts() - before;
    assert!((20..60).contains(&again), "{what}: {again} started again");
    assert_eq!(*store.failures.lock().unwrap(), 3, "{what}");
    ledger.check();
}

/// S6: a remembered entity that fails comes back without a message.
#[tokio::test(start_paused = true)]
async fn a_remembered_entity_that_fails_comes_back() {
    let cluster = Cluster::started(11, 1).await;
    let ledger = Arc::new(Ledger::default());
    let store = Arc::new(Faulty::default());
    let all = living_on(&cluster, 1, &ledger, &config(&store)).await;
    assert_eq!(ask(&all[0], "a", 1).await, 1);
    all[0].entity("a").send(Do::Fail).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ledger.alive(), [] as [String; 0]);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(ledger.alive(), ["a"]);
    // It is neither idle nor too many.
    sleep(SECOND * 1_000).await;
    assert_eq!(ask(&all[0], "a", 2).await, 2);
}

/// What waits for the store is bounded, and goes along when the shard moves.
#[tokio::test(start_paused = true)]
async fn what_waits_for_the_store_moves_with_the_shard() {
    let mut cluster = Cluster::started(12, 2).await;
    let ledger = Arc::new(Ledger::default());
    let store = Arc::new(Faulty::default());
    store.fail(Step::Add, Fault::Silence, 1_000);
    let all = living_on(&cluster, 2, &ledger, &config(&store)).await;
    for id in 0..20 {
        let entity = all[0].entity(format!("e{id}"));
        for number in 1..=5 {
            entity.send(count(number)).await.unwrap();
        }
    }
    sleep(SECOND).await;
    let waiting = |n: usize| all[n].local_stats().waiting;
    assert_eq!(waiting(0) + waiting(1), 100);
    assert!(waiting(1) > 0);
    cluster.begin_leave(2);
    all[1].hand_over(SECOND * 20).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((waiting(0), ledger.check()), (100, 0));
    store.fail(Step::Add, Fault::Error, 0);
    sleep(SECOND * 20).await;
    assert_eq!(ledger.check(), 100);
    assert_eq!(store.inner.all("living").len(), 20);
}

/// A fixed set lives from the start, and however its members end.
#[tokio::test(start_paused = true)]
async fn a_fixed_set_always_lives() {
    let mut cluster = Cluster::started(13, 2).await;
    let ledger = Arc::new(Ledger::default());
    let ids: Vec<String> = (0..30).map(|n| format!("f{n:02}")).collect();
    let config = ShardingConfig::default()
        .shards(SHARDS)
        .remember(Remember::fixed(ids.clone()));
    let all = living_on(&cluster, 2, &ledger, &config).await;
    sleep(SECOND).await;
    assert_eq!(ledger.alive(), ids);
    for (id, how) in [("f00", Do::Stop), ("f01", Do::Fail), ("f02", Do::Passivate)] {
        all[0].entity(id).send(how).await.unwrap();
    }
    sleep(SECOND).await;
    assert_eq!(ledger.alive(), ids);
    let starts = ["f00", "f01", "f02"].map(|id| ledger.starts(id));
    assert_eq!(starts, [2, 2, 1]);
    cluster.begin_leave(2);
    all[1].hand_over(SECOND * 20).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(ledger.alive(), ids);
    assert_eq!(all[0].local_stats().entities, 30);
    ledger.check();
}
