//! Keeper: copies the write-ahead log back into the main file, and forces marks to disk.
//!
//! SQLite's own way is that the commit which finds the log long copies it: one answer in a few
//! hundred then takes tens of milliseconds. Here a thread with a connection of its own does it,
//! in three steps. *Passive* copies nearly everything while commits go on behind it. A second *passive*,
//! begun right behind a commit, forces that to disk. *Restart* then copies the little that came since
//! and lets the log begin from its start again; commits wait for that last step only. Several processes
//! may try at the same time: one gets the lock, the others find the work done.
//!
//! With 1,000 writers, whose commits change some 800 pages each, the last step took 13 to 15 ms without
//! the second, most of it the fsync of all that the first had copied; with it 8 to 12 ms.
//!
//! The last step holds the write lock while it waits for readers. A reader may be paused for good
//! (SIGSTOP), so it waits a few commits long only, and tries again when the log has grown as much
//! once more: then the log grows, and nobody stands still.

use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::marks::SyncFile;
use crate::io::sqlite::{MarkSync, Severity, severity};
use rusqlite::Connection;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often the keeper looks while there are commits.
const PERIOD: Duration = Duration::from_millis(50);

/// How long the keeper's connection waits for readers and writers.
pub(super) const BUSY_LIMIT: Duration = Duration::from_millis(20);

/// What the thread owns.
pub(super) struct Keeper {
    pub(super) db: Connection,
    pub(super) halt: Arc<Halt>,
    pub(super) mark: Arc<SyncFile>,
    pub(super) mark_sync: MarkSync,
    pub(super) pages_max: u32,
    pub(super) waker: Waker,
}

/// The committer's side. Dropping it ends the keeper.
pub(super) struct KeeperHandle {
    turn: Arc<Turn>,
    committed: SyncSender<()>,
    _alive: SyncSender<()>,
}

/// The keeper's side.
pub(super) struct Waker {
    turn: Arc<Turn>,
    committed: Receiver<()>,
    ended: Receiver<()>,
}

pub(super) fn channel() -> (KeeperHandle, Waker) {
    let (committed, committed_receiver) = sync_channel(1);
    let (alive, ended) = sync_channel(0);
    let turn = Arc::<Turn>::default();
    let handle = KeeperHandle {
        turn: Arc::clone(&turn),
        committed,
        _alive: alive,
    };
    (
        handle,
        Waker {
            turn,
            committed: committed_receiver,
            ended,
        },
    )
}

/// Whose turn it is to write. Without it the keeper, which asks again and again, would not get the
/// lock from a committer that takes it anew within microseconds: it would ask until its limit, copy
/// once more without the lock, and the log would go on.
#[derive(Default)]
struct Turn {
    /// Whether it is the keeper's.
    keeps: Mutex<bool>,
    over: Condvar,
}

/// The keeper's turn. It is over when this is dropped.
struct Keeping<'a>(&'a Turn);

impl Turn {
    fn take(&self) -> Keeping<'_> {
        *self.keeps.lock().unwrap_or_else(PoisonError::into_inner) = true;
        Keeping(self)
    }
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        *self.0.keeps.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.over.notify_all();
    }
}

impl KeeperHandle {
    /// Waits until the keeper does not want the write lock. Its turn is as long as a small copy, and
    /// at most some [`BUSY_LIMIT`]s.
    pub(super) fn give_way(&self) {
        let turn = &self.turn;
        let keeps = turn.keeps.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn.over.wait_while(keeps, |keeps| *keeps));
    }

    /// There was a commit. Costs next to nothing while the keeper knows already.
    pub(super) fn wake(&self) {
        // Full means that it knows, disconnected that it has ended: both are fine.
        let _ = self.committed.try_send(());
    }
}

impl Waker {
    /// Waits a few commits long for one that ends from now on. Whether there was one, before or since.
    fn next_commit(&self) -> bool {
        let before = self.committed.try_recv().is_ok();
        self.committed.recv_timeout(BUSY_LIMIT).is_ok() || before
    }
}

impl Keeper {
    /// Runs until the handle is dropped, then a last time.
    pub(super) fn run(self) {
        let (mut tried_at, mut heard) = (0, false);
        while heard || self.waker.committed.recv().is_ok() {
            let ended = self.waker.ended.recv_timeout(PERIOD);
            heard = false;
            if self.halt.known().is_none() {
                self.keep(&mut tried_at, &mut heard);
            }
            if ended == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    }

    /// `tried_at`: how many pages could not be copied last time. `heard`: a commit came meanwhile.
    fn keep(&self, tried_at: &mut i64, heard: &mut bool) {
        if self.mark_sync == MarkSync::Background
            && let Err(error) = self.mark.sync()
        {
            self.halt
                .halt(&format!("cannot force a mark to disk: {error}"));
            return;
        }
        match self.shorten_log(*tried_at, heard) {
            Ok(left) => *tried_at = left,
            // What is not copied stays in the log.
            Err(error) if matches!(severity(&error), Severity::Busy | Severity::Full) => {}
            Err(error) => {
                self.halt
                    .halt(&format!("cannot copy the log back: {error}"));
            }
        }
    }

    /// Returns what `tried_at` is from now on.
    fn shorten_log(&self, tried_at: i64, heard: &mut bool) -> rusqlite::Result<i64> {
        let limit = i64::from(self.pages_max);
        let behind = self.checkpoint("NOOP")?;
        if behind < tried_at + limit {
            return Ok(tried_at.min(behind));
        }
        let left = self.checkpoint("PASSIVE")?;
        if left > limit / 2 {
            tracing::debug!(behind, left, "a reader keeps the log long");
            return Ok(left);
        }
        // SQLite forces the main file to disk only when nothing was committed while it copied. Behind a
        // commit there is mostly time for that; else all of it is left to the last step.
        *heard = self.waker.next_commit();
        if *heard {
            self.checkpoint("PASSIVE")?;
        }
        // If a reader is in the way, the log grows once more as long before this is tried again.
        let _turn = self.waker.turn.take();
        self.checkpoint("RESTART")?;
        Ok(0)
    }

    /// Returns the pages that are in the log and not in the main file.
    fn checkpoint(&self, mode: &str) -> rusqlite::Result<i64> {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        self.db.query_row(&pragma, [], |row| {
            let (log, copied): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(log - copied)
        })
    }
}
