//! Pace: lets something happen at once, but not more often than every so much time.

use otava_actor::Time;
use std::time::Duration;

/// Coalesces wishes: the first is granted at once, those that follow soon are granted together.
#[derive(Clone, Debug)]
pub struct Pace {
    every: Duration,
    not_before: Time,
    wanted: bool,
}

impl Pace {
    /// At most once every `every`.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            not_before: Time::ZERO,
            wanted: false,
        }
    }

    /// Notes the wish.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether it is to happen now; if so the wish is fulfilled.
    pub fn take(&mut self, now: Time) -> bool {
        let due = self.wanted && now >= self.not_before;
        if due {
            self.wanted = false;
            self.not_before = now + self.every;
        }
        due
    }

    /// When to look again.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.wanted.then_some(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wish_is_granted_at_once_and_the_next_ones_together() {
        let mut pace = Pace::new(Duration::from_nanos(10));
        assert!(!pace.take(Time::ZERO));
        pace.want();
        assert!(pace.take(Time::from_nanos(5)));
        pace.want();
        pace.want();
        assert!(!pace.take(Time::from_nanos(14)));
        assert_eq!(pace.next(), Some(Time::from_nanos(15)));
        assert!(pace.take(Time::from_nanos(15)));
        assert_eq!(pace.next(), None);
    }
}
