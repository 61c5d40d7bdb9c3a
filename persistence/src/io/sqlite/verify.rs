//! Verify: reads a whole journal that nobody uses and names everything that is wrong with it.

use crate::error::OpenError;
use crate::id::PersistenceId;
use crate::io::sqlite::batch::{Batch, Taker};
use crate::io::sqlite::reader::ReadFault;
use crate::io::sqlite::rows::Names;
use crate::io::sqlite::schema::Kind;
use crate::io::sqlite::transaction::number_checksum;
use crate::io::sqlite::{marks, rows, schema};
use crate::journal::StoredEvent;
use crate::logic::mark;
use crate::logic::sequence::Sequence;
use crate::logic::tags;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::Path;
use std::time::Duration;

/// A journal in which nothing is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// Persistence ids.
    pub ids: u64,
    /// Events of all of them.
    pub events: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// States of entities that have no events; those that were removed count.
    pub states: u64,
}

/// Why a journal could not be called whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is damaged.
    #[error("{} findings: {}", .findings.len(), .findings.join("; "))]
    Damaged {
        /// One sentence for each thing that is wrong, at most 1,000.
        findings: Vec<String>,
    },
    /// It could not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

const FINDINGS_MAX: usize = 1000;

/// Blocks for as long as it takes: some seconds for a million events.
pub(super) fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let failed = |error: rusqlite::Error| schema::store_error(path, &error);
    if !path.exists() {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(OpenError::File {
            what: "open",
            path: path.to_owned(),
            source,
        }
        .into());
    }
    let db = schema::connect(path, Duration::from_secs(5)).map_err(failed)?;
    let format = match schema::recognise(&db, path)? {
        Kind::Empty => 0,
        Kind::Journal(format) => format,
    };
    let mut check = Check {
        db: &db,
        format,
        findings: Vec::new(),
    };
    let verified = check.all(path).map_err(failed)?;
    for (mark, head) in marks::read_all(path)? {
        let found = schema::head(&db).map_err(failed)?;
        if mark::not_reached(found, &[head]).is_some() {
            let mark = mark.display();
            check.find(format!(
                "{mark} says {head:?} was acknowledged, the file ends at {found:?}"
            ));
        }
    }
    if check.findings.is_empty() {
        Ok(verified)
    } else {
        Err(VerifyError::Damaged {
            findings: check.findings,
        })
    }
}

struct Check<'a> {
    db: &'a Connection,
    /// Of the file; an older one is not changed.
    format: u32,
    findings: Vec<String>,
}

impl Check<'_> {
    fn all(&mut self, path: &Path) -> rusqlite::Result<Verified> {
        tracing::info!(path = %path.display(), "verifying the journal");
        let mut pages = self.db.prepare("PRAGMA integrity_check(100)")?;
        let mut rows = pages.query([])?;
        while let Some(row) = rows.next()? {
            let said: String = row.get(0)?;
            if said != "ok" {
                self.find(said);
            }
        }
        let mut verified = Verified {
            ids: 0,
            events: 0,
            snapshots: 0,
            states: 0,
        };
        for (stream, id) in self.streams()? {
            verified.ids += 1;
            verified.events += self.events(stream, &id)?;
            verified.snapshots += self.snapshots(stream, &id)?;
            verified.states += self.state(stream, &id)?;
        }
        self.count("snapshots", verified.snapshots)?;
        if self.format >= 3 {
            self.places(verified.events)?;
        } else {
            self.count("events", verified.events)?;
        }
        self.numbers("SELECT scope, epoch, crc FROM epochs")?;
        self.numbers("SELECT scope, term, crc FROM terms")?;
        if self.format >= 2 {
            self.count("states", verified.states)?;
            self.numbers("SELECT key, position, crc FROM offsets")?;
            self.tags()?;
        }
        Ok(verified)
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn streams(&mut self) -> rusqlite::Result<Vec<(i64, PersistenceId)>> {
        let mut statement = self.db.prepare("SELECT stream, id, slice FROM streams")?;
        let mut rows = statement.query([])?;
        let mut streams = Vec::new();
        while let Some(row) = rows.next()? {
            let stream = row.get(0)?;
            let id = row.get_ref(1)?.as_str().ok().and_then(PersistenceId::parse);
            match id {
                Some(id) if row.get(2) == Ok(id.slice()) => streams.push((stream, id)),
                id => self.find(format!("stream {stream} is no persistence id: {id:?}")),
            }
        }
        Ok(streams)
    }

    /// Counts all rows, also those of deleted events that are not removed yet.
    fn events(&mut self, stream: i64, id: &PersistenceId) -> rusqlite::Result<u64> {
        let deleted = self.deleted(stream, id)?;
        let name = if self.format >= 2 { "name" } else { "tag" };
        let tags = if self.format >= 2 { "e.tags" } else { "NULL" };
        let columns = format!("e.{name}, e.version, e.written_at_ms, e.payload, e.crc, {tags}, ?1");
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT p.position, p.seq, {columns} FROM ({}) AS p
             LEFT JOIN events AS e ON e.position = p.position ORDER BY p.seq",
            self.places_of_one()
        ))?;
        let mut rows = statement.query(params![stream])?;
        let (mut sequence, mut names, mut count) = (None, Names::default(), 0);
        let (mut taker, mut batch) = (Taker::default(), Batch::default());
        while let Some(row) = rows.next()? {
            count += 1;
            taker.take(|column| rows::of_row(row, column))?;
            taker.give(&mut batch);
            let raw = &batch.events[0];
            // Deleted ones may be gone up to any number.
            let first = raw.seq.min(deleted + 1);
            let expected = sequence.get_or_insert_with(|| Sequence::from(first));
            let checked = rows::in_sequence(raw, id, expected)
                .and_then(|()| rows::event(raw, &batch.bytes, id, &mut names));
            match checked {
                Ok(event) => self.tags_are_found(id, &event)?,
                Err(ReadFault::Sqlite(error)) => return Err(error),
                Err(ReadFault::Journal(error)) => {
                    sequence = Some(Sequence::from(raw.seq + 1));
                    self.find(error.to_string());
                }
            }
        }
        Ok(count)
    }

    /// Selects number and position of each event of stream `?1`.
    fn places_of_one(&self) -> &'static str {
        if self.format >= 3 {
            "SELECT seq, position FROM places WHERE stream = ?1
             UNION ALL SELECT seq, position FROM places_new WHERE stream = ?1"
        } else {
            "SELECT seq, position FROM events WHERE stream = ?1"
        }
    }

    /// Each event must have one place, and the new places of a stream lie behind its merged ones.
    fn places(&mut self, seen: u64) -> rusqlite::Result<()> {
        let number =
            |select| -> rusqlite::Result<i64> { self.db.query_row(select, [], |row| row.get(0)) };
        let new = number("SELECT count(*) FROM places_new")?;
        let all = number("SELECT count(*) FROM places")? + new;
        let noted = number("SELECT places_new FROM head")?;
        let wrong = number(
            "SELECT count(*) FROM events AS e WHERE NOT EXISTS (SELECT 1 FROM places AS p
                 WHERE p.stream = e.stream AND p.seq = e.seq AND p.position = e.position)
             AND NOT EXISTS (SELECT 1 FROM places_new AS p
                 WHERE p.stream = e.stream AND p.seq = e.seq AND p.position = e.position)",
        )?;
        let behind = number(
            "SELECT count(*) FROM places_new AS n WHERE EXISTS (SELECT 1 FROM places AS p
                 WHERE p.stream = n.stream AND p.seq >= n.seq)",
        )?;
        if all.cast_unsigned() != seen {
            self.find(format!(
                "there are {all} places of events, {seen} belong to a persistence id"
            ));
        }
        if noted != new {
            self.find(format!("there are {new} new places, the head says {noted}"));
        }
        if wrong > 0 {
            self.find(format!("{wrong} events are not found by their place"));
        }
        if behind > 0 {
            self.find(format!(
                "{behind} new places do not lie behind the merged ones"
            ));
        }
        Ok(())
    }

    fn deleted(&mut self, stream: i64, id: &PersistenceId) -> rusqlite::Result<u64> {
        if self.format < 2 {
            return Ok(0);
        }
        match rows::deleted_seq(self.db, stream, id) {
            Ok(seq) => {
                let left: Option<i64> = self
                    .db
                    .prepare_cached(&format!(
                        "SELECT p.seq FROM deleted AS d JOIN ({}) AS p ON p.seq <= d.seq
                         WHERE d.stream = ?1 AND d.swept >= d.seq LIMIT 1",
                        self.places_of_one()
                    ))?
                    .query_row([stream], |row| row.get(0))
                    .optional()?;
                if let Some(left) = left {
                    self.find(format!("event {left} of {id} is deleted, and still there"));
                }
                Ok(seq)
            }
            Err(ReadFault::Sqlite(error)) => Err(error),
            Err(ReadFault::Journal(error)) => {
                self.find(error.to_string());
                Ok(0)
            }
        }
    }

    /// Each tag of an event must be in the index of tags.
    fn tags_are_found(&mut self, id: &PersistenceId, event: &StoredEvent) -> rusqlite::Result<()> {
        for tag in &event.record.tags {
            let found = self
                .db
                .prepare_cached("SELECT 1 FROM event_tags WHERE tag = ?1 AND position = ?2")?
                .exists(params![tag, event.position.cast_signed()])?;
            if !found {
                let seq = event.seq;
                self.find(format!(
                    "event {seq} of {id} is not found by its tag {tag:?}"
                ));
            }
        }
        Ok(())
    }

    /// The index of tags must name only tags that the events have.
    fn tags(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.db.prepare(
            "SELECT t.tag, t.position, e.tags FROM event_tags AS t
             LEFT JOIN events AS e ON e.position = t.position",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (tag, position): (String, i64) = (row.get(0)?, row.get(1)?);
            let bytes: Option<Vec<u8>> = row.get(2)?;
            let tags = bytes.and_then(|bytes| tags::decode(&bytes));
            if !tags.is_some_and(|tags| tags.iter().any(|other| **other == *tag)) {
                self.find(format!("the event at {position} has no tag {tag:?}"));
            }
        }
        Ok(())
    }

    fn state(&mut self, stream: i64, id: &PersistenceId) -> rusqlite::Result<u64> {
        if self.format < 2 {
            return Ok(0);
        }
        match rows::load_state(self.db, id) {
            Ok(state) => Ok(state.map_or(0, |_| 1)),
            Err(ReadFault::Sqlite(error)) => Err(error),
            Err(ReadFault::Journal(error)) => {
                self.find(format!("a state, stream {stream}: {error}"));
                Ok(1)
            }
        }
    }

    fn snapshots(&mut self, stream: i64, id: &PersistenceId) -> rusqlite::Result<u64> {
        let name = if self.format >= 2 { "name" } else { "tag" };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT snapshot, seq, {name}, version, payload, crc FROM snapshots WHERE stream = ?1"
        ))?;
        let mut rows = statement.query(params![stream])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            if let Err(what) = rows::snapshot(row, id) {
                let snapshot: i64 = row.get(0)?;
                self.find(format!(
                    "a snapshot of {id} is broken (row {snapshot}): {what}"
                ));
            }
        }
        Ok(count)
    }

    /// Rows that belong to no id.
    fn count(&mut self, table: &str, seen: u64) -> rusqlite::Result<()> {
        let all: i64 = self
            .db
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })?;
        if all.cast_unsigned() != seen {
            self.find(format!(
                "{table} has {all} rows, {seen} belong to a persistence id"
            ));
        }
        Ok(())
    }

    fn numbers(&mut self, select: &str) -> rusqlite::Result<()> {
        let mut statement = self.db.prepare(select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (scope, number): (String, i64) = (row.get(0)?, row.get(1)?);
            let expected = number_checksum(&scope, number.cast_unsigned());
            if row.get::<_, i64>(2)? != i64::from(expected) {
                self.find(format!("the number {number} of {scope:?} is damaged"));
            }
        }
        Ok(())
    }
}
