//! Start: how a kind of entities begins on a node.

use crate::config::ShardingConfig;
use crate::entities::{Counters, Entities, Shown};
use crate::entity::EntityContext;
use crate::error::StartError;
use crate::io::region::{RegionActor, Start};
use crate::logic::hash::is_valid_shards;
use crate::logic::view::View;
use crate::message::region_name;
use crate::store::AllocationStore;
use otava_actor::{Actor, Props};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::sync::Arc;
use tokio::sync::watch;

/// The longest name of a kind in bytes.
const KIND_BYTES_MAX: usize = 64;

/// The sharding of a node.
#[derive(Clone, Copy, Debug)]
pub struct Sharding;

impl Sharding {
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
        let (shards, capacity) = (config.shards, config.mailbox_capacity);
        let name = region_name::<A::Msg>(kind);
        let kind: Arc<str> = kind.into();
        let (shown, showing) = watch::channel(Shown::default());
        let counters = Arc::new(Counters::default());
        let region = RegionActor::<A>::new(Start {
            remote: remote.clone(),
            kind: kind.clone(),
            name: name.clone(),
            config,
            store,
            views,
            factory: Box::new(factory),
            shown,
            counters: counters.clone(),
        });
        let props = Props::once(region).mailbox_capacity(capacity);
        let actor_name = format!("sharding-{kind}");
        let region = remote.system().spawn_with(&actor_name, props)?;
        if let Err(error) = remote.publish(&name, &region) {
            region.stop();
            return Err(error.into());
        }
        Ok(Entities::new(region, kind, shards, showing, counters))
    }
}
