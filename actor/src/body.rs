//! Body: an actor in the form in which it is now, and the place where its token's holder finds it.
#![allow(
    unsafe_code,
    reason = "measured: a lock around the body and a plain Box cost 30 ns an activation (docs/speed.md)"
)]

use crate::pool;
use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// An actor between two activations.
pub(crate) trait Dormant: Send {
    /// The next activation.
    fn wake(self: Box<Self>) -> Active;
    /// The same, where more than messages is to be looked at.
    fn wake_for_other(self: Box<Self>) -> Active;
}

/// How an activation ended.
pub(crate) enum Outcome {
    Ended,
    /// There is nothing to do.
    Idle(Box<dyn Dormant>),
    /// There is more to be looked at than messages.
    Other(Box<dyn Dormant>),
    TurnOver(Box<dyn Dormant>),
}

/// The actor itself.
pub(crate) enum Body {
    Active(Active),
    Dormant(Box<dyn Dormant>),
    /// Not yet there, with the one who has the token, or no more.
    None,
}

/// Where the body lies.
pub(crate) struct Place(UnsafeCell<Body>);

// SAFETY: the methods that touch the body ask for the token, of which there is one; it passes from
// thread to thread through the queue's word (acquire and release), and the body is `Send`.
unsafe impl Sync for Place {}

impl Place {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(Body::None))
    }

    /// # Safety
    /// The caller holds the token of this actor.
    #[inline]
    pub(crate) unsafe fn take(&self) -> Body {
        // SAFETY: nobody else is here, as the caller promises; no reference leaves this line.
        unsafe { std::mem::replace(&mut *self.0.get(), Body::None) }
    }

    /// # Safety
    /// The caller holds the token of this actor, and took the body out before.
    #[inline]
    pub(crate) unsafe fn put(&self, body: Body) {
        // SAFETY: as above. What is overwritten is `None`, so nothing is dropped.
        unsafe { *self.0.get() = body }
    }
}

/// An actor at work: a future that is polled in place and kept only while a handler is pending. Its
/// memory comes from the pool of the thread.
pub(crate) struct Active(NonNull<dyn Future<Output = Outcome> + Send>);

// SAFETY: it owns the future, which is `Send`.
unsafe impl Send for Active {}

impl Active {
    #[inline]
    pub(crate) fn new<F: Future<Output = Outcome> + Send + 'static>(future: F) -> Self {
        let place = Self::allocate::<F>();
        // SAFETY: the memory is of this layout, and what lies there is a future from now on.
        unsafe {
            place.write(future);
            Self::from_raw(place)
        }
    }

    /// Memory for a future that is put together in its place, because moving it would cost.
    #[inline]
    pub(crate) fn allocate<F>() -> NonNull<F> {
        const { assert!(size_of::<F>() > 0, "it holds at least a life") };
        pool::allocate(Layout::new::<F>()).cast::<F>()
    }

    /// # Safety
    /// `place` came from [`Active::allocate`], and a whole future was written there.
    #[inline]
    pub(crate) unsafe fn from_raw<F: Future<Output = Outcome> + Send + 'static>(
        place: NonNull<F>,
    ) -> Self {
        Self(place)
    }

    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: the future is ours; it stays where it is until it is dropped there.
        unsafe { Pin::new_unchecked(self.0.as_mut()).poll(cx) }
    }
}

impl Drop for Active {
    #[inline]
    fn drop(&mut self) {
        /// Gives the memory back also if dropping the future panics.
        struct Memory(NonNull<u8>, Layout);
        impl Drop for Memory {
            fn drop(&mut self) {
                // SAFETY: allocated in `new` with the layout of the future.
                unsafe { pool::free(self.0, self.1) }
            }
        }
        // SAFETY: the future is alive and dropped once; its memory is given back after it.
        unsafe {
            let layout = Layout::for_value(self.0.as_ref());
            let _memory = Memory(self.0.cast(), layout);
            self.0.drop_in_place();
        }
    }
}
