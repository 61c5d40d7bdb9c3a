//! Memory journal: keeps everything in the process and forgets it at the end. For tests.

mod content;

use crate::error::{AppendError, ClaimError, JournalError};
use crate::id::PersistenceId;
use crate::io::wall_clock_ms;
use crate::journal::{AppendRequest, Appended, DeleteRequest, EventPage, Journal, check_scope};
use crate::offset::{OffsetStore, check_offset_key};
use crate::query::{EventQueries, EventQuery, QueryPage};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::state::{SaveState, SavedState, StateStore, StoredState};
use content::Content;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Every store of this crate, in memory.
///
/// It keeps every promise of [`Journal`] but one: nothing survives the process. Clones are handles
/// on the same open journal; [`Self::reopen`] gives a new one after the old was closed, so that a
/// test can stop a node and start the next one with what it left.
#[derive(Clone, Default)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
    closed: Arc<AtomicBool>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    /// Wakes who waits for events, after an append and when a handle is closed.
    changed: watch::Sender<()>,
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
            shared: Arc::clone(&self.shared),
            closed: Arc::default(),
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Content>, JournalError> {
        let content = self.shared.content.lock();
        let content = content.unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            Err(JournalError::Closed)
        } else {
            Ok(content)
        }
    }

    fn append_now(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        request.check_limits()?;
        let appended = self.open()?.append(request, wall_clock_ms())?;
        self.shared.changed.send_replace(());
        Ok(appended)
    }

    async fn wait(&self, after: u64) -> Result<u64, JournalError> {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let position = self.open()?.position;
            if position > after {
                return Ok(position);
            }
            // The sender lives as long as `self`.
            drop(changed.changed().await);
        }
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
        async move { Ok(self.open()?.read(id, from_seq, max)) }.boxed()
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move { Ok(self.open()?.read(id, 1, 0).highest_seq) }.boxed()
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        async move {
            check_scope(scope)?;
            self.open()?.claim(scope, epoch)
        }
        .boxed()
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move {
            check_scope(scope)?;
            Ok(self.open()?.next_term(scope))
        }
        .boxed()
    }

    fn delete(&self, request: DeleteRequest) -> BoxFuture<'_, Result<(), AppendError>> {
        async move {
            request.check_limits()?;
            self.open()?.delete(&request)
        }
        .boxed()
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(self.clone()))
    }

    fn queries(&self) -> Option<Arc<dyn EventQueries>> {
        Some(Arc::new(self.clone()))
    }

    fn states(&self) -> Option<Arc<dyn StateStore>> {
        Some(Arc::new(self.clone()))
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        Some(Arc::new(self.clone()))
    }

    /// All clones are closed with it.
    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        self.shared.changed.send_replace(());
        ready(()).boxed()
    }
}

impl SnapshotStore for MemoryJournal {
    fn save(
        &self,
        snapshot: Snapshot,
        keep: NonZeroU32,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        async move {
            snapshot.check_limits()?;
            self.open()?.save_snapshot(snapshot, keep);
            Ok(())
        }
        .boxed()
    }

    fn latest<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, JournalError>> {
        async move { Ok(self.open()?.latest_snapshot(id, seq_max)) }.boxed()
    }

    fn delete<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            self.open()?.delete_snapshots(id, seq_max);
            Ok(())
        }
        .boxed()
    }
}

impl EventQueries for MemoryJournal {
    fn events<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<QueryPage, JournalError>> {
        async move { Ok(self.open()?.events(query, after, max)) }.boxed()
    }

    fn changed(&self, after: u64) -> BoxFuture<'_, Result<u64, JournalError>> {
        self.wait(after).boxed()
    }

    fn ids<'a>(
        &'a self,
        after: Option<&'a PersistenceId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<PersistenceId>, JournalError>> {
        async move { Ok(self.open()?.ids(after, max)) }.boxed()
    }
}

impl StateStore for MemoryJournal {
    fn load<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<Option<StoredState>, JournalError>> {
        async move { Ok(self.open()?.state(id)) }.boxed()
    }

    fn save(&self, request: SaveState) -> BoxFuture<'_, Result<SavedState, AppendError>> {
        async move {
            request.check_limits()?;
            self.open()?.save_state(request, wall_clock_ms())
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredState>, JournalError>> {
        async move { Ok(self.open()?.changed_states(query, after, max)) }.boxed()
    }
}

impl OffsetStore for MemoryJournal {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>, JournalError>> {
        async move { Ok(self.open()?.offset(key)) }.boxed()
    }

    fn save<'a>(&'a self, key: &'a str, offset: u64) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            check_offset_key(key)?;
            self.open()?.save_offset(key, offset);
            Ok(())
        }
        .boxed()
    }

    fn clear<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            self.open()?.clear_offset(key);
            Ok(())
        }
        .boxed()
    }
}
