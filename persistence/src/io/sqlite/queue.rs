//! Queue: what waits for the committer, and when a batch is whole.
//!
//! Nobody waits for a batch to fill. The committer applies what is there, then what has come meanwhile,
//! while the writers go on on other cores, and commits when nothing is left. To wait besides for as many
//! as the last commit answered was slower for 64 writers on a disk, and now faster, now slower on tmpfs.

use crate::io::sqlite::SqliteConfig;
use crate::io::sqlite::committer::Request;
use std::time::Duration;
use tokio::sync::mpsc;

/// The requests of one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) requests: Vec<Request>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, request: Request) {
        self.bytes += request.job.bytes();
        self.requests.push(request);
    }

    /// Takes out one that spoils the others.
    pub(super) fn remove(&mut self, index: usize) -> Request {
        let request = self.requests.remove(index);
        self.bytes -= request.job.bytes();
        request
    }

    /// Takes out all that is answered now.
    pub(super) fn drain(&mut self) -> std::vec::Drain<'_, Request> {
        self.bytes = 0;
        self.requests.drain(..)
    }
}

pub(super) struct Queue {
    requests: mpsc::Receiver<Request>,
    requests_max: usize,
    bytes_max: usize,
}

/// Between two steps of a sweep when there is nothing else to do.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

impl Queue {
    pub(super) fn new(requests: mpsc::Receiver<Request>, config: &SqliteConfig) -> Self {
        Self {
            requests,
            requests_max: config.batch_requests_max.get(),
            bytes_max: config.batch_bytes_max,
        }
    }

    /// The next request, or nothing while there is other work; `None` at the end.
    #[allow(clippy::option_option, reason = "work, other work, the end")]
    pub(super) fn next(&mut self, other_work: bool) -> Option<Option<Request>> {
        if !other_work {
            return self.requests.blocking_recv().map(Some);
        }
        match self.requests.try_recv() {
            Ok(request) => Some(Some(request)),
            Err(mpsc::error::TryRecvError::Empty) => {
                // Other processes want the write lock, too.
                std::thread::sleep(SWEEP_PAUSE);
                Some(self.requests.try_recv().ok())
            }
            Err(mpsc::error::TryRecvError::Disconnected) => None,
        }
    }

    /// Adds what is there, within the limits of a batch. Whether anything was added.
    pub(super) fn take(&mut self, batch: &mut Batch) -> bool {
        let before = batch.requests.len();
        while batch.requests.len() < self.requests_max
            && batch.bytes < self.bytes_max
            && let Ok(request) = self.requests.try_recv()
        {
            batch.push(request);
        }
        batch.requests.len() > before
    }
}
