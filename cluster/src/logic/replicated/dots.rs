//! Dots: the names of single writes, and the set of those that a copy has seen.
//!
//! A dot is the number of a write at one replica; it is given once and never again. What a copy has
//! seen is a [`Context`]: for each replica a few ranges of numbers, almost always one that begins
//! with 1, so that it is as small as a version vector and yet can hold writes that came out of order.
//! (Almeida, Shoker, Baquero: Delta state replicated data types, 2018, sections 5 and 7; there the
//! numbers that came out of order are a "dot cloud".)

use std::collections::BTreeMap;

/// Who writes: one run of one node, by its incarnation.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Replica(pub u64);

/// One write: the `number`th of `replica`, counted from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Dot {
    /// Who wrote.
    pub replica: Replica,
    /// Which of its writes.
    pub number: u64,
}

impl Dot {
    /// The write `number` of `replica`.
    #[must_use]
    pub fn new(replica: Replica, number: u64) -> Self {
        Self { replica, number }
    }
}

/// The writes that a copy has seen, whether they still stand or were overwritten.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Context {
    /// Never holds an empty list.
    seen: BTreeMap<Replica, Ranges>,
}

impl Context {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Whether this write was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        let ranges = self.seen.get(&dot.replica);
        ranges.is_some_and(|ranges| ranges.contains(dot.number))
    }

    /// Marks a write as seen; whether that is news.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.insert_range(dot.replica, dot.number, dot.number)
    }

    /// Marks the writes `first` to `last` of a replica as seen; whether some of that is news.
    pub fn insert_range(&mut self, replica: Replica, first: u64, last: u64) -> bool {
        if first == 0 || first > last {
            return false;
        }
        self.seen.entry(replica).or_default().insert(first, last)
    }

    /// The next write of `replica`, which this marks as seen.
    pub fn next(&mut self, replica: Replica) -> Dot {
        let dot = Dot::new(replica, self.highest(replica).saturating_add(1));
        self.insert(dot);
        dot
    }

    /// The highest number that was seen of `replica`; 0 if there is none.
    #[must_use]
    pub fn highest(&self, replica: Replica) -> u64 {
        self.seen.get(&replica).map_or(0, Ranges::highest)
    }

    /// Marks all as seen that `other` has seen; whether some of that is news.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut news = false;
        for (replica, ranges) in &other.seen {
            let mine = self.seen.entry(*replica).or_default();
            for (first, last) in &ranges.0 {
                news |= mine.insert(*first, *last);
            }
        }
        news
    }

    /// Forgets `replica`, and returns the ranges that were seen of it.
    pub fn remove(&mut self, replica: Replica) -> Vec<(u64, u64)> {
        self.seen
            .remove(&replica)
            .map_or_else(Vec::new, |ranges| ranges.0)
    }

    /// Who has written something that was seen.
    pub fn replicas(&self) -> impl Iterator<Item = Replica> {
        self.seen.keys().copied()
    }

    /// All ranges, by replica and in order.
    pub fn ranges(&self) -> impl Iterator<Item = (Replica, u64, u64)> {
        self.seen.iter().flat_map(|(replica, ranges)| {
            ranges
                .0
                .iter()
                .map(|(first, last)| (*replica, *first, *last))
        })
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self::new();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

/// Disjoint ranges with both ends included, in order, with a gap between any two.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    fn highest(&self) -> u64 {
        self.0.last().map_or(0, |(_, last)| *last)
    }

    fn insert(&mut self, first: u64, last: u64) -> bool {
        // Those that touch the new one are `begin..end`.
        let before = first.saturating_sub(1);
        let begin = self.0.partition_point(|(_, end)| *end < before);
        let after = last.saturating_add(1);
        let end = self.0.partition_point(|(start, _)| *start <= after);
        if begin >= end {
            self.0.insert(begin, (first, last));
            return true;
        }
        if end == begin + 1 && self.0[begin].0 <= first && last <= self.0[begin].1 {
            return false;
        }
        let joined = (first.min(self.0[begin].0), last.max(self.0[end - 1].1));
        self.0.splice(begin..end, [joined]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: Replica = Replica(1);

    #[test]
    fn numbers_in_order_are_one_range() {
        let mut context = Context::new();
        let dots: Vec<_> = (0..1_000).map(|_| context.next(A)).collect();
        assert_eq!(dots[999], Dot::new(A, 1_000));
        assert_eq!(
            context.ranges().collect::<Vec<_>>(),
            [(A, 1, 1_000)],
            "compact"
        );
    }

    #[test]
    fn the_end_of_all_numbers_does_not_overflow() {
        let mut context = Context::new();
        context.insert(Dot::new(A, u64::MAX));
        assert!(!context.insert(Dot::new(A, u64::MAX)));
        assert!(context.insert_range(A, 1, u64::MAX));
        assert_eq!(context.next(A).number, u64::MAX);
        assert!(!context.insert(Dot::new(A, 0)), "there is no write 0");
    }

    proptest! {
        /// Ranges are a set of numbers in the fewest pieces.
        #[test]
        fn ranges_are_a_set(inserts in proptest::collection::vec((1u64..60, 0u64..9), 0..40)) {
            let mut model = BTreeSet::new();
            let mut context = Context::new();
            for (first, length) in inserts {
                let last = first + length;
                let news = (first..=last).fold(false, |news, n| model.insert(n) | news);
                prop_assert_eq!(context.insert_range(A, first, last), news);
            }
            for number in 0..80 {
                prop_assert_eq!(context.contains(Dot::new(A, number)), model.contains(&number));
            }
            let ranges: Vec<_> = context.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].2 + 1 < pair[1].1));
            prop_assert_eq!(context.highest(A), model.last().copied().unwrap_or(0));
        }
    }
}
