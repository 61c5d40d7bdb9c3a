//! Least shards: the same number of shards for every region.

use crate::logic::allocation::{AllocationStrategy, Move, Placement, RoundLimit};
use otava_remote::NodeId;
use std::collections::BTreeMap;

/// The default strategy: the region with the fewest shards gets the next one, and shards move until
/// no region has more than one above another, with as few moves as that takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastShards {
    /// How much may move in one round.
    pub limit: RoundLimit,
}

impl AllocationStrategy for LeastShards {
    fn allocate(&self, _: u32, placement: &Placement) -> Option<NodeId> {
        placement.fewest_shards()
    }

    fn rebalance(&self, placement: &Placement) -> Vec<Move> {
        let limit = self.limit.of(placement.shards());
        let mut left = placement.hosting.clone();
        // What arrives in this round does not leave in it: only what was there can be taken.
        let mut arriving: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut moves = Vec::new();
        while moves.len() < limit {
            let size = |node: &NodeId, shards: &Vec<u32>| {
                shards.len() + arriving.get(node).copied().unwrap_or(0)
            };
            let sizes = left.iter().map(|(node, shards)| (size(node, shards), node));
            let most = sizes.clone().rev().max_by_key(|(size, _)| *size);
            let least = sizes.min_by_key(|(size, _)| *size);
            let (Some((high, from)), Some((low, to))) = (most, least) else {
                break;
            };
            let (from, to) = (from.clone(), to.clone());
            if high <= low + 1 {
                break;
            }
            let Some(shard) = left.get_mut(&from).and_then(Vec::pop) else {
                break;
            };
            *arriving.entry(to.clone()).or_default() += 1;
            moves.push(Move { shard, to });
        }
        moves
    }
}
