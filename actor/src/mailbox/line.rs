//! Line: senders that wait for room, by the order in which they came.

use std::collections::BTreeMap;
use std::task::Waker;

pub(super) struct Line {
    next: u64,
    /// `None`: this one was woken and has not looked yet.
    waiting: BTreeMap<u64, Option<Waker>>,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Stands in line, at `place` if there was one before. Returns the place, and a waker to be
    /// dropped: not here, since it may be the last that holds a task of the user.
    #[must_use]
    pub(super) fn stand(&mut self, place: Option<u64>, waker: Waker) -> (u64, Option<Waker>) {
        let place = place.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let before = self.waiting.insert(place, Some(waker));
        (place, before.flatten())
    }

    /// Returns a waker to be dropped, as [`Line::stand`] does.
    #[must_use]
    pub(super) fn leave(&mut self, place: u64) -> Option<Waker> {
        self.waiting.remove(&place).flatten()
    }

    /// The wakers of those among the first `room` that were not woken yet.
    pub(super) fn wake(&mut self, room: u64) -> Vec<Waker> {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        self.waiting
            .values_mut()
            .take(room)
            .filter_map(Option::take)
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
