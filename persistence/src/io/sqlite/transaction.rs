//! Transaction: what one request does to the tables, within a transaction of the committer.
//!
//! Checks come before writes, so a refused request leaves nothing behind and the others of the batch
//! go on.

use crate::error::{AppendError, JournalError};
use crate::format::{Checksums, RecordRef, checksum};
use crate::id::PersistenceId;
use crate::io::sqlite::Severity;
use crate::io::sqlite::known::Known;
use crate::io::sqlite::places::{self, Places};
use crate::io::sqlite::sweep::Budget;
use crate::journal::{AppendRequest, Appended, DeleteRequest, EventRecord, Fence};
use crate::logic::mark::Head;
use crate::logic::tags;
use crate::snapshot::Snapshot;
use crate::state::{SaveState, SavedState};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use std::num::NonZeroU32;
use std::sync::Arc;

/// What the committer is asked to do.
pub(super) enum Job {
    Append(AppendRequest),
    Claim {
        scope: Arc<str>,
        epoch: u64,
    },
    ClearOffset {
        key: Box<str>,
    },
    Delete(DeleteRequest),
    DeleteSnapshots {
        id: PersistenceId,
        seq_max: u64,
    },
    NextTerm {
        scope: Arc<str>,
    },
    SaveOffset {
        key: Box<str>,
        offset: u64,
    },
    SaveSnapshot {
        snapshot: Snapshot,
        keep: NonZeroU32,
    },
    SaveState(SaveState),
    /// Removes some of the rows that deletes have left.
    Sweep,
}

impl Job {
    /// Roughly how many bytes it adds to a commit.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(request) => request.bytes(),
            Self::SaveSnapshot { snapshot, .. } => snapshot.payload.len(),
            Self::SaveState(request) => request.record.as_ref().map_or(64, EventRecord::bytes),
            Self::Claim { .. }
            | Self::ClearOffset { .. }
            | Self::Delete(_)
            | Self::DeleteSnapshots { .. }
            | Self::NextTerm { .. }
            | Self::SaveOffset { .. }
            | Self::Sweep => 64,
        }
    }
}

/// What was done. Holds once the transaction is committed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Done {
    Appended(Appended),
    /// `left`: rows are left to be swept.
    Deleted {
        left: bool,
    },
    Nothing,
    Saved(SavedState),
    Term(u64),
}

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The rules say no. Nothing of the job was written.
    #[error(transparent)]
    Refused(AppendError),
    /// The database said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The journal cannot be trusted any more.
    #[error("{0}")]
    Untrusted(String),
}

impl Fault {
    pub(super) fn is_constraint(&self) -> bool {
        matches!(self, Self::Sqlite(error) if matches!(super::severity(error), Severity::Constraint))
    }
}

/// One transaction under way.
pub(super) struct Transaction<'a> {
    pub(super) db: &'a Connection,
    pub(super) known: &'a mut Known,
    /// The head when it began, with the events that were added since.
    pub(super) head: Head,
    pub(super) now_ms: u64,
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
    /// What may still be deleted in it ([`super::sweep`]).
    pub(super) budget: Budget,
    /// Inserts an event; it is not looked for again for each append.
    pub(super) insert: Option<CachedStatement<'a>>,
    pub(super) places: Places<'a>,
    pub(super) sums: Checksums,
}

impl Transaction<'_> {
    pub(super) fn apply(&mut self, job: &Job) -> Result<Done, Fault> {
        match job {
            Job::Append(request) => self.append(request).map(Done::Appended),
            Job::Claim { scope, epoch } => self.claim(scope, *epoch),
            Job::ClearOffset { key } => self.clear_offset(key),
            Job::Delete(request) => self.delete(request),
            Job::DeleteSnapshots { id, seq_max } => self.delete_snapshots(id, *seq_max),
            Job::NextTerm { scope } => self.next_term(scope).map(Done::Term),
            Job::SaveOffset { key, offset } => self.save_offset(key, *offset),
            Job::SaveSnapshot { snapshot, keep } => self.save_snapshot(snapshot, *keep),
            Job::SaveState(request) => self.save_state(request).map(Done::Saved),
            Job::Sweep => self.sweep(),
        }
    }

    fn append(&mut self, request: &AppendRequest) -> Result<Appended, Fault> {
        self.check_fence(request.fence.as_ref())?;
        let stream = self.find(&request.id)?;
        let actual = match stream {
            Some((_, Some(newest))) => newest,
            Some((stream, None)) => self.highest_seq(stream, &request.id)?,
            None => 0,
        };
        if stream.is_some() {
            self.known.note_newest(&request.id, actual);
        }
        let expected = request.expected_seq;
        if actual != expected {
            return Err(Fault::Refused(AppendError::WrongSequence {
                expected,
                actual,
            }));
        }
        if request.events.is_empty() {
            return Ok(Appended::new(actual, 0));
        }
        self.dirty = true;
        let stream = match stream {
            Some((stream, _)) => stream,
            None => self.give(&request.id)?,
        };
        let seq = self.insert_events(request, stream)?;
        self.known.note_newest(&request.id, seq);
        Ok(Appended::new(seq, self.head.position))
    }

    /// The number of an id if it has one, and its newest sequence number if that is known.
    fn find(&mut self, id: &PersistenceId) -> rusqlite::Result<Option<(i64, Option<u64>)>> {
        if let Some(known) = self.known.stream(id) {
            return Ok(Some(known));
        }
        let stream = stream_of(self.db, id)?;
        if let Some(stream) = stream {
            self.known.note_stream(id, stream);
        }
        Ok(stream.map(|stream| (stream, None)))
    }

    pub(super) fn stream(&mut self, id: &PersistenceId) -> rusqlite::Result<Option<i64>> {
        Ok(self.find(id)?.map(|(stream, _)| stream))
    }

    /// A number for an id that has none.
    fn give(&mut self, id: &PersistenceId) -> rusqlite::Result<i64> {
        self.db
            .prepare_cached("INSERT INTO streams (id, slice) VALUES (?1, ?2)")?
            .execute(params![id.as_str(), id.slice()])?;
        let stream = self.db.last_insert_rowid();
        self.known.note_stream(id, stream);
        Ok(stream)
    }

    pub(super) fn stream_or_give(&mut self, id: &PersistenceId) -> rusqlite::Result<i64> {
        self.stream(id)?.map_or_else(|| self.give(id), Ok)
    }

    fn insert_events(&mut self, request: &AppendRequest, stream: i64) -> rusqlite::Result<u64> {
        let insert = match &mut self.insert {
            Some(insert) => insert,
            none => none.insert(self.db.prepare_cached(INSERT_EVENT)?),
        };
        let mut seq = request.expected_seq;
        for record in &request.events {
            seq += 1;
            self.head.position += 1;
            let position = self.head.position.cast_signed();
            let tags = tags::encode(&record.tags);
            let content = RecordRef::new(record, &tags);
            let id = request.id.as_str();
            let crc = self.sums.of(id, seq, self.now_ms, content);
            insert.execute(params![
                position,
                stream,
                seq.cast_signed(),
                record.name,
                record.version,
                self.now_ms.cast_signed(),
                &record.payload[..],
                crc,
                (!tags.is_empty()).then_some(&tags),
            ])?;
            self.places.insert(stream, seq, self.head.position)?;
            insert_tags(self.db, &record.tags, position)?;
        }
        Ok(seq)
    }

    /// The newest number of a stream, also when all its events were deleted.
    pub(super) fn highest_seq(&self, stream: i64, id: &PersistenceId) -> Result<u64, Fault> {
        match places::highest_seq(self.db, stream)? {
            Some(seq) => Ok(seq),
            None => self.deleted_seq(stream, id),
        }
    }

    pub(super) fn check_fence(&mut self, fence: Option<&Fence>) -> Result<(), Fault> {
        let Some(fence) = fence else {
            return Ok(());
        };
        let current = match self.known.epoch(&fence.scope) {
            Some(epoch) => epoch,
            None => {
                let epoch = self.number(EPOCH, &fence.scope)?.unwrap_or_default();
                self.known.note_epoch(&fence.scope, epoch);
                epoch
            }
        };
        if current == fence.epoch {
            return Ok(());
        }
        Err(Fault::Refused(AppendError::Fenced { current }))
    }

    fn claim(&mut self, scope: &Arc<str>, epoch: u64) -> Result<Done, Fault> {
        let current = self.number(EPOCH, scope)?;
        match current {
            Some(current) if current > epoch => {
                Err(Fault::Refused(AppendError::Fenced { current }))
            }
            Some(current) if current == epoch => Ok(Done::Nothing),
            _ => {
                self.dirty = true;
                self.set_number(
                    "INSERT OR REPLACE INTO epochs VALUES (?1, ?2, ?3)",
                    scope,
                    epoch,
                )?;
                self.known.note_epoch(scope, epoch);
                Ok(Done::Nothing)
            }
        }
    }

    fn next_term(&mut self, scope: &str) -> Result<u64, Fault> {
        let term = self.number(TERM, scope)?.unwrap_or_default() + 1;
        self.dirty = true;
        self.set_number(
            "INSERT OR REPLACE INTO terms VALUES (?1, ?2, ?3)",
            scope,
            term,
        )?;
        Ok(term)
    }

    pub(super) fn number(&self, select: &str, scope: &str) -> Result<Option<u64>, Fault> {
        let row = self
            .db
            .prepare_cached(select)?
            .query_row([scope], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((number, crc)) = row else {
            return Ok(None);
        };
        let number = number.cast_unsigned();
        if i64::from(number_checksum(scope, number)) != crc {
            return Err(Fault::Untrusted(format!(
                "the number of {scope:?} is damaged"
            )));
        }
        Ok(Some(number))
    }

    pub(super) fn set_number(
        &self,
        insert: &str,
        scope: &str,
        number: u64,
    ) -> rusqlite::Result<()> {
        let crc = number_checksum(scope, number);
        self.db
            .prepare_cached(insert)?
            .execute(params![scope, number.cast_signed(), crc])?;
        Ok(())
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot, keep: NonZeroU32) -> Result<Done, Fault> {
        let Ok(seq) = i64::try_from(snapshot.seq) else {
            let too_large = JournalError::TooLarge {
                what: "sequence number",
                actual: snapshot.seq,
                limit: i64::MAX as u64,
            };
            return Err(Fault::Refused(too_large.into()));
        };
        self.dirty = true;
        let stream = self.stream_or_give(&snapshot.id)?;
        let crc = checksum(
            snapshot.id.as_str(),
            snapshot.seq,
            0,
            RecordRef::from(snapshot),
        );
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO snapshots (stream, seq, name, version, payload, crc)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                stream,
                seq,
                snapshot.name,
                snapshot.version,
                snapshot.payload,
                crc
            ])?;
        self.db
            .prepare_cached(
                "DELETE FROM snapshots WHERE stream = ?1 AND seq < (SELECT min(seq) FROM
                 (SELECT seq FROM snapshots WHERE stream = ?1 ORDER BY seq DESC LIMIT ?2))",
            )?
            .execute(params![stream, keep.get()])?;
        Ok(Done::Nothing)
    }

    fn delete_snapshots(&mut self, id: &PersistenceId, seq_max: u64) -> Result<Done, Fault> {
        let Some(stream) = self.stream(id)? else {
            return Ok(Done::Nothing);
        };
        let seq_max = i64::try_from(seq_max).unwrap_or(i64::MAX);
        let removed = self
            .db
            .prepare_cached("DELETE FROM snapshots WHERE stream = ?1 AND seq <= ?2")?
            .execute(params![stream, seq_max])?;
        self.dirty |= removed > 0;
        Ok(Done::Nothing)
    }

    /// Takes note of the commit that follows.
    pub(super) fn write_head(&mut self) -> rusqlite::Result<()> {
        let (places_new, merge_from) = self.places.merge()?;
        self.head.commit += 1;
        self.db
            .prepare_cached(
                "UPDATE head SET commits = ?1, position = ?2, places_new = ?3, merge_from = ?4",
            )?
            .execute([
                self.head.commit.cast_signed(),
                self.head.position.cast_signed(),
                places_new,
                merge_from,
            ])?;
        Ok(())
    }
}

fn insert_tags(db: &Connection, tags: &[Arc<str>], position: i64) -> rusqlite::Result<()> {
    if tags.is_empty() {
        return Ok(());
    }
    // The same tag may be there twice.
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO event_tags VALUES (?1, ?2)")?;
    for tag in tags {
        insert.execute(params![tag, position])?;
    }
    Ok(())
}

const INSERT_EVENT: &str = "INSERT INTO events
    (position, stream, seq, name, version, written_at_ms, payload, crc, tags)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const EPOCH: &str = "SELECT epoch, crc FROM epochs WHERE scope = ?1";
const TERM: &str = "SELECT term, crc FROM terms WHERE scope = ?1";

/// The checksum of an epoch, a term, an offset or the number up to which was deleted: scope, key or
/// id, then the number, little endian.
pub(super) fn number_checksum(scope: &str, number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(scope.as_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

/// The number that stands for an id, if it has ever been written.
pub(super) fn stream_of(db: &Connection, id: &PersistenceId) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT stream FROM streams WHERE id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()
}
