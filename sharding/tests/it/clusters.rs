//! Proves: sharding over real memberships: nodes form a cluster, one leaves, one dies.

use crate::support::{Cmd, Counter, Journal, KIND, SECOND, SHARDS, SlowStore, addr};
use otava_actor::{ActorSystem, Props};
use otava_cluster::{Cluster, ClusterConfig, Dissemination};
use otava_remote::{Remote, VirtualWorld};
use otava_sharding::{
    AllocationStore, Entities, EntityContext, MemoryAllocationStore, Sharding, ShardingConfig,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    remote: Remote,
    system: ActorSystem,
    pub(crate) entities: Entities<Cmd>,
}

impl Node {
    /// Leaves in order: known as leaving, hand-over, removed.
    pub(crate) async fn leave(self) {
        self.cluster.begin_leave().await;
        self.entities.hand_over(SECOND * 10).await.unwrap();
        assert_eq!(self.entities.local_stats().shards, 0);
        self.cluster.finish_leave().await.unwrap();
        self.remote.shutdown().await;
        self.system.shutdown().await;
    }
}

pub(crate) struct Whole {
    world: VirtualWorld,
    store: Arc<MemoryAllocationStore>,
    /// The way of regions and coordinators to the store.
    pub(crate) slow: SlowStore,
    pub(crate) journal: Arc<Journal>,
    pub(crate) config: ShardingConfig,
}

impl Whole {
    pub(crate) fn new(seed: u64) -> Self {
        let store = Arc::new(MemoryAllocationStore::new());
        Self {
            world: VirtualWorld::new(seed),
            slow: SlowStore::new(&store),
            store,
            journal: Arc::default(),
            config: ShardingConfig::default().shards(SHARDS),
        }
    }

    pub(crate) fn start(&self, n: u16) -> Node {
        let name = format!("n{n}");
        let system = ActorSystem::builder(&name).seed(u64::from(n)).build();
        let network = Arc::new(self.world.network(addr(n), &name));
        let builder = Remote::builder(&system, "test", &name, network);
        let remote = builder.seeded(u64::from(n)).start().unwrap();
        let config = ClusterConfig::default()
            .with_seeds([addr(1), addr(2)])
            .with_dissemination(Dissemination::Seeded(u64::from(n)));
        let cluster = Cluster::start(&remote, config).unwrap();
        let (store, journal) = (self.store.clone(), self.journal.clone());
        let factory = move |context: EntityContext| {
            Props::once(Counter::new(context, &name, &store, &journal))
        };
        let store: Arc<dyn AllocationStore> = Arc::new(self.slow.clone());
        let config = self.config.clone();
        let entities = Sharding::start::<Counter>(&cluster, KIND, store, config, factory);
        Node {
            cluster,
            remote,
            system,
            entities: entities.unwrap(),
        }
    }
}

impl Whole {
    /// The node is gone without a word.
    pub(crate) fn crash(&self, node: &Node) {
        self.world.crash(node.cluster.me().addr);
    }
}

/// Every entity answers to this node; how long that took.
async fn all_answer(entities: &Entities<Cmd>, name: &str, limit: Duration) -> Duration {
    let begin = Instant::now();
    for id in 0..100 {
        let entity = entities.entity(format!("{name}-{id}"));
        while entity.ask(Cmd::Where).within(SECOND).await.is_err() {
            assert!(begin.elapsed() < limit, "{name}-{id} does not answer");
            sleep(Duration::from_millis(100)).await;
        }
    }
    begin.elapsed()
}

/// S1, S2, C2, C3: three nodes share the shards; the oldest leaves in order; another is killed, and
/// its entities answer within detection, decision and five seconds; a split-off node stops what it
/// has.
#[tokio::test(start_paused = true)]
async fn entities_follow_the_members() {
    let whole = Whole::new(1);
    let mut nodes: Vec<Node> = (1..=5).map(|n| whole.start(n)).collect();
    for node in &nodes {
        node.cluster.join().await.unwrap();
        node.entities.all_hosted().await;
        all_answer(&node.entities, "first", SECOND * 5).await;
    }
    sleep(SECOND * 10).await;
    let shards = |nodes: &[Node]| -> Vec<usize> {
        let stats = nodes.iter().map(|node| node.entities.local_stats());
        stats.map(|stats| stats.shards).collect()
    };
    let counts = shards(&nodes);
    assert_eq!(counts.iter().sum::<usize>(), SHARDS as usize);
    assert!(
        counts.iter().all(|count| (6..=7).contains(count)),
        "{counts:?}"
    );

    let oldest = nodes[0].entities.coordinator().unwrap();
    let place = nodes.iter().position(|node| *node.cluster.me() == oldest);
    let leaver = nodes.remove(place.unwrap());
    leaver.leave().await;
    all_answer(&nodes[0].entities, "second", SECOND).await;
    assert_eq!(shards(&nodes).iter().sum::<usize>(), SHARDS as usize);

    let victim = nodes.pop().unwrap();
    whole.world.crash(victim.cluster.me().addr);
    let away = all_answer(&nodes[0].entities, "third", SECOND * 20).await;
    assert!(away < SECOND * 15, "{away:?}");

    let lonely = nodes.pop().unwrap();
    whole.world.isolate(lonely.cluster.me().addr);
    all_answer(&nodes[0].entities, "fourth", SECOND * 20).await;
    lonely.cluster.downed().await;
    sleep(SECOND * 5).await;
    assert_eq!(
        lonely.entities.local_stats().shards,
        0,
        "a downed node stops what it has"
    );
    assert_eq!(lonely.entities.local_stats().entities, 0);
    assert_eq!(shards(&nodes).iter().sum::<usize>(), SHARDS as usize);
    whole.journal.check();
}
