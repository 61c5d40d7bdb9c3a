//! Snapshot store: the trait of stores that keep states, from which recovery starts.

use crate::error::JournalError;
use crate::id::PersistenceId;
use crate::journal::{EventRecord, within};
use futures_util::future::BoxFuture;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Keeps states of entities. A snapshot is never the truth, only a shorter way to it: whatever is
/// wrong with one, recovery takes an older one or all events.
///
/// # Cancel safety
/// A future that is dropped after its first poll does not take back what it asked for.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Stores a snapshot and removes all but the newest `keep` of its id. One with the same
    /// sequence number is replaced.
    ///
    /// # Errors
    /// See [`JournalError`]; the snapshots that were there are still there.
    fn save(&self, snapshot: Snapshot, keep: NonZeroU32)
    -> BoxFuture<'_, Result<(), JournalError>>;

    /// The newest snapshot of an id that is intact and not newer than `seq_max`. Broken ones are
    /// passed over, and logged.
    ///
    /// # Errors
    /// See [`JournalError`]; a broken snapshot is no error.
    fn latest<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, JournalError>>;

    /// Removes the snapshots of an id up to and including `seq_max`.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn delete<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<(), JournalError>>;
}

/// The state of one entity after one of its events.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whose state.
    pub id: PersistenceId,
    /// The last event that is in it.
    pub seq: u64,
    /// The stable name of what is stored: the name of the events it was made from.
    pub name: Arc<str>,
    /// The version of the state's layout.
    pub version: u16,
    /// The encoded state ([`crate::format`]).
    pub payload: Vec<u8>,
}

impl Snapshot {
    /// The largest payload in bytes, 256 MiB. Stores refuse larger ones.
    pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

    /// A state in its stored form.
    #[must_use]
    pub fn new(
        id: PersistenceId,
        seq: u64,
        name: impl Into<Arc<str>>,
        version: u16,
        payload: Vec<u8>,
    ) -> Self {
        Self {
            id,
            seq,
            name: name.into(),
            version,
            payload,
        }
    }

    /// Compares with the limits that hold for every store. Implementers call it first.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] names the limit.
    pub fn check_limits(&self) -> Result<(), JournalError> {
        within(
            "persistence id in bytes",
            self.id.as_str().len(),
            PersistenceId::BYTES_MAX,
        )?;
        within(
            "name in bytes",
            self.name.len(),
            EventRecord::NAME_BYTES_MAX,
        )?;
        within(
            "snapshot in bytes",
            self.payload.len(),
            Self::PAYLOAD_BYTES_MAX,
        )
    }
}
