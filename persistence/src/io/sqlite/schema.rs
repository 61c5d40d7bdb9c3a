//! Schema: the tables of the embedded journal, how its file is made and recognised.
//!
//! | table | one row for each | notes |
//! | --- | --- | --- |
//! | `head` | the journal | commits so far and the newest position; grows with each commit |
//! | `streams` | persistence id | a small number stands for the id elsewhere; the slice is kept for queries |
//! | `events` | event | `position` orders all events, `stream` and `seq` say whose it is |
//! | `places`, `places_new` | event | an index: which position has (`stream`, `seq`) ([`super::places`]) |
//! | `event_tags` | tag of an event | what queries by tag find it by; the event has all its tags, too |
//! | `deleted` | id with deleted events | up to where, and up to where the rows are gone |
//! | `snapshots` | snapshot | |
//! | `states` | id with a state | `position` orders their last changes |
//! | `offsets` | projection | |
//! | `epochs` | scope | the epoch that was claimed last |
//! | `terms` | series | the number that was given last |
//!
//! Each row with content has a CRC-32 ([`crate::format`]), for SQLite's pages have none. A later
//! version adds columns and tables, raises `user_version`, and reads what this one wrote. The book
//! describes each column (`docs/book/embedded-journal.md`).
//!
//! Format 1 had no `event_tags`, `deleted`, `states` and `offsets`, and called a `name` a `tag`.
//! Formats 1 and 2 had an index of SQLite in place of `places` and `places_new`. A file of them is
//! changed when it is opened, in one transaction, and only while no other process has it open: a
//! process of the older version does not look at the format again, and would give numbers of
//! deleted events a second time, and no place to its events.

use crate::error::OpenError;
use crate::logic::mark::Head;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use std::path::Path;
use std::time::{Duration, Instant};

/// `OTAV` in the header of the file says whose it is.
const APPLICATION_ID: i32 = 0x4F54_4156;
/// The format of the file.
pub(super) const FORMAT: u32 = 3;

const TABLES: &str = "
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    commits INTEGER NOT NULL,
    position INTEGER NOT NULL,
    places_new INTEGER NOT NULL DEFAULT 0,
    merge_from INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO head VALUES (1, 0, 0, 0, 0);
CREATE TABLE streams (
    stream INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    slice INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    written_at_ms INTEGER NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL,
    tags BLOB
) STRICT;
CREATE TABLE snapshots (
    snapshot INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX snapshots_of_stream ON snapshots (stream, seq);
CREATE TABLE epochs (
    scope TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE terms (
    scope TEXT PRIMARY KEY,
    term INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What format 2 has more than format 1.
const TABLES_2: &str = "
CREATE TABLE event_tags (
    tag TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tag, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE deleted (
    stream INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    swept INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX deleted_unswept ON deleted (stream) WHERE swept < seq;
CREATE TABLE states (
    stream INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    position INTEGER NOT NULL,
    written_at_ms INTEGER NOT NULL,
    name TEXT,
    version INTEGER,
    payload BLOB,
    tags BLOB,
    crc INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX states_of_position ON states (position);
CREATE TABLE offsets (
    key TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What format 3 has more than format 2.
const TABLES_3: &str = "
CREATE TABLE places (
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (stream, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE places_new (
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (stream, seq)
) STRICT, WITHOUT ROWID;
";

const FROM_1_TO_2: &str = "
ALTER TABLE events RENAME COLUMN tag TO name;
ALTER TABLE events ADD COLUMN tags BLOB;
ALTER TABLE snapshots RENAME COLUMN tag TO name;
";

/// Behind [`TABLES_3`]. The index has all that is read, in its order.
const FROM_2_TO_3: &str = "
ALTER TABLE head ADD COLUMN places_new INTEGER NOT NULL DEFAULT 0;
ALTER TABLE head ADD COLUMN merge_from INTEGER NOT NULL DEFAULT 0;
INSERT INTO places SELECT stream, seq, position FROM events ORDER BY stream, seq;
DROP INDEX events_of_stream;
";

/// Opens a connection that waits for others by [`super::busy`], and does not fold the log into the
/// main file when it closes: until the file is verified, nothing of it may be overwritten.
pub(super) fn connect(path: &Path, busy_limit: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    super::busy::install(&mut connection, busy_limit)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A plan does not depend on the values: otherwise each statement is prepared again for others.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Settings that a connection does not keep in the file.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -16384;
         PRAGMA trusted_schema = OFF;",
    )
}

/// Puts the file into write-ahead mode. Several processes may try at once, and then SQLite may say
/// "busy" without asking the busy handler; it is asked again until the limit.
pub(super) fn enter_wal_mode(connection: &Connection, limit: Duration) -> rusqlite::Result<()> {
    let begin = Instant::now();
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        let busy = match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(_) => None,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Some(error),
            Err(error) => return Err(error),
        };
        if begin.elapsed() >= limit {
            return Err(busy.unwrap_or(rusqlite::Error::QueryReturnedNoRows));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Empty,
    /// Of this format; above 0, at most [`FORMAT`].
    Journal(u32),
}

/// Looks whose file it is, before anything is written to it.
pub(super) fn recognise(connection: &Connection, path: &Path) -> Result<Kind, OpenError> {
    // One statement, so that all three are of one moment: another process may be making the file.
    let looked = connection.query_row(
        "SELECT (SELECT count(*) FROM sqlite_schema), application_id, user_version
         FROM pragma_application_id, pragma_user_version",
        [],
        |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i32>(1)?,
                row.get::<_, u32>(2)?,
            ))
        },
    );
    match looked {
        Ok((0, 0, 0)) => Ok(Kind::Empty),
        Ok((_, APPLICATION_ID, format @ 1..=FORMAT)) => Ok(Kind::Journal(format)),
        Ok((_, APPLICATION_ID, found)) => Err(OpenError::NewerFormat {
            path: path.to_owned(),
            found,
            known: FORMAT,
        }),
        Ok(_) => Err(OpenError::NotAJournal {
            path: path.to_owned(),
        }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(OpenError::NotAJournal {
                path: path.to_owned(),
            })
        }
        Err(error) => Err(store_error(path, &error)),
    }
}

/// Makes the tables; within a transaction of the caller, so that they are there whole or not.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection.execute_batch(TABLES_2)?;
    connection.execute_batch(TABLES_3)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)
}

/// Brings a file of an older format to the present one, whole or not at all, while no other connection is
/// open.
///
/// A connection in exclusive mode gets the file only when no other has it, and keeps it to itself.
/// So this is one of its own, which is closed afterwards.
pub(super) fn migrate(path: &Path, limit: Duration) -> Result<(), OpenError> {
    let begin = Instant::now();
    loop {
        match try_migrate(path) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                // Another process of this version may have been faster, and keeps it open since.
                if is_migrated(path) {
                    return Ok(());
                }
                if begin.elapsed() >= limit {
                    return Err(OpenError::OldFormatInUse {
                        path: path.to_owned(),
                        known: FORMAT,
                    });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            migrated => return migrated.map_err(|error| store_error(path, &error)),
        }
    }
}

/// Whether the file is seen to be of the present format; not while somebody is changing it.
fn is_migrated(path: &Path) -> bool {
    let format = connect(path, Duration::ZERO)
        .and_then(|db| db.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)));
    format.is_ok_and(|format| format == FORMAT)
}

fn try_migrate(path: &Path) -> rusqlite::Result<()> {
    let db = connect(path, Duration::ZERO)?;
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE",
    )?;
    let format: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format == FORMAT {
        // Another process was faster.
        return db.execute_batch("ROLLBACK");
    }
    if format == 1 {
        db.execute_batch(FROM_1_TO_2)?;
        db.execute_batch(TABLES_2)?;
    }
    db.execute_batch(TABLES_3)?;
    db.execute_batch(FROM_2_TO_3)?;
    db.pragma_update(None, "user_version", FORMAT)?;
    db.execute_batch("COMMIT")?;
    tracing::info!(path = %path.display(), "the journal was brought from format {format} to {FORMAT}");
    Ok(())
}

/// The newest commit and position.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    let mut statement = connection.prepare_cached("SELECT commits, position FROM head")?;
    statement.query_row([], |row| {
        let (commit, position): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Head {
            commit: commit.cast_unsigned(),
            position: position.cast_unsigned(),
        })
    })
}

pub(super) fn store_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Store {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
