//! Rendezvous: homes by hash, so that they depend on nothing but who is a member.

use crate::logic::allocation::{AllocationStrategy, Move, Placement, RoundLimit};
use otava_remote::NodeId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Consistent hashing, by highest random weight: of all regions the one for which the hash of its node's
/// name and the shard is the highest has the shard. When a node comes or goes, only the shards that it
/// gets or had move; a node that starts again under its name gets what it had. The numbers of shards of
/// two regions differ as chance will have it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsistentHashing {
    /// How much may move in one round.
    pub limit: RoundLimit,
}

impl ConsistentHashing {
    fn home(shard: u32, placement: &Placement) -> Option<&NodeId> {
        let weight = |node: &&NodeId| xxh3_64_with_seed(node.name.as_bytes(), u64::from(shard));
        placement.hosting.keys().max_by_key(weight)
    }
}

impl AllocationStrategy for ConsistentHashing {
    fn allocate(&self, shard: u32, placement: &Placement) -> Option<NodeId> {
        Self::home(shard, placement).cloned()
    }

    fn rebalance(&self, placement: &Placement) -> Vec<Move> {
        let placed = placement
            .hosting
            .iter()
            .flat_map(|(node, shards)| shards.iter().map(move |shard| (*shard, node)));
        let astray = placed.filter_map(|(shard, at)| {
            let to = Self::home(shard, placement)?;
            let to = (to != at).then(|| to.clone())?;
            Some(Move { shard, to })
        });
        astray.take(self.limit.of(placement.shards())).collect()
    }
}
