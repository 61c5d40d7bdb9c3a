//! Simulation: the nodes of one cluster in one process, from a seed, and the load on them.

use crate::{ClusterConfig, Dissemination, Ended, Journal, MemoryJournal, Node, VirtualWorld};
use otava_actor::Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{sleep, timeout};

/// The seeds that a random test runs with: `default` of them from 1 on, or as many as the environment
/// variable `SEEDS` says, or only the one of `SEED`. Each is printed when it begins.
///
/// ```
/// for seed in otava::testkit::seeds(3) {
///     // Simulation::seeded(seed) ..
///     # let _ = seed;
/// }
/// ```
pub fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let of = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let range = match (of("SEED"), of("SEEDS")) {
        (Some(seed), count) => seed..seed.saturating_add(count.unwrap_or(1)),
        (None, count) => 1..count.unwrap_or(default).saturating_add(1),
    };
    #[expect(clippy::print_stdout, reason = "who sees a test fail needs its seed")]
    range.inspect(|seed| println!("seed {seed}; again with SEED={seed}"))
}

/// How a simulated cluster is set up.
///
/// Everything that is random comes from the seed, time is tokio's paused clock, and the network is the
/// virtual one: so the same seed gives the same run, if the test itself uses no other randomness, no
/// other clock, and no order of a hash map. All nodes share one journal in memory.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `run`"]
pub struct Simulation {
    seed: u64,
    nodes: u16,
    delay: Range<Duration>,
    limit: Duration,
    config: ClusterConfig,
}

impl Simulation {
    /// Three nodes, 1 to 20 ms from each other.
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            delay: Duration::from_millis(1)..Duration::from_millis(20),
            limit: Duration::from_secs(3_600),
            config: ClusterConfig::default(),
        }
    }

    /// How many nodes there are at first, and at most: 1 to 100.
    pub fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = nodes.clamp(1, 100);
        self
    }

    /// How long a message is on its way. Default 1 to 20 ms.
    pub fn delay(mut self, delay: Range<Duration>) -> Self {
        self.delay = delay;
        self
    }

    /// The settings of every node. How news spread is decided by the seed.
    pub fn cluster_config(mut self, config: ClusterConfig) -> Self {
        self.config = config;
        self
    }

    /// The virtual time after which the test is over and fails. Default one hour.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the nodes, waits until all are members, and runs `test` on them. `host` is called for each
    /// node that starts, before it joins: it starts the entities and actors of the node, and returns
    /// what the load needs to reach them.
    ///
    /// # Panics
    /// When the test panics, takes longer than the limit, or the cluster does not form.
    pub fn run<T: Clone + 'static, R>(
        self,
        host: impl Fn(&Node) -> T + 'static,
        test: impl AsyncFnOnce(SimCluster<T>) -> R,
    ) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime without threads needs nothing that could be missing");
        let limit = self.limit;
        let story = async {
            let cluster = SimCluster::form(self, Box::new(host)).await;
            test(cluster).await
        };
        let limited = async { timeout(limit, story).await };
        let done = LocalSet::new().block_on(&runtime, limited);
        done.unwrap_or_else(|_| panic!("the test is not over after {limit:?} of virtual time"))
    }
}

/// A cluster while a test runs on it. A handle, cheap to clone; `T` is what the test's `host` returned
/// for each node.
pub struct SimCluster<T> {
    pub(super) inner: Rc<Inner<T>>,
}

pub(super) struct Inner<T> {
    setup: Simulation,
    host: Box<dyn Fn(&Node) -> T>,
    pub(super) net: VirtualWorld,
    journal: Arc<MemoryJournal>,
    pub(super) rng: RefCell<Rng>,
    live: RefCell<BTreeMap<u16, (Node, T)>>,
    started: Cell<u64>,
}

/// Where the node of this number is.
pub(super) fn addr(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

/// How long the cluster may take to agree once nothing hinders it.
const SETTLES: Duration = Duration::from_secs(120);

impl<T: Clone + 'static> SimCluster<T> {
    async fn form(setup: Simulation, host: Box<dyn Fn(&Node) -> T>) -> Self {
        let net = VirtualWorld::new(setup.seed);
        net.set_delay(setup.delay.clone());
        let nodes = setup.nodes;
        let inner = Inner {
            rng: RefCell::new(Rng::seeded(setup.seed)),
            setup,
            host,
            net,
            journal: Arc::new(MemoryJournal::new()),
            live: RefCell::default(),
            started: Cell::new(0),
        };
        let cluster = Self {
            inner: Rc::new(inner),
        };
        for number in 1..=nodes {
            cluster.start(number).await;
        }
        cluster.settled().await;
        cluster
    }

    /// Starts the node `number`, and waits until it is up. A number that was in use before is a new run of
    /// that node.
    ///
    /// # Panics
    /// When the node runs, cannot be started, or is not let in.
    pub async fn start(&self, number: u16) {
        let inner = &self.inner;
        let runs = inner.live.borrow().contains_key(&number);
        assert!(!runs, "node {number} runs already");
        inner.started.set(inner.started.get() + 1);
        let (name, setup) = (format!("node-{number}"), &inner.setup);
        let seed = setup.seed.wrapping_mul(1_000_003) + inner.started.get();
        let config = setup.config.clone();
        let journal: Arc<dyn Journal> = inner.journal.clone();
        let node = Node::builder("sim", &name)
            .network(Arc::new(inner.net.network(addr(number), &name)))
            .seeds((1..=setup.nodes).map(addr))
            .cluster_config(config.with_dissemination(Dissemination::Seeded(seed)))
            .journal(journal)
            .seed(seed)
            .start()
            .await
            .unwrap_or_else(|error| panic!("node {number} does not start: {error}"));
        let hosted = (inner.host)(&node);
        let joined = timeout(SETTLES, async {
            // Somebody may be unreachable for a while, and that keeps others out.
            while let Err(error) = node.join().await {
                tracing::info!(%error, "the node asks again");
            }
        });
        let joined = joined.await;
        assert!(joined.is_ok(), "node {number} was not let in");
        inner.live.borrow_mut().insert(number, (node, hosted));
    }

    /// The numbers of the nodes that run.
    #[must_use]
    pub fn numbers(&self) -> Vec<u16> {
        self.inner.live.borrow().keys().copied().collect()
    }

    /// The node `number`, and what the host returned for it; `None` if it does not run.
    #[must_use]
    pub fn node(&self, number: u16) -> Option<(Node, T)> {
        self.inner.live.borrow().get(&number).cloned()
    }

    /// Some node that runs, as the seed says.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn some_node(&self) -> (Node, T) {
        let number = self.some(&self.numbers());
        self.node(number).expect("it runs")
    }

    pub(super) fn some(&self, numbers: &[u16]) -> u16 {
        assert!(!numbers.is_empty(), "no node runs");
        let at = self.random_below(numbers.len() as u64);
        numbers[usize::try_from(at).unwrap_or_default()]
    }

    /// A number below `limit`, as the seed says; 0 if that is 0.
    #[must_use]
    pub fn random_below(&self, limit: u64) -> u64 {
        self.inner.rng.borrow_mut().below(limit.max(1))
    }

    /// The journal of all nodes.
    #[must_use]
    pub fn journal(&self) -> Arc<MemoryJournal> {
        self.inner.journal.clone()
    }

    /// The network, for faults that have no method here.
    #[must_use]
    pub fn network(&self) -> &VirtualWorld {
        &self.inner.net
    }

    /// Waits until all nodes that run agree that they, and nobody else, are members and up.
    ///
    /// # Panics
    /// When they do not agree within two minutes of virtual time.
    pub async fn settled(&self) {
        let size = self.numbers().len();
        for number in self.numbers() {
            let Some((node, _)) = self.node(number) else {
                continue;
            };
            let mut states = node.cluster().subscribe();
            let settled = states.wait_for(|state| {
                state.up().count() == size
                    && state.members.len() == size
                    && state.unreachable.is_empty()
                    && state.converged
            });
            let settled = timeout(SETTLES, settled).await.is_ok();
            let state = node.state();
            assert!(
                settled,
                "node {number} does not see {size} members up: {state:?}"
            );
        }
    }

    /// Kills a node: from now on nothing leaves it and nothing reaches it, and its actors end.
    pub async fn crash(&self, number: u16) {
        if let Some((node, _)) = self.forget(number) {
            self.inner.net.crash(addr(number));
            node.system().shutdown().await;
        }
    }

    /// Lets a node leave in order, and waits until it has.
    pub async fn leave(&self, number: u16) -> Option<Ended> {
        let (node, _) = self.forget(number)?;
        Some(node.leave().await)
    }

    /// The node is no longer one of those that run.
    pub(super) fn forget(&self, number: u16) -> Option<(Node, T)> {
        self.inner.live.borrow_mut().remove(&number)
    }

    /// Runs `clients` clients until [`Load::stop`]: each calls `client` again and again, with what the
    /// host returned for some node that runs, and a number that no other call gets. Each call is given
    /// 3 s, and then dropped.
    pub fn load(&self, clients: u64, client: impl AsyncFn(T, u64) + 'static) -> Load {
        let client = Rc::new(client);
        let (over, numbers) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let tasks = (0..clients).map(|_| {
            let (cluster, client) = (self.clone(), client.clone());
            let (over, numbers) = (over.clone(), numbers.clone());
            tokio::task::spawn_local(async move {
                while !over.get() {
                    let number = numbers.get();
                    numbers.set(number + 1);
                    if !cluster.numbers().is_empty() {
                        let (_, hosted) = cluster.some_node();
                        // What is late has an outcome that nobody knows, and the client goes on.
                        let _ = timeout(Duration::from_secs(3), client(hosted, number)).await;
                    }
                    sleep(Duration::from_millis(5 + cluster.random_below(50))).await;
                }
            })
        });
        let tasks = tasks.collect();
        Load { over, tasks }
    }
}

impl<T> Clone for SimCluster<T> {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self { inner }
    }
}

impl<T> fmt::Debug for SimCluster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live: Vec<_> = self.inner.live.borrow().keys().copied().collect();
        let mut out = f.debug_struct("SimCluster");
        out.field("seed", &self.inner.setup.seed)
            .field("live", &live);
        out.finish()
    }
}

/// Clients at work. Dropped, they go on until the test ends.
#[derive(Debug)]
pub struct Load {
    over: Rc<Cell<bool>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Waits until every client has finished what it was doing, and ends them.
    ///
    /// # Panics
    /// When a client panicked.
    pub async fn stop(self) {
        self.over.set(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
