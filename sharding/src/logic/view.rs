//! View: what sharding needs to know of the members of the cluster.

use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The members as one node sees them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// The Up member that is up for the longest: where the coordinator lives.
    pub oldest: Option<NodeId>,
    /// Members whose regions may hold shards, or send to those that do.
    pub hosts: BTreeMap<NodeId, Host>,
    /// Members that are out for good.
    pub gone: BTreeSet<NodeId>,
    /// Hosts that somebody cannot reach at the moment.
    pub unreachable: BTreeSet<NodeId>,
    /// Whether somebody is on its way in: nothing is moved only to be moved again.
    pub joining: bool,
    /// Hosts that run an older version of the program than another one: a rolling update is under way.
    pub outdated: BTreeSet<NodeId>,
}

/// What may be placed on a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Host {
    /// It is on its way out: what it has is moved away, nothing is placed there.
    Leaving,
    /// It hosts nothing, but its region may send straight to the others.
    Proxy,
    /// It may get shards.
    Up,
}

impl View {
    /// Nobody is known.
    #[must_use]
    pub fn empty(me: NodeId) -> Self {
        Self {
            me,
            oldest: None,
            hosts: BTreeMap::new(),
            gone: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            joining: false,
            outdated: BTreeSet::new(),
        }
    }

    /// Whether shards may be placed on `node`.
    #[must_use]
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.hosts.get(node) == Some(&Host::Up)
    }

    /// Whether `node` may have shards already.
    #[must_use]
    pub fn may_have(&self, node: &NodeId) -> bool {
        matches!(self.hosts.get(node), Some(Host::Leaving | Host::Up))
    }

    /// Whether `node` is on its way out.
    #[must_use]
    pub fn is_leaving(&self, node: &NodeId) -> bool {
        self.hosts.get(node) == Some(&Host::Leaving)
    }

    /// Whether shards may move for the sake of balance: everybody answers, nobody is about to come, and
    /// no update is under way.
    #[must_use]
    pub fn may_rebalance(&self) -> bool {
        self.unreachable.is_empty() && !self.joining && self.outdated.is_empty()
    }

    /// Whether there is a member on which shards may be placed.
    #[must_use]
    pub fn has_up(&self) -> bool {
        self.hosts.values().any(|host| *host == Host::Up)
    }
}
