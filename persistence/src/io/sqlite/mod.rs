//! Embedded journal: one SQLite file, which the processes of one machine share.
//!
//! ```text
//! append, claim, ... --> bounded queue --> committer thread --+
//!                                                             | BEGIN IMMEDIATE .. COMMIT
//! other processes, the same way ------------------------------+--> journal.db + journal.db-wal
//!                                                                  journal.db-mark-*   acknowledged up to
//! read, events, ...  --> bounded queue --> reader threads ------>  journal.db-halted   do not trust it
//! changed            <-- watch <--- commits of this process, and a thread that looks for those of others
//! ```
//!
//! The book describes the bytes (`docs/book/embedded-journal.md`); `scripts/crash-journal.sh` goes
//! through the states that a crash can leave.
//!
//! **Invariant:** an answer goes out after its commit is durable and marked, never before.
//!
//! **Invariant:** one thread a process writes, in transactions that begin with the write lock; so
//! what a transaction checks (fence, sequence number) still holds when it commits, whichever
//! process wrote in between.
//!
//! **Invariant:** what the committer remembers of the file (epochs, newest numbers) holds only while the
//! count of commits in it, read with the write lock held, is the one that this process left ([`known`]).
//!
//! **Invariant:** an outcome that is unknown is never tried again: the store halts ([`halt`]).
//!
//! What sharing costs: the write lock is held by one process at a time, fsync included. A process
//! that is killed gives it back at once. A process that is *paused* (SIGSTOP, a debugger) in the
//! middle of a commit keeps it, and the others get [`JournalError::Busy`](crate::JournalError::Busy)
//! after `busy_limit` until it goes on or is killed. That is safe, and cannot be helped with a lock
//! of the operating system.
//!
//! Why group commit: a durable commit costs 0.2 ms and more, whether it holds one append or a
//! thousand. While one is under way, requests gather in the queue, and the next takes them all; the
//! slower the disk, the larger the batches. Nobody waits for a batch to fill ([`queue`]).

mod batch;
mod busy;
mod checkpoint;
mod committer;
mod config;
mod halt;
mod halves;
mod journal;
mod known;
mod marks;
mod offsets;
mod open;
mod places;
mod queries;
mod queue;
mod reader;
mod rows;
mod schema;
mod states;
mod sweep;
mod transaction;
mod turns;
mod verify;
mod watch;

pub use config::{MarkSync, SqliteConfig};
pub use journal::SqliteJournal;
pub use verify::{Verified, VerifyError};

use std::io;
use std::path::{Path, PathBuf};

/// `<path><suffix>`: the name of a file beside the journal.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder in which the journal lies.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes names in the folder of `path` durable: a new or renamed file is lost at a power cut
/// without it.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        std::fs::File::open(folder(path))?.sync_all()
    } else {
        Ok(())
    }
}

/// What is to be done about an error of the database.
enum Severity {
    /// Another writer was in the way; nothing was done.
    Busy,
    /// The statement was refused; nothing else is wrong.
    Constraint,
    /// A write found no room on the disk; what was under way is taken back.
    Full,
    /// Nobody knows.
    Fatal,
}

fn severity(error: &rusqlite::Error) -> Severity {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => Severity::Busy,
        Some(rusqlite::ErrorCode::ConstraintViolation) => Severity::Constraint,
        Some(rusqlite::ErrorCode::DiskFull) => Severity::Full,
        _ => Severity::Fatal,
    }
}
