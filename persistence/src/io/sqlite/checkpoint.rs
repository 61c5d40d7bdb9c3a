//! Keeper: copies the write-ahead log back into the main file, and forces marks to disk.
//!
//! SQLite's own way is that the commit which finds the log long copies it: one answer in a few
//! hundred then takes tens of milliseconds. Here a thread with a connection of its own does it,
//! in steps. *Passive* copies nearly everything while commits go on behind it. *Restart* then
//! copies the little that came since and lets the log begin from its start again; commits wait for
//! that last step only. Several processes may try at the same time: one gets the lock, the
//! others find the work done.
//!
//! SQLite forces the main file to disk at the end of a copy, but not when there was a commit meanwhile.
//! Under load that would be left to the last step, 10 to 25 ms of it. So passive copies follow, each
//! right behind a commit, until one is short: they copy little, before the next commit, and the one that
//! forces to disk holds no lock. What is left for the last step takes about as long as a commit.
//!
//! The last step holds the write lock while it waits for readers. A reader may be paused for good
//! (SIGSTOP), so it waits a few commits long only, and tries again when the log has grown as much
//! once more: then the log grows, and nobody stands still.

use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::marks::SyncFile;
use crate::io::sqlite::turns::Turns;
use crate::io::sqlite::{MarkSync, Severity, severity};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How often the keeper looks while there are commits.
const PERIOD: Duration = Duration::from_millis(50);

/// A copy that takes no longer had next to nothing to force to disk.
const SHORT: Duration = Duration::from_millis(5);

/// Short copies are tried for so many times: nothing says that they ever become short.
const COPIES_MAX: u32 = 4;

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
    pub(super) turns: Arc<Turns>,
}

/// The committer's side. Dropping it ends the keeper.
pub(super) struct KeeperHandle {
    committed: SyncSender<()>,
    _alive: SyncSender<()>,
}

/// The keeper's side.
pub(super) struct Waker {
    committed: Receiver<()>,
    ended: Receiver<()>,
}

pub(super) fn channel() -> (KeeperHandle, Waker) {
    let (committed, committed_receiver) = sync_channel(1);
    let (alive, ended) = sync_channel(0);
    let handle = KeeperHandle {
        committed,
        _alive: alive,
    };
    (
        handle,
        Waker {
            committed: committed_receiver,
            ended,
        },
    )
}

impl KeeperHandle {
    /// There was a commit. Costs next to nothing while the keeper knows already.
    pub(super) fn wake(&self) {
        // Full means that it knows, disconnected that it has ended: both are fine.
        let _ = self.committed.try_send(());
    }
}

impl Keeper {
    /// Runs until the handle is dropped, then a last time.
    pub(super) fn run(self) {
        let mut tried_at = 0;
        // A commit that was noticed while the log was copied counts for the next time.
        let mut noticed = false;
        while noticed || self.waker.committed.recv().is_ok() {
            let ended = self.waker.ended.recv_timeout(PERIOD);
            noticed = false;
            if self.halt.known().is_none() {
                self.keep(&mut tried_at, &mut noticed);
            }
            if ended == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    }

    /// `tried_at`: how many pages could not be copied last time.
    fn keep(&self, tried_at: &mut i64, noticed: &mut bool) {
        if self.mark_sync == MarkSync::Background
            && let Err(error) = self.mark.sync()
        {
            self.halt
                .halt(&format!("cannot force a mark to disk: {error}"));
            return;
        }
        match self.shorten_log(*tried_at, noticed) {
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
    fn shorten_log(&self, tried_at: i64, noticed: &mut bool) -> rusqlite::Result<i64> {
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
        for _ in 0..COPIES_MAX {
            *noticed |= self.wait_for_commit();
            let begin = Instant::now();
            self.checkpoint("PASSIVE")?;
            if begin.elapsed() < SHORT {
                break;
            }
        }
        let _turn = self.turns.keep();
        // If a reader is in the way, the log grows once more as long before this is tried again.
        self.checkpoint("RESTART")?;
        Ok(0)
    }

    /// Until the next commit, if there is one soon. Returns whether any was noticed.
    fn wait_for_commit(&self) -> bool {
        let before = self.waker.committed.try_recv().is_ok();
        let next = self.waker.committed.recv_timeout(BUSY_LIMIT);
        before || next.is_ok()
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
