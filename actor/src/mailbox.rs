//! Mailbox: the queue of one actor: what is accepted, in which order it is taken, who is woken.
//!
//! # Two lanes
//! User messages wait in a queue that is bounded by count. Beside it stands the system lane. Its
//! content folds into the [`Phase`]: a stop replaces a drain, the end replaces both, so the lane
//! needs no memory, cannot be full, and nothing in it can be lost. It is looked at between any two
//! messages ([`Mailbox::stop_requested`]). The news that a watched actor ended travels through the
//! queue of the user lane, because it must arrive behind what that actor sent, but it is not
//! counted against the bound; neither are results of an actor's own pipes.
//!
//! # The consumer takes batches
//! One lock for up to [`BATCH`] messages, instead of one for each. Messages in the batch still count
//! as waiting (`in_batch`): the bound is exact, and only the message in work is not counted.
//!
//! # Who wakes whom
//! - The consumer says `idle` under the lock when it found nothing. The first push after that takes
//!   the flag back and tells its caller to schedule the actor; every other push wakes nobody.
//! - A sender that waits for room registers under the lock, sets `senders_wait`, and then looks at
//!   `in_batch` again. The consumer lowers `in_batch` and then looks at `senders_wait`. All four are
//!   sequentially consistent, so at least one of the two sees the other: no wake-up is lost.
//! - Whenever room may have appeared, the first `room` waiting senders are woken, in the order in
//!   which they came. A sender keeps its place until it has sent or is dropped, so a wake-up that
//!   meets a dropped sender, or one whose room was taken by a `tell`, is not lost: the next look
//!   counts from the front again.
//!
//! # What can go wrong
//! A message is dropped only by [`Mailbox::close`], whose caller counts it. Destructors of messages
//! are code of users and never run under the lock.

use crate::error::TellError;
use crate::observe::mark::Parcel;
use crate::sync::lock;
use crate::watch::Terminated;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

/// How many messages an actor handles before others get their turn.
pub(crate) const BATCH: usize = 64;

/// A queue that grew beyond this many entries gives its memory back when it is empty.
const KEPT_ENTRIES_MAX: usize = 64;

/// What waits in the queue.
pub(crate) enum Entry<M> {
    /// A message that counts against the bound.
    Counted(Parcel<M>),
    /// A message of the actor to itself, which does not.
    Free(M),
    /// The end of a watched actor, with the number of the registration.
    Ended(Box<(u64, Terminated)>),
}

/// What the system lane asks for; later ones win over earlier ones.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    Open,
    /// What is queued is handled, nothing more is accepted, then the actor stops.
    Draining,
    /// The actor stops after the message in work.
    Stopping,
}

/// What the consumer found.
pub(crate) enum Taken {
    /// The batch has entries.
    Batch,
    /// Nothing: the consumer is marked idle and will be scheduled by the next push.
    Idle,
    /// The actor shall stop now.
    Stop,
}

/// Whether the caller has to schedule the actor.
#[must_use]
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Wake(pub(crate) bool);

pub(crate) struct Mailbox<M> {
    lanes: Mutex<Lanes<M>>,
    /// Counted messages that the consumer has taken and not begun. Only the consumer writes it.
    in_batch: AtomicUsize,
    senders_wait: AtomicBool,
    stop_requested: AtomicBool,
    capacity: usize,
}

struct Lanes<M> {
    queue: VecDeque<Entry<M>>,
    /// How many entries of the queue count against the bound.
    counted: usize,
    phase: Phase,
    idle: bool,
    senders: Option<Box<Senders>>,
}

/// Senders that wait for room, by the order in which they came. A taken waker: it was woken.
#[derive(Default)]
struct Senders {
    next: u64,
    waiting: BTreeMap<u64, Option<Waker>>,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            lanes: Mutex::new(Lanes {
                queue: VecDeque::new(),
                counted: 0,
                phase: Phase::Open,
                idle: false,
                senders: None,
            }),
            in_batch: AtomicUsize::new(0),
            senders_wait: AtomicBool::new(false),
            stop_requested: AtomicBool::new(false),
            capacity,
        }
    }

    pub(crate) fn push(&self, message: Parcel<M>) -> Result<Wake, TellError<M>> {
        let mut lanes = lock(&self.lanes);
        if lanes.phase != Phase::Open {
            return Err(TellError::Stopped(message.into_message()));
        }
        if self.room(&lanes) == 0 {
            return Err(TellError::Full(message.into_message()));
        }
        Ok(lanes.push_counted(message))
    }

    /// Queues `entry` beyond the bound; gives it back if the actor accepts nothing any more.
    pub(crate) fn push_free(&self, entry: Entry<M>) -> Result<Wake, Entry<M>> {
        let mut lanes = lock(&self.lanes);
        if lanes.phase != Phase::Open {
            return Err(entry);
        }
        lanes.queue.push_back(entry);
        Ok(lanes.unidle())
    }

    /// One look of a sender that waits for room. `place` is where it stands in the line, from its
    /// second look on.
    pub(crate) fn poll_push(
        &self,
        message: &mut Option<Parcel<M>>,
        place: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Wake, TellError<M>>> {
        let mut lanes = lock(&self.lanes);
        if lanes.phase == Phase::Open && self.room(&lanes) == 0 {
            let senders = lanes.senders.get_or_insert_default();
            let place = *place.get_or_insert_with(|| {
                senders.next += 1;
                senders.next
            });
            senders.waiting.insert(place, Some(cx.waker().clone()));
            self.senders_wait.store(true, SeqCst);
            if self.room(&lanes) == 0 {
                return Poll::Pending;
            }
        }
        if let (Some(place), Some(senders)) = (place.take(), lanes.senders.as_mut()) {
            senders.waiting.remove(&place);
        }
        let message = message
            .take()
            .expect("a sender is not polled after it is done");
        Poll::Ready(if lanes.phase == Phase::Open {
            Ok(lanes.push_counted(message))
        } else {
            Err(TellError::Stopped(message.into_message()))
        })
    }

    /// A waiting sender goes away; the wake-up it may have got goes to the next.
    pub(crate) fn leave_line(&self, place: u64) {
        let mut lanes = lock(&self.lanes);
        if let Some(senders) = lanes.senders.as_mut() {
            senders.waiting.remove(&place);
        }
        self.wake_senders_and_unlock(lanes);
    }

    /// Asks for a later phase. Nothing happens if that or more was asked for before.
    pub(crate) fn request(&self, phase: Phase) -> Wake {
        let mut lanes = lock(&self.lanes);
        if lanes.phase >= phase {
            return Wake(false);
        }
        lanes.phase = phase;
        if phase == Phase::Stopping {
            self.stop_requested.store(true, SeqCst);
        }
        let wake = lanes.unidle();
        let senders = lanes.senders.take();
        self.senders_wait.store(false, SeqCst);
        drop(lanes);
        for waker in senders
            .into_iter()
            .flat_map(|senders| senders.waiting.into_values().flatten())
        {
            waker.wake();
        }
        wake
    }

    pub(crate) fn is_open(&self) -> bool {
        lock(&self.lanes).phase == Phase::Open
    }

    /// Whether the actor shall stop before the next message. For the consumer, between messages.
    pub(crate) fn stop_requested(&self) -> bool {
        self.stop_requested.load(SeqCst)
    }

    /// How many messages wait, without the one in work.
    pub(crate) fn len(&self) -> usize {
        lock(&self.lanes).counted + self.in_batch.load(SeqCst)
    }

    /// Fills the empty `batch`. For the consumer.
    pub(crate) fn take(&self, batch: &mut VecDeque<Entry<M>>) -> Taken {
        debug_assert!(batch.is_empty(), "the batch before is handled first");
        let mut lanes = lock(&self.lanes);
        if lanes.phase == Phase::Stopping {
            return Taken::Stop;
        }
        if lanes.queue.is_empty() {
            if lanes.phase == Phase::Draining {
                return Taken::Stop;
            }
            lanes.idle = true;
            // One buffer is enough for an idle actor: the larger one that is not too large.
            if lanes.queue.capacity() < batch.capacity() {
                std::mem::swap(&mut lanes.queue, batch);
            }
            *batch = VecDeque::new();
            if lanes.queue.capacity() > KEPT_ENTRIES_MAX {
                lanes.queue = VecDeque::new();
            }
            return Taken::Idle;
        }
        lanes.idle = false;
        let moved = if lanes.queue.len() <= BATCH {
            std::mem::swap(&mut lanes.queue, batch);
            lanes.counted
        } else {
            batch.extend(lanes.queue.drain(..BATCH));
            batch
                .iter()
                .filter(|entry| matches!(entry, Entry::Counted(_)))
                .count()
        };
        lanes.counted -= moved;
        self.in_batch.store(moved, SeqCst);
        Taken::Batch
    }

    /// A counted message of the batch is begun: there is room for one more. For the consumer.
    pub(crate) fn begin(&self) {
        let left = self.in_batch.load(SeqCst) - 1;
        self.in_batch.store(left, SeqCst);
        if self.senders_wait.load(SeqCst) {
            self.wake_senders_and_unlock(lock(&self.lanes));
        }
    }

    /// Accepts nothing any more and gives out what is left, behind the rest of the batch. For the
    /// consumer, or for whoever ends an actor that nobody will run again.
    pub(crate) fn close(&self) -> VecDeque<Entry<M>> {
        let Wake(_) = self.request(Phase::Stopping);
        let mut lanes = lock(&self.lanes);
        self.in_batch.store(0, SeqCst);
        lanes.counted = 0;
        std::mem::take(&mut lanes.queue)
    }

    fn room(&self, lanes: &Lanes<M>) -> usize {
        self.capacity
            .saturating_sub(lanes.counted + self.in_batch.load(SeqCst))
    }

    fn wake_senders_and_unlock(&self, mut lanes: std::sync::MutexGuard<'_, Lanes<M>>) {
        let room = self.room(&lanes);
        let Some(senders) = lanes.senders.as_mut() else {
            return;
        };
        let woken: Vec<Waker> = senders
            .waiting
            .values_mut()
            .take(room)
            .filter_map(Option::take)
            .collect();
        if senders.waiting.is_empty() {
            lanes.senders = None;
            self.senders_wait.store(false, SeqCst);
        }
        drop(lanes);
        for waker in woken {
            waker.wake();
        }
    }
}

impl<M> Lanes<M> {
    fn push_counted(&mut self, message: Parcel<M>) -> Wake {
        self.queue.push_back(Entry::Counted(message));
        self.counted += 1;
        self.unidle()
    }

    fn unidle(&mut self) -> Wake {
        Wake(std::mem::replace(&mut self.idle, false))
    }
}
