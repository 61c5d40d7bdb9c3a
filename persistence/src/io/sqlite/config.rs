//! Configuration of the embedded journal: limits and times, with their reasons.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Settings of [`crate::SqliteJournal`]. The defaults fit several nodes on one machine.
///
/// ```
/// use otava_persistence::SqliteConfig;
/// use std::time::Duration;
///
/// let config = SqliteConfig::default().busy_limit(Duration::from_secs(10));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// Requests that may share one commit. Default 1,024: more gains little and delays the first
    /// of them.
    pub batch_requests_max: NonZeroUsize,
    /// Bytes of events after which a batch is closed. Default 4 MiB: a commit of that size takes
    /// some 10 ms.
    pub batch_bytes_max: usize,
    /// Requests that may wait for the committer. Default 4,096; a caller above that waits for
    /// room.
    pub queue_requests_max: NonZeroUsize,
    /// How long a commit waits for the other processes. Default 5 s, far above what any healthy
    /// process holds the file; it ends with [`crate::JournalError::Busy`].
    pub busy_limit: Duration,
    /// Threads that read, each with a connection of its own. Default 2: recovery of entities is
    /// short, and a machine has other work. A long page is read by two, if one has nothing to do.
    pub readers: NonZeroUsize,
    /// Pages of 4 KiB in the write-ahead log after which it is copied back into the main file, in
    /// the background. Default 2,000 (8 MiB): rarely enough to be cheap, often enough to keep
    /// each copy, and the log, short.
    pub checkpoint_pages: u32,
    /// New entries of the index of events that are kept apart from the old ones; above it each commit
    /// merges as many as it adds. Default 8,192: each commit changes their pages, some 35 of them, and more
    /// let a merge find more neighbours.
    pub new_places_max: u32,
    /// How the file that says what was acknowledged is kept.
    pub mark_sync: MarkSync,
    /// How often is looked for commits of other processes while somebody waits for events. Default
    /// 25 ms: a look costs some microseconds. Commits of this process wake at once.
    pub watch_period: Duration,
}

/// When the record of the newest acknowledged commit is forced to the disk. It is always written
/// before the answer goes out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum MarkSync {
    /// About every 50 ms. What a flipped bit takes away from the log is noticed after any end of
    /// the process; after a power cut, unless it came within that time after the lost commit.
    #[default]
    Background,
    /// Before each answer: noticed in all cases, for a second fsync per commit.
    EveryCommit,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            batch_requests_max: NonZeroUsize::new(1024).expect("not zero"),
            batch_bytes_max: 4 << 20,
            queue_requests_max: NonZeroUsize::new(4096).expect("not zero"),
            busy_limit: Duration::from_secs(5),
            readers: NonZeroUsize::new(2).expect("not zero"),
            checkpoint_pages: 2000,
            new_places_max: 8192,
            mark_sync: MarkSync::default(),
            watch_period: Duration::from_millis(25),
        }
    }
}

impl SqliteConfig {
    /// Sets [`Self::busy_limit`].
    #[must_use]
    pub fn busy_limit(mut self, limit: Duration) -> Self {
        self.busy_limit = limit;
        self
    }

    /// Sets [`Self::mark_sync`].
    #[must_use]
    pub fn mark_sync(mut self, sync: MarkSync) -> Self {
        self.mark_sync = sync;
        self
    }

    /// Sets [`Self::readers`].
    #[must_use]
    pub fn readers(mut self, readers: NonZeroUsize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets [`Self::watch_period`].
    #[must_use]
    pub fn watch_period(mut self, period: Duration) -> Self {
        self.watch_period = period;
        self
    }

    /// Sets [`Self::batch_requests_max`].
    #[must_use]
    pub fn batch_requests_max(mut self, requests: NonZeroUsize) -> Self {
        self.batch_requests_max = requests;
        self
    }
}
