//! Options: snapshots, what is kept, how recovery is limited, how letters are delivered.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Settings of event-sourced actors. Clones share the limit on recoveries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// A snapshot is taken when the sequence number passes a multiple of this. `None`, the default:
    /// never.
    pub snapshot_every: Option<NonZeroU64>,
    /// Snapshots that are kept of one entity. Default 2: one to fall back on.
    pub snapshots_kept: NonZeroU32,
    /// Deletes the events that all kept snapshots hold, after each new snapshot. Default: no. The
    /// snapshots are the truth then: raise [`crate::EventSourced::SNAPSHOT_VERSION`] only together with
    /// [`crate::EventSourced::upcast_snapshot`], and projections must have read what is deleted. Events
    /// stay while a letter of them waits for its target.
    pub delete_covered_events: bool,
    /// Events that are read at once at recovery, and held in memory. Default 500.
    pub recovery_page: NonZeroUsize,
    /// How many recover at once. Default 64, for each [`Options::default`] that was called.
    pub recoveries: Recoveries,
    /// Letters to one target that are under way at once. Default 16.
    pub letters_in_flight: NonZeroUsize,
    /// Targets to which one entity delivers at once. Default 8.
    pub letter_targets: NonZeroUsize,
    /// Letters of one entity that may wait for their targets. A command that would send more is
    /// refused: it has no effect and no reply, and is logged. Default 100,000.
    pub letters_waiting_max: NonZeroUsize,
    /// The shortest and the longest wait before letters that were not taken are delivered again; it
    /// doubles from one to the other. Default 200 ms to 30 s.
    pub letter_retry: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            snapshot_every: None,
            snapshots_kept: NonZeroU32::new(2).expect("not zero"),
            delete_covered_events: false,
            recovery_page: NonZeroUsize::new(500).expect("not zero"),
            recoveries: Recoveries::at_once(NonZeroUsize::new(64).expect("not zero")),
            letters_in_flight: NonZeroUsize::new(16).expect("not zero"),
            letter_targets: NonZeroUsize::new(8).expect("not zero"),
            letters_waiting_max: NonZeroUsize::new(100_000).expect("not zero"),
            letter_retry: (Duration::from_millis(200), Duration::from_secs(30)),
        }
    }
}

impl Options {
    /// Sets [`Self::snapshot_every`]; 0 means never.
    #[must_use]
    pub fn snapshot_every(mut self, events: u64) -> Self {
        self.snapshot_every = NonZeroU64::new(events);
        self
    }

    /// Sets [`Self::snapshots_kept`].
    #[must_use]
    pub fn snapshots_kept(mut self, snapshots: NonZeroU32) -> Self {
        self.snapshots_kept = snapshots;
        self
    }

    /// Sets [`Self::delete_covered_events`].
    #[must_use]
    pub fn delete_covered_events(mut self, delete: bool) -> Self {
        self.delete_covered_events = delete;
        self
    }

    /// Sets [`Self::letters_in_flight`].
    #[must_use]
    pub fn letters_in_flight(mut self, letters: NonZeroUsize) -> Self {
        self.letters_in_flight = letters;
        self
    }

    /// Sets [`Self::letter_targets`].
    #[must_use]
    pub fn letter_targets(mut self, targets: NonZeroUsize) -> Self {
        self.letter_targets = targets;
        self
    }

    /// Sets [`Self::letters_waiting_max`].
    #[must_use]
    pub fn letters_waiting_max(mut self, letters: NonZeroUsize) -> Self {
        self.letters_waiting_max = letters;
        self
    }

    /// Sets [`Self::letter_retry`].
    #[must_use]
    pub fn letter_retry(mut self, shortest: Duration, longest: Duration) -> Self {
        self.letter_retry = (shortest, longest.max(shortest));
        self
    }

    /// Sets [`Self::recovery_page`].
    #[must_use]
    pub fn recovery_page(mut self, events: NonZeroUsize) -> Self {
        self.recovery_page = events;
        self
    }

    /// Sets [`Self::recoveries`].
    #[must_use]
    pub fn recoveries(mut self, recoveries: Recoveries) -> Self {
        self.recoveries = recoveries;
        self
    }
}

/// A limit on how many entities recover at the same time; the others wait their turn, in order.
///
/// When a shard moves, thousands of entities may start at once. Their events would all be read, and
/// held in memory, at the same time.
#[derive(Clone, Debug)]
pub struct Recoveries(Arc<Semaphore>);

impl Recoveries {
    /// At most `limit` at once, among all that share a clone of this.
    #[must_use]
    pub fn at_once(limit: NonZeroUsize) -> Self {
        Self(Arc::new(Semaphore::new(
            limit.get().min(Semaphore::MAX_PERMITS),
        )))
    }

    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.acquire().await.ok()
    }
}
