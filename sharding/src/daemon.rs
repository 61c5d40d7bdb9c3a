//! Daemon: a fixed number of workers that are always there, spread over the members.
//!
//! Each worker is an entity in a shard of its own, so that what moves shards moves workers: there are as
//! many shards as workers, rounded up to a power of two, and those above carry nothing. A worker's id
//! is found by search, since the shard follows from the id: the first `worker-<n>` whose hash falls
//! into the shard. Both are the same on every node and in every version.
//!
//! [`SpreadWorkers`] counts only shards with a worker, because those without cost nothing: else a member
//! might have the empty ones and others the work.

use crate::config::ShardingConfig;
use crate::entities::Entities;
use crate::entity::EntityContext;
use crate::entity_ref::EntityRef;
use crate::error::StartError;
use crate::logic::allocation::{AllocationStrategy, LeastShards, Move, Placement};
use crate::logic::hash::{SHARDS_MAX, shard_of};
use crate::logic::passivation::Passivation;
use crate::remember::Remember;
use crate::start::Sharding;
use crate::store::AllocationStore;
use otava_actor::{Actor, Props};
use otava_cluster::Cluster;
use otava_remote::{NodeId, RemoteMessage};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which worker is to be made, and what it is as an entity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerContext {
    /// Its number, from 0 on.
    pub index: u32,
    /// How many workers there are.
    pub workers: u32,
    /// The allocation that it works by: a term that only grows from instance to instance of this worker on
    /// other nodes, and is refused by a store that has seen a later one.
    pub entity: EntityContext,
}

/// A fixed number of workers that are always there, spread over the members: each runs once, is started
/// again when it fails or stops, and goes elsewhere when members come and go. A handle, cheap to clone.
///
/// # Examples
/// ```no_run
/// # use otava_actor::{Actor, Context, Props};
/// # use otava_remote::RemoteMessage;
/// use otava_sharding::{AllocationStore, DaemonProcess, ShardingConfig, WorkerContext};
/// # use serde::{Deserialize, Serialize};
/// # use std::sync::Arc;
/// # #[derive(Deserialize, Serialize)]
/// # enum Tick {}
/// # impl RemoteMessage for Tick { const NAME: &'static str = "mail.Tick"; }
/// # struct Sender { part: u32 }
/// # impl Actor for Sender {
/// #     type Msg = Tick;
/// #     type Err = std::convert::Infallible;
/// #     async fn handle(&mut self, _: Tick, _: &mut Context<Self>) -> Result<(), Self::Err> {
/// #         Ok(())
/// #     }
/// # }
/// # fn f(cluster: otava_cluster::Cluster, store: Arc<dyn AllocationStore>)
/// #     -> Result<(), Box<dyn std::error::Error>> {
/// // Sixteen workers, each with its sixteenth of the outgoing mail.
/// let make = |worker: WorkerContext| Props::once(Sender { part: worker.index });
/// let config = ShardingConfig::default();
/// let senders = DaemonProcess::start(&cluster, "mail", store, 16, config, make)?;
/// # let _ = senders;
/// # Ok(())
/// # }
/// ```
pub struct DaemonProcess<M> {
    entities: Entities<M>,
    ids: Arc<[Arc<str>]>,
}

impl<M: RemoteMessage> DaemonProcess<M> {
    /// Starts `workers` workers under `name`. Every node of the cluster starts it, with the same `name`
    /// and number, right after the node was started; those without the roles in `config` have none of
    /// them. Of `config` the number of shards, the strategy, what is remembered and passivation are
    /// set here.
    ///
    /// # Errors
    /// [`StartError`]; [`StartError::BadWorkers`] for none, or more than 65,536.
    pub fn start<A: Actor<Msg = M>>(
        cluster: &Cluster,
        name: &str,
        store: Arc<dyn AllocationStore>,
        workers: u32,
        config: ShardingConfig,
        factory: impl Fn(WorkerContext) -> Props<A> + Send + 'static,
    ) -> Result<Self, StartError> {
        let ids = worker_ids(workers).ok_or(StartError::BadWorkers(workers))?;
        let index: BTreeMap<Arc<str>, u32> = ids.iter().cloned().zip(0..).collect();
        let mut config = config.shards(workers.next_power_of_two());
        config.strategy = Arc::new(SpreadWorkers { workers });
        config.remember = Remember::Fixed(ids.clone());
        config.passivation = Passivation::never();
        config.only_fixed = true;
        let make = move |entity: EntityContext| {
            let index = *index.get(&entity.id).expect("only workers are started");
            factory(WorkerContext {
                index,
                workers,
                entity,
            })
        };
        let entities = Sharding::start(cluster, name, store, config, make)?;
        cluster.share_setting(format!("workers of {name}"), workers.to_string());
        Ok(Self { entities, ids })
    }

    /// The worker of this number, wherever it is; `None` if there are not so many.
    #[must_use]
    pub fn worker(&self, index: u32) -> Option<EntityRef<M>> {
        let id = self.ids.get(index as usize)?;
        Some(self.entities.entity(id))
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }

    /// Where each worker is, as this node knows; `None` for one that is on its way.
    #[must_use]
    pub fn homes(&self) -> Vec<Option<NodeId>> {
        let mut homes = self.entities.homes();
        let homes = (0..self.workers()).map(|shard| homes.remove(&shard).flatten());
        homes.collect()
    }

    /// The workers as entities, for statistics and for handing over when the node leaves.
    #[must_use]
    pub fn entities(&self) -> &Entities<M> {
        &self.entities
    }

    /// Lets the workers of this node go elsewhere, as [`Entities::hand_over`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The hand-over goes on if this is dropped.
    pub async fn hand_over(&self, limit: Duration) -> Result<(), crate::HandOverError> {
        self.entities.hand_over(limit).await
    }
}

impl<M> Clone for DaemonProcess<M> {
    fn clone(&self) -> Self {
        Self {
            entities: self.entities.clone(),
            ids: self.ids.clone(),
        }
    }
}

impl<M> fmt::Debug for DaemonProcess<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonProcess")
            .field("entities", &self.entities)
            .field("workers", &self.ids.len())
            .finish()
    }
}

/// The id of each worker, in the order of their shards, which are their numbers; `None` for a number of
/// workers that cannot be.
fn worker_ids(workers: u32) -> Option<Arc<[Arc<str>]>> {
    if workers == 0 || workers > SHARDS_MAX {
        return None;
    }
    let shards = workers.next_power_of_two();
    let mut ids: Vec<Option<Arc<str>>> = vec![None; workers as usize];
    let mut missing = workers;
    for n in 0_u64.. {
        if missing == 0 {
            break;
        }
        let id = format!("worker-{n}");
        let place = ids.get_mut(shard_of(&id, shards) as usize);
        if let Some(place) = place.filter(|place| place.is_none()) {
            *place = Some(id.into());
            missing -= 1;
        }
    }
    Some(ids.into_iter().flatten().collect())
}

/// The same number of workers for every member; shards without a worker go along anywhere.
struct SpreadWorkers {
    workers: u32,
}

impl SpreadWorkers {
    /// The placement of the shards that have a worker.
    fn at_work(&self, placement: &Placement) -> Placement {
        let mut hosting = placement.hosting.clone();
        for shards in hosting.values_mut() {
            shards.retain(|shard| *shard < self.workers);
        }
        Placement::new(hosting)
    }
}

impl AllocationStrategy for SpreadWorkers {
    fn allocate(&self, shard: u32, placement: &Placement) -> Option<NodeId> {
        let at_work = self.at_work(placement);
        if shard < self.workers {
            return LeastShards::default().allocate(shard, &at_work);
        }
        LeastShards::default().allocate(shard, placement)
    }

    fn rebalance(&self, placement: &Placement) -> Vec<Move> {
        LeastShards::default().rebalance(&self.at_work(placement))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn each_worker_has_a_shard_of_its_own() {
        for workers in [1, 2, 3, 5, 64, 1_000, 65_536] {
            let ids = worker_ids(workers).unwrap();
            for (id, shard) in ids.iter().zip(0..) {
                assert_eq!(shard_of(id, workers.next_power_of_two()), shard);
            }
            assert_eq!(ids.len(), workers as usize);
        }
        assert_eq!((worker_ids(0), worker_ids(65_537)), (None, None));
    }

    /// A contract: a node of another version must find the same workers.
    #[test]
    fn the_ids_of_workers_are_written_down() {
        let ids = worker_ids(5).unwrap();
        let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
        assert_eq!(
            ids,
            [
                "worker-10",
                "worker-0",
                "worker-28",
                "worker-2",
                "worker-17"
            ]
        );
    }

    #[test]
    fn only_shards_with_a_worker_count() {
        let node = |n: u16| NodeId::new(format!("n{n}"), SocketAddr::from(([127, 0, 0, 1], n)), 1);
        let strategy = SpreadWorkers { workers: 5 };
        let hosting = [
            (node(1), vec![0, 3, 6]),
            (node(2), vec![1, 4, 7]),
            (node(3), vec![2, 5]),
            (node(4), vec![]),
        ];
        let placement = Placement::new(hosting.into());
        let moves = strategy.rebalance(&placement);
        assert_eq!(moves.len(), 1);
        assert!(moves[0].shard < 5 && moves[0].to == node(4), "{moves:?}");
        assert_eq!(strategy.allocate(4, &placement), Some(node(4)));
    }
}
