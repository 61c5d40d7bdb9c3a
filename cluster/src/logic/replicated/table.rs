//! Table: the entries of a node by key, and the fingerprints by which two nodes find what differs.
//!
//! Keys fall into [`BUCKETS`] buckets by their hash. The fingerprint of a bucket is the exclusive or of
//! those of its entries, so a change of one costs as much as that one. Fingerprints are worked out only
//! when somebody asks.

use crate::logic::digest::Digest;
use crate::logic::replicated::entry::Entry;
use crate::logic::replicated::message::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// How many buckets there are. Part of what nodes compare: it never changes.
pub const BUCKETS: usize = 256;

/// Entries by key.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<Key, Slot>,
    buckets: Vec<Bucket>,
    /// Whose fingerprint is not known.
    stale: BTreeSet<Key>,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// 0 while it is not known.
    fingerprint: u64,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    fingerprint: u64,
    keys: BTreeSet<Key>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            buckets: vec![Bucket::default(); BUCKETS],
            stale: BTreeSet::new(),
        }
    }
}

impl Table {
    /// How many entries there are, deleted ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.keys()
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).map(|slot| &slot.entry)
    }

    /// The entry of a key, of which nothing may be changed that others see.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.get_mut(key).map(|slot| &mut slot.entry)
    }

    /// Adds an entry, in place of one with the same key.
    pub fn insert(&mut self, entry: Entry) {
        let key = entry.state().key.clone();
        self.touch(&key);
        self.buckets[bucket_of(&key)].keys.insert(key.clone());
        self.stale.insert(key.clone());
        let slot = Slot {
            entry,
            fingerprint: 0,
        };
        self.entries.insert(key, slot);
    }

    /// Says that the entry has changed.
    pub fn touch(&mut self, key: &Key) {
        if let Some(slot) = self.entries.get_mut(key)
            && slot.fingerprint != 0
        {
            self.buckets[bucket_of(key)].fingerprint ^= slot.fingerprint;
            slot.fingerprint = 0;
            self.stale.insert(key.clone());
        }
    }

    /// The fingerprint of an entry; 0 if there is none.
    pub fn fingerprint(&mut self, key: &str) -> u64 {
        let Some(slot) = self.entries.get_mut(key) else {
            return 0;
        };
        if slot.fingerprint == 0 {
            slot.fingerprint = slot.entry.fingerprint();
            self.buckets[bucket_of(key)].fingerprint ^= slot.fingerprint;
            self.stale.remove(key);
        }
        slot.fingerprint
    }

    /// The fingerprints of all buckets.
    pub fn summary(&mut self) -> Vec<u64> {
        while let Some(key) = self.stale.first().cloned() {
            self.fingerprint(&key);
            self.stale.remove(&key);
        }
        self.buckets
            .iter()
            .map(|bucket| bucket.fingerprint)
            .collect()
    }

    /// The keys of a part of a bucket, in order: those after `after`, up to `until` with it.
    #[must_use]
    pub fn part(&self, bucket: u16, after: Option<&Key>, until: Option<&Key>) -> Vec<Key> {
        let Some(bucket) = self.buckets.get(usize::from(bucket)) else {
            return Vec::new();
        };
        // A peer may have put them the wrong way round; `range` would panic.
        if until.is_some() && after >= until {
            return Vec::new();
        }
        let begin = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let end = until.map_or(Bound::Unbounded, |key| Bound::Included(key.clone()));
        bucket.keys.range((begin, end)).cloned().collect()
    }
}

/// In which bucket a key is.
fn bucket_of(key: &str) -> usize {
    let hash = Digest::new().bytes(key.as_bytes()).finish();
    // Less than the number of buckets, so it fits.
    (hash % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::replicated::store::{Dots, Store};

    fn entry(key: &str) -> Entry {
        let flag = Store::Flag(Dots::new());
        Entry::blank(key.into(), "flag".into(), &flag, false)
    }

    /// Part of what nodes compare: this never changes.
    #[test]
    fn buckets_are_fixed() {
        assert_eq!(["", "a", "cart-17"].map(bucket_of), [155, 248, 96]);
    }

    #[test]
    fn equal_tables_have_equal_summaries_whatever_their_history() {
        let (mut one, mut other) = (Table::default(), Table::default());
        for n in 0..1_000 {
            one.insert(entry(&n.to_string()));
        }
        one.summary();
        for n in (0..1_000).rev() {
            other.insert(entry(&n.to_string()));
            if n % 3 == 0 {
                other.summary();
            }
        }
        assert_eq!(one.summary(), other.summary());
        let key = Key::from("77");
        other.get_mut(&key).unwrap().delete();
        other.touch(&key);
        let differ = one
            .summary()
            .iter()
            .zip(other.summary())
            .filter(|(a, b)| *a != b)
            .count();
        assert_eq!(differ, 1);
        one.get_mut(&key).unwrap().delete();
        one.touch(&key);
        assert_eq!(one.summary(), other.summary());
    }

    #[test]
    fn a_part_the_wrong_way_round_is_empty() {
        let mut table = Table::default();
        (0..999).for_each(|n| table.insert(entry(&n.to_string())));
        let all = table.part(3, None, None);
        assert!(all.len() > 1);
        let (first, last) = (&all[0], &all[all.len() - 1]);
        assert_eq!(table.part(3, Some(last), Some(first)), [] as [Key; 0]);
        assert_eq!(table.part(3, Some(first), Some(first)), [] as [Key; 0]);
        assert_eq!(table.part(3, Some(first), None), all[1..]);
        assert_eq!(table.part(999, None, None), [] as [Key; 0]);
    }
}
