//! Readers: threads with a connection each, which answer what only reads.

use crate::error::JournalError;
use crate::id::PersistenceId;
use crate::io::sqlite::batch::Batches;
use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::{Severity, severity};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// One thing to read; it sends its answer itself.
pub(super) type Task = Box<dyn FnOnce(&mut Reader) + Send>;

/// What a thread reads with.
pub(super) struct Reader {
    pub(super) db: Connection,
    pub(super) batches: Batches,
    pub(super) ids: Ids,
    /// Of one event, in the mean, on the page of events that this thread gave last.
    pub(super) payload_bytes: usize,
    pub(super) tasks: Arc<Tasks>,
}

impl Reader {
    pub(super) fn new(db: Connection, tasks: Arc<Tasks>) -> rusqlite::Result<Self> {
        // So much stays in the cache of a processor, and the kernel keeps the rest. With 16 MiB a page of
        // the file is copied to memory that is farther away, and twice as much is needed in all.
        db.pragma_update(None, "cache_size", -1024)?;
        let (batches, ids) = (Batches::new(&db)?, Ids::default());
        Ok(Self {
            db,
            batches,
            ids,
            payload_bytes: 0,
            tasks,
        })
    }
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
const TASKS_MAX: usize = 256;

/// What waits to be read, and which threads have nothing to do.
///
/// A task goes to the thread that was busy last: its pages are in the cache, and no other thread has
/// to be woken. When the threads took turns at one channel, each task woke two of them.
pub(super) struct Tasks {
    room: Semaphore,
    waiting: Mutex<Waiting>,
    /// Rung for the thread of this number alone.
    bells: Box<[Condvar]>,
}

struct Waiting {
    tasks: VecDeque<Task>,
    /// What a thread may wait for that runs a task, so they come first. An idle thread was woken for each.
    urgent: VecDeque<Task>,
    idle: Vec<usize>,
    /// Threads that have not ended.
    alive: usize,
    /// There will be no more tasks, or nobody to run them.
    ended: bool,
}

impl Tasks {
    /// For so many threads, which must all run.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        let waiting = Waiting {
            tasks: VecDeque::new(),
            urgent: VecDeque::new(),
            idle: Vec::new(),
            alive: threads,
            ended: false,
        };
        Arc::new(Self {
            room: Semaphore::new(TASKS_MAX),
            waiting: Mutex::new(waiting),
            bells: (0..threads).map(|_| Condvar::new()).collect(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task for a thread; `None` at the end.
    fn next(&self, thread: usize) -> Option<Task> {
        let bell = self.bells.get(thread)?;
        let mut waiting = self.waiting();
        loop {
            if let Some(task) = waiting.urgent.pop_front() {
                return Some(task);
            }
            if let Some(task) = waiting.tasks.pop_front() {
                self.room.add_permits(1);
                return Some(task);
            }
            if waiting.ended {
                return None;
            }
            waiting.idle.push(thread);
            waiting = bell
                .wait_while(waiting, |now| now.idle.contains(&thread))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands a task to a thread that has nothing to do; `false` if there is none.
    pub(super) fn ask_idle(&self, task: Task) -> bool {
        let mut waiting = self.waiting();
        let Some(thread) = waiting.idle.pop() else {
            return false;
        };
        waiting.urgent.push_back(task);
        drop(waiting);
        self.ring(thread);
        true
    }

    fn ring(&self, thread: usize) {
        if let Some(bell) = self.bells.get(thread) {
            bell.notify_one();
        }
    }

    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        waiting.idle.clear();
        let unread = (waiting.alive == 0).then(|| {
            let Waiting { tasks, urgent, .. } = &mut *waiting;
            (std::mem::take(tasks), std::mem::take(urgent))
        });
        drop(waiting);
        // Nobody runs them: who waits for their answers learns that there are none.
        drop(unread);
        self.room.close();
        self.bells.iter().for_each(Condvar::notify_all);
    }
}

/// The side of who asks. When the last clone is dropped, the threads run what waits, and end.
#[derive(Clone)]
pub(super) struct TaskSender(Arc<Ender>);

struct Ender(Arc<Tasks>);

impl Drop for Ender {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl TaskSender {
    pub(super) fn new(tasks: Arc<Tasks>) -> Self {
        Self(Arc::new(Ender(tasks)))
    }

    /// Hands a task over when there is room. It is dropped when there is nobody who runs it.
    pub(super) async fn send(&self, task: Task) {
        let Ender(tasks) = &*self.0;
        let Ok(room) = tasks.room.acquire().await else {
            return;
        };
        room.forget();
        let mut waiting = tasks.waiting();
        if waiting.ended {
            return;
        }
        waiting.tasks.push_back(task);
        let thread = waiting.idle.pop();
        drop(waiting);
        if let Some(thread) = thread {
            tasks.ring(thread);
        }
    }
}

/// Takes note of the end of a thread, also by a panic.
struct Running<'a>(&'a Tasks);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.alive -= 1;
        let last = waiting.alive == 0;
        drop(waiting);
        if last {
            self.0.end();
        }
    }
}

/// Runs the thread of a number until every sender of tasks is gone.
pub(super) fn run(mut reader: Reader, thread: usize) {
    let tasks = Arc::clone(&reader.tasks);
    let _running = Running(&tasks);
    while let Some(task) = tasks.next(thread) {
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
