//! Slot: a place for one value that its owner uses almost for free, and others can empty.
//!
//! A worker keeps the actor that it runs next here. Nobody else looks at it, until the worker is
//! stuck inside another actor: then whoever noticed takes the value out ([`Slot::rescue`]).
//!
//! ```text
//!           owner writes, then stores               rescuer, by compare-and-swap
//!   EMPTY --------------------------------> FULL ------------------------------> TAKEN
//!     ^  ^     by compare-and-swap, owner    |                                     |
//!     |  +-----------------------------------+          rescuer has read, stores   |
//!     +----------------------------------------------------------------------------+
//! ```
//!
//! # Why it is sound
//! - The value is there exactly in `FULL` and `TAKEN`. Whoever moves the word out of `FULL` has the
//!   value, and there is one such thread, since both do it by a compare-and-swap.
//! - Only the owner writes the value, and only in `EMPTY`, which it alone leaves. In `TAKEN` it keeps
//!   away. The rescuer's store of `EMPTY` (release) comes after its read, and the owner loads the
//!   word (acquire) before it writes.
//!
//! Checked by the loom model below.
#![allow(
    unsafe_code,
    reason = "measured: a lock costs two locked instructions and a fence a hop, this costs one"
)]

use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU8, UnsafeCell};
use std::mem::MaybeUninit;
use std::sync::Arc;

const EMPTY: u8 = 0;
const FULL: u8 = 1;
const TAKEN: u8 = 2;

/// The place, for those who may empty it.
#[repr(align(64))]
pub(crate) struct Slot<T> {
    state: AtomicU8,
    place: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: a value is handed from thread to thread, never shared: see above.
unsafe impl<T: Send> Sync for Slot<T> {}
// SAFETY: it owns a value that is `Send`.
unsafe impl<T: Send> Send for Slot<T> {}

/// The right to fill the place. One exists for each slot.
pub(crate) struct SlotOwner<T>(Arc<Slot<T>>);

impl<T> Slot<T> {
    pub(crate) fn new() -> (SlotOwner<T>, Arc<Self>) {
        let slot = Arc::new(Self {
            state: AtomicU8::new(EMPTY),
            place: UnsafeCell::new(MaybeUninit::uninit()),
        });
        (SlotOwner(slot.clone()), slot)
    }

    /// Takes the value out, from any thread.
    pub(crate) fn rescue(&self) -> Option<T> {
        if self.state.load(Relaxed) != FULL {
            return None;
        }
        self.state
            .compare_exchange(FULL, TAKEN, Acquire, Relaxed)
            .ok()?;
        // SAFETY: it was there, and this thread alone has moved the word out of `FULL`. The owner
        // does not write before it sees the store below.
        let value = self
            .place
            .with_mut(|place| unsafe { (*place).assume_init_read() });
        self.state.store(EMPTY, Release);
        Some(value)
    }
}

impl<T> SlotOwner<T> {
    /// Puts `value` in. Comes back: what was there before, or the value itself if a rescuer is just
    /// at work here.
    #[inline]
    pub(crate) fn replace(&mut self, value: T) -> Option<T> {
        let before = self.take();
        if self.0.state.load(Acquire) != EMPTY {
            debug_assert!(before.is_none(), "a rescuer has what was there");
            return Some(value);
        }
        // SAFETY: in `EMPTY` there is no value, and nobody else touches the place.
        self.0
            .place
            .with_mut(|place| unsafe { _ = (*place).write(value) });
        self.0.state.store(FULL, Release);
        before
    }

    /// Takes the value out.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<T> {
        let state = &self.0.state;
        if state.load(Relaxed) != FULL {
            return None;
        }
        state.compare_exchange(FULL, EMPTY, Acquire, Relaxed).ok()?;
        // SAFETY: it was there, this thread alone has moved the word out of `FULL`, and only this
        // owner, which is borrowed here, writes.
        Some(
            self.0
                .place
                .with_mut(|place| unsafe { (*place).assume_init_read() }),
        )
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        drop(self.rescue());
    }
}

#[cfg(all(test, not(otava_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_taken_once() {
        let token = Arc::new(());
        let (mut owner, slot) = Slot::new();
        assert_eq!(owner.take(), None);
        assert_eq!(slot.rescue(), None);
        assert_eq!(owner.replace(token.clone()), None);
        assert!(owner.replace(token.clone()).is_some());
        assert!(slot.rescue().is_some());
        assert_eq!((owner.take(), slot.rescue()), (None, None));
        assert_eq!(owner.replace(token.clone()), None);
        assert!(owner.take().is_some());
        assert_eq!(owner.replace(token.clone()), None);
        drop((owner, slot));
        assert_eq!(Arc::strong_count(&token), 1, "the last one is dropped too");
    }
}

#[cfg(all(test, otava_loom))]
mod models {
    use super::*;

    /// The owner fills and empties while a rescuer looks in: each value comes out once.
    #[test]
    fn a_rescued_value_comes_out_once() {
        loom::model(|| {
            let (mut owner, slot) = Slot::new();
            let rescuer = loom::thread::spawn(move || {
                let mut found = Vec::new();
                found.extend(slot.rescue());
                found.extend(slot.rescue());
                found
            });
            let mut found = Vec::new();
            for n in 0..3 {
                // Boxed, so that loom's leak and double-free checks have something to see.
                found.extend(owner.replace(Box::new(n)));
            }
            found.extend(owner.take());
            found.extend(rescuer.join().unwrap());
            // What a rescuer was about to put down can only be there if the owner did not see it.
            let mut found: Vec<i32> = found.into_iter().map(|n| *n).collect();
            found.sort_unstable();
            assert_eq!(found, [0, 1, 2]);
        });
    }
}
