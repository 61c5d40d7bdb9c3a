//! Lines: how often the same thing is said in the log, so that whoever causes it cannot fill the disk.

use otava_actor::Time;
use std::time::Duration;

/// So many lines in so much time; the rest is counted.
const LINES_MAX: u32 = 100;
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Lines {
    since: Time,
    said: u32,
    left_out: u64,
}

impl Lines {
    /// Whether to say it now, and then how many were left out before it.
    pub(crate) fn next(&mut self, now: Time) -> Option<u64> {
        if now.saturating_since(self.since) >= WITHIN {
            (self.since, self.said) = (now, 0);
        }
        if self.said == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X8: a flood of bad callers is a hundred lines in ten seconds, and a count.
    #[test]
    fn what_is_left_out_is_counted() {
        let mut lines = Lines::default();
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let said = |lines: &mut Lines, now, count: u32| {
            let all = (0..count).map(|_| lines.next(now));
            all.flatten().collect::<Vec<_>>()
        };
        assert_eq!(said(&mut lines, at(1), 10_000), vec![0; 100]);
        assert_eq!(said(&mut lines, at(5), 50), []);
        assert_eq!(said(&mut lines, at(20), 2), [9_950, 0]);
    }
}
