//! Support: a cluster of nodes in one process, over the virtual network, with members as told. All who
//! use it run on virtual time (`start_paused = true`).

use futures_util::future::BoxFuture;
use otava_actor::{Actor, ActorSystem, AskError, Context, Props, ReplyTo};
use otava_remote::{NodeId, Remote, RemoteMessage, VirtualWorld};
use otava_sharding::logic::view::{Host, View};
use otava_sharding::{
    AllocationStore, ClaimError, Entities, EntityContext, MemoryAllocationStore, Sharding,
    ShardingConfig, StartError, StoreError,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) const KIND: &str = "counter";
pub(crate) const SHARDS: u32 = 32;
pub(crate) const SECOND: Duration = Duration::from_secs(1);

#[derive(Deserialize, Serialize)]
pub(crate) enum Cmd {
    Fail,
    /// Writes down the number; the answer is how many the entity has.
    Put {
        sender: u32,
        number: u64,
        #[serde(with = "otava_remote::wire")]
        reply_to: Option<ReplyTo<u64>>,
    },
    /// It is at work for so long, or for ever.
    Sleep(Option<Duration>),
    Stop,
    Where(#[serde(with = "otava_remote::wire")] ReplyTo<String>),
}

impl RemoteMessage for Cmd {
    const NAME: &'static str = "test.Cmd";
}

/// What all entities wrote, and by whom they were refused.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) rows: Mutex<Vec<Row>>,
    pub(crate) refused: Mutex<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) sender: u32,
    pub(crate) number: u64,
    pub(crate) node: String,
    pub(crate) epoch: u64,
}

impl Journal {
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.lock().unwrap().clone()
    }

    /// Checks that epochs only rise in each entity, each of one node, and that the numbers of each
    /// sender come in order and once.
    pub(crate) fn check(&self) {
        let mut last: BTreeMap<(String, u32), u64> = BTreeMap::new();
        let mut writers: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for row in self.rows() {
            let number = last.entry((row.id.clone(), row.sender)).or_default();
            assert!(row.number > *number, "{row:?} after {number}");
            *number = row.number;
            let (epoch, node) = writers.entry(row.id.clone()).or_default();
            assert!(row.epoch >= *epoch, "{row:?} after epoch {epoch}");
            assert!(
                row.epoch > *epoch || row.node == *node,
                "{row:?} beside {node}"
            );
            (*epoch, *node) = (row.epoch, row.node.clone());
        }
    }
}

/// A store that takes its time.
#[derive(Clone)]
pub(crate) struct SlowStore {
    inner: Arc<MemoryAllocationStore>,
    millis: Arc<AtomicU64>,
}

impl SlowStore {
    pub(crate) fn new(inner: &Arc<MemoryAllocationStore>) -> Self {
        Self {
            inner: inner.clone(),
            millis: Arc::default(),
        }
    }

    /// From now on terms and claims take this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.millis
            .store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    async fn wait(&self) {
        let millis = self.millis.load(Ordering::Relaxed);
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }
}

impl AllocationStore for SlowStore {
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            self.wait().await;
            self.inner.next_term(scope).await
        })
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        Box::pin(async move {
            self.wait().await;
            self.inner.claim(scope, epoch).await
        })
    }
}

pub(crate) struct Counter {
    context: EntityContext,
    node: String,
    store: Arc<MemoryAllocationStore>,
    journal: Arc<Journal>,
    count: u64,
}

impl Counter {
    pub(crate) fn new(
        context: EntityContext,
        node: &str,
        store: &Arc<MemoryAllocationStore>,
        journal: &Arc<Journal>,
    ) -> Self {
        Self {
            context,
            node: node.to_owned(),
            store: store.clone(),
            journal: journal.clone(),
            count: 0,
        }
    }
}

impl Actor for Counter {
    type Msg = Cmd;
    type Err = String;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), String> {
        if self.context.id.starts_with("broken") {
            return Err("it is broken".to_owned());
        }
        Ok(())
    }

    async fn handle(&mut self, cmd: Cmd, ctx: &mut Context<Self>) -> Result<(), String> {
        match cmd {
            Cmd::Fail => return Err("as told".to_owned()),
            Cmd::Sleep(Some(length)) => tokio::time::sleep(length).await,
            Cmd::Sleep(None) => std::future::pending::<()>().await,
            Cmd::Stop => ctx.stop_self_after_queued(),
            Cmd::Where(reply_to) => {
                let _ = reply_to.send(self.node.clone());
            }
            Cmd::Put {
                sender,
                number,
                reply_to,
            } => {
                // The write takes a moment; the fence is checked with it.
                tokio::time::sleep(Duration::from_micros(200)).await;
                let context = &self.context;
                if self.store.current(&context.scope) != context.epoch {
                    *self.journal.refused.lock().unwrap() += 1;
                    context.fenced.report();
                    return Ok(());
                }
                self.count += 1;
                self.journal.rows.lock().unwrap().push(Row {
                    id: context.id.to_string(),
                    sender,
                    number,
                    node: self.node.clone(),
                    epoch: context.epoch,
                });
                if let Some(reply_to) = reply_to {
                    let _ = reply_to.send(self.count);
                }
            }
        }
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) system: ActorSystem,
    pub(crate) remote: Remote,
    pub(crate) entities: Entities<Cmd>,
    views: watch::Sender<View>,
}

pub(crate) struct Cluster {
    pub(crate) world: VirtualWorld,
    pub(crate) store: Arc<MemoryAllocationStore>,
    /// The way of regions and coordinators to the store.
    pub(crate) slow: SlowStore,
    pub(crate) journal: Arc<Journal>,
    pub(crate) config: ShardingConfig,
    pub(crate) nodes: BTreeMap<u16, Node>,
    up: Vec<u16>,
    leaving: Vec<u16>,
    gone: Vec<NodeId>,
}

pub(crate) fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], n))
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Self {
        let store = Arc::new(MemoryAllocationStore::new());
        Self {
            world: VirtualWorld::new(seed),
            slow: SlowStore::new(&store),
            store,
            journal: Arc::default(),
            config: ShardingConfig::default().shards(SHARDS),
            nodes: BTreeMap::new(),
            up: Vec::new(),
            leaving: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Nodes that know each other, all shards at home.
    pub(crate) async fn started(seed: u64, nodes: u16) -> Self {
        let mut cluster = Self::new(seed);
        for n in 1..=nodes {
            cluster.add(n);
        }
        cluster.tell_members();
        cluster.until_balanced().await;
        cluster
    }

    /// A remote layer that is no member.
    pub(crate) fn outsider(&self, n: u16) -> Remote {
        let name = format!("n{n}");
        let system = ActorSystem::builder(&name).seed(u64::from(n)).build();
        let network = Arc::new(self.world.network(addr(n), &name));
        let builder = Remote::builder(&system, "test", &name, network);
        builder.seeded(u64::from(n)).start().unwrap()
    }

    /// Starts a node that nobody is told of yet.
    pub(crate) fn add(&mut self, n: u16) {
        let remote = self.outsider(n);
        let id = remote.id().clone();
        let (views, receiver) = watch::channel(View::empty(id.clone()));
        let entities = self.start(&remote, receiver, KIND).unwrap();
        let node = Node {
            id,
            system: remote.system().clone(),
            remote,
            entities,
            views,
        };
        self.nodes.insert(n, node);
        self.up.push(n);
    }

    fn start(
        &self,
        remote: &Remote,
        views: watch::Receiver<View>,
        kind: &str,
    ) -> Result<Entities<Cmd>, StartError> {
        let (store, journal) = (self.store.clone(), self.journal.clone());
        let node = remote.id().name.to_string();
        let factory = move |context: EntityContext| {
            assert!(!context.id.starts_with("panic"), "as told");
            Props::once(Counter::new(context, &node, &store, &journal))
        };
        let store: Arc<dyn AllocationStore> = Arc::new(self.slow.clone());
        let config = self.config.clone();
        Sharding::start_with::<Counter>(remote, views, kind, store, config, factory)
    }

    /// The members as node `n` is told of them, for another kind there.
    pub(crate) fn views(&self, n: u16) -> watch::Receiver<View> {
        self.nodes[&n].views.subscribe()
    }

    pub(crate) fn start_again(&self, n: u16, kind: &str) -> Result<Entities<Cmd>, StartError> {
        let node = &self.nodes[&n];
        self.start(&node.remote, node.views.subscribe(), kind)
    }

    pub(crate) fn join(&mut self, n: u16) {
        self.add(n);
        self.tell_members();
    }

    /// The members are told that a node is on its way out.
    pub(crate) fn begin_leave(&mut self, n: u16) {
        self.up.retain(|other| *other != n);
        self.leaving.push(n);
        self.tell_members();
    }

    /// Leaves as a node does: known as leaving, hand-over, gone.
    pub(crate) async fn leave(&mut self, n: u16) {
        self.begin_leave(n);
        let limit = SECOND * 20;
        self.nodes[&n].entities.hand_over(limit).await.unwrap();
        assert_eq!(self.nodes[&n].entities.local_stats().shards, 0);
        self.down(n);
        let node = self.nodes.remove(&n).unwrap();
        node.remote.shutdown().await;
        node.system.shutdown().await;
    }

    /// The node is gone without a word; nobody is told.
    pub(crate) fn crash(&self, n: u16) {
        self.world.crash(addr(n));
    }

    /// As [`Self::down`], but the node itself is not told and lives on as if nothing had happened.
    pub(crate) fn down_behind(&mut self, n: u16) -> Node {
        let node = self.nodes.remove(&n).unwrap();
        self.up.retain(|other| *other != n);
        self.gone.push(node.id.clone());
        self.tell_members();
        node
    }

    /// The members are told that a node is out for good.
    pub(crate) fn down(&mut self, n: u16) {
        let id = self.nodes[&n].id.clone();
        self.up.retain(|other| *other != n);
        self.leaving.retain(|other| *other != n);
        self.gone.push(id.clone());
        for (_, node) in self.nodes.iter().filter(|(other, _)| **other != n) {
            node.remote.quarantine(&id, "downed");
        }
        self.tell_members();
    }

    pub(crate) fn tell_members(&self) {
        let id = |n: &u16| self.nodes[n].id.clone();
        let up = self.up.iter().map(|n| (id(n), Host::Up));
        let leaving = self.leaving.iter().map(|n| (id(n), Host::Leaving));
        let hosts: BTreeMap<NodeId, Host> = up.chain(leaving).collect();
        for node in self.nodes.values() {
            node.views.send_replace(View {
                me: node.id.clone(),
                oldest: self.up.first().map(id),
                hosts: hosts.clone(),
                gone: self.gone.iter().cloned().collect(),
                ..View::empty(node.id.clone())
            });
        }
    }

    pub(crate) fn entities(&self, n: u16) -> &Entities<Cmd> {
        &self.nodes[&n].entities
    }

    pub(crate) fn counts(&self) -> Vec<usize> {
        let up = self.up.iter().map(|n| &self.nodes[n].entities);
        up.map(|entities| entities.local_stats().shards).collect()
    }

    /// Waits until all shards are at home and no node has more than one above another.
    pub(crate) async fn until_balanced(&self) {
        let limit = tokio::time::Instant::now() + SECOND * 30;
        loop {
            let counts = self.counts();
            let (most, least) = (counts.iter().max(), counts.iter().min());
            let up = || self.up.iter().map(|n| &self.nodes[n].entities);
            let whole = up().all(|entities| entities.homes().values().all(Option::is_some));
            let same = up().all(|entities| entities.homes() == self.entities(self.up[0]).homes());
            if whole && same && most.unwrap() - least.unwrap() <= 1 {
                return;
            }
            assert!(tokio::time::Instant::now() < limit, "{counts:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends numbers to many entities from one node, without waiting for answers.
pub(crate) async fn send_numbers(entities: Entities<Cmd>, sender: u32, rounds: u64, ids: u32) {
    for number in 1..=rounds {
        for id in 0..ids {
            let cmd = Cmd::Put {
                sender,
                number,
                reply_to: None,
            };
            entities.entity(format!("e{id}")).send(cmd).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks an entity to count one, and for its answer.
pub(crate) async fn put(entities: &Entities<Cmd>, id: &str) -> Result<u64, AskError> {
    let entity = entities.entity(id);
    let asked = entity.ask(|reply_to| Cmd::Put {
        sender: 0,
        number: 0,
        reply_to: Some(reply_to),
    });
    asked.within(SECOND * 3).await
}
