//! Limits: what this store refuses beyond the limits that hold for every store. Pure.

use otava_persistence::{AppendRequest, Fence, JournalError, PersistenceId};

/// The largest append in bytes: it has to fit into one message to the server, and its memory.
pub(crate) const APPEND_BYTES_MAX: usize = 256 << 20;

pub(crate) fn within(what: &'static str, actual: usize, limit: usize) -> Result<(), JournalError> {
    if actual <= limit {
        return Ok(());
    }
    Err(JournalError::TooLarge {
        what,
        actual: actual as u64,
        limit: limit as u64,
    })
}

pub(crate) fn check_scope(scope: &str) -> Result<(), JournalError> {
    within("scope in bytes", scope.len(), Fence::SCOPE_BYTES_MAX)
}

pub(crate) fn check_id(id: &PersistenceId) -> Result<(), JournalError> {
    let bytes = id.as_str().len();
    within("persistence id in bytes", bytes, PersistenceId::BYTES_MAX)
}

pub(crate) fn check_append(request: &AppendRequest) -> Result<(), JournalError> {
    request.check_limits()?;
    let bytes: usize = request.events.iter().map(|event| event.payload.len()).sum();
    within("append in bytes", bytes, APPEND_BYTES_MAX)
}

/// A number as the server keeps it. It has no unsigned ones.
///
/// # Errors
/// [`JournalError::TooLarge`] above `i64::MAX`.
pub(crate) fn signed(what: &'static str, number: u64) -> Result<i64, JournalError> {
    i64::try_from(number).map_err(|_| JournalError::TooLarge {
        what,
        actual: number,
        limit: i64::MAX.unsigned_abs(),
    })
}

/// A number for a comparison: one that the server cannot hold equals none that it holds.
pub(crate) fn to_compare(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(-1)
}

/// A number for a bound: all that the server can hold are below.
pub(crate) fn to_bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
