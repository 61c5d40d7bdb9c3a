//! Readers: threads with a connection each, which answer what only reads.

use crate::error::JournalError;
use crate::id::PersistenceId;
use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::{Severity, severity};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// One thing to read; it sends its answer itself.
pub(super) type Task = Box<dyn FnOnce(&mut Reader) + Send>;

/// What a thread reads with.
pub(super) struct Reader {
    pub(super) db: Connection,
    pub(super) ids: Ids,
}

/// The ids that numbers of streams stand for. They never change once they are committed.
#[derive(Default)]
pub(super) struct Ids {
    known: HashMap<i64, PersistenceId>,
    /// The one that was asked for last: often it is the next one, too.
    last: Option<(i64, PersistenceId)>,
}

/// Ids that are remembered; some 100 bytes each.
const IDS_MAX: usize = 65_536;

impl Ids {
    /// The id of a stream, which must be within the same transaction as the row that names it.
    pub(super) fn id(&mut self, db: &Connection, stream: i64) -> Result<PersistenceId, ReadFault> {
        if let Some((last, id)) = &self.last
            && *last == stream
        {
            return Ok(id.clone());
        }
        let id = self.look_up(db, stream)?;
        self.last = Some((stream, id.clone()));
        Ok(id)
    }

    fn look_up(&mut self, db: &Connection, stream: i64) -> Result<PersistenceId, ReadFault> {
        if let Some(id) = self.known.get(&stream) {
            return Ok(id.clone());
        }
        let text: Option<String> = db
            .prepare_cached("SELECT id FROM streams WHERE stream = ?1")?
            .query_row([stream], |row| row.get(0))
            .optional()?;
        let Some(id) = text.as_deref().and_then(PersistenceId::parse) else {
            let reason = format!("a row belongs to no persistence id (stream {stream})");
            return Err(ReadFault::Journal(JournalError::Refused { reason }));
        };
        if self.known.len() >= IDS_MAX {
            self.known.clear();
        }
        self.known.insert(stream, id.clone());
        Ok(id)
    }
}

/// Tasks that may wait; a caller above that waits for room.
pub(super) const TASKS_MAX: usize = 256;

/// What the threads take their tasks from.
pub(super) type Tasks = Arc<Mutex<mpsc::Receiver<Task>>>;

/// Runs until every sender of tasks is gone.
pub(super) fn run(db: Connection, tasks: &Tasks) {
    let ids = Ids::default();
    let mut reader = Reader { db, ids };
    loop {
        // One thread waits for a task with the lock held, the others wait for the lock.
        let task = tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(task) = task else { break };
        task(&mut reader);
    }
}

/// Why something could not be read.
#[derive(Debug)]
pub(super) enum ReadFault {
    Journal(JournalError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ReadFault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl ReadFault {
    /// A damaged row stops whoever needs it; an error of the database halts the store.
    pub(super) fn settle(self, halt: &Halt, waited: std::time::Duration) -> JournalError {
        match self {
            Self::Journal(error) => error,
            Self::Sqlite(error) if matches!(severity(&error), Severity::Busy) => {
                JournalError::Busy { waited }
            }
            Self::Sqlite(error) => JournalError::Halted {
                reason: halt.halt(&format!("cannot read: {error}")),
            },
        }
    }
}
