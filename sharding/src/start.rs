//! Start: how a kind of entities begins on a node.

use crate::config::ShardingConfig;
use crate::entities::{Counters, Entities, Known, Shown};
use crate::entity::EntityContext;
use crate::entity_ref::Entrance;
use crate::error::StartError;
use crate::io::doors::Doors;
use crate::io::members::follow;
use crate::io::region::{RegionActor, Start};
use crate::logic::hash::is_valid_shards;
use crate::logic::view::View;
use crate::message::region_name;
use crate::proxy::{NoEntity, NoStore};
use crate::refs::{Way, way_name};
use crate::store::AllocationStore;
use otava_actor::{Actor, Props};
use otava_cluster::Cluster;
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::sync::Arc;
use tokio::sync::watch;

/// The longest name of a kind in bytes.
const KIND_BYTES_MAX: usize = 64;

/// Where kinds of entities begin: [`Sharding::start`].
#[derive(Clone, Copy, Debug)]
pub struct Sharding;

impl Sharding {
    /// Starts a kind of entities on this node: its region, and the coordinator that is at work while
    /// this is the oldest Up member. Every node of the cluster starts every kind, with the same
    /// `kind`, message type and number of shards; `store` is shared by all of them. Start it before the
    /// node asks to be let in: another number of shards is refused at the door then.
    ///
    /// `factory` gives the recipe of an entity. It runs in the region, so it should be quick; an
    /// entity whose recipe or start fails answers nobody: its messages become dead letters.
    ///
    /// # Errors
    /// [`StartError`]: a setting that cannot be used, or the kind runs here already.
    ///
    /// # Examples
    /// ```no_run
    /// # use otava_actor::{Actor, Context, Props, ReplyTo};
    /// # use otava_remote::RemoteMessage;
    /// use otava_sharding::{AllocationStore, EntityContext, Sharding, ShardingConfig};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::sync::Arc;
    /// # #[derive(Deserialize, Serialize)]
    /// # enum Command { Balance(#[serde(with = "otava_remote::wire")] ReplyTo<i64>) }
    /// # impl RemoteMessage for Command { const NAME: &'static str = "bank.Command"; }
    /// # struct Account(EntityContext);
    /// # impl Actor for Account {
    /// #     type Msg = Command;
    /// #     type Err = std::convert::Infallible;
    /// #     async fn handle(&mut self, _: Command, _: &mut Context<Self>) -> Result<(), Self::Err> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # async fn f(cluster: otava_cluster::Cluster, store: Arc<dyn AllocationStore>)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let make = |context: EntityContext| Props::once(Account(context));
    /// let accounts = Sharding::start(&cluster, "account", store, ShardingConfig::default(), make)?;
    /// let balance = accounts.entity("DE-1234").ask(Command::Balance).await?;
    /// # let _ = balance;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start<A: Actor<Msg: RemoteMessage>>(
        cluster: &Cluster,
        kind: &str,
        store: Arc<dyn AllocationStore>,
        config: ShardingConfig,
        factory: impl Fn(EntityContext) -> Props<A> + Send + 'static,
    ) -> Result<Entities<A::Msg>, StartError> {
        let views = follow(cluster, &config.roles);
        let shards = config.shards;
        let roles: Vec<&str> = config.roles.iter().map(String::as_str).collect();
        let roles = roles.join(",");
        let entities = Self::start_with(cluster.remote(), views, kind, store, config, factory)?;
        // Compared at the door, if this node has not asked to be let in yet; the regions refuse each
        // other's shards in any case.
        cluster.share_setting(format!("shards of {kind}"), shards.to_string());
        cluster.share_setting(format!("roles of {kind}"), roles);
        Ok(entities)
    }

    /// Starts a kind on a node that only sends to its entities: it knows where they live, keeps the order
    /// of what it sends while shards move, and needs neither their code nor their store. Who hosts is
    /// decided by [`ShardingConfig::roles`], which must be the same on all nodes; of those roles this
    /// node lacks one.
    ///
    /// A node that has another kind of work and the code of the entities can call [`Sharding::start`] as
    /// well: without the roles it is a proxy too.
    ///
    /// # Errors
    /// [`StartError`]; [`StartError::NoRoles`] if every member would host.
    pub fn proxy<M: RemoteMessage>(
        cluster: &Cluster,
        kind: &str,
        config: ShardingConfig,
    ) -> Result<Entities<M>, StartError> {
        if config.roles.is_empty() {
            return Err(StartError::NoRoles);
        }
        let make = |_| Props::once(NoEntity::<M>::new());
        Self::start(cluster, kind, Arc::new(NoStore), config, make)
    }

    /// As [`Sharding::start`], with the members as they are given: for tests and for those who bring
    /// their own membership.
    ///
    /// # Errors
    /// [`StartError`].
    #[doc(hidden)]
    pub fn start_with<A: Actor<Msg: RemoteMessage>>(
        remote: &Remote,
        views: watch::Receiver<View>,
        kind: &str,
        store: Arc<dyn AllocationStore>,
        config: ShardingConfig,
        factory: impl Fn(EntityContext) -> Props<A> + Send + 'static,
    ) -> Result<Entities<A::Msg>, StartError> {
        if kind.len() > KIND_BYTES_MAX || !NodeId::is_valid_name(kind) {
            return Err(StartError::BadKind(kind.to_owned()));
        }
        if !is_valid_shards(config.shards) {
            return Err(StartError::BadShards(config.shards));
        }
        let (shown, showing) = watch::channel(Shown::default());
        let known = Known {
            remote: remote.clone(),
            name: region_name::<A::Msg>(kind),
            kind: kind.into(),
            shards: config.shards,
            resizable: !config.only_fixed,
            shown: showing,
            counters: Arc::new(Counters::default()),
        };
        let capacity = config.mailbox_capacity;
        let doors = Arc::new(Doors::new(config.passivation.is_timed()));
        let region = RegionActor::<A>::new(Start {
            remote: remote.clone(),
            kind: known.kind.clone(),
            name: known.name.clone(),
            config,
            store,
            views,
            factory: Box::new(factory),
            doors: doors.clone(),
            shown,
            counters: known.counters.clone(),
        });
        let props = Props::once(region).mailbox_capacity(capacity);
        let actor_name = format!("sharding-{kind}");
        let region = remote.system().spawn_with(&actor_name, props)?;
        let doors = Some(doors);
        let entrance = Entrance { region, doors };
        let arriving = entrance.clone();
        let past = move |message, expires| arriving.arrived(message, expires);
        if let Err(error) = remote.publish_past(&known.name, &entrance.region, past) {
            entrance.region.stop();
            return Err(error.into());
        }
        let way = Way::Region(entrance.clone());
        remote.provide(way_name(kind), Arc::new(way));
        Ok(Entities::new(entrance, known))
    }
}
