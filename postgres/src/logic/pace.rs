//! Pace: how many requests gather before a statement is sent, and how long. Pure.
//!
//! Writers that were just answered come back within microseconds, but the next statement would begin
//! without them; batches then alternate between the few and the many. So a statement waits until as many
//! are there as were in sight after the last answer: while others still come, and at most for a part of
//! what that answer took. A lone writer is never kept waiting: nobody else is in sight.
//!
//! When very many are in sight, half of them make a statement, and it is sent while the other half is under
//! way: then the server finds work when it is done, and does not wait until this process has read its
//! answer, told the writers and heard from them again. That takes some 2 us a writer, and a statement more
//! costs the server 280 us, half of them its flush: so for 64 writers it would not pay.

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
    const SECOND_MIN: usize = 64;

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

    /// The wait for them, with so many there at its beginning.
    pub(crate) fn gathering(&self, there: usize) -> Gathering {
        Gathering {
            share: self.share(),
            limit: self.limit,
            there,
            idle: 0,
        }
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

/// The wait until a share is there.
#[derive(Debug)]
pub(crate) struct Gathering {
    share: usize,
    limit: Duration,
    there: usize,
    /// Turns in which nobody came.
    idle: u32,
}

impl Gathering {
    /// Who was just answered comes after two or three turns of the runtime. Whoever does not is kept from it
    /// by something else, for instance by this task, which takes turn after turn.
    const IDLE_MAX: u32 = 8;

    /// Whether to give others one more turn, with `there` requests after `waited`.
    pub(crate) fn goes_on(&mut self, there: usize, waited: Duration) -> bool {
        self.idle = if there > self.there { 0 } else { self.idle + 1 };
        self.there = there;
        there < self.share && waited < self.limit && self.idle <= Self::IDLE_MAX
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
        assert_eq!(seen(126).share(), 126);
        assert!(!seen(126).may_send(62, 1));
    }

    #[test]
    fn very_many_are_halved_and_two_statements_are_under_way() {
        let pace = seen(256);
        assert_eq!(pace.share(), 128);
        assert!(!pace.may_send(95, 1));
        assert!(pace.may_send(96, 1));
        assert!(!pace.may_send(256, 2));
    }

    #[test]
    fn the_wait_is_a_part_of_the_last_statement_and_bounded() {
        let goes_on = |pace: &Pace, micros| {
            let waited = Duration::from_micros(micros);
            pace.gathering(0).goes_on(1, waited)
        };
        assert!(goes_on(&seen(64), 249) && !goes_on(&seen(64), 250));
        let mut pace = Pace::default();
        pace.answered(Duration::from_secs(1), 64);
        assert!(goes_on(&pace, 1_999) && !goes_on(&pace, 2_000));
    }

    #[test]
    fn nobody_waits_for_those_who_do_not_come() {
        let mut gathering = seen(64).gathering(0);
        let waited = Duration::ZERO;
        for there in 1..=60 {
            assert!(gathering.goes_on(there, waited));
        }
        let turns = std::iter::repeat_with(|| gathering.goes_on(60, waited));
        assert_eq!(turns.take_while(|goes_on| *goes_on).count(), 8);
        // A share is whole.
        assert!(!seen(64).gathering(0).goes_on(64, waited));
    }
}
