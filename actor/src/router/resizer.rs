//! Resizer: how many routees a pool should have, from how much waits at each. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Lets a pool follow its load, between two bounds.
///
/// At every look a routee counts as busy if at least [`Resizer::busy_at`] messages wait for it. If
/// all are busy the pool grows by a fifth; if fewer than three in ten are, it shrinks by a tenth;
/// always by at least one. It grows faster than it shrinks because a queue costs time at once and a
/// spare routee costs next to nothing.
///
/// ```
/// use otava_actor::Resizer;
/// use std::time::Duration;
///
/// let resizer = Resizer::between(2..=10).busy_at(5).every(Duration::from_millis(200));
/// # let _ = resizer;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Resizer {
    lower: usize,
    upper: usize,
    busy_at: usize,
    every: Duration,
}

/// Growth when all are busy, as one part in so many.
const GROW_PART: usize = 5;
/// Shrinking when few are busy, as one part in so many.
const SHRINK_PART: usize = 10;
/// Fewer busy routees than this many in ten let the pool shrink.
const BUSY_IN_TEN_MIN: usize = 3;

impl Resizer {
    /// A resizer that keeps the number of routees within `bounds`. It looks once a second, and a
    /// routee with one waiting message is busy.
    ///
    /// # Panics
    /// If the lower bound is zero or above the upper one.
    pub fn between(bounds: RangeInclusive<usize>) -> Self {
        let (lower, upper) = (*bounds.start(), *bounds.end());
        assert!(
            0 < lower && lower <= upper,
            "a pool has from 1 to at most {upper} routees, not from {lower}"
        );
        Self {
            lower,
            upper,
            busy_at: 1,
            every: Duration::from_secs(1),
        }
    }

    /// From how many waiting messages on a routee counts as busy; 1 by default.
    ///
    /// # Panics
    /// If it is zero: everyone would always be busy.
    pub fn busy_at(mut self, messages: usize) -> Self {
        assert!(messages > 0, "a routee with nothing to do is not busy");
        self.busy_at = messages;
        self
    }

    /// How often to look; once a second by default.
    ///
    /// # Panics
    /// If it is zero.
    pub fn every(mut self, interval: Duration) -> Self {
        assert!(
            !interval.is_zero(),
            "a resizer needs an interval above zero"
        );
        self.every = interval;
        self
    }

    pub(super) fn interval(&self) -> Duration {
        self.every
    }

    /// The size that fits, when so many messages wait at each routee that there is now, and the pool
    /// was to have `size` routees.
    pub(super) fn fitting(&self, size: usize, queued: &[usize]) -> usize {
        let busy = queued.iter().filter(|&&n| n >= self.busy_at).count();
        let fitting = if !queued.is_empty() && busy == queued.len() {
            size + (size / GROW_PART).max(1)
        } else if busy * 10 < queued.len() * BUSY_IN_TEN_MIN {
            size.saturating_sub((size / SHRINK_PART).max(1))
        } else {
            size
        };
        fitting.clamp(self.lower, self.upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(size: usize, queued: &[usize], fitting: usize) {
        let resizer = Resizer::between(2..=30).busy_at(3);
        assert_eq!(resizer.fitting(size, queued), fitting, "{size}: {queued:?}");
    }

    #[test]
    fn a_pool_grows_by_a_fifth_when_all_are_busy() {
        check(4, &[3, 9, 3, 4], 5);
        check(20, &[3; 20], 24);
        check(29, &[3; 29], 30);
        check(30, &[99; 30], 30);
    }

    #[test]
    fn one_idle_routee_is_enough_to_stay() {
        check(4, &[3, 9, 2, 4], 4);
        check(10, &[3, 3, 3, 0, 0, 0, 0, 0, 0, 0], 10);
    }

    #[test]
    fn a_pool_shrinks_by_a_tenth_when_few_are_busy() {
        check(10, &[3, 3, 0, 0, 0, 0, 0, 0, 0, 0], 9);
        check(30, &[0; 30], 27);
        check(2, &[0, 0], 2);
    }

    #[test]
    fn bounds_hold_also_for_a_pool_that_begins_outside() {
        check(1, &[0], 2);
        check(50, &[0, 3, 3], 30);
    }

    /// All routees are gone for the moment: that says nothing about the load.
    #[test]
    fn nobody_there_is_no_load() {
        check(4, &[], 4);
    }
}
