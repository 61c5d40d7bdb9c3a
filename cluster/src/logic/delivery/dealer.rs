//! Dealer: which worker gets a message, and who gets it next when that one is gone. Pure.
//!
//! Each worker has a source of its own, and so a numbering of its own. A message goes to the worker that
//! has the fewest, among those that have granted room; a worker that is gone leaves its messages to
//! the others, ahead of those that nobody has had.

use super::source::{self, BadReport, Source, SourceSettings};
use super::{Chunk, Probe, Report};
use otava_actor::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Settings of a dealer.
#[derive(Clone, Copy, Debug)]
pub struct DealerSettings {
    /// Those of the sources.
    pub source: SourceSettings,
    /// How many messages one worker may have unconfirmed.
    pub per_worker_max: usize,
}

/// A message that is to be handled by any worker.
#[derive(Debug)]
pub struct Job<T> {
    /// Its number among all.
    pub number: u64,
    /// What is delivered.
    pub bytes: Arc<[u8]>,
    /// Whatever belongs to it.
    pub token: T,
}

/// What a dealer wants done. Workers are named by their series.
#[derive(Debug)]
pub enum Output<T> {
    /// Send it to the worker; it may be lost.
    Chunk(u64, Chunk),
    /// A message was handled.
    Confirmed(u64, T),
    /// Send it to the worker; it may be lost.
    Probe(u64, Probe),
}

/// What is to be done, and by whom it is being done.
#[derive(Debug)]
pub struct Dealer<T> {
    settings: DealerSettings,
    waiting: VecDeque<Job<T>>,
    workers: BTreeMap<u64, Worker<T>>,
    /// What workers that are gone had confirmed and nobody has taken yet.
    left: VecDeque<Output<T>>,
    turn: u64,
}

#[derive(Debug)]
struct Worker<T> {
    /// Beside each message its number among all.
    source: Source<(u64, T)>,
    is_reachable: bool,
    /// When it got its last message; of two with as many, the other one is next.
    turn: u64,
}

impl<T> Dealer<T> {
    /// Nothing is to be done, and nobody is there.
    #[must_use]
    pub fn new(settings: DealerSettings) -> Self {
        Self {
            settings,
            waiting: VecDeque::new(),
            workers: BTreeMap::new(),
            left: VecDeque::new(),
            turn: 0,
        }
    }

    /// Something is to be done.
    pub fn push(&mut self, now: Time, job: Job<T>) {
        self.waiting.push_back(job);
        self.deal(now);
    }

    /// A worker has come; `series` is a number that nobody else has.
    pub fn add(&mut self, now: Time, series: u64) {
        let mut source = Source::new(self.settings.source, series, 1, 0);
        source.open(now);
        let worker = Worker {
            source,
            is_reachable: true,
            turn: 0,
        };
        self.workers.insert(series, worker);
    }

    /// A worker is gone: others do what it has not confirmed.
    pub fn remove(&mut self, now: Time, series: u64) {
        let Some(mut worker) = self.workers.remove(&series) else {
            return;
        };
        while let Some(output) = worker.source.poll_output() {
            if let source::Output::Confirmed { token, .. } = output {
                self.left.push_back(Output::Confirmed(token.0, token.1));
            }
        }
        let left = worker.source.into_unconfirmed().map(|message| Job {
            number: message.token.0,
            bytes: message.bytes,
            token: message.token.1,
        });
        let left: Vec<_> = left.collect();
        for job in left.into_iter().rev() {
            let at = self.waiting.partition_point(|w| w.number < job.number);
            self.waiting.insert(at, job);
        }
        self.deal(now);
    }

    /// A worker that cannot be reached keeps what it has, and gets nothing more.
    pub fn set_reachable(&mut self, now: Time, series: u64, is_reachable: bool) {
        if let Some(worker) = self.workers.get_mut(&series) {
            worker.is_reachable = is_reachable;
        }
        self.deal(now);
    }

    /// What a worker says.
    ///
    /// # Errors
    /// [`BadReport`]; it changes nothing.
    pub fn handle(&mut self, now: Time, report: &Report) -> Result<(), BadReport> {
        if let Some(worker) = self.workers.get_mut(&report.session.series) {
            worker.source.handle(now, report)?;
            self.deal(now);
        }
        Ok(())
    }

    /// Asks workers where they are, if it is time to.
    pub fn handle_timeout(&mut self, now: Time) {
        for worker in self.workers.values_mut() {
            worker.source.handle_timeout(now);
        }
    }

    /// When [`Dealer::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let workers = self.workers.values();
        workers.filter_map(|w| w.source.poll_timeout()).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        if let Some(output) = self.left.pop_front() {
            return Some(output);
        }
        for (&series, worker) in &mut self.workers {
            if let Some(output) = worker.source.poll_output() {
                return Some(match output {
                    source::Output::Chunk(chunk) => Output::Chunk(series, chunk),
                    source::Output::Probe(probe) => Output::Probe(series, probe),
                    source::Output::Confirmed { token, .. } => Output::Confirmed(token.0, token.1),
                });
            }
        }
        None
    }

    /// How many wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many the worker has.
    #[must_use]
    pub fn at_work(&self, series: u64) -> usize {
        self.workers.get(&series).map_or(0, |w| w.source.len())
    }

    fn deal(&mut self, now: Time) {
        while !self.waiting.is_empty() {
            let most = self.settings.per_worker_max.max(1);
            let free = self.workers.values_mut().filter(|worker| {
                let source = &worker.source;
                worker.is_reachable && source.len() < most && source.has_demand()
            });
            let Some(worker) = free.min_by_key(|w| (w.source.len(), w.turn)) else {
                return;
            };
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            self.turn += 1;
            worker.turn = self.turn;
            worker.source.push(now, job.bytes, (job.number, job.token));
        }
    }
}

#[cfg(test)]
mod tests;
