//! Store: keeps the terms and epochs of shards and singletons in the journal, which checks the writes.

use futures_util::future::BoxFuture;
use otava_cluster::singleton::{TermError, TermStore};
use otava_persistence::Journal;
use otava_sharding::{AllocationStore, ClaimError, StoreError};
use std::sync::Arc;

/// Terms and epochs of shards in a journal: the same transaction that stores an event compares the
/// epoch of its writer.
#[derive(Clone)]
pub struct JournalAllocationStore(Arc<dyn Journal>);

impl JournalAllocationStore {
    /// Terms and epochs in `journal`, which the entities of the shards must write to as well.
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self(journal)
    }
}

impl std::fmt::Debug for JournalAllocationStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalAllocationStore")
    }
}

impl AllocationStore for JournalAllocationStore {
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let term = self.0.next_term(scope).await;
            term.map_err(|error| StoreError::new(error.to_string()))
        })
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        Box::pin(async move {
            match self.0.claim(scope, epoch).await {
                Ok(()) => Ok(()),
                Err(otava_persistence::ClaimError::Fenced { current }) => {
                    Err(ClaimError::Refused { current })
                }
                Err(error) => Err(StoreError::new(error.to_string()).into()),
            }
        })
    }
}

/// Terms of singletons in a journal. A term is claimed before it is given, so that the journal refuses
/// what an earlier instance writes with the fence of its own.
pub(crate) struct JournalTerms(Arc<dyn Journal>);

impl JournalTerms {
    pub(crate) fn new(journal: Arc<dyn Journal>) -> Self {
        Self(journal)
    }
}

impl TermStore for JournalTerms {
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, TermError>> {
        Box::pin(async move {
            let term = self.0.next_term(scope).await;
            let term = term.map_err(|error| TermError::new(error.to_string()))?;
            let claimed = self.0.claim(scope, term).await;
            claimed.map_err(|error| TermError::new(error.to_string()))?;
            Ok(term)
        })
    }
}
