//! Batch: takes the rows of events out of SQLite, many in one step.
//!
//! To fetch nine columns of a row one by one is some thirty calls into SQLite, a third of all that a
//! replay took. A function of SQL gets all values of a row at once. So [`TAKE`] stands in the condition
//! of the statements that read events: it puts each row aside, and is true for the one that fills the
//! batch. There the step ends. (In the result instead of the condition, with a step for each row, it cost
//! 5 % more.)
//!
//! **Invariant:** SQLite calls the function for the rows that are wanted, once, in their order. So a
//! statement says which index is used, other conditions that no index answers stand before it in a
//! `CASE`, and nothing is sorted.

use crate::error::Damage;
use crate::io::sqlite::rows;
use bytes::Bytes;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{FromSql as _, ValueRef};
use rusqlite::{Connection, Error, Rows};
use std::cell::RefCell;
use std::ops::Range;

/// The condition for rows of `events AS e`.
pub(super) const TAKE: &str = "otava_take(e.position, e.seq, e.name, e.version, e.written_at_ms, \
                               e.payload, e.crc, e.tags, e.stream)";

/// The events of a stream from a number on: the merged places before the new ones. Number and position
/// are those of the place, so that an event whose row is missing is noticed. SQLite would copy `?1` for each
/// row, so the function gets another number of the stream.
pub(super) const EVENTS_OF_ONE: &str = "SELECT 1 FROM places AS p
         LEFT JOIN events AS e ON e.position = p.position
     WHERE p.stream = ?1 AND p.seq >= ?2 AND otava_take(p.position, p.seq, e.name, e.version,
         e.written_at_ms, e.payload, e.crc, e.tags, 0)
     UNION ALL SELECT 1 FROM places_new AS p
         LEFT JOIN events AS e ON e.position = p.position
     WHERE p.stream = ?1 AND p.seq >= ?2 AND otava_take(p.position, p.seq, e.name, e.version,
         e.written_at_ms, e.payload, e.crc, e.tags, 0)";

/// A batch is no longer, so that it is in the cache of the processor when it is looked at.
const EVENTS_MAX: usize = 128;

/// A batch ends with the event that reaches it. Who keeps one small payload keeps about so much.
const BYTES_MAX: usize = 64 << 10;

/// Events as they are stored: nothing is checked but the types of the columns.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) events: Vec<RawEvent>,
    /// The texts and payloads of all.
    pub(super) bytes: Bytes,
}

pub(super) struct RawEvent {
    pub(super) position: u64,
    pub(super) seq: u64,
    pub(super) stream: i64,
    pub(super) written_at_ms: u64,
    pub(super) crc: u32,
    pub(super) version: u16,
    pub(super) name: Range<usize>,
    pub(super) payload: Range<usize>,
    pub(super) tags: Range<usize>,
    /// A column that has not its type, or a place without an event.
    pub(super) damage: Option<Damage>,
}

/// Takes rows one by one.
#[derive(Default)]
pub(super) struct Taker {
    events: Vec<RawEvent>,
    bytes: Vec<u8>,
    events_max: usize,
    bytes_left: usize,
}

impl Taker {
    /// Takes the columns position, seq, name, version, time, payload, crc, tags, stream.
    pub(super) fn take<'a>(
        &mut self,
        value: impl Fn(usize) -> ValueRef<'a>,
    ) -> rusqlite::Result<()> {
        let integer = |column| {
            let value = value(column);
            let of_no_number =
                |error| Error::FromSqlConversionFailure(column, value.data_type(), Box::new(error));
            i64::column_result(value).map_err(of_no_number)
        };
        let mut raw = RawEvent {
            position: integer(0)?.cast_unsigned(),
            seq: integer(1)?.cast_unsigned(),
            stream: integer(8)?,
            written_at_ms: integer(4).unwrap_or_default().cast_unsigned(),
            crc: u32::try_from(integer(6).unwrap_or(-1)).unwrap_or_default(),
            version: 0,
            name: 0..0,
            payload: 0..0,
            tags: 0..0,
            damage: None,
        };
        match rows::content(&value, 2, 5, Some(7)) {
            Ok(content) => {
                raw.version = content.version;
                raw.name = self.name(content.name);
                raw.payload = self.copy(content.payload);
                raw.tags = self.copy(content.tags);
            }
            Err(what) => {
                let row = raw.position;
                raw.damage = Some(match value(2) {
                    ValueRef::Null => Damage::NoRow { row },
                    _ => Damage::Malformed { row, what },
                });
            }
        }
        self.bytes_left = self.bytes_left.saturating_sub(raw.payload.len());
        self.events.push(raw);
        Ok(())
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// It is mostly that of the event before.
    fn name(&mut self, name: &[u8]) -> Range<usize> {
        match self.events.last() {
            Some(last) if self.bytes[last.name.clone()] == *name => last.name.clone(),
            _ => self.copy(name),
        }
    }

    fn is_full(&self) -> bool {
        self.bytes_left == 0 || self.events.len() >= self.events_max
    }

    /// Moves what was taken to a batch.
    pub(super) fn give(&mut self, batch: &mut Batch) {
        batch.bytes = std::mem::take(&mut self.bytes).into();
        std::mem::swap(&mut batch.events, &mut self.events);
        self.events.clear();
    }
}

thread_local! {
    /// For the statement that this thread runs: SQLite calls the function in the same thread. A lock for
    /// each row instead was 7 % of a replay (`perf`).
    static TAKER: RefCell<Taker> = RefCell::default();
}

/// Takes the rows of one connection, of one statement at a time.
pub(super) struct Batches(());

impl Batches {
    /// Makes the function known to the connection.
    pub(super) fn new(db: &Connection) -> rusqlite::Result<Self> {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        db.create_scalar_function("otava_take", 9, flags, |row| {
            TAKER.with_borrow_mut(|taker| {
                taker.take(|column| row.get_raw(column))?;
                Ok(taker.is_full())
            })
        })?;
        Ok(Self(()))
    }

    /// Those of one statement.
    pub(super) fn of<'a>(&'a mut self, rows: Rows<'a>) -> BatchesOf<'a> {
        // A statement that failed may have left some.
        TAKER.with_borrow_mut(|taker| {
            taker.events.clear();
            taker.bytes.clear();
        });
        BatchesOf {
            rows: Some(rows),
            batch: Batch::default(),
        }
    }
}

/// The batches of one statement.
pub(super) struct BatchesOf<'a> {
    /// `None` at their end.
    rows: Option<Rows<'a>>,
    /// The last one.
    batch: Batch,
}

impl BatchesOf<'_> {
    /// The next events: at most so many, and none behind the one with which their payloads have so many
    /// bytes. `None` at the end; there may be an empty batch before.
    pub(super) fn next(
        &mut self,
        (events_max, bytes_max): (usize, usize),
    ) -> rusqlite::Result<Option<&Batch>> {
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        TAKER.with_borrow_mut(|taker| {
            taker.events_max = events_max.min(EVENTS_MAX);
            taker.bytes_left = bytes_max.min(BYTES_MAX);
            // The next one is mostly as long as the last.
            let room = self.batch.bytes.len().min(BYTES_MAX);
            taker.bytes.reserve(room);
        });
        if rows.next()?.is_none() {
            self.rows = None;
        }
        TAKER.with_borrow_mut(|taker| taker.give(&mut self.batch));
        Ok(Some(&self.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sqlite::schema;

    const EVENTS: u64 = 300;

    /// One stream, with payloads of 1,000 bytes. Some of its places are merged.
    fn connection() -> (Connection, Batches) {
        let db = Connection::open_in_memory().unwrap();
        schema::create(&db).unwrap();
        let mut insert = db
            .prepare("INSERT INTO events VALUES (?1, 7, ?1, 'e', 1, 0, zeroblob(1000), 5, NULL)")
            .unwrap();
        for seq in 1..=EVENTS {
            insert.execute([seq.cast_signed()]).unwrap();
        }
        drop(insert);
        db.execute_batch(
            "INSERT INTO places SELECT stream, seq, position FROM events WHERE seq <= 250;
             INSERT INTO places_new SELECT stream, seq, position FROM events WHERE seq > 250;",
        )
        .unwrap();
        let batches = Batches::new(&db).unwrap();
        (db, batches)
    }

    /// How many are in each batch of what follows `from_seq`.
    fn lengths(limits: (usize, usize), from_seq: u64) -> Vec<usize> {
        let (db, mut batches) = connection();
        let mut statement = db.prepare(EVENTS_OF_ONE).unwrap();
        let rows = statement.query([7, from_seq.cast_signed()]).unwrap();
        let (mut batches, mut next, mut lengths) = (batches.of(rows), from_seq, Vec::new());
        while let Some(batch) = batches.next(limits).unwrap() {
            for raw in &batch.events {
                assert_eq!((raw.seq, raw.position, raw.crc), (next, next, 5));
                assert_eq!(&batch.bytes[raw.name.clone()], b"e");
                assert_eq!((raw.payload.len(), &raw.damage), (1000, &None));
                next += 1;
            }
            lengths.push(batch.events.len());
        }
        assert_eq!(next, EVENTS + 1);
        lengths
    }

    #[test]
    fn batches_end_where_they_must_and_leave_nothing_out() {
        assert_eq!(lengths((100, usize::MAX), 101), [66, 66, 66, 2]);
        assert_eq!(lengths((60, usize::MAX), 181), [60, 60, 0]);
        assert_eq!(lengths((60, 2001), 293), [3, 3, 2]);
        assert_eq!(lengths((1, 1), 299), [1, 1, 0]);
    }

    #[test]
    fn what_a_statement_left_is_not_found_by_the_next() {
        let (db, mut batches) = connection();
        // It fails at the fourth row.
        let fails = "abs(iif(e.seq = 4, 1 << 63, 0))";
        let select = format!("SELECT 1 FROM events AS e WHERE {TAKE} OR {fails}");
        let mut statement = db.prepare(&select).unwrap();
        let rows = statement.query([]).unwrap();
        assert!(batches.of(rows).next((9, 99_999)).is_err());
        let mut statement = db.prepare(EVENTS_OF_ONE).unwrap();
        let rows = statement.query([7, 200]).unwrap();
        let mut batches = batches.of(rows);
        let batch = batches.next((9, 99_999)).unwrap().unwrap();
        assert_eq!((batch.events.len(), batch.events[0].seq), (9, 200));
    }

    /// Also when somebody made SQLite gather numbers by which it would scan the table, and sort.
    #[test]
    fn places_are_searched_and_nothing_is_sorted() {
        let (db, _batches) = connection();
        db.execute_batch("ANALYZE").unwrap();
        let mut plan = db
            .prepare(&format!("EXPLAIN QUERY PLAN {EVENTS_OF_ONE}"))
            .unwrap();
        let steps = plan
            .query_map([7, 1], |row| row.get::<_, String>(3))
            .unwrap();
        let steps: Vec<_> = steps.map(Result::unwrap).collect();
        let of = |table: &str| {
            let key = "USING PRIMARY KEY (stream=? AND seq>?)";
            let place = format!("SEARCH p {key}");
            let event = "SEARCH e USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN".to_owned();
            [table.to_owned(), place, event]
        };
        let wanted = [
            vec!["COMPOUND QUERY".to_owned()],
            of("LEFT-MOST SUBQUERY").to_vec(),
            of("UNION ALL").to_vec(),
        ];
        assert_eq!(steps, wanted.concat());
    }
}
