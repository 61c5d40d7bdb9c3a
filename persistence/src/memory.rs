//! Memory journal: keeps everything in the process and forgets it at the end. For tests.

use crate::error::{AppendError, ClaimError, JournalError};
use crate::id::PersistenceId;
use crate::io::wall_clock_ms;
use crate::journal::{
    AppendRequest, Appended, EventPage, Fence, Journal, StoredEvent, check_scope,
};
use crate::snapshot::{Snapshot, SnapshotStore};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A journal and snapshot store in memory.
///
/// It keeps every promise of [`Journal`] but one: nothing survives the process. Clones are handles
/// on the same open journal; [`Self::reopen`] gives a new one after the old was closed, so that a
/// test can stop a node and start the next one with what it left.
#[derive(Clone, Default)]
pub struct MemoryJournal {
    content: Arc<Mutex<Content>>,
    closed: Arc<AtomicBool>,
}

#[derive(Default)]
struct Content {
    position: u64,
    events: BTreeMap<PersistenceId, Vec<StoredEvent>>,
    snapshots: BTreeMap<(PersistenceId, u64), Snapshot>,
    epochs: BTreeMap<String, u64>,
    terms: BTreeMap<String, u64>,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new, open journal with the same content; the old one stays as it is.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self {
            content: Arc::clone(&self.content),
            closed: Arc::default(),
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Content>, JournalError> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            Err(JournalError::Closed)
        } else {
            Ok(content)
        }
    }

    fn append_now(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        request.check_limits()?;
        self.open()?.append(request)
    }

    fn read_now(
        &self,
        id: &PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> Result<EventPage, JournalError> {
        let content = self.open()?;
        let events = content
            .events
            .get(id)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let from = usize::try_from(from_seq.saturating_sub(1)).unwrap_or(usize::MAX);
        let page = events.iter().skip(from).take(max).cloned().collect();
        Ok(EventPage::new(page, events.len() as u64))
    }

    fn claim_now(&self, scope: &str, epoch: u64) -> Result<(), ClaimError> {
        check_scope(scope)?;
        let mut content = self.open()?;
        let current = content.epochs.entry(scope.to_owned()).or_default();
        if *current > epoch {
            return Err(ClaimError::Fenced { current: *current });
        }
        *current = epoch;
        Ok(())
    }

    fn next_term_now(&self, scope: &str) -> Result<u64, JournalError> {
        check_scope(scope)?;
        let mut content = self.open()?;
        let term = content.terms.entry(scope.to_owned()).or_default();
        *term += 1;
        Ok(*term)
    }

    fn save_now(&self, snapshot: Snapshot, keep: NonZeroU32) -> Result<(), JournalError> {
        snapshot.check_limits()?;
        let mut content = self.open()?;
        let id = snapshot.id.clone();
        content
            .snapshots
            .insert((id.clone(), snapshot.seq), snapshot);
        let keep = usize::try_from(keep.get()).unwrap_or(usize::MAX);
        let kept: Vec<_> = content
            .snapshots_of(&id, u64::MAX)
            .map(|(key, _)| key.clone())
            .collect();
        for key in kept.iter().rev().skip(keep) {
            content.snapshots.remove(key);
        }
        Ok(())
    }

    fn latest_now(
        &self,
        id: &PersistenceId,
        seq_max: u64,
    ) -> Result<Option<Snapshot>, JournalError> {
        let content = self.open()?;
        let newest = content.snapshots_of(id, seq_max).next_back();
        Ok(newest.map(|(_, snapshot)| snapshot.clone()))
    }

    fn delete_now(&self, id: &PersistenceId, seq_max: u64) -> Result<(), JournalError> {
        let mut content = self.open()?;
        content
            .snapshots
            .retain(|(other, seq), _| other != id || *seq > seq_max);
        Ok(())
    }
}

impl Content {
    fn append(&mut self, request: AppendRequest) -> Result<Appended, AppendError> {
        let AppendRequest {
            id,
            expected_seq,
            fence,
            events,
        } = request;
        if let Some(Fence { scope, epoch }) = fence {
            let current = self.epochs.get(&*scope).copied().unwrap_or_default();
            if current != epoch {
                return Err(AppendError::Fenced { current });
            }
        }
        let actual = self.events.get(&id).map_or(0, Vec::len) as u64;
        if actual != expected_seq {
            return Err(AppendError::WrongSequence {
                expected: expected_seq,
                actual,
            });
        }
        if events.is_empty() {
            return Ok(Appended::new(actual, 0));
        }
        let now = wall_clock_ms();
        let stored = self.events.entry(id).or_default();
        for record in events {
            self.position += 1;
            let seq = stored.len() as u64 + 1;
            stored.push(StoredEvent::new(seq, self.position, now, record));
        }
        Ok(Appended::new(stored.len() as u64, self.position))
    }

    fn snapshots_of(
        &self,
        id: &PersistenceId,
        seq_max: u64,
    ) -> impl DoubleEndedIterator<Item = (&(PersistenceId, u64), &Snapshot)> {
        self.snapshots
            .range((id.clone(), 0)..=(id.clone(), seq_max))
    }
}

impl Journal for MemoryJournal {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move { self.append_now(request) }.boxed()
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        async move { self.read_now(id, from_seq, max) }.boxed()
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move { Ok(self.read_now(id, 1, 0)?.highest_seq) }.boxed()
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        async move { self.claim_now(scope, epoch) }.boxed()
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move { self.next_term_now(scope) }.boxed()
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(self.clone()))
    }

    /// All clones are closed with it.
    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        ready(()).boxed()
    }
}

impl SnapshotStore for MemoryJournal {
    fn save(
        &self,
        snapshot: Snapshot,
        keep: NonZeroU32,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        async move { self.save_now(snapshot, keep) }.boxed()
    }

    fn latest<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, JournalError>> {
        async move { self.latest_now(id, seq_max) }.boxed()
    }

    fn delete<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        async move { self.delete_now(id, seq_max) }.boxed()
    }
}
