//! Lock: how this crate takes a mutex.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes it also when another holder has panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
