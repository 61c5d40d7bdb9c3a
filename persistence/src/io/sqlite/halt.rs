//! Halt: the end of trust in a journal file, for this process and for all others.
//!
//! After a failed fsync nobody knows what the disk holds: the kernel may report the failure once
//! and then say "fine", and SQLite then acknowledges the next commits (both measured:
//! docs/libraries.md). So the first error that is neither "busy" nor "constraint" halts the store
//! for good, and the marker file `<journal>-halted` halts the other processes that share it: they
//! look for it in each commit. Their own fsyncs of the same file fail, too, which covers the moment
//! before the marker is there. Nobody removes the marker but a human.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Whether the store is halted, and why.
pub(super) struct Halt {
    marker: PathBuf,
    reason: OnceLock<Arc<str>>,
    /// Who waits for the reason.
    halted: Notify,
}

impl Halt {
    pub(super) fn new(journal: &Path) -> Self {
        Self {
            marker: super::beside(journal, "-halted"),
            reason: OnceLock::new(),
            halted: Notify::new(),
        }
    }

    pub(super) fn marker(&self) -> &Path {
        &self.marker
    }

    /// The reason, if this process knows that the store is halted. No look at the disk.
    pub(super) fn known(&self) -> Option<Arc<str>> {
        self.reason.get().cloned()
    }

    /// Waits for the reason.
    pub(super) async fn halted(&self) -> Arc<str> {
        loop {
            // Before the look: what comes after it wakes.
            let halted = self.halted.notified();
            if let Some(reason) = self.known() {
                return reason;
            }
            halted.await;
        }
    }

    /// The reason, if the store is halted by this process or another.
    pub(super) fn check(&self) -> Option<Arc<str>> {
        if let Some(reason) = self.known() {
            return Some(reason);
        }
        match fs::metadata(&self.marker) {
            Ok(_) => {
                let reason = read_marker(&self.marker);
                tracing::error!(reason, "the journal was halted by another process");
                let reason = Arc::clone(self.reason.get_or_init(|| reason.into()));
                self.halted.notify_waiters();
                Some(reason)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(self.halt(&format!("cannot look for the marker: {error}"))),
        }
    }

    /// Halts the store for good. The first reason stays.
    pub(super) fn halt(&self, reason: &str) -> Arc<str> {
        if self.reason.set(reason.into()).is_ok() {
            self.halted.notify_waiters();
            tracing::error!(reason, "the journal has halted");
            if let Err(error) = self.leave_marker(reason) {
                let marker = self.marker.display();
                tracing::error!(%error, %marker, "cannot leave the marker for other processes");
            }
        }
        Arc::clone(self.reason.get_or_init(|| reason.into()))
    }

    fn leave_marker(&self, reason: &str) -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.marker)?;
        let process = std::process::id();
        writeln!(
            file,
            "{} ms, process {process}: {reason}",
            crate::io::wall_clock_ms()
        )?;
        file.sync_all()?;
        super::sync_folder(&self.marker)
    }
}

/// What the marker says.
pub(super) fn read_marker(marker: &Path) -> String {
    let text = fs::read_to_string(marker).unwrap_or_default();
    let line = text
        .lines()
        .next()
        .unwrap_or("no reason is written in the marker");
    line.to_owned()
}
