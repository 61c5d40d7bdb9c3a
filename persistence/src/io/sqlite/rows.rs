//! Rows: reads events, states, snapshots and offsets back, and checks that they are what was
//! written.

use crate::error::{Damage, JournalError};
use crate::format::{Checksums, RecordRef, checksum};
use crate::id::PersistenceId;
use crate::io::sqlite::batch::{Batches, EVENTS_OF_ONE, RawEvent};
use crate::io::sqlite::halves::{Half, first_half};
use crate::io::sqlite::places::highest_seq;
use crate::io::sqlite::reader::{ReadFault, Reader};
use crate::io::sqlite::schema;
use crate::io::sqlite::transaction::{number_checksum, stream_of};
use crate::journal::{EventPage, EventRecord, StoredEvent};
use crate::logic::sequence::Sequence;
use crate::logic::tags;
use crate::snapshot::Snapshot;
use crate::state::StoredState;
use bytes::Bytes;
use rusqlite::types::{FromSql as _, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::sync::Arc;

/// A page ends here even when more events were asked for.
pub(super) const PAGE_BYTES_MAX: usize = 8 << 20;

/// Room that is made for a page before anything is read.
pub(super) const CAPACITY_MAX: usize = 1000;

/// One page of events, from one state of the file.
pub(super) fn page(
    reader: &mut Reader,
    id: &PersistenceId,
    from_seq: u64,
    max: usize,
) -> Result<EventPage, ReadFault> {
    let transaction = reader.db.unchecked_transaction()?;
    let Some(stream) = stream_of(&reader.db, id)? else {
        return Ok(EventPage::default());
    };
    let deleted = deleted_seq(&reader.db, stream, id)?;
    let highest = highest_seq(&reader.db, stream)?.unwrap_or(deleted);
    let from_seq = from_seq.max(deleted + 1);
    let mut part = Part::new(max);
    let there = usize::try_from(highest.saturating_sub(from_seq - 1)).unwrap_or(max);
    if let Some(half) = first_half(reader, there.min(max)) {
        let (id_too, from_middle) = (id.clone(), from_seq.saturating_add(half as u64));
        let other = Half::ask(reader, move |reader| {
            second_part(reader, &id_too, (stream, from_middle), max - half)
        });
        if let Some(other) = other {
            let commit = schema::head(&reader.db)?.commit;
            part.read(
                &reader.db,
                &mut reader.batches,
                id,
                (stream, from_seq),
                half,
            )?;
            if part.events.len() == half
                && let Some((at_commit, other)) = other.join()?
                && at_commit == commit
            {
                part.append(other, max);
            }
        }
    }
    if !part.full(max) && !part.ended {
        let from_seq = from_seq.saturating_add(part.events.len() as u64);
        part.read(&reader.db, &mut reader.batches, id, (stream, from_seq), max)?;
    }
    transaction.finish()?;
    reader.payload_bytes = part.bytes / part.events.len().max(1);
    Ok(EventPage::new(part.events, highest).deleted(deleted))
}

/// What stands behind the first half of a page, and of which commit it is.
fn second_part(
    Reader { db, batches, .. }: &mut Reader,
    id: &PersistenceId,
    place: (i64, u64),
    max: usize,
) -> Result<(u64, Part), ReadFault> {
    let transaction = db.unchecked_transaction()?;
    let commit = schema::head(db)?.commit;
    let mut part = Part::new(max);
    part.read(db, batches, id, place, max)?;
    transaction.finish()?;
    Ok((commit, part))
}

/// The newest sequence number of an id, also when all its events were deleted.
pub(super) fn newest_seq(db: &Connection, id: &PersistenceId) -> Result<u64, ReadFault> {
    let transaction = db.unchecked_transaction()?;
    let Some(stream) = stream_of(db, id)? else {
        return Ok(0);
    };
    let highest = match highest_seq(db, stream)? {
        Some(highest) => highest,
        None => deleted_seq(db, stream, id)?,
    };
    transaction.finish()?;
    Ok(highest)
}

/// Up to where the events of a stream were deleted; 0 if none was.
pub(super) fn deleted_seq(
    db: &Connection,
    stream: i64,
    id: &PersistenceId,
) -> Result<u64, ReadFault> {
    let row = db
        .prepare_cached("SELECT seq, crc FROM deleted WHERE stream = ?1")?
        .query_row([stream], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((seq, crc)) = row else { return Ok(0) };
    let seq = seq.cast_unsigned();
    if i64::from(number_checksum(id.as_str(), seq)) == crc {
        return Ok(seq);
    }
    let what = "the number up to which events were deleted";
    let row = stream.cast_unsigned();
    Err(corrupt(id, seq, Damage::Malformed { row, what }))
}

/// A page of one id, or a part of it.
struct Part {
    events: Vec<StoredEvent>,
    /// Of their payloads.
    bytes: usize,
    /// There are no more.
    ended: bool,
}

impl Part {
    fn new(max: usize) -> Self {
        Self {
            events: Vec::with_capacity(max.min(CAPACITY_MAX)),
            bytes: 0,
            ended: max == 0,
        }
    }

    fn full(&self, max: usize) -> bool {
        self.events.len() >= max || self.bytes >= PAGE_BYTES_MAX
    }

    /// Reads until it is full.
    fn read(
        &mut self,
        db: &Connection,
        batches: &mut Batches,
        id: &PersistenceId,
        (stream, from_seq): (i64, u64),
        max: usize,
    ) -> Result<(), ReadFault> {
        let mut statement = db.prepare_cached(EVENTS_OF_ONE)?;
        let mut batches = batches.of(statement.query(params![stream, as_i64(from_seq)])?);
        let (mut sequence, mut names) = (Sequence::from(from_seq), Names::default());
        while !self.full(max) {
            let limits = (max - self.events.len(), PAGE_BYTES_MAX - self.bytes);
            let Some(batch) = batches.next(limits)? else {
                self.ended = true;
                break;
            };
            for raw in &batch.events {
                in_sequence(raw, id, &mut sequence)?;
                self.push(event(raw, &batch.bytes, id, &mut names)?);
            }
        }
        Ok(())
    }

    fn push(&mut self, event: StoredEvent) {
        self.bytes += event.record.payload.len();
        self.events.push(event);
    }

    /// Adds those that are read already, until it is full.
    fn append(&mut self, other: Self, max: usize) {
        for event in other.events {
            if self.full(max) {
                return;
            }
            self.push(event);
        }
        self.ended = other.ended;
    }
}

/// A number as SQLite takes it; what is above that is above everything that is stored.
pub(super) fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of rows.
pub(super) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(super) fn corrupt(id: &PersistenceId, seq: u64, damage: Damage) -> ReadFault {
    ReadFault::Journal(JournalError::Corrupt {
        id: id.clone(),
        seq,
        damage,
    })
}

/// Name and tags of the row before: they are mostly the same, and need not be made again.
#[derive(Default)]
pub(super) struct Names {
    sums: Checksums,
    name: Arc<str>,
    tag_bytes: Vec<u8>,
    tags: Vec<Arc<str>>,
}

/// Checks that an event is the next one of its id.
pub(super) fn in_sequence(
    raw: &RawEvent,
    id: &PersistenceId,
    sequence: &mut Sequence,
) -> Result<(), ReadFault> {
    sequence
        .take(raw.seq, raw.position)
        .map_err(|(seq, damage)| corrupt(id, seq, damage))
}

/// Checks the content of an event, one of a batch.
pub(super) fn event(
    raw: &RawEvent,
    bytes: &Bytes,
    id: &PersistenceId,
    names: &mut Names,
) -> Result<StoredEvent, ReadFault> {
    let (seq, position, written_at_ms) = (raw.seq, raw.position, raw.written_at_ms);
    let malformed = |what| {
        let row = position;
        corrupt(id, seq, Damage::Malformed { row, what })
    };
    if let Some(damage) = &raw.damage {
        return Err(corrupt(id, seq, damage.clone()));
    }
    let name = names.name(&bytes[raw.name.clone()]);
    let name = name.ok_or_else(|| malformed("name"))?;
    let record = RecordRef {
        name: &name,
        version: raw.version,
        payload: &bytes[raw.payload.clone()],
        tags: &bytes[raw.tags.clone()],
    };
    let expected = names.sums.of(id.as_str(), seq, written_at_ms, record);
    if expected != raw.crc {
        let damage = Damage::Checksum {
            row: position,
            expected,
            found: raw.crc,
        };
        return Err(corrupt(id, seq, damage));
    }
    let tags = names.tags(record.tags).ok_or_else(|| malformed("tags"))?;
    let payload = bytes.slice(raw.payload.clone());
    let record = EventRecord::new(name, raw.version, payload).tagged(tags);
    Ok(StoredEvent::new(seq, position, written_at_ms, record))
}

impl Names {
    /// `None` when it is no text.
    fn name(&mut self, name: &[u8]) -> Option<Arc<str>> {
        if self.name.as_bytes() != name {
            self.name = std::str::from_utf8(name).ok()?.into();
        }
        Some(Arc::clone(&self.name))
    }

    /// `None` when they cannot be read.
    fn tags(&mut self, tags: &[u8]) -> Option<Vec<Arc<str>>> {
        // Mostly there are none, neither here nor before: to compare two empty slices was 6 of the 54 % of
        // all samples that the reader had (`perf`).
        if [self.tag_bytes.len(), tags.len()] != [0, 0] && self.tag_bytes != tags {
            self.tags = tags::decode(tags)?;
            tags.clone_into(&mut self.tag_bytes);
        }
        Some(self.tags.clone())
    }
}

/// What a row holds, if its columns have their types.
pub(super) struct Content<'a> {
    /// Perhaps no text.
    pub(super) name: &'a [u8],
    pub(super) version: u16,
    pub(super) payload: &'a [u8],
    pub(super) tags: &'a [u8],
}

impl<'a> Content<'a> {
    fn record(self) -> Result<RecordRef<'a>, &'static str> {
        Ok(RecordRef {
            name: std::str::from_utf8(self.name).map_err(|_| "name")?,
            version: self.version,
            payload: self.payload,
            tags: self.tags,
        })
    }
}

/// The value of a column, which there must be.
pub(super) fn of_row<'a>(row: &'a Row<'_>, column: usize) -> ValueRef<'a> {
    row.get_ref(column).unwrap_or(ValueRef::Null)
}

/// Name and version at `column` and the next, the payload, and the tags if the row has them.
pub(super) fn content<'a>(
    value: impl Fn(usize) -> ValueRef<'a>,
    column: usize,
    payload: usize,
    tags: Option<usize>,
) -> Result<Content<'a>, &'static str> {
    let tags = match tags.map(&value) {
        None | Some(ValueRef::Null) => &[],
        Some(ValueRef::Blob(bytes)) => bytes,
        Some(_) => return Err("tags"),
    };
    let ValueRef::Text(name) = value(column) else {
        return Err("name");
    };
    let version = u16::column_result(value(column + 1)).map_err(|_| "version")?;
    let ValueRef::Blob(payload) = value(payload) else {
        return Err("payload");
    };
    Ok(Content {
        name,
        version,
        payload,
        tags,
    })
}

/// The newest intact snapshot up to `seq_max`; broken ones are passed over, and logged.
pub(super) fn latest_snapshot(
    db: &Connection,
    id: &PersistenceId,
    seq_max: u64,
) -> Result<Option<Snapshot>, ReadFault> {
    let transaction = db.unchecked_transaction()?;
    let Some(stream) = stream_of(db, id)? else {
        return Ok(None);
    };
    let mut statement = db.prepare_cached(
        "SELECT snapshot, seq, name, version, payload, crc FROM snapshots
         WHERE stream = ?1 AND seq <= ?2 ORDER BY seq DESC",
    )?;
    let mut rows = statement.query(params![stream, as_i64(seq_max)])?;
    let mut found = None;
    while found.is_none()
        && let Some(row) = rows.next()?
    {
        found = snapshot(row, id)
            .map_err(|what| {
                let row = row.get::<_, i64>(0).unwrap_or_default();
                tracing::warn!(%id, row, what, "a broken snapshot is passed over");
            })
            .ok();
    }
    drop(rows);
    drop(statement);
    transaction.finish()?;
    Ok(found)
}

/// Reads one row of a snapshot and checks it.
pub(super) fn snapshot(row: &Row<'_>, id: &PersistenceId) -> Result<Snapshot, &'static str> {
    let seq = row.get::<_, i64>(1).map_err(|_| "sequence number")?;
    let seq = seq.cast_unsigned();
    let record = content(|column| of_row(row, column), 2, 4, None)?.record()?;
    let expected = checksum(id.as_str(), seq, 0, record);
    if row.get::<_, i64>(5).ok() != Some(i64::from(expected)) {
        return Err("checksum");
    }
    let payload = record.payload.to_vec();
    Ok(Snapshot::new(
        id.clone(),
        seq,
        record.name,
        record.version,
        payload,
    ))
}

/// The state of an id, if it ever had one.
pub(super) fn load_state(
    db: &Connection,
    id: &PersistenceId,
) -> Result<Option<StoredState>, ReadFault> {
    let transaction = db.unchecked_transaction()?;
    let Some(stream) = stream_of(db, id)? else {
        return Ok(None);
    };
    let mut statement = db.prepare_cached(
        "SELECT position, revision, name, version, written_at_ms, payload, crc, tags FROM states
         WHERE stream = ?1",
    )?;
    let mut rows = statement.query([stream])?;
    let found = match rows.next()? {
        Some(row) => Some(state(row, id, &mut Names::default())?),
        None => None,
    };
    drop(rows);
    drop(statement);
    transaction.finish()?;
    Ok(found)
}

/// Reads one row of a state and checks it: position, revision, then as [`event`].
pub(super) fn state(
    row: &Row<'_>,
    id: &PersistenceId,
    names: &mut Names,
) -> Result<StoredState, ReadFault> {
    let position = row.get::<_, i64>(0)?.cast_unsigned();
    let revision = row.get::<_, i64>(1)?.cast_unsigned();
    let malformed = |what| {
        let row = position;
        corrupt(id, revision, Damage::Malformed { row, what })
    };
    let removed = row.get_ref(2)? == ValueRef::Null;
    let record = (!removed)
        .then(|| content(|column| of_row(row, column), 2, 5, Some(7))?.record())
        .transpose()
        .map_err(malformed)?;
    let written_at_ms = row.get::<_, i64>(4).unwrap_or_default().cast_unsigned();
    let expected = state_checksum(id, (revision, position), written_at_ms, record);
    let found = u32::try_from(row.get::<_, i64>(6).unwrap_or(-1)).unwrap_or_default();
    if expected != found {
        let row = position;
        let damage = Damage::Checksum {
            row,
            expected,
            found,
        };
        return Err(corrupt(id, revision, damage));
    }
    let record = record.map(|record| -> Result<_, ReadFault> {
        let tags = names.tags(record.tags).ok_or_else(|| malformed("tags"))?;
        let name = names.name(record.name.as_bytes());
        let name = name.ok_or_else(|| malformed("name"))?;
        let payload = record.payload.to_vec();
        Ok(EventRecord::new(name, record.version, payload).tagged(tags))
    });
    let record = record.transpose()?;
    let place = (revision, position);
    Ok(StoredState::new(id.clone(), place, written_at_ms, record))
}

/// The checksum of a state: that of an event with its revision, then its position. One that was
/// removed is an event without name and payload there, of version 0.
pub(super) fn state_checksum(
    id: &PersistenceId,
    (revision, position): (u64, u64),
    written_at_ms: u64,
    record: Option<RecordRef<'_>>,
) -> u32 {
    let removed = RecordRef {
        name: "",
        version: 0,
        payload: &[],
        tags: &[],
    };
    let content = record.unwrap_or(removed);
    let sum = checksum(id.as_str(), revision, written_at_ms, content);
    let mut hasher = crc32fast::Hasher::new_with_initial(sum);
    hasher.update(&position.to_le_bytes());
    hasher.update(&[u8::from(record.is_some())]);
    hasher.finalize()
}

/// The offset of a key.
pub(super) fn load_offset(db: &Connection, key: &str) -> Result<Option<u64>, ReadFault> {
    let row = db
        .prepare_cached("SELECT position, crc FROM offsets WHERE key = ?1")?
        .query_row([key], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((offset, crc)) = row else {
        return Ok(None);
    };
    let offset = offset.cast_unsigned();
    if i64::from(number_checksum(key, offset)) == crc {
        return Ok(Some(offset));
    }
    let reason = format!("the offset of {key:?} is damaged");
    Err(ReadFault::Journal(JournalError::Refused { reason }))
}
