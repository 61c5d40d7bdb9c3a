//! External: homes that somebody gives at run time.

use crate::logic::allocation::{AllocationStrategy, Move, Placement, RoundLimit};
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Shards live where they are told to, at run time: close to a device, or where an operator wants them.
/// A handle, cheap to clone: give one clone to the settings of the kind and keep another.
///
/// A shard that was given no node, or one that is no member at the moment, is placed where the fewest
/// shards are, and stays there until it is told otherwise.
///
/// What is told is kept in the handle, for as long as there is one, and nowhere else; the handle that
/// counts is that of the node which coordinates. So tell every node the same, or tell it again when
/// another node has become the coordinator ([`crate::Entities::coordinator`]).
///
/// ```
/// use otava_sharding::{ExternalAllocation, ShardingConfig};
///
/// let homes = ExternalAllocation::default();
/// let config = ShardingConfig::default().strategy(homes.clone());
/// homes.place(17, "node-2"); // moves within `rebalance_interval`
/// # let _ = config;
/// ```
#[derive(Clone, Debug, Default)]
pub struct ExternalAllocation {
    wanted: Arc<RwLock<BTreeMap<u32, Arc<str>>>>,
    limit: RoundLimit,
}

impl ExternalAllocation {
    /// Nothing is told yet; at most `limit` moves in one round.
    #[must_use]
    pub fn new(limit: RoundLimit) -> Self {
        Self {
            wanted: Arc::default(),
            limit,
        }
    }

    /// From now on `shard` lives on the node of this name, whenever that is a member.
    pub fn place(&self, shard: u32, node: &str) {
        let mut wanted = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
        wanted.insert(shard, node.into());
    }

    /// From now on `shard` may live anywhere. It stays where it is for now.
    pub fn release(&self, shard: u32) {
        let mut wanted = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
        wanted.remove(&shard);
    }

    /// What was told, by shard.
    #[must_use]
    pub fn placed(&self) -> BTreeMap<u32, Arc<str>> {
        let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
        wanted.clone()
    }
}

impl AllocationStrategy for ExternalAllocation {
    fn allocate(&self, shard: u32, placement: &Placement) -> Option<NodeId> {
        let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
        let by_name = |name: &Arc<str>| {
            let mut nodes = placement.hosting.keys();
            nodes.find(|node| *node.name == **name).cloned()
        };
        let told = wanted.get(&shard).and_then(by_name);
        told.or_else(|| placement.fewest_shards())
    }

    fn rebalance(&self, placement: &Placement) -> Vec<Move> {
        let wanted = self.placed();
        let nodes: BTreeMap<&str, &NodeId> = placement
            .hosting
            .keys()
            .map(|node| (&*node.name, node))
            .collect();
        let placed = placement
            .hosting
            .iter()
            .flat_map(|(node, shards)| shards.iter().map(move |shard| (*shard, node)));
        let astray = placed.filter_map(|(shard, at)| {
            let to = *nodes.get(&**wanted.get(&shard)?)?;
            let to = (to != at).then(|| to.clone())?;
            Some(Move { shard, to })
        });
        astray.take(self.limit.of(placement.shards())).collect()
    }
}
