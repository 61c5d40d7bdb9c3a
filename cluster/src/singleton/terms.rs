//! Terms: numbers that grow from start to start of a singleton, and where they come from.

use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Keeps the terms of singletons outside of the cluster: shared by all nodes, and as durable as what
/// the terms protect. `otava` has one that lives in the journal.
pub trait TermStore: Send + Sync + 'static {
    /// The next term of `scope`: greater than every one that it gave before.
    ///
    /// A store that also checks writes makes the scope refuse those of lower terms before it answers.
    ///
    /// # Errors
    /// [`TermError`]; it is asked again, ever more rarely, every 5 s at the rarest. The singleton does not
    /// start meanwhile.
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, TermError>>;
}

/// The store gave no term.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the store of terms failed: {reason}")]
pub struct TermError {
    /// What went wrong.
    pub reason: String,
}

impl TermError {
    /// An error of this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Terms in memory: for tests, and for a cluster inside one process. Share one between the nodes.
#[derive(Default)]
pub struct MemoryTerms {
    terms: Mutex<BTreeMap<String, u64>>,
}

impl MemoryTerms {
    /// No term was given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The term that was given last, 0 before the first.
    #[must_use]
    pub fn current(&self, scope: &str) -> u64 {
        let terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        terms.get(scope).copied().unwrap_or(0)
    }
}

impl TermStore for MemoryTerms {
    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, TermError>> {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let term = terms.entry(scope.to_owned()).or_default();
        *term += 1;
        let term = *term;
        Box::pin(async move { Ok(term) })
    }
}

impl fmt::Debug for MemoryTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTerms").finish_non_exhaustive()
    }
}
