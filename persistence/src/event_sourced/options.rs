//! Options: how often snapshots are taken, how many are kept, how recovery is limited.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::Arc;
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
    /// Events that are read at once at recovery, and held in memory. Default 500.
    pub recovery_page: NonZeroUsize,
    /// How many recover at once. Default 64, for each [`Options::default`] that was called.
    pub recoveries: Recoveries,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            snapshot_every: None,
            snapshots_kept: NonZeroU32::new(2).expect("not zero"),
            recovery_page: NonZeroUsize::new(500).expect("not zero"),
            recoveries: Recoveries::at_once(NonZeroUsize::new(64).expect("not zero")),
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

    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.acquire().await.ok()
    }
}
