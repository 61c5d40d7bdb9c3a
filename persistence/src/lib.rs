//! Persistence: events, snapshots, the journals that keep them, and the actors that live by them.

pub mod conformance;
mod error;
pub mod format;
mod id;
mod io;
mod journal;
mod logic;
mod memory;
mod snapshot;

pub use error::{AppendError, ClaimError, Damage, JournalError, OpenError};
pub use id::{PersistenceId, SLICES};
pub use io::sqlite::{MarkSync, SqliteConfig, SqliteJournal, Verified, VerifyError};
pub use journal::{
    APPEND_EVENTS_MAX, AppendRequest, Appended, EventPage, EventRecord, Fence, Journal, StoredEvent,
};
pub use memory::MemoryJournal;
pub use snapshot::{Snapshot, SnapshotStore};
