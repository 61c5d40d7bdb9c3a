//! Config: the settings of a node's membership, with their defaults and reasons.

use crate::discovery::Discovery;
use crate::lease::Lease;
use crate::logic::convergence::Minimum;
use crate::logic::downing::{Rule, Strategy};
use crate::logic::knocking::{CONTACTS_MAX, Founder};
use crate::logic::membership::MembershipConfig;
use crate::logic::phi::PhiConfig;
use crate::logic::profile::{AppVersion, Profile};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
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
/// network. `docs/pekko-defaults.md` compares them with those of Pekko.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The addresses that are asked to be let in; the same list in the same order on all nodes. The
    /// node whose address is the first forms the cluster if none lives. Started again, it joins the
    /// cluster that lives: the leader calls all seeds that are no members. Only if it is cut off from
    /// all members at that moment it forms a second cluster. Without any seed a node forms a cluster at
    /// once. Default: none.
    pub seeds: Vec<SocketAddr>,
    /// Where the addresses of nodes are found, in place of seeds: the lowest one forms the cluster
    /// when all that are found have said that they are in none. Default: nowhere.
    pub discovery: Option<Arc<dyn Discovery>>,
    /// How many addresses must be found before a cluster is formed, this node's own included. The
    /// more, the less a discovery that forgets some can lead to two clusters. Default 2.
    pub contacts_min: usize,
    /// For how long the same addresses must be found before a cluster is formed. Default 5 s.
    pub contacts_stable_for: Duration,
    /// Between two looks at the discovery, until the node is in. Default 1 s.
    pub lookup_interval: Duration,
    /// Do not ask to be let in before [`crate::Cluster::join`] is called, so that settings can be added
    /// before ([`crate::Cluster::share_setting`]). Default: ask at once.
    pub join_when_told: bool,
    /// What this node is for: words that others choose members by. 32 at most, each of 1 to 64 ASCII
    /// letters, digits, `.`, `-` or `_`. Default: none.
    pub roles: BTreeSet<String>,
    /// Hold the roles that others claim against their certificates: a node that asks to be let in is
    /// refused if its certificate lacks one ([`Refusal::SettingDiffers`](crate::Refusal), of
    /// `roles_in_certificates`), and a member that is connected to this node and claims one that its
    /// certificate lacks is put down. Set it on all nodes: each guards its own door. Default: off.
    pub roles_in_certificates: bool,
    /// The version of the program, so that others can see a rolling update. Default: `0.0.0`.
    pub app_version: AppVersion,
    /// What must be the same on all nodes, by name, besides the strategy; a node that differs is
    /// refused with the difference. Default: nothing.
    pub settings: BTreeMap<String, String>,
    /// How many members there must be before any becomes up. The same on all nodes. Default 1.
    pub members_min: usize,
    /// As `members_min`, for members of a role. The same on all nodes. Default: none.
    pub members_min_of_role: BTreeMap<String, usize>,
    /// How long somebody must be unreachable before joining members become weakly up. Default 7 s;
    /// `None` for never.
    pub weakly_up_after: Option<Duration>,
    /// Who goes on after a split. The same on all nodes. Default: the larger side.
    pub downing: Strategy,
    /// Only members of this role count for [`ClusterConfig::downing`]; the others go with their side.
    /// The same on all nodes. Default: all count.
    pub downing_role: Option<String>,
    /// For [`Strategy::KeepOldest`]: whether an oldest member that is alone on its side stops itself
    /// if there are two or more others. The same on all nodes. Default true: one crash does not end
    /// the cluster then.
    pub down_if_alone: bool,
    /// Whether all members stop if who is reachable goes on changing, to and fro: after twice `stable_after`
    /// and 4 s. Without it members may act on what others do not see, for as long as it lasts. Default
    /// true.
    pub down_all_when_unstable: bool,
    /// For [`Strategy::LeaseMajority`]: where the lease is. Default: none.
    pub lease: Option<Arc<dyn Lease>>,
    /// For how long the side that goes on takes the lease: longer than the two sides of a split may
    /// differ in the time of their decision. Default 40 s.
    pub lease_for: Duration,
    /// How long the smaller side of a split waits before it asks for the lease. Default 2 s.
    pub lease_delay: Duration,
    /// How long the picture of who is reachable must hold still before members are put down. Not
    /// compared at the door, so that it can be changed node by node. Default: by the number of members, 3 s up to 5, 5 s at 10, 8 s at 20, 12 s at 50,
    /// 15 s at 100. Shorter than it takes to find a node unreachable (some 3 s) risks decisions on
    /// half a picture in clusters that are larger than `neighbours`.
    pub stable_after: Option<Duration>,
    /// What carries statements to all. Default: chitchat.
    pub dissemination: Dissemination,
    /// Between two rounds of gossip up to 16 nodes, 50 ms to 10 s; with more nodes it grows in
    /// proportion, that of chitchat twice as fast. Default 200 ms: news reaches 20 nodes in about a second.
    pub gossip_interval: Duration,
    /// Between two heartbeats to the same node, 50 ms to 10 s. Default 250 ms: the rarer, the wider
    /// the gap between the longest pause that is forgiven and the time in which a death is found.
    pub heartbeat_interval: Duration,
    /// How many nodes each node watches, 1 to 100. Default 5: all of a small cluster, and each node
    /// of a large one by five others.
    pub neighbours: usize,
    /// The suspicion above which a node counts as unreachable, 1 to 16 digits of confidence.
    /// Default 8.
    pub phi_threshold: f64,
    /// How long a node may be silent, beyond the usual time between its answers and their deviation,
    /// without having failed: a busy machine, a paused virtual one. Default 2,100 ms: with the
    /// heartbeats above, a node that is cut off for 2 s is forgiven and one that died is found
    /// within 3 s. `scripts/recovery.sh` measures both on one machine.
    pub acceptable_pause: Duration,
    /// Between two attempts to be let in. Default 500 ms.
    pub join_retry: Duration,
    /// How long the first seed asks the others, and waits whether a cluster calls it, before it forms
    /// one. Longer than a restart of the network between them may take is safe, shorter starts faster;
    /// leaders call each second. Default 2 s.
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
            discovery: None,
            contacts_min: 2,
            contacts_stable_for: Duration::from_secs(5),
            lookup_interval: Duration::from_secs(1),
            join_when_told: false,
            roles: BTreeSet::new(),
            roles_in_certificates: false,
            app_version: AppVersion::default(),
            settings: BTreeMap::new(),
            members_min: 1,
            members_min_of_role: BTreeMap::new(),
            weakly_up_after: Some(Duration::from_secs(7)),
            downing: Strategy::KeepMajority,
            downing_role: None,
            down_if_alone: true,
            down_all_when_unstable: true,
            lease: None,
            lease_for: Duration::from_secs(40),
            lease_delay: Duration::from_secs(2),
            stable_after: None,
            dissemination: Dissemination::Chitchat,
            gossip_interval: Duration::from_millis(200),
            heartbeat_interval: Duration::from_millis(250),
            neighbours: 5,
            phi_threshold: 8.0,
            acceptable_pause: Duration::from_millis(2_100),
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

/// A setting, what it may be, and whether it is.
type Check = (&'static str, &'static str, bool);

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

    /// Roles that others claim must stand in their certificates.
    #[must_use]
    pub fn with_roles_in_certificates(mut self) -> Self {
        self.roles_in_certificates = true;
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

    /// Only members of this role count when it is decided who goes on after a split.
    #[must_use]
    pub fn with_downing_role(mut self, role: impl Into<String>) -> Self {
        self.downing_role = Some(role.into());
        self
    }

    /// After a split the side goes on that gets this lease ([`Strategy::LeaseMajority`]).
    #[must_use]
    pub fn with_lease(mut self, lease: Arc<dyn Lease>) -> Self {
        self.downing = Strategy::LeaseMajority;
        self.lease = Some(lease);
        self
    }

    /// Where the addresses of nodes are found, in place of seeds.
    #[must_use]
    pub fn with_discovery(mut self, discovery: Arc<dyn Discovery>) -> Self {
        self.discovery = Some(discovery);
        self
    }

    /// How many members there must be before any becomes up.
    #[must_use]
    pub fn with_members_min(mut self, members: usize) -> Self {
        self.members_min = members;
        self
    }

    /// How many members of a role there must be before any becomes up.
    #[must_use]
    pub fn with_members_min_of_role(mut self, role: impl Into<String>, members: usize) -> Self {
        self.members_min_of_role.insert(role.into(), members);
        self
    }

    /// Do not ask to be let in before [`crate::Cluster::join`] is called.
    #[must_use]
    pub fn with_join_when_told(mut self) -> Self {
        self.join_when_told = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        match self.times().chain(self.others()).find(|(_, _, good)| !good) {
            Some((setting, range, _)) => Err(StartError::BadSetting { setting, range }),
            None => Ok(()),
        }
    }

    fn times(&self) -> impl Iterator<Item = Check> {
        let within = |time: Duration, low, high| {
            (Duration::from_millis(low)..=Duration::from_millis(high)).contains(&time)
        };
        let (fast, slow) = ("50 ms to 10 s", "50 ms to 60 s");
        let checks = [
            (
                "heartbeat_interval",
                fast,
                within(self.heartbeat_interval, 50, 10_000),
            ),
            (
                "gossip_interval",
                fast,
                within(self.gossip_interval, 50, 10_000),
            ),
            ("join_retry", slow, within(self.join_retry, 50, 60_000)),
            (
                "lookup_interval",
                slow,
                within(self.lookup_interval, 50, 60_000),
            ),
            (
                "lease_for",
                "10 s to an hour",
                within(self.lease_for, 10_000, 3_600_000),
            ),
            (
                "lease_delay",
                "up to 60 s",
                within(self.lease_delay, 0, 60_000),
            ),
        ];
        checks.into_iter()
    }

    fn others(&self) -> impl Iterator<Item = Check> {
        let leases = self.downing == Strategy::LeaseMajority;
        let finds = self.discovery.is_some();
        let role = "1 to 64 ASCII letters, digits, `.`, `-` or `_`";
        let is_role = |role: &String| Profile::is_role(role);
        let checks = [
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
            ("downing_role", role, self.downing_role.iter().all(is_role)),
            (
                "members_min_of_role",
                role,
                self.members_min_of_role.keys().all(is_role),
            ),
            (
                "lease",
                "given if, and only if, the strategy is lease-majority",
                self.lease.is_some() == leases,
            ),
            (
                "discovery",
                "left out where there are seeds",
                !finds || self.seeds.is_empty(),
            ),
            (
                "contacts_min",
                "1 to 1,000",
                (1..=CONTACTS_MAX).contains(&self.contacts_min),
            ),
        ];
        checks.into_iter()
    }

    pub(crate) fn rule(&self) -> Rule {
        Rule {
            strategy: self.downing,
            role: self.downing_role.clone(),
            down_if_alone: self.down_if_alone,
        }
    }

    /// What is compared at the door where both sides have it, so that a version that knows more
    /// settings can join one that knows fewer.
    fn shared(&self) -> BTreeMap<String, String> {
        let of_roles = self.members_min_of_role.iter();
        let of_roles: String = of_roles
            .map(|(role, least)| format!(", {least} of {role}"))
            .collect();
        let members_min = format!("{}{of_roles}", self.members_min);
        BTreeMap::from([("members-min".to_owned(), members_min)])
    }

    fn founder(&self) -> Founder {
        if self.discovery.is_some() {
            return Founder::Lowest {
                contacts_min: self.contacts_min,
                stable_for: self.contacts_stable_for,
            };
        }
        Founder::FirstSeed {
            form_after: self.form_after,
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
        let rule = self.rule();
        settings.insert("downing".into(), rule.to_string());
        MembershipConfig {
            contacts: self.seeds.clone(),
            founder: self.founder(),
            held: self.join_when_told,
            started,
            settings,
            shared: self.shared(),
            minimum: Minimum {
                members: self.members_min,
                of_role: self.members_min_of_role.clone(),
            },
            weakly_up_after: self.weakly_up_after,
            profile: self.profile().shared(),
            join_retry: self.join_retry,
            heartbeat_interval: self.heartbeat_interval,
            phi: PhiConfig {
                threshold: self.phi_threshold,
                acceptable_pause: self.acceptable_pause,
                first_interval: self.heartbeat_interval,
                deviation_min: self.heartbeat_interval / 5,
                history_max: 200,
            },
            neighbours: self.neighbours,
            rule,
            lease_delay: self.lease_delay,
            down_all_when_unstable: self.down_all_when_unstable,
            stable_after: self.stable_after,
            tombstone_after: self.tombstone_after,
            farewell: FAREWELL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C11: what nodes must agree on is compared by texts that are fixed.
    #[test]
    fn what_is_compared_at_the_door() {
        let config = ClusterConfig::default()
            .with_members_min(3)
            .with_members_min_of_role("db", 2)
            .with_downing(Strategy::KeepOldest)
            .with_downing_role("db");
        let config = ClusterConfig {
            down_if_alone: false,
            ..config
        };
        let membership = config.membership(0);
        let texts = |settings: BTreeMap<String, String>| -> Vec<String> {
            settings
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect()
        };
        assert_eq!(
            texts(membership.settings),
            ["downing: keep-oldest of db, even alone"]
        );
        assert_eq!(texts(membership.shared), ["members-min: 3, 2 of db"]);
    }

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
        let setting = |config: ClusterConfig| match config.check() {
            Err(StartError::BadSetting { setting, .. }) => setting,
            Ok(()) => "none",
        };
        let default = ClusterConfig::default;
        assert_eq!(
            setting(default().with_downing(Strategy::LeaseMajority)),
            "lease"
        );
        assert_eq!(setting(default().with_role("a b")), "roles");
        assert_eq!(setting(default().with_downing_role("")), "downing_role");
        let both = default()
            .with_discovery(Arc::new(crate::discovery::StaticDiscovery::new([])))
            .with_seeds([([127, 0, 0, 1], 1).into()]);
        assert_eq!(setting(both), "discovery");
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
