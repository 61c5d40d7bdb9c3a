//! Least load: about the same number of messages for every region.

use crate::logic::allocation::{AllocationStrategy, Move, Placement, RoundLimit};
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Shards move from the region whose shards handle the most messages to the one whose handle the fewest,
/// while that is worth it. Regions measure their shards and smooth what they measure
/// ([`crate::logic::load`]).
///
/// What keeps shards from moving to and fro: nothing moves before the busiest region is well above the
/// idlest one, and then shards move until it is half as far; a shard moves only if the region that it leaves
/// stays the busier one of both, or nearly so, and a lone busy shard stays where it is; and a shard that has just moved
/// keeps its old measure until it was measured anew.
#[derive(Clone, Copy, Debug)]
pub struct LeastLoad {
    /// How much may move in one round.
    pub limit: RoundLimit,
    /// How far the busiest region may be above the idlest one before shards move, in percent of what a
    /// region carries on average. Default 20.
    pub spread_percent: u32,
    /// Below so many messages a second on the busiest region nothing moves. Default 100.
    pub busy_from: u32,
    /// How often regions measure. Default 2 s.
    pub measure_every: Duration,
}

impl Default for LeastLoad {
    fn default() -> Self {
        Self {
            limit: RoundLimit::default(),
            spread_percent: 20,
            busy_from: 100,
            measure_every: Duration::from_secs(2),
        }
    }
}

/// What an idle shard counts, in messages a second: so that idle shards are spread too.
const IDLE: u64 = 1;

fn weight(shard: u32, placement: &Placement) -> u64 {
    let load = placement.loads.get(&shard).copied().unwrap_or_default();
    u64::from(load) + IDLE
}

impl LeastLoad {
    /// Of `shards` the one whose move from a region that carries `high` to one that carries `low` brings
    /// them closest, if that leaves the first one the busier, or the second no more than `rest` above it:
    /// its place and weight.
    fn best(
        shards: &[u32],
        placement: &Placement,
        (high, low, rest): (u64, u64, u64),
    ) -> Option<(usize, u64)> {
        let distance = high - low;
        let weights = shards.iter().map(|shard| weight(*shard, placement));
        let weights = weights.enumerate();
        let fitting = weights.filter(|(_, weight)| 2 * weight <= distance + rest);
        fitting.min_by_key(|(_, weight)| distance.abs_diff(2 * weight))
    }
}

impl AllocationStrategy for LeastLoad {
    fn allocate(&self, _: u32, placement: &Placement) -> Option<NodeId> {
        let carries = |shards: &Vec<u32>| -> u64 {
            let weights = shards.iter().map(|shard| weight(*shard, placement));
            weights.sum()
        };
        let least = placement.hosting.iter();
        let least = least.min_by_key(|(_, shards)| (carries(shards), shards.len()));
        least.map(|(node, _)| node.clone())
    }

    fn rebalance(&self, placement: &Placement) -> Vec<Move> {
        let measured = |shard: &u32| placement.loads.contains_key(shard);
        if !placement.hosting.values().flatten().all(measured) {
            return Vec::new();
        }
        // What arrives in this round does not leave in it: only what was there can be taken.
        let mut left = placement.hosting.clone();
        let mut carried: BTreeMap<NodeId, u64> = BTreeMap::new();
        for (node, shards) in &left {
            let weights = shards.iter().map(|shard| weight(*shard, placement));
            carried.insert(node.clone(), weights.sum());
        }
        let average = carried.values().sum::<u64>() / (carried.len() as u64).max(1);
        let spread_max = average * u64::from(self.spread_percent) / 100;
        let rest = spread_max / 2;
        let mut moves = Vec::new();
        while moves.len() < self.limit.of(placement.shards()) {
            let most = carried.iter().rev().max_by_key(|(_, load)| **load);
            let least = carried.iter().min_by_key(|(_, load)| **load);
            let (Some((from, high)), Some((to, low))) = (most, least) else {
                break;
            };
            let (from, to, high, low) = (from.clone(), to.clone(), *high, *low);
            let enough = if moves.is_empty() { spread_max } else { rest };
            if high < u64::from(self.busy_from) || high - low <= enough {
                break;
            }
            let Some(shards) = left.get_mut(&from) else {
                break;
            };
            let Some((place, weight)) = Self::best(shards, placement, (high, low, rest)) else {
                break;
            };
            let shard = shards.remove(place);
            carried.insert(from, high - weight);
            carried.insert(to.clone(), low + weight);
            moves.push(Move { shard, to });
        }
        moves
    }

    fn measure_every(&self) -> Option<Duration> {
        Some(self.measure_every)
    }
}
