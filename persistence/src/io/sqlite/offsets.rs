//! Offsets: remembers how far projections have come.

use crate::error::JournalError;
use crate::io::sqlite::transaction::{Done, Fault, Job, Transaction};
use crate::io::sqlite::{SqliteJournal, rows};
use crate::offset::{OffsetStore, check_offset_key};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

impl Transaction<'_> {
    pub(super) fn save_offset(&mut self, key: &str, offset: u64) -> Result<Done, Fault> {
        self.dirty = true;
        self.set_number(
            "INSERT OR REPLACE INTO offsets VALUES (?1, ?2, ?3)",
            key,
            offset,
        )?;
        Ok(Done::Nothing)
    }

    pub(super) fn clear_offset(&mut self, key: &str) -> Result<Done, Fault> {
        let removed = self
            .db
            .prepare_cached("DELETE FROM offsets WHERE key = ?1")?
            .execute([key])?;
        self.dirty |= removed > 0;
        Ok(Done::Nothing)
    }
}

impl OffsetStore for SqliteJournal {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>, JournalError>> {
        let key = key.to_owned();
        self.read_on(move |reader| rows::load_offset(&reader.db, &key))
            .boxed()
    }

    fn save<'a>(&'a self, key: &'a str, offset: u64) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            check_offset_key(key)?;
            let key = key.into();
            let job = Job::SaveOffset { key, offset };
            self.write_plainly(job).await.map(drop)
        }
        .boxed()
    }

    fn clear<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        let job = Job::ClearOffset { key: key.into() };
        async move { self.write_plainly(job).await.map(drop) }.boxed()
    }
}
