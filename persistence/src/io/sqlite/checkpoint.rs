//! Keeper: copies the write-ahead log back into the main file, and forces marks to disk.
//!
//! SQLite's own way is that the commit which finds the log long copies it: one answer in a few
//! hundred then takes tens of milliseconds. Here a thread with a connection of its own does it,
//! in two steps. *Passive* copies nearly everything while commits go on behind it. *Restart* then
//! copies the little that came since and lets the log begin from its start again; commits wait for
//! that second step only. Several processes may try at the same time: one gets the lock, the
//! others find the work done.

use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::marks::SyncFile;
use crate::io::sqlite::{MarkSync, Severity, severity};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// How often the keeper looks while there are commits.
const PERIOD: Duration = Duration::from_millis(50);

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
        while self.waker.committed.recv().is_ok() {
            let ended = self.waker.ended.recv_timeout(PERIOD);
            if self.halt.known().is_none() {
                self.keep();
            }
            if ended == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    }

    fn keep(&self) {
        if self.mark_sync == MarkSync::Background
            && let Err(error) = self.mark.sync()
        {
            self.halt
                .halt(&format!("cannot force a mark to disk: {error}"));
            return;
        }
        if let Err(error) = self.shorten_log()
            && !matches!(severity(&error), Severity::Busy)
        {
            self.halt
                .halt(&format!("cannot copy the log back: {error}"));
        }
    }

    fn shorten_log(&self) -> rusqlite::Result<()> {
        if self.checkpoint("NOOP")? < i64::from(self.pages_max) {
            return Ok(());
        }
        let pages = self.checkpoint("PASSIVE")?;
        self.checkpoint("RESTART")?;
        tracing::trace!(pages, "copied the log back");
        Ok(())
    }

    /// Returns the pages that are in the log and not in the main file yet.
    fn checkpoint(&self, mode: &str) -> rusqlite::Result<i64> {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        self.db.query_row(&pragma, [], |row| {
            let (log, copied): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(log - copied)
        })
    }
}
