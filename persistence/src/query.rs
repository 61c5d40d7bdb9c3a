//! Query: the trait of stores that give events across entities, and streams over it.

use crate::error::JournalError;
use crate::id::{PersistenceId, SLICES};
use crate::journal::{EventRecord, StoredEvent, within};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Gives the events of many entities in the order of their positions.
///
/// A position that a reader has seen stays behind it: an event that becomes visible later has a
/// higher one. So a reader that goes on from its last position misses nothing.
///
/// # Cancel safety
/// Every method only reads.
pub trait EventQueries: Send + Sync + 'static {
    /// The events behind the position `after` that `query` asks for, at most `max`, in order.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] names the first event that is damaged; what was before it can be
    /// read with a smaller `max`.
    fn events<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<QueryPage, JournalError>>;

    /// Waits until the store may have an event behind the position `after`, from whichever process.
    /// Returns the newest position it knows, which may be `after` itself: it may return early.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn changed(&self, after: u64) -> BoxFuture<'_, Result<u64, JournalError>>;

    /// The ids that have events and come behind `after`, at most `max`, in the order of their text.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn ids<'a>(
        &'a self,
        after: Option<&'a PersistenceId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<PersistenceId>, JournalError>>;
}

/// Which events are wanted. All conditions must hold; without one all events are.
///
/// ```
/// use otava_persistence::EventQuery;
///
/// let query = EventQuery::all().kind("account").tag("vip").slices(0..=255);
/// assert_eq!(query.slice_range(), 0..=255);
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Events of this id only.
    pub id: Option<PersistenceId>,
    /// Events of ids of this kind only ([`PersistenceId::kind`]).
    pub kind: Option<Arc<str>>,
    /// Events with this tag only ([`EventRecord::tags`]).
    pub tag: Option<Arc<str>>,
    /// First and last slice ([`PersistenceId::slice`]).
    slices: (u16, u16),
}

impl EventQuery {
    /// Every event.
    #[must_use]
    pub fn all() -> Self {
        Self {
            id: None,
            kind: None,
            tag: None,
            slices: (0, SLICES - 1),
        }
    }

    /// The events of one id. [`crate::Journal::read`] reads them by sequence number instead.
    #[must_use]
    pub fn id(mut self, id: PersistenceId) -> Self {
        self.id = Some(id);
        self
    }

    /// Events of one kind of entity.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Arc<str>>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Events with a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Events of a range of slices. What lies above the last slice is left out.
    #[must_use]
    pub fn slices(mut self, slices: RangeInclusive<u16>) -> Self {
        self.slices = (*slices.start(), (*slices.end()).min(SLICES - 1));
        self
    }

    /// The slices that are asked for. An empty range gives no events.
    #[must_use]
    pub fn slice_range(&self) -> RangeInclusive<u16> {
        self.slices.0..=self.slices.1
    }

    /// Whether all slices are asked for.
    #[must_use]
    pub fn is_all_slices(&self) -> bool {
        self.slices == (0, SLICES - 1)
    }

    /// Whether it asks for an event of `id` with these tags.
    #[must_use]
    pub fn matches(&self, id: &PersistenceId, tags: &[Arc<str>]) -> bool {
        self.id.as_ref().is_none_or(|wanted| wanted == id)
            && self.kind.as_ref().is_none_or(|kind| **kind == *id.kind())
            && self.tag.as_ref().is_none_or(|tag| tags.contains(tag))
            && (self.is_all_slices() || self.slice_range().contains(&id.slice()))
    }
}

/// Some events of many entities, in the order of their positions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueryPage {
    /// The events.
    pub events: Vec<FoundEvent>,
    /// How far was looked: the reader goes on behind this position. At least the position of the
    /// last event; above it when what follows does not match.
    pub through: u64,
    /// Whether there may be more events now.
    pub more: bool,
}

impl QueryPage {
    /// For implementers of [`EventQueries`].
    #[must_use]
    pub fn new(events: Vec<FoundEvent>, through: u64, more: bool) -> Self {
        Self {
            events,
            through,
            more,
        }
    }
}

/// One event that a query found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FoundEvent {
    /// Whose event.
    pub id: PersistenceId,
    /// The event. Its position is the offset to go on from.
    pub event: StoredEvent,
}

impl FoundEvent {
    /// For implementers of [`EventQueries`].
    #[must_use]
    pub fn new(id: PersistenceId, event: StoredEvent) -> Self {
        Self { id, event }
    }
}

/// Events that are read at once by the streams of this module.
const PAGE_EVENTS: usize = 500;

/// The events behind `after` that are there now, then the end.
///
/// # Errors
/// The stream ends with the first error. It can be begun again behind the last event that came.
pub fn current_events(
    store: Arc<dyn EventQueries>,
    query: EventQuery,
    after: u64,
) -> impl Stream<Item = Result<FoundEvent, JournalError>> + Send + 'static {
    pages(store, query, after, false)
}

/// The events behind `after`, those that are there and those that come. It never ends by itself.
///
/// A slow reader holds nothing up: events are read when it asks for them, a page at a time.
///
/// # Errors
/// The stream ends with the first error. It can be begun again behind the last event that came.
pub fn live_events(
    store: Arc<dyn EventQueries>,
    query: EventQuery,
    after: u64,
) -> impl Stream<Item = Result<FoundEvent, JournalError>> + Send + 'static {
    pages(store, query, after, true)
}

fn pages(
    store: Arc<dyn EventQueries>,
    query: EventQuery,
    after: u64,
    live: bool,
) -> impl Stream<Item = Result<FoundEvent, JournalError>> + Send + 'static {
    let begin = Some((store, query, after));
    stream::try_unfold(begin, move |at| async move {
        let Some((store, query, mut after)) = at else {
            return Ok(None);
        };
        loop {
            let page = store.events(&query, after, PAGE_EVENTS).await?;
            let (ends, through) = (!live && !page.more, page.through.max(after));
            if ends || !page.events.is_empty() {
                let next = (!ends).then_some((store, query, through));
                let events = page.events.into_iter().map(Ok);
                return Ok(Some((stream::iter(events), next)));
            }
            after = through;
            if !page.more {
                store.changed(after).await?;
            }
        }
    })
    .try_flatten()
    .boxed()
}

/// The largest number of tags of one event. Stores refuse more.
pub const TAGS_MAX: usize = 32;

/// Compares tags with the limits that hold for every store.
pub(crate) fn check_tags(tags: &[Arc<str>]) -> Result<(), JournalError> {
    within("tags of one event", tags.len(), TAGS_MAX)?;
    tags.iter()
        .try_for_each(|tag| within("tag in bytes", tag.len(), EventRecord::NAME_BYTES_MAX))
}
