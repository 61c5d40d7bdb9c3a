//! Load: how many messages a second each shard of a region handles, measured and smoothed.
//! Pure: no clock, no IO.

use otava_actor::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Counts deliveries by shard. Each measure is the mean of the last one and what was counted since: half
/// of a burst is forgotten with every interval.
#[derive(Debug)]
pub struct Meter {
    every: Option<Duration>,
    measured_at: Time,
    gauges: BTreeMap<u32, Gauge>,
}

#[derive(Debug, Default)]
struct Gauge {
    count: u64,
    /// Missing until a whole interval was counted.
    rate: Option<u32>,
}

impl Meter {
    /// Measures at this interval, or never.
    #[must_use]
    pub fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            measured_at: Time::ZERO,
            gauges: BTreeMap::new(),
        }
    }

    /// Notes that messages went to entities of `shard`. Before the shard's first interval this counts
    /// nothing.
    pub fn count(&mut self, shard: u32, messages: u64) {
        if let Some(gauge) = self.gauges.get_mut(&shard) {
            gauge.count += messages;
        }
    }

    /// Whether it is time to measure.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.every.is_some() && now >= self.next()
    }

    /// Measures the shards that are here, if it is time. Whether any measure has changed.
    pub fn measure(&mut self, now: Time, here: impl Iterator<Item = u32>) -> bool {
        let Some(every) = self.every.filter(|_| self.is_due(now)) else {
            return false;
        };
        let passed = now.saturating_since(self.measured_at).max(every);
        self.measured_at = now;
        let mut before = std::mem::take(&mut self.gauges);
        let mut changed = false;
        for shard in here {
            let mut gauge = Gauge::default();
            if let Some(Gauge { count, rate }) = before.remove(&shard) {
                let counted = u128::from(count) * 1_000_000_000 / passed.as_nanos().max(1);
                let counted = u32::try_from(counted).unwrap_or(u32::MAX);
                // Rounded down, so that an idle shard comes to rest at 0.
                let smoothed = rate.map_or(counted, |rate| rate / 2 + counted / 2);
                gauge.rate = Some(smoothed);
                changed |= rate != gauge.rate;
            }
            self.gauges.insert(shard, gauge);
        }
        changed
    }

    /// Messages a second, by shard, of those that were measured.
    pub fn rates(&self) -> impl Iterator<Item = (u32, u32)> {
        let gauges = self.gauges.iter();
        gauges.filter_map(|(shard, gauge)| Some((*shard, gauge.rate?)))
    }

    /// When to measure next.
    #[must_use]
    pub fn next(&self) -> Time {
        self.every
            .map_or(Time::MAX, |every| self.measured_at + every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * SECOND)
    }

    #[test]
    fn a_rate_is_smoothed_and_comes_to_rest() {
        let mut meter = Meter::new(Some(Duration::from_secs(2)));
        let here = || [7, 8].into_iter();
        meter.count(7, 1);
        assert!(!meter.measure(at(1), here()), "too early");
        assert!(
            !meter.measure(at(2), here()),
            "nothing was counted for long enough"
        );
        assert_eq!(meter.rates().count(), 0);
        (0..200).for_each(|_| meter.count(7, 1));
        assert!(meter.measure(at(4), here()));
        assert_eq!(meter.rates().collect::<Vec<_>>(), [(7, 100), (8, 0)]);
        assert!(meter.measure(at(6), here()));
        assert_eq!(meter.rates().collect::<Vec<_>>(), [(7, 50), (8, 0)]);
        let rests = (4..40).find(|n| !meter.measure(at(2 * n), here()));
        assert!(rests.is_some_and(|n| n < 12));
        assert!(meter.rates().all(|(_, rate)| rate == 0));
    }

    #[test]
    fn a_shard_that_left_is_forgotten_and_one_that_comes_is_new() {
        let mut meter = Meter::new(Some(Duration::from_secs(1)));
        meter.measure(at(1), [1].into_iter());
        meter.count(1, 1);
        meter.measure(at(2), [1].into_iter());
        meter.measure(at(3), [2].into_iter());
        assert_eq!(meter.rates().count(), 0);
        assert_eq!(meter.next(), at(4));
    }

    #[test]
    fn nothing_is_measured_unless_wanted() {
        let mut meter = Meter::new(None);
        assert!(!meter.measure(at(100), [1].into_iter()));
        assert_eq!((meter.next(), meter.rates().count()), (Time::MAX, 0));
    }
}
