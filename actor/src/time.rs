//! Time: the one clock type of Otava, nanoseconds since the start of an actor system.
//!
//! `std::time::Instant` cannot be built from a number, so a recorded run could not be replayed with
//! it. `Time` can: protocol logic takes it as an argument, prints it, and stores it in event logs.
//! Only [`crate::ActorSystem::now`] reads a clock, and that clock is tokio's, which tests may pause.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point in time: nanoseconds since the clock that made it was started.
///
/// Times of two systems are not comparable. All arithmetic saturates: a deadline that does not fit
/// is [`Time::MAX`], which means "never".
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

impl Time {
    /// The moment at which the clock was started.
    pub const ZERO: Self = Self(0);
    /// Later than everything that can happen, some 584 years after the start.
    pub const MAX: Self = Self(u64::MAX);

    /// The time `nanos` nanoseconds after the start of the clock.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start of the clock.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, length: Duration) {
        *self = *self + length;
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Time {
    /// Seconds with nine digits, the same text in every run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}s",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

/// The clock of one system: tokio's, so that a paused runtime pauses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.time(tokio::time::Instant::now())
    }

    pub(crate) fn time(&self, instant: tokio::time::Instant) -> Time {
        Time::ZERO + instant.saturating_duration_since(self.origin)
    }

    /// The tokio instant of `time`; times too far away become some thirty years from now.
    pub(crate) fn instant(&self, time: Time) -> tokio::time::Instant {
        self.origin
            .checked_add(Duration::from_nanos(time.0))
            .unwrap_or_else(far_away)
    }
}

/// An instant that no program waits for, as tokio itself uses it for sleeps that overflow.
pub(crate) fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400 * 365 * 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time::MAX + Duration::from_secs(1), Time::MAX);
        assert_eq!(Time::ZERO + Duration::MAX, Time::MAX);
        assert_eq!(Time::ZERO.saturating_since(Time::MAX), Duration::ZERO);
    }

    #[test]
    fn prints_seconds_with_nine_digits() {
        assert_eq!(Time::from_nanos(1_500_000_002).to_string(), "1.500000002s");
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_paused_clock() {
        let clock = Clock::start();
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!(clock.now(), Time::from_nanos(7_000_000));
        assert_eq!(clock.instant(clock.now()), tokio::time::Instant::now());
    }
}
