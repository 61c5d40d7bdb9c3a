//! Open: makes or recognises the file, compares it with the marks, and starts the threads.

use crate::error::OpenError;
use crate::io::sqlite::checkpoint::{self, Keeper};
use crate::io::sqlite::committer::{Committer, Request};
use crate::io::sqlite::halt::{Halt, read_marker};
use crate::io::sqlite::marks::{self, Mark};
use crate::io::sqlite::queue::Queue;
use crate::io::sqlite::reader::{self, Reader, TaskSender, Tasks};
use crate::io::sqlite::schema::{self, Kind, store_error};
use crate::io::sqlite::turns::Turns;
use crate::io::sqlite::watch::{Watch, Watcher};
use crate::io::sqlite::{SqliteConfig, beside, sync_folder};
use crate::logic::mark::{self, Head};
use rusqlite::Connection;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::sync::{mpsc, watch};

/// A journal with its threads running.
pub(super) struct Running {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) tasks: TaskSender,
    pub(super) halt: Arc<Halt>,
    pub(super) watch: Watch,
    /// Its sender is dropped when all threads have ended and the file is closed.
    pub(super) ended: watch::Receiver<()>,
}

/// Opens `path`, or makes it. Blocks.
pub(super) fn open(path: &Path, config: SqliteConfig) -> Result<Running, OpenError> {
    let halt = Halt::new(path);
    refuse_if_halted(&halt)?;
    let (db, mark) = open_verified(path, &config)?;
    start(path, config, Arc::new(halt), db, mark)
}

fn refuse_if_halted(halt: &Halt) -> Result<(), OpenError> {
    let marker = halt.marker().to_owned();
    match std::fs::exists(&marker) {
        Ok(false) => Ok(()),
        Ok(true) => Err(OpenError::Halted {
            reason: read_marker(&marker),
            marker,
        }),
        Err(source) => Err(OpenError::File {
            what: "look for",
            path: marker,
            source,
        }),
    }
}

/// The committer's connection to a file that holds all that was acknowledged, and a mark for it.
fn open_verified(path: &Path, config: &SqliteConfig) -> Result<(Connection, Mark), OpenError> {
    let failed = |error: rusqlite::Error| store_error(path, &error);
    let db = match look(path, config)? {
        (db, Kind::Journal(format)) if format < schema::FORMAT => {
            drop(db);
            schema::migrate(path, config.busy_limit)?;
            look(path, config)?.0
        }
        (db, _) => db,
    };
    schema::enter_wal_mode(&db, config.busy_limit).map_err(failed)?;
    schema::prepare(&db).map_err(failed)?;
    db.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    // Looked at again, now that nobody else can be making it.
    if schema::recognise(&db, path)? == Kind::Empty {
        schema::create(&db).map_err(failed)?;
        db.execute_batch("COMMIT; BEGIN IMMEDIATE")
            .map_err(failed)?;
    }
    let mark = verify_and_mark(&db, path)?;
    db.execute_batch("ROLLBACK").map_err(failed)?;
    Ok((db, mark))
}

/// Connects and compares with the marks before anything is written, so that a file which is refused
/// stays as it is: what a human can save of it lies behind the damage. The marks are read first;
/// then others may commit in between, and the file is only further on.
fn look(path: &Path, config: &SqliteConfig) -> Result<(Connection, Kind), OpenError> {
    let marks = marks::read_all(path)?;
    if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        // SQLite would remove the log of an empty file as soon as it looks.
        compare(path, Head::default(), &marks)?;
    }
    let failed = |error: rusqlite::Error| store_error(path, &error);
    let db = schema::connect(path, config.busy_limit).map_err(failed)?;
    let kind = schema::recognise(&db, path)?;
    let head = match kind {
        Kind::Empty => Head::default(),
        Kind::Journal(_) => schema::head(&db).map_err(failed)?,
    };
    compare(path, head, &marks)?;
    Ok((db, kind))
}

fn compare(path: &Path, found: Head, marks: &[(PathBuf, Head)]) -> Result<(), OpenError> {
    let heads: Vec<_> = marks.iter().map(|(_, head)| *head).collect();
    let Some(missed) = mark::not_reached(found, &heads) else {
        return Ok(());
    };
    let (mark, acknowledged) = &marks[missed];
    Err(OpenError::AcknowledgedMissing {
        path: path.to_owned(),
        commit: found.commit,
        position: found.position,
        acknowledged: acknowledged.commit,
        acknowledged_position: acknowledged.position,
        mark: mark.clone(),
    })
}

/// Compares the file with the marks once more, now that the write lock is held, and leaves one.
fn verify_and_mark(db: &Connection, path: &Path) -> Result<Mark, OpenError> {
    sync_log(path)?;
    let found = schema::head(db).map_err(|error| store_error(path, &error))?;
    let old = marks::read_all(path)?;
    compare(path, found, &old)?;
    if old.is_empty() && found.commit > 0 {
        let path = path.display();
        tracing::warn!(%path, "no mark says what was acknowledged: the journal is taken as it is");
    }
    let mark = Mark::create(path, found).map_err(|source| OpenError::File {
        what: "write a mark beside",
        path: path.to_owned(),
        source,
    })?;
    marks::remove(old);
    Ok(mark)
}

/// Makes durable what a killed process may have left in the log without forcing it to disk, since
/// from now on it is read as committed. Then the names of the files.
fn sync_log(path: &Path) -> Result<(), OpenError> {
    let file_error = |path: PathBuf, source: io::Error| OpenError::File {
        what: "force to disk",
        path,
        source,
    };
    let log = beside(path, "-wal");
    match File::open(&log).and_then(|file| file.sync_all()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(file_error(log, source)),
    }
    sync_folder(path).map_err(|source| file_error(path.to_owned(), source))
}

fn start(
    path: &Path,
    config: SqliteConfig,
    halt: Arc<Halt>,
    db: Connection,
    mark: Mark,
) -> Result<Running, OpenError> {
    let failed = |error: rusqlite::Error| store_error(path, &error);
    let another = |busy_limit| -> rusqlite::Result<Connection> {
        let db = schema::connect(path, busy_limit)?;
        schema::prepare(&db)?;
        Ok(db)
    };
    let (requests, request_receiver) = mpsc::channel(config.queue_requests_max.get());
    let (keeper, waker) = checkpoint::channel();
    let turns = Arc::<Turns>::default();
    let mut others = Vec::new();

    let to_read = Tasks::new(config.readers.get());
    // Ends the threads that run already if not all can be started.
    let tasks = TaskSender::new(Arc::clone(&to_read));
    for thread in 0..config.readers.get() {
        let reader = another(config.busy_limit)
            .and_then(|db| Reader::new(db, Arc::clone(&to_read)))
            .map_err(failed)?;
        others.push(spawn("otava-journal-read", move || {
            reader::run(reader, thread);
        })?);
    }
    let keep = Keeper {
        db: another(checkpoint::BUSY_LIMIT).map_err(failed)?,
        halt: Arc::clone(&halt),
        mark: mark.sync_file(),
        mark_sync: config.mark_sync,
        pages_max: config.checkpoint_pages,
        waker,
        turns: Arc::clone(&turns),
    };
    others.push(spawn("otava-journal-keep", move || keep.run())?);
    let (watch, watching) = Watch::new();
    let watcher = Watcher {
        db: another(config.busy_limit).map_err(failed)?,
        halt: Arc::clone(&halt),
        period: config.watch_period,
        watch: watch.clone(),
    };
    others.push(spawn("otava-journal-watch", move || watcher.run())?);

    let (alive, ended) = watch::channel(());
    let queue = Queue::new(request_receiver, &config);
    let committer = Committer {
        db,
        config,
        halt: Arc::clone(&halt),
        mark,
        queue,
        keeper,
        turns,
        watching,
        left_rows: false,
        others,
    };
    spawn("otava-journal-write", move || {
        committer.run();
        drop(alive);
    })?;
    Ok(Running {
        requests,
        tasks,
        halt,
        watch,
        ended,
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|source| OpenError::File {
        what: "start the thread",
        path: name.into(),
        source,
    })
}
