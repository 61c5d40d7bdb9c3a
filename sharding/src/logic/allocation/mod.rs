//! Allocation: which region gets a shard, and which shards move so that all carry about the same.
//!
//! | module | decides by |
//! | --- | --- |
//! | `least_shards` | how many shards a region has; the default |
//! | `least_load` | how many messages its shards handle |
//! | `rendezvous` | a hash of node and shard, so that a home depends on the members only |
//! | `external` | what somebody says at run time |
//!
//! A strategy is asked; whether now is a time to move anything is decided before that, in
//! [`crate::logic::reign`].

mod external;
mod least_load;
mod least_shards;
mod rendezvous;

pub use external::ExternalAllocation;
pub use least_load::LeastLoad;
pub use least_shards::LeastShards;
pub use rendezvous::ConsistentHashing;

use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which shards each region has or is about to get, the numbers ascending. Regions that may get
/// none are left out.
pub type Hosting = BTreeMap<NodeId, Vec<u32>>;

/// What a strategy decides by: where shards are, and what they carry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Placement {
    /// Where shards are.
    pub hosting: Hosting,
    /// Messages a second that a shard handles, smoothed, as its region measured it last. Empty unless
    /// the strategy asks for it ([`AllocationStrategy::measure_every`]); a shard is missing until it
    /// was measured for the first time.
    pub loads: BTreeMap<u32, u32>,
}

impl Placement {
    /// Shards at these places, of which no load is known.
    #[must_use]
    pub fn new(hosting: Hosting) -> Self {
        Self {
            hosting,
            loads: BTreeMap::new(),
        }
    }

    /// The same with these loads.
    #[must_use]
    pub fn with_loads(mut self, loads: BTreeMap<u32, u32>) -> Self {
        self.loads = loads;
        self
    }

    /// How many shards have or get a home.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.hosting.values().map(Vec::len).sum()
    }

    /// The region with the fewest shards.
    fn fewest_shards(&self) -> Option<NodeId> {
        let least = self.hosting.iter().min_by_key(|(_, shards)| shards.len());
        least.map(|(node, _)| node.clone())
    }
}

/// One planned move.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    /// What moves.
    pub shard: u32,
    /// Where it goes.
    pub to: NodeId,
}

/// Decides where shards live. The same input must give the same answer.
pub trait AllocationStrategy: Send + Sync + 'static {
    /// The region that gets `shard`, which nobody has or which has to leave; `None` leaves it where it
    /// is, without a home if nobody has it.
    fn allocate(&self, shard: u32, placement: &Placement) -> Option<NodeId>;

    /// The moves of the next round. Asked only when no shard is on its way, every member answers, none
    /// is joining and all run the same version of the program; and again when a round is done. Moves of
    /// unknown shards or to unknown regions are ignored.
    fn rebalance(&self, placement: &Placement) -> Vec<Move>;

    /// How often regions measure what their shards carry. `None`, which is what happens if this is not
    /// overridden: not at all. Other nodes have to be given the same strategy for it to be measured
    /// there.
    fn measure_every(&self) -> Option<Duration> {
        None
    }
}

/// How much may move in one round of a rebalance: the smaller of both, but always one shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoundLimit {
    /// Percent of all shards. Default 10.
    pub percent: u32,
    /// Shards. Default 1,000.
    pub shards: u32,
}

impl Default for RoundLimit {
    fn default() -> Self {
        Self {
            percent: 10,
            shards: 1_000,
        }
    }
}

impl RoundLimit {
    /// How many of `all` shards may move at once.
    #[must_use]
    pub fn of(self, all: usize) -> usize {
        let by_percent = all.saturating_mul(self.percent as usize) / 100;
        by_percent.min(self.shards as usize).max(1)
    }
}

#[cfg(test)]
mod tests;
