//! State store: the trait of stores that keep the newest value of an entity, with its revision.

use crate::error::{AppendError, JournalError};
use crate::id::PersistenceId;
use crate::journal::{EventRecord, Fence, check_scope, within};
use crate::query::{EventQuery, check_tags};
use futures_util::future::BoxFuture;

/// Keeps the newest state of entities that have no events. Each change counts the revision up by
/// one, also a removal.
///
/// # Delivery
/// As [`crate::Journal`]: `Ok` means durable and visible to every read that begins afterwards.
///
/// # Cancel safety
/// A future that is dropped after its first poll does not take back what it asked for.
pub trait StateStore: Send + Sync + 'static {
    /// The state of an id; `None` if there never was one. One that was removed has a revision and
    /// no record.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] when it is damaged, with the revision in place of a sequence number.
    fn load<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<Option<StoredState>, JournalError>>;

    /// Replaces the state, if revision and fence hold. The checks and the write are one transaction.
    ///
    /// # Errors
    /// [`AppendError::WrongSequence`] when the revision is another than the expected one; else see
    /// [`AppendError`]. Nothing was written.
    fn save(&self, request: SaveState) -> BoxFuture<'_, Result<SavedState, AppendError>>;

    /// The newest states that changed behind the position `after`, at most `max`, in the order of
    /// their changes. Of several changes of one id only the last is seen. [`EventQuery::id`],
    /// `kind`, `tag` and `slices` mean what they mean for events.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn changes<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredState>, JournalError>>;
}

/// What [`StateStore::save`] is asked to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SaveState {
    /// Whose state.
    pub id: PersistenceId,
    /// The revision that the writer knows; 0 if it knows of none.
    pub expected_revision: u64,
    /// The right by which is written; `None` for entities that are not sharded.
    pub fence: Option<Fence>,
    /// The new state; `None` removes it.
    pub record: Option<EventRecord>,
}

impl SaveState {
    /// A change without a fence.
    #[must_use]
    pub fn new(id: PersistenceId, expected_revision: u64, record: Option<EventRecord>) -> Self {
        Self {
            id,
            expected_revision,
            fence: None,
            record,
        }
    }

    /// The same with a fence.
    #[must_use]
    pub fn fenced(mut self, fence: Option<Fence>) -> Self {
        self.fence = fence;
        self
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
        if let Some(fence) = &self.fence {
            check_scope(&fence.scope)?;
        }
        let Some(record) = &self.record else {
            return Ok(());
        };
        check_tags(&record.tags)?;
        within(
            "name in bytes",
            record.name.len(),
            EventRecord::NAME_BYTES_MAX,
        )?;
        within(
            "state in bytes",
            record.payload.len(),
            EventRecord::PAYLOAD_BYTES_MAX,
        )
    }
}

/// What was saved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SavedState {
    /// The revision now.
    pub revision: u64,
    /// The position of the change among all changes of states of the store; they grow in commit
    /// order.
    pub position: u64,
}

impl SavedState {
    /// For implementers of [`StateStore`].
    #[must_use]
    pub fn new(revision: u64, position: u64) -> Self {
        Self { revision, position }
    }
}

/// A state that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoredState {
    /// Whose state.
    pub id: PersistenceId,
    /// Counts its changes, from 1 on.
    pub revision: u64,
    /// The position of its last change among all changes of states.
    pub position: u64,
    /// When it was written: milliseconds since 1970 by the clock of the writer.
    pub written_at_ms: u64,
    /// The state; `None` when it was removed.
    pub record: Option<EventRecord>,
}

impl StoredState {
    /// For implementers of [`StateStore`].
    #[must_use]
    pub fn new(
        id: PersistenceId,
        (revision, position): (u64, u64),
        written_at_ms: u64,
        record: Option<EventRecord>,
    ) -> Self {
        Self {
            id,
            revision,
            position,
            written_at_ms,
            record,
        }
    }
}
