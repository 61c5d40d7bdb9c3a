//! Member: one run of a node as the cluster knows it, and the order of what can become of it.

use crate::logic::profile::{AppVersion, Profile};
use otava_remote::NodeId;
use std::fmt;
use std::sync::Arc;

/// What a member is in its life. Later ones are greater, and nothing ever goes back, so the join of
/// two opinions about a member is the greater one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Status {
    /// Let in by one member; not everybody knows yet.
    Joining,
    /// Let in while some member cannot be reached, which keeps it from becoming a full one: it can be
    /// used, but has no say, and counts for nothing after a split.
    WeaklyUp,
    /// A full member.
    Up,
    /// On its way out by its own wish, still handing over what it has.
    Leaving,
    /// Has handed over and waits to be removed.
    Exiting,
    /// Declared out, whether it still runs or not.
    Down,
    /// Gone. Kept for a while as a tombstone so that late news cannot bring it back.
    Removed,
}

impl Status {
    /// Whether a member in this state takes part: everything before [`Status::Down`].
    #[must_use]
    pub fn is_live(self) -> bool {
        self < Self::Down
    }

    /// Whether a member in this state has a say in what needs agreement: up or leaving.
    #[must_use]
    pub fn is_voting(self) -> bool {
        matches!(self, Self::Up | Self::Leaving)
    }

    /// All states, from the first to the last.
    pub(crate) const ALL: [Self; 7] = [
        Self::Joining,
        Self::WeaklyUp,
        Self::Up,
        Self::Leaving,
        Self::Exiting,
        Self::Down,
        Self::Removed,
    ];

    /// Whether a member in this state has been let in but is no full member yet.
    #[must_use]
    pub fn is_entering(self) -> bool {
        matches!(self, Self::Joining | Self::WeaklyUp)
    }

    /// The number of the state in encodings and digests. Not in the order of a life: weakly up came
    /// later, and a number never changes.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Joining => 0,
            Self::Up => 1,
            Self::Leaving => 2,
            Self::Exiting => 3,
            Self::Down => 4,
            Self::Removed => 5,
            Self::WeaklyUp => 6,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Joining,
            1 => Self::Up,
            2 => Self::Leaving,
            3 => Self::Exiting,
            4 => Self::Down,
            5 => Self::Removed,
            6 => Self::WeaklyUp,
            _ => return None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Leaving => "leaving",
            Self::Exiting => "exiting",
            Self::Down => "down",
            Self::Removed => "removed",
            Self::WeaklyUp => "weakly up",
        })
    }
}

/// One run of a node in the view of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Member {
    /// Which run of which node.
    pub id: NodeId,
    /// What it is at present.
    pub status: Status,
    /// The order in which members became up: the lowest age is the oldest member. `None` until the
    /// member became up.
    pub age: Option<u64>,
    pub(crate) profile: Option<Arc<Profile>>,
}

impl Member {
    /// What members are ordered by from the oldest to the youngest; those without age come last.
    #[must_use]
    pub fn seniority(&self) -> (u64, &NodeId) {
        (self.age.unwrap_or(u64::MAX), &self.id)
    }

    /// Whether the node was started with `role` ([`crate::ClusterConfig::with_role`]).
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.profile
            .as_ref()
            .is_some_and(|profile| profile.roles.contains(role))
    }

    /// What the node is for, in the order of names.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let roles = self.profile.iter().flat_map(|profile| &profile.roles);
        roles.map(String::as_str)
    }

    /// The version of the program that the node runs ([`crate::ClusterConfig::with_app_version`]).
    #[must_use]
    pub fn app_version(&self) -> AppVersion {
        let profile = self.profile.as_ref();
        profile
            .map(|profile| profile.app_version.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_the_order_is_that_of_a_life() {
        let known = (0..=u8::MAX).filter_map(Status::from_code);
        assert_eq!(known.count(), Status::ALL.len());
        assert!(Status::ALL.is_sorted());
        let back = |status: &Status| Status::from_code(status.code());
        assert!(
            Status::ALL
                .iter()
                .all(|status| back(status) == Some(*status))
        );
    }
}
