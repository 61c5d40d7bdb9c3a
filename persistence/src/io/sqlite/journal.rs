//! Embedded journal handle: hands requests to the committer and the readers.

use crate::error::{AppendError, ClaimError, JournalError, OpenError};
use crate::id::PersistenceId;
use crate::io::sqlite::SqliteConfig;
use crate::journal::{AppendRequest, Appended, EventPage, Journal};
use futures_util::future::BoxFuture;
use std::path::Path;

/// The embedded journal.
#[derive(Clone)]
pub struct SqliteJournal {}

impl SqliteJournal {
    /// Opens or creates.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        _path: impl AsRef<Path>,
        _config: SqliteConfig,
    ) -> Result<SqliteJournal, OpenError> {
        unimplemented!()
    }
}

impl Journal for SqliteJournal {
    fn append(&self, _request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        unimplemented!()
    }
    fn read<'a>(
        &'a self,
        _id: &'a PersistenceId,
        _from_seq: u64,
        _max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        unimplemented!()
    }
    fn highest_seq<'a>(
        &'a self,
        _id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        unimplemented!()
    }
    fn claim<'a>(&'a self, _scope: &'a str, _epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        unimplemented!()
    }
    fn next_term<'a>(&'a self, _scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        unimplemented!()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        unimplemented!()
    }
}
