//! IO: what touches files, threads and the wall clock.

pub(crate) mod sqlite;

use std::time::{Duration, SystemTime};

/// Milliseconds since 1970; 0 when the clock stands before that.
pub(crate) fn wall_clock_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
