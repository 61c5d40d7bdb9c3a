//! Watch: wakes who waits for events, at the commits of this process and of all others.
//!
//! A commit of this process is told as it happens. Those of others can only be looked for: a thread
//! does it, while somebody waits, with `PRAGMA data_version`, which reads shared memory and no file.

use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::{Severity, schema, severity};
use rusqlite::Connection;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What who waits holds.
#[derive(Clone)]
pub(super) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    newest: watch::Sender<Newest>,
}

#[derive(Default)]
struct Waiting {
    waiters: usize,
    ended: bool,
}

#[derive(Clone, Copy, Default)]
struct Newest {
    position: u64,
    /// There will be no more.
    ended: bool,
}

/// The committer's side. Dropping it ends the thread, and all waiting.
pub(super) struct WatchHandle {
    shared: Arc<Shared>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, position: u64) {
        self.newest.send_if_modified(|newest| {
            let grows = position > newest.position;
            newest.position = newest.position.max(position);
            grows
        });
    }

    fn end(&self) {
        self.waiting().ended = true;
        self.changed.notify_all();
        self.newest.send_modify(|newest| newest.ended = true);
    }
}

impl WatchHandle {
    /// There was a commit of this process.
    pub(super) fn committed(&self, position: u64) {
        self.shared.found(position);
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Watch {
    pub(super) fn new() -> (Self, WatchHandle) {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            newest: watch::Sender::default(),
        });
        let watch = Self {
            shared: Arc::clone(&shared),
        };
        (watch, WatchHandle { shared })
    }

    /// Waits for a position behind `after`; `None` when there will be no more.
    pub(super) async fn behind(&self, after: u64) -> Option<u64> {
        let mut newest = self.shared.newest.subscribe();
        let _waiter = Waiter::new(&self.shared);
        loop {
            let now = *newest.borrow_and_update();
            if now.ended {
                return None;
            }
            if now.position > after {
                return Some(now.position);
            }
            newest.changed().await.ok()?;
        }
    }
}

/// Somebody waits.
struct Waiter<'a> {
    shared: &'a Shared,
}

impl<'a> Waiter<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting().waiters += 1;
        shared.changed.notify_all();
        Self { shared }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.waiting().waiters -= 1;
    }
}

/// What the thread owns.
pub(super) struct Watcher {
    pub(super) db: Connection,
    pub(super) halt: Arc<Halt>,
    pub(super) period: Duration,
    pub(super) watch: Watch,
}

impl Watcher {
    /// Runs until the handle is dropped.
    pub(super) fn run(self) {
        let mut seen = None;
        while self.wait_for_waiters() {
            if self.halt.known().is_some() {
                self.watch.shared.end();
                return;
            }
            match self.look(&mut seen) {
                Ok(()) => {}
                Err(error) if matches!(severity(&error), Severity::Busy) => {}
                Err(error) => {
                    self.halt.halt(&format!("cannot look for commits: {error}"));
                }
            }
            self.pause();
        }
    }

    /// Reads the newest position if anybody has committed since the last look.
    fn look(&self, seen: &mut Option<i64>) -> rusqlite::Result<()> {
        let version = self
            .db
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if *seen != Some(version) {
            self.watch.shared.found(schema::head(&self.db)?.position);
            *seen = Some(version);
        }
        Ok(())
    }

    /// Whether there are any, and not the end.
    fn wait_for_waiters(&self) -> bool {
        let shared = &self.watch.shared;
        let waiting = shared
            .changed
            .wait_while(shared.waiting(), |now| now.waiters == 0 && !now.ended);
        !waiting.unwrap_or_else(PoisonError::into_inner).ended
    }

    fn pause(&self) {
        let shared = &self.watch.shared;
        drop(
            shared
                .changed
                .wait_timeout_while(shared.waiting(), self.period, |now| !now.ended),
        );
    }
}
