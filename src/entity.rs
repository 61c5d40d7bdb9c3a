//! Entity: state that lasts and that sharding places, with the fence that ties the two together.

use crate::remember::JournalRememberStore;
use crate::store::JournalAllocationStore;
use otava_cluster::Cluster;
use otava_persistence::{
    Courier, DurableState, EventSourced, Fence, Journal, KeyStore, Options, PersistenceId,
    durable_state, event_sourced,
};
use otava_remote::RemoteMessage;
use otava_sharding::{Entities, EntityContext, Remember, Sharding, ShardingConfig, StartError};
use std::sync::Arc;

/// Event-sourced state that lives somewhere in the cluster, found by its id.
///
/// There is one instance of an id at a time: it moves when nodes come, go or fail, and finds all its
/// events again. The store refuses writes of an instance whose shard was given to another node.
///
/// An entity that needs more than its id, such as a topic or a client of another service, is started by
/// [`crate::Node::entities_with`], and needs no more than [`EventSourced`].
///
/// # Examples
/// ```
/// use otava::prelude::*;
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// #[derive(Deserialize, Serialize)]
/// struct Increment(#[serde(with = "otava::wire")] ReplyTo<u64>);
///
/// impl RemoteMessage for Increment {
///     const NAME: &'static str = "example.Increment";
/// }
///
/// impl EventSourced for Counter {
///     type Command = Increment;
///     type Event = ();
///     type Snapshot = ();
///     const EVENT_NAME: &'static str = "example.Incremented";
///     const EVENT_VERSION: u16 = 1;
///
///     fn handle(&self, Increment(reply_to): Increment) -> Effect<Self> {
///         Effect::persist(()).reply_with(reply_to, |counter: &Self| counter.0)
///     }
///
///     fn apply(&mut self, (): &()) {
///         self.0 += 1;
///     }
/// }
///
/// impl PersistentEntity for Counter {
///     const KIND: &'static str = "counter";
///
///     fn create(_id: &str) -> Self {
///         Self::default()
///     }
/// }
/// ```
pub trait PersistentEntity: EventSourced<Command: RemoteMessage> {
    /// The name of the kind: a part of persistence ids and of names on the wire. A contract.
    const KIND: &'static str;

    /// The empty state of the entity `id`, before any event.
    fn create(id: &str) -> Self;
}

/// State that is kept as its newest value and lives somewhere in the cluster, found by its id. As
/// [`PersistentEntity`], without events. Started by [`crate::Node::durable_entities`].
pub trait DurableEntity: DurableState<Command: RemoteMessage> {
    /// The name of the kind: a part of persistence ids and of names on the wire. A contract.
    const KIND: &'static str;

    /// The empty state of the entity `id`, before anything is stored.
    fn create(id: &str) -> Self;
}

/// How the entities of one kind are run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EntityOptions {
    /// Snapshots, recovery and letters.
    pub persistence: Options,
    /// Encrypts what the entities write, each with its own key. Default: no.
    pub keys: Option<Keys>,
    /// Shards, buffers and rebalancing. The number of shards must be the same on all nodes.
    pub sharding: ShardingConfig,
    /// Whether entities that were started live until they stop by themselves, wherever their shard is.
    /// Default: they live while messages come ([`ShardingConfig::passivation`]).
    pub remembered: bool,
}

impl EntityOptions {
    /// Sets [`Self::persistence`].
    #[must_use]
    pub fn persistence(mut self, options: Options) -> Self {
        self.persistence = options;
        self
    }

    /// Encrypts what the entities write, each with its own key
    /// ([`otava_persistence::EventSourcedBuilder::encrypted`]).
    #[must_use]
    pub fn encrypted(mut self, keys: Arc<dyn KeyStore>) -> Self {
        self.keys = Some(Keys(keys));
        self
    }

    /// Sets [`Self::sharding`].
    #[must_use]
    pub fn sharding(mut self, config: ShardingConfig) -> Self {
        self.sharding = config;
        self
    }

    /// Sets [`Self::remembered`]. Who is remembered is kept in the journal ([`JournalRememberStore`]); another
    /// store, or a fixed set, goes into [`ShardingConfig::remember`].
    #[must_use]
    pub fn remembered(mut self) -> Self {
        self.remembered = true;
        self
    }
}

impl EntityOptions {
    /// How sharding places them.
    fn placed(&self, journal: &Arc<dyn Journal>) -> ShardingConfig {
        let sharding = self.sharding.clone();
        if !self.remembered {
            return sharding;
        }
        let remembered = JournalRememberStore::new(journal.clone());
        sharding.remember(Remember::started(Arc::new(remembered)))
    }
}

/// A store of keys, as a setting.
#[derive(Clone)]
pub struct Keys(pub(crate) Arc<dyn KeyStore>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Why entities that keep their newest state only were not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableStartError {
    /// The journal of the node has no store of states ([`Journal::states`]); those of Otava have one.
    #[error(
        "the journal of this node keeps no states: use one of Otava's, or event-sourced entities"
    )]
    NoStates,
    /// Sharding did not start them.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Starts entities whose states are in the store of states of `journal`.
pub(crate) fn start_durable_entities<E: DurableEntity>(
    cluster: &Cluster,
    journal: Arc<dyn Journal>,
    options: EntityOptions,
) -> Result<Entities<E::Command>, DurableStartError> {
    let states = journal.states().ok_or(DurableStartError::NoStates)?;
    let sharding = options.placed(&journal);
    let store = Arc::new(JournalAllocationStore::new(journal));
    let (recoveries, keys) = (options.persistence.recoveries, options.keys);
    let factory = move |entity: EntityContext| {
        let id = PersistenceId::new(E::KIND, &entity.id);
        let fence = Fence::new(entity.scope.clone(), entity.epoch);
        let (name, fenced) = (entity.id, entity.fenced);
        let mut builder = durable_state(id, move || E::create(&name), states.clone())
            .fence(fence)
            .on_fenced(move || fenced.report())
            .recoveries(recoveries.clone());
        if let Some(Keys(keys)) = &keys {
            builder = builder.encrypted(keys.clone());
        }
        builder.props()
    };
    let started = Sharding::start(cluster, E::KIND, store, sharding, factory)?;
    Ok(started)
}

pub(crate) fn start_entities<E: EventSourced<Command: RemoteMessage>>(
    cluster: &Cluster,
    kind: &str,
    (journal, courier): (Arc<dyn Journal>, Arc<dyn Courier>),
    options: EntityOptions,
    create: impl Fn(&str) -> E + Send + Sync + 'static,
) -> Result<Entities<E::Command>, StartError> {
    let (create, own_kind) = (Arc::new(create), kind.to_owned());
    let store = Arc::new(JournalAllocationStore::new(journal.clone()));
    let (persistence, keys) = (options.persistence.clone(), options.keys.clone());
    let sharding = options.placed(&journal);
    let factory = move |entity: EntityContext| {
        let id = PersistenceId::new(&own_kind, &entity.id);
        let fence = Fence::new(entity.scope.clone(), entity.epoch);
        let (name, fenced, create) = (entity.id, entity.fenced, create.clone());
        let mut builder = event_sourced(id, move || create(&name), journal.clone())
            .fence(fence)
            .courier(courier.clone())
            .on_fenced(move || fenced.report())
            .options(persistence.clone());
        if let Some(Keys(keys)) = &keys {
            builder = builder.encrypted(keys.clone());
        }
        builder.props()
    };
    Sharding::start(cluster, kind, store, sharding, factory)
}
