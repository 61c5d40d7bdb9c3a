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
//! - An idle actor has no block. The consumer frees it when it parks and moves the index to the next
//!   lap; the first push brings a new one.
//!
//! # The bound
//! `count(index)` is the number of messages before an index, so the queue holds `count(tail) -
//! count(head)`, exactly. The consumer moves `head` when a message is begun. Producers compare with
//! `limit`, which is never above `count(head) + capacity`, and look at `head` only when it is
//! reached: the consumer's cache line is not read for each push.
//!
//! # Why it is sound
//! - A slot is written by the one thread whose compare-and-swap claimed its index, before it stores
//!   `ready` (release); it is read by the token's holder after it loaded `ready` (acquire), once,
//!   since `head` moves past it.
//! - A block is freed by the token's holder when all its slots were claimed and read: the last
//!   access of a producer to a block is the store of `ready`. A producer that lost its
//!   compare-and-swap has loaded the pointer of a block but not looked inside.
//! - An index never comes back, so a compare-and-swap that succeeds saw a `tail_block` that belongs
//!   to its index: the pointer changes only while the index stands at the end of a lap.
//!
//! Checked by the loom models below, by random operations against a plain model
//! (`tests/it/mailbox.rs`), and under AddressSanitizer (`scripts/sanitize.sh`).
#![allow(
    unsafe_code,
    reason = "a locked VecDeque was measured 2 to 4 times slower (docs/speed.md)"
)]

use crate::observe::mark::Extra;
use crate::pool;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicPtr, AtomicU8, AtomicU64, UnsafeCell, spin};
use std::alloc::Layout;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
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

/// Indices in a lap.
const LAP: u64 = if cfg!(otava_loom) { 4 } else { 16 };
/// Slots in a block.
const CAP: usize = LAP as usize - 1;

const EMPTY: u8 = 0;
const MESSAGE: u8 = 1;
/// A message with something beside it.
const ACCOMPANIED: u8 = 2;

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
pub(crate) enum Look {
    Message,
    /// A message, and when it expires.
    Expires(u64),
    /// Nothing: the actor may park.
    Nothing,
    /// Something else, or something that is only coming.
    Other,
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

/// The queue. `middle` is data of the owner that keeps the words of producers and those of the
/// consumer on different cache lines.
#[repr(C)]
pub(crate) struct Queue<M, T> {
    tail: AtomicU64,
    tail_block: AtomicPtr<Block<M>>,
    limit: AtomicU64,
    pub(crate) middle: T,
    head: AtomicU64,
    head_block: AtomicPtr<Block<M>>,
    /// `u32::MAX`: no bound.
    capacity: u32,
    /// Not used here: it lies where the layout has room for it.
    pub(super) signals: AtomicU8,
    messages: PhantomData<M>,
}

// SAFETY: messages only move through the queue, from the thread that pushes to the one that pops;
// no reference to one is handed out. Everything else is atomic.
unsafe impl<M: Send, T: Sync> Sync for Queue<M, T> {}
// SAFETY: as above; the queue owns what lies in it.
unsafe impl<M: Send, T: Send> Send for Queue<M, T> {}

struct Block<M> {
    next: AtomicPtr<Self>,
    ready: [AtomicU8; CAP],
    slots: [UnsafeCell<MaybeUninit<M>>; CAP],
    /// Only written and read for messages that have something beside them.
    extras: [UnsafeCell<MaybeUninit<Extra>>; CAP],
}

impl<M> Block<M> {
    const LAYOUT: Layout = Layout::new::<Self>();

    fn allocate() -> NonNull<Self> {
        let block = pool::allocate(Self::LAYOUT).cast::<Self>();
        // SAFETY: the memory is ours and large enough; the slots are left uninitialised, which is
        // what their types say.
        unsafe {
            (&raw mut (*block.as_ptr()).next).write(AtomicPtr::new(null_mut()));
            for place in 0..CAP {
                (&raw mut (*block.as_ptr()).ready[place]).write(AtomicU8::new(EMPTY));
                #[cfg(otava_loom)]
                {
                    let slot = &raw mut (*block.as_ptr()).slots[place];
                    slot.write(UnsafeCell::new(MaybeUninit::uninit()));
                    let extra = &raw mut (*block.as_ptr()).extras[place];
                    extra.write(UnsafeCell::new(MaybeUninit::uninit()));
                }
            }
        }
        block
    }

    /// # Safety
    /// `block` came from [`Block::allocate`], nobody uses it any more, and its messages were taken.
    unsafe fn free(block: *mut Self) {
        if let Some(block) = NonNull::new(block) {
            // Loom's atomics own memory.
            #[cfg(otava_loom)]
            // SAFETY: the caller gives up the block.
            unsafe {
                std::ptr::drop_in_place(&raw mut (*block.as_ptr()).next);
                std::ptr::drop_in_place(&raw mut (*block.as_ptr()).ready);
            }
            // SAFETY: it was allocated with this layout.
            unsafe { pool::free(block.cast(), Self::LAYOUT) }
        }
    }

    /// # Safety
    /// `block` is alive and the caller has claimed `place`.
    unsafe fn put(block: *mut Self, place: usize, message: M, extra: Extra) {
        // SAFETY: the claim makes this thread the only one that touches the slot until `ready`.
        unsafe {
            (*block).slots[place].with_mut(|slot| (*slot).write(message));
            let kind = match extra {
                Extra::None => MESSAGE,
                extra => {
                    (*block).extras[place].with_mut(|slot| (*slot).write(extra));
                    ACCOMPANIED
                }
            };
            (*block).ready[place].store(kind, Release);
        }
    }
}

impl<M, T> Queue<M, T> {
    /// An empty queue whose token is with the caller.
    pub(crate) fn new(capacity: u32, diverted: bool, middle: T) -> (Self, Consumer) {
        let queue = Self {
            tail: AtomicU64::new(if diverted { DIVERTED } else { 0 }),
            tail_block: AtomicPtr::new(null_mut()),
            limit: AtomicU64::new(u64::from(capacity)),
            middle,
            head: AtomicU64::new(0),
            head_block: AtomicPtr::new(null_mut()),
            capacity,
            signals: AtomicU8::new(0),
            messages: PhantomData,
        };
        (queue, Consumer(()))
    }

    /// Appends `message`, unless it is refused.
    #[inline]
    pub(crate) fn push(&self, message: M, extra: Extra) -> Result<Wake, (Refusal, M, Extra)> {
        let mut next: Option<NonNull<Block<M>>> = None;
        let mut tries = 0;
        let mut word = self.tail.load(Acquire);
        loop {
            let index = word >> SHIFT;
            let place = (index % LAP) as usize;
            if (word & (CLOSED | DIVERTED) != 0 || count(index) >= self.limit.load(Relaxed))
                && let Some(refusal) = self.refusal(word)
            {
                free_unused(next);
                return Err((refusal, message, extra));
            }
            if place == CAP {
                spin(&mut tries);
                word = self.tail.load(Acquire);
                continue;
            }
            let block = self.tail_block.load(Acquire);
            let ends_block = place + 1 == CAP;
            if (block.is_null() || ends_block) && next.is_none() {
                next = Some(Block::allocate());
            }
            let woken = if word & IDLE == 0 { 0 } else { IDLE | PARKED };
            let flags = word & FLAGS & !woken;
            let wake = Wake(woken != 0);
            let changing = block.is_null() || ends_block;
            let claimed = if changing {
                (index - place as u64 + LAP - 1) << SHIFT | flags
            } else {
                (index + 1) << SHIFT | flags
            };
            if let Err(now) = self
                .tail
                .compare_exchange_weak(word, claimed, AcqRel, Acquire)
            {
                word = now;
                continue;
            }
            if block.is_null() {
                self.begin_block(index, flags, next.take(), message, extra);
                return Ok(wake);
            }
            if ends_block {
                let next = next.take().map_or(null_mut(), NonNull::as_ptr);
                // SAFETY: the block of this index stays until its last slot, which is ours and not
                // yet ready, was read.
                unsafe { (*block).next.store(next, Release) };
                self.tail_block.store(next, Release);
                self.tail.store((index + 2) << SHIFT | flags, Release);
            } else {
                free_unused(next);
            }
            // SAFETY: as above, and the compare-and-swap claimed this place.
            unsafe { Block::put(block, place, message, extra) };
            return Ok(wake);
        }
    }

    /// The first message after an idle time: the index stands at the end of its lap, so this thread
    /// alone may change blocks.
    fn begin_block(
        &self,
        index: u64,
        flags: u64,
        block: Option<NonNull<Block<M>>>,
        message: M,
        extra: Extra,
    ) {
        let block = block.map_or(null_mut(), NonNull::as_ptr);
        debug_assert!(index.is_multiple_of(LAP), "a lap begins with its block");
        // SAFETY: the block is new, and nobody else knows it.
        unsafe { Block::put(block, 0, message, extra) };
        self.head_block.store(block, Release);
        self.tail_block.store(block, Release);
        self.tail.store((index + 1) << SHIFT | flags, Release);
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
        // In this order the answer is never above what was in the queue at some moment.
        let tail = count(self.tail.load(Acquire) >> SHIFT);
        tail.saturating_sub(count(self.head.load(Acquire)))
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
        self.tail.load(Acquire) >> SHIFT
    }

    /// The index of the next message to be taken.
    pub(crate) fn begin(&self) -> u64 {
        self.head.load(Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.tail.load(Acquire) & CLOSED != 0
    }

    /// Accepts no message from now on. Takes the token if the actor is idle.
    pub(crate) fn close(&self) -> Wake {
        self.change(|word| (unidle(word) | CLOSED, word & IDLE != 0))
    }

    /// There is news that is no message: an idle actor shall run. What the caller wrote before is
    /// seen by the consumer before it parks, or after it was woken.
    pub(crate) fn unpark_idle(&self) -> Wake {
        self.change(|word| (unidle(word), word & IDLE != 0))
    }

    /// There is news for whatever the actor waits for, its pending handler for example.
    pub(crate) fn notify(&self) -> Wake {
        self.change(|word| match word & PARKED {
            0 => (word | NOTIFIED, false),
            _ => (word & !(PARKED | IDLE), true),
        })
    }

    /// Orders what the caller did before it and does after it against the consumer's parking.
    pub(crate) fn settle(&self) {
        let Wake(_) = self.change(|word| (word, false));
    }

    pub(crate) fn is_diverted(&self) -> bool {
        self.tail.load(Relaxed) & DIVERTED != 0
    }

    /// Takes the token if it lies here.
    pub(crate) fn take_token(&self) -> bool {
        let Wake(taken) = self.change(|word| (word & !(PARKED | IDLE), word & PARKED != 0));
        taken
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
        if block.is_null() {
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
        self.head_block.store(null_mut(), Relaxed);
        self.head.store(lap + LAP, Release);
        self.tail_block.store(null_mut(), Release);
        let parked = (lap + LAP) << SHIFT | diverted | IDLE | PARKED;
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
    pub(crate) fn look(&self, _: &Consumer) -> Look {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        let place = (index % LAP) as usize;
        if !block.is_null() {
            // SAFETY: the block at the head is freed only by the holder of the consumer, in `pass`.
            match unsafe { (*block).ready[place].load(Acquire) } {
                MESSAGE => return Look::Message,
                ACCOMPANIED => {
                    // SAFETY: written before `ready` was, as the kind says.
                    let extra =
                        |slot: *mut MaybeUninit<Extra>| unsafe { (*slot).assume_init_ref() };
                    // SAFETY: as above.
                    let at = unsafe {
                        (*block).extras[place].with_mut(|slot| match extra(slot) {
                            Extra::Expires(at) => Some(*at),
                            _ => None,
                        })
                    };
                    return at.map_or(Look::Other, Look::Expires);
                }
                _ => {}
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
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn pop_seen(&self, _: &mut Consumer) -> M {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        let place = (index % LAP) as usize;
        assert!(!block.is_null(), "it was seen before");
        // SAFETY: as above.
        let kind = unsafe { (*block).ready[place].load(Acquire) };
        assert!(kind != EMPTY, "it was seen before");
        if kind == ACCOMPANIED {
            // SAFETY: written before `ready` was, and read once, as the message.
            drop(unsafe { (*block).extras[place].with_mut(|slot| (*slot).assume_init_read()) });
        }
        // SAFETY: `ready` says that the slot was written, and `head` that it was not read before.
        let message = unsafe { (*block).slots[place].with_mut(|slot| (*slot).assume_init_read()) };
        self.pass(block, index);
        message
    }

    /// Takes the next message.
    pub(crate) fn pop(&self, _: &mut Consumer) -> Popped<M> {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        if block.is_null() {
            return self.nothing(index);
        }
        let place = (index % LAP) as usize;
        // SAFETY: as above.
        let kind = unsafe { (*block).ready[place].load(Acquire) };
        if kind == EMPTY {
            return self.nothing(index);
        }
        // SAFETY: as above.
        let message = unsafe { (*block).slots[place].with_mut(|slot| (*slot).assume_init_read()) };
        let extra = match kind {
            // SAFETY: written before `ready` was, as the kind says, and read once, as the message.
            ACCOMPANIED => unsafe {
                (*block).extras[place].with_mut(|slot| (*slot).assume_init_read())
            },
            _ => Extra::None,
        };
        self.pass(block, index);
        Popped::Message(message, extra)
    }

    /// The message at `index`, in `block`, was read.
    #[inline]
    fn pass(&self, block: *mut Block<M>, index: u64) {
        if (index % LAP) as usize + 1 < CAP {
            return self.head.store(index + 1, Release);
        }
        // SAFETY: still alive. Its producer linked the next one before it made the slot ready.
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

    /// Changes the word while nobody changes blocks.
    fn change(&self, step: impl Fn(u64) -> (u64, bool)) -> Wake {
        let mut tries = 0;
        let mut word = self.tail.load(Acquire);
        loop {
            if word >> SHIFT & (LAP - 1) == CAP as u64 {
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

impl<M, T> Drop for Queue<M, T> {
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
