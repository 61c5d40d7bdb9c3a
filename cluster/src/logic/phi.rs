//! Phi: the accrual failure detector, turning times of heartbeats into the time of suspicion.
//!
//! Hayashibara et al., "The phi accrual failure detector" (2004): the intervals between the last
//! heartbeats are taken as a normal distribution, and phi is how many decimal digits of confidence
//! there are that a heartbeat which has not come will not come. Phi 8 is wrong once in 10^8 times,
//! if the future is like the past. It is not: a garbage collection, a busy disk or a paused virtual
//! machine is in no history, so an acceptable pause is added to the mean, as Pekko does.
//!
//! What the deviation adds is limited, to the acceptable pause or two expected intervals, whichever is
//! longer: of the few intervals after a join on a busy machine each long one would allow the next to be
//! longer, and a failure would be found after 10 s instead of 3. The limit bounds the time of
//! detection by what is configured and by the mean that was seen.
//!
//! Phi grows with time and nothing else, so the moment at which it will cross the threshold is known
//! when a heartbeat arrives. The detector says that moment ([`Detector::deadline`]); nobody polls.

use otava_actor::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Settings of a detector.
#[derive(Clone, Debug, PartialEq)]
pub struct PhiConfig {
    /// Above which phi a node counts as unreachable.
    pub threshold: f64,
    /// How long a node may be silent without having failed.
    pub acceptable_pause: Duration,
    /// The interval that is expected while there is no history.
    pub first_interval: Duration,
    /// The least deviation, for heartbeats that are more regular than the future will be.
    pub deviation_min: Duration,
    /// How many intervals are remembered.
    pub history_max: usize,
}

/// Watches the heartbeats of one node.
#[derive(Clone, Debug)]
pub struct Detector {
    last: Time,
    /// How long after the last heartbeat the threshold is crossed.
    allowance: Duration,
    history: History,
    /// How many deviations after the mean phi crosses the threshold.
    deviations: f64,
    pause: f64,
    deviation_min: f64,
    /// The most seconds that the deviation adds to the mean and the pause.
    margin_max: f64,
}

impl Detector {
    /// A detector that behaves as if a heartbeat had come at `now`, which may be the time until which the
    /// first one is awaited.
    #[must_use]
    pub fn new(config: &PhiConfig, now: Time) -> Self {
        let mut history = History::new(config.history_max.max(2));
        history.add(config.first_interval * 3 / 4);
        history.add(config.first_interval * 5 / 4);
        let pause = config.acceptable_pause.as_secs_f64();
        let mut detector = Self {
            last: now,
            allowance: Duration::ZERO,
            history,
            deviations: deviations_at(config.threshold),
            pause,
            deviation_min: config.deviation_min.as_secs_f64().max(1e-6),
            margin_max: pause.max(config.first_interval.as_secs_f64() * 2.0),
        };
        detector.allow();
        detector
    }

    /// A heartbeat came. An interval that ended a suspicion says nothing of the ordinary ones. One
    /// that was tolerated as a pause counts as the longest ordinary one: if it counted in full it
    /// would be forgiven twice, by the pause and by a deviation that delays the next suspicion by
    /// seconds. Then one node finds the two halves of a picture so far apart in time that it
    /// decides on the first.
    pub fn heartbeat(&mut self, now: Time) {
        if now < self.last {
            // The first one, earlier than it had to be: no interval ends with it.
            self.last = now;
            return;
        }
        if now <= self.deadline() {
            let ordinary = self.allowance.saturating_sub(self.pause());
            let interval = now.saturating_since(self.last);
            self.history.add(interval.min(ordinary));
            self.allow();
        }
        self.last = self.last.max(now);
    }

    /// This process itself was held up for `length`: that time does not count.
    pub fn excuse(&mut self, length: Duration) {
        self.last += length;
    }

    /// The moment after which the node counts as unreachable, if nothing is heard.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.last + self.allowance
    }

    /// The suspicion at `now`.
    #[must_use]
    pub fn phi(&self, now: Time) -> f64 {
        let (mean, deviation) = self.normal();
        let silent = now.saturating_since(self.last).as_secs_f64();
        let exponent = exponent((silent - mean - self.pause) / deviation);
        // log10(1 + e^x), without overflow for large x.
        if exponent > 30.0 {
            exponent / std::f64::consts::LN_10
        } else {
            exponent.exp().ln_1p() / std::f64::consts::LN_10
        }
    }

    fn pause(&self) -> Duration {
        Duration::try_from_secs_f64(self.pause).unwrap_or(Duration::MAX)
    }

    /// Mean and deviation of the intervals in seconds, the deviation within its limits.
    fn normal(&self) -> (f64, f64) {
        let (mean, deviation) = self.history.normal();
        let most = self.margin_max / self.deviations;
        (mean, deviation.min(most).max(self.deviation_min))
    }

    fn allow(&mut self) {
        let (mean, deviation) = self.normal();
        let seconds = mean + self.pause + deviation * self.deviations;
        self.allowance = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    }
}

/// The logistic approximation of the normal distribution's tail (Bowling et al., 2009): the chance
/// of a value beyond `y` deviations is `1 / (1 + e^exponent(y))`.
fn exponent(y: f64) -> f64 {
    y * (1.5976 + 0.070566 * y * y)
}

/// At how many deviations phi is `threshold`: `exponent` is monotone, so halving finds it.
fn deviations_at(threshold: f64) -> f64 {
    let threshold = threshold.clamp(0.5, 300.0);
    let wanted = threshold * std::f64::consts::LN_10;
    let (mut low, mut high) = (0.0, 64.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if exponent(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The last intervals, with their sums in whole microseconds, so that nothing is ever rounded.
#[derive(Clone, Debug)]
struct History {
    intervals: VecDeque<u64>,
    sum: u128,
    squares: u128,
    len_max: usize,
}

impl History {
    fn new(len_max: usize) -> Self {
        Self {
            intervals: VecDeque::new(),
            sum: 0,
            squares: 0,
            len_max,
        }
    }

    fn add(&mut self, interval: Duration) {
        if self.intervals.len() == self.len_max
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= u128::from(oldest);
            self.squares -= u128::from(oldest) * u128::from(oldest);
        }
        // No interval is longer than a year, so the squares of all of them fit.
        let micros = interval.as_micros().min(1 << 45) as u64;
        self.intervals.push_back(micros);
        self.sum += u128::from(micros);
        self.squares += u128::from(micros) * u128::from(micros);
    }

    /// Mean and deviation in seconds.
    fn normal(&self) -> (f64, f64) {
        let len = self.intervals.len() as u128;
        let spread = (self.squares * len).saturating_sub(self.sum * self.sum);
        let mean = self.sum as f64 / len as f64 / 1e6;
        let deviation = (spread as f64).sqrt() / len as f64 / 1e6;
        (mean, deviation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PhiConfig {
        PhiConfig {
            threshold: 8.0,
            acceptable_pause: Duration::from_secs(3),
            first_interval: Duration::from_millis(500),
            deviation_min: Duration::from_millis(100),
            history_max: 100,
        }
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn after_regular_heartbeats(until: u64) -> Detector {
        let mut detector = Detector::new(&config(), at(0));
        for millis in (500..=until).step_by(500) {
            detector.heartbeat(at(millis));
        }
        detector
    }

    /// C3: a short cut does not delay the next suspicion by more than a heartbeat.
    #[test]
    fn a_tolerated_pause_is_not_tolerated_twice() {
        for beats in [1_000, 5_000, 50_000] {
            let mut detector = after_regular_heartbeats(beats);
            let before = detector.deadline().saturating_since(at(beats));
            let end = beats + 3_400;
            detector.heartbeat(at(end));
            let after = detector.deadline().saturating_since(at(end));
            let most = before + Duration::from_secs(1);
            assert!(after <= most, "{beats}: {before:?}, then {after:?}");
        }
    }

    /// C3: few and long intervals after a join on a busy machine do not blunt the detector.
    #[test]
    fn long_intervals_after_a_join_do_not_let_each_other_grow() {
        let mut detector = Detector::new(&config(), at(0));
        for millis in [3_000, 7_000, 11_000] {
            detector.heartbeat(at(millis));
        }
        let allowance = detector.deadline().saturating_since(at(11_000));
        assert!(allowance < Duration::from_secs(8), "{allowance:?}");
    }

    /// A phase of long intervals that is over is no deviation that delays detection by seconds.
    #[test]
    fn what_the_deviation_adds_is_limited() {
        let mut detector = after_regular_heartbeats(100_000);
        let mut now = 100_000;
        for round in 0..200 {
            now += if round % 4 < 2 { 100 } else { 3_500 };
            detector.heartbeat(at(now));
        }
        let mean = Duration::from_millis(1_800);
        let most = mean + Duration::from_secs(3 + 3);
        let allowance = detector.deadline().saturating_since(at(now));
        assert!(allowance <= most, "{allowance:?}");
    }

    /// Without an acceptable pause irregular heartbeats still get two intervals more.
    #[test]
    fn without_a_pause_the_deviation_may_add_two_intervals() {
        let config = PhiConfig {
            acceptable_pause: Duration::ZERO,
            ..config()
        };
        let mut detector = Detector::new(&config, at(0));
        let mut now = 0;
        for round in 0..100 {
            now += if round % 2 == 0 { 200 } else { 800 };
            detector.heartbeat(at(now));
        }
        let allowance = detector.deadline().saturating_since(at(now));
        assert!(
            Duration::from_millis(1_400) < allowance && allowance <= Duration::from_millis(1_500),
            "{allowance:?}"
        );
    }

    /// C3: found unreachable within 5 seconds.
    #[test]
    fn suspects_after_pause_and_five_to_six_deviations() {
        let detector = after_regular_heartbeats(100_000);
        let deadline = detector.deadline();
        assert!(
            at(104_000) < deadline && deadline < at(104_200),
            "{deadline}"
        );
        assert!(detector.phi(at(103_400)) < 1.0);
        assert!((detector.phi(deadline) - 8.0).abs() < 0.01);
    }

    /// C3: a node that dies before its first heartbeat is found too.
    #[test]
    fn a_node_that_never_answered_is_found() {
        let deadline = Detector::new(&config(), at(0)).deadline();
        assert!(at(4_000) < deadline && deadline < at(4_500), "{deadline}");
    }

    /// C5: a pause of 2 seconds raises no alarm, and one long silence does not blunt the detector.
    #[test]
    fn a_silence_within_the_pause_is_no_alarm_and_a_longer_one_is_not_learnt() {
        let mut detector = after_regular_heartbeats(100_000);
        assert!(detector.deadline() > at(102_500));
        detector.heartbeat(at(110_000));
        assert!(detector.deadline() < at(114_200));
    }

    #[test]
    fn irregular_heartbeats_get_more_time() {
        let mut jittery = Detector::new(&config(), at(0));
        let mut now = 0;
        for round in 0..100 {
            now += if round % 2 == 0 { 100 } else { 900 };
            jittery.heartbeat(at(now));
        }
        let allowance = jittery.deadline().saturating_since(at(now));
        assert!(allowance > Duration::from_millis(5_500), "{allowance:?}");
    }

    #[test]
    fn time_in_which_this_process_stood_still_does_not_count() {
        let mut detector = after_regular_heartbeats(10_000);
        let before = detector.deadline();
        detector.excuse(Duration::from_secs(60));
        assert_eq!(detector.deadline(), before + Duration::from_secs(60));
    }

    #[test]
    fn phi_never_overflows() {
        let detector = after_regular_heartbeats(1_000);
        assert!(detector.phi(Time::MAX) > 1e9);
        assert_eq!(deviations_at(f64::INFINITY), deviations_at(300.0));
    }
}
