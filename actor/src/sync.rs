//! Locking: the one place that says what a poisoned lock means here.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. No code of users runs under a lock of this crate, so a poisoned one was left in
/// good order and is used on.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
