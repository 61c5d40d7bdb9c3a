//! Slots: which routees a pool has, by number, and when an ended one comes back. Pure.
//!
//! A slot keeps its number, and with it its share of the keys, when its routee is replaced. A slot
//! that drains still has its number (its actor still has the name), but is no part of the pool.

use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a pool does when a routee has ended, for whatever reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RouteeEnded {
    /// The pool goes on without it, and stops with its last routee.
    Forget,
    /// The pool starts a new one from the factory. At once, if the routee lived for `max` or longer;
    /// otherwise after `min`, and after twice as long each time that this happens in a row, up to
    /// `max`.
    Replace {
        /// The first delay.
        min: Duration,
        /// The longest delay.
        max: Duration,
    },
}

impl Default for RouteeEnded {
    /// Replaced, with delays from 100 milliseconds to 10 seconds.
    fn default() -> Self {
        Self::Replace {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
        }
    }
}

/// What is to be done after a change of size.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Change {
    /// Slots that get a routee.
    pub(super) start: Vec<u32>,
    /// Slots whose routee finishes what is queued and stops.
    pub(super) drain: Vec<u32>,
}

/// What is to be done when the routee of a slot has ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The slot gets a new routee after this time.
    Replace(Duration),
    /// That was the last one of the pool.
    Over,
}

pub(super) struct Slots {
    policy: RouteeEnded,
    /// The slots of the pool.
    members: BTreeMap<u32, Slot>,
    draining: BTreeSet<u32>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// When its routee was started; `None` while it has none.
    since: Option<Time>,
    /// Ends in a row that came too soon.
    early: u32,
}

impl Slots {
    pub(super) fn new(policy: RouteeEnded) -> Self {
        Self {
            policy,
            members: BTreeMap::new(),
            draining: BTreeSet::new(),
        }
    }

    /// How many slots the pool has, with a routee or waiting for one.
    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing is left, draining routees included.
    pub(super) fn is_over(&self) -> bool {
        self.members.is_empty() && self.draining.is_empty()
    }

    /// Grows with the lowest free numbers, shrinks from the highest.
    pub(super) fn resize(&mut self, size: usize) -> Change {
        let mut change = Change::default();
        while self.members.len() > size
            && let Some((number, slot)) = self.members.pop_last()
        {
            if slot.since.is_some() {
                self.draining.insert(number);
                change.drain.push(number);
            }
        }
        let mut number = 0;
        while self.members.len() < size {
            if !self.members.contains_key(&number) && !self.draining.contains(&number) {
                self.members.insert(number, Slot::default());
                change.start.push(number);
            }
            number += 1;
        }
        change
    }

    /// Whether slot `number` waits for a routee.
    pub(super) fn is_vacant(&self, number: u32) -> bool {
        self.members
            .get(&number)
            .is_some_and(|slot| slot.since.is_none())
    }

    pub(super) fn started(&mut self, number: u32, now: Time) {
        if let Some(slot) = self.members.get_mut(&number) {
            slot.since = Some(now);
        }
    }

    /// The routee of slot `number` has ended, or could not be started.
    pub(super) fn ended(&mut self, number: u32, now: Time) -> After {
        if self.draining.remove(&number) {
            return After::Nothing;
        }
        let Some(slot) = self.members.get_mut(&number) else {
            return After::Nothing;
        };
        let RouteeEnded::Replace { min, max } = self.policy else {
            self.members.remove(&number);
            return if self.members.is_empty() {
                After::Over
            } else {
                After::Nothing
            };
        };
        let lived = slot.since.take().map(|since| now.saturating_since(since));
        if lived.is_some_and(|lived| lived >= max) {
            slot.early = 0;
            return After::Replace(Duration::ZERO);
        }
        let factor = 2_u32.saturating_pow(slot.early);
        slot.early = slot.early.saturating_add(1);
        After::Replace(min.saturating_mul(factor).min(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn slots(policy: RouteeEnded, size: usize) -> Slots {
        let mut slots = Slots::new(policy);
        for number in slots.resize(size).start {
            slots.started(number, at(0));
        }
        slots
    }

    #[test]
    fn a_pool_shrinks_from_the_top_and_grows_around_what_drains() {
        let mut slots = slots(RouteeEnded::Forget, 4);
        assert_eq!(slots.resize(2).drain, [3, 2]);
        assert_eq!(slots.ended(3, at(1)), After::Nothing);
        // 2 still drains, 3 is free again.
        assert_eq!(slots.resize(4).start, [3, 4]);
        assert_eq!(slots.resize(4), Change::default());
    }

    #[test]
    fn a_forgotten_pool_is_over_with_its_last_routee() {
        let mut slots = slots(RouteeEnded::Forget, 2);
        assert_eq!(slots.ended(0, at(1)), After::Nothing);
        assert_eq!(slots.ended(0, at(1)), After::Nothing);
        assert_eq!(slots.ended(1, at(1)), After::Over);
        assert!(slots.is_over());
    }

    #[test]
    fn delays_double_up_to_the_longest_and_a_long_life_resets_them() {
        let policy = RouteeEnded::Replace {
            min: 10 * MS,
            max: 35 * MS,
        };
        let mut slots = slots(policy, 1);
        let mut delays = Vec::new();
        for (started, ended) in [
            (0, 1),
            (11, 12),
            (40, 41),
            (90, 124),
            (200, 235),
            (235, 236),
        ] {
            slots.started(0, at(started));
            let After::Replace(delay) = slots.ended(0, at(ended)) else {
                panic!("a replacement")
            };
            assert!(slots.is_vacant(0));
            delays.push(delay.as_millis());
        }
        assert_eq!(delays, [10, 20, 35, 35, 0, 10]);
    }

    #[test]
    fn a_slot_that_waits_for_a_routee_shrinks_away_without_draining() {
        let mut slots = slots(RouteeEnded::default(), 2);
        assert_eq!(slots.ended(1, at(1)), After::Replace(100 * MS));
        assert_eq!(slots.resize(1), Change::default());
        assert!(!slots.is_vacant(1));
        assert_eq!(slots.size(), 1);
    }

    /// Whatever happens: the size is the one that was asked for, nobody who drains is started again,
    /// and each slot that is given out is new.
    #[test]
    fn a_random_life_of_a_pool_keeps_its_books() {
        for seed in 0..200 {
            let mut rng = crate::rng::Rng::seeded(seed);
            let mut slots = Slots::new(RouteeEnded::default());
            // What the pool would have running and draining, by the answers alone.
            let (mut running, mut draining) = (BTreeSet::new(), BTreeSet::new());
            for step in 0..100 {
                let any = |set: &BTreeSet<u32>, rng: &mut crate::rng::Rng| {
                    let n = rng.below(set.len().max(1) as u64) as usize;
                    set.iter().nth(n).copied()
                };
                match rng.below(3) {
                    0 => {
                        let size = 1 + rng.below(8) as usize;
                        let change = slots.resize(size);
                        assert_eq!(slots.size(), size, "seed {seed}, step {step}");
                        for slot in change.drain {
                            assert!(running.remove(&slot), "seed {seed}, step {step}");
                            draining.insert(slot);
                        }
                        for slot in change.start {
                            assert!(slots.is_vacant(slot), "seed {seed}, step {step}");
                            assert!(!draining.contains(&slot), "seed {seed}, step {step}");
                            slots.started(slot, at(step));
                            assert!(running.insert(slot), "seed {seed}, step {step}");
                        }
                    }
                    1 => {
                        let Some(slot) = any(&running, &mut rng) else {
                            continue;
                        };
                        let after = slots.ended(slot, at(step));
                        assert!(
                            matches!(after, After::Replace(_)),
                            "seed {seed}, step {step}"
                        );
                        if rng.below(2) == 0 {
                            slots.started(slot, at(step));
                        } else {
                            running.remove(&slot);
                        }
                    }
                    _ => {
                        let Some(slot) = any(&draining, &mut rng) else {
                            continue;
                        };
                        let after = slots.ended(slot, at(step));
                        assert_eq!(after, After::Nothing, "seed {seed}, step {step}");
                        draining.remove(&slot);
                    }
                }
            }
        }
    }

    /// Routees that fail for a whole day do not overflow anything.
    #[test]
    fn delays_never_overflow() {
        let mut slots = slots(RouteeEnded::default(), 1);
        for _ in 0..1_000 {
            slots.ended(0, at(1));
        }
        let longest = After::Replace(Duration::from_secs(10));
        assert_eq!(slots.ended(0, at(1)), longest);
    }
}
