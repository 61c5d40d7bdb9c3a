//! Config: the settings of a node's membership, with their defaults and reasons.

use crate::logic::downing::Strategy;
use crate::logic::membership::MembershipConfig;
use crate::logic::phi::PhiConfig;
use crate::logic::profile::{AppVersion, Profile};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long after its removal a member that left is still talked to.
const FAREWELL: Duration = Duration::from_secs(3);

/// What carries the statements of the members to all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Dissemination {
    /// The chitchat library, over the connections of the remote layer. About 200 members at most:
    /// what a member publishes must stay below 32 KiB there.
    Chitchat,
    /// Push and pull of our own, all its randomness from this seed: a simulation replays with it.
    Seeded(u64),
}

/// Settings of the membership of one node. The defaults suit clusters of up to some 50 nodes in one
/// network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The addresses that are asked to be let in; the same list in the same order on all nodes.
    /// The node whose address is the first forms the cluster if none lives, which it cannot know if
    /// all other seeds are gone: restart it only while another seed is a member, or the whole
    /// cluster with it. Without any, or with only its own, a node forms a cluster at once. Default:
    /// none.
    pub seeds: Vec<SocketAddr>,
    /// What this node is for: words that others choose members by. 32 at most, each of 1 to 64 ASCII
    /// letters, digits, `.`, `-` or `_`. Default: none.
    pub roles: BTreeSet<String>,
    /// The version of the program, so that others can see a rolling update. Default: `0.0.0`.
    pub app_version: AppVersion,
    /// What must be the same on all nodes, by name, besides the strategy; a node that differs is
    /// refused with the difference. Default: nothing.
    pub settings: BTreeMap<String, String>,
    /// Who goes on after a split. The same on all nodes. Default: the larger side.
    pub downing: Strategy,
    /// How long the picture of who is reachable must hold still before members are put down.
    /// Default: by the number of members, 3 s up to 5, 5 s at 10, 8 s at 20, 12 s at 50, 15 s at 100.
    /// Shorter than it takes to find a node unreachable (some 4 s) risks decisions on half a
    /// picture in clusters that are larger than `neighbours`.
    pub stable_after: Option<Duration>,
    /// What carries statements to all. Default: chitchat.
    pub dissemination: Dissemination,
    /// Between two rounds of gossip up to 20 nodes, 50 ms to 10 s; with more nodes it grows in
    /// proportion. Default 200 ms: news reaches 20 nodes in about a second.
    pub gossip_interval: Duration,
    /// Between two heartbeats to the same node, 50 ms to 10 s. Default 500 ms: with the pause below
    /// a node that died is found in about 4 s.
    pub heartbeat_interval: Duration,
    /// How many nodes each node watches, 1 to 100. Default 5: all of a small cluster, and each node
    /// of a large one by five others.
    pub neighbours: usize,
    /// The suspicion above which a node counts as unreachable, 1 to 16 digits of confidence.
    /// Default 8.
    pub phi_threshold: f64,
    /// How long a node may be silent without having failed: a busy machine, a paused virtual one.
    /// Default 3 s.
    pub acceptable_pause: Duration,
    /// Between two attempts to be let in. Default 500 ms.
    pub join_retry: Duration,
    /// How long the first seed asks the others before it forms a cluster. Longer than a restart of
    /// the network between them may take is safe, shorter starts faster. Default 2 s.
    pub form_after: Duration,
    /// How long [`crate::Cluster::join`] waits. Default 30 s.
    pub join_within: Duration,
    /// How long [`crate::Cluster::finish_leave`] waits. Default 10 s.
    pub leave_within: Duration,
    /// For how long the tombstones of removed members are published. Default 60 s.
    pub tombstone_after: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            roles: BTreeSet::new(),
            app_version: AppVersion::default(),
            settings: BTreeMap::new(),
            downing: Strategy::KeepMajority,
            stable_after: None,
            dissemination: Dissemination::Chitchat,
            gossip_interval: Duration::from_millis(200),
            heartbeat_interval: Duration::from_millis(500),
            neighbours: 5,
            phi_threshold: 8.0,
            acceptable_pause: Duration::from_secs(3),
            join_retry: Duration::from_millis(500),
            form_after: Duration::from_secs(2),
            join_within: Duration::from_secs(30),
            leave_within: Duration::from_secs(10),
            tombstone_after: Duration::from_secs(60),
        }
    }
}

/// Why a membership did not start.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used.
    #[error("the cluster setting `{setting}` is out of range: it must be {range}")]
    BadSetting {
        /// Its name.
        setting: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

impl ClusterConfig {
    /// The seeds.
    #[must_use]
    pub fn with_seeds(mut self, seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.seeds = seeds.into_iter().collect();
        self
    }

    /// One more role of this node.
    #[must_use]
    pub fn with_role(mut self, role: impl Into<String>) -> Self {
        self.roles.insert(role.into());
        self
    }

    /// The roles of this node, in place of those it has.
    #[must_use]
    pub fn with_roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// The version of the program that this node runs.
    #[must_use]
    pub fn with_app_version(mut self, version: AppVersion) -> Self {
        self.app_version = version;
        self
    }

    /// A setting that must be the same on all nodes.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// What carries statements to all.
    #[must_use]
    pub fn with_dissemination(mut self, dissemination: Dissemination) -> Self {
        self.dissemination = dissemination;
        self
    }

    /// Who goes on after a split.
    #[must_use]
    pub fn with_downing(mut self, strategy: Strategy) -> Self {
        self.downing = strategy;
        self
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let millis = |low, high| Duration::from_millis(low)..=Duration::from_millis(high);
        let checks = [
            (
                "heartbeat_interval",
                "50 ms to 10 s",
                millis(50, 10_000).contains(&self.heartbeat_interval),
            ),
            (
                "gossip_interval",
                "50 ms to 10 s",
                millis(50, 10_000).contains(&self.gossip_interval),
            ),
            (
                "join_retry",
                "50 ms to 60 s",
                millis(50, 60_000).contains(&self.join_retry),
            ),
            (
                "neighbours",
                "1 to 100",
                (1..=100).contains(&self.neighbours),
            ),
            (
                "phi_threshold",
                "1 to 16",
                (1.0..=16.0).contains(&self.phi_threshold),
            ),
            (
                "roles",
                "32 at most, each of 1 to 64 ASCII letters, digits, `.`, `-` or `_`",
                self.profile().is_sound(),
            ),
            (
                "downing",
                "a quorum of 1 or more",
                self.downing != Strategy::StaticQuorum(0),
            ),
        ];
        match checks.into_iter().find(|(_, _, good)| !good) {
            Some((setting, range, _)) => Err(StartError::BadSetting { setting, range }),
            None => Ok(()),
        }
    }

    fn profile(&self) -> Profile {
        Profile {
            roles: self.roles.clone(),
            app_version: self.app_version.clone(),
        }
    }

    /// The settings of the pure part, for a node that was `started` then.
    pub(crate) fn membership(&self, started: u64) -> MembershipConfig {
        let mut settings = self.settings.clone();
        settings.insert("downing".into(), self.downing.to_string());
        MembershipConfig {
            seeds: self.seeds.clone(),
            started,
            settings,
            profile: self.profile().shared(),
            join_retry: self.join_retry,
            form_after: self.form_after,
            heartbeat_interval: self.heartbeat_interval,
            phi: PhiConfig {
                threshold: self.phi_threshold,
                acceptable_pause: self.acceptable_pause,
                first_interval: self.heartbeat_interval,
                deviation_min: self.heartbeat_interval / 5,
                history_max: 200,
            },
            neighbours: self.neighbours,
            strategy: self.downing,
            stable_after: self.stable_after,
            tombstone_after: self.tombstone_after,
            farewell: FAREWELL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_others_are_named() {
        assert_eq!(ClusterConfig::default().check(), Ok(()));
        let bad = ClusterConfig {
            phi_threshold: f64::NAN,
            ..ClusterConfig::default()
        };
        let error = bad.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the cluster setting `phi_threshold` is out of range: it must be 1 to 16"
        );
        let bad = ClusterConfig::default().with_downing(Strategy::StaticQuorum(0));
        assert!(matches!(
            bad.check(),
            Err(StartError::BadSetting {
                setting: "downing",
                ..
            })
        ));
    }
}
