//! Handler: the traits of those who are given the events of a projection, and what they are given.

use crate::id::PersistenceId;
use crate::logic::slices::SliceOffset;
use crate::query::FoundEvent;
use std::fmt::Display;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// An event as a handler gets it: decoded, with what is known of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Envelope<E> {
    /// Whose event.
    pub id: PersistenceId,
    /// Its number within the id, from 1 on. Together with the id it names the event for good: what a
    /// handler that sees an event twice can tell it by. If an upcaster makes several events of a stored
    /// one, they share it.
    pub seq: u64,
    /// Its position among all events of the journal.
    pub position: u64,
    /// When it was written: milliseconds since 1970 by the clock of the writer.
    pub written_at_ms: u64,
    /// Its tags.
    pub tags: Vec<Arc<str>>,
    /// What happened.
    pub event: E,
}

impl<E> Envelope<E> {
    /// What was found, and what was made of it.
    pub fn new(found: &FoundEvent, event: E) -> Self {
        let stored = &found.event;
        Self {
            id: found.id.clone(),
            seq: stored.seq,
            position: stored.position,
            written_at_ms: stored.written_at_ms,
            tags: stored.record.tags.clone(),
            event,
        }
    }
}

/// Takes events one by one.
///
/// # Delivery
/// At least once: after a crash, or when a handler was not done in time, events come again, those
/// since the offset was saved last. In order for each persistence id, and in the order of positions
/// within one instance of the projection. An event is given when the one before it is handled.
pub trait Handler<E>: Send + 'static {
    /// Why an event could not be handled.
    type Error: Display + Send + 'static;

    /// Handles one event.
    ///
    /// # Errors
    /// The event is given again after a back-off; see [`crate::OnPoison`].
    ///
    /// # Panics
    /// A panic is a failure too. The handler is dropped, and the next attempt is made with a new one.
    ///
    /// # Cancel safety
    /// It is dropped where it waits when it takes longer than [`crate::ProjectionOptions::handle_within`].
    fn handle(
        &mut self,
        event: &Envelope<E>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether an error is one that passes and that no event is to blame for, such as a database
    /// that cannot be reached: it is waited for, as long as it takes, and never makes an event be
    /// skipped. Default: no error is.
    fn passes(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// Takes events as many at once as there are, up to [`crate::ProjectionOptions::batch_events`].
///
/// # Delivery
/// As [`Handler`]. A batch that failed is given again event by event: what of it was done before the
/// failure is done again.
pub trait BatchHandler<E>: Send + 'static {
    /// Why events could not be handled.
    type Error: Display + Send + 'static;

    /// Handles events, of which there is at least one.
    ///
    /// # Errors
    /// See [`Handler::handle`].
    ///
    /// # Panics
    /// See [`Handler::handle`].
    ///
    /// # Cancel safety
    /// See [`Handler::handle`].
    fn handle(
        &mut self,
        events: &[Envelope<E>],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// See [`Handler::passes`].
    fn passes(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// Stores the results of events together with the offset, in one transaction of its own store.
///
/// A store's crate has the two statements ready that keep the offsets; for a table in memory,
/// [`crate::SliceOffsets`] does it.
///
/// # Delivery
/// Exactly once, as far as results go that are in the transaction: after whatever failure the
/// projection asks where the store is ([`Self::claim`]) and goes on behind it. A run that was
/// replaced cannot commit.
pub trait TransactionalHandler<E>: Send + 'static {
    /// Why the store could not do it.
    type Error: Display + Send + 'static;

    /// Takes the slices of `run` for it, and returns the offsets that are stored for them, so that
    /// they cover its slices without a gap ([`crate::carve`]); slices without an offset begin at 0.
    /// In one transaction.
    ///
    /// It is called before the first event, and again after each failure.
    ///
    /// # Errors
    /// [`TransactionError::Fenced`] if any of the slices was taken with a higher
    /// [`ProjectionRun::epoch`]: nothing is taken then.
    ///
    /// # Cancel safety
    /// See [`Handler::handle`].
    fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> impl Future<Output = Result<Vec<SliceOffset>, TransactionError<Self::Error>>> + Send;

    /// Stores what the events lead to, and the offset `commit`, in one transaction. There may be no
    /// events: then only the offset is stored.
    ///
    /// # Errors
    /// [`TransactionError::Fenced`] if the slices were taken by another run since [`Self::claim`]:
    /// nothing is stored, and the projection ends. After another error it goes on from what
    /// [`Self::claim`] says, so it does no harm if nobody knows whether the commit was done.
    ///
    /// # Panics
    /// See [`Handler::handle`].
    ///
    /// # Cancel safety
    /// See [`Handler::handle`].
    fn handle(
        &mut self,
        events: &[Envelope<E>],
        commit: &ProjectionCommit,
    ) -> impl Future<Output = Result<(), TransactionError<Self::Error>>> + Send;

    /// See [`Handler::passes`].
    fn passes(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// One run of one instance of a projection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProjectionRun {
    /// The name of the projection.
    pub name: Arc<str>,
    /// Its first slice.
    pub first: u16,
    /// Its last slice.
    pub last: u16,
    /// No two runs of a projection have the same one, and a later run has a higher one.
    pub epoch: u64,
}

impl ProjectionRun {
    /// For those who test a [`TransactionalHandler`].
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, slices: RangeInclusive<u16>, epoch: u64) -> Self {
        Self {
            name: name.into(),
            first: *slices.start(),
            last: *slices.end(),
            epoch,
        }
    }
}

/// What a [`TransactionalHandler`] stores beside its results.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProjectionCommit {
    /// Who commits: refused unless all slices are still taken by exactly this run.
    pub run: ProjectionRun,
    /// The offset of all its slices from now on; a slice that is ahead of it keeps what it has.
    pub offset: u64,
    /// Whether the projection is begun again: all slices get the offset, also those ahead of it.
    pub restart: bool,
}

impl ProjectionCommit {
    /// For those who test a [`TransactionalHandler`].
    #[must_use]
    pub fn new(run: ProjectionRun, offset: u64, restart: bool) -> Self {
        Self {
            run,
            offset,
            restart,
        }
    }
}

/// Why a [`TransactionalHandler`] did nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError<X> {
    /// The store could not do it, or nobody knows whether it did.
    #[error("{0}")]
    Failed(X),
    /// Another run has the slices.
    #[error("another run of the projection has taken over, at epoch {current}")]
    Fenced {
        /// The epoch of that run.
        current: u64,
    },
}

impl<X> From<X> for TransactionError<X> {
    fn from(error: X) -> Self {
        Self::Failed(error)
    }
}
