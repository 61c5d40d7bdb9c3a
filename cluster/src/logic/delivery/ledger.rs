//! Ledger: what a durable queue has to be told, one operation after the other. Pure.
//!
//! Whatever comes while an operation runs is told in the next one, so a slow queue sees large batches.

use otava_actor::Time;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A message as a durable queue keeps it.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredMessage {
    /// Its number; numbers only grow.
    pub number: u64,
    /// In how many chunks it is delivered, at least one; the number is that of the last.
    pub chunks: u64,
    /// What is delivered, in a form that says its version and type itself. Never empty.
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for StoredMessage {
    /// Without the bytes, which are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMessage")
            .field("number", &self.number)
            .field("chunks", &self.chunks)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// One operation on the queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// These messages were handled and need not be kept.
    Confirm(Vec<u64>),
    /// Keep these messages.
    Store(Vec<StoredMessage>),
}

/// The pauses after failures.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is still to be told, and what is being told.
#[derive(Debug)]
pub struct Ledger {
    store: VecDeque<StoredMessage>,
    confirm: Vec<u64>,
    running: Option<Operation>,
    /// When the one that failed is tried again.
    retry_at: Option<Time>,
    pause: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            store: VecDeque::new(),
            confirm: Vec::new(),
            running: None,
            retry_at: None,
            pause: PAUSE_MIN,
        }
    }
}

impl Ledger {
    /// A message is to be kept.
    pub fn store(&mut self, message: StoredMessage) {
        self.store.push_back(message);
    }

    /// A message was handled.
    pub fn confirm(&mut self, number: u64) {
        self.confirm.push(number);
    }

    /// The operation to begin now; answered by [`Ledger::done`] or [`Ledger::failed`]. What waits to be
    /// sent goes first.
    pub fn begin(&mut self) -> Option<Operation> {
        if self.running.is_some() {
            return None;
        }
        let next = if !self.store.is_empty() {
            Operation::Store(self.store.drain(..).collect())
        } else if !self.confirm.is_empty() {
            Operation::Confirm(std::mem::take(&mut self.confirm))
        } else {
            return None;
        };
        self.running = Some(next.clone());
        Some(next)
    }

    /// The operation has succeeded. Which messages are stored by it.
    pub fn done(&mut self) -> Vec<u64> {
        self.pause = PAUSE_MIN;
        match self.running.take() {
            Some(Operation::Store(messages)) => messages.iter().map(|m| m.number).collect(),
            Some(Operation::Confirm(_)) | None => Vec::new(),
        }
    }

    /// The operation has failed, and is to be tried again later.
    pub fn failed(&mut self, now: Time) {
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The operation to try again, if it is time to.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Operation> {
        let is_due = self.retry_at.is_some_and(|at| at <= now);
        if !is_due {
            return None;
        }
        self.retry_at = None;
        self.running.clone()
    }

    /// When [`Ledger::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.retry_at
    }
}
