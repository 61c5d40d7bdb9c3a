//! Lease: the trait of whatever grants something to one owner at a time, and one in memory.

use crate::logic::leases::{Grant, Leases};
use futures_util::future::BoxFuture;
use otava_actor::Time;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Grants a name to one owner at a time, for a limited time: a row in a database that all nodes can
/// reach, an object of an orchestrator. [`crate::Strategy::LeaseMajority`] asks one which side of a
/// split goes on.
///
/// What must hold: two owners never hold one name at the same time by the clock of the store; an
/// owner that asks again keeps it, for a new stretch of time; a term is never given to two owners. An
/// implementation uses one clock (that of the store) for all.
pub trait Lease: fmt::Debug + Send + Sync + 'static {
    /// Takes the lease `name` for `owner` for `length` from now, or renews it. The caller waits some
    /// seconds at most, and takes no answer for a no.
    ///
    /// # Errors
    /// [`LeaseError`]: it is not known whether the owner holds it.
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        length: Duration,
    ) -> BoxFuture<'a, Result<Grant, LeaseError>>;

    /// Gives the lease back, if `owner` holds it.
    ///
    /// # Errors
    /// [`LeaseError`]: it may be held until its time is over.
    fn release<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), LeaseError>>;

    /// Who holds the lease `name` at present.
    ///
    /// # Errors
    /// [`LeaseError`]: that is not known.
    fn holder<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, LeaseError>>;
}

/// A lease that could not be asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the store of the lease `{name}` gives no answer: {reason}")]
pub struct LeaseError {
    name: String,
    reason: String,
}

impl LeaseError {
    /// The lease `name` could not be asked, because of `reason`.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reason: reason.into(),
        }
    }
}

/// Leases in the memory of one process, for tests: the nodes in it share one through an
/// [`std::sync::Arc`]. Follows tokio's clock, also where that is paused.
#[derive(Debug)]
pub struct MemoryLease {
    begin: tokio::time::Instant,
    leases: Mutex<Leases>,
}

impl MemoryLease {
    /// Nothing is held.
    #[must_use]
    pub fn new() -> Self {
        Self {
            begin: tokio::time::Instant::now(),
            leases: Mutex::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Leases, Time) -> T) -> T {
        let now = Time::ZERO + self.begin.elapsed();
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut leases, now)
    }
}

impl Default for MemoryLease {
    fn default() -> Self {
        Self::new()
    }
}

impl Lease for MemoryLease {
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        length: Duration,
    ) -> BoxFuture<'a, Result<Grant, LeaseError>> {
        Box::pin(
            async move { Ok(self.with(|leases, now| leases.acquire(now, name, owner, length))) },
        )
    }

    fn release<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), LeaseError>> {
        Box::pin(async move {
            self.with(|leases, _| leases.release(name, owner));
            Ok(())
        })
    }

    fn holder<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, LeaseError>> {
        Box::pin(async move { Ok(self.with(|leases, now| leases.holder(now, name))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_lease_is_that_of_tokio() {
        let lease = MemoryLease::new();
        let length = Duration::from_secs(10);
        let held = Grant::Held { term: 1 };
        assert_eq!(lease.acquire("x", "a", length).await, Ok(held));
        tokio::time::advance(length).await;
        let held = Grant::Held { term: 2 };
        assert_eq!(lease.acquire("x", "b", length).await, Ok(held));
        assert_eq!(lease.holder("x").await, Ok(Some("b".into())));
        lease.release("x", "b").await.unwrap();
        assert_eq!(lease.holder("x").await, Ok(None));
    }
}
