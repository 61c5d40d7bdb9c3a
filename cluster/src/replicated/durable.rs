//! Durable: where entries are kept beyond the life of a node.

use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A durable entry as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEntry {
    /// Its key.
    pub key: String,
    /// Its state, in a form that says its version itself.
    pub bytes: Vec<u8>,
}

impl StoredEntry {
    /// The entry `key` with these bytes.
    #[must_use]
    pub fn new(key: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            bytes: bytes.into(),
        }
    }
}

/// Keeps the newest state of each durable entry of one node.
///
/// A run loads everything once before it begins, and then stores batches, one after the other. What a
/// batch holds replaces what was there under its keys.
pub trait DurableStore: Send + Sync + 'static {
    /// What was stored last of each key.
    ///
    /// # Errors
    /// [`StoreError`]: the replicator does not start then, since it would give numbers twice.
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredEntry>, StoreError>>;

    /// Stores all of these, and returns when they would survive a loss of power.
    ///
    /// # Errors
    /// [`StoreError`]: some may be stored and some not. They are given again after a while.
    fn store(&self, batch: Vec<StoredEntry>) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What a store could not do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the store of replicated data has failed: {0}")]
pub struct StoreError(String);

impl StoreError {
    /// An error that says what was tried and why it failed.
    #[must_use]
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Keeps entries in memory, for tests: they live as long as this does, over several runs of a node.
#[derive(Debug, Default)]
pub struct MemoryDurableStore {
    rows: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryDurableStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DurableStore for MemoryDurableStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredEntry>, StoreError>> {
        let rows = self.lock().clone().into_iter();
        let entries = rows.map(|(key, bytes)| StoredEntry { key, bytes });
        let entries = entries.collect();
        Box::pin(async move { Ok(entries) })
    }

    fn store(&self, batch: Vec<StoredEntry>) -> BoxFuture<'_, Result<(), StoreError>> {
        let rows = batch.into_iter().map(|entry| (entry.key, entry.bytes));
        self.lock().extend(rows);
        Box::pin(async { Ok(()) })
    }
}
