//! History: the failures of one actor so far, and what they mean for the next one. Pure: time and
//! randomness are passed in.

use super::strategy::{Backoff, Supervision};
use crate::rng::Rng;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Escalate,
    /// A restart was asked for, but its limit is reached.
    Exhausted,
    /// After this long.
    Restart(Duration),
    Resume,
    Stop,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    window: Window,
    /// Back-offs since the last quiet time.
    waits: u32,
    /// Since when the present instance is ready.
    ready_since: Option<Time>,
}

impl History {
    /// An instance has got through its start hook.
    pub(crate) fn ready(&mut self, now: Time) {
        self.ready_since = Some(now);
    }

    /// What `supervision` means for a failure at `now`; counts the restart if there is to be one.
    pub(crate) fn judge(&mut self, now: Time, supervision: Supervision, rng: &mut Rng) -> Verdict {
        match supervision {
            Supervision::Stop => Verdict::Stop,
            Supervision::Resume => Verdict::Resume,
            Supervision::Escalate => Verdict::Escalate,
            Supervision::Restart { limit, within } => match self.window.allow(now, limit, within) {
                true => Verdict::Restart(Duration::ZERO),
                false => Verdict::Exhausted,
            },
            Supervision::Backoff(backoff) => match self.wait(now, backoff, rng) {
                Some(wait) => Verdict::Restart(wait),
                None => Verdict::Exhausted,
            },
        }
    }

    /// How long to wait; `None` if the limit is reached.
    fn wait(&mut self, now: Time, backoff: Backoff, rng: &mut Rng) -> Option<Duration> {
        // An instance that was never ready was not quiet, however long its factory took.
        let quiet = self.ready_since.take().map(|at| now.saturating_since(at));
        if quiet.is_some_and(|quiet| quiet >= backoff.quiet) {
            self.waits = 0;
        }
        if backoff.limit.is_some_and(|limit| self.waits >= limit) {
            return None;
        }
        let wait = backoff.wait(self.waits, rng);
        self.waits = self.waits.saturating_add(1);
        Some(wait)
    }
}

/// Restarts within a sliding window.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// When they were, the oldest first. Never more than the limit.
    times: VecDeque<Time>,
}

impl Window {
    /// Whether one more restart at `now` is within the limit; counts it if so.
    pub(crate) fn allow(&mut self, now: Time, limit: u32, within: Duration) -> bool {
        if limit == u32::MAX {
            return true;
        }
        while self
            .times
            .front()
            .is_some_and(|&first| now.saturating_since(first) >= within)
        {
            self.times.pop_front();
        }
        let allowed = self.times.len() < limit as usize;
        if allowed {
            self.times.push_back(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn seconds(seconds: u64) -> Time {
        Time::ZERO + SECOND * seconds as u32
    }

    #[test]
    fn the_window_of_restarts_slides() {
        let within = Duration::from_nanos(10);
        let mut window = Window::default();
        let answers = [0, 5, 9, 10, 14, 15].map(|time| window.allow(at(time), 2, within));
        // Those at 0 and 5 count until 10 and 15.
        assert_eq!(answers, [true, true, false, true, false, true]);
    }

    #[test]
    fn a_limit_of_zero_allows_nothing_and_no_limit_keeps_no_record() {
        let mut window = Window::default();
        assert!(!window.allow(Time::ZERO, 0, SECOND));
        assert!((0..1_000).all(|_| window.allow(Time::ZERO, u32::MAX, SECOND)));
        assert!(window.times.is_empty());
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_quiet_time() {
        let backoff = Backoff::new(SECOND, 5 * SECOND).jitter(0.0);
        let (mut history, mut rng) = (History::default(), Rng::seeded(1));
        let mut judge = |ready: Option<u64>, now| {
            if let Some(ready) = ready {
                history.ready(seconds(ready));
            }
            history.judge(seconds(now), backoff.into(), &mut rng)
        };
        let waits = |n| Verdict::Restart(SECOND * n);
        assert_eq!(judge(Some(0), 0), waits(1));
        assert_eq!(judge(Some(1), 1), waits(2));
        // A factory that fails after a minute is no quiet minute.
        assert_eq!(judge(None, 61), waits(4));
        assert_eq!(judge(Some(70), 74), waits(5));
        assert_eq!(judge(Some(80), 84), waits(5));
        assert_eq!(judge(Some(90), 95), waits(1));
    }

    #[test]
    fn the_limit_counts_waits_without_a_quiet_time_between_them() {
        let backoff = Backoff::new(SECOND, SECOND).limit(2);
        let (mut history, mut rng) = (History::default(), Rng::seeded(1));
        let mut judge = |now| {
            history.ready(seconds(10));
            history.judge(seconds(now), backoff.into(), &mut rng)
        };
        let is_restart = |verdict| matches!(verdict, Verdict::Restart(_));
        assert!(is_restart(judge(10)) && is_restart(judge(10)));
        assert_eq!(judge(10), Verdict::Exhausted);
        assert!(is_restart(judge(11)));
    }

    proptest! {
        /// Any mixture of strategies: never more restarts in a window than its limit, never a wait
        /// outside its bounds, the same answers for the same seed, no overflow.
        #[test]
        fn any_story_keeps_the_limits(
            seed: u64,
            limit in 0_u32..6,
            within in 1_u64..50,
            shortest in 1_u64..u64::MAX,
            more: u64,
            ppm in 0_u32..=1_000_000,
            story in proptest::collection::vec((0_u64..20, 0_u8..3), 1..200),
        ) {
            let window = Duration::from_nanos(within);
            let nanos = Duration::from_nanos;
            let backoff = Backoff {
                jitter: ppm,
                ..Backoff::new(nanos(shortest), nanos(shortest.saturating_add(more)))
            };
            let run = || {
                let (mut history, mut rng) = (History::default(), Rng::seeded(seed));
                let mut now = 0;
                let verdicts = story.iter().map(|&(later, kind)| {
                    now += later;
                    if kind == 2 {
                        history.ready(at(now));
                        return (now, kind, Verdict::Resume);
                    }
                    let supervision = match kind {
                        0 => Supervision::Restart { limit, within: window },
                        _ => backoff.into(),
                    };
                    (now, kind, history.judge(at(now), supervision, &mut rng))
                });
                verdicts.collect::<Vec<_>>()
            };
            let verdicts = run();
            prop_assert_eq!(&verdicts, &run());
            let mut restarts = Vec::new();
            for &(now, kind, verdict) in &verdicts {
                match (kind, verdict) {
                    (0, verdict) => {
                        let recent = restarts.iter().filter(|&&then| now - then < within).count();
                        let allowed = recent < limit as usize;
                        prop_assert_eq!(allowed, verdict == Verdict::Restart(Duration::ZERO));
                        if allowed {
                            restarts.push(now);
                        }
                    }
                    (1, Verdict::Restart(wait)) => {
                        prop_assert!(wait >= backoff.shortest);
                        prop_assert!(wait <= backoff.longest.saturating_mul(2));
                    }
                    (1, other) => prop_assert!(false, "{:?}", other),
                    _ => {}
                }
            }
        }
    }
}
