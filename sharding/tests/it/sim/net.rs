//! Net: what is on its way, in order for each pair of nodes.

use otava_actor::{Rng, Time};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Net<E> {
    queue: BTreeMap<(Time, u64), E>,
    number: u64,
    /// When the last thing of a pair arrives.
    last: BTreeMap<(u16, u16), Time>,
}

impl<E> Net<E> {
    pub(crate) fn new() -> Self {
        Self {
            queue: BTreeMap::new(),
            number: 0,
            last: BTreeMap::new(),
        }
    }

    pub(crate) fn at(&mut self, time: Time, event: E) {
        self.number += 1;
        self.queue.insert((time, self.number), event);
    }

    /// Arrives after a random delay and after everything that the pair sent before.
    pub(crate) fn send(&mut self, now: Time, rng: &mut Rng, from: u16, to: u16, event: E) {
        let slow = if rng.below(50) == 0 { 100 } else { 3 };
        let delay = Duration::from_micros(50 + rng.below(slow * 1_000));
        let last = self.last.entry((from, to)).or_default();
        let arrival = (*last).max(now + delay);
        *last = arrival;
        self.at(arrival, event);
    }

    pub(crate) fn next_time(&self) -> Time {
        self.queue
            .keys()
            .next()
            .map_or(Time::MAX, |(time, _)| *time)
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, E)> {
        self.queue
            .pop_first()
            .map(|((time, _), event)| (time, event))
    }
}
