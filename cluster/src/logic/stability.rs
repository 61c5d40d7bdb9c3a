//! Stability: when a downing decision may be made, and when it was awaited for too long. Pure.
//!
//! A decision made while the picture still changes is made on half a picture: of a rack that loses
//! its switch, one node is missed first. So a decision waits until nothing has changed for
//! `stable_after`. That alone would wait for ever while something flaps, with some members acting
//! on what others do not see; so if the picture has not held still within a further limit since it
//! first wavered, all go down.
//!
//! To lose one member after another is no wavering: that ends by itself, and a cluster whose second
//! node crashes while it waits to decide on the first must not stop for it. So the limit counts from
//! the last loss before somebody came back. And it leaves room for one whole wait that is begun anew,
//! by a leader that stood still for a moment of which nobody else knows.

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
    stable_after + Duration::from_secs(4)
}

/// Times of changes in who is reachable.
#[derive(Clone, Debug, Default)]
pub struct Stability {
    /// Of the changes that are not settled yet; the last one as long as members were lost only.
    first: Option<Time>,
    /// Whether somebody came back since then.
    wavers: bool,
    latest: Time,
}

impl Stability {
    /// Members became unreachable, and nobody reachable again.
    pub fn lost(&mut self, now: Time) {
        if !self.wavers {
            self.first = Some(now);
        }
        self.latest = now;
    }

    /// Somebody became reachable again.
    pub fn came_back(&mut self, now: Time) {
        self.first.get_or_insert(now);
        self.wavers = true;
        self.latest = now;
    }

    /// The members changed: the picture is a new one.
    pub fn members_changed(&mut self, now: Time) {
        self.latest = now;
    }

    /// Nobody is unreachable any more but those who are out.
    pub fn settled(&mut self) {
        self.first = None;
        self.wavers = false;
    }

    /// A decision was carried out.
    pub fn decided(&mut self, now: Time) {
        self.settled();
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
        stability.lost(at(10));
        for second in 11..14 {
            stability.came_back(at(second));
            stability.lost(at(second));
        }
        assert_eq!(stability.decide_at(wait), at(13 + 8));
        assert_eq!(stability.give_up_at(wait), Some(at(10 + 8 + 12)));
        stability.settled();
        assert_eq!(stability.give_up_at(wait), None);
        stability.lost(at(40));
        stability.lost(at(41));
        assert_eq!(stability.give_up_at(wait), Some(at(41 + 8 + 12)));
    }

    /// C3: one crash after the other, each while the one before is waited for, is no reason to stop.
    #[test]
    fn losses_alone_put_the_limit_off_too() {
        let wait = Duration::from_secs(3);
        let mut stability = Stability::default();
        for second in [10, 12, 14, 16, 18] {
            stability.lost(at(second));
            assert!(Some(stability.decide_at(wait)) < stability.give_up_at(wait));
        }
    }

    /// C5: a leader that stood still just before it decides waits once more, unknown to the others.
    #[test]
    fn a_wait_that_is_begun_anew_ends_before_the_others_give_up() {
        for members in [3, 5, 20, 100, 1_000] {
            let wait = stable_after(members);
            let (mut leader, mut other) = (Stability::default(), Stability::default());
            leader.lost(at(10));
            other.lost(at(10));
            let pause = Duration::from_secs(3);
            leader.excuse(at(10) + wait + pause, pause);
            assert!(Some(leader.decide_at(wait)) < other.give_up_at(wait));
        }
    }
}
