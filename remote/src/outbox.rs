//! Outbox: the frames that wait on one lane, bounded by bytes, taken in batches.
//!
//! Senders append whole encoded frames; the writer of the lane takes everything that is there in one
//! piece. So a batch is as large as the peer is slow, and there is one write for it.
//!
//! **Invariant:** frames leave in the order in which they came, and a frame leaves whole or not at
//! all. Whoever takes frames out settles what they carry: sent, or given up.

use crate::wire_format::ExportId;
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// There is something to take.
    filled: Notify,
    /// There is room again.
    room: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    frames: Vec<Queued>,
    closed: bool,
}

/// What is known of a frame that waits.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Its length in bytes.
    pub(crate) len: usize,
    /// The only run of the peer that it may go to; `None` for any.
    pub(crate) incarnation: Option<u64>,
    /// The reply ports in it.
    pub(crate) ports: Vec<ExportId>,
    /// The Rust type of the message; `None` for frames that are no user's message.
    pub(crate) message_type: Option<&'static str>,
}

/// Frames in one piece, and what they are.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) frames: Vec<Queued>,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotQueued {
    Closed,
    Full,
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            room: Notify::new(),
            bytes_max,
        }
    }

    /// Queues one frame.
    pub(crate) fn push(&self, frame: &[u8], about: Queued) -> Result<(), (NotQueued, Queued)> {
        debug_assert_eq!(frame.len(), about.len);
        let mut queue = self.lock();
        if queue.closed {
            return Err((NotQueued::Closed, about));
        }
        if !queue.bytes.is_empty() && queue.bytes.len() + frame.len() > self.bytes_max {
            return Err((NotQueued::Full, about));
        }
        queue.bytes.extend_from_slice(frame);
        queue.frames.push(about);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until something left the queue since this was called. Call it before trying again.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// The next batch; waits for one. `None` once it is closed and empty.
    ///
    /// Cancel safe: what was not returned stays.
    pub(crate) async fn take(&self) -> Option<Batch> {
        loop {
            let filled = self.filled.notified();
            {
                let mut queue = self.lock();
                if let Some(batch) = queue.take_batch() {
                    drop(queue);
                    self.room.notify_waiters();
                    return Some(batch);
                }
                if queue.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Takes everything out at once.
    pub(crate) fn clear(&self) -> Vec<Queued> {
        let mut queue = self.lock();
        queue.bytes = Vec::new();
        let frames = std::mem::take(&mut queue.frames);
        drop(queue);
        self.room.notify_waiters();
        frames
    }

    /// Accepts nothing any more; what is there can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take_batch(&mut self) -> Option<Batch> {
        if self.frames.is_empty() {
            return None;
        }
        Some(Batch {
            bytes: Bytes::from(std::mem::take(&mut self.bytes)),
            frames: std::mem::take(&mut self.frames),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(len: usize) -> Queued {
        Queued {
            len,
            incarnation: None,
            ports: Vec::new(),
            message_type: None,
        }
    }

    #[tokio::test]
    async fn what_waits_leaves_in_one_piece_and_in_order() {
        let outbox = Outbox::new(100);
        outbox.push(b"ab", about(2)).unwrap();
        outbox.push(b"cde", about(3)).unwrap();
        let batch = outbox.take().await.unwrap();
        assert_eq!((&*batch.bytes, batch.frames.len()), (&b"abcde"[..], 2));
        outbox.push(b"f", about(1)).unwrap();
        outbox.close();
        assert_eq!(&*outbox.take().await.unwrap().bytes, b"f");
        assert!(outbox.take().await.is_none());
        let (why, _) = outbox.push(b"g", about(1)).unwrap_err();
        assert_eq!(why, NotQueued::Closed);
    }

    #[tokio::test]
    async fn the_bound_is_in_bytes_and_a_single_frame_always_fits() {
        let outbox = Outbox::new(10);
        outbox.push(&[0; 12], about(12)).unwrap();
        let (why, _) = outbox.push(&[0; 1], about(1)).unwrap_err();
        assert_eq!(why, NotQueued::Full);
        assert_eq!(outbox.take().await.unwrap().bytes.len(), 12);
        outbox.push(&[0; 1], about(1)).unwrap();
    }
}
