//! Rows: reads events, snapshots and states back, and checks that they are what was written.

use otava_persistence::{Damage, EventRecord, JournalError, PersistenceId, StoredEvent};
use std::sync::Arc;
use tokio_postgres::Row;

/// Rows that are read at once, whatever is asked for.
pub(crate) const PAGE_ROWS_MAX: usize = 4096;

/// A page ends here even when more was asked for; a single row is read whatever its size.
pub(crate) const PAGE_BYTES_MAX: i64 = 8 << 20;

/// The columns that every read of events has first, in the order in which [`event`] takes them.
pub(crate) const COLUMNS: &str = "position, seq, written_at_ms, version, name, tags, payload";

/// What follows [`COLUMNS`] is at this place.
pub(crate) const NEXT_COLUMN: usize = 7;

/// The limit of rows for a page of `max`.
pub(crate) fn row_limit(max: usize) -> i64 {
    i64::try_from(max.min(PAGE_ROWS_MAX)).unwrap_or(i64::MAX)
}

/// Cuts a page at [`PAGE_BYTES_MAX`]: `columns` of the rows that `from` gives in the order of `by`.
pub(crate) fn within_bytes(columns: &str, from: &str, by: &str) -> String {
    format!(
        "SELECT {columns} FROM (SELECT *, sum(octet_length(payload)) OVER \
         (ORDER BY {by} ROWS UNBOUNDED PRECEDING) - octet_length(payload) AS bytes_before \
         FROM ({from}) rows_of_page) cut WHERE coalesce(bytes_before, 0) < {PAGE_BYTES_MAX}"
    )
}

/// Reads an event of `id`, which begins with [`COLUMNS`]. `name` is reused while it stays the same.
pub(crate) fn event(
    row: &Row,
    id: &PersistenceId,
    name: &mut Arc<str>,
) -> Result<StoredEvent, JournalError> {
    let number = |column| number(row, column).unwrap_or_default();
    let (position, seq, written_at_ms) = (number(0), number(1), number(2));
    let record = record(row, 3, name).map_err(|what| corrupt(id, seq, position, what))?;
    Ok(StoredEvent::new(seq, position, written_at_ms, record))
}

/// Version, name, tags and payload, from `column` on.
pub(crate) fn record(
    row: &Row,
    column: usize,
    name: &mut Arc<str>,
) -> Result<EventRecord, &'static str> {
    let version: i32 = row.try_get(column).map_err(|_| "version")?;
    let version = u16::try_from(version).map_err(|_| "version")?;
    let stored = text(row, column + 1, "name")?;
    if **name != *stored {
        *name = stored.into();
    }
    let payload: &[u8] = row.try_get(column + 3).map_err(|_| "payload")?;
    let record = EventRecord::new(Arc::clone(name), version, payload.to_vec());
    let tags: Option<Vec<&[u8]>> = row.try_get(column + 2).map_err(|_| "tags")?;
    let Some(tags) = tags else {
        return Ok(record);
    };
    let tags = tags
        .into_iter()
        .map(|tag| std::str::from_utf8(tag).map(Arc::from));
    let tags = tags.collect::<Result<_, _>>().map_err(|_| "tags")?;
    Ok(record.tagged(tags))
}

/// A number that is not negative.
pub(crate) fn number(row: &Row, column: usize) -> Result<u64, &'static str> {
    let number: i64 = row.try_get(column).map_err(|_| "number")?;
    u64::try_from(number).map_err(|_| "number")
}

/// The persistence id of a row.
pub(crate) fn id(row: &Row, column: usize) -> Result<PersistenceId, &'static str> {
    PersistenceId::parse(text(row, column, "id")?).ok_or("id")
}

pub(crate) fn text<'a>(
    row: &'a Row,
    column: usize,
    what: &'static str,
) -> Result<&'a str, &'static str> {
    let bytes: &[u8] = row.try_get(column).map_err(|_| what)?;
    std::str::from_utf8(bytes).map_err(|_| what)
}

/// A row has values that no version of this program wrote.
pub(crate) fn corrupt(
    id: &PersistenceId,
    seq: u64,
    position: u64,
    what: &'static str,
) -> JournalError {
    JournalError::Corrupt {
        id: id.clone(),
        seq,
        damage: Damage::Malformed {
            row: position,
            what,
        },
    }
}
