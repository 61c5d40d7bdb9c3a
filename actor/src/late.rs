//! Late: a box that most never need, made by whoever needs it first; one pointer until then.
#![allow(
    unsafe_code,
    reason = "a `OnceLock` takes a word more, in each of a million idle actors (docs/speed.md)"
)]

use crate::sync::AtomicPtr;
use crate::sync::Ordering::{AcqRel, Acquire};
use std::marker::PhantomData;
use std::ptr::null_mut;

/// Once there, the value stays where it is for as long as this lives.
pub(crate) struct Late<T> {
    place: AtomicPtr<T>,
    owned: PhantomData<T>,
}

// SAFETY: as a `Box<T>` that is shared: `&T` is handed out, and the value may have come from another
// thread.
unsafe impl<T: Send + Sync> Sync for Late<T> {}
// SAFETY: it owns a `T`.
unsafe impl<T: Send> Send for Late<T> {}

impl<T> Late<T> {
    /// `value`: what is there already.
    pub(crate) fn new(value: Option<Box<T>>) -> Self {
        Self {
            place: AtomicPtr::new(value.map_or(null_mut(), Box::into_raw)),
            owned: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: it is null or came from a box. Nobody takes it away or makes a mutable reference
        // before the drop; it was written before the pointer was stored (release).
        unsafe { self.place.load(Acquire).as_ref() }
    }

    /// The value. If two threads make one at once, one of the two is dropped.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let made = Box::into_raw(Box::new(make()));
        let stored = self
            .place
            .compare_exchange(null_mut(), made, AcqRel, Acquire);
        // SAFETY: the first is ours, stored a moment ago; the second as in `get`.
        match stored {
            Ok(_) => unsafe { &*made },
            Err(other) => {
                // SAFETY: it came from a box just here, and was not stored.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: as in `get`.
                unsafe { &*other }
            }
        }
    }
}

impl<T> Drop for Late<T> {
    fn drop(&mut self) {
        let place = self.place.load(Acquire);
        if !place.is_null() {
            // SAFETY: it came from a box, and nobody has this any more.
            drop(unsafe { Box::from_raw(place) });
        }
    }
}

#[cfg(all(test, not(otava_loom)))]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[test]
    fn threads_that_make_it_at_once_see_the_same_one() {
        let token = Arc::new(());
        for _ in 0..100 {
            let late = Late::new(None);
            assert!(late.get().is_none());
            let begin = Barrier::new(2);
            let make = || {
                begin.wait();
                std::ptr::from_ref(late.get_or_make(|| token.clone())).addr()
            };
            let (one, other) = std::thread::scope(|scope| {
                let other = scope.spawn(make);
                (make(), other.join().unwrap())
            });
            assert_eq!(one, other);
            drop(late);
            assert_eq!(Arc::strong_count(&token), 1, "each was dropped once");
        }
        drop(Late::new(Some(Box::new(token.clone()))));
        assert_eq!(Arc::strong_count(&token), 1);
    }
}
