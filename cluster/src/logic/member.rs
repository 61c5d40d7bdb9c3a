//! Member: one run of a node as the cluster knows it, and the order of what can become of it.

use otava_remote::NodeId;
use std::fmt;

/// What a member is in its life. Later ones are greater, and nothing ever goes back, so the join of
/// two opinions about a member is the greater one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Status {
    /// Let in by one member; not everybody knows yet.
    Joining,
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

    /// The number of the state in encodings and digests.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Joining => 0,
            Self::Up => 1,
            Self::Leaving => 2,
            Self::Exiting => 3,
            Self::Down => 4,
            Self::Removed => 5,
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
}

impl Member {
    /// What members are ordered by from the oldest to the youngest; those without age come last.
    #[must_use]
    pub fn seniority(&self) -> (u64, &NodeId) {
        (self.age.unwrap_or(u64::MAX), &self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_the_order_and_come_back() {
        let codes: Vec<Status> = (0..=u8::MAX).filter_map(Status::from_code).collect();
        assert_eq!(codes.len(), 6);
        assert!(codes.is_sorted());
        assert!(
            codes
                .iter()
                .all(|s| Status::from_code(s.code()) == Some(*s))
        );
    }
}
