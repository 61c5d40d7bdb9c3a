//! Latency: how long commands took, as counts in buckets that grow by an eighth of a power of two.

use std::time::Duration;

/// Sub-buckets in each power of two: a value is off by at most 1/16 of itself.
const STEPS: u64 = 8;
const BUCKETS: usize = (STEPS as usize) * 62;

/// A histogram of microseconds in constant memory.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: Duration::ZERO,
        }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(took);
    }

    /// The value that the share `part` (0 to 1) of all values does not exceed; zero when empty.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(middle(index)).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }
}

/// Values below `STEPS` have a bucket each; above, the top bit and the three bits behind it count.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let power = u64::from(micros.ilog2());
    let step = (micros >> (power - 3)) & (STEPS - 1);
    ((power - 2) * STEPS + step) as usize
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS + 2;
    let width = 1 << (power - 3);
    (STEPS + bucket % STEPS) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_a_sixteenth_of_its_bucket() {
        for micros in (0..100_000).chain([1 << 40, (1 << 62) + 12_345]) {
            let shown = middle(bucket(micros));
            assert!(
                shown.abs_diff(micros) <= micros / 16,
                "{micros} shown as {shown}"
            );
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_come_from_the_ranks() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.99), Duration::ZERO);
        for millis in 1..=1_000 {
            latencies.record(Duration::from_millis(millis));
        }
        let near = |part, millis: u64| {
            let got = latencies.quantile(part).as_millis() as u64;
            assert!(got.abs_diff(millis) <= millis / 16, "{part}: {got}");
        };
        near(0.5, 500);
        near(0.99, 990);
        assert_eq!(latencies.quantile(1.0), Duration::from_millis(1_000));
        assert_eq!(latencies.max(), Duration::from_millis(1_000));
    }
}
