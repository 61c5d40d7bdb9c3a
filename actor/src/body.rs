//! Body: an actor in the form in which it is now, and the place where its token's holder finds it.
#![allow(
    unsafe_code,
    reason = "an activation saves a lock and an allocation; what the core gains in all: docs/speed.md"
)]

use crate::pool;
use crate::sync::UnsafeCell;
use std::alloc::Layout;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};

/// An actor between two activations.
pub(crate) trait Dormant: Send {
    /// The first activation.
    fn wake_newborn(self: Box<Self>) -> Active;
    /// A whole activation that handles messages, and no more than that: this never ends the actor.
    /// If a handler is pending, the actor has moved to `pending`: the caller forgets its box.
    fn serve_now(&mut self, cx: &mut Context<'_>, pending: &mut Option<Active>) -> Served;
    /// An activation that looks at more than messages. `None`: that was the end of the actor.
    fn wake_for_other(self: Box<Self>) -> Option<Active>;
}

/// How an activation ended.
pub(crate) enum Outcome {
    Ended,
    /// There is nothing to do.
    Idle(Box<dyn Dormant>),
    /// There is more to be looked at than messages.
    Other(Box<dyn Dormant>),
    /// The start hook went well.
    Started(Box<dyn Dormant>),
    TurnOver(Box<dyn Dormant>),
}

/// How an activation went that handles messages only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Served {
    /// There is nothing to do.
    Idle,
    /// There is more to be looked at than messages.
    Other,
    /// A handler is pending.
    Pending,
    /// The start hook went well.
    Started,
    TurnOver,
}

/// The actor itself.
pub(crate) enum Body {
    Active(Active),
    Dormant(Box<dyn Dormant>),
    /// It has never been active.
    Newborn(Box<dyn Dormant>),
    /// Not yet there, with the one who has the token, or no more.
    None,
}

/// Where the body lies. What it is stands elsewhere ([`Place::take`]): a word less for an idle actor.
pub(crate) struct Place(UnsafeCell<Raw>);

union Raw {
    active: ManuallyDrop<Active>,
    dormant: ManuallyDrop<Box<dyn Dormant>>,
    none: (),
}

/// Which field of [`Raw`] is there. Only the holder of the token touches it.
pub(crate) struct Form(AtomicU8);

const NONE: u8 = 0;
const ACTIVE: u8 = 1;
const DORMANT: u8 = 2;
const NEWBORN: u8 = 3;

impl Form {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(NONE))
    }

    /// Whether somebody has the body at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Relaxed) == NONE
    }
}

// SAFETY: the methods that touch the body ask for the token, of which there is one; it passes from
// thread to thread through the queue's word (acquire and release), and the body is `Send`.
unsafe impl Sync for Place {}
// SAFETY: it owns a body, which is `Send`.
unsafe impl Send for Place {}

impl Place {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(Raw { none: () }))
    }

    /// # Safety
    /// The caller holds the token of this actor, and `form` is always the same for this place.
    #[inline]
    pub(crate) unsafe fn take(&self, form: &Form) -> Body {
        let kind = form.0.load(Relaxed);
        form.0.store(NONE, Relaxed);
        // SAFETY: nobody else is here, as the caller promises, and the form says which field was
        // written; it is read once, since the form is `NONE` now.
        self.0.with_mut(|raw| unsafe {
            match kind {
                ACTIVE => Body::Active(ManuallyDrop::take(&mut (*raw).active)),
                DORMANT => Body::Dormant(ManuallyDrop::take(&mut (*raw).dormant)),
                NEWBORN => Body::Newborn(ManuallyDrop::take(&mut (*raw).dormant)),
                _ => Body::None,
            }
        })
    }

    /// # Safety
    /// As for [`Place::take`], and the caller took out what was here before.
    #[inline]
    pub(crate) unsafe fn put(&self, form: &Form, body: Body) {
        let (raw, kind) = match body {
            Body::Active(active) => {
                let active = ManuallyDrop::new(active);
                (Raw { active }, ACTIVE)
            }
            Body::Dormant(dormant) => {
                let dormant = ManuallyDrop::new(dormant);
                (Raw { dormant }, DORMANT)
            }
            Body::Newborn(dormant) => {
                let dormant = ManuallyDrop::new(dormant);
                (Raw { dormant }, NEWBORN)
            }
            Body::None => (Raw { none: () }, NONE),
        };
        // SAFETY: as above.
        self.0.with_mut(|place| unsafe { place.write(raw) });
        form.0.store(kind, Relaxed);
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

    /// Gives back the memory of a future in which nothing is left to drop.
    ///
    /// # Safety
    /// As for [`Active::from_raw`], and nobody uses it any more.
    #[inline]
    pub(crate) unsafe fn give_back<F>(place: NonNull<F>) {
        // SAFETY: as the caller promises.
        unsafe { pool::free(place.cast(), Layout::new::<F>()) }
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
