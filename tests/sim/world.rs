//! World: five nodes of one cluster in one process, on a network that can be cut, with one journal.

use otava::{
    ClusterConfig, ClusterEvent, Dissemination, Journal, MemoryJournal, Node, Rights, Time,
    VirtualWorld,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// The seed of a test: `SEED`, or one that is the same in every run.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(7);
    let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
    // Another test of this process may have set it up already.
    let _ = logs.with_test_writer().without_time().try_init();
    println!("seed={seed}; replay with SEED={seed} cargo test --test sim");
    seed
}

pub(crate) fn addr(node: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], node))
}

/// What happened, in order, with the virtual time and the node that saw it.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

/// The same for programs: when, seen by whom, what.
pub(crate) type Events = Arc<Mutex<Vec<(Time, String, ClusterEvent)>>>;

pub(crate) struct World {
    pub(crate) net: VirtualWorld,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) log: Log,
    pub(crate) events: Events,
    seed: u64,
    seeds: Vec<SocketAddr>,
    started: u64,
}

impl World {
    pub(crate) fn new(seed: u64, seeds: u16) -> Self {
        let net = VirtualWorld::new(seed);
        net.set_delay(Duration::from_millis(1)..Duration::from_millis(20));
        Self {
            net,
            journal: Arc::new(MemoryJournal::new()),
            log: Log::default(),
            events: Events::default(),
            seed,
            seeds: (1..=seeds).map(addr).collect(),
            started: 0,
        }
    }

    /// Starts a node; it is no member yet.
    pub(crate) async fn start(&mut self, number: u16) -> Node {
        self.start_with(number, ClusterConfig::default()).await
    }

    /// The same with settings of its own.
    pub(crate) async fn start_with(&mut self, number: u16, config: ClusterConfig) -> Node {
        self.started += 1;
        let name = format!("node-{number}");
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.started);
        let config = config.with_dissemination(Dissemination::Seeded(seed));
        let journal: Arc<dyn Journal> = self.journal.clone();
        let node = Node::builder("sim", &name)
            .network(Arc::new(self.net.network(addr(number), &name)))
            .seeds(self.seeds.clone())
            .cluster_config(config)
            .journal(journal)
            .rights(Rights::default().export_to_clients::<crate::counter::Command>())
            .seed(seed)
            .start()
            .await
            .unwrap();
        self.follow(&node);
        node
    }

    /// Writes down what `node` sees of the cluster.
    fn follow(&self, node: &Node) {
        let mut events = node.cluster().events();
        let (log, all, name) = (
            self.log.clone(),
            self.events.clone(),
            node.id().name.clone(),
        );
        let system = node.system().clone();
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                let last = event == ClusterEvent::SelfDowned;
                let now = system.now();
                let line = format!("{now} {name} {event:?}");
                log.lock().unwrap().push(line);
                let seen = (now, name.to_string(), event);
                all.lock().unwrap().push(seen);
                if last {
                    break;
                }
            }
        });
    }

    pub(crate) fn note(&self, what: &str) {
        self.log.lock().unwrap().push(what.to_owned());
    }

    /// Cuts every path between the two sides.
    pub(crate) fn split(&self, side: &[u16], other: &[u16]) {
        for &a in side {
            for &b in other {
                self.net.cut(addr(a), addr(b));
            }
        }
    }
}

/// A story that fails is told.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = self.log.lock()
        {
            println!("{}", log.join("\n"));
        }
    }
}

/// Waits until `node` sees exactly `up` members up, all reachable and agreed on.
pub(crate) async fn settled(node: &Node, up: usize) {
    let mut states = node.cluster().subscribe();
    let settled = states.wait_for(|state| {
        state.up().count() == up
            && state.members.len() == up
            && state.unreachable.is_empty()
            && state.converged
    });
    tokio::time::timeout(Duration::from_secs(120), settled)
        .await
        .unwrap_or_else(|_| panic!("{node:?} does not see {up} members: {:?}", node.state()))
        .unwrap();
}
