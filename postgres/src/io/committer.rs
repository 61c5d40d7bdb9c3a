//! Committer: the one task of a journal that writes events, or states; gathers requests and writes
//! them by one statement, which is one transaction.
//!
//! The statement calls a function of the schema that checks all fences and numbers behind a lock, and
//! writes what may be written. So the checks and the write are one transaction on the server, which
//! waits for no further word of this process: one that is paused or killed holds nothing.

use crate::io::connect::connect;
use crate::io::fault::{Fault, describe};
use crate::io::server::{Params, Server};
use crate::logic::batch::{Waiting, Write};
use crate::logic::migrations::LOCK_CLASS;
use futures_util::future::BoxFuture;
use otava_persistence::{AppendError, JournalError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_postgres::{Client, Statement};

/// Something that can be written in batches.
pub(crate) trait Work: Write + Send + Sync + Sized + 'static {
    /// The answer.
    type Done: Send + 'static;

    /// What is remembered from statement to statement, for as long as the connection lives.
    type Memory: Default + Send + Sync + 'static;

    /// The statement, with `@` for the schema.
    const SQL: &'static str;

    /// What the lock is of that the statement takes.
    fn lock(server: &Server) -> u32;

    /// Runs the statement, and reads the answer to each request.
    fn run<'a>(
        link: &'a mut Link<Self::Memory>,
        batch: &'a [Request<Self>],
    ) -> BoxFuture<'a, Result<Vec<Answer<Self>>, Fault>>;

    /// Takes note of what was done.
    fn committed(server: &Server, answers: &[Answer<Self>]);
}

/// A connection with its prepared statement, and what is remembered while it lives.
pub(crate) struct Link<M> {
    pub(crate) client: Client,
    pub(crate) statement: Statement,
    pub(crate) memory: M,
}

/// What is asked for, and who waits for it.
pub(crate) struct Request<W: Work> {
    pub(crate) work: W,
    reply: oneshot::Sender<Answer<W>>,
}

pub(crate) type Answer<W> = Result<<W as Work>::Done, AppendError>;

impl<W: Work> Write for Request<W> {
    fn id(&self) -> &otava_persistence::PersistenceId {
        self.work.id()
    }

    fn bytes(&self) -> usize {
        self.work.bytes()
    }
}

/// The way to a committer.
pub(crate) struct Lane<W: Work> {
    requests: Mutex<Option<mpsc::Sender<Request<W>>>>,
    ended: watch::Receiver<()>,
}

/// Requests that may wait; a caller above that waits for room.
const REQUESTS_MAX: usize = 4096;

impl<W: Work> Lane<W> {
    /// Starts the committer.
    pub(crate) fn start(server: Arc<Server>) -> Self {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (end, ended) = watch::channel(());
        let committer = Committer {
            server,
            requests,
            waiting: Waiting::new(),
            link: None,
        };
        tokio::spawn(async move {
            committer.serve().await;
            drop(end);
        });
        Self {
            requests: Mutex::new(Some(sender)),
            ended,
        }
    }

    pub(crate) async fn ask(&self, work: W) -> Answer<W> {
        let sender = self.sender().ok_or(JournalError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let sent = sender.send(Request { work, reply }).await;
        drop(sender);
        sent.map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or_else(|_| {
            let reason = "the task that writes ended".into();
            Err(JournalError::Unknown { reason }.into())
        })
    }

    /// Lets nothing in any more.
    pub(crate) fn begin_close(&self) {
        self.guard().take();
    }

    /// Waits until everything that was let in is answered.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: the error says that the committer is gone.
        while ended.changed().await.is_ok() {}
    }

    fn sender(&self) -> Option<mpsc::Sender<Request<W>>> {
        self.guard().clone()
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Request<W>>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the committer lets requests gather before it begins.
///
/// Writers that were just answered come back within microseconds, but the next statement would begin
/// without them; batches then alternate between the few and the many. So others run until as many
/// wait as were in sight after the last commit, at most for a part of what that commit took. A lone
/// writer is never kept waiting: nobody else is in sight.
#[derive(Default)]
struct Pace {
    in_sight: usize,
    limit: Duration,
}

impl Pace {
    const LIMIT_MAX: Duration = Duration::from_millis(2);

    fn committed(&mut self, took: Duration, in_sight: usize) {
        self.in_sight = in_sight;
        self.limit = (took / 4).min(Self::LIMIT_MAX);
    }

    async fn let_gather(&self, waiting: impl Fn() -> usize) {
        let begin = Instant::now();
        while waiting() < self.in_sight && begin.elapsed() < self.limit {
            tokio::task::yield_now().await;
        }
    }
}

struct Committer<W: Work> {
    server: Arc<Server>,
    requests: mpsc::Receiver<Request<W>>,
    waiting: Waiting<Request<W>>,
    link: Option<Link<W::Memory>>,
}

impl<W: Work> Committer<W> {
    /// Runs until every sender of requests is gone and everything is answered.
    async fn serve(mut self) {
        let mut pace = Pace::default();
        loop {
            if self.waiting.is_empty() {
                let Some(first) = self.requests.recv().await else {
                    return;
                };
                self.waiting.push(first);
            }
            pace.let_gather(|| self.requests.len() + self.waiting.len())
                .await;
            while self.waiting.len() < REQUESTS_MAX
                && let Ok(request) = self.requests.try_recv()
            {
                self.waiting.push(request);
            }
            let batch = self.waiting.take(self.server.config.batch);
            let (begin, answered) = (Instant::now(), batch.len());
            self.commit(batch).await;
            let in_sight = answered + self.requests.len() + self.waiting.len();
            pace.committed(begin.elapsed(), in_sight);
        }
    }

    /// Writes a batch and answers it. If the server refuses the whole of it for what it cannot store,
    /// each request is tried alone.
    async fn commit(&mut self, batch: Vec<Request<W>>) {
        match self.run(&batch).await {
            Ok(answers) => {
                W::committed(&self.server, &answers);
                for (request, answer) in batch.into_iter().zip(answers) {
                    // Whoever asked may be gone.
                    let _ = request.reply.send(answer);
                }
            }
            Err(
                Fault::Duplicate(JournalError::Refused { reason })
                | Fault::Refused(JournalError::Refused { reason }),
            ) if batch.len() > 1 => {
                tracing::error!(
                    reason,
                    "a batch was refused, its requests are tried one by one"
                );
                for request in batch {
                    Box::pin(self.commit(vec![request])).await;
                }
            }
            Err(fault) => {
                let error = fault.of_write();
                tracing::warn!(%error, requests = batch.len(), "a batch was not written");
                for request in batch {
                    let _ = request.reply.send(Err(error.clone().into()));
                }
            }
        }
    }

    async fn run(&mut self, batch: &[Request<W>]) -> Result<Vec<Answer<W>>, Fault> {
        let mut link = self.connected().await?;
        let limit = self.server.config.answer_limit();
        let running = W::run(&mut link, batch);
        let done = tokio::time::timeout(limit, running).await;
        let done = done.unwrap_or_else(|_| Err(Fault::Lost("the server gave no answer".into())));
        match &done {
            Err(Fault::Lost(reason)) => tracing::warn!(%reason, "the connection to write is lost"),
            Err(Fault::Refused(JournalError::Busy { .. })) => {
                self.free_lock(&link.client).await;
                self.link = Some(link);
            }
            _ => self.link = Some(link),
        }
        done
    }

    /// Takes the connection, or makes a new one.
    async fn connected(&mut self) -> Result<Link<W::Memory>, Fault> {
        if let Some(link) = self.link.take()
            && !link.client.is_closed()
        {
            return Ok(link);
        }
        self.server.may_connect()?;
        match self.connect().await {
            Ok(link) => {
                self.server.connected();
                Ok(link)
            }
            Err(reason) => Err(self.server.not_connected(&reason)),
        }
    }

    async fn connect(&self) -> Result<Link<W::Memory>, String> {
        let client = connect(&self.server.config, None).await?;
        let limit = self.server.config.connect_timeout;
        let sql = self.server.sql(W::SQL);
        let prepared = tokio::time::timeout(limit, client.prepare(&sql)).await;
        let statement = prepared
            .map_err(|_| format!("no answer within {limit:?}"))?
            .map_err(|error| describe(&error))?;
        Ok(Link {
            client,
            statement,
            memory: W::Memory::default(),
        })
    }

    /// Ends a session that holds the lock and waits for its process, which must be paused or cut off:
    /// the server has nothing left to do for it. What it had not committed is rolled back.
    async fn free_lock(&self, client: &Client) {
        let sql = format!(
            "SELECT a.pid, pg_terminate_backend(a.pid)
             FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {LOCK_CLASS}
               AND l.objid = {} AND l.objsubid = 2 AND a.datname = current_database()
               AND a.wait_event_type = 'Client' AND a.pid <> pg_backend_pid()
               AND a.query_start < clock_timestamp() - $1 * interval '1 millisecond'",
            W::lock(&self.server)
        );
        let limit = self.server.config.lock_timeout.as_secs_f64() * 500.0;
        let params: Params<'_> = &[&limit];
        let ending = client.query(&sql, params);
        match tokio::time::timeout(self.server.config.connect_timeout, ending).await {
            Ok(Ok(rows)) => {
                for row in rows {
                    let pid: i32 = row.get(0);
                    tracing::warn!(pid, "a session held the lock of the journal and was ended");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(error = describe(&error), "cannot see who holds the lock");
            }
            Err(_) => tracing::warn!("cannot see who holds the lock: no answer"),
        }
    }
}
