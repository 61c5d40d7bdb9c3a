//! Queue: where a producer keeps its messages until they are confirmed.

pub use crate::logic::delivery::ledger::StoredMessage;

use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps the messages of one producer over its runs.
///
/// A run claims the queue once before it begins, and then stores and confirms, one operation after the
/// other. What must hold: what was stored and not confirmed is what the next claim returns; and once
/// there was a later claim, operations of an earlier one are refused and change nothing. So two
/// producers that believe that they are the one cannot both send.
pub trait DeliveryQueue: Send + Sync + 'static {
    /// Takes the queue over, and returns what it keeps. A queue that was never claimed takes `series` as
    /// the identity of its numbering, for good.
    ///
    /// # Errors
    /// [`QueueError`]: the producer does not start.
    fn claim(&self, series: u64) -> BoxFuture<'_, Result<QueueState, QueueError>>;

    /// Keeps these messages, and returns when they would survive what the queue is meant to survive.
    /// They may be given again after an error, also if some were stored.
    ///
    /// # Errors
    /// [`QueueError::Superseded`] ends the producer; it tries again after another error.
    fn store(
        &self,
        claim: u64,
        messages: Vec<StoredMessage>,
    ) -> BoxFuture<'_, Result<(), QueueError>>;

    /// The messages of these numbers were handled, and need not be kept. Numbers that are not known are
    /// ignored. If this is lost, they are delivered again after a restart.
    ///
    /// # Errors
    /// As for [`DeliveryQueue::store`].
    fn confirm(&self, claim: u64, numbers: Vec<u64>) -> BoxFuture<'_, Result<(), QueueError>>;
}

/// What a queue keeps.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueueState {
    /// The identity of the numbering.
    pub series: u64,
    /// Of this claim: greater than that of every claim before, at least 1.
    pub claim: u64,
    /// The greatest number that was ever stored, confirmed ones included; zero if there was none. A
    /// number is never used again.
    pub last: u64,
    /// What is not confirmed, by number.
    pub unconfirmed: Vec<StoredMessage>,
}

impl QueueState {
    /// The state of a queue, as [`DeliveryQueue::claim`] returns it.
    #[must_use]
    pub fn new(series: u64, claim: u64, last: u64, unconfirmed: Vec<StoredMessage>) -> Self {
        Self {
            series,
            claim,
            last,
            unconfirmed,
        }
    }
}

/// What a queue could not do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The store behind it has failed.
    #[error("the queue has failed: {0}")]
    Failed(String),
    /// There was a later claim.
    #[error("claim {claim} of the queue is superseded by a later one")]
    Superseded {
        /// The one that was refused.
        claim: u64,
    },
}

impl QueueError {
    /// The store behind it has failed; what was tried, and why it failed.
    #[must_use]
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }
}

/// Keeps messages in memory, for tests: they live as long as this does, over several runs of a producer.
#[derive(Debug, Default)]
pub struct MemoryDeliveryQueue {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    series: Option<u64>,
    claim: u64,
    last: u64,
    messages: BTreeMap<u64, StoredMessage>,
}

impl MemoryDeliveryQueue {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages are not confirmed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// Whether all are confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    fn change(&self, claim: u64, change: impl FnOnce(&mut Kept)) -> Result<(), QueueError> {
        let mut kept = self.lock();
        if kept.claim != claim {
            return Err(QueueError::Superseded { claim });
        }
        change(&mut kept);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeliveryQueue for MemoryDeliveryQueue {
    fn claim(&self, series: u64) -> BoxFuture<'_, Result<QueueState, QueueError>> {
        let mut kept = self.lock();
        kept.claim += 1;
        let series = *kept.series.get_or_insert(series);
        let unconfirmed = kept.messages.values().cloned().collect();
        let state = QueueState::new(series, kept.claim, kept.last, unconfirmed);
        drop(kept);
        Box::pin(async { Ok(state) })
    }

    fn store(
        &self,
        claim: u64,
        messages: Vec<StoredMessage>,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let stored = self.change(claim, |kept| {
            for message in messages {
                kept.last = kept.last.max(message.number);
                kept.messages.insert(message.number, message);
            }
        });
        Box::pin(async { stored })
    }

    fn confirm(&self, claim: u64, numbers: Vec<u64>) -> BoxFuture<'_, Result<(), QueueError>> {
        let confirmed = self.change(claim, |kept| {
            for number in numbers {
                kept.messages.remove(&number);
            }
        });
        Box::pin(async { confirmed })
    }
}
