//! Ontop: whole nodes on the virtual network, for the tests of what stands on the membership. All who
//! use it run on virtual time (`start_paused = true`).

use otava_actor::{Actor, ActorRef, ActorSystem, Context};
use otava_cluster::{
    Cluster, ClusterConfig, ClusterReceptionist, ClusterState, Dissemination, Singletons, Strategy,
};
use otava_remote::{NodeId, Remote, RemoteMessage, VirtualWorld};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) fn addr(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], 7_000 + number).into()
}

/// The seed of a run, printed so that a failure can be replayed.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let var = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    match var("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..var("SEEDS").unwrap_or(default),
    }
}

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) receptionist: ClusterReceptionist,
    pub(crate) singletons: Singletons,
    pub(crate) remote: Remote,
    pub(crate) system: ActorSystem,
}

impl Node {
    pub(crate) fn id(&self) -> &NodeId {
        self.cluster.me()
    }

    /// Waits until what this node sees `is` so.
    pub(crate) async fn sees(&self, what: &str, is: impl Fn(&ClusterState) -> bool) {
        let mut state = self.cluster.subscribe();
        let seen = state.wait_for(|state| is(state));
        if timeout(SECOND * 60, seen).await.is_err() {
            panic!(
                "{:?} never sees {what}: {:?}",
                self.cluster,
                self.cluster.state()
            );
        }
    }

    pub(crate) fn spawn<M: RemoteMessage>(
        &self,
        name: &str,
    ) -> (ActorRef<M>, mpsc::UnboundedReceiver<M>) {
        let (sender, received) = mpsc::unbounded_channel();
        (self.system.spawn(name, Recorder(sender)).unwrap(), received)
    }
}

/// Nodes by number.
pub(crate) struct World {
    pub(crate) net: VirtualWorld,
    pub(crate) nodes: BTreeMap<u16, Node>,
    /// The strategy of nodes that are started from now on.
    pub(crate) downing: Strategy,
    seed: u64,
    started: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let net = VirtualWorld::new(seed);
        net.set_delay(MS..MS * 10);
        Self {
            net,
            nodes: BTreeMap::new(),
            downing: Strategy::KeepMajority,
            seed,
            started: 0,
        }
    }

    /// Nodes 1 to `count`, all up.
    pub(crate) async fn formed(seed: u64, count: u16) -> Self {
        let mut world = Self::new(seed);
        world.form(1..=count).await;
        world
    }

    /// Starts these nodes, the one after the other so that ages are in their order.
    pub(crate) async fn form(&mut self, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            self.start(number);
            self.nodes[&number].cluster.join().await.unwrap();
        }
        self.settled().await;
    }

    pub(crate) fn start(&mut self, number: u16) -> &Node {
        self.started += 1;
        let seed = self.seed * 1_009 + self.started;
        let name = format!("node-{number}");
        let system = ActorSystem::builder(&name).seed(seed).build();
        let network = Arc::new(self.net.network(addr(number), &name));
        let remote = Remote::builder(&system, "test", &name, network);
        let remote = remote.seeded(seed).start().unwrap();
        let role = if number.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        };
        let config = ClusterConfig::default()
            .with_role(role)
            .with_seeds((1..=3).map(addr))
            .with_downing(self.downing)
            .with_dissemination(Dissemination::Seeded(seed));
        let cluster = Cluster::start(&remote, config).unwrap();
        let receptionist = ClusterReceptionist::start(&cluster);
        let singletons = Singletons::start(&cluster, &receptionist);
        let node = Node {
            cluster,
            receptionist,
            singletons,
            remote,
            system,
        };
        self.nodes.insert(number, node);
        &self.nodes[&number]
    }

    /// Waits until all nodes see all of them up and reachable.
    pub(crate) async fn settled(&self) {
        for node in self.nodes.values() {
            let count = self.nodes.len();
            node.cluster.join().await.unwrap();
            node.sees("all up", |state| {
                let all = state.up().count() == count && state.members.len() == count;
                all && state.converged && state.unreachable.is_empty()
            })
            .await;
        }
    }

    /// Takes a node off the network for good, and ends what ran on it.
    pub(crate) async fn crash(&mut self, number: u16) -> NodeId {
        self.net.crash(addr(number));
        let node = self.nodes.remove(&number).unwrap();
        let id = node.id().clone();
        let (system, remote) = (node.system.clone(), node.remote.clone());
        drop(node);
        system.shutdown().await;
        remote.shutdown().await;
        id
    }

    /// Lets a node leave in order.
    pub(crate) async fn leave(&mut self, number: u16) -> NodeId {
        let node = self.nodes.remove(&number).unwrap();
        node.cluster.begin_leave().await;
        node.singletons.hand_over(SECOND * 10).await.unwrap();
        node.cluster.finish_leave().await.unwrap();
        node.system.shutdown().await;
        node.remote.shutdown().await;
        node.id().clone()
    }
}

/// Passes on what it gets.
struct Recorder<M>(mpsc::UnboundedSender<M>);

impl<M: Send + 'static> Actor for Recorder<M> {
    type Msg = M;
    type Err = std::convert::Infallible;

    async fn handle(&mut self, message: M, _: &mut Context<Self>) -> Result<(), Self::Err> {
        let _ = self.0.send(message);
        Ok(())
    }
}

/// A message with who sent it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Note {
    pub(crate) from: u16,
    pub(crate) number: u64,
}

impl RemoteMessage for Note {
    const NAME: &'static str = "test.Note";
}
