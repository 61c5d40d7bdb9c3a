//! Committer: the one thread of a process that writes; gathers requests, commits them together.

use crate::error::{AppendError, JournalError};
use crate::format::Checksums;
use crate::io::sqlite::checkpoint::KeeperHandle;
use crate::io::sqlite::halt::Halt;
use crate::io::sqlite::known::Known;
use crate::io::sqlite::marks::Mark;
use crate::io::sqlite::places::Places;
use crate::io::sqlite::queue::{Batch, Queue};
use crate::io::sqlite::sweep::Budget;
use crate::io::sqlite::transaction::{Done, Fault, Job, Transaction};
use crate::io::sqlite::turns::Turns;
use crate::io::sqlite::watch::WatchHandle;
use crate::io::sqlite::{MarkSync, Severity, SqliteConfig, schema, severity};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

/// A job, and who waits for it.
pub(super) struct Request {
    pub(super) job: Job,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// The answer to a job. Jobs that append nothing use only some of the errors.
pub(super) type Outcome = Result<Done, AppendError>;

/// What the thread owns.
pub(super) struct Committer {
    pub(super) db: Connection,
    pub(super) config: SqliteConfig,
    pub(super) halt: Arc<Halt>,
    pub(super) mark: Mark,
    pub(super) queue: Queue,
    /// Tells the keeper that there was a commit.
    pub(super) keeper: KeeperHandle,
    pub(super) turns: Arc<Turns>,
    /// Tells who waits for events.
    pub(super) watching: WatchHandle,
    /// Whether a delete has left rows to be swept.
    pub(super) left_rows: bool,
    /// The threads whose connections must be closed before this one's.
    pub(super) others: Vec<JoinHandle<()>>,
}

/// Why nothing of a batch was done, or nobody knows.
enum Failure {
    Busy,
    Full,
    Halted(Arc<str>),
}

impl Committer {
    /// Runs until every sender of requests is gone. Then the log is folded into the main file, if
    /// the file can be trusted and no other process has it open.
    pub(super) fn run(mut self) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.serve()));
        if ran.is_err() {
            self.halt.halt("the committer panicked");
        }
        // Whoever still waits for an answer learns that there is none.
        drop(self.queue);
        drop(self.keeper);
        drop(self.watching);
        for thread in self.others {
            drop(thread.join());
        }
        if self.halt.check().is_none() {
            let fold = self
                .db
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
            tracing::debug!(?fold, "the journal closes");
        }
    }

    fn serve(&mut self) {
        let (mut batch, mut known) = (Batch::default(), Known::default());
        // What a process that was killed has left.
        let mut sweeping = true;
        while let Some(first) = self.queue.next(sweeping) {
            if let Some(first) = first {
                batch.push(first);
            }
            let (reply, mut swept) = oneshot::channel();
            if sweeping {
                let job = Job::Sweep;
                batch.push(Request { job, reply });
            }
            self.commit(&mut batch, &mut known);
            sweeping = match swept.try_recv() {
                Ok(Ok(Done::Deleted { left })) => left,
                // What failed is tried again after the next delete, or when the journal is opened.
                _ => false,
            };
            sweeping |= std::mem::take(&mut self.left_rows);
        }
    }

    /// Commits what is in `batch` and what waits behind it, and answers all of it.
    fn commit(&mut self, batch: &mut Batch, known: &mut Known) {
        let begin = Instant::now();
        let outcomes = match self.halt.known() {
            Some(reason) => Err(Failure::Halted(reason)),
            None => {
                let turns = Arc::clone(&self.turns);
                let _turn = turns.commit();
                self.transact(batch, known)
            }
        };
        match outcomes {
            Ok(outcomes) => {
                for (request, outcome) in batch.drain().zip(outcomes) {
                    self.left_rows |= matches!(outcome, Ok(Done::Deleted { left: true }));
                    drop(request.reply.send(outcome));
                }
                self.keeper.wake();
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Busy => JournalError::Busy {
                        waited: begin.elapsed(),
                    },
                    Failure::Full => JournalError::Full,
                    Failure::Halted(reason) => JournalError::Halted { reason },
                };
                for request in batch.drain() {
                    drop(request.reply.send(Err(error.clone().into())));
                }
            }
        }
    }

    /// One transaction, and a second one without the culprit if the database refused a job.
    fn transact(&mut self, batch: &mut Batch, known: &mut Known) -> Result<Vec<Outcome>, Failure> {
        loop {
            let begun = self.begin();
            // What came while the lock was waited for shares the fate of the batch.
            self.queue.take(batch);
            begun?;
            let mut outcomes = Vec::with_capacity(batch.requests.len());
            match self.apply(batch, known, &mut outcomes) {
                Ok(()) => return Ok(outcomes),
                Err(fault) => {
                    known.rolled_back();
                    // Halts, if it must, while the write lock is held: no other process gets past.
                    let verdict = self.after_fault(fault, batch, outcomes.len());
                    self.roll_back()?;
                    verdict?;
                }
            }
        }
    }

    fn begin(&self) -> Result<(), Failure> {
        let begun = self.execute("BEGIN IMMEDIATE");
        begun.map_err(|error| match severity(&error) {
            Severity::Busy => Failure::Busy,
            _ => self.fatal("cannot begin a transaction", &error),
        })
    }

    /// Applies all jobs and those that come meanwhile, commits, and marks the commit.
    fn apply(
        &mut self,
        batch: &mut Batch,
        known: &mut Known,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Fault> {
        let head = schema::head(&self.db)?;
        known.begin(head);
        let now_ms = crate::io::wall_clock_ms();
        let mut transaction = Transaction {
            db: &self.db,
            known,
            head,
            now_ms,
            dirty: false,
            budget: Budget::default(),
            insert: None,
            places: Places::begin(&self.db, self.config.new_places_max)?,
            sums: Checksums::default(),
        };
        loop {
            for request in &batch.requests[outcomes.len()..] {
                outcomes.push(match transaction.apply(&request.job) {
                    Ok(done) => Ok(done),
                    Err(Fault::Refused(error)) => Err(error),
                    Err(fault) => return Err(fault),
                });
            }
            if !self.queue.take(batch) {
                break;
            }
        }
        if !transaction.dirty {
            // What was decided rests on durable commits, for a commit is visible when it is durable.
            self.execute("ROLLBACK")?;
            return Ok(());
        }
        transaction.write_head()?;
        let head = transaction.head;
        drop(transaction);
        self.look_for_marker()?;
        self.execute("COMMIT")?;
        known.committed(head);
        self.look_for_marker()?;
        self.mark.note(head).map_err(|error| mark_fault(&error))?;
        if self.config.mark_sync == MarkSync::EveryCommit {
            self.mark
                .sync_file()
                .sync()
                .map_err(|error| mark_fault(&error))?;
        }
        self.watching.committed(head.position);
        Ok(())
    }

    fn look_for_marker(&self) -> Result<(), Fault> {
        self.halt
            .check()
            .map_or(Ok(()), |reason| Err(Fault::Untrusted(reason.to_string())))
    }

    fn roll_back(&self) -> Result<(), Failure> {
        if self.db.is_autocommit() {
            return Ok(());
        }
        self.execute("ROLLBACK")
            .map_err(|error| self.fatal("cannot roll back", &error))
    }

    /// Decides what follows a transaction that failed, perhaps with an unknown outcome. `culprit`
    /// is the job that was under way; behind the last job, it is the commit.
    fn after_fault(&self, fault: Fault, batch: &mut Batch, culprit: usize) -> Result<(), Failure> {
        if fault.is_constraint() && culprit < batch.requests.len() {
            let request = batch.remove(culprit);
            let reason = fault.to_string();
            tracing::error!(
                reason,
                "a request broke a constraint: is the index damaged?"
            );
            drop(
                request
                    .reply
                    .send(Err(JournalError::Refused { reason }.into())),
            );
            return Ok(());
        }
        match fault {
            Fault::Sqlite(error) if matches!(severity(&error), Severity::Busy) => {
                Err(Failure::Busy)
            }
            // The frames of the commit are not whole: no reader, now or later, takes them for one.
            Fault::Sqlite(error) if matches!(severity(&error), Severity::Full) => {
                tracing::warn!(%error, "no room is left on the disk");
                Err(Failure::Full)
            }
            Fault::Sqlite(error) => Err(self.fatal("a transaction failed", &error)),
            Fault::Untrusted(reason) => Err(Failure::Halted(self.halt.halt(&reason))),
            Fault::Refused(error) => Err(Failure::Halted(self.halt.halt(&error.to_string()))),
        }
    }

    fn fatal(&self, what: &str, error: &rusqlite::Error) -> Failure {
        Failure::Halted(self.halt.halt(&format!("{what}: {error}")))
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.db.prepare_cached(statement)?.execute([]).map(drop)
    }
}

fn mark_fault(error: &std::io::Error) -> Fault {
    Fault::Untrusted(format!("cannot note what is acknowledged: {error}"))
}
