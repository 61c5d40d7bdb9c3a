//! Layout: how many shards a kind has, and what has to be fenced when that number changes.
//! Pure: no clock, no IO.
//!
//! # Scopes
//! The i-th of n shards is claimed under the number n + i. So a range of hashes has one number for ever,
//! whatever the layout: the halves of range `s` are `2 s` and `2 s + 1`.
//!
//! # Why no range has two writers
//! An entity of a shard of the old layout writes by the scope of that shard, one of the new layout by
//! another scope. So whoever claims a shard **first claims all scopes of the previous layout that overlap
//! it**, and then its own. If that is refused, because somebody claimed them later, it does not matter: of
//! two allocations that overlap, each claims the other's scope before its own, so the one of the lower
//! epoch is fenced, whichever came first.
//!
//! # Which layout counts
//! The store keeps it, in a register that only grows ([`Layout::to_register`]), beside the highest term
//! whose coordinator may change it. A coordinator that takes over claims the term, *then* reads the
//! register, and writes what it read by its own term. A coordinator that changes the layout writes the
//! register, *then* claims the term again. So either the change was read, or whoever made it learns that
//! it has been replaced, before it has acted on it.

use crate::logic::hash::is_valid_shards;

/// How many shards there are, and how many there were before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Now. Valid by [`is_valid_shards`].
    pub shards: u32,
    /// Before, half or twice as many, until all shards have been claimed anew.
    pub previous: Option<u32>,
}

impl Layout {
    /// The layout with which a kind begins.
    #[must_use]
    pub fn first(shards: u32) -> Self {
        Self {
            shards,
            previous: None,
        }
    }

    /// Whether there can be such a layout.
    #[must_use]
    pub fn is_valid(self) -> bool {
        let adjacent = |before: u32| {
            is_valid_shards(before) && (before == self.shards * 2 || before * 2 == self.shards)
        };
        is_valid_shards(self.shards) && self.previous.is_none_or(adjacent)
    }

    /// What a shard is claimed under.
    #[must_use]
    pub fn scope(self, shard: u32) -> u32 {
        self.shards.saturating_add(shard)
    }

    /// The scopes of the previous layout that overlap a shard.
    #[must_use]
    pub fn fenced(self, shard: u32) -> Vec<u32> {
        match self.previous {
            None => Vec::new(),
            Some(before) if before < self.shards => vec![before + shard / 2],
            Some(before) => vec![before + 2 * shard, before + 2 * shard + 1],
        }
    }

    /// How the store keeps it: later terms are higher, and in a term higher numbers.
    #[must_use]
    pub fn to_register(self, term: u32, number: u16) -> u64 {
        let previous = match self.previous {
            None => 0,
            Some(before) if before < self.shards => 1,
            Some(_) => 2,
        };
        let bits = u64::from(self.shards.trailing_zeros());
        u64::from(term) << 32 | u64::from(number) << 16 | bits << 8 | previous
    }

    /// What the store kept; `None` if that is no layout.
    #[must_use]
    pub fn from_register(register: u64) -> Option<Self> {
        let shards = 1_u32.checked_shl((register >> 8 & 0xff) as u32)?;
        let previous = match register & 0xff {
            0 => None,
            1 => Some(shards / 2),
            2 => Some(shards.checked_mul(2)?),
            _ => return None,
        };
        let layout = Self { shards, previous };
        (register >> 32 > 0 && layout.is_valid()).then_some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::hash::shard_at;
    use otava_actor::Rng;

    fn layouts() -> impl Iterator<Item = Layout> {
        let all = (0..=16).flat_map(|bits| {
            let shards = 1_u32 << bits;
            [None, Some(shards / 2), Some(shards * 2)].map(|previous| Layout { shards, previous })
        });
        all.filter(|layout| layout.is_valid())
    }

    #[test]
    fn a_register_keeps_a_layout_and_orders_by_term_and_number() {
        for layout in layouts() {
            let register = layout.to_register(7, 9);
            assert_eq!(Layout::from_register(register), Some(layout));
            assert!(layout.to_register(8, 0) > Layout::first(65_536).to_register(7, u16::MAX));
            assert!(layout.to_register(7, 10) > register);
        }
        assert_eq!(Layout::first(128).to_register(3, 2), 0x3_0002_0700);
        for wrong in [
            0,
            0x0700,
            0x1_0000_1100,
            0x1_0000_0003,
            0x1_0000_0001,
            0x1_0000_1002,
        ] {
            assert_eq!(Layout::from_register(wrong), None, "{wrong:x}");
        }
    }

    #[test]
    fn the_fenced_scopes_are_those_that_overlap() {
        let mut rng = Rng::seeded(1);
        for layout in layouts() {
            for _ in 0..50 {
                let hash = rng.next_u64();
                let shard = shard_at(hash, layout.shards);
                let fenced = layout.fenced(shard);
                if let Some(before) = layout.previous {
                    let old = Layout::first(before).scope(shard_at(hash, before));
                    assert!(fenced.contains(&old), "{layout:?} {hash:x}");
                }
                let each = if layout.previous.is_some_and(|before| before > layout.shards) {
                    2
                } else {
                    1
                };
                assert_eq!(
                    fenced.len(),
                    if layout.previous.is_some() { each } else { 0 }
                );
            }
        }
    }
}
