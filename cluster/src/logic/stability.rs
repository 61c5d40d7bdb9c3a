//! Stability: when a downing decision may be made, and when it was awaited for too long. Pure.
//!
//! A decision made while the picture still changes is made on half a picture: of a rack that loses
//! its switch, one node is missed first. So a decision waits until nothing has changed for
//! `stable_after`. That alone would wait for ever while something flaps, with some members acting
//! on what others do not see; so if the picture has not held still within a further limit since it
//! first changed, all go down.

use otava_actor::Time;
use std::time::Duration;

/// How long the picture must hold still before a decision, for a cluster of `members`: the more
/// members, the longer news takes to reach all. 3 seconds up to 5 members, then 5 s at 10, 8 s at
/// 20, 12 s at 50, 15 s at 100 and 25 s from 1,000 on, straight lines in between.
#[must_use]
pub fn stable_after(members: usize) -> Duration {
    const STEPS: [(u64, u64); 6] = [
        (5, 3_000),
        (10, 5_000),
        (20, 8_000),
        (50, 12_000),
        (100, 15_000),
        (1_000, 25_000),
    ];
    let members = members as u64;
    let mut below = STEPS[0];
    for step in STEPS {
        if members <= step.0 {
            let width = (step.0 - below.0).max(1);
            let part = members.saturating_sub(below.0) * (step.1 - below.1) / width;
            return Duration::from_millis(below.1 + part);
        }
        below = step;
    }
    Duration::from_millis(below.1)
}

/// How much longer than `stable_after` the picture may go on changing before all go down.
#[must_use]
pub fn unstable_limit(stable_after: Duration) -> Duration {
    (stable_after * 3 / 4).max(Duration::from_secs(4))
}

/// Times of changes in who is reachable.
#[derive(Clone, Debug, Default)]
pub struct Stability {
    /// Of the changes that are not settled yet.
    first: Option<Time>,
    latest: Time,
}

impl Stability {
    /// Somebody became reachable or unreachable.
    pub fn reachability_changed(&mut self, now: Time) {
        self.first.get_or_insert(now);
        self.latest = now;
    }

    /// The members changed: the picture is a new one.
    pub fn members_changed(&mut self, now: Time) {
        self.latest = now;
    }

    /// Nobody is unreachable any more but those who are out.
    pub fn settled(&mut self) {
        self.first = None;
    }

    /// A decision was carried out.
    pub fn decided(&mut self, now: Time) {
        self.first = None;
        self.latest = now;
    }

    /// This process stood still for `length`: what it knows is as old as that, so it waits as long.
    pub fn excuse(&mut self, now: Time, length: Duration) {
        self.first = self.first.map(|first| first + length);
        self.latest = now;
    }

    /// When a decision may be made, if nothing changes.
    #[must_use]
    pub fn decide_at(&self, stable_after: Duration) -> Time {
        self.latest + stable_after
    }

    /// When all go down, if nothing is settled.
    #[must_use]
    pub fn give_up_at(&self, stable_after: Duration) -> Option<Time> {
        let first = self.first?;
        Some(first + stable_after + unstable_limit(stable_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn larger_clusters_wait_longer() {
        let waits = [0, 1, 5, 10, 15, 20, 50, 100, 550, 1_000, 9_999].map(stable_after);
        let millis = waits.map(|wait| wait.as_millis());
        assert_eq!(
            millis,
            [
                3_000, 3_000, 3_000, 5_000, 6_500, 8_000, 12_000, 15_000, 20_000, 25_000, 25_000
            ]
        );
        assert!((0..2_000).map(stable_after).is_sorted());
    }

    /// C4: all go down after the limit and not before, however often the picture changes.
    #[test]
    fn changes_put_the_decision_off_but_not_the_limit() {
        let wait = Duration::from_secs(8);
        let mut stability = Stability::default();
        assert_eq!(stability.give_up_at(wait), None);
        for second in 10..14 {
            stability.reachability_changed(at(second));
        }
        assert_eq!(stability.decide_at(wait), at(13 + 8));
        assert_eq!(stability.give_up_at(wait), Some(at(10 + 8 + 6)));
        stability.settled();
        assert_eq!(stability.give_up_at(wait), None);
        assert_eq!(unstable_limit(Duration::from_secs(3)).as_secs(), 4);
    }
}
