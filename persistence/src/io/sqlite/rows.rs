//! Rows: reads events and snapshots back, and checks that they are what was written.

use crate::error::{Damage, JournalError};
use crate::format::{RecordRef, checksum};
use crate::id::PersistenceId;
use crate::io::sqlite::reader::ReadFault;
use crate::io::sqlite::transaction::{highest_seq, stream_of};
use crate::journal::{EventPage, EventRecord, StoredEvent};
use crate::logic::sequence::Sequence;
use crate::snapshot::Snapshot;
use rusqlite::{Connection, Row, params};
use std::sync::Arc;

/// A page ends here even when more events were asked for.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// One page of events, from one state of the file.
pub(super) fn page(
    db: &Connection,
    id: &PersistenceId,
    from_seq: u64,
    max: usize,
) -> Result<EventPage, ReadFault> {
    let transaction = db.unchecked_transaction()?;
    let Some(stream) = stream_of(db, id)? else {
        return Ok(EventPage::default());
    };
    let highest = highest_seq(db, stream)?;
    let mut events = Vec::new();
    if max > 0 {
        read_events(db, id, (stream, from_seq.max(1), max), &mut events)?;
    }
    transaction.finish()?;
    Ok(EventPage::new(events, highest))
}

fn read_events(
    db: &Connection,
    id: &PersistenceId,
    (stream, from_seq, max): (i64, u64, usize),
    events: &mut Vec<StoredEvent>,
) -> Result<(), ReadFault> {
    let mut statement = db.prepare_cached(
        "SELECT position, seq, tag, version, written_at_ms, payload, crc FROM events
         WHERE stream = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let from = i64::try_from(from_seq).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![stream, from, limit])?;
    let mut sequence = Sequence::from(from_seq);
    let (mut bytes, mut name) = (0, Arc::from(""));
    while bytes < PAGE_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let event = event(row, id, &mut sequence, &mut name)?;
        bytes += event.record.payload.len();
        events.push(event);
    }
    Ok(())
}

/// Reads one row and checks order and checksum. `name` is reused while it stays the same.
pub(super) fn event(
    row: &Row<'_>,
    id: &PersistenceId,
    sequence: &mut Sequence,
    name: &mut Arc<str>,
) -> Result<StoredEvent, ReadFault> {
    let position = row.get::<_, i64>(0)?.cast_unsigned();
    let seq = row.get::<_, i64>(1)?.cast_unsigned();
    let corrupt = |seq, damage| {
        ReadFault::Journal(JournalError::Corrupt {
            id: id.clone(),
            seq,
            damage,
        })
    };
    sequence
        .take(seq, position)
        .map_err(|(seq, damage)| corrupt(seq, damage))?;
    let content = content(row, 2).map_err(|what| {
        corrupt(
            seq,
            Damage::Malformed {
                row: position,
                what,
            },
        )
    })?;
    let written_at_ms = row.get::<_, i64>(4).unwrap_or_default().cast_unsigned();
    let payload = row.get_ref(5)?.as_blob().unwrap_or_default();
    let record = RecordRef {
        name: content.name,
        version: content.version,
        payload,
    };
    let expected = checksum(id.as_str(), seq, written_at_ms, record);
    let found = u32::try_from(row.get::<_, i64>(6).unwrap_or(-1)).unwrap_or_default();
    if expected != found {
        return Err(corrupt(
            seq,
            Damage::Checksum {
                row: position,
                expected,
                found,
            },
        ));
    }
    if **name != *content.name {
        *name = content.name.into();
    }
    let record = EventRecord::new(Arc::clone(name), content.version, payload.to_vec());
    Ok(StoredEvent::new(seq, position, written_at_ms, record))
}

struct Content<'a> {
    name: &'a str,
    version: u16,
}

/// Tag and version, at `column` and the next.
fn content<'a>(row: &'a Row<'_>, column: usize) -> Result<Content<'a>, &'static str> {
    let name = row
        .get_ref(column)
        .ok()
        .and_then(|value| value.as_str().ok())
        .ok_or("name")?;
    let version = row.get::<_, u16>(column + 1).map_err(|_| "version")?;
    Ok(Content { name, version })
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
        "SELECT snapshot, seq, tag, version, payload, crc FROM snapshots
         WHERE stream = ?1 AND seq <= ?2 ORDER BY seq DESC",
    )?;
    let seq_max = i64::try_from(seq_max).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![stream, seq_max])?;
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
    let seq = row
        .get::<_, i64>(1)
        .map_err(|_| "sequence number")?
        .cast_unsigned();
    let Content { name, version } = content(row, 2)?;
    let payload = row
        .get_ref(4)
        .ok()
        .and_then(|value| value.as_blob().ok())
        .ok_or("payload")?;
    let expected = checksum(
        id.as_str(),
        seq,
        0,
        RecordRef {
            name,
            version,
            payload,
        },
    );
    if row.get::<_, i64>(5).ok() != Some(i64::from(expected)) {
        return Err("checksum");
    }
    Ok(Snapshot::new(
        id.clone(),
        seq,
        name,
        version,
        payload.to_vec(),
    ))
}
