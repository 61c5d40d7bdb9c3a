//! Journal: the trait of stores that keep events, and what passes through it.

use crate::error::{AppendError, ClaimError, JournalError};
use crate::id::PersistenceId;
use crate::offset::OffsetStore;
use crate::query::{EventQueries, check_tags};
use crate::snapshot::SnapshotStore;
use crate::state::StateStore;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending, ready};
use std::sync::Arc;

/// A durable, ordered log of events for each persistence id, with fencing.
///
/// Object-safe: entities share an `Arc<dyn Journal>`. An implementation proves itself with
/// [`crate::conformance::journal`].
///
/// # Delivery
/// `Ok` of a writing method means: durable, and visible to every read that begins afterwards, in
/// every process. An append is all there or not at all. After an error other than
/// [`JournalError::Halted`] and [`JournalError::Unknown`] nothing was written.
///
/// # Cancel safety
/// A future that is dropped after its first poll does not take back what it asked for.
pub trait Journal: Send + Sync + 'static {
    /// Appends events after the expected sequence number, if the fence holds. The checks and the
    /// write are one transaction. No events is allowed: the checks are made, nothing is written.
    ///
    /// # Errors
    /// See [`AppendError`]. What is refused spoils no other append, also when they share a commit.
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Reads the events of one id from `from_seq` on, at most `max` of them, in order and without
    /// gaps. An empty page means that there are none. Events that were deleted are passed over:
    /// [`EventPage::deleted_seq`] tells how far.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] names the first event that is damaged or missing.
    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>>;

    /// The newest sequence number of an id; 0 if it has no events.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn highest_seq<'a>(&'a self, id: &'a PersistenceId)
    -> BoxFuture<'a, Result<u64, JournalError>>;

    /// Claims a scope: from now on only appends whose fence has exactly this epoch are accepted.
    /// Claiming the current epoch again is fine and changes nothing.
    ///
    /// # Errors
    /// [`ClaimError::Fenced`] when a higher epoch was claimed already.
    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>>;

    /// Gives the next number of a series, from 1 on. No number is given twice, whoever asks; after
    /// a crash a number may be left out.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>>;

    /// Removes the events of one id up to and including a sequence number, if the fence holds. What
    /// follows keeps its numbers, and [`Journal::highest_seq`] stays, also when no event is left:
    /// no number is ever given twice. A number above the newest one removes all.
    ///
    /// A store that cannot do it refuses, as this default does.
    ///
    /// # Errors
    /// See [`AppendError`]. Nothing was removed.
    fn delete(&self, request: DeleteRequest) -> BoxFuture<'_, Result<(), AppendError>> {
        let reason = format!(
            "this journal removes no events, not those of {}",
            request.id
        );
        ready(Err(JournalError::Refused { reason }.into())).boxed()
    }

    /// The snapshot store that lives in the same place, if there is one.
    fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        None
    }

    /// The queries over the events of all ids, if the store has them.
    fn queries(&self) -> Option<Arc<dyn EventQueries>> {
        None
    }

    /// The store of states that lives in the same place and checks the same fences, if there is one.
    fn states(&self) -> Option<Arc<dyn StateStore>> {
        None
    }

    /// The store of offsets that lives in the same place, if there is one.
    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        None
    }

    /// Waits until the store refuses everything for good with [`JournalError::Halted`], and says why. A
    /// store that never does, as this default, keeps its caller waiting.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    fn halted(&self) -> BoxFuture<'_, Arc<str>> {
        pending().boxed()
    }

    /// Finishes what was accepted, then refuses all further calls with [`JournalError::Closed`].
    /// A second call waits for the same end.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Events to be written for one id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AppendRequest {
    /// Whose events.
    pub id: PersistenceId,
    /// The newest sequence number that the writer knows; 0 if it knows of no events. The first of
    /// `events` gets the next one.
    pub expected_seq: u64,
    /// The right by which is written; `None` for entities that are not sharded.
    pub fence: Option<Fence>,
    /// What is written, in order.
    pub events: Vec<EventRecord>,
}

impl AppendRequest {
    /// An append without a fence.
    #[must_use]
    pub fn new(id: PersistenceId, expected_seq: u64, events: Vec<EventRecord>) -> Self {
        Self {
            id,
            expected_seq,
            fence: None,
            events,
        }
    }

    /// The same with a fence.
    #[must_use]
    pub fn fenced(mut self, fence: Option<Fence>) -> Self {
        self.fence = fence;
        self
    }
}

/// Which events of one id are to be removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeleteRequest {
    /// Whose events.
    pub id: PersistenceId,
    /// The last one that is removed.
    pub seq_max: u64,
    /// The right by which is deleted; `None` for entities that are not sharded.
    pub fence: Option<Fence>,
}

impl DeleteRequest {
    /// Without a fence.
    #[must_use]
    pub fn new(id: PersistenceId, seq_max: u64) -> Self {
        Self {
            id,
            seq_max,
            fence: None,
        }
    }

    /// The same with a fence.
    #[must_use]
    pub fn fenced(mut self, fence: Option<Fence>) -> Self {
        self.fence = fence;
        self
    }
}

impl DeleteRequest {
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
        self.fence
            .as_ref()
            .map_or(Ok(()), |fence| check_scope(&fence.scope))
    }
}

/// What was appended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Appended {
    /// The newest sequence number of the id now.
    pub seq: u64,
    /// The position of its last event among all events of the journal; 0 when the append was
    /// empty. Positions grow in commit order, and some are left out.
    pub position: u64,
}

impl Appended {
    /// For implementers of [`Journal`].
    #[must_use]
    pub fn new(seq: u64, position: u64) -> Self {
        Self { seq, position }
    }
}

/// Scope and epoch which a write carries: the store refuses it unless exactly this epoch is the
/// last one that was claimed for the scope ([`Journal::claim`]).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Fence {
    /// What the epoch is of, for example one shard of one kind. Any text.
    pub scope: Arc<str>,
    /// The epoch that the writer was given.
    pub epoch: u64,
}

impl Fence {
    /// The longest scope in bytes. Stores refuse longer ones.
    pub const SCOPE_BYTES_MAX: usize = 1024;

    /// The right to write within `scope` at `epoch`.
    #[must_use]
    pub fn new(scope: impl Into<Arc<str>>, epoch: u64) -> Self {
        Self {
            scope: scope.into(),
            epoch,
        }
    }
}

/// One event as it is stored: what it is called, in which version, and its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EventRecord {
    /// The stable name of the event's type; a contract, like a name on the wire.
    pub name: Arc<str>,
    /// The version of the type's layout.
    pub version: u16,
    /// The encoded event ([`crate::format`]). What is read may share its memory with the events beside it:
    /// who keeps one for long copies it.
    pub payload: Bytes,
    /// What queries find it by ([`crate::EventQuery::tag`]); at most [`crate::TAGS_MAX`].
    pub tags: Vec<Arc<str>>,
}

impl EventRecord {
    /// The longest name in bytes. Stores refuse longer ones.
    pub const NAME_BYTES_MAX: usize = 256;
    /// The largest payload in bytes, 16 MiB. Stores refuse larger ones.
    pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

    /// An event in its stored form.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, version: u16, payload: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            version,
            payload: payload.into(),
            tags: Vec::new(),
        }
    }

    /// The same with tags.
    #[must_use]
    pub fn tagged(mut self, tags: Vec<Arc<str>>) -> Self {
        self.tags = tags;
        self
    }
}

/// One event that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Its number within the id, from 1 on without gaps.
    pub seq: u64,
    /// Its position among all events of the journal.
    pub position: u64,
    /// When it was written: milliseconds since 1970 by the clock of the writer. For humans and
    /// queries; nothing is ordered by it.
    pub written_at_ms: u64,
    /// What was written.
    pub record: EventRecord,
}

impl StoredEvent {
    /// For implementers of [`Journal`].
    #[must_use]
    pub fn new(seq: u64, position: u64, written_at_ms: u64, record: EventRecord) -> Self {
        Self {
            seq,
            position,
            written_at_ms,
            record,
        }
    }
}

/// Some events of one id, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EventPage {
    /// The events, without gaps.
    pub events: Vec<StoredEvent>,
    /// The newest sequence number of the id when the page was read.
    pub highest_seq: u64,
    /// Events up to this number were deleted; 0 if none was.
    pub deleted_seq: u64,
}

impl EventPage {
    /// For implementers of [`Journal`].
    #[must_use]
    pub fn new(events: Vec<StoredEvent>, highest_seq: u64) -> Self {
        Self {
            events,
            highest_seq,
            deleted_seq: 0,
        }
    }

    /// The same, of an id whose events up to `seq` were deleted.
    #[must_use]
    pub fn deleted(mut self, seq: u64) -> Self {
        self.deleted_seq = seq;
        self
    }
}

/// The largest number of events in one append. Stores refuse more.
pub const APPEND_EVENTS_MAX: usize = 10_000;

impl AppendRequest {
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
        within("events in one append", self.events.len(), APPEND_EVENTS_MAX)?;
        if let Some(fence) = &self.fence {
            check_scope(&fence.scope)?;
        }
        for event in &self.events {
            check_tags(&event.tags)?;
            within(
                "name in bytes",
                event.name.len(),
                EventRecord::NAME_BYTES_MAX,
            )?;
            within(
                "event in bytes",
                event.payload.len(),
                EventRecord::PAYLOAD_BYTES_MAX,
            )?;
        }
        Ok(())
    }

    /// Roughly how many bytes it adds to the store.
    pub(crate) fn bytes(&self) -> usize {
        self.events.iter().map(EventRecord::bytes).sum()
    }
}

impl EventRecord {
    /// Roughly how many bytes it adds to the store.
    pub(crate) fn bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 16).sum();
        self.payload.len() + self.name.len() + tags + 64
    }
}

/// Compares a scope with the limit that holds for every store.
pub(crate) fn check_scope(scope: &str) -> Result<(), JournalError> {
    within("scope in bytes", scope.len(), Fence::SCOPE_BYTES_MAX)
}

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
