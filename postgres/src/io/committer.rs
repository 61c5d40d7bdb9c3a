//! Committer: the one task of a journal that writes events, or states; gathers requests and writes
//! them by one statement, which is one transaction.
//!
//! The statement calls a function of the schema that checks all fences and numbers behind a lock, and
//! writes what may be written. So the checks and the write are one transaction on the server, which
//! waits for no further word of this process: one that is paused or killed holds nothing.
//!
//! Two statements may be under way, so that the server need not wait for this process (`logic/pace.rs`).
//! They go over one connection, whose server process carries them out one after the other. Each is a
//! transaction of its own, and none has a request of an id that the other one has: so it does not matter
//! to the second whether the first one is refused, lost, or tried again behind it.

use crate::io::connect::connect;
use crate::io::fault::{Fault, describe};
use crate::io::replies::{self, Reply};
use crate::io::server::Server;
use crate::logic::batch::{Waiting, Write};
use crate::logic::migrations::LOCK_CLASS;
use crate::logic::pace::Pace;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use otava_persistence::{AppendError, JournalError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_postgres::{Client, Statement};

/// Something that can be written in batches.
pub(crate) trait Work: Write + Send + Sync + Sized + 'static {
    /// The answer.
    type Done: Send + 'static;

    /// What is remembered from statement to statement, for as long as the connection lives.
    type Memory: Default + Send + 'static;

    /// What the memory says to the requests of one batch; by default it knows nothing.
    type Known: Default + Send + 'static;

    /// The statements, with `@` for the schema.
    const SQL: &'static [&'static str];

    /// What the lock is of that the statements take.
    fn lock(server: &Server) -> u32;

    /// Looks up what is known of the batch.
    fn look_up(memory: &Self::Memory, batch: &[Request<Self>]) -> Self::Known;

    /// Runs the statement, and reads the answer to each request.
    fn run<'a>(
        session: &'a Session,
        batch: &'a [Request<Self>],
        known: Self::Known,
    ) -> BoxFuture<'a, Result<Vec<Answer<Self>>, Fault>>;

    /// Remembers what was done over the connection that still is the one to write.
    fn note(memory: &mut Self::Memory, batch: &[Request<Self>], answers: &[Answer<Self>]);

    /// Tells readers what was done.
    fn committed(server: &Server, answers: &[Answer<Self>]);
}

/// A connection with its prepared statements.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) statements: Vec<Statement>,
}

/// The connection to write, and what is remembered while it lives.
struct Link<M> {
    session: Arc<Session>,
    memory: M,
}

/// What is asked for, and who waits for it.
pub(crate) struct Request<W: Work> {
    pub(crate) work: W,
    reply: Reply<Answer<W>>,
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
            pace: Pace::default(),
            under_way: FuturesUnordered::new(),
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
        let (reply, answer) = replies::channel();
        let sent = sender.send(Request { work, reply }).await;
        drop(sender);
        sent.map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or_else(|| {
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

struct Committer<W: Work> {
    server: Arc<Server>,
    requests: mpsc::Receiver<Request<W>>,
    waiting: Waiting<Request<W>>,
    pace: Pace,
    under_way: FuturesUnordered<BoxFuture<'static, Sent<W>>>,
    link: Option<Link<W::Memory>>,
}

/// A batch that has its answers.
struct Sent<W: Work> {
    batch: Vec<Request<W>>,
    answers: Vec<Answer<W>>,
    /// Over which connection; none if there was none to be had.
    session: Option<Arc<Session>>,
    /// What became of it if there was a fault.
    fault: Option<Fault>,
    took: Duration,
}

impl<W: Work> Committer<W> {
    /// Runs until every sender of requests is gone and everything is answered.
    async fn serve(mut self) {
        let mut open = true;
        while open || self.waiting.len() > 0 || !self.under_way.is_empty() {
            self.take_what_is_there();
            if self.may_send() {
                if self.under_way.is_empty() {
                    self.let_gather().await;
                }
                self.send().await;
            }
            let has_room = self.waiting.len() < REQUESTS_MAX;
            tokio::select! {
                biased;
                Some(sent) = self.under_way.next() => self.answer(sent).await,
                came = self.requests.recv(), if open && has_room => match came {
                    Some(request) => self.waiting.push(request),
                    None => open = false,
                },
                else => {}
            }
        }
    }

    fn take_what_is_there(&mut self) {
        while self.waiting.len() < REQUESTS_MAX
            && let Ok(request) = self.requests.try_recv()
        {
            self.waiting.push(request);
        }
    }

    /// Whether to send a statement now. None follows one over a connection that has failed, until all
    /// are answered that went that way.
    fn may_send(&self) -> bool {
        let under_way = self.under_way.len();
        let link = self.link.as_ref();
        let sound = link.is_some_and(|link| !link.session.client.is_closed());
        (sound || under_way == 0) && self.pace.may_send(self.waiting.free(), under_way)
    }

    async fn let_gather(&mut self) {
        let begin = Instant::now();
        let there = || self.requests.len() + self.waiting.len();
        let mut gathering = self.pace.gathering(there());
        while gathering.goes_on(there(), begin.elapsed()) {
            tokio::task::yield_now().await;
        }
        self.take_what_is_there();
    }

    /// Sends a statement with what waits.
    async fn send(&mut self) {
        let mut limits = self.server.config.batch;
        if self.pace.share() > 0 {
            limits.requests = limits.requests.min(self.pace.share());
        }
        let batch = self.waiting.take(limits);
        if batch.is_empty() {
            return;
        }
        let begin = Instant::now();
        // It may have to wait for the one before it.
        let turns = u32::try_from(self.under_way.len() + 1).unwrap_or(u32::MAX);
        let limit = self.server.config.answer_limit().saturating_mul(turns);
        let link = self.connected().await;
        let link = link.map(|link| {
            let known = W::look_up(&link.memory, &batch);
            (Arc::clone(&link.session), known)
        });
        self.under_way.push(Box::pin(async move {
            let (session, (answers, fault)) = match link {
                Ok((session, known)) => {
                    let done = write(&session, &batch, known, limit).await;
                    (Some(session), done)
                }
                Err(fault) => (None, (refuse(&batch, &fault), Some(fault))),
            };
            Sent {
                batch,
                answers,
                session,
                fault,
                took: begin.elapsed(),
            }
        }));
    }

    /// Answers a batch, and sees to the connection.
    async fn answer(&mut self, sent: Sent<W>) {
        let current = |link: &&mut Link<W::Memory>| {
            let session = sent.session.as_ref();
            session.is_some_and(|session| Arc::ptr_eq(session, &link.session))
        };
        match (&sent.fault, self.link.as_mut().filter(current)) {
            (Some(Fault::Lost(reason)), Some(_)) => {
                tracing::warn!(%reason, "the connection to write is lost");
                self.link = None;
            }
            (Some(Fault::Refused(JournalError::Busy { .. })), _) => {
                free_lock(&self.server, W::lock(&self.server)).await
            }
            (None, Some(link)) => W::note(&mut link.memory, &sent.batch, &sent.answers),
            _ => {}
        }
        W::committed(&self.server, &sent.answers);
        self.waiting.answered(&sent.batch);
        let answered = sent.batch.len();
        // The works are dropped last: nobody waits for that.
        let split = sent
            .batch
            .into_iter()
            .map(|request| (request.work, request.reply));
        let (works, replies): (Vec<_>, Vec<_>) = split.unzip();
        replies::answer_all(replies.into_iter().zip(sent.answers));
        drop(works);
        let others = self.waiting.under_way() + self.requests.len() + self.waiting.len();
        self.pace.answered(sent.took, answered + others);
    }

    /// The connection, made anew if there is none.
    async fn connected(&mut self) -> Result<&Link<W::Memory>, Fault> {
        self.link = self
            .link
            .take()
            .filter(|link| !link.session.client.is_closed());
        if self.link.is_none() {
            self.server.may_connect()?;
            let made = link::<W>(&self.server).await;
            self.link = Some(made.map_err(|reason| self.server.not_connected(&reason))?);
            self.server.connected();
        }
        Ok(self.link.as_ref().expect("there is one now"))
    }
}

/// Writes a batch over a connection. If the server refuses the whole of it for what it cannot store,
/// each request is tried alone.
async fn write<W: Work>(
    session: &Session,
    batch: &[Request<W>],
    known: W::Known,
    limit: Duration,
) -> (Vec<Answer<W>>, Option<Fault>) {
    match ask(session, batch, known, limit).await {
        Ok(answers) => (answers, None),
        Err(
            Fault::Duplicate(JournalError::Refused { reason })
            | Fault::Refused(JournalError::Refused { reason }),
        ) if batch.len() > 1 => {
            tracing::error!(
                reason,
                "a batch was refused, its requests are tried one by one"
            );
            let (mut answers, mut fault) = (Vec::with_capacity(batch.len()), None);
            for alone in batch.chunks(1) {
                if let Some(Fault::Lost(reason)) = &fault {
                    let unasked = Fault::Unreachable(Arc::clone(reason));
                    answers.append(&mut refuse(alone, &unasked));
                    continue;
                }
                match ask(session, alone, W::Known::default(), limit).await {
                    Ok(mut answer) => answers.append(&mut answer),
                    Err(its) => {
                        answers.append(&mut refuse(alone, &its));
                        fault = Some(its);
                    }
                }
            }
            (answers, fault)
        }
        Err(fault) => (refuse(batch, &fault), Some(fault)),
    }
}

/// Runs one statement, for as long as it may take.
async fn ask<W: Work>(
    session: &Session,
    batch: &[Request<W>],
    known: W::Known,
    limit: Duration,
) -> Result<Vec<Answer<W>>, Fault> {
    let running = W::run(session, batch, known);
    let done = tokio::time::timeout(limit, running).await;
    done.unwrap_or_else(|_| Err(Fault::Lost("the server gave no answer".into())))
}

/// The answers to a batch that was not written, or of which nobody knows.
fn refuse<W: Work>(batch: &[Request<W>], fault: &Fault) -> Vec<Answer<W>> {
    let error = fault.clone().of_write();
    tracing::warn!(%error, requests = batch.len(), "a batch was not written");
    batch.iter().map(|_| Err(error.clone().into())).collect()
}

async fn link<W: Work>(server: &Server) -> Result<Link<W::Memory>, String> {
    let client = connect(&server.config, None).await?;
    let limit = server.config.connect_timeout;
    let preparing = async {
        client.batch_execute(KEEP_MEMORY).await?;
        let mut statements = Vec::with_capacity(W::SQL.len());
        for text in W::SQL {
            statements.push(client.prepare(&server.sql(text)).await?);
        }
        Ok(statements)
    };
    let prepared = tokio::time::timeout(limit, preparing).await;
    let statements = prepared
        .map_err(|_| format!("no answer within {limit:?}"))?
        .map_err(|error: tokio_postgres::Error| describe(&error))?;
    Ok(Link {
        session: Arc::new(Session { client, statements }),
        memory: W::Memory::default(),
    })
}

/// Has the server's process get and give back a large piece of memory, once. The C library of Linux (glibc) gives
/// memory above 128 KiB back to the system whenever it is free, and gets it again: a batch needs a little
/// more, which were seven calls a statement. What was given back in one piece raises that limit to twice as
/// much, for the life of the process.
const KEEP_MEMORY: &str = "SELECT octet_length(repeat('x', 4194304))";

/// Ends a session that holds the lock and waits for its process, which must be paused or cut off:
/// the server has nothing left to do for it. What it had not committed is rolled back.
async fn free_lock(server: &Server, lock: u32) {
    let sql = format!(
        "SELECT a.pid, pg_terminate_backend(a.pid)
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {LOCK_CLASS}
           AND l.objid = {} AND l.objsubid = 2 AND a.datname = current_database()
           AND a.wait_event_type = 'Client' AND a.pid <> pg_backend_pid()
           AND a.query_start < clock_timestamp() - $1 * interval '1 millisecond'",
        lock
    );
    let limit = server.config.lock_timeout.as_secs_f64() * 500.0;
    // Not over the connection to write, where the next statement may wait for the lock by now.
    match server.rows(&sql, &[&limit]).await {
        Ok(rows) => {
            for row in rows {
                let pid: i32 = row.get(0);
                tracing::warn!(pid, "a session held the lock of the journal and was ended");
            }
        }
        Err(fault) => {
            let error = fault.of_read();
            tracing::warn!(%error, "cannot see who holds the lock");
        }
    }
}
