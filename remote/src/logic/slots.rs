//! Slots: values under ids that nobody can guess, found at once.
//!
//! An id holds the place of its value in its lower bits, and what was drawn for it above them: so a
//! value is found without a search, and an id that was made up is not believed.

use crate::wire_format::ExportId;
use slab::Slab;

/// The bits of an id that say where its value is: for more values than memory holds.
const PLACE_BITS: u32 = 40;
/// Room for so many values is kept when there are none.
const ROOM_KEPT: usize = 1_024;

pub(crate) struct Slots<T> {
    slots: Slab<(ExportId, T)>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Slab::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps a value, under an id of which the upper 88 bits are those of `drawn`.
    pub(crate) fn insert(&mut self, drawn: u128, value: T) -> ExportId {
        let entry = self.slots.vacant_entry();
        let id = ExportId(drawn >> PLACE_BITS << PLACE_BITS | entry.key() as u128);
        entry.insert((id, value));
        id
    }

    pub(crate) fn get(&self, id: ExportId) -> Option<&T> {
        let (known, value) = self.slots.get(place_of(id))?;
        (*known == id).then_some(value)
    }

    /// Takes out the value under `id`, if it is one of those that `fits` accepts.
    pub(crate) fn take_if(&mut self, id: ExportId, fits: impl FnOnce(&T) -> bool) -> Option<T> {
        if !fits(self.get(id)?) {
            return None;
        }
        let (_, value) = self.slots.try_remove(place_of(id))?;
        if self.slots.is_empty() && self.slots.capacity() > ROOM_KEPT {
            self.slots = Slab::new();
        }
        Some(value)
    }

    /// All of them, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ExportId, &T)> {
        self.slots.iter().map(|(_, (id, value))| (*id, value))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

fn place_of(id: ExportId) -> usize {
    // Only the place is left.
    (id.0 & ((1 << PLACE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWN: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

    #[test]
    fn a_value_is_found_under_its_whole_id_only() {
        let mut slots = Slots::default();
        let first = slots.insert(DRAWN, "first");
        let second = slots.insert(!DRAWN, "second");
        assert_eq!(slots.get(first), Some(&"first"));
        assert_eq!(slots.get(second), Some(&"second"));
        for bit in 0..u128::BITS {
            let other = ExportId(first.0 ^ 1 << bit);
            assert_eq!(slots.get(other), None, "bit {bit}");
            assert_eq!(slots.take_if(other, |_| true), None, "bit {bit}");
        }
        assert_eq!(first.0 >> PLACE_BITS, DRAWN >> PLACE_BITS);
    }

    #[test]
    fn an_old_id_does_not_find_who_has_its_place_now() {
        let mut slots = Slots::default();
        let old = slots.insert(DRAWN, 1);
        assert_eq!(slots.take_if(old, |_| false), None);
        assert_eq!(slots.take_if(old, |_| true), Some(1));
        let new = slots.insert(!DRAWN, 2);
        assert_eq!(place_of(old), place_of(new));
        assert_eq!((slots.get(old), slots.get(new)), (None, Some(&2)));
        assert_eq!(slots.take_if(old, |_| true), None);
        assert_eq!((slots.len(), slots.iter().count()), (1, 1));
    }

    #[test]
    fn room_for_many_is_given_back() {
        let mut slots = Slots::default();
        let many = 10 * ROOM_KEPT;
        let ids: Vec<_> = (0..many).map(|n| slots.insert(DRAWN, n)).collect();
        for id in ids {
            assert!(slots.take_if(id, |_| true).is_some());
        }
        assert_eq!((slots.len(), slots.slots.capacity()), (0, 0));
        let next = slots.insert(DRAWN, 1);
        assert_eq!(slots.get(next), Some(&1));
    }
}
