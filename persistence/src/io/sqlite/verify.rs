//! Verify: reads a whole journal that nobody uses and names everything that is wrong with it.

use crate::error::{JournalError, OpenError};
use crate::id::PersistenceId;
use crate::io::sqlite::reader::ReadFault;
use crate::io::sqlite::transaction::number_checksum;
use crate::io::sqlite::{marks, rows, schema};
use crate::logic::mark;
use crate::logic::sequence::Sequence;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;
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
    schema::recognise(&db, path)?;
    let mut check = Check {
        db: &db,
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
        let (mut verified, streams) = (
            Verified {
                ids: 0,
                events: 0,
                snapshots: 0,
            },
            self.streams()?,
        );
        for (stream, id) in streams {
            verified.ids += 1;
            verified.events += self.events(stream, &id)?;
            verified.snapshots += self.snapshots(stream, &id)?;
        }
        self.count("events", verified.events)?;
        self.count("snapshots", verified.snapshots)?;
        self.numbers("SELECT scope, epoch, crc FROM epochs")?;
        self.numbers("SELECT scope, term, crc FROM terms")?;
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

    fn events(&mut self, stream: i64, id: &PersistenceId) -> rusqlite::Result<u64> {
        let mut statement = self.db.prepare_cached(
            "SELECT position, seq, tag, version, written_at_ms, payload, crc FROM events
             WHERE stream = ?1 ORDER BY seq",
        )?;
        let mut rows = statement.query(params![stream])?;
        let (mut sequence, mut name, mut count) = (Sequence::from(1), Arc::from(""), 0);
        while let Some(row) = rows.next()? {
            count += 1;
            match rows::event(row, id, &mut sequence, &mut name) {
                Ok(_) => {}
                Err(ReadFault::Sqlite(error)) => return Err(error),
                Err(ReadFault::Journal(error)) => {
                    if let JournalError::Corrupt { .. } = &error {
                        sequence = Sequence::from(row.get::<_, i64>(1)?.cast_unsigned() + 1);
                    }
                    self.find(error.to_string());
                }
            }
        }
        Ok(count)
    }

    fn snapshots(&mut self, stream: i64, id: &PersistenceId) -> rusqlite::Result<u64> {
        let mut statement = self.db.prepare_cached(
            "SELECT snapshot, seq, tag, version, payload, crc FROM snapshots WHERE stream = ?1",
        )?;
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
                self.find(format!(
                    "the epoch or term {number} of {scope:?} is damaged"
                ));
            }
        }
        Ok(())
    }
}
