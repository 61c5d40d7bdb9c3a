//! Readers: threads with a connection each, which answer what only reads.

use crate::error::JournalError;
use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::{Severity, severity};
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// One thing to read; it sends its answer itself.
pub(super) type Task = Box<dyn FnOnce(&Connection) + Send>;

/// Tasks that may wait; a caller above that waits for room.
pub(super) const TASKS_MAX: usize = 256;

/// What the threads take their tasks from.
pub(super) type Tasks = Arc<Mutex<mpsc::Receiver<Task>>>;

/// Runs until every sender of tasks is gone.
pub(super) fn run(db: &Connection, tasks: &Tasks) {
    loop {
        // One thread waits for a task with the lock held, the others wait for the lock.
        let task = tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(task) = task else { break };
        task(db);
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
