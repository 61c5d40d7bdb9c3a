//! Sweep: deletes events at once for every reader, and removes their rows a little at a time.
//!
//! A delete writes one row first: up to which number the events of an id are gone. From that commit
//! on no read and no query gives them, and the numbers stay. Their rows are removed within a budget
//! a transaction, so that no delete, however large, makes the appends behind it wait for long. What
//! is left the committer removes between the requests of others, or, after a crash, the next process
//! that opens the journal.

use crate::id::PersistenceId;
use crate::io::sqlite::transaction::{Done, Fault, Transaction, number_checksum};
use crate::journal::DeleteRequest;
use crate::logic::tags;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;

/// What one transaction may remove.
pub(super) struct Budget {
    rows: usize,
    bytes: usize,
}

impl Default for Budget {
    /// Some milliseconds of work.
    fn default() -> Self {
        Self {
            rows: 1000,
            bytes: 4 << 20,
        }
    }
}

impl Transaction<'_> {
    pub(super) fn delete(&mut self, request: &DeleteRequest) -> Result<Done, Fault> {
        self.check_fence(request.fence.as_ref())?;
        let Some(stream) = self.stream(&request.id)? else {
            return Ok(Done::Nothing);
        };
        let deleted = self.deleted_seq(stream, &request.id)?;
        let highest = self.highest_seq(stream, &request.id)?;
        let seq = request.seq_max.min(highest);
        if seq <= deleted {
            return Ok(Done::Nothing);
        }
        self.dirty = true;
        let crc = number_checksum(request.id.as_str(), seq);
        self.db
            .prepare_cached(
                "INSERT INTO deleted VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (stream) DO UPDATE SET seq = ?2, crc = ?3",
            )?
            .execute(params![stream, seq.cast_signed(), crc])?;
        let left = !self.sweep_stream(stream, seq)?;
        Ok(Done::Deleted { left })
    }

    /// Up to where the events of a stream were deleted.
    pub(super) fn deleted_seq(&self, stream: i64, id: &PersistenceId) -> Result<u64, Fault> {
        let select = "SELECT seq, crc FROM deleted WHERE stream = ?1";
        let row = self
            .db
            .prepare_cached(select)?
            .query_row([stream], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((seq, crc)) = row else { return Ok(0) };
        let seq = seq.cast_unsigned();
        if i64::from(number_checksum(id.as_str(), seq)) == crc {
            return Ok(seq);
        }
        let reason = format!("the number up to which events of {id} were deleted is damaged");
        Err(Fault::Untrusted(reason))
    }

    /// Removes rows of deleted events, of one id after the other, within the budget.
    pub(super) fn sweep(&mut self) -> Result<Done, Fault> {
        while let Some((stream, seq)) = first_unswept(self.db)? {
            self.dirty = true;
            if !self.sweep_stream(stream, seq)? {
                return Ok(Done::Deleted { left: true });
            }
        }
        Ok(Done::Deleted { left: false })
    }

    /// Whether all rows up to `seq` are gone.
    fn sweep_stream(&mut self, stream: i64, seq: u64) -> Result<bool, Fault> {
        let rows = self.rows_to_sweep(stream, seq)?;
        let mut swept = 0;
        let mut delete = self
            .db
            .prepare_cached("DELETE FROM events WHERE position = ?1")?;
        let mut delete_tag = self
            .db
            .prepare_cached("DELETE FROM event_tags WHERE tag = ?1 AND position = ?2")?;
        for row in &rows {
            if self.budget.rows == 0 || self.budget.bytes == 0 {
                break;
            }
            swept += 1;
            self.budget.rows -= 1;
            self.budget.bytes = self.budget.bytes.saturating_sub(row.bytes);
            for tag in row.tags.iter().filter_map(|bytes| tags::decode(bytes)) {
                for tag in tag {
                    delete_tag.execute(params![tag, row.position])?;
                }
            }
            delete.execute([row.position])?;
        }
        if swept < rows.len() {
            if let Some(last) = rows[..swept].last() {
                self.places.remove(stream, last.seq)?;
            }
            return Ok(false);
        }
        self.places.remove(stream, seq)?;
        self.db
            .prepare_cached("UPDATE deleted SET swept = seq WHERE stream = ?1")?
            .execute([stream])?;
        Ok(true)
    }

    fn rows_to_sweep(&self, stream: i64, seq: u64) -> rusqlite::Result<Vec<Unswept>> {
        let mut select = self.db.prepare_cached(
            "SELECT p.seq, p.position, coalesce(length(e.payload), 0), e.tags FROM (
                 SELECT seq, position FROM places WHERE stream = ?1 AND seq <= ?2
                 UNION ALL SELECT seq, position FROM places_new WHERE stream = ?1 AND seq <= ?2
                 ORDER BY seq LIMIT ?3) AS p
             LEFT JOIN events AS e ON e.position = p.position ORDER BY p.seq",
        )?;
        // One more than the budget allows shows whether there are more.
        let max = (self.budget.rows + 1) as u64;
        let rows = select.query_map(
            params![stream, seq.cast_signed(), max.cast_signed()],
            |row| {
                Ok(Unswept {
                    seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    position: row.get(1)?,
                    bytes: row.get::<_, u32>(2)? as usize,
                    tags: row.get(3)?,
                })
            },
        )?;
        rows.collect()
    }
}

struct Unswept {
    seq: u64,
    position: i64,
    bytes: usize,
    tags: Option<Vec<u8>>,
}

fn first_unswept(db: &Connection) -> rusqlite::Result<Option<(i64, u64)>> {
    db.prepare_cached("SELECT stream, seq FROM deleted WHERE swept < seq LIMIT 1")?
        .query_row([], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })
        .optional()
}

/// Up to where events are deleted whose rows are still there, by stream. Mostly there are none.
pub(super) fn unswept(db: &Connection) -> rusqlite::Result<HashMap<i64, u64>> {
    let mut select = db.prepare_cached("SELECT stream, seq FROM deleted WHERE swept < seq")?;
    let rows = select.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    rows.collect()
}
