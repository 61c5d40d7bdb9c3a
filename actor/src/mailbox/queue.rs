//! Queue: the messages of one actor in the order of their arrival, and the word that says who runs it.
//!
//! Many producers, one consumer. Messages lie by value in blocks of [`CAP`] slots. Everything that
//! producers, wakers and the consumer must agree on is one atomic word, so that a push is one
//! compare-and-swap and says at the same time whether the actor has to be scheduled:
//!
//! ```text
//!   63                                        5    4       3       2        1       0
//!  +------------------------------------------+--------+-------+---------+--------+------+
//!  | index of the next slot                   |DIVERTED| CLOSED| NOTIFIED| PARKED | IDLE |
//!  +------------------------------------------+--------+-------+---------+--------+------+
//! ```
//!
//! # The token
//! Whoever may touch the actor (poll it, take messages, free blocks at the head) holds its *token*.
//! There is exactly one. While `PARKED` is set it lies in the word; clearing `PARKED` takes it, and
//! obliges the taker to run the actor or to have it scheduled. `IDLE` (only ever set together with
//! `PARKED`) says that a message is a reason to run; without it a handler is pending, and only its
//! waker is. `NOTIFIED` is what a waker leaves behind when somebody else has the token.
//!
//! # Places
//! Of each lap of [`LAP`] indices the last names no slot. An index that stands there means that one
//! thread is changing blocks: everyone else waits for the few instructions that this takes. So all
//! changes of the word go through a compare-and-swap of a value that is not in this state, except
//! the one that ends it.
//! - The producer that claims the last slot of a block has allocated the next block before, links
//!   it, and moves the index to the next lap.
//! - An idle actor has no block. The consumer frees it when it parks and moves the index to the last
//!   places of the next lap. The first of these is the queue's own, for a message that is not large:
//!   most actors that wake get one. The next push brings a short block that has only the others.
//!
//! # The bound
//! `count(index)` is the number of messages before an index, so the queue holds `count(tail) -
//! count(head)`, exactly. The consumer moves `head` when a message is begun. Producers compare with
//! `limit`, which is never above `count(head) + capacity`, and look at `head` only when it is
//! reached: the consumer's cache line is not read for each push.
//!
//! # What two cores share
//! While a producer and the consumer work on neighbouring slots, each cache line that both touch goes
//! to and fro for every message. So all of a slot lies together: the message, and before it one word,
//! the stamp, that says whether it is there and what lies beside it.
//! And what a message makes producers touch lies so far from what it makes the consumer touch that no
//! line has both, wherever the allocator puts the queue; between them lies what changes rarely, and the
//! queue's own slot. Where they shared a line, of some bytes even, a fifth of the speed was lost.
//!
//! # Why it is sound
//! - A slot is written by the one thread whose compare-and-swap claimed its index, before it stores
//!   the stamp (release); it is read by the token's holder after it loaded the stamp (acquire), once,
//!   since `head` moves past it.
//! - A block is freed by the token's holder when all its slots were claimed and read: the last
//!   access of a producer to a block is the store of a stamp. A producer that lost its
//!   compare-and-swap has loaded the pointer of a block but not looked inside.
//! - The queue's own slot is a slot as any other, of the place [`OWN`] while there is no block or a
//!   short one. Only parking makes that place come again, and only when its message was read: the
//!   stamp is taken back while the index stands at the end of the lap.
//! - An index never comes back, so a compare-and-swap that succeeds saw a `tail_block` that belongs
//!   to its index: the pointer changes only while the index stands at the end of a lap.
//!
//! Checked by the loom models below, by random operations against a plain model
//! (`tests/it/mailbox.rs`), and under AddressSanitizer (`scripts/sanitize.sh`).
#![allow(
    unsafe_code,
    reason = "the safe core before it, a locked VecDeque, was measured slower by a factor (docs/speed.md)"
)]

use super::block::{
    Block, CAP, EMPTY, EXPIRING, KIND, KIND_BITS, LAP, MESSAGE, OWN, Own, Room, Slot,
};
use crate::observe::mark::Extra;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicPtr, AtomicU8, AtomicU64, spin};
use std::mem::offset_of;
use std::ptr::{NonNull, null_mut};

/// A message is a reason to run the actor.
const IDLE: u64 = 1;
/// The token lies here.
const PARKED: u64 = 1 << 1;
/// Somebody called while the token was away.
const NOTIFIED: u64 = 1 << 2;
/// No message is accepted any more.
const CLOSED: u64 = 1 << 3;
/// Messages go elsewhere: this mailbox has an order or a bound of its own.
const DIVERTED: u64 = 1 << 4;
const SHIFT: u32 = 5;
const FLAGS: u64 = (1 << SHIFT) - 1;

/// Whether the caller has taken the token and has to schedule the actor.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wake(pub(crate) bool);

/// Why a push was not made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    Closed,
    Diverted,
    Full,
}

/// What the consumer sees without taking it.
pub(crate) enum Look<M> {
    Message(Seen<M>),
    /// A message, and when it expires.
    Expires(Seen<M>, u64),
    /// Nothing: the actor may park.
    Nothing,
    /// Something else, or something that is only coming.
    Other,
}

/// A place that a producer has claimed, and whether it has to schedule the actor.
#[must_use = "the consumer waits for the message"]
pub(crate) struct Claim<M> {
    slot: NonNull<Slot<M>>,
    wake: Wake,
}

impl<M> Claim<M> {
    /// Puts the message in its place.
    #[inline(always)]
    pub(crate) fn fill(self, message: M, extra: Extra) -> Wake {
        // SAFETY: the queue gave this away once. The block of a claimed place stays until its last slot
        // was read; the queue's own place stays with the queue, which the caller has.
        unsafe { self.slot.as_ref().put(message, extra) };
        self.wake
    }
}

/// Where the message lies that the consumer has seen.
pub(crate) struct Seen<M> {
    slot: NonNull<Slot<M>>,
    index: u64,
}

/// Where the token is.
pub(crate) enum AtRest {
    /// Here: there is nothing to do.
    Idle,
    /// With somebody.
    No,
    /// Here: a handler is pending.
    Waiting,
}

/// What the consumer found.
pub(crate) enum Popped<M> {
    /// A message, and what lay beside it.
    Message(M, Extra),
    /// Nothing.
    Empty,
    /// A message that its producer has claimed a place for and not yet put there.
    Coming,
    /// Nothing, and nothing will ever come.
    Over,
}

/// The right to take messages. One exists for each queue; it goes with the token.
pub(crate) struct Consumer(());

/// The queue. The owner has data of its own in it, where the layout has room: `middle` begins with
/// what producers read, and keeps their words and the consumer's on different cache lines
/// (`APART`); `desk` is for the consumer.
#[repr(C)]
pub(crate) struct Queue<M, T, S> {
    tail: AtomicU64,
    tail_block: AtomicPtr<Block<M>>,
    limit: AtomicU64,
    pub(crate) middle: T,
    /// The slot of the queue's own place.
    own: Own<M>,
    head: AtomicU64,
    head_block: AtomicPtr<Block<M>>,
    /// `u32::MAX`: no bound.
    capacity: u32,
    /// Not used here.
    pub(super) signals: AtomicU8,
    pub(super) desk: S,
}

// SAFETY: messages only move through the queue, from the thread that pushes to the one that pops;
// no reference to one is handed out. Everything else is atomic.
unsafe impl<M: Send, T: Sync, S: Sync> Sync for Queue<M, T, S> {}
// SAFETY: as above; the queue owns what lies in it.
unsafe impl<M: Send, T: Send, S: Send> Send for Queue<M, T, S> {}

impl<M, T, S> Queue<M, T, S> {
    /// Whether messages of this type use the place that is the queue's own.
    const HAS_OWN: bool = size_of::<M>() <= size_of::<Room>()
        && align_of::<M>() <= align_of::<Room>()
        && offset_of!(Slot<M>, message) == offset_of!(Slot<Room>, message);
    /// The place in its lap of the first message after an idle time.
    const FIRST: u64 = (if Self::HAS_OWN { OWN } else { OWN + 1 }) as u64;

    /// How far the consumer's words lie behind the beginning of `middle`.
    #[cfg(all(test, not(otava_loom)))]
    pub(crate) const APART: usize = offset_of!(Self, head) - offset_of!(Self, middle);

    /// An empty queue whose token is with the caller.
    pub(crate) fn new(capacity: u32, diverted: bool, middle: T, desk: S) -> (Self, Consumer) {
        let queue = Self {
            tail: AtomicU64::new(Self::FIRST << SHIFT | if diverted { DIVERTED } else { 0 }),
            tail_block: AtomicPtr::new(null_mut()),
            limit: AtomicU64::new(count(Self::FIRST) + u64::from(capacity)),
            middle,
            own: Own::new(),
            head: AtomicU64::new(Self::FIRST),
            head_block: AtomicPtr::new(null_mut()),
            capacity,
            signals: AtomicU8::new(0),
            desk,
        };
        (queue, Consumer(()))
    }

    /// Claims the next place, unless a message is refused now. The caller fills it at once
    /// ([`Claim::fill`]).
    ///
    /// Two steps, inlined to where the message is made, so that it moves once and after the locked
    /// instruction: a move right after an enum was written piece by piece waits for the core's store
    /// buffer.
    #[inline(always)]
    pub(crate) fn claim(&self) -> Result<Claim<M>, Refusal> {
        // Almost always: the actor is at work, and its last block has room.
        let word = self.tail.load(Acquire);
        let index = word >> SHIFT;
        let place = (index % LAP) as usize;
        if place + 1 < CAP
            && word & (CLOSED | DIVERTED | IDLE) == 0
            && count(index) < self.limit.load(Relaxed)
        {
            let block = self.tail_block.load(Acquire);
            if !block.is_null()
                && self
                    .tail
                    .compare_exchange(word, word + (1 << SHIFT), AcqRel, Relaxed)
                    .is_ok()
            {
                // SAFETY: the block of a claimed place.
                let slot = unsafe { Block::slot(block, place) };
                let wake = Wake(false);
                return Ok(Claim { slot, wake });
            }
        }
        self.claim_with_care(word)
    }

    /// The same, also where blocks or the token change hands. `word` is the queue's, a moment ago.
    #[inline(never)]
    fn claim_with_care(&self, word: u64) -> Result<Claim<M>, Refusal> {
        let mut next: Option<NonNull<Block<M>>> = None;
        let mut tries = 0;
        let mut word = word;
        loop {
            let index = word >> SHIFT;
            let place = (index % LAP) as usize;
            // First of all: until blocks are changed, the index counts places that may stay free.
            if is_changing(index) {
                spin(&mut tries);
                word = self.tail.load(Acquire);
                continue;
            }
            if (word & (CLOSED | DIVERTED) != 0 || count(index) >= self.limit.load(Relaxed))
                && let Some(refusal) = self.refusal(word)
            {
                free_unused(next);
                return Err(refusal);
            }
            let block = self.tail_block.load(Acquire);
            let ends_block = place + 1 == CAP;
            let woken = if word & IDLE == 0 { 0 } else { IDLE | PARKED };
            let flags = word & FLAGS & !woken;
            let wake = Wake(woken != 0);
            let is_own = Self::HAS_OWN && place == OWN && block.is_null();
            if is_own || !block.is_null() && !ends_block {
                let claimed = (index + 1) << SHIFT | flags;
                if let Err(now) = self
                    .tail
                    .compare_exchange_weak(word, claimed, AcqRel, Acquire)
                {
                    word = now;
                    continue;
                }
                free_unused(next);
                let slot = match is_own {
                    true => self.own_slot(),
                    // SAFETY: the block of a claimed place.
                    false => unsafe { Block::slot(block, place) },
                };
                return Ok(Claim { slot, wake });
            }
            let new = match next.take() {
                // SAFETY: allocated here, and nobody else knows it.
                Some(next) if unsafe { next.as_ref().is_short() } == block.is_null() => next,
                other => {
                    free_unused(other);
                    Block::allocate(block.is_null())
                }
            };
            let changing = (index - place as u64 + LAP - 1) << SHIFT | flags;
            if let Err(now) = self
                .tail
                .compare_exchange_weak(word, changing, AcqRel, Acquire)
            {
                next = Some(new);
                word = now;
                continue;
            }
            let slot = self.begin_block(index, flags, block, new.as_ptr());
            return Ok(Claim { slot, wake });
        }
    }

    /// The place at `index` was claimed, and with it the right to change blocks: the index stands at the
    /// end of its lap. `new` comes behind `block`, or is the first. Returns the slot of that place.
    #[inline]
    fn begin_block(
        &self,
        index: u64,
        flags: u64,
        block: *mut Block<M>,
        new: *mut Block<M>,
    ) -> NonNull<Slot<M>> {
        let place = (index % LAP) as usize;
        if block.is_null() {
            debug_assert!(place == OWN + 1, "a short block begins there");
            // SAFETY: it is new, and nobody claims its places before the index moves on.
            let slot = unsafe { Block::slot(new, place) };
            self.head_block.store(new, Release);
            self.tail_block.store(new, Release);
            self.tail.store((index + 1) << SHIFT | flags, Release);
            return slot;
        }
        // SAFETY: the block of this index stays until its last slot, which is ours and not yet stamped,
        // was read.
        let slot = unsafe {
            (*block).next.store(new, Release);
            Block::slot(block, place)
        };
        self.tail_block.store(new, Release);
        self.tail.store((index + 2) << SHIFT | flags, Release);
        slot
    }

    /// Why a push at this word is refused; `None` if it is not.
    #[cold]
    fn refusal(&self, word: u64) -> Option<Refusal> {
        if word & CLOSED != 0 {
            return Some(Refusal::Closed);
        }
        if word & DIVERTED != 0 {
            return Some(Refusal::Diverted);
        }
        let limit = count(self.head.load(Acquire)).saturating_add(self.capacity());
        self.limit.fetch_max(limit, Relaxed);
        (count(word >> SHIFT) >= limit).then_some(Refusal::Full)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> u64 {
        // In this order the answer is not above what was in the queue at some moment, unless the
        // consumer's steps are seen late: then the bound still holds.
        let tail = count(self.end());
        let len = tail.saturating_sub(count(self.head.load(Acquire)));
        len.min(self.capacity())
    }

    /// How many more would be accepted.
    pub(crate) fn room(&self) -> u64 {
        self.capacity().saturating_sub(self.len())
    }

    fn capacity(&self) -> u64 {
        match self.capacity {
            u32::MAX => u64::MAX,
            capacity => u64::from(capacity),
        }
    }

    /// The index behind everything that was pushed before this call.
    pub(crate) fn end(&self) -> u64 {
        let mut tries = 0;
        loop {
            let index = self.tail.load(Acquire) >> SHIFT;
            if !is_changing(index) {
                return index;
            }
            spin(&mut tries);
        }
    }

    /// The index of the next message to be taken.
    pub(crate) fn begin(&self) -> u64 {
        self.head.load(Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.tail.load(Acquire) & CLOSED != 0
    }

    /// Accepts no message from now on. Takes the token if it lies here, and else leaves a notice.
    pub(crate) fn close_and_notify(&self) -> Wake {
        self.change(|word| match word & PARKED {
            0 => (word | CLOSED | NOTIFIED, false),
            _ => (word & !(PARKED | IDLE) | CLOSED, true),
        })
    }

    /// There is news that is no message: an idle actor shall run. What the caller wrote before is
    /// seen by the consumer before it parks, or after it was woken.
    pub(crate) fn unpark_idle(&self) -> Wake {
        self.change(|word| match word & (IDLE | PARKED) {
            0 => (word | NOTIFIED, false),
            // A handler is pending, and will look when it is done.
            PARKED => (word, false),
            _ => (unidle(word), true),
        })
    }

    /// There is news for whatever the actor waits for, its pending handler for example.
    pub(crate) fn notify(&self) -> Wake {
        self.change(|word| match word & PARKED {
            0 => (word | NOTIFIED, false),
            _ => (word & !(PARKED | IDLE), true),
        })
    }

    /// Orders what the caller did before it and does after it against the consumer's parking: that
    /// came before this, or it sees what the caller did.
    pub(crate) fn settle(&self) {
        let Wake(_) = self.change(|word| match word & PARKED {
            0 => (word | NOTIFIED, false),
            _ => (word, false),
        });
    }

    pub(crate) fn is_diverted(&self) -> bool {
        self.tail.load(Relaxed) & DIVERTED != 0
    }

    pub(crate) fn at_rest(&self) -> AtRest {
        match self.tail.load(Acquire) & (IDLE | PARKED) {
            0 => AtRest::No,
            PARKED => AtRest::Waiting,
            _ => AtRest::Idle,
        }
    }

    /// Puts the token down while a handler is pending. `false`: it was notified meanwhile, the token
    /// stays with the caller.
    pub(crate) fn park(&self) -> bool {
        let Wake(notified) = self.change(|word| match word & NOTIFIED {
            0 => (word | PARKED, false),
            _ => (word & !NOTIFIED, true),
        });
        !notified
    }

    /// Puts the token down if nothing waits. `false`: something does, or did for a moment; the token
    /// stays with the caller.
    ///
    /// # Safety
    /// The caller holds the token.
    #[inline]
    pub(crate) unsafe fn park_idle(&self) -> bool {
        let head = self.head.load(Relaxed);
        let diverted = self.tail.load(Relaxed) & DIVERTED;
        let empty = head << SHIFT | diverted;
        let block = self.head_block.load(Acquire);
        if block.is_null() && head % LAP == Self::FIRST {
            let parked = empty | IDLE | PARKED;
            return self
                .tail
                .compare_exchange(empty, parked, AcqRel, Relaxed)
                .is_ok()
                || self.clear_notified();
        }
        let lap = head - head % LAP;
        let changing = (lap + LAP - 1) << SHIFT | diverted;
        if self
            .tail
            .compare_exchange(empty, changing, AcqRel, Relaxed)
            .is_err()
        {
            return self.clear_notified();
        }
        self.own.clear();
        self.head_block.store(null_mut(), Relaxed);
        self.head.store(lap + LAP + Self::FIRST, Release);
        self.tail_block.store(null_mut(), Release);
        let parked = (lap + LAP + Self::FIRST) << SHIFT | diverted | IDLE | PARKED;
        self.tail.store(parked, Release);
        // SAFETY: the queue was empty, so all claimed slots were read, and the word let nobody claim
        // one since. It is not reachable any more.
        unsafe { Block::free(block) };
        true
    }

    /// The notice is taken: the caller looks again. Always `false`.
    #[cold]
    fn clear_notified(&self) -> bool {
        if self.tail.load(Relaxed) & NOTIFIED != 0 {
            let Wake(_) = self.change(|word| (word & !NOTIFIED, false));
        }
        false
    }

    /// What comes next.
    #[inline]
    pub(crate) fn look(&self, _: &Consumer) -> Look<M> {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        // SAFETY: the block at the head is freed only by the holder of the consumer, in `pass`.
        if let Some(slot) = unsafe { self.slot(block, index) } {
            let seen = Seen { slot, index };
            // SAFETY: as above.
            let stamp = unsafe { slot.as_ref() }.stamp.load(Acquire);
            // One by one: almost always it is the first.
            if stamp == MESSAGE {
                return Look::Message(seen);
            }
            if stamp & KIND == EXPIRING {
                return Look::Expires(seen, stamp >> KIND_BITS);
            }
            if stamp != EMPTY {
                return Look::Other;
            }
        }
        match self.nothing(index) {
            Popped::Empty => Look::Nothing,
            _ => Look::Other,
        }
    }

    /// Takes the message that [`Queue::look`] has seen. Apart from the look, so that it moves once:
    /// from its slot to where it is handled.
    ///
    /// # Safety
    /// `seen` is from the last look at this queue, and nothing was taken since.
    #[inline]
    pub(crate) unsafe fn pop_seen(&self, _: &mut Consumer, seen: Seen<M>) -> M {
        let Seen { slot, index } = seen;
        // SAFETY: the look has found it stamped; it is passed below.
        let message = unsafe { slot.as_ref().take_message() };
        self.pass(index);
        message
    }

    /// Takes the next message.
    pub(crate) fn pop(&self, _: &mut Consumer) -> Popped<M> {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        // SAFETY: as in `look`.
        let Some(slot) = (unsafe { self.slot(block, index) }) else {
            return self.nothing(index);
        };
        // SAFETY: as in `look`.
        let slot = unsafe { slot.as_ref() };
        let stamp = slot.stamp.load(Acquire);
        if stamp == EMPTY {
            return self.nothing(index);
        }
        // SAFETY: stamped, and passed below.
        let (message, extra) = unsafe { (slot.take_message(), Slot::<M>::extra(stamp)) };
        self.pass(index);
        Popped::Message(message, extra)
    }

    /// The slot of this index, which is the head, if it has one yet. `block` is the one there.
    ///
    /// # Safety
    /// For the consumer.
    #[inline]
    unsafe fn slot(&self, block: *mut Block<M>, index: u64) -> Option<NonNull<Slot<M>>> {
        let place = (index % LAP) as usize;
        if block.is_null() {
            return (Self::HAS_OWN && place == OWN).then(|| self.own_slot());
        }
        // SAFETY: the consumer frees the block at the head, nobody else.
        unsafe {
            if Self::HAS_OWN && place < (*block).first {
                // The block was begun behind a message in the queue's own place.
                return Some(self.own_slot());
            }
            Some(Block::slot(block, place))
        }
    }

    /// The queue's own slot, for messages that fit.
    #[inline]
    fn own_slot(&self) -> NonNull<Slot<M>> {
        debug_assert!(Self::HAS_OWN, "a message fits");
        self.own.slot()
    }

    /// The message at `index` was read.
    #[inline]
    fn pass(&self, index: u64) {
        if (index % LAP) as usize + 1 < CAP {
            return self.head.store(index + 1, Release);
        }
        self.pass_last(index);
    }

    #[cold]
    fn pass_last(&self, index: u64) {
        // The queue's own place is not the last of a lap, so there is a block.
        let block = self.head_block.load(Relaxed);
        // SAFETY: still alive. Its producer linked the next one before it stamped the slot.
        let next = unsafe { (*block).next.load(Acquire) };
        self.head_block.store(next, Relaxed);
        self.head.store(index + 2, Release);
        // SAFETY: all its slots were read, so no producer will touch it again.
        unsafe { Block::free(block) };
    }

    fn nothing(&self, head: u64) -> Popped<M> {
        let word = self.tail.load(Acquire);
        if word >> SHIFT != head {
            Popped::Coming
        } else if word & CLOSED != 0 {
            Popped::Over
        } else {
            Popped::Empty
        }
    }

    /// Whether nothing is there, and nothing will ever come.
    #[inline]
    pub(crate) fn is_over(&self, _: &Consumer) -> bool {
        let word = self.tail.load(Acquire);
        word & CLOSED != 0 && word >> SHIFT == self.head.load(Relaxed)
    }

    /// Changes the word while nobody changes blocks.
    fn change(&self, step: impl Fn(u64) -> (u64, bool)) -> Wake {
        let mut tries = 0;
        let mut word = self.tail.load(Acquire);
        loop {
            if is_changing(word >> SHIFT) {
                spin(&mut tries);
                word = self.tail.load(Acquire);
                continue;
            }
            let (new, wake) = step(word);
            // Also if nothing changes: the exchange is what orders this call and the consumer's.
            match self.tail.compare_exchange_weak(word, new, AcqRel, Acquire) {
                Ok(_) => return Wake(wake),
                Err(now) => word = now,
            }
        }
    }
}

impl<M, T, S> Drop for Queue<M, T, S> {
    fn drop(&mut self) {
        let mut consumer = Consumer(());
        // Nobody pushes any more, so nothing is coming.
        while let Popped::Message(message, _) = self.pop(&mut consumer) {
            crate::failure::drop_guarded(message);
        }
        let block = self.head_block.load(Relaxed);
        // SAFETY: nobody has the queue any more.
        unsafe { Block::free(block) };
    }
}

/// How many messages lie before `index`: all places of a lap but the last hold one.
fn count(index: u64) -> u64 {
    index - index / LAP
}

/// Whether one thread is changing blocks. Where the index will stand then is not known.
fn is_changing(index: u64) -> bool {
    index % LAP == CAP as u64
}

fn unidle(word: u64) -> u64 {
    if word & IDLE == 0 {
        word
    } else {
        word & !(IDLE | PARKED)
    }
}

fn free_unused<M>(block: Option<NonNull<Block<M>>>) {
    if let Some(block) = block {
        // SAFETY: it was allocated here and never linked.
        unsafe { Block::free(block.as_ptr()) };
    }
}
