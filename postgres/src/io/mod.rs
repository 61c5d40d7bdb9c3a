//! IO: the stores at work on connections. What is asked for is made in `logic/`.

pub(crate) mod committer;
pub(crate) mod connect;
pub(crate) mod fault;
pub(crate) mod journal;
#[cfg(feature = "lease")]
pub(crate) mod lease;
pub(crate) mod migrate;
pub(crate) mod news;
pub(crate) mod offsets;
pub(crate) mod projection;
pub(crate) mod queries;
pub(crate) mod replies;
pub(crate) mod rows;
pub(crate) mod server;
pub(crate) mod snapshots;
pub(crate) mod states;
pub(crate) mod writes;

/// Milliseconds since 1970 by the clock of this process; 0 before.
pub(crate) fn wall_clock_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
