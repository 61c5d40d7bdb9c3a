//! Block: where the messages of a queue lie, and what stands beside each of them.
//!
//! What may be read and written when is the queue's to say ([`super::queue`]).
#![allow(
    unsafe_code,
    reason = "messages lie by value, each moved once (docs/speed.md)"
)]

use crate::observe::mark::{Extra, Mark};
use crate::pool;
use crate::sync::Ordering::{Relaxed, Release};
use crate::sync::{AtomicPtr, AtomicU64, UnsafeCell};
use std::alloc::Layout;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

/// Indices in a lap.
pub(super) const LAP: u64 = if cfg!(otava_loom) { 4 } else { 32 };
/// Slots in a block.
pub(super) const CAP: usize = LAP as usize - 1;
/// Slots in the first block after an idle time.
const SHORT: usize = if cfg!(otava_loom) { 2 } else { 3 };
const _: () = assert!(SHORT > 1, "the first message of a block does not end it");
/// The place in its lap that is the queue's own. A short block begins behind it.
pub(super) const OWN: usize = CAP - SHORT - 1;
/// The room in a queue's own place. An idle actor pays for it; larger messages need a block.
pub(super) type Room = [u64; 3];

/// The stamp of a slot without a message.
pub(super) const EMPTY: u64 = 0;
/// The stamp of a message with nothing beside it.
pub(super) const MESSAGE: u64 = 1;
/// A message that expires; the other bits say when.
pub(super) const EXPIRING: u64 = 2;
/// A message with a mark; the other bits are the mark's address, which has zeros for the kind.
const MARKED: u64 = 3;
pub(super) const KIND_BITS: u32 = 2;
pub(super) const KIND: u64 = (1 << KIND_BITS) - 1;
const _: () = assert!(align_of::<Mark>() > KIND as usize);
/// An expiry is never later: after a hundred years.
const EXPIRY_MAX: u64 = u64::MAX >> KIND_BITS;

/// What a block begins with, whatever its length: the type by which blocks are known.
#[repr(C)]
pub(super) struct Block<M> {
    pub(super) next: AtomicPtr<Self>,
    /// The place in its lap of the first slot. A block with [`SHORT`] slots has those for the last
    /// places, one with [`CAP`] has all.
    pub(super) first: usize,
    /// Where the slots begin.
    slots: [Slot<M>; 0],
}

#[repr(C)]
struct Whole<M, const N: usize> {
    block: Block<M>,
    slots: [Slot<M>; N],
}

/// One place of a block.
#[repr(C)]
pub(super) struct Slot<M> {
    /// What is there, in the lowest bits, and what lies beside it.
    pub(super) stamp: AtomicU64,
    pub(super) message: UnsafeCell<MaybeUninit<M>>,
}

/// A slot for any message that fits ([`super::queue::Queue::HAS_OWN`]): its size is no matter of `M`.
#[cfg(not(otava_loom))]
#[repr(transparent)]
pub(super) struct Own<M>(Slot<Room>, PhantomData<M>);
/// The cells of a model cannot be seen as others.
#[cfg(otava_loom)]
pub(super) struct Own<M>(Slot<M>, PhantomData<M>);

impl<M> Own<M> {
    pub(super) fn new() -> Self {
        let slot = Slot {
            stamp: AtomicU64::new(EMPTY),
            message: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Self(slot, PhantomData)
    }

    /// The slot of a message that fits.
    #[inline]
    pub(super) fn slot(&self) -> NonNull<Slot<M>> {
        // A slot of `M` is the beginning of this.
        NonNull::from(self).cast()
    }

    /// There is no message any more.
    #[inline]
    pub(super) fn clear(&self) {
        self.0.stamp.store(EMPTY, Relaxed);
    }
}

impl<M, const N: usize> Whole<M, N> {
    const LAYOUT: Layout = Layout::new::<Self>();

    #[inline]
    fn allocate() -> NonNull<Block<M>> {
        let whole = pool::allocate(Self::LAYOUT).cast::<Self>();
        // SAFETY: the memory is ours and large enough; the messages are left uninitialised, which is
        // what their type says.
        unsafe {
            (&raw mut (*whole.as_ptr()).block).write(Block {
                next: AtomicPtr::new(null_mut()),
                first: CAP - N,
                slots: [],
            });
            for place in 0..N {
                let slot = &raw mut (*whole.as_ptr()).slots[place];
                (&raw mut (*slot).stamp).write(AtomicU64::new(EMPTY));
                #[cfg(otava_loom)]
                (&raw mut (*slot).message).write(UnsafeCell::new(MaybeUninit::uninit()));
            }
        }
        whole.cast()
    }

    /// # Safety
    /// As for [`Block::free`], and the block has this length.
    #[inline]
    unsafe fn free(block: NonNull<Block<M>>) {
        // Loom checks that every access to the block happened before this.
        #[cfg(otava_loom)]
        // SAFETY: the caller gives up the block.
        unsafe {
            let whole = &mut *block.cast::<Self>().as_ptr();
            whole.block.next.with_mut(|_| ());
            for slot in &mut whole.slots {
                slot.stamp.with_mut(|_| ());
                slot.message.with_mut(|_| ());
            }
            std::ptr::drop_in_place(whole);
        }
        // SAFETY: it was allocated with this layout.
        unsafe { pool::free(block.cast(), Self::LAYOUT) }
    }
}

impl<M> Block<M> {
    pub(super) fn is_short(&self) -> bool {
        self.first != 0
    }

    pub(super) fn allocate(is_short: bool) -> NonNull<Self> {
        if is_short {
            Whole::<M, SHORT>::allocate()
        } else {
            Whole::<M, CAP>::allocate()
        }
    }

    /// # Safety
    /// `block` came from [`Block::allocate`], nobody uses it any more, and its messages were taken.
    pub(super) unsafe fn free(block: *mut Self) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: as the caller promises; each by its own length.
        unsafe {
            if (*block.as_ptr()).is_short() {
                Whole::<M, SHORT>::free(block);
            } else {
                Whole::<M, CAP>::free(block);
            }
        }
    }

    /// The slot of this place of a lap.
    ///
    /// # Safety
    /// `block` is alive, and is the one of the index that stands at this place.
    #[inline]
    pub(super) unsafe fn slot(block: *mut Self, place: usize) -> NonNull<Slot<M>> {
        // SAFETY: as the caller promises. The slots lie behind the head in the same piece of memory;
        // nobody makes a mutable reference to one.
        unsafe {
            let first = (&raw mut (*block).slots).cast::<Slot<M>>();
            debug_assert!(
                place < CAP && place >= (*block).first,
                "a place of this block"
            );
            NonNull::new_unchecked(first.add(place - (*block).first))
        }
    }
}

impl<M> Slot<M> {
    /// # Safety
    /// The caller has claimed the place of this slot: nobody else touches it until it is stamped.
    #[inline(always)]
    pub(super) unsafe fn put(&self, message: M, extra: Extra) {
        let stamp = match extra {
            Extra::None => MESSAGE,
            Extra::Expires(at) => at.min(EXPIRY_MAX) << KIND_BITS | EXPIRING,
            Extra::Marked(mark) => Box::into_raw(mark).expose_provenance() as u64 | MARKED,
        };
        // SAFETY: as the caller promises.
        unsafe { self.message.with_mut(|slot| (*slot).write(message)) };
        self.stamp.store(stamp, Release);
    }

    /// What lies beside the message, as `stamp` says.
    ///
    /// # Safety
    /// This is the stamp of the slot, and this is asked once.
    #[inline]
    pub(super) unsafe fn extra(stamp: u64) -> Extra {
        match stamp & KIND {
            EXPIRING => Extra::Expires(stamp >> KIND_BITS),
            MARKED => {
                let mark = std::ptr::with_exposed_provenance_mut((stamp & !KIND) as usize);
                // SAFETY: it came from a box when the slot was stamped, and is taken once.
                Extra::Marked(unsafe { Box::from_raw(mark) })
            }
            _ => Extra::None,
        }
    }

    /// # Safety
    /// The slot is stamped, and this is asked once.
    #[inline]
    pub(super) unsafe fn take_message(&self) -> M {
        // SAFETY: written before the stamp was; the caller sees to it that it is read once.
        unsafe { self.message.with_mut(|slot| (*slot).assume_init_read()) }
    }
}
