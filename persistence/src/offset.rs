//! Offset store: the trait of stores that remember how far a projection has come.

use crate::error::JournalError;
use crate::journal::within;
use futures_util::future::BoxFuture;

/// Remembers the offsets of projections: for each key the position behind which to go on.
///
/// # Cancel safety
/// A future that is dropped after its first poll does not take back what it asked for.
pub trait OffsetStore: Send + Sync + 'static {
    /// The offset of a key; `None` if none was saved.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>, JournalError>>;

    /// Saves an offset, also a lower one than is there: that is how a projection is begun again.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn save<'a>(&'a self, key: &'a str, offset: u64) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Forgets an offset. Forgetting one that is not there is fine.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn clear<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), JournalError>>;
}

/// The longest key of an offset in bytes. Stores refuse longer ones.
pub const OFFSET_KEY_BYTES_MAX: usize = 512;

/// Compares a key with the limit that holds for every store. Implementers call it first.
///
/// # Errors
/// [`JournalError::TooLarge`] names the limit.
pub fn check_offset_key(key: &str) -> Result<(), JournalError> {
    within("offset key in bytes", key.len(), OFFSET_KEY_BYTES_MAX)
}
