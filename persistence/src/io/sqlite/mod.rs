//! Embedded journal: one SQLite file, which the processes of one machine share.

mod config;
mod journal;

pub use config::{MarkSync, SqliteConfig};
pub use journal::SqliteJournal;
