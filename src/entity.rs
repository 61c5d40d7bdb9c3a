//! Entity: event-sourced state that sharding places, with the fence that ties the two together.

use crate::remember::JournalRememberStore;
use crate::store::JournalAllocationStore;
use otava_cluster::Cluster;
use otava_persistence::{
    Courier, EventSourced, Fence, Journal, Options, PersistenceId, event_sourced,
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

/// How the entities of one kind are run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EntityOptions {
    /// Snapshots and recovery.
    pub persistence: Options,
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

pub(crate) fn start_entities<E: EventSourced<Command: RemoteMessage>>(
    cluster: &Cluster,
    kind: &str,
    (journal, courier): (Arc<dyn Journal>, Arc<dyn Courier>),
    options: EntityOptions,
    create: impl Fn(&str) -> E + Send + Sync + 'static,
) -> Result<Entities<E::Command>, StartError> {
    let (create, own_kind) = (Arc::new(create), kind.to_owned());
    let store = Arc::new(JournalAllocationStore::new(journal.clone()));
    let persistence = options.persistence;
    let mut sharding = options.sharding;
    if options.remembered {
        sharding.remember = Remember::started(Arc::new(JournalRememberStore::new(journal.clone())));
    }
    let factory = move |entity: EntityContext| {
        let id = PersistenceId::new(&own_kind, &entity.id);
        let fence = Fence::new(entity.scope.clone(), entity.epoch);
        let (name, fenced, create) = (entity.id, entity.fenced, create.clone());
        event_sourced(id, move || create(&name), journal.clone())
            .fence(fence)
            .courier(courier.clone())
            .on_fenced(move || fenced.report())
            .options(persistence.clone())
            .props()
    };
    Sharding::start(cluster, kind, store, sharding, factory)
}
