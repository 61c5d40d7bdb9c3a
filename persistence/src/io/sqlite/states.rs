//! States: saves and gives the newest values of entities that have no events.

use crate::error::{AppendError, JournalError};
use crate::format::RecordRef;
use crate::id::PersistenceId;
use crate::io::sqlite::reader::{ReadFault, Reader};
use crate::io::sqlite::rows::{Names, PAGE_BYTES_MAX, as_i64, state, state_checksum};
use crate::io::sqlite::transaction::{Done, Fault, Job, Transaction};
use crate::io::sqlite::{SqliteJournal, rows};
use crate::logic::tags;
use crate::query::EventQuery;
use crate::state::{SaveState, SavedState, StateStore, StoredState};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rusqlite::{OptionalExtension as _, params};

impl Transaction<'_> {
    pub(super) fn save_state(&mut self, request: &SaveState) -> Result<SavedState, Fault> {
        self.check_fence(request.fence.as_ref())?;
        let stream = self.stream(&request.id)?;
        let actual = stream.map_or(Ok(0), |stream| self.revision(stream))?;
        let expected = request.expected_revision;
        if actual != expected {
            return Err(Fault::Refused(AppendError::WrongSequence {
                expected,
                actual,
            }));
        }
        self.dirty = true;
        let stream = self.stream_or_give(&request.id)?;
        let saved = SavedState::new(actual + 1, self.next_state_position()?);
        self.put_state(stream, request, saved)?;
        Ok(saved)
    }

    fn revision(&self, stream: i64) -> rusqlite::Result<u64> {
        let revision = self
            .db
            .prepare_cached("SELECT revision FROM states WHERE stream = ?1")?
            .query_row([stream], |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(revision.unwrap_or_default().cast_unsigned())
    }

    /// Rows are never removed, and the one with the highest position gives way only to a higher
    /// one: so no position is given twice.
    fn next_state_position(&self) -> rusqlite::Result<u64> {
        let newest: i64 = self
            .db
            .prepare_cached("SELECT coalesce(max(position), 0) FROM states")?
            .query_row([], |row| row.get(0))?;
        Ok(newest.cast_unsigned() + 1)
    }

    fn put_state(
        &self,
        stream: i64,
        request: &SaveState,
        saved: SavedState,
    ) -> rusqlite::Result<()> {
        let record = request.record.as_ref();
        let tags = record.map_or_else(Vec::new, |record| tags::encode(&record.tags));
        let content = record.map(|record| RecordRef::new(record, &tags));
        let place = (saved.revision, saved.position);
        let crc = state_checksum(&request.id, place, self.now_ms, content);
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO states
                 (stream, revision, position, written_at_ms, name, version, payload, tags, crc)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                stream,
                saved.revision.cast_signed(),
                saved.position.cast_signed(),
                self.now_ms.cast_signed(),
                record.map(|record| &record.name),
                record.map(|record| record.version),
                record.map(|record| &record.payload[..]),
                (!tags.is_empty()).then_some(&tags),
                crc
            ])?;
        Ok(())
    }
}

/// The states that changed behind `after`, in the order of their changes.
fn changes(
    reader: &mut Reader,
    query: &EventQuery,
    after: u64,
    max: usize,
) -> Result<Vec<StoredState>, ReadFault> {
    let Reader { db, ids, .. } = reader;
    let transaction = db.unchecked_transaction()?;
    let mut statement = db.prepare_cached(
        "SELECT position, revision, name, version, written_at_ms, payload, crc, tags, stream
         FROM states WHERE position > ?1 ORDER BY position",
    )?;
    let mut rows = statement.query([as_i64(after)])?;
    let (mut found, mut bytes, mut names) = (Vec::new(), 0, Names::default());
    let mut of_any_tag = query.clone();
    of_any_tag.tag = None;
    while found.len() < max
        && bytes < PAGE_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let id = ids.id(db, row.get(8)?)?;
        if !of_any_tag.matches(&id, &[]) {
            continue;
        }
        let state = state(row, &id, &mut names)?;
        let record = state.record.as_ref();
        if query.matches(&id, record.map_or(&[][..], |record| &record.tags)) {
            bytes += record.map_or(0, |record| record.payload.len());
            found.push(state);
        }
    }
    drop(rows);
    drop(statement);
    transaction.finish()?;
    Ok(found)
}

impl StateStore for SqliteJournal {
    fn load<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<Option<StoredState>, JournalError>> {
        let id = id.clone();
        self.read_on(move |reader| rows::load_state(&reader.db, &id))
            .boxed()
    }

    fn save(&self, request: SaveState) -> BoxFuture<'_, Result<SavedState, AppendError>> {
        async move {
            request.check_limits()?;
            match self.write(Job::SaveState(request)).await? {
                Done::Saved(saved) => Ok(saved),
                done => unreachable!("a state was answered with {done:?}"),
            }
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredState>, JournalError>> {
        let query = query.clone();
        self.read_on(move |reader| changes(reader, &query, after, max))
            .boxed()
    }
}
