//! AllocationStore: who may write, as the one place says that all nodes of a kind share.
//!
//! `otava` adapts the journal to it, so that a claim and the writes that it fences meet in the same
//! transactions.

use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Keeps terms and claims. Shared by all nodes; each answer must be as durable as the writes that
/// it fences.
pub trait AllocationStore: Send + Sync + 'static {
    /// The next term of `scope`: one more than it ever gave, 1 at first. Terms end at 2^32 - 1.
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Claims `scope` for `epoch`: from now on writes of lower epochs are refused. Claiming the
    /// epoch that is there already is a success.
    ///
    /// # Errors
    /// [`ClaimError::Refused`] if a higher epoch is there.
    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>>;
}

/// The store did not do what it was asked. It may be asked again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the allocation store failed: {reason}")]
pub struct StoreError {
    /// What went wrong.
    pub reason: String,
}

impl StoreError {
    /// An error of this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Why an epoch was not claimed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A later allocation was there.
    #[error("epoch {current} was claimed before")]
    Refused {
        /// Its epoch.
        current: u64,
    },
    /// Nothing is known; ask again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store in memory: for tests, and for a cluster inside one process. Share one between the nodes.
#[derive(Default)]
pub struct MemoryAllocationStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    terms: BTreeMap<String, u64>,
    claims: BTreeMap<String, u64>,
}

impl MemoryAllocationStore {
    /// Nothing is claimed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The epoch by which `scope` may be written, 0 if it was never claimed.
    #[must_use]
    pub fn current(&self, scope: &str) -> u64 {
        self.with(|inner| inner.claims.get(scope).copied().unwrap_or(0))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AllocationStore for MemoryAllocationStore {
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        let term = self.with(|inner| {
            let term = inner.terms.entry(scope.to_owned()).or_default();
            *term += 1;
            *term
        });
        Box::pin(async move { Ok(term) })
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        let claimed = self.with(|inner| {
            let current = inner.claims.entry(scope.to_owned()).or_default();
            if *current > epoch {
                return Err(ClaimError::Refused { current: *current });
            }
            *current = epoch;
            Ok(())
        });
        Box::pin(async move { claimed })
    }
}

impl fmt::Debug for MemoryAllocationStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryAllocationStore")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn terms_count_up_and_claims_only_rise() {
        let store = MemoryAllocationStore::new();
        assert_eq!(store.next_term("a").await, Ok(1));
        assert_eq!(store.next_term("a").await, Ok(2));
        assert_eq!(store.next_term("b").await, Ok(1));
        assert_eq!(store.claim("a/1", 7).await, Ok(()));
        assert_eq!(store.claim("a/1", 7).await, Ok(()));
        assert_eq!(
            store.claim("a/1", 6).await,
            Err(ClaimError::Refused { current: 7 })
        );
        assert_eq!((store.current("a/1"), store.current("a/2")), (7, 0));
    }
}
