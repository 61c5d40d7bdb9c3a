//! Level: how many nodes must answer before an operation is done.

/// How many nodes must have answered before a read or a write is done.
///
/// A read sees every finished write if the two sets of nodes must overlap: a majority on both sides, or
/// [`Level::All`] on one of them. Members that are up count, this node among them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Level {
    /// Every member that counts.
    All,
    /// This many, this node included. If there are fewer members, it waits for more.
    From(usize),
    /// This node only: no message is waited for. The others follow by gossip.
    #[default]
    Local,
    /// More than half, and at least `min`; all, if there are fewer than `min`. A minimum guards small
    /// clusters: a majority of two is both, of three is two.
    Majority {
        /// The least number; 0 for a plain majority.
        min: usize,
    },
}

impl Level {
    /// A plain majority.
    #[must_use]
    pub fn majority() -> Self {
        Self::Majority { min: 0 }
    }

    /// How many of `members` must answer. Without any member nothing but [`Level::Local`] is possible.
    #[must_use]
    pub fn needed(self, members: usize) -> usize {
        match self {
            Self::All => members.max(1),
            Self::From(count) => count.max(1),
            Self::Local => 0,
            Self::Majority { min } => (members / 2 + 1).max(min).min(members.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_majorities_meet() {
        for members in 1..50 {
            for min in 0..60 {
                let needed = Level::Majority { min }.needed(members);
                assert!(2 * needed > members && needed <= members);
            }
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(Level::All.needed(5), 5);
        assert_eq!(Level::From(3).needed(2), 3, "waits for a third");
        assert_eq!(Level::From(0).needed(2), 1);
        assert_eq!(Level::Majority { min: 3 }.needed(4), 3);
        assert_eq!(Level::Majority { min: 4 }.needed(3), 3);
        assert_eq!(Level::majority().needed(0), 1);
        assert_eq!(Level::Local.needed(5), 0);
    }
}
