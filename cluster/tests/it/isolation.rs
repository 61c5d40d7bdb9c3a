//! Proves: a member whose threads are all held by user code hears and says what is decided.

use otava_actor::ActorSystem;
use otava_cluster::{Cluster, ClusterConfig, ClusterState};
use otava_remote::{Credentials, QuicNetwork, Remote};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const WORKERS: usize = 2;
const SOON: Duration = Duration::from_secs(30);

/// A node with threads of its own.
struct Node {
    runtime: Runtime,
    remote: Remote,
    cluster: Option<Cluster>,
}

impl Node {
    fn bind(folder: &Path, name: &'static str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .unwrap();
        let credentials = Credentials::development(folder, name).unwrap();
        let entered = runtime.enter();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let network = QuicNetwork::builder(name, any_port, credentials).bind();
        let system = ActorSystem::new(name);
        let remote = Remote::builder(&system, "test", name, Arc::new(network.unwrap()));
        let remote = remote.start().unwrap();
        drop(entered);
        Self {
            runtime,
            remote,
            cluster: None,
        }
    }

    fn start(&mut self, seeds: &[SocketAddr]) {
        let config = ClusterConfig::default().with_seeds(seeds.iter().copied());
        let _entered = self.runtime.enter();
        self.cluster = Some(Cluster::start(&self.remote, config).unwrap());
    }

    /// Waits on another thread than the node's until what it sees `is` so.
    async fn sees(&self, what: &str, is: impl Fn(&ClusterState) -> bool) {
        let cluster = self.cluster.as_ref().unwrap();
        let mut state = cluster.subscribe();
        let seen = timeout(SOON, state.wait_for(|state| is(state))).await;
        let seen = seen.map(|state| state.is_ok());
        assert_eq!(seen, Ok(true), "{what}: {:?}", cluster.state());
    }

    /// Holds every worker until what is returned is dropped.
    fn hold(&self) -> mpsc::Sender<()> {
        let all = Arc::new(Barrier::new(WORKERS + 1));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..WORKERS {
            let (all, held) = (all.clone(), held.clone());
            self.runtime.spawn(async move {
                all.wait();
                // Until nobody can send any more. The second one waits for the lock meanwhile.
                let _ = held.lock().unwrap().recv();
            });
        }
        all.wait();
        release
    }
}

/// Three members; one is held, another dies, and all that are left agree on it while it is held.
async fn one_is_held_while_another_dies(leader_is_held: bool) {
    let folder = TempDir::new().unwrap();
    let mut nodes = ["a", "b", "c"].map(|name| Node::bind(folder.path(), name));
    nodes.sort_by_key(|node| node.remote.id().addr);
    let seeds = [0, 1, 2].map(|n| nodes[n].remote.id().addr);
    nodes.iter_mut().for_each(|node| node.start(&seeds));
    for node in &nodes {
        let all = |state: &ClusterState| state.up().count() == 3 && state.converged;
        node.sees("all up", all).await;
    }
    let [leader, other, dies] = nodes;
    let release = if leader_is_held {
        leader.hold()
    } else {
        other.hold()
    };
    dies.runtime.shutdown_background();
    drop((dies.cluster, dies.remote));
    let two = |state: &ClusterState| state.members.len() == 2 && state.unreachable.is_empty();
    for node in [&leader, &other] {
        node.sees("two are left, while one is held", two).await;
    }
    drop(release);
    for node in [&leader, &other] {
        let agrees = |state: &ClusterState| two(state) && state.converged;
        node.sees("two that agree", agrees).await;
    }
    for node in [leader, other] {
        node.runtime.shutdown_background();
    }
}

/// X: user code that blocks all workers does not get the node downed, whoever else fails meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_member_hears_who_is_out() {
    one_is_held_while_another_dies(false).await;
}

/// X: nor does a leader with no thread left keep the others from a decision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_leader_decides() {
    one_is_held_while_another_dies(true).await;
}
