//! Config: the settings of sharding, with their defaults and reasons.

use crate::logic::allocation::{AllocationStrategy, LeastShards};
use crate::logic::buffers::BufferLimits;
use crate::logic::coordinator::CoordinatorConfig;
use crate::logic::region::RegionConfig;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Settings of one entity kind. `shards` must be the same on all nodes, the rest should be.
#[derive(Clone)]
#[non_exhaustive]
pub struct ShardingConfig {
    /// How many shards there are: a power of two, at most 65,536. About ten times the number of
    /// nodes that the cluster will ever have. Default 128.
    pub shards: u32,
    /// Who gets which shard. Default [`LeastShards`].
    pub strategy: Arc<dyn AllocationStrategy>,
    /// Messages that may wait for the home of one shard; more become dead letters. Default 10,000.
    pub buffer_per_shard_max: usize,
    /// Messages that may wait in a region for homes of all shards, and for room on the way to one
    /// other node. Default 100,000.
    pub buffer_max: usize,
    /// Messages in the mailbox of a region. Default 65,536.
    pub mailbox_capacity: NonZeroUsize,
    /// How long a new coordinator waits for the regions of all members before it goes on without
    /// those that are silent. Default 5 s.
    pub gather_limit: Duration,
    /// How many shards of leaving members are on their way at once. Default 32.
    pub drain_shards_max: usize,
    /// How often the balance is looked at if nothing changes. Default 1 s.
    pub rebalance_interval: Duration,
    /// What is not confirmed is said again after this time. Default 500 ms.
    pub resend: Duration,
    /// Claims in the store that are under way at once, for each node. Default 64.
    pub claims_max: usize,
}

/// At most one table and one status of a node is sent in this time.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a coordinator that met a later term waits before it claims a new one.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(5);

impl Default for ShardingConfig {
    fn default() -> Self {
        Self {
            shards: 128,
            strategy: Arc::new(LeastShards::default()),
            buffer_per_shard_max: 10_000,
            buffer_max: 100_000,
            mailbox_capacity: NonZeroUsize::new(65_536).expect("it is not zero"),
            gather_limit: Duration::from_secs(5),
            drain_shards_max: 32,
            rebalance_interval: Duration::from_secs(1),
            resend: Duration::from_millis(500),
            claims_max: 64,
        }
    }
}

impl ShardingConfig {
    /// These settings with another number of shards.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// These settings with another strategy.
    #[must_use]
    pub fn strategy(mut self, strategy: impl AllocationStrategy) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    pub(crate) fn region(&self) -> RegionConfig {
        RegionConfig {
            shards: self.shards,
            buffers: BufferLimits {
                per_shard: self.buffer_per_shard_max,
                in_all: self.buffer_max,
            },
            resend: self.resend,
            status_pause: PAUSE,
            measure_every: self.strategy.measure_every(),
        }
    }

    pub(crate) fn coordinator(&self) -> CoordinatorConfig {
        CoordinatorConfig {
            shards: self.shards,
            strategy: self.strategy.clone(),
            gather_limit: self.gather_limit,
            drain_shards_max: self.drain_shards_max.max(1),
            rebalance_interval: self.rebalance_interval,
            resend: self.resend,
            table_pause: PAUSE,
            superseded_pause: SUPERSEDED_PAUSE,
        }
    }
}

impl fmt::Debug for ShardingConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardingConfig")
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}
