//! Options: how a projection reads, saves its offset, and takes failures.

use otava_actor::Backoff;
use std::num::NonZeroUsize;
use std::time::Duration;

/// What happens to an event whose handling fails again and again, or that cannot be decoded.
///
/// Counted are failures that the event is to blame for: an error that the handler does not call
/// passing, a panic, and bytes that do not decode. Between two attempts the projection backs off.
/// A batch that failed is tried again event by event, so that no other event shares the fate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnPoison {
    /// It is tried again until it works; nothing behind it is handled before. The default: what is
    /// reported is then never wrong, only late, and [`crate::ProjectionStatus`] says why.
    #[default]
    Retry,
    /// It is passed over after this many further attempts, with a warning in the log that names it,
    /// and counted ([`crate::ProjectionStatus::skipped`]).
    Skip {
        /// Attempts after the first one alone.
        retries: u32,
    },
    /// The projection ends as [`crate::ProjectionState::Failed`] after this many further attempts.
    Stop {
        /// Attempts after the first one alone.
        retries: u32,
    },
}

/// Settings of a projection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectionOptions {
    /// Events that are read at once, and held in memory by each instance. Default 500.
    pub page_events: NonZeroUsize,
    /// The most events that a batch handler or a transactional handler is given at once. Default 100.
    pub batch_events: NonZeroUsize,
    /// The offset is saved after this many events. Default 100. Transactional handlers save it with
    /// each batch.
    pub save_every: u64,
    /// The offset is saved when a handled event has waited this long for it. Default half a second.
    pub save_after: Duration,
    /// How long is waited after a failure. Default from 200 ms to 30 s, a fifth of it random, and
    /// the shortest again after 30 s without a failure; no limit.
    pub backoff: Backoff,
    /// What happens to an event that cannot be handled.
    pub on_poison: OnPoison,
    /// A handler that takes longer is dropped where it waits, and tried again. That is never put
    /// down to the event. Default a minute.
    pub handle_within: Duration,
    /// Of the random part of waits. Default: another one each time.
    pub seed: Option<u64>,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        let longest = Duration::from_secs(30);
        Self {
            page_events: NonZeroUsize::new(500).expect("not zero"),
            batch_events: NonZeroUsize::new(100).expect("not zero"),
            save_every: 100,
            save_after: Duration::from_millis(500),
            backoff: Backoff::new(Duration::from_millis(200), longest),
            on_poison: OnPoison::Retry,
            handle_within: Duration::from_secs(60),
            seed: None,
        }
    }
}

impl ProjectionOptions {
    /// Sets [`Self::page_events`].
    #[must_use]
    pub fn page_events(mut self, events: NonZeroUsize) -> Self {
        self.page_events = events;
        self
    }

    /// Sets [`Self::batch_events`].
    #[must_use]
    pub fn batch_events(mut self, events: NonZeroUsize) -> Self {
        self.batch_events = events;
        self
    }

    /// Sets [`Self::save_every`]; 0 is taken as 1.
    #[must_use]
    pub fn save_every(mut self, events: u64) -> Self {
        self.save_every = events;
        self
    }

    /// Sets [`Self::save_after`].
    #[must_use]
    pub fn save_after(mut self, time: Duration) -> Self {
        self.save_after = time;
        self
    }

    /// Sets [`Self::backoff`].
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets [`Self::on_poison`].
    #[must_use]
    pub fn on_poison(mut self, what: OnPoison) -> Self {
        self.on_poison = what;
        self
    }

    /// Sets [`Self::handle_within`].
    #[must_use]
    pub fn handle_within(mut self, time: Duration) -> Self {
        self.handle_within = time;
        self
    }

    /// Sets [`Self::seed`].
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}
