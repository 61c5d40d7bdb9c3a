//! Sync: locks, and the atomic types that a model checker can stand in for.
//!
//! With `--cfg otava_loom` (`scripts/loom.sh`) what the mailbox, a cell and the port of an ask consist
//! of comes from loom. Everything else of the crate keeps the locks of the standard library.

#[cfg(otava_loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::Mutex,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering},
};
#[cfg(not(otava_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering},
};

#[cfg(otava_loom)]
pub(crate) use modelled::lock;

/// A cell with the interface of loom's, which sees when two threads are in it.
#[cfg(not(otava_loom))]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(otava_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, body: impl FnOnce(*mut T) -> R) -> R {
        body(self.0.get())
    }
}

/// On cache lines of its own: threads that change it do not disturb those who read its neighbours.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Apart<T>(pub(crate) T);

/// Locks `mutex`. No code of users runs under a lock of this crate, so a poisoned one was left in
/// good order and is used on.
#[cfg(not(otava_loom))]
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

#[cfg(otava_loom)]
mod modelled {
    use std::sync::PoisonError;

    /// Both kinds of locks occur in a model.
    pub(crate) trait Lock {
        type Guard<'a>
        where
            Self: 'a;

        fn locked(&self) -> Self::Guard<'_>;
    }

    impl<T> Lock for loom::sync::Mutex<T> {
        type Guard<'a>
            = loom::sync::MutexGuard<'a, T>
        where
            T: 'a;

        fn locked(&self) -> Self::Guard<'_> {
            self.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T: ?Sized> Lock for std::sync::Mutex<T> {
        type Guard<'a>
            = std::sync::MutexGuard<'a, T>
        where
            T: 'a;

        fn locked(&self) -> Self::Guard<'_> {
            self.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    // Where the one of `std` dereferences.
    impl<L: Lock + ?Sized> Lock for Box<L> {
        type Guard<'a>
            = L::Guard<'a>
        where
            L: 'a;

        fn locked(&self) -> Self::Guard<'_> {
            (**self).locked()
        }
    }

    impl<L: Lock + ?Sized> Lock for std::sync::Arc<L> {
        type Guard<'a>
            = L::Guard<'a>
        where
            L: 'a;

        fn locked(&self) -> Self::Guard<'_> {
            (**self).locked()
        }
    }

    pub(crate) fn lock<L: Lock>(mutex: &L) -> L::Guard<'_> {
        mutex.locked()
    }
}
