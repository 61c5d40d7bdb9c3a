//! Sync: locks, and the atomic types that a model checker can stand in for.

#[cfg(otava_loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
#[cfg(not(otava_loom))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(otava_loom)]
pub(crate) use loom::cell::UnsafeCell;

/// A cell with the interface of loom's, which sees when two threads are in it.
#[cfg(not(otava_loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(otava_loom))]
impl<T> UnsafeCell<T> {
    #[inline]
    pub(crate) fn with_mut<R>(&self, body: impl FnOnce(*mut T) -> R) -> R {
        body(self.0.get())
    }
}

/// Locks `mutex`. No code of users runs under a lock of this crate, so a poisoned one was left in
/// good order and is used on.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits a moment for another thread that is in the middle of a few instructions. That thread may
/// have been taken off its core, so from the `tries`-th time on this gives up the rest of the slice.
pub(crate) fn spin(tries: &mut u32) {
    #[cfg(otava_loom)]
    loom::thread::yield_now();
    *tries += 1;
    if *tries < 32 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
