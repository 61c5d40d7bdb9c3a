//! Pace: how many requests gather before a statement is sent, and how long. Pure.
//!
//! Writers that were just answered come back within microseconds, but the next statement would begin
//! without them; batches then alternate between the few and the many. So a statement waits until as many
//! are there as were in sight after the last answer, at most for a part of what that answer took. A lone
//! writer is never kept waiting: nobody else is in sight.
//!
//! When many are in sight, half of them make a statement, and it is sent while the other half is under
//! way: then the server finds work when it is done, and does not wait until this process has read its
//! answer, told the writers and heard from them again.

use std::time::Duration;

/// What was seen at the last answer.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    in_sight: usize,
    limit: Duration,
}

impl Pace {
    const LIMIT_MAX: Duration = Duration::from_millis(2);

    /// The fewest requests that are worth a statement behind another one.
    const SECOND_MIN: usize = 16;

    /// Takes note of an answer, what its statement took, and how many requests were in it, wait, or are
    /// under way.
    pub(crate) fn answered(&mut self, took: Duration, in_sight: usize) {
        self.in_sight = in_sight;
        self.limit = (took / 4).min(Self::LIMIT_MAX);
    }

    /// How many requests make a statement: to wait for while nothing is under way, and to take at the most
    /// when more are in sight.
    pub(crate) fn share(&self) -> usize {
        let half = self.in_sight.div_ceil(2);
        if half < Self::SECOND_MIN {
            self.in_sight
        } else {
            half
        }
    }

    /// How long to wait for them.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether to send a statement with what is there, when `under_way` others are. The one behind another
    /// does not wait for the last of its share: a few of them may have gone with the first one.
    pub(crate) fn may_send(&self, there: usize, under_way: usize) -> bool {
        let share = self.share();
        match under_way {
            0 => there > 0,
            1 => there >= (share - share / 4).max(Self::SECOND_MIN),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(in_sight: usize) -> Pace {
        let mut pace = Pace::default();
        pace.answered(Duration::from_millis(1), in_sight);
        pace
    }

    #[test]
    fn a_lone_writer_waits_for_nobody() {
        assert_eq!(Pace::default().share(), 0);
        assert_eq!(seen(1).share(), 1);
        assert!(seen(1).may_send(1, 0));
    }

    #[test]
    fn a_few_share_one_statement() {
        assert_eq!(seen(30).share(), 30);
        assert!(!seen(20).may_send(14, 1));
    }

    #[test]
    fn many_are_halved_and_two_statements_are_under_way() {
        let pace = seen(64);
        assert_eq!(pace.share(), 32);
        assert!(!pace.may_send(23, 1));
        assert!(pace.may_send(24, 1));
        assert!(!pace.may_send(64, 2));
    }

    #[test]
    fn the_wait_is_a_part_of_the_last_statement_and_bounded() {
        assert_eq!(seen(64).limit(), Duration::from_micros(250));
        let mut pace = Pace::default();
        pace.answered(Duration::from_secs(1), 64);
        assert_eq!(pace.limit(), Duration::from_millis(2));
    }
}
