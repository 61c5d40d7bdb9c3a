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
    reason = "the safe core before it, a locked VecDeque, was measured slower by a factor (docs/speed.md)"
)]

use crate::observe::mark::{Extra, Mark};
use crate::pool;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicPtr, AtomicU8, AtomicU64, UnsafeCell, spin};
use std::alloc::Layout;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU16;

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
const LAP: u64 = if cfg!(otava_loom) { 4 } else { 32 };
/// Slots in a block.
const CAP: usize = LAP as usize - 1;
/// Slots in the first block after an idle time.
const SHORT: usize = if cfg!(otava_loom) { 2 } else { 3 };
const _: () = assert!(SHORT > 1, "the first message of a block does not end it");
/// The place in its lap that is the queue's own. A short block begins behind it.
const OWN: usize = CAP - SHORT - 1;
/// The room in a queue's own place. An idle actor pays for it; larger messages need a block.
type Room = [u64; 3];

const EMPTY: u8 = 0;
const MESSAGE: u8 = 1;
/// A message with an expiry beside it.
const EXPIRING: u8 = 2;
/// A message with a mark beside it.
const MARKED: u8 = 3;

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
    /// The slot of the queue's own place, in three parts for the sake of the layout.
    own_ready: AtomicU8,
    /// As `signals`; for the owner.
    pub(super) spare: AtomicU16,
    own_extra: UnsafeCell<Packed>,
    own_message: UnsafeCell<MaybeUninit<Room>>,
    messages: PhantomData<M>,
}

// SAFETY: messages only move through the queue, from the thread that pushes to the one that pops;
// no reference to one is handed out. Everything else is atomic.
unsafe impl<M: Send, T: Sync> Sync for Queue<M, T> {}
// SAFETY: as above; the queue owns what lies in it.
unsafe impl<M: Send, T: Send> Send for Queue<M, T> {}

/// What a block begins with, whatever its length: the type by which blocks are known.
#[repr(C)]
struct Block<M> {
    next: AtomicPtr<Self>,
    /// It has [`SHORT`] slots, for the last places of a lap, and not [`CAP`].
    is_short: bool,
    slots: PhantomData<M>,
}

#[repr(C)]
struct Slots<M, const N: usize> {
    block: Block<M>,
    ready: [AtomicU8; N],
    slots: [UnsafeCell<MaybeUninit<M>>; N],
    /// Only written and read for messages that have something beside them.
    extras: [UnsafeCell<Packed>; N],
}

/// An [`Extra`] without its kind, which stands in `ready`.
union Packed {
    expires: u64,
    mark: ManuallyDrop<Box<Mark>>,
}

/// One place of a block.
struct Slot<'a, M> {
    ready: &'a AtomicU8,
    message: Lies<'a, M>,
    extra: &'a UnsafeCell<Packed>,
}

/// Where the message of a slot lies.
enum Lies<'a, M> {
    InBlock(&'a UnsafeCell<MaybeUninit<M>>),
    /// It fits ([`Queue::HAS_OWN`]).
    InQueue(&'a UnsafeCell<MaybeUninit<Room>>),
}

impl<M, const N: usize> Slots<M, N> {
    const LAYOUT: Layout = Layout::new::<Self>();

    fn allocate() -> NonNull<Block<M>> {
        let block = pool::allocate(Self::LAYOUT).cast::<Self>();
        // SAFETY: the memory is ours and large enough; the slots are left uninitialised, which is
        // what their types say.
        unsafe {
            (&raw mut (*block.as_ptr()).block).write(Block {
                next: AtomicPtr::new(null_mut()),
                is_short: N == SHORT,
                slots: PhantomData,
            });
            for place in 0..N {
                (&raw mut (*block.as_ptr()).ready[place]).write(AtomicU8::new(EMPTY));
                #[cfg(otava_loom)]
                {
                    let slot = &raw mut (*block.as_ptr()).slots[place];
                    slot.write(UnsafeCell::new(MaybeUninit::uninit()));
                    let extra = &raw mut (*block.as_ptr()).extras[place];
                    extra.write(UnsafeCell::new(Packed { expires: 0 }));
                }
            }
        }
        block.cast()
    }

    /// # Safety
    /// As for [`Block::free`], and the block has this length.
    unsafe fn free(block: NonNull<Block<M>>) {
        // Loom checks that every access to the block happened before this.
        #[cfg(otava_loom)]
        // SAFETY: the caller gives up the block.
        unsafe {
            let block = &mut *block.cast::<Self>().as_ptr();
            block.block.next.with_mut(|_| ());
            block
                .ready
                .iter_mut()
                .for_each(|ready| ready.with_mut(|_| ()));
            block.slots.iter().for_each(|slot| slot.with_mut(|_| ()));
            std::ptr::drop_in_place(block);
        }
        // SAFETY: it was allocated with this layout.
        unsafe { pool::free(block.cast(), Self::LAYOUT) }
    }

    /// # Safety
    /// `block` is alive and has this length.
    #[inline]
    unsafe fn slot<'a>(block: *mut Block<M>, place: usize) -> Slot<'a, M> {
        // SAFETY: as the caller promises; nobody makes a mutable reference to a block that is alive.
        let slots = unsafe { &*block.cast::<Self>() };
        Slot {
            ready: &slots.ready[place],
            message: Lies::InBlock(&slots.slots[place]),
            extra: &slots.extras[place],
        }
    }
}

impl<M> Block<M> {
    fn allocate(is_short: bool) -> NonNull<Self> {
        if is_short {
            Slots::<M, SHORT>::allocate()
        } else {
            Slots::<M, CAP>::allocate()
        }
    }

    /// # Safety
    /// `block` came from [`Block::allocate`], nobody uses it any more, and its messages were taken.
    unsafe fn free(block: *mut Self) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: as the caller promises; each by its own length.
        unsafe {
            if (*block.as_ptr()).is_short {
                Slots::<M, SHORT>::free(block);
            } else {
                Slots::<M, CAP>::free(block);
            }
        }
    }

    /// The slot of this place of a lap.
    ///
    /// # Safety
    /// `block` is alive, and is the one of the index that stands at this place.
    #[inline]
    unsafe fn slot<'a>(block: *mut Self, place: usize) -> Slot<'a, M> {
        // SAFETY: as the caller promises; each by its own length.
        unsafe {
            if (*block).is_short {
                Slots::<M, SHORT>::slot(block, place - (OWN + 1))
            } else {
                Slots::<M, CAP>::slot(block, place)
            }
        }
    }

    /// # Safety
    /// As for [`Block::slot`], and the caller has claimed `place`.
    #[inline]
    unsafe fn put(block: *mut Self, place: usize, message: M, extra: Extra) {
        // SAFETY: as the caller promises.
        unsafe { Self::slot(block, place).put(message, extra) }
    }
}

impl<M> Slot<'_, M> {
    /// # Safety
    /// The caller has claimed the place of this slot: nobody else touches it until it is ready.
    #[inline]
    unsafe fn put(&self, message: M, extra: Extra) {
        // SAFETY: as the caller promises.
        unsafe {
            self.with_message(|place| place.write(message));
            let kind = match extra {
                Extra::None => MESSAGE,
                Extra::Expires(expires) => {
                    self.extra.with_mut(|slot| slot.write(Packed { expires }));
                    EXPIRING
                }
                Extra::Marked(mark) => {
                    let mark = ManuallyDrop::new(mark);
                    self.extra.with_mut(|slot| slot.write(Packed { mark }));
                    MARKED
                }
            };
            self.ready.store(kind, Release);
        }
    }

    #[inline]
    fn with_message<R>(&self, body: impl FnOnce(*mut M) -> R) -> R {
        match self.message {
            Lies::InBlock(message) => message.with_mut(|place| body(place.cast())),
            Lies::InQueue(message) => message.with_mut(|place| body(place.cast())),
        }
    }

    /// What lies beside the message, as `kind` says.
    ///
    /// # Safety
    /// The slot is ready and of this `kind`, and this is asked once.
    #[inline]
    unsafe fn take_extra(&self, kind: u8) -> Extra {
        // SAFETY: the field was written before `ready` was, and is read once, as the caller promises.
        unsafe {
            match kind {
                EXPIRING => Extra::Expires(self.extra.with_mut(|slot| (*slot).expires)),
                MARKED => {
                    let mark = self
                        .extra
                        .with_mut(|slot| ManuallyDrop::take(&mut (*slot).mark));
                    Extra::Marked(mark)
                }
                _ => Extra::None,
            }
        }
    }

    /// # Safety
    /// The slot is ready, and this is asked once.
    #[inline]
    unsafe fn take_message(&self) -> M {
        // SAFETY: `ready` says that it was written; the caller sees to it that it is read once.
        unsafe { self.with_message(|place| place.read()) }
    }
}

impl<M, T> Queue<M, T> {
    /// Whether messages of this type use the place that is the queue's own.
    const HAS_OWN: bool =
        size_of::<M>() <= size_of::<Room>() && align_of::<M>() <= align_of::<Room>();
    /// The place in its lap of the first message after an idle time.
    const FIRST: u64 = (if Self::HAS_OWN { OWN } else { OWN + 1 }) as u64;

    /// An empty queue whose token is with the caller.
    pub(crate) fn new(capacity: u32, diverted: bool, middle: T) -> (Self, Consumer) {
        let queue = Self {
            tail: AtomicU64::new(Self::FIRST << SHIFT | if diverted { DIVERTED } else { 0 }),
            tail_block: AtomicPtr::new(null_mut()),
            limit: AtomicU64::new(count(Self::FIRST) + u64::from(capacity)),
            middle,
            head: AtomicU64::new(Self::FIRST),
            head_block: AtomicPtr::new(null_mut()),
            capacity,
            signals: AtomicU8::new(0),
            own_ready: AtomicU8::new(EMPTY),
            spare: AtomicU16::new(0),
            own_extra: UnsafeCell::new(Packed { expires: 0 }),
            own_message: UnsafeCell::new(MaybeUninit::uninit()),
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
                return Err((refusal, message, extra));
            }
            let block = self.tail_block.load(Acquire);
            let ends_block = place + 1 == CAP;
            let is_own = Self::HAS_OWN && place == OWN && block.is_null();
            let begins_block = block.is_null() && !is_own;
            if begins_block || ends_block {
                next = Some(match next.take() {
                    // SAFETY: allocated here, and nobody else knows it.
                    Some(next) if unsafe { next.as_ref().is_short } == begins_block => next,
                    other => {
                        free_unused(other);
                        Block::allocate(begins_block)
                    }
                });
            }
            let woken = if word & IDLE == 0 { 0 } else { IDLE | PARKED };
            let flags = word & FLAGS & !woken;
            let wake = Wake(woken != 0);
            let changing = begins_block || ends_block;
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
            if begins_block {
                self.begin_block(index, flags, next.take(), message, extra);
                return Ok(wake);
            }
            if is_own {
                free_unused(next);
                // SAFETY: the compare-and-swap claimed this place.
                unsafe { self.own_slot().put(message, extra) };
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

    /// The first message after an idle time that needs a block: the index stands at the end of its
    /// lap, so this thread alone may change blocks.
    fn begin_block(
        &self,
        index: u64,
        flags: u64,
        block: Option<NonNull<Block<M>>>,
        message: M,
        extra: Extra,
    ) {
        let block = block.map_or(null_mut(), NonNull::as_ptr);
        debug_assert!(index % LAP == OWN as u64 + 1, "a short block begins there");
        // SAFETY: the block is new and short, and nobody else knows it.
        unsafe { Block::put(block, OWN + 1, message, extra) };
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
        self.own_ready.store(EMPTY, Relaxed);
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
    pub(crate) fn look(&self, _: &Consumer) -> Look {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        let place = (index % LAP) as usize;
        // SAFETY: the block at the head is freed only by the holder of the consumer, in `pass`.
        if let Some(slot) = unsafe { self.slot(block, place) } {
            match slot.ready.load(Acquire) {
                MESSAGE => return Look::Message,
                EXPIRING => {
                    // SAFETY: written before `ready` was, as the kind says.
                    let at = unsafe { slot.extra.with_mut(|slot| (*slot).expires) };
                    return Look::Expires(at);
                }
                MARKED => return Look::Other,
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
        // SAFETY: as above.
        let slot = unsafe { self.slot(block, place) }.expect("it was seen before");
        let kind = slot.ready.load(Acquire);
        assert!(kind != EMPTY, "it was seen before");
        if kind == MARKED {
            // SAFETY: ready, of this kind, and passed below.
            drop(unsafe { slot.take_extra(kind) });
        }
        // SAFETY: ready, and passed below.
        let message = unsafe { slot.take_message() };
        self.pass(block, index);
        message
    }

    /// Takes the next message.
    pub(crate) fn pop(&self, _: &mut Consumer) -> Popped<M> {
        let block = self.head_block.load(Acquire);
        let index = self.head.load(Relaxed);
        let place = (index % LAP) as usize;
        // SAFETY: as above.
        let Some(slot) = (unsafe { self.slot(block, place) }) else {
            return self.nothing(index);
        };
        let kind = slot.ready.load(Acquire);
        if kind == EMPTY {
            return self.nothing(index);
        }
        // SAFETY: ready, of this kind, and passed below.
        let (message, extra) = unsafe { (slot.take_message(), slot.take_extra(kind)) };
        self.pass(block, index);
        Popped::Message(message, extra)
    }

    /// The slot of this place, if it has one yet. `block` is the one at the head.
    ///
    /// # Safety
    /// For the consumer.
    #[inline]
    unsafe fn slot(&self, block: *mut Block<M>, place: usize) -> Option<Slot<'_, M>> {
        if Self::HAS_OWN && place == OWN {
            // SAFETY: the consumer frees the block at the head, nobody else.
            let is_own = block.is_null() || unsafe { (*block).is_short };
            if is_own {
                return Some(self.own_slot());
            }
        }
        if block.is_null() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { Block::slot(block, place) })
    }

    #[inline]
    fn own_slot(&self) -> Slot<'_, M> {
        debug_assert!(Self::HAS_OWN, "a message fits");
        Slot {
            ready: &self.own_ready,
            message: Lies::InQueue(&self.own_message),
            extra: &self.own_extra,
        }
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
