//! Finder: starts entities whose letters wait and which nobody touches.

use crate::codec::Codec;
use crate::error::JournalError;
use crate::event_sourced::letter::{Courier, Parcel};
use crate::event_sourced::post::{Change, OUTBOX_TAG};
use crate::format::mail;
use crate::id::PersistenceId;
use crate::journal::{Journal, StoredEvent};
use crate::logic::unsent::{Note, Place, Unsent};
use crate::offset::OffsetStore;
use crate::query::{EventQueries, EventQuery, FoundEvent};
use futures_util::stream::{self, StreamExt as _};
use otava_actor::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Records that are read at once.
const PAGE_RECORDS: usize = 500;
/// Senders that are started at once.
const WAKES_MAX: usize = 16;

/// Finds entities with letters that are not confirmed, and wakes them: an entity that starts delivers
/// what waits in its outbox.
///
/// An entity that runs delivers its letters by itself. One that stopped, because its node ended or it
/// was idle, does not until somebody sends it a command; with one finder in a cluster (in a singleton,
/// for example) its letters go out anyway. Entities that sharding remembers and starts again need
/// none.
///
/// It reads the records of letters by their tag and remembers in an offset store how far it has
/// come: what waits is read again after a restart of it, nothing is read twice beside that. Two
/// finders at the same time do no harm.
///
/// # Examples
/// ```
/// # use otava_persistence::{Courier, Journal, OutboxFinder};
/// # use std::sync::Arc;
/// # async fn f(journal: Arc<dyn Journal>, courier: Arc<dyn Courier>) {
/// // The journal has queries and offsets, as those of Otava do.
/// let finder = OutboxFinder::new(journal, courier).expect("queries and offsets");
/// tokio::spawn(finder.run());
/// # }
/// ```
#[must_use = "it does nothing until it runs"]
pub struct OutboxFinder {
    journal: Arc<dyn Journal>,
    queries: Arc<dyn EventQueries>,
    offsets: Arc<dyn OffsetStore>,
    courier: Arc<dyn Courier>,
    key: String,
    grace: Duration,
    again: Duration,
    unsent: Option<Unsent>,
    saved: u64,
    begun: Instant,
}

impl OutboxFinder {
    /// A finder over the events of a journal, which wakes by `courier` ([`Parcel::wake`]). `None` when
    /// the journal has no queries or no offsets.
    pub fn new(journal: Arc<dyn Journal>, courier: Arc<dyn Courier>) -> Option<Self> {
        Some(Self {
            queries: journal.queries()?,
            offsets: journal.offsets()?,
            journal,
            courier,
            key: "otava/outbox-finder".to_owned(),
            grace: Duration::from_secs(10),
            again: Duration::from_secs(60),
            unsent: None,
            saved: 0,
            begun: Instant::now(),
        })
    }

    /// The key of its offset, for several finders over parts of the entities. Default
    /// `otava/outbox-finder`.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// How long a sender may take for its letters before it is woken. Default 10 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long after it was woken a sender is woken again, if its letters still wait. Default 60 s.
    pub fn again(mut self, again: Duration) -> Self {
        self.again = again;
        self
    }

    /// Looks and wakes until the journal is closed. Other errors of the store are logged, and tried
    /// again.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn run(mut self) {
        loop {
            match self.round().await {
                Ok(_) => {}
                Err(JournalError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "letters that wait could not be looked for");
                    tokio::time::sleep(self.grace).await;
                    continue;
                }
            }
            let through = self.unsent.as_ref().map_or(0, Unsent::through);
            let due = self.unsent.as_ref().and_then(Unsent::next_due);
            let due = due.map(|due| self.begun + Duration::from_nanos(due.as_nanos()));
            tokio::select! {
                biased;
                changed = self.queries.changed(through) => {
                    if !changed.is_ok_and(|newest| newest > through) {
                        // It came early or failed, and may do so again at once.
                        tokio::time::sleep(self.grace.min(Duration::from_secs(1))).await;
                    }
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// Looks once: reads what was written since, and wakes who is due. Returns how many senders have
    /// letters that wait.
    ///
    /// # Errors
    /// See [`JournalError`]. It can be called again.
    ///
    /// # Cancel safety
    /// As [`Self::run`].
    pub async fn round(&mut self) -> Result<usize, JournalError> {
        if self.unsent.is_none() {
            let offset = self.offsets.load(&self.key).await?.unwrap_or(0);
            self.saved = offset;
            self.unsent = Some(Unsent::new(offset, self.grace));
        }
        self.read_on().await?;
        self.wake_due().await?;
        let unsent = self.unsent.as_ref();
        let (offset, waiting) = unsent.map_or((0, 0), |u| (u.offset(), u.len()));
        if offset != self.saved {
            self.offsets.save(&self.key, offset).await?;
            self.saved = offset;
        }
        Ok(waiting)
    }

    fn now(&self) -> Time {
        let passed = self.begun.elapsed().as_nanos();
        Time::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    async fn read_on(&mut self) -> Result<(), JournalError> {
        let query = EventQuery::all().tag(OUTBOX_TAG);
        loop {
            let after = self.unsent.as_ref().map_or(0, Unsent::through);
            let page = self.queries.events(&query, after, PAGE_RECORDS).await?;
            let now = self.now();
            let Some(unsent) = &mut self.unsent else {
                return Ok(());
            };
            for FoundEvent { id, event, .. } in page.events {
                let (seq, position) = (event.seq, event.position);
                match note(&id, &event) {
                    Some(note) => unsent.note(now, &id, Place { seq, position }, note),
                    // Its entity says so when it recovers.
                    None => tracing::warn!(%id, seq, "a record of a letter cannot be read"),
                }
            }
            unsent.read_through(page.through);
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn wake_due(&mut self) -> Result<(), JournalError> {
        let (now, again) = (self.now(), self.again);
        let Some(unsent) = &mut self.unsent else {
            return Ok(());
        };
        let due = unsent.take_due(now, again);
        let mut waking = Vec::new();
        for (from, oldest) in due {
            // What a snapshot covers is deleted only when it does not wait.
            let page = self.journal.read(&from, oldest, 1).await?;
            let deleted = page.deleted_seq;
            if deleted < oldest || unsent.deleted(&from, deleted) {
                waking.push(from);
            }
        }
        let courier = &self.courier;
        let wakes = stream::iter(waking).for_each_concurrent(WAKES_MAX, |from| async move {
            wake(&**courier, &from).await;
        });
        wakes.await;
        Ok(())
    }
}

async fn wake(courier: &dyn Courier, from: &PersistenceId) {
    tracing::info!(%from, "letters of it wait: it is woken");
    if let Err(error) = courier.deliver(Parcel::wake(from)).await {
        tracing::warn!(%from, %error, "an entity whose letters wait could not be woken");
    }
}

fn note(from: &PersistenceId, event: &StoredEvent) -> Option<Note> {
    if !event.record.name.starts_with(mail::RESERVED) {
        return None;
    }
    // Whom letters are for is not encrypted.
    match Change::of(event, &Codec::new(from.clone())).ok()? {
        Change::Confirmed { to, up_to } => Some(Note::Confirmed { to, up_to }),
        Change::Sent { to, number, .. } => Some(Note::Sent { to, number }),
        Change::Deleted(post) => {
            let lanes = post.outbox.lanes();
            let waiting = lanes.filter(|(_, lane)| !lane.waiting.is_empty());
            let waiting = waiting.map(|(to, lane)| (to.clone(), lane.last()));
            Some(Note::Deleted(waiting.collect()))
        }
        Change::Received { .. } => None,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for OutboxFinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxFinder")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
