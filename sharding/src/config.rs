//! Config: the settings of sharding, with their defaults and reasons.

use crate::logic::allocation::{AllocationStrategy, LeastShards};
use crate::logic::buffers::BufferLimits;
use crate::logic::coordinator::CoordinatorConfig;
use crate::logic::lives::LivesConfig;
use crate::logic::passivation::Passivation;
use crate::logic::region::RegionConfig;
use crate::logic::remembering::Retry;
use crate::remember::Remember;
use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Settings of one entity kind. `shards` must be the same on all nodes, the rest should be.
#[derive(Clone)]
#[non_exhaustive]
pub struct ShardingConfig {
    /// With how many shards the kind begins: a power of two, at most 65,536. About ten times the number
    /// of nodes that the cluster will ever have. What [`crate::Entities::resize`] has set counts from
    /// then on. Default 128.
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
    /// Only members that have all of these roles host entities; others reach them. The same on all
    /// nodes. Default none: every member hosts.
    pub roles: BTreeSet<String>,
    /// When entities are stopped that are well. Default: when they were idle for two minutes.
    pub passivation: Passivation,
    /// Which entities live without messages. Default none.
    pub remember: Remember,
    /// How many remembered entities a node starts at once, every 10 ms. Default 64.
    pub remembered_starts_max: usize,
    /// How long the store of remembered entities has to answer before it is asked again. Default 5 s.
    pub remember_within: Duration,
    /// How long the entities of a shard that leaves a node have to handle what they have and end. Who
    /// is not done by then is told to stop after the message in work, the first few are named in the log,
    /// and the shard goes on without them: what is in their mailboxes becomes dead letters when they end.
    /// Until then such an entity may run beside its next instance on another node, and the later epoch
    /// has its writes refused; on this node the next instance is not started before. So it should be
    /// longer than the longest message takes. Default 60 s.
    pub stop_within: Duration,
    /// How long an entity that failed waits for its next instance; each further failure doubles it.
    /// Messages wait meanwhile, as many as [`Self::buffer_per_shard_max`] for one entity and
    /// [`Self::buffer_max`] in all. Default 200 ms.
    pub restart_min: Duration,
    /// The longest such wait. An instance that ran for this long begins a new series. Default 10 s.
    pub restart_max: Duration,
    /// By how much longer such a wait may be at random, in percent of itself. Default 20.
    pub restart_jitter_percent: u32,
    /// Nobody is started but those of [`Remember::Fixed`].
    pub(crate) only_fixed: bool,
}

/// At most one table and one status of a node is sent in this time.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two groups of remembered entities that start.
const STARTS_PAUSE: Duration = Duration::from_millis(10);
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
            roles: BTreeSet::new(),
            passivation: Passivation::default(),
            remember: Remember::Nothing,
            remembered_starts_max: 64,
            remember_within: Duration::from_secs(5),
            stop_within: Duration::from_secs(60),
            restart_min: Duration::from_millis(200),
            restart_max: Duration::from_secs(10),
            restart_jitter_percent: 20,
            only_fixed: false,
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

    /// These settings with entities on members only that have all of these roles.
    #[must_use]
    pub fn roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// These settings with another rule for entities that are idle or too many.
    #[must_use]
    pub fn passivation(mut self, passivation: Passivation) -> Self {
        self.passivation = passivation;
        self
    }

    /// These settings with other entities that live without messages.
    #[must_use]
    pub fn remember(mut self, remember: Remember) -> Self {
        self.remember = remember;
        self
    }

    pub(crate) fn lives(&self) -> LivesConfig {
        LivesConfig {
            waiting_max: self.buffer_per_shard_max,
            waiting_in_all_max: self.buffer_max,
            restart_min: self.restart_min.max(Duration::from_millis(1)),
            restart_max: self.restart_max.max(self.restart_min),
            restart_jitter_percent: self.restart_jitter_percent,
            starts_max: self.remembered_starts_max,
            starts_pause: STARTS_PAUSE,
            passivation: self.passivation,
        }
    }

    /// How to ask the store of remembered entities again.
    pub(crate) fn retry(&self) -> Retry {
        Retry {
            min: self.restart_min.max(Duration::from_millis(1)),
            max: self.restart_max.max(self.restart_min),
        }
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
            .field("roles", &self.roles)
            .field("passivation", &self.passivation)
            .field("remember", &self.remember)
            .finish_non_exhaustive()
    }
}
