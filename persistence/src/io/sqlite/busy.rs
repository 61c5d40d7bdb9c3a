//! Busy handler: how a connection waits for a lock that another process holds.
//!
//! SQLite's own handler sleeps whole milliseconds, many commits long. This one gives the processor
//! away first, for the holder may need it, then sleeps a fraction of a commit, up to a limit.

use rusqlite::Connection;
use std::time::{Duration, Instant};

/// Attempts that only yield.
const YIELDS: i32 = 16;
/// About half of a commit on a fast disk.
const PAUSE: Duration = Duration::from_micros(100);

/// Makes `connection` wait at most `limit` for one lock.
pub(super) fn install(connection: &mut Connection, limit: Duration) -> rusqlite::Result<()> {
    let mut begin = Instant::now();
    connection.busy_handler(Some(move |attempts: i32| {
        if attempts == 0 {
            begin = Instant::now();
        }
        if attempts < YIELDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(PAUSE);
        }
        begin.elapsed() < limit
    }))
}
