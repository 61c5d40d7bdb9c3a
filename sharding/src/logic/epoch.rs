//! Epoch: the number of an allocation, made of a coordinator's term and a counter.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of an allocation of a shard. Later allocations have higher ones, over all terms.
///
/// Hand-overs are numbered from the same counter.
#[derive(Clone, Copy, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Epoch {
    /// The term of the coordinator that gave it.
    pub term: u32,
    /// Counts from 1 in each term.
    pub counter: u32,
}

impl Epoch {
    /// The number as the store keeps it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        (self.term as u64) << 32 | self.counter as u64
    }

    /// The epoch of a number that the store kept.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self {
            term: (number >> 32) as u32,
            counter: number as u32,
        }
    }
}

impl fmt::Debug for Epoch {
    /// `3.17`: the 17th allocation of term 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.counter)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_weigh_more_than_counters() {
        let old = Epoch {
            term: 1,
            counter: u32::MAX,
        };
        let new = Epoch {
            term: 2,
            counter: 1,
        };
        assert!(old < new && old.as_u64() < new.as_u64());
        assert_eq!(Epoch::from_u64(new.as_u64()), new);
        assert_eq!(new.as_u64(), (2 << 32) + 1);
    }
}
