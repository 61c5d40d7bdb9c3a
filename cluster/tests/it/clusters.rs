//! Proves: real memberships over the virtual network join, agree, split, leave and are refused.

use futures_util::future::BoxFuture;
use otava_actor::ActorSystem;
use otava_cluster::{
    AppVersion, Cluster, ClusterConfig, ClusterEvent, ClusterState, Discovery, DiscoveryError,
    Dissemination, JoinError, Lease, MemoryLease, Refusal, Strategy,
};
use otava_remote::{Remote, VirtualWorld};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

const SEEDED: Dissemination = Dissemination::Seeded(7);

fn addr(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], 7_000 + number).into()
}

struct Node {
    cluster: Cluster,
    remote: Remote,
    _system: ActorSystem,
}

impl Node {
    fn state(&self) -> Arc<ClusterState> {
        self.cluster.state()
    }

    /// Waits until what this node sees `is` so.
    async fn sees(&self, what: &str, is: impl Fn(&ClusterState) -> bool) {
        let mut state = self.cluster.subscribe();
        let seen = state.wait_for(|state| is(state));
        if timeout(Duration::from_secs(60), seen).await.is_err() {
            panic!("{:?} never sees {what}: {:?}", self.cluster, self.state());
        }
    }
}

fn config(dissemination: Dissemination) -> ClusterConfig {
    ClusterConfig::default()
        .with_seeds([addr(1), addr(2)])
        .with_dissemination(dissemination)
}

fn start(world: &VirtualWorld, number: u16, config: ClusterConfig) -> Node {
    let name = format!("node-{number}");
    let system = ActorSystem::new(&name);
    let network = Arc::new(world.network(addr(number), &name));
    let remote = Remote::builder(&system, "test", &name, network);
    let remote = remote.start().unwrap();
    let cluster = Cluster::start(&remote, config).unwrap();
    Node {
        cluster,
        remote,
        _system: system,
    }
}

fn start_all(world: &VirtualWorld, count: u16, dissemination: Dissemination) -> Vec<Node> {
    let nodes = (1..=count).map(|number| start(world, number, config(dissemination)));
    nodes.collect()
}

/// Waits until all are up and agree.
async fn all_up(nodes: &[Node]) {
    for node in nodes {
        node.cluster.join().await.unwrap();
        let all = |state: &ClusterState| {
            state.up().count() == nodes.len() && state.members.len() == nodes.len()
        };
        node.sees("all up", |state| {
            all(state) && state.converged && state.unreachable.is_empty()
        })
        .await;
    }
    let first = nodes[0].state();
    assert!(
        nodes
            .iter()
            .all(|node| node.state().members == first.members)
    );
    assert!(nodes.iter().all(|node| node.state().leader == first.leader));
}

/// C1: nodes that start at once are one cluster within 15 seconds, whatever carries the gossip.
#[tokio::test(start_paused = true)]
async fn five_nodes_become_one_cluster() {
    for dissemination in [SEEDED, Dissemination::Chitchat] {
        let world = VirtualWorld::new(1);
        let begin = Instant::now();
        let nodes = start_all(&world, 5, dissemination);
        all_up(&nodes).await;
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{dissemination:?}"
        );
        let state = nodes[3].state();
        assert_eq!(state.leader.as_ref(), Some(nodes[0].cluster.me()));
        assert_eq!(state.oldest().map(|m| &m.id), Some(nodes[0].cluster.me()));
    }
}

/// C7: what a node says of itself is seen by all, and changes with a new run at its address.
#[tokio::test(start_paused = true)]
async fn roles_and_versions_are_seen_by_all() {
    for dissemination in [SEEDED, Dissemination::Chitchat] {
        let world = VirtualWorld::new(9);
        let with = |role: &str, version: &str| {
            let config = config(dissemination).with_role(role);
            config.with_app_version(AppVersion::new(version).unwrap())
        };
        let mut nodes = vec![
            start(&world, 1, with("api", "1.9.0")),
            start(&world, 2, with("db", "1.9.0")),
            start(&world, 3, config(dissemination)),
        ];
        all_up(&nodes).await;
        for node in &nodes {
            let state = node.state();
            let db: Vec<_> = state.up_with_role("db").map(|m| m.id.addr).collect();
            assert_eq!(db, [addr(2)], "{dissemination:?}");
            assert_eq!(state.app_versions().len(), 2);
        }
        drop(nodes.remove(1));
        nodes.push(start(&world, 2, with("web", "1.10.0")));
        let begin = Instant::now();
        for node in &nodes {
            node.sees("the new role", |state| {
                let newest = state.app_versions().last().map(ToString::to_string);
                let web = state.up_with_role("web").count() == 1;
                web && state.oldest_with_role("db").is_none() && newest.as_deref() == Some("1.10.0")
            })
            .await;
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

/// The same over chitchat with more nodes: a crash, a new run at its address, a leave.
#[tokio::test(start_paused = true)]
async fn ten_nodes_over_chitchat() {
    let world = VirtualWorld::new(2);
    let mut nodes = start_all(&world, 10, Dissemination::Chitchat);
    all_up(&nodes).await;

    world.crash(addr(10));
    drop(nodes.pop());
    nodes[4]
        .sees("nine", |state| state.members.len() == 9)
        .await;
    nodes.push(start(&world, 10, config(Dissemination::Chitchat)));
    all_up(&nodes).await;

    let leaver = nodes.pop().unwrap();
    leaver.cluster.begin_leave().await;
    leaver.cluster.finish_leave().await.unwrap();
    all_up(&nodes).await;
}

/// C2: who leaves is seen leaving, exiting, removed, once each, and nobody is unreachable.
#[tokio::test(start_paused = true)]
async fn a_leave_is_seen_step_by_step() {
    let world = VirtualWorld::new(3);
    let mut nodes = start_all(&world, 3, SEEDED);
    all_up(&nodes).await;
    let mut events = nodes[0].cluster.events();
    let leaver = nodes.pop().unwrap();
    let id = leaver.cluster.me().clone();
    leaver.cluster.begin_leave().await;
    let leaving = ClusterEvent::MemberLeaving(id.clone());
    assert_eq!(events.recv().await, Ok(leaving));
    leaver.cluster.finish_leave().await.unwrap();
    assert_eq!(
        events.recv().await,
        Ok(ClusterEvent::MemberExiting(id.clone()))
    );
    assert_eq!(events.recv().await, Ok(ClusterEvent::MemberRemoved(id)));
    all_up(&nodes).await;
    leaver.remote.shutdown().await;
    // The last one leaves alone.
    let last = nodes.pop().unwrap();
    nodes[0].cluster.begin_leave().await;
    nodes[0].cluster.finish_leave().await.unwrap();
    last.sees("itself alone", |state| state.members.len() == 1)
        .await;
    last.cluster.finish_leave().await.unwrap();
}

/// A clean split: the larger side goes on and the smaller one knows that it is out.
#[tokio::test(start_paused = true)]
async fn a_split_leaves_the_larger_side() {
    for dissemination in [SEEDED, Dissemination::Chitchat] {
        let world = VirtualWorld::new(4);
        let mut nodes = start_all(&world, 5, dissemination);
        all_up(&nodes).await;
        for low in 1..=2 {
            for high in 3..=5 {
                world.cut(addr(low), addr(high));
            }
        }
        let cut = Instant::now();
        for node in &nodes[..2] {
            node.cluster.downed().await;
        }
        assert!(cut.elapsed() < Duration::from_secs(12), "{dissemination:?}");
        nodes.drain(..2);
        all_up(&nodes).await;
        world.heal_all();
        tokio::time::sleep(Duration::from_secs(10)).await;
        all_up(&nodes).await;
    }
}

/// C5: a node that was out of reach for a minute learns that it is out, and stops.
#[tokio::test(start_paused = true)]
async fn an_isolated_node_ends_and_a_new_run_comes_back() {
    let world = VirtualWorld::new(5);
    let mut nodes = start_all(&world, 4, SEEDED);
    all_up(&nodes).await;
    world.isolate(addr(4));
    nodes[3].cluster.downed().await;
    let out = nodes.pop().unwrap();
    all_up(&nodes).await;
    world.rejoin(addr(4));
    drop(out);
    nodes.push(start(&world, 4, config(SEEDED)));
    all_up(&nodes).await;
}

/// C11: a node with another strategy is refused, and is told the difference.
#[tokio::test(start_paused = true)]
async fn a_node_with_other_settings_is_refused() {
    let world = VirtualWorld::new(6);
    let nodes = start_all(&world, 2, SEEDED);
    all_up(&nodes).await;
    let other = config(SEEDED).with_downing(Strategy::KeepOldest);
    let stranger = start(&world, 3, other);
    let refused = stranger.cluster.join().await;
    let differs = Refusal::SettingDiffers {
        setting: "downing".into(),
        ours: "keep-oldest".into(),
        theirs: "keep-majority".into(),
    };
    assert_eq!(refused, Err(JoinError::Refused(differs)));
    all_up(&nodes).await;
}

/// C11: a setting that is added before the node asks is compared with that of the member it asks.
#[tokio::test(start_paused = true)]
async fn a_setting_that_both_have_must_agree() {
    let world = VirtualWorld::new(11);
    let held = || config(SEEDED).with_join_when_told();
    let nodes = [1, 2].map(|number| start(&world, number, held()));
    for node in &nodes {
        assert!(node.cluster.share_setting("shards of cart", "128"));
    }
    for node in &nodes {
        node.cluster.join().await.unwrap();
    }
    all_up(&nodes).await;
    // Who has no such setting is let in: maybe it adds it later.
    let without = start(&world, 3, held());
    without.cluster.join().await.unwrap();
    let other = start(&world, 4, held());
    other.cluster.share_setting("shards of cart", "64");
    let refused = other.cluster.join().await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the cluster refuses this node: the setting `shards of cart` is \"64\" here but \"128\" in the \
         cluster"
    );
    let larger = start(&world, 5, config(SEEDED).with_members_min(3));
    let refused = larger.cluster.join().await.unwrap_err().to_string();
    assert!(
        refused.contains("`members-min` is \"3\" here but \"1\""),
        "{refused}"
    );
}

/// Nobody is asked before it is told to.
#[tokio::test(start_paused = true)]
async fn a_node_joins_when_told() {
    let world = VirtualWorld::new(12);
    let nodes = start_all(&world, 2, SEEDED);
    all_up(&nodes).await;
    let held = start(&world, 3, config(SEEDED).with_join_when_told());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(held.state().members.is_empty());
    assert_eq!(nodes[0].state().members.len(), 2);
    held.cluster.join().await.unwrap();
}

/// Addresses that appear one by one, as nodes are started.
#[derive(Debug, Default)]
struct Appearing(Mutex<Vec<SocketAddr>>);

impl Discovery for Appearing {
    fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
        let found = self.0.lock().unwrap().clone();
        Box::pin(async {
            if found.is_empty() {
                return Err(DiscoveryError::new("nowhere", "nothing has appeared"));
            }
            Ok(found)
        })
    }
}

/// C1: nodes that find each other form one cluster, and those that are found later join it; so does
/// the lowest one when it is started again.
#[tokio::test(start_paused = true)]
async fn nodes_find_each_other() {
    let world = VirtualWorld::new(13);
    let appearing = Arc::new(Appearing::default());
    let finding = || {
        let config = ClusterConfig::default().with_dissemination(SEEDED);
        config.with_discovery(appearing.clone())
    };
    let mut nodes: Vec<Node> = [5, 3, 2].map(|n| start(&world, n, finding())).into();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(nodes.iter().all(|node| node.state().members.is_empty()));
    for number in [2, 3, 5] {
        appearing.0.lock().unwrap().push(addr(number));
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    all_up(&nodes).await;
    assert_eq!(nodes[0].state().oldest().map(|m| m.id.addr), Some(addr(2)));
    appearing.0.lock().unwrap().push(addr(1));
    nodes.push(start(&world, 1, finding()));
    all_up(&nodes).await;
    drop(nodes.pop());
    nodes.push(start(&world, 1, finding()));
    all_up(&nodes).await;
}

/// The side that gets the lease goes on, even if it is the smaller one because the other one's
/// requests do not arrive.
#[tokio::test(start_paused = true)]
async fn the_lease_decides_who_goes_on() {
    let store = Arc::new(MemoryLease::new());
    for taken in [false, true] {
        let world = VirtualWorld::new(14);
        let leasing = || config(SEEDED).with_lease(store.clone());
        let mut nodes: Vec<Node> = (1..=5).map(|n| start(&world, n, leasing())).collect();
        all_up(&nodes).await;
        let cluster = nodes[0].cluster.me().incarnation;
        if taken {
            let name = format!("otava-downing-{cluster:016x}");
            let length = Duration::from_secs(600);
            store.acquire(&name, "somebody", length).await.unwrap();
        }
        for low in 1..=2 {
            for high in 3..=5 {
                world.cut(addr(low), addr(high));
            }
        }
        let out = if taken { 5 } else { 2 };
        for node in &nodes[..out] {
            node.cluster.downed().await;
        }
        nodes.drain(..out);
        if !nodes.is_empty() {
            all_up(&nodes).await;
        }
    }
}

/// C2: the handle tells the whole cluster that it is about to be stopped.
#[tokio::test(start_paused = true)]
async fn all_are_told_of_the_end() {
    for dissemination in [SEEDED, Dissemination::Chitchat] {
        let world = VirtualWorld::new(15);
        let nodes = start_all(&world, 3, dissemination);
        all_up(&nodes).await;
        nodes[1].cluster.prepare_for_shutdown().await;
        for node in &nodes {
            node.sees("the end", |state| state.preparing_for_shutdown)
                .await;
        }
    }
}

/// A node alone forms a cluster at once; one whose seeds are silent is told so.
#[tokio::test(start_paused = true)]
async fn alone_and_in_vain() {
    let world = VirtualWorld::new(7);
    let alone = start(&world, 1, ClusterConfig::default());
    let begin = Instant::now();
    alone.cluster.join().await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(100));
    let lost = config(SEEDED).with_seeds([addr(8), addr(9)]);
    let lost = start(&world, 2, lost);
    let within = Duration::from_secs(30);
    assert_eq!(
        lost.cluster.join().await,
        Err(JoinError::TimedOut { within })
    );
}

/// Somebody who knows better puts a node down by hand; the node stops itself.
#[tokio::test(start_paused = true)]
async fn put_down_by_hand() {
    let world = VirtualWorld::new(8);
    let mut nodes = start_all(&world, 3, SEEDED);
    all_up(&nodes).await;
    let third = nodes[2].cluster.me().clone();
    nodes[0].cluster.down(&third).await;
    nodes[2].cluster.downed().await;
    nodes.pop();
    all_up(&nodes).await;
}
