//! Tenure: the time in which one node holds the lease of a singleton, from the attempt to its return.
//!
//! Each attempt asks as an owner of its own, `<run of the node>/<attempt>`. So an answer that comes too
//! late, or a return of which nothing is known, is never taken for a later attempt of the same node;
//! and the store gives each start a new term.
//!
//! ```text
//! asked            renewed, every quarter                  half: lost            whole
//!   |-----------------|--------- .. no answer .. -------------|- the actor ends -|  others may have it
//! ```
//!
//! **Invariant:** time counts from before the question, by this node's clock, so the node takes the
//! lease for over before the store does, as long as their clocks run at about the same pace.

use crate::lease::Lease;
use crate::logic::leases::Grant;
use crate::singleton::terms::TermStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How long one question to the store may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a tenure tells its host.
pub(super) enum TenureNews {
    /// The attempt got this term, or none.
    Acquired(u64, Option<u64>),
    /// The lease is not this node's any more, or soon will not be.
    Lost(u64),
}

pub(super) struct Tenure<N> {
    pub(super) lease: Arc<dyn Lease>,
    /// Where terms come from, if not from the lease.
    pub(super) terms: Option<Arc<dyn TermStore>>,
    /// The scope of terms.
    pub(super) scope: String,
    /// Of the lease.
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) length: Duration,
    pub(super) attempt: u64,
    pub(super) news: mpsc::UnboundedSender<N>,
}

impl<N: From<TenureNews>> Tenure<N> {
    /// Gets the lease and keeps it until `end` comes, or is dropped; then gives it back.
    pub(super) async fn run(self, mut end: oneshot::Receiver<()>) {
        let asked = Instant::now();
        let within = ANSWER_WITHIN.min(self.length / 2);
        let first = match timeout(within, self.ask()).await {
            Ok(Ok(Grant::Held { term })) => Some(term),
            Ok(Ok(Grant::Taken { by })) => {
                tracing::debug!(lease = %self.name, %by, "somebody else has it");
                return self.tell(TenureNews::Acquired(self.attempt, None));
            }
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.name, %error, "asked again");
                None
            }
            Err(_) => {
                tracing::warn!(lease = %self.name, ?within, "no answer, asked again");
                None
            }
        };
        let term = match first {
            Some(first) => self.term(first, asked + self.length / 2).await,
            None => None,
        };
        self.tell(TenureNews::Acquired(self.attempt, term));
        if let Some(first) = first.filter(|_| term.is_some()) {
            self.keep(first, asked, &mut end).await;
        }
        // Also without an answer: it may have been granted.
        let released = self.lease.release(&self.name, &self.owner);
        if !matches!(timeout(ANSWER_WITHIN, released).await, Ok(Ok(()))) {
            tracing::warn!(lease = %self.name, "not given back: others wait until its time is over");
        }
    }

    async fn ask(&self) -> Result<Grant, crate::lease::LeaseError> {
        let (name, owner) = (&self.name, &self.owner);
        self.lease.acquire(name, owner, self.length).await
    }

    /// The term of the start: that of the lease, unless there is a store for them.
    async fn term(&self, of_lease: u64, until: Instant) -> Option<u64> {
        let Some(terms) = &self.terms else {
            return Some(of_lease);
        };
        match timeout_at(until, terms.next_term(&self.scope)).await {
            Ok(Ok(term)) => Some(term),
            Ok(Err(error)) => {
                tracing::warn!(scope = %self.scope, %error, "asked again");
                None
            }
            Err(_) => {
                tracing::warn!(scope = %self.scope, "the store of terms gives no answer");
                None
            }
        }
    }

    /// Renews the lease, which was got as `first` and counts from `asked`. Returns at the end, never
    /// before: what is lost is given back, if at all, when the actor has ended.
    async fn keep(&self, first: u64, mut asked: Instant, end: &mut oneshot::Receiver<()>) {
        let mut renew_at = asked + self.length / 4;
        loop {
            tokio::select! {
                biased;
                // An error means the same.
                _ = &mut *end => return,
                () = sleep_until(renew_at) => {}
            }
            let lost_at = asked + self.length / 2;
            let now = Instant::now();
            // It is not broken off when the end comes: a renewal that is carried out after the return
            // would keep everybody out.
            let answer = timeout_at(lost_at.min(now + ANSWER_WITHIN), self.ask()).await;
            match answer {
                Ok(Ok(Grant::Held { term })) if term == first => {
                    asked = now;
                    renew_at = now + self.length / 4;
                    continue;
                }
                Ok(Ok(_)) => {
                    tracing::error!(lease = %self.name, "it was lost: the actor stops");
                    break;
                }
                Ok(Err(error)) => tracing::warn!(lease = %self.name, %error, "not renewed"),
                Err(_) => tracing::warn!(lease = %self.name, "no answer, not renewed"),
            }
            if Instant::now() >= lost_at {
                tracing::error!(lease = %self.name, "not renewed for too long: the actor stops");
                break;
            }
            renew_at = lost_at.min(Instant::now() + self.length / 16);
        }
        self.tell(TenureNews::Lost(self.attempt));
        let _ = end.await;
    }

    fn tell(&self, news: TenureNews) {
        // An error means that the host has ended, and with it the actor.
        let _ = self.news.send(news.into());
    }
}
