//! ReplicatorConfig: the settings of a replicator.

use super::durable::DurableStore;
use crate::logic::replicated::machine::MachineConfig;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a [`super::Replicator`]. All nodes should have the same ones.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReplicatorConfig {
    /// How long writes that nobody waits for are gathered before they are sent. Default 200 ms.
    pub delta_interval: Duration,
    /// Where durable entries are kept, and which: see [`ReplicatorConfig::with_durable`]. Default: none.
    pub durable: Option<(Arc<dyn DurableStore>, Vec<String>)>,
    /// The same as [`ReplicatorConfig::mark_ttl`], for durable entries. A node that comes back with them after
    /// longer than that brings counts back that were already taken over. Default 10 days.
    pub durable_mark_ttl: Duration,
    /// How many entries there may be, deleted ones included. More are refused. Default 100,000.
    pub entries_max: usize,
    /// How often a random peer is compared with, which heals all that messages have missed. Default 2 s.
    pub gossip_interval: Duration,
    /// For how long it is remembered whose writes those of a node that is gone have become: longer than any
    /// message is under way. Default 6 h.
    pub mark_ttl: Duration,
    /// How large messages may be, but for single values that are larger. Default 256 KiB.
    pub message_bytes_max: usize,
    /// How often a subscriber is told of changes at most. Default 100 ms.
    pub notify_interval: Duration,
    /// For how long a node must be gone before its writes become those of another. Default 5 min.
    pub pruning_after: Duration,
    /// How often that is looked at. Default 30 s.
    pub pruning_interval: Duration,
    /// After what time without an answer a message is sent again. Default 500 ms.
    pub resend: Duration,
    /// About how large a value may be. It must fit into one frame of the remote layer, whose limit is 1 MiB
    /// by default. Default 512 KiB.
    pub value_bytes_max: usize,
    /// For simulations that replay: microseconds since 1970. Default: the system's clock.
    pub wall_clock: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
}

impl Default for ReplicatorConfig {
    fn default() -> Self {
        Self {
            delta_interval: Duration::from_millis(200),
            durable: None,
            durable_mark_ttl: Duration::from_secs(10 * 24 * 3_600),
            entries_max: 100_000,
            gossip_interval: Duration::from_secs(2),
            mark_ttl: Duration::from_secs(6 * 3_600),
            message_bytes_max: 256 << 10,
            notify_interval: Duration::from_millis(100),
            pruning_after: Duration::from_secs(300),
            pruning_interval: Duration::from_secs(30),
            resend: Duration::from_millis(500),
            value_bytes_max: 512 << 10,
            wall_clock: None,
        }
    }
}

impl ReplicatorConfig {
    /// Keeps the entries of these keys in `store`: whole keys, or beginnings that end with `*`. A write of
    /// one is done when it is stored on the nodes of its level, this one included.
    #[must_use]
    pub fn with_durable<K: Into<String>>(
        mut self,
        store: Arc<dyn DurableStore>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        self.durable = Some((store, keys.into_iter().map(Into::into).collect()));
        self
    }

    /// Sets [`ReplicatorConfig::gossip_interval`].
    #[must_use]
    pub fn with_gossip_interval(mut self, interval: Duration) -> Self {
        self.gossip_interval = interval;
        self
    }

    /// Sets for how long a node must be gone before its writes become those of another, and how often that
    /// is looked at.
    #[must_use]
    pub fn with_pruning(mut self, after: Duration, interval: Duration) -> Self {
        self.pruning_after = after;
        self.pruning_interval = interval;
        self
    }

    /// Sets [`ReplicatorConfig::wall_clock`].
    #[must_use]
    pub fn with_wall_clock(mut self, clock: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        self.wall_clock = Some(clock);
        self
    }

    pub(super) fn machine(&self) -> MachineConfig {
        // Without a pause the timers would leave no time for anything else.
        let pause = |interval: Duration| interval.max(Duration::from_millis(1));
        let durable = self.durable.as_ref();
        MachineConfig {
            delta_interval: pause(self.delta_interval),
            durable: durable.map_or_else(Vec::new, |(_, keys)| keys.clone()),
            durable_mark_ttl: self.durable_mark_ttl,
            entries_max: self.entries_max,
            gossip_interval: pause(self.gossip_interval),
            mark_ttl: self.mark_ttl,
            message_bytes_max: self.message_bytes_max.max(4 << 10),
            notify_interval: pause(self.notify_interval),
            pruning_after: self.pruning_after,
            pruning_interval: pause(self.pruning_interval),
            resend: pause(self.resend),
            value_bytes_max: self.value_bytes_max,
        }
    }
}

impl fmt::Debug for ReplicatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durable = self.durable.as_ref().map(|(_, keys)| keys);
        f.debug_struct("ReplicatorConfig")
            .field("durable", &durable)
            .field("gossip_interval", &self.gossip_interval)
            .field("value_bytes_max", &self.value_bytes_max)
            .finish_non_exhaustive()
    }
}
