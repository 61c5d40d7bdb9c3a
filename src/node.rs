//! Node: wires all layers into one: starts them in order, ends them in the reverse order.
//!
//! ```text
//! start   journal -> actor system -> network, remote layer -> cluster
//! entities and singletons, then join and wait until up
//! leave   leaving -> shards and singletons handed over -> exiting, removed -> actors -> associations -> journal
//! downed                                                     -> actors -> associations -> journal
//! ```
//!
//! **Invariant:** whatever ends a node, its entities stop before its journal closes, and it answers
//! nothing any more once it knows that it is out.

use crate::entity::{
    DurableEntity, DurableStartError, EntityOptions, PersistentEntity, start_durable_entities,
    start_entities,
};
use crate::letters::Ways;
use crate::projection::{ClusterProjection, start_projection};
use crate::queue::JournalDeliveryQueue;
use crate::store::{JournalAllocationStore, JournalTerms};
use futures_util::future::{BoxFuture, join_all};
use otava_actor::{Actor, ActorSystem, Props};
use otava_cluster::replicated::{self, Replicator, ReplicatorConfig};
use otava_cluster::singleton::{SingletonConfig, SingletonContext, SingletonError};
use otava_cluster::topic::TopicError;
use otava_cluster::{
    AppVersion, Cluster, ClusterConfig, ClusterReceptionist, ClusterState, Discovery, JoinError,
    LeaveError, SingletonProxy, Singletons, Topic, Topics,
};
use otava_persistence::{EventSourced, Journal, ProjectionPlan, SqliteConfig, SqliteJournal};
use otava_remote::{
    Credentials, Network, NodeId, QuicNetwork, Remote, RemoteConfig, RemoteMessage, Rights,
};
use otava_sharding::{
    DaemonProcess, Entities, HandOverError, Sharding, ShardingConfig, WorkerContext,
};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A member of a cluster that hosts actors and sharded entities. A handle, cheap to clone.
///
/// A node lives until it has left ([`Node::leave`]), was put down, or its tokio runtime ends; it goes on
/// when the last handle is dropped, as a task of tokio does.
///
/// # Examples
/// ```no_run
/// use otava::Node;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("bank", "node-1")
///     .listen("127.0.0.1:7001".parse()?)
///     .data("/var/lib/bank")
///     .start()
///     .await?;
/// node.join().await?;
/// println!("{} is up", node.id());
/// let how = node.run_until_ended().await;
/// println!("{how:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// Hands the entities of one kind over to the other nodes.
type HandOver =
    Arc<dyn Fn(Duration) -> BoxFuture<'static, Result<(), HandOverError>> + Send + Sync>;

struct Inner {
    system: ActorSystem,
    remote: Remote,
    cluster: Cluster,
    receptionist: ClusterReceptionist,
    singletons: Singletons,
    topics: Topics,
    journal: Arc<dyn Journal>,
    ways: Ways,
    /// This node opened the journal, so it closes it.
    owns_journal: bool,
    /// One for each entity kind, in the order of their start.
    hand_overs: Mutex<Vec<HandOver>>,
    hand_over_within: Duration,
    /// Somebody is ending the node already.
    ending: Mutex<bool>,
    ended: watch::Sender<Option<Ended>>,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// The cluster counts it as lost: it was unreachable for too long, or on the smaller side of a
    /// split. What it was doing may have been taken over meanwhile.
    Downed,
    /// Its journal has halted, so it could keep nothing any more: it left by itself. Its log says why, and
    /// [`Journal::halted`].
    Halted,
    /// It left: its shards were handed over.
    Left,
}

impl Node {
    /// Sets up the node `name` of the cluster `cluster`. All nodes of a cluster say the same
    /// `cluster`, and each has a `name` of its own, which its certificate is bound to.
    pub fn builder(cluster: &str, name: &str) -> NodeBuilder {
        NodeBuilder {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seeds: None,
            discovery: None,
            data: None,
            credentials: None,
            insecure: None,
            rights: Rights::default(),
            journal: None,
            network: None,
            seed: None,
            roles: Vec::new(),
            app_version: None,
            cluster_config: ClusterConfig::default(),
            remote_config: RemoteConfig::default(),
            hand_over_within: Duration::from_secs(20),
        }
    }

    /// Which run of which node this is.
    pub fn id(&self) -> &NodeId {
        self.inner.remote.id()
    }

    /// The actors of this node.
    pub fn system(&self) -> &ActorSystem {
        &self.inner.system
    }

    /// References and messages to and from other nodes.
    pub fn remote(&self) -> &Remote {
        &self.inner.remote
    }

    /// Who is a member.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// What this node knows of the cluster now.
    pub fn state(&self) -> Arc<ClusterState> {
        self.inner.cluster.state()
    }

    /// Where the entities of this node keep their events.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.inner.journal
    }

    pub(crate) fn ways(&self) -> &Ways {
        &self.inner.ways
    }

    /// Makes this node a host of the entities of kind `E`, and returns the way to all of them,
    /// wherever they live. Call it on every node, right after it was started.
    ///
    /// # Errors
    /// [`otava_sharding::StartError`]: the kind is started already, or cannot be a name.
    pub fn entities<E: PersistentEntity>(
        &self,
        options: EntityOptions,
    ) -> Result<Entities<E::Command>, otava_sharding::StartError> {
        self.entities_with(E::KIND, options, E::create)
    }

    /// As [`Node::entities`], for entities that `create` makes of their id: it can hand them what this
    /// node has. What it makes must be the same state on every node. `kind` is the name of the kind: a
    /// part of persistence ids and of names on the wire, so a contract.
    ///
    /// # Errors
    /// As [`Node::entities`].
    pub fn entities_with<E: EventSourced<Command: RemoteMessage>>(
        &self,
        kind: &str,
        options: EntityOptions,
        create: impl Fn(&str) -> E + Send + Sync + 'static,
    ) -> Result<Entities<E::Command>, otava_sharding::StartError> {
        let inner = &self.inner;
        let (journal, courier) = (inner.journal.clone(), self.courier());
        let entities = start_entities(&inner.cluster, kind, (journal, courier), options, create)?;
        self.hands_over(&entities);
        Ok(entities)
    }

    /// As [`Node::entities`], for entities that keep their newest state only.
    ///
    /// # Errors
    /// [`DurableStartError`].
    pub fn durable_entities<E: DurableEntity>(
        &self,
        options: EntityOptions,
    ) -> Result<Entities<E::Command>, DurableStartError> {
        let inner = &self.inner;
        let started = start_durable_entities::<E>(&inner.cluster, inner.journal.clone(), options)?;
        self.hands_over(&started);
        Ok(started)
    }

    /// The way to the entities of `kind` from a node that hosts none: it lacks one of the roles in
    /// `config`, and needs no code of theirs. Call it right after the node was started.
    ///
    /// # Errors
    /// [`otava_sharding::StartError`], also if `config` names no roles.
    pub fn entity_proxy<M: RemoteMessage>(
        &self,
        kind: &str,
        config: ShardingConfig,
    ) -> Result<Entities<M>, otava_sharding::StartError> {
        let entities = Sharding::proxy(&self.inner.cluster, kind, config)?;
        self.hands_over(&entities);
        Ok(entities)
    }

    /// Keeps `workers` workers running under `name`, each once in the cluster, spread over the members
    /// that have the roles in `config`. Call it on every node, right after it was started.
    ///
    /// # Errors
    /// [`otava_sharding::StartError`].
    pub fn daemon<A: Actor<Msg: RemoteMessage>>(
        &self,
        name: &str,
        workers: u32,
        config: ShardingConfig,
        factory: impl Fn(WorkerContext) -> Props<A> + Send + 'static,
    ) -> Result<DaemonProcess<A::Msg>, otava_sharding::StartError> {
        let inner = &self.inner;
        let store = Arc::new(JournalAllocationStore::new(inner.journal.clone()));
        let daemon = DaemonProcess::start(&inner.cluster, name, store, workers, config, factory)?;
        self.hands_over(daemon.entities());
        Ok(daemon)
    }

    /// When this node leaves, the entities of this kind are handed over.
    fn hands_over<M: RemoteMessage>(&self, entities: &Entities<M>) {
        let kind = entities.clone();
        let hand_over: HandOver = Arc::new(move |within| {
            let kind = kind.clone();
            Box::pin(async move { kind.hand_over(within).await })
        });
        lock(&self.inner.hand_overs).push(hand_over);
    }

    /// Makes this node a host of the instances of a projection, which are spread over all nodes that say
    /// this, or those of them with the roles of `config`. Call it on every node, right after it was
    /// started, with the same name and number of instances.
    ///
    /// # Errors
    /// [`otava_sharding::StartError`]: the projection is started already, or its name is none of 53
    /// letters, digits, `-`, `_` and `.` at most.
    pub fn projection(
        &self,
        plan: ProjectionPlan,
        config: ShardingConfig,
    ) -> Result<ClusterProjection, otava_sharding::StartError> {
        let inner = &self.inner;
        let projection = start_projection(&inner.cluster, inner.journal.clone(), plan, config)?;
        let workers = projection.clone();
        let hand_over: HandOver = Arc::new(move |within| {
            let workers = workers.clone();
            Box::pin(async move { workers.hand_over(within).await })
        });
        lock(&inner.hand_overs).push(hand_over);
        Ok(projection)
    }

    /// Who offers which service in the whole cluster.
    pub fn receptionist(&self) -> &ClusterReceptionist {
        &self.inner.receptionist
    }

    /// Makes this node one that may host the singleton `name`, and returns the way to it, wherever it
    /// runs. Call it on every node, right after it was started. Terms come from the journal, unless
    /// `config` says otherwise: events that are written with the scope and term of the
    /// [`SingletonContext`] as their fence are refused once a later one has started.
    ///
    /// # Errors
    /// [`SingletonError`].
    pub fn singleton<A: Actor<Msg: RemoteMessage>>(
        &self,
        name: &str,
        mut config: SingletonConfig,
        factory: impl Fn(SingletonContext) -> Props<A> + Send + 'static,
    ) -> Result<SingletonProxy<A::Msg>, SingletonError> {
        let journal = &self.inner.journal;
        config
            .terms
            .get_or_insert_with(|| Arc::new(JournalTerms::new(journal.clone())));
        self.inner.singletons.host(name, config, factory)
    }

    /// The topic `name` of the cluster, for messages of this type.
    ///
    /// # Errors
    /// [`TopicError`].
    pub fn topic<M: RemoteMessage + Clone>(&self, name: &str) -> Result<Topic<M>, TopicError> {
        self.inner.topics.topic(name)
    }

    /// The queue `name` in the journal, in which a producer of reliable messages keeps what is not confirmed. Each
    /// producer has one of its own; it may start again on another node if they share the journal.
    pub fn delivery_queue(&self, name: &str) -> Arc<JournalDeliveryQueue> {
        let journal = self.inner.journal.clone();
        Arc::new(JournalDeliveryQueue::new(journal, name))
    }

    /// Starts this node's copy of all replicated data. Call it once on every node, right after it was
    /// started; the handle it returns is cheap to clone.
    ///
    /// # Errors
    /// [`replicated::StartError`]: it is started already, or what is durable cannot be loaded.
    pub async fn replicator(
        &self,
        config: ReplicatorConfig,
    ) -> Result<Replicator, replicated::StartError> {
        Replicator::start(&self.inner.cluster, config).await
    }

    /// Joins the cluster through the seeds, or forms it if this is the first of them and no other
    /// answers, and waits until this node is up. Nothing is asked before, so that what was set up until
    /// now, such as the number of shards of each kind, is compared with the cluster's.
    ///
    /// # Errors
    /// [`JoinError`] says who refused, and why.
    pub async fn join(&self) -> Result<(), JoinError> {
        self.inner.cluster.join().await
    }

    /// Leaves the cluster and ends: shards and singletons are handed over, the member leaves, actors stop,
    /// associations are flushed, the journal is closed. Safe to call more than once.
    ///
    /// # Cancel safety
    /// Dropped, the node goes on with leaving.
    pub async fn leave(&self) -> Ended {
        let node = self.clone();
        let leaving = async move { node.leave_as(Ended::Left).await };
        self.inner.system.handle().spawn(leaving);
        self.ended().await
    }

    /// Leaves, and says `how` unless it was put down meanwhile.
    async fn leave_as(&self, how: Ended) {
        if self.begin_end() {
            let parted = self.part().await;
            let how = if parted == Ended::Left { how } else { parted };
            self.end(how).await;
        }
    }

    /// Waits until the node has ended, for whatever reason.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.inner.ended.subscribe();
        let known = ended.wait_for(Option::is_some).await;
        // An error would mean that this handle is gone.
        known.ok().and_then(|how| *how).unwrap_or(Ended::Left)
    }

    /// Waits until the node has ended; SIGTERM and Ctrl-C let it leave. Further signals change nothing:
    /// leaving takes [`NodeBuilder::hand_over_within`] and some seconds at most.
    ///
    /// # Cancel safety
    /// Dropped, it no longer listens to signals.
    pub async fn run_until_ended(&self) -> Ended {
        tokio::select! {
            biased;
            how = self.ended() => how,
            () = stop_signal() => self.leave().await,
        }
    }

    /// Whether the caller is the one to end the node.
    fn begin_end(&self) -> bool {
        !std::mem::replace(&mut *lock(&self.inner.ending), true)
    }

    /// Hands over and leaves the cluster, for as long as the cluster counts this node as a member.
    async fn part(&self) -> Ended {
        tokio::select! {
            biased;
            () = self.inner.cluster.downed() => {
                let node = self.id();
                tracing::error!(%node, "put down while it was leaving: it stops");
                return Ended::Downed;
            }
            () = self.hand_over() => {}
        }
        match self.inner.cluster.finish_leave().await {
            Ok(()) => return Ended::Left,
            Err(LeaveError::Downed) => return Ended::Downed,
            Err(error) => tracing::warn!(%error, "left without the others' agreement"),
        }
        Ended::Left
    }

    async fn hand_over(&self) {
        self.inner.cluster.begin_leave().await;
        let hand_overs = lock(&self.inner.hand_overs).clone();
        let within = self.inner.hand_over_within;
        let all = join_all(hand_overs.iter().map(|hand_over| hand_over(within)));
        let singletons = self.inner.singletons.hand_over(within);
        let (all, singletons) = tokio::join!(biased; all, singletons);
        for error in all.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "left with entities that were not handed over");
        }
        if let Err(error) = singletons {
            tracing::warn!(%error, "left with singletons that were not handed over");
        }
    }

    async fn end(&self, how: Ended) {
        let inner = &self.inner;
        inner.system.shutdown().await;
        inner.remote.shutdown().await;
        if inner.owns_journal {
            inner.journal.close().await;
        }
        inner.ended.send_replace(Some(how));
    }

    /// Ends the node as soon as it learns that it is out.
    fn watch_for_downing(&self) {
        let node = self.clone();
        self.inner.system.handle().spawn(async move {
            tokio::select! {
                biased;
                _ = node.ended() => return,
                () = node.inner.cluster.downed() => {}
            }
            if node.begin_end() {
                tracing::error!(node = %node.id(), "the cluster counts this node as lost: it stops");
                node.end(Ended::Downed).await;
            }
        });
    }

    /// Lets the node leave when its journal has halted. Its entities could acknowledge nothing, and as the
    /// oldest member it could allocate nothing to others.
    fn watch_journal(&self) {
        let node = self.clone();
        self.inner.system.handle().spawn(async move {
            let reason = tokio::select! {
                biased;
                _ = node.ended() => return,
                reason = node.inner.journal.halted() => reason,
            };
            tracing::error!(node = %node.id(), %reason, "the journal has halted: this node leaves");
            node.leave_as(Ended::Halted).await;
        });
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(self.id()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for SIGTERM or Ctrl-C.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    biased;
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "cannot listen for SIGTERM"),
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Where a node without certificates may listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum InsecureReach {
    Anywhere,
    Loopback,
}

/// Settings of a node that is about to start ([`Node::builder`]).
#[must_use]
pub struct NodeBuilder {
    cluster: String,
    name: String,
    listen: SocketAddr,
    seeds: Option<Vec<SocketAddr>>,
    discovery: Option<Arc<dyn Discovery>>,
    data: Option<PathBuf>,
    credentials: Option<Credentials>,
    insecure: Option<InsecureReach>,
    rights: Rights,
    journal: Option<Arc<dyn Journal>>,
    network: Option<Arc<dyn Network>>,
    seed: Option<u64>,
    roles: Vec<String>,
    app_version: Option<AppVersion>,
    cluster_config: ClusterConfig,
    remote_config: RemoteConfig,
    hand_over_within: Duration,
}

impl NodeBuilder {
    /// Where peers reach this node (QUIC over UDP). Default: a free port of 127.0.0.1.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// The nodes to join through. The first of them forms the cluster if no other answers. Default:
    /// those of [`NodeBuilder::cluster_config`]; without any this node forms a cluster of its own.
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.seeds = Some(seeds.into_iter().collect());
        self
    }

    /// Where the addresses of nodes are found, in place of seeds: [`otava_cluster::DnsDiscovery`],
    /// [`otava_cluster::FileDiscovery`], or one's own. The lowest address forms the cluster when all
    /// that are found agree.
    pub fn discovery(mut self, discovery: Arc<dyn Discovery>) -> Self {
        self.discovery = Some(discovery);
        self
    }

    /// The folder for what lasts, made if it is not there: the embedded journal, which all nodes of
    /// this machine share, and the development authority. Needed unless [`NodeBuilder::journal`]
    /// and [`NodeBuilder::credentials`] say otherwise.
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// The certificates of this node. Default: those of a development authority in the data folder.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Does without certificates: whoever reaches the address is in, under any name
    /// ([`Credentials::insecure`]). The node says so in its log, and listens at loopback addresses only.
    pub fn insecure(mut self) -> Self {
        self.insecure = Some(InsecureReach::Loopback);
        self
    }

    /// As [`NodeBuilder::insecure`], also where other machines reach it. **Whoever does is in.**
    pub fn insecure_beyond_loopback(mut self) -> Self {
        self.insecure = Some(InsecureReach::Anywhere);
        self
    }

    /// Who may reach which protocol of this node. Default: members all of them, clients none.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// The journal. Whoever opened it closes it, after the node has ended. Default: the embedded one,
    /// in the data folder, opened and closed by the node.
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// The network, for example one in memory. Default: QUIC on [`NodeBuilder::listen`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// Draws everything random from this seed, so that a simulation replays. Ids can be guessed
    /// then: only for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// What this node is for, besides the roles in [`NodeBuilder::cluster_config`]: others can choose
    /// members by these words.
    pub fn roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// The version of the program, for example `AppVersion::new(env!("CARGO_PKG_VERSION"))`: others see
    /// by it that a rolling update is under way. Default: that of [`NodeBuilder::cluster_config`].
    pub fn app_version(mut self, version: AppVersion) -> Self {
        self.app_version = Some(version);
        self
    }

    /// Settings of the membership.
    pub fn cluster_config(mut self, config: ClusterConfig) -> Self {
        self.cluster_config = config;
        self
    }

    /// Settings of the remote layer.
    pub fn remote_config(mut self, config: RemoteConfig) -> Self {
        self.remote_config = config;
        self
    }

    /// How long [`Node::leave`] waits until its shards and singletons are handed over. Default 20 s.
    pub fn hand_over_within(mut self, within: Duration) -> Self {
        self.hand_over_within = within;
        self
    }

    /// Starts the node on the caller's tokio runtime. It is no member yet: start the entities that it
    /// hosts, then call [`Node::join`].
    ///
    /// # Errors
    /// [`NodeError`] says which layer could not be started, and why.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(mut self) -> Result<Node, NodeError> {
        let config = self.membership();
        let owns_journal = self.journal.is_none();
        let journal = match self.journal.take() {
            Some(journal) => journal,
            None => {
                let folder = self.data.as_ref().ok_or(NodeError::NoDataFolder)?;
                create_folder(folder)?;
                let path = folder.join("journal.db");
                Arc::new(SqliteJournal::open(path, SqliteConfig::default()).await?)
            }
        };
        let network = self.take_network()?;
        let mut system = ActorSystem::builder(&self.name);
        if let Some(seed) = self.seed {
            system = system.seed(seed);
        }
        let system = system.build();
        let mut remote =
            Remote::builder(&system, &self.cluster, &self.name, network).config(self.remote_config);
        remote = remote.rights(self.rights);
        if let Some(seed) = self.seed {
            remote = remote.seeded(seed);
        }
        let remote = remote.start()?;
        let cluster = match Cluster::start(&remote, config) {
            Ok(cluster) => cluster,
            Err(error) => {
                // Or the address would stay in use.
                remote.shutdown().await;
                return Err(error.into());
            }
        };
        let receptionist = ClusterReceptionist::start(&cluster);
        let node = Node {
            inner: Arc::new(Inner {
                singletons: Singletons::start(&cluster, &receptionist),
                topics: Topics::start(&receptionist),
                receptionist,
                system,
                remote,
                cluster,
                journal,
                ways: Ways::default(),
                owns_journal,
                hand_overs: Mutex::default(),
                hand_over_within: self.hand_over_within,
                ending: Mutex::new(false),
                ended: watch::Sender::new(None),
            }),
        };
        node.watch_for_downing();
        node.watch_journal();
        Ok(node)
    }

    /// The settings of the membership, with what was given besides.
    fn membership(&self) -> ClusterConfig {
        let mut config = self.cluster_config.clone().with_join_when_told();
        if let Some(seeds) = &self.seeds {
            config = config.with_seeds(seeds.iter().copied());
        }
        if let Some(discovery) = &self.discovery {
            config = config.with_discovery(discovery.clone());
        }
        config.roles.extend(self.roles.iter().cloned());
        if let Some(version) = &self.app_version {
            config = config.with_app_version(version.clone());
        }
        config
    }

    /// The network that was given, or one over QUIC with the certificates that were.
    fn take_network(&mut self) -> Result<Arc<dyn Network>, NodeError> {
        if let Some(network) = self.network.take() {
            return Ok(network);
        }
        let credentials = match (self.insecure, self.credentials.take()) {
            (Some(_), None) => Credentials::insecure(&self.name)?,
            (Some(_), Some(_)) => return Err(NodeError::InsecureWithCredentials),
            (None, Some(credentials)) => credentials,
            (None, None) => {
                let folder = self.data.as_ref().ok_or(NodeError::NoDataFolder)?;
                let folder = folder.join("authority");
                create_folder(&folder)?;
                Credentials::development(&folder, &self.name)?
            }
        };
        if credentials.are_of_client(&self.name) {
            let name = self.name.clone();
            return Err(NodeError::ClientCertificate { name });
        }
        let mut network = QuicNetwork::builder(&self.name, self.listen, credentials);
        if self.insecure == Some(InsecureReach::Anywhere) {
            network = network.insecure_beyond_loopback();
        }
        Ok(Arc::new(network.bind()?))
    }
}

fn create_folder(folder: &std::path::Path) -> Result<(), NodeError> {
    std::fs::create_dir_all(folder).map_err(|source| NodeError::Folder {
        folder: folder.to_owned(),
        source,
    })
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why a node was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The network could not be set up.
    #[error("cannot listen: {0}")]
    Bind(#[from] otava_remote::BindError),
    /// The certificate is that of a client, which cannot be a member.
    #[error(
        "the certificate is that of the client `{name}`: make one with `otava cert node`, without `--client`"
    )]
    ClientCertificate {
        /// The name.
        name: String,
    },
    /// The membership could not be set up.
    #[error("cannot start the membership: {0}")]
    Cluster(#[from] otava_cluster::StartError),
    /// The certificates could not be made or read.
    #[error("no certificates: {0}")]
    Credentials(#[from] otava_remote::CredentialsError),
    /// The data folder could not be made.
    #[error("cannot make the folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Certificates were given to a node that is to do without.
    #[error("this node has credentials and is to be insecure: take one of the two away")]
    InsecureWithCredentials,
    /// The journal could not be opened.
    #[error("cannot open the journal: {0}")]
    Journal(#[from] otava_persistence::OpenError),
    /// Neither a data folder nor what would lie in it was given.
    #[error("a node needs a data folder, or a journal and credentials: call `data(..)`")]
    NoDataFolder,
    /// The remote layer could not be set up.
    #[error("cannot start the remote layer: {0}")]
    Remote(#[from] otava_remote::StartError),
}
