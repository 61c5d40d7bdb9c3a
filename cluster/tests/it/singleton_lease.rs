//! Proves: with a lease there is one actor even where two sides of a split both go on, and it is stopped
//! before others may have it.

use crate::ontop::{MS, SECOND, World, addr, seeds};
use crate::singleton::Stage;
use futures_util::future::BoxFuture;
use otava_cluster::singleton::SingletonConfig;
use otava_cluster::{Grant, Lease, LeaseError, MemoryLease, Strategy};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LENGTH: Duration = Duration::from_secs(10);

/// A store that some nodes cannot reach: they get no answer.
#[derive(Debug)]
struct Store {
    inner: MemoryLease,
    cut: Mutex<BTreeSet<String>>,
}

impl Store {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryLease::new(),
            cut: Mutex::default(),
        })
    }

    /// From now on this node, by name, gets no answers.
    fn cut(&self, node: u16) {
        self.cut.lock().unwrap().insert(format!("node-{node}@"));
    }

    async fn reach(&self, owner: &str) {
        let is_cut = |cut: &BTreeSet<String>| cut.iter().any(|node| owner.starts_with(node));
        if is_cut(&self.cut.lock().unwrap()) {
            std::future::pending::<()>().await;
        }
        sleep(MS * 5).await;
    }
}

impl Lease for Store {
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        length: Duration,
    ) -> BoxFuture<'a, Result<Grant, LeaseError>> {
        Box::pin(async move {
            self.reach(owner).await;
            self.inner.acquire(name, owner, length).await
        })
    }

    fn release<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), LeaseError>> {
        Box::pin(async move {
            self.reach(owner).await;
            self.inner.release(name, owner).await
        })
    }

    fn holder<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, LeaseError>> {
        self.inner.holder(name)
    }
}

/// Nodes of which an operator decides who is out, each with the singleton.
async fn stage(seed: u64, nodes: u16, lease: Option<Arc<Store>>) -> Stage {
    let mut world = World::new(seed);
    world.downing = Strategy::Manual;
    world.form(1..=nodes).await;
    let stage = Stage {
        world,
        ledger: Arc::default(),
        terms: None,
    };
    for node in stage.world.nodes.values() {
        let mut config = SingletonConfig::default();
        if let Some(lease) = lease.clone() {
            config = config.lease(lease, LENGTH);
        }
        stage.host_with(node, config);
    }
    stage.runs_on(1).await;
    stage
}

/// Cuts nodes 1 and 2 off from 3 and 4, and both sides are told to go on.
async fn split(stage: &Stage) {
    let nodes = &stage.world.nodes;
    let ids: Vec<_> = (1..=4).map(|n| nodes[&n].id().clone()).collect();
    for low in 1..=2 {
        for high in 3..=4 {
            stage.world.net.cut(addr(low), addr(high));
        }
    }
    for (at, out) in [(1, &ids[2..]), (3, &ids[..2])] {
        let node = &nodes[&at];
        node.sees("the others unreachable", |state| {
            state.unreachable.len() == 2
        })
        .await;
        for id in out {
            node.cluster.down(id).await;
        }
    }
}

/// C4: an operator puts each side down on the other one. Without a lease both run the actor; with one
/// only the side that has it does, and the other gets it when that side has ended.
#[tokio::test(start_paused = true)]
async fn two_sides_that_go_on_run_one() {
    for seed in seeds(4) {
        let without = stage(seed, 4, None).await;
        split(&without).await;
        sleep(SECOND * 30).await;
        let faults = without.ledger.lock().unwrap().faults.len();
        assert!(faults > 0, "seed {seed}: the scenario splits nothing");

        let store = Store::new();
        let mut with = stage(seed, 4, Some(store.clone())).await;
        split(&with).await;
        sleep(SECOND * 60).await;
        with.check(seed);
        with.runs_on(1).await;
        assert_eq!(with.ledger.lock().unwrap().starts.len(), 1, "seed {seed}");
        // Both nodes of the side that has it leave.
        for n in [2, 1] {
            with.world.leave(n).await;
        }
        let took = with.runs_on(3).await;
        assert!(took < SECOND * 6, "seed {seed}: {took:?}");
        with.check(seed);
    }
}

/// C3: a node that dies with the lease is followed when the lease is over.
#[tokio::test(start_paused = true)]
async fn the_lease_of_a_dead_node_is_waited_for() {
    for seed in seeds(4) {
        let store = Store::new();
        let mut stage = stage(seed, 3, Some(store.clone())).await;
        store.cut(1);
        let died = Instant::now();
        let id = stage.world.crash(1).await;
        stage.world.nodes[&2]
            .sees("it is gone", |state| state.unreachable.contains(&id))
            .await;
        stage.world.nodes[&2].cluster.down(&id).await;
        stage.runs_on(2).await;
        let took = died.elapsed();
        assert!(took > LENGTH / 2 && took < LENGTH + SECOND * 6, "{took:?}");
        stage.check(seed);
    }
}

/// A leave hands the lease over with the actor.
#[tokio::test(start_paused = true)]
async fn a_leave_gives_the_lease_back() {
    for seed in seeds(4) {
        let mut stage = stage(seed, 3, Some(Store::new())).await;
        let begin = Instant::now();
        stage.world.leave(1).await;
        stage.runs_on(2).await;
        let took = begin.elapsed();
        assert!(took < SECOND * 4, "seed {seed}: {took:?}");
        stage.check(seed);
    }
}

/// Whoever cannot renew the lease stops the actor before the lease is over, and runs it again when the
/// store answers; nobody else would: it is the oldest.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_stops_the_actor() {
    let store = Store::new();
    let stage = stage(1, 3, Some(store.clone())).await;
    let name = "otava-test-singleton/only";
    let holder = store.holder(name).await.unwrap().unwrap();
    assert!(holder.starts_with("node-1@"), "{holder}");
    store.cut(1);
    let begin = Instant::now();
    while stage.running() > 0 {
        sleep(MS * 20).await;
    }
    assert!(begin.elapsed() < LENGTH * 3 / 4, "{:?}", begin.elapsed());
    let held = store.holder(name).await.unwrap();
    assert_eq!(held, Some(holder), "it had ended before the lease did");
    sleep(SECOND * 30).await;
    assert_eq!(stage.running(), 0);
    store.cut.lock().unwrap().clear();
    stage.runs_on(1).await;
    stage.check(1);
    assert_eq!(stage.ledger.lock().unwrap().starts.len(), 2);

    // Somebody takes it away: an operator, or a store that forgot.
    let holder = store.holder(name).await.unwrap().unwrap();
    store.inner.release(name, &holder).await.unwrap();
    let other = store.inner.acquire(name, "an operator", LENGTH * 3).await;
    assert!(matches!(other, Ok(Grant::Held { .. })));
    sleep(LENGTH / 2).await;
    assert_eq!(stage.running(), 0);
    stage.runs_on(1).await;
    stage.check(1);
}
