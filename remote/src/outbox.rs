//! Outbox: the frames that wait on one lane, bounded by bytes, taken in batches.
//!
//! Senders append whole encoded frames to pieces of some 64 KiB; the writer of the lane takes them
//! piece by piece. So a write is as large as the peer is slow, up to a piece, and room comes back
//! with every write. What is known of a frame is kept once for all neighbours that share it: a
//! stream of small messages costs its bytes and hardly more.
//!
//! **Invariant:** frames leave in the order in which they came, and a frame leaves whole or not at
//! all. Whoever takes frames out settles what they carry: sent, or given up.

use crate::wire_format::ExportId;
use bytes::Bytes;
use otava_actor::Time;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes of a piece. A larger frame is a piece of its own.
const PIECE_BYTES: usize = 64 << 10;
/// How long a lane is left alone before it rests: about what a write takes to leave.
const REST: Duration = Duration::from_micros(20);
/// The least room that is made for a piece.
const PIECE_ROOM_MIN: usize = 256;

pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// There is something to take, where there was nothing.
    filled: Notify,
    /// There is room again.
    room: Notify,
    bytes_max: usize,
    /// When [`Self::rests`] was asked last.
    asked: AtomicU64,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// In all pieces.
    bytes: usize,
    /// The length of the piece that was taken last: the next one may well be as long.
    last_taken: usize,
    closed: bool,
    /// What waits is for another connection.
    held: bool,
}

#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    alike: Vec<Alike>,
    ports: Vec<ExportId>,
}

/// What decides about a frame that waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct About {
    /// The only run of the peer that it may go to; `None` for any.
    pub(crate) incarnation: Option<u64>,
    /// The Rust type of the message; `None` for frames that are no user's message.
    pub(crate) message_type: Option<&'static str>,
}

/// Frames behind each other of which the same is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Alike {
    pub(crate) about: About,
    pub(crate) frames: usize,
    /// Their length together.
    pub(crate) bytes: usize,
    /// How many reply ports are in them.
    pub(crate) ports: usize,
}

/// Frames in one piece, and what they are.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    /// In the order of the frames.
    pub(crate) alike: Vec<Alike>,
    /// The reply ports in the frames, in the same order.
    pub(crate) ports: Vec<ExportId>,
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
            asked: AtomicU64::new(0),
        }
    }

    /// Queues one frame, in which these ports are. A large one is taken out of `frame`, any other is
    /// copied.
    pub(crate) fn push(
        &self,
        frame: &mut Vec<u8>,
        about: About,
        ports: &[ExportId],
    ) -> Result<(), NotQueued> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(NotQueued::Closed);
        }
        let first = queue.pieces.is_empty();
        if !first && queue.bytes + frame.len() > self.bytes_max {
            return Err(NotQueued::Full);
        }
        queue.push(frame, about, ports);
        drop(queue);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until something left the queue since this was called. Call it before trying again.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    /// Whether this was not asked for a while, by those who send what is waited for: the last of it has
    /// left, and what follows has time to leave before the next.
    pub(crate) fn rests(&self, now: Time) -> bool {
        let before = self.asked.swap(now.as_nanos(), Ordering::Relaxed);
        now.saturating_since(Time::from_nanos(before)) >= REST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().pieces.is_empty()
    }

    /// The next batch; waits for one. `None` once it is held, or closed and empty.
    ///
    /// Cancel safe: what was not returned stays.
    pub(crate) async fn take(&self) -> Option<Batch> {
        loop {
            let filled = self.filled.notified();
            {
                let mut queue = self.lock();
                if queue.held {
                    return None;
                }
                if let Some(batch) = queue.take() {
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

    /// Waits until there is something to take; `false` if it is held, or there never will be.
    pub(crate) async fn filled(&self) -> bool {
        loop {
            let filled = self.filled.notified();
            {
                let queue = self.lock();
                if queue.held {
                    return false;
                }
                if !queue.pieces.is_empty() || queue.closed {
                    return !queue.pieces.is_empty();
                }
            }
            filled.await;
        }
    }

    /// Takes everything out at once.
    pub(crate) fn clear(&self) -> Vec<Batch> {
        let mut queue = self.lock();
        let batches = std::iter::from_fn(|| queue.take()).collect();
        drop(queue);
        self.room.notify_waiters();
        batches
    }

    /// Keeps what is there and what still comes for the next connection: nothing is taken until
    /// [`Self::release`].
    pub(crate) fn hold(&self) {
        self.lock().held = true;
        self.filled.notify_one();
    }

    /// A connection is there again.
    pub(crate) fn release(&self) {
        self.lock().held = false;
        self.filled.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
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
    fn push(&mut self, frame: &mut Vec<u8>, about: About, ports: &[ExportId]) {
        self.bytes += frame.len();
        if frame.len() > PIECE_BYTES {
            let alike = vec![Alike::one(frame, about, ports)];
            return self.pieces.push_back(Piece {
                bytes: std::mem::take(frame),
                alike,
                ports: ports.to_vec(),
            });
        }
        match self.pieces.back_mut() {
            Some(last) if last.bytes.len() + frame.len() <= PIECE_BYTES => {
                last.push(frame, about, ports);
            }
            last => {
                // Behind a full piece there will be another one.
                let expected = if last.is_some() {
                    PIECE_BYTES
                } else {
                    self.last_taken.max(PIECE_ROOM_MIN)
                };
                let mut piece = Piece {
                    bytes: Vec::with_capacity(expected.max(frame.len())),
                    ..Piece::default()
                };
                piece.push(frame, about, ports);
                self.pieces.push_back(piece);
            }
        }
    }

    fn take(&mut self) -> Option<Batch> {
        let Piece {
            bytes,
            alike,
            ports,
        } = self.pieces.pop_front()?;
        self.bytes -= bytes.len();
        self.last_taken = bytes.len().min(PIECE_BYTES);
        Some(Batch {
            bytes: Bytes::from(bytes),
            alike,
            ports,
        })
    }
}

impl Piece {
    fn push(&mut self, frame: &[u8], about: About, ports: &[ExportId]) {
        self.bytes.extend_from_slice(frame);
        self.ports.extend_from_slice(ports);
        match self.alike.last_mut() {
            Some(last) if last.about == about => {
                last.frames += 1;
                last.bytes += frame.len();
                last.ports += ports.len();
            }
            _ => self.alike.push(Alike::one(frame, about, ports)),
        }
    }
}

impl Alike {
    fn one(frame: &[u8], about: About, ports: &[ExportId]) -> Self {
        Self {
            about,
            frames: 1,
            bytes: frame.len(),
            ports: ports.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About = About {
        incarnation: None,
        message_type: None,
    };

    #[tokio::test]
    async fn what_waits_leaves_in_one_piece_and_in_order() {
        let outbox = Outbox::new(100);
        outbox.push(&mut b"ab".to_vec(), ABOUT, &[]).unwrap();
        outbox.push(&mut b"cde".to_vec(), ABOUT, &[]).unwrap();
        let batch = outbox.take().await.unwrap();
        assert_eq!((&*batch.bytes, batch.alike[0].frames), (&b"abcde"[..], 2));
        outbox.push(&mut b"f".to_vec(), ABOUT, &[]).unwrap();
        outbox.close();
        assert_eq!(&*outbox.take().await.unwrap().bytes, b"f");
        assert!(outbox.take().await.is_none());
        assert_eq!(
            outbox.push(&mut b"g".to_vec(), ABOUT, &[]),
            Err(NotQueued::Closed)
        );
    }

    #[tokio::test]
    async fn the_bound_is_in_bytes_and_a_single_frame_always_fits() {
        let outbox = Outbox::new(10);
        outbox.push(&mut vec![0; 12], ABOUT, &[]).unwrap();
        assert_eq!(
            outbox.push(&mut vec![0; 1], ABOUT, &[]),
            Err(NotQueued::Full)
        );
        assert_eq!(outbox.take().await.unwrap().bytes.len(), 12);
        outbox.push(&mut vec![0; 1], ABOUT, &[]).unwrap();
    }

    #[test]
    fn a_lane_rests_once_nobody_has_asked_for_a_while() {
        let outbox = Outbox::new(10);
        let rests_at = |micros: u64| outbox.rests(Time::from_nanos(micros * 1_000));
        assert!(rests_at(100));
        assert!(!rests_at(110));
        // Not since it rested last, but since it was asked last.
        assert!(!rests_at(125));
        assert!(rests_at(145));
    }

    #[tokio::test]
    async fn what_is_held_waits_for_the_next_connection() {
        let outbox = Outbox::new(100);
        outbox.push(&mut b"a".to_vec(), ABOUT, &[]).unwrap();
        outbox.hold();
        outbox.push(&mut b"b".to_vec(), ABOUT, &[]).unwrap();
        assert!(outbox.take().await.is_none() && !outbox.filled().await);
        assert!(!outbox.is_empty() && !outbox.is_closed());
        outbox.release();
        assert_eq!(&*outbox.take().await.unwrap().bytes, b"ab");
    }

    #[tokio::test]
    async fn frames_are_told_apart_where_something_else_is_known_of_them() {
        let outbox = Outbox::new(1_000);
        let other = About {
            incarnation: Some(7),
            ..ABOUT
        };
        outbox
            .push(&mut b"a".to_vec(), ABOUT, &[ExportId(1)])
            .unwrap();
        outbox.push(&mut b"bb".to_vec(), other, &[]).unwrap();
        outbox
            .push(&mut b"c".to_vec(), other, &[ExportId(2), ExportId(3)])
            .unwrap();
        let batch = outbox.take().await.unwrap();
        let [first, second] = batch.alike[..] else {
            panic!("{:?}", batch.alike)
        };
        assert_eq!((first.frames, first.bytes, first.ports), (1, 1, 1));
        assert_eq!((second.frames, second.bytes, second.ports), (2, 3, 2));
        assert_eq!(batch.ports, [ExportId(1), ExportId(2), ExportId(3)]);
    }

    #[tokio::test]
    async fn pieces_are_bounded_and_a_large_frame_is_one() {
        let outbox = Outbox::new(1 << 20);
        for _ in 0..3 {
            outbox.push(&mut vec![1; 30_000], ABOUT, &[]).unwrap();
        }
        outbox.push(&mut vec![2; 100_000], ABOUT, &[]).unwrap();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            lengths.push(outbox.take().await.unwrap().bytes.len());
        }
        assert_eq!(lengths, [60_000, 30_000, 100_000]);
        assert!(outbox.is_empty() && outbox.clear().is_empty());
    }
}
