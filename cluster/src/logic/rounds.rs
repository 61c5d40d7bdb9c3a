//! Rounds: which of the rounds of a gossip with a fixed interval go out, so that a larger cluster has fewer. Pure.

use crate::logic::gossip::widened;
use otava_actor::Time;
use std::time::Duration;

/// A round is a few questions in a row; the next one comes an interval later.
#[derive(Debug)]
pub struct Rounds {
    interval: Duration,
    /// Questions until then belong to the round that went out last.
    open_until: Time,
    next: Time,
    /// Questions that go out besides, for there is news.
    urgent: usize,
}

impl Rounds {
    /// Of a gossip that begins one every `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            open_until: Time::ZERO,
            next: Time::ZERO,
            urgent: 0,
        }
    }

    /// The next questions go out whatever the time.
    pub fn expect_urgent(&mut self, questions: usize) {
        self.urgent = questions;
    }

    /// Whether a question goes out in a cluster of `nodes`.
    pub fn lets_out(&mut self, now: Time, nodes: usize) -> bool {
        if self.urgent > 0 {
            self.urgent -= 1;
            return true;
        }
        if now < self.open_until {
            return true;
        }
        // The ticks of the gossip are not exact.
        let early = self.interval / 4;
        if now + early < self.next {
            return false;
        }
        self.open_until = now + early;
        // Each question and answer names every node. So the wait grows with their number, twice as fast as
        // that of our own gossip: 100 nodes then cost each other less than 20 kB/s.
        let nodes = nodes.max((2 * nodes).saturating_sub(16));
        self.next = now + widened(self.interval, nodes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How many questions go out in 100 ticks of three questions each.
    fn out_of_300(rounds: &mut Rounds, nodes: usize) -> usize {
        let ticks = (0..100).map(|tick| Time::ZERO + MS * 400 * tick + MS * (tick % 3));
        let questions = ticks.flat_map(|tick| (0..3).map(move |n| tick + MS / 10 * n));
        questions.filter(|now| rounds.lets_out(*now, nodes)).count()
    }

    #[test]
    fn a_small_cluster_has_all_its_rounds_and_a_larger_one_fewer_whole_ones() {
        let rounds = || Rounds::new(MS * 400);
        assert_eq!(out_of_300(&mut rounds(), 5), 300);
        assert_eq!(out_of_300(&mut rounds(), 16), 300);
        // Every ninth, and every nineteenth.
        assert_eq!(out_of_300(&mut rounds(), 80), 3 * 12);
        assert_eq!(out_of_300(&mut rounds(), 160), 3 * 6);
    }

    #[test]
    fn news_waits_for_no_round() {
        let mut rounds = Rounds::new(MS * 400);
        let at = |ms| Time::ZERO + MS * ms;
        assert!(rounds.lets_out(at(0), 160));
        assert!(!rounds.lets_out(at(400), 160));
        rounds.expect_urgent(2);
        assert!(rounds.lets_out(at(410), 160));
        assert!(rounds.lets_out(at(420), 160));
        assert!(!rounds.lets_out(at(800), 160));
    }
}
