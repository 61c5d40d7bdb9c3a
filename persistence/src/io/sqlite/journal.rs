//! Embedded journal handle: hands requests to the committer and to the readers.

use crate::error::{AppendError, ClaimError, JournalError, OpenError};
use crate::id::PersistenceId;
use crate::io::sqlite::committer::Request;
use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::open::{self, Running};
use crate::io::sqlite::reader::{ReadFault, Reader, Task, TaskSender};
use crate::io::sqlite::transaction::{Done, Job};
use crate::io::sqlite::verify::{self, Verified, VerifyError};
use crate::io::sqlite::watch::Watch;
use crate::io::sqlite::{SqliteConfig, rows};
use crate::journal::{AppendRequest, Appended, DeleteRequest, EventPage, Journal, check_scope};
use crate::offset::OffsetStore;
use crate::query::EventQueries;
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::state::StateStore;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// Every store of this crate in one SQLite file, which the processes of one machine may share.
///
/// Clones are handles on the same open journal; it closes with [`Journal::close`], or when the last
/// handle is dropped. Beside the file lie SQLite's own (`-wal`, `-shm`), the marks of what was
/// acknowledged (`-mark-*`), and, if the store ever halts, a marker (`-halted`). Move, copy or
/// delete them together, and only while no process has the journal open.
///
/// The file must lie on a local disk: locks of network file systems are not good enough.
///
/// # Delivery
/// As [`Journal`] says, after the end of any process at any moment, and after a power cut if the
/// disk keeps what it said it had. A disk that lies, or forgets, is noticed: by a checksum a row,
/// and by the marks when the file is opened.
///
/// # Examples
/// ```
/// use otava_persistence::{AppendRequest, EventRecord, Journal, PersistenceId};
/// use otava_persistence::{SqliteConfig, SqliteJournal};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let journal = SqliteJournal::open(folder.path().join("journal.db"), SqliteConfig::default()).await?;
/// let id = PersistenceId::new("account", "7");
/// let deposit = EventRecord::new("bank.Deposited", 1, vec![42]);
/// let appended = journal.append(AppendRequest::new(id.clone(), 0, vec![deposit])).await?;
/// assert_eq!(appended.seq, 1);
/// assert_eq!(journal.read(&id, 1, 100).await?.events.len(), 1);
/// journal.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteJournal {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    halt: Arc<Halt>,
    /// `None` after `close`.
    senders: Mutex<Option<Senders>>,
    watch: Watch,
    ended: watch::Receiver<()>,
}

struct Senders {
    requests: mpsc::Sender<Request>,
    tasks: TaskSender,
}

impl SqliteJournal {
    /// Opens a journal, or makes it; its folder must be there. Any number of processes may do so
    /// at once.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing of a file that is refused is changed.
    ///
    /// # Cancel safety
    /// A dropped call may still make the file; it is closed again.
    pub async fn open(path: impl AsRef<Path>, config: SqliteConfig) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let place = path.clone();
        let running = on_a_thread(&path, move || open::open(&place, config)).await??;
        let Running {
            requests,
            tasks,
            halt,
            watch,
            ended,
        } = running;
        let senders = Mutex::new(Some(Senders { requests, tasks }));
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                halt,
                senders,
                watch,
                ended,
            }),
        })
    }

    /// Reads a whole journal that no process has open, also one that was halted, and checks all
    /// that can be checked: structure, checksums, order, marks. Changes nothing.
    ///
    /// # Errors
    /// [`VerifyError`] lists what is wrong.
    pub async fn verify(path: impl AsRef<Path>) -> Result<Verified, VerifyError> {
        let path = path.as_ref().to_owned();
        let place = path.clone();
        on_a_thread(&path, move || verify::verify(&place)).await?
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(super) async fn write(&self, job: Job) -> Result<Done, AppendError> {
        let requests = self.inner.sender(|senders| senders.requests.clone())?;
        let (reply, outcome) = oneshot::channel();
        let sent = requests.send(Request { job, reply }).await;
        drop(requests);
        match sent {
            Ok(()) => outcome
                .await
                .unwrap_or_else(|_| Err(self.inner.gone().into())),
            Err(_) => Err(self.inner.gone().into()),
        }
    }

    /// As [`Self::write`], for jobs that no rule refuses.
    pub(super) async fn write_plainly(&self, job: Job) -> Result<Done, JournalError> {
        self.write(job).await.map_err(|error| match error {
            AppendError::Store(error) => error,
            refused => JournalError::Refused {
                reason: refused.to_string(),
            },
        })
    }

    pub(super) async fn read_on<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, ReadFault> + Send + 'static,
    ) -> Result<T, JournalError> {
        let tasks = self.inner.sender(|senders| senders.tasks.clone())?;
        let (reply, outcome) = oneshot::channel();
        let halt = Arc::clone(&self.inner.halt);
        let task: Task = Box::new(move |reader| {
            let begin = Instant::now();
            let result = read(reader).map_err(|fault| fault.settle(&halt, begin.elapsed()));
            drop(reply.send(result));
        });
        tasks.send(task).await;
        drop(tasks);
        outcome.await.unwrap_or_else(|_| Err(self.inner.gone()))
    }

    /// Waits for an event behind the position `after`.
    pub(super) async fn wait_behind(&self, after: u64) -> Result<u64, JournalError> {
        // Refused at once when the journal is closed or halted.
        self.inner.sender(|_| ())?;
        let newest = self.inner.watch.behind(after).await;
        newest.ok_or_else(|| self.inner.gone())
    }
}

impl Inner {
    /// A sender, unless the journal is closed or halted.
    fn sender<T>(&self, pick: impl FnOnce(&Senders) -> T) -> Result<T, JournalError> {
        if let Some(reason) = self.halt.known() {
            return Err(JournalError::Halted { reason });
        }
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.as_ref().map(pick).ok_or(JournalError::Closed)
    }

    /// Why nobody answers.
    fn gone(&self) -> JournalError {
        self.halt
            .known()
            .map_or(JournalError::Closed, |reason| JournalError::Halted {
                reason,
            })
    }
}

/// Runs what blocks on a thread of its own, so that no runtime is needed to close it down.
async fn on_a_thread<T: Send + 'static>(
    path: &Path,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OpenError> {
    let failed = |source| OpenError::File {
        what: "start a thread for",
        path: path.to_owned(),
        source,
    };
    let (reply, outcome) = oneshot::channel();
    let run = move || drop(reply.send(run()));
    std::thread::Builder::new()
        .name("otava-journal-open".to_owned())
        .spawn(run)
        .map_err(failed)?;
    outcome
        .await
        .map_err(|_| failed(std::io::Error::other("the thread panicked")))
}

impl Journal for SqliteJournal {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            request.check_limits()?;
            match self.write(Job::Append(request)).await? {
                Done::Appended(appended) => Ok(appended),
                done => unreachable!("an append was answered with {done:?}"),
            }
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        let id = id.clone();
        self.read_on(move |reader| rows::page(reader, &id, from_seq, max))
            .boxed()
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        let id = id.clone();
        self.read_on(move |reader| rows::newest_seq(&reader.db, &id))
            .boxed()
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        async move {
            check_scope(scope)?;
            match self
                .write(Job::Claim {
                    scope: scope.into(),
                    epoch,
                })
                .await
            {
                Ok(_) => Ok(()),
                Err(AppendError::Fenced { current }) => Err(ClaimError::Fenced { current }),
                Err(AppendError::Store(error)) => Err(error.into()),
                Err(error @ AppendError::WrongSequence { .. }) => {
                    unreachable!("a claim was answered with {error:?}")
                }
            }
        }
        .boxed()
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move {
            check_scope(scope)?;
            match self
                .write_plainly(Job::NextTerm {
                    scope: scope.into(),
                })
                .await?
            {
                Done::Term(term) => Ok(term),
                done => unreachable!("a term was answered with {done:?}"),
            }
        }
        .boxed()
    }

    fn delete(&self, request: DeleteRequest) -> BoxFuture<'_, Result<(), AppendError>> {
        async move {
            request.check_limits()?;
            self.write(Job::Delete(request)).await.map(drop)
        }
        .boxed()
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(self.clone()))
    }

    fn queries(&self) -> Option<Arc<dyn EventQueries>> {
        Some(Arc::new(self.clone()))
    }

    fn states(&self) -> Option<Arc<dyn StateStore>> {
        Some(Arc::new(self.clone()))
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        Some(Arc::new(self.clone()))
    }

    fn halted(&self) -> BoxFuture<'_, Arc<str>> {
        self.inner.halt.halted().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        drop(
            self.inner
                .senders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let mut ended = self.inner.ended.clone();
        async move { while ended.changed().await.is_ok() {} }.boxed()
    }
}

impl SnapshotStore for SqliteJournal {
    fn save(
        &self,
        snapshot: Snapshot,
        keep: NonZeroU32,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        async move {
            snapshot.check_limits()?;
            self.write_plainly(Job::SaveSnapshot { snapshot, keep })
                .await
                .map(drop)
        }
        .boxed()
    }

    fn latest<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, JournalError>> {
        let id = id.clone();
        self.read_on(move |reader| rows::latest_snapshot(&reader.db, &id, seq_max))
            .boxed()
    }

    fn delete<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let job = Job::DeleteSnapshots {
            id: id.clone(),
            seq_max,
        };
        async move { self.write_plainly(job).await.map(drop) }.boxed()
    }
}
