//! Errors: what a store refuses or cannot do, one enum an operation.

use crate::id::PersistenceId;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a store did not do what it was asked for. The common part of all operations.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another writer held the store for longer than the configured time. Nothing was done; it may
    /// be tried again.
    #[error("the store was held by another writer for {waited:?}; nothing was written")]
    Busy {
        /// How long was waited.
        waited: Duration,
    },
    /// The store was closed by this process.
    #[error("the store is closed")]
    Closed,
    /// What was read is not what was written. Nothing is skipped: recovery has to stop here.
    #[error("{id} is damaged at sequence number {seq}: {damage}")]
    Corrupt {
        /// Whose events or snapshots.
        id: PersistenceId,
        /// The first sequence number that cannot be given.
        seq: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// There is no room left on the disk. Nothing was written; it may be tried again when there is.
    #[error("no room is left on the disk; nothing was written")]
    Full,
    /// The store stopped for good after an error that leaves its state unknown. What was asked for
    /// may have happened or not, and must not be repeated blindly: recover first, from a store
    /// that was opened anew.
    #[error("the store has halted: {reason}")]
    Halted {
        /// The error that halted it.
        reason: Arc<str>,
    },
    /// The store found a contradiction in itself while it wrote this. Nothing of it was written.
    #[error("the store refused: {reason}; verify it")]
    Refused {
        /// What the store said.
        reason: String,
    },
    /// The store does not keep what cannot be kept: too long, too many, out of range.
    #[error("refused: {what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// How large it was.
        actual: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The store, a server, cannot be reached or does not serve. Nothing was done; it may be tried
    /// again.
    #[error("the store cannot be reached, nothing was done: {reason}")]
    Unavailable {
        /// What was tried, and what came of it.
        reason: Arc<str>,
    },
    /// The connection to the store ended while it was asked. What was asked for may have happened or
    /// not, and must not be repeated blindly: recover first. Unlike after [`Self::Halted`], the same
    /// store may be asked again.
    #[error("the connection to the store was lost, it may have been done: {reason}")]
    Unknown {
        /// How it ended.
        reason: Arc<str>,
    },
}

/// What is wrong with a stored event or snapshot.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The checksum does not fit the content.
    #[error("the checksum {found:08x} should be {expected:08x} (row {row})")]
    Checksum {
        /// Where it lies in the store.
        row: u64,
        /// What the content gives.
        expected: u32,
        /// What is stored.
        found: u32,
    },
    /// Later events are there, this one is not.
    #[error("it is missing, the next one that is there is {next}")]
    Missing {
        /// The next sequence number that is there.
        next: u64,
    },
    /// The store says where it lies, and nothing lies there.
    #[error("row {row}, where it should lie, is not there")]
    NoRow {
        /// Where it should lie in the store.
        row: u64,
    },
    /// The row has values that no version of this program wrote.
    #[error("row {row} holds a value out of range: {what}")]
    Malformed {
        /// Where it lies in the store.
        row: u64,
        /// Which value.
        what: &'static str,
    },
}

/// Why an append was refused, or not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The epoch of the fence is not the one that was claimed last: another owner has taken over.
    /// Nothing was written. The writer must stop.
    #[error("fenced: the scope is at epoch {current}")]
    Fenced {
        /// The epoch that was claimed last; 0 if none.
        current: u64,
    },
    /// Nothing was written, or the outcome is unknown: see the inner error.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// Somebody else wrote to this id. Nothing was written; what the writer knows is stale.
    #[error("expected to append after sequence number {expected}, but the journal is at {actual}")]
    WrongSequence {
        /// What the writer took to be the newest sequence number.
        expected: u64,
        /// The newest sequence number.
        actual: u64,
    },
}

/// Why an epoch could not be claimed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A higher epoch was claimed already: this owner is the older one and must not start.
    #[error("fenced: the scope is at epoch {current}")]
    Fenced {
        /// The epoch that was claimed last.
        current: u64,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] JournalError),
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Acknowledged commits are not in the file: it was damaged or replaced. Opening it would
    /// forget them in silence.
    #[error(
        "{path} ends at commit {commit} (event {position}), but commit {acknowledged} (event \
         {acknowledged_position}) was acknowledged, says {mark}: {} are missing. The file was \
         damaged or replaced. Restore it together with its -wal; to go on without them, remove \
         the files {path}-mark-*",
        missing(*position, *acknowledged_position)
    )]
    AcknowledgedMissing {
        /// The journal file.
        path: PathBuf,
        /// The newest commit in the file.
        commit: u64,
        /// The newest event in the file, by its position.
        position: u64,
        /// The newest commit that was acknowledged.
        acknowledged: u64,
        /// The newest event that was acknowledged, by its position.
        acknowledged_position: u64,
        /// The file that says so.
        mark: PathBuf,
    },
    /// No file could be made or read.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A process found that this journal cannot be trusted, and left the marker file.
    #[error(
        "the journal was halted: {reason}. Check the disk, then verify the journal \
         (`SqliteJournal::verify`) and remove {marker}"
    )]
    Halted {
        /// Why.
        reason: String,
        /// The marker file.
        marker: PathBuf,
    },
    /// A file that says what was acknowledged cannot be read.
    #[error("{mark} is damaged: what was acknowledged is unknown; remove it to go on")]
    MarkDamaged {
        /// The damaged file.
        mark: PathBuf,
    },
    /// The file belongs to another program.
    #[error("{path} is no journal of Otava")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error("{path} has format {found}, this program knows up to {known}: use a newer program")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// The file has an older format, and cannot be brought to the present one while another
    /// process has it open. Nothing was changed.
    #[error(
        "{path} has an older format than {known}, which this program writes, and another process \
         has it open: stop all processes that use it once, then start them with this version"
    )]
    OldFormatInUse {
        /// The file.
        path: PathBuf,
        /// The format that it would be brought to.
        known: u32,
    },
    /// The database could not be opened or prepared.
    #[error("cannot open {path}: {reason}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
}

fn missing(position: u64, acknowledged: u64) -> String {
    if acknowledged > position {
        format!("events {} to {acknowledged}", position + 1)
    } else {
        "epochs, terms or snapshots".to_owned()
    }
}
