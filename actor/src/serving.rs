//! Serving: the activation of an actor that only has messages to handle, as almost always.
//!
//! [`crate::life`] says what an actor does, as one `async fn`. That function's state holds what any
//! of its paths may need, and all of it is moved when an activation begins. Serving is the one path
//! that every message takes, written by hand: the future of a handler, and a pointer to the life it
//! borrows from. As soon as anything else is to be done (a stop, news, a timer, a failure), it gives
//! the life back and `life.rs` takes over.
#![allow(
    unsafe_code,
    reason = "measured: a hop by the async fn alone takes 1.7 times as long (docs/speed.md)"
)]

use crate::actor::Actor;
use crate::body::{Active, Dormant, Outcome, Served};
use crate::context::{Context, Next};
use crate::failure::{Failure, describe_panic, drop_guarded};
use crate::life::Life;
use crate::mailbox::Seen;
use std::future::Future;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{self, Poll};

/// `start` makes the future of a handler; its borrows are said to be `'static`, which this type sees
/// to: see the safety notes below.
struct Serving<A: Actor, H, S> {
    /// Whether `handler` is there.
    busy: bool,
    hook: Hook,
    /// Owned, unless [`serve`] is at work, which has it lent. A pointer and not a `Box`, since a `Box`
    /// may not be moved while its content is borrowed. `None` once it was given away.
    life: Option<NonNull<Life<A>>>,
    start: S,
    /// Borrows from `life`. Pinned here; dropped before `life` is given away.
    handler: MaybeUninit<H>,
}

/// The start hook of a new instance takes the same way as a message.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Hook {
    /// `start` makes the future of a handler, for each message.
    No,
    /// `start` makes the future of the hook, once.
    Due,
    Begun,
}

// SAFETY: it owns a `Life`, which is `Send`, and a handler's future, which is `Send`.
unsafe impl<A: Actor, H: Send, S: Send> Send for Serving<A, H, S> {}

/// Serves `life`, which has an instance, until there is nothing to do or a handler is pending. Then it
/// belongs to `pending`, and the caller forgets its box.
#[inline]
pub(crate) fn serve<A: Actor>(
    life: &mut Life<A>,
    cx: &mut task::Context<'_>,
    pending: &mut Option<Active>,
) -> Served {
    let place = begin(
        NonNull::from(life),
        Hook::No,
        |actor: &'static mut A, ctx: &'static mut Context<A>, seen| {
            // SAFETY: passed on from the look that came just before.
            let message = seen.map(|seen| unsafe { ctx.take_message(seen) });
            let message = message.expect("without a hook there is a message");
            actor.handle(message, ctx)
        },
    );
    // Not as an `Active`, which would go through a table of functions for each step, and with a result
    // that fits into a register: an outcome is moved twice, each time before its parts have left the
    // store buffer. Should this panic, which is a bug of ours, then it is leaked with its life: whoever
    // runs the actor still has to name it.
    // SAFETY: begun just now, and it stays in its place.
    let served = unsafe { (*place.as_ptr()).advance(cx) };
    if served == Served::Pending {
        // SAFETY: a whole future in its place.
        *pending = Some(unsafe { Active::from_raw(place) });
    } else {
        // SAFETY: no handler is there, and the life is the caller's, so there is nothing to drop.
        unsafe { Active::give_back(place) };
    }
    served
}

/// The first activation of `life`, which has an instance: its start hook.
pub(crate) fn start<A: Actor>(life: Box<Life<A>>) -> Active {
    let place = begin(
        NonNull::from(Box::leak(life)),
        Hook::Due,
        |actor: &'static mut A, ctx: &'static mut Context<A>, _| actor.started(ctx),
    );
    // SAFETY: a whole future in its place.
    unsafe { Active::from_raw(place) }
}

#[inline]
fn begin<A, H, S>(life: NonNull<Life<A>>, hook: Hook, start: S) -> NonNull<Serving<A, H, S>>
where
    A: Actor,
    H: Future<Output = Result<(), A::Err>> + Send + 'static,
    S: Fn(&'static mut A, &'static mut Context<A>, Option<Seen<A::Msg>>) -> H + Send + 'static,
{
    let place = Active::allocate::<Serving<A, H, S>>();
    let serving = place.as_ptr();
    // SAFETY: the memory is ours. All fields are written but `handler`, which may be uninitialised.
    unsafe {
        (&raw mut (*serving).busy).write(false);
        (&raw mut (*serving).hook).write(hook);
        (&raw mut (*serving).life).write(Some(life));
        (&raw mut (*serving).start).write(start);
    }
    place
}

impl<A, H, S> Future for Serving<A, H, S>
where
    A: Actor,
    H: Future<Output = Result<(), A::Err>>,
    S: Fn(&'static mut A, &'static mut Context<A>, Option<Seen<A::Msg>>) -> H,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Outcome> {
        // SAFETY: the handler is not moved out of its place below.
        let this = unsafe { self.get_unchecked_mut() };
        match this.advance(cx) {
            Served::Pending => Poll::Pending,
            Served::Idle => this.give_back(Outcome::Idle),
            Served::Other => this.give_back(Outcome::Other),
            Served::Started => this.give_back(Outcome::Started),
            Served::TurnOver => this.give_back(Outcome::TurnOver),
        }
    }
}

impl<A, H, S> Serving<A, H, S>
where
    A: Actor,
    H: Future<Output = Result<(), A::Err>>,
    S: Fn(&'static mut A, &'static mut Context<A>, Option<Seen<A::Msg>>) -> H,
{
    /// Goes on until there is a reason not to. It is in its place for good.
    #[inline]
    fn advance(&mut self, cx: &mut task::Context<'_>) -> Served {
        let this = self;
        let Some(mut life) = this.life else {
            return Served::Other;
        };
        if !this.busy {
            // SAFETY: the life is ours and no handler borrows from it.
            unsafe { life.as_mut() }.ctx.begin_turn();
        }
        loop {
            if !this.busy {
                // SAFETY: the life is ours and no handler borrows from it. The borrows end with this
                // block, except those that go into the handler.
                let Life { ctx, actor, .. } = unsafe { life.as_mut() };
                let seen = match this.hook {
                    Hook::No => match ctx.look() {
                        Next::Message(seen) => Some(seen),
                        Next::Nothing => return Served::Idle,
                        Next::TurnOver => return Served::TurnOver,
                        Next::Other => return Served::Other,
                    },
                    Hook::Due => {
                        this.hook = Hook::Begun;
                        None
                    }
                    Hook::Begun => return Served::Started,
                };
                let Some(actor) = actor else {
                    return Served::Other;
                };
                let start = &this.start;
                let started = catch_unwind(AssertUnwindSafe(move || {
                    // Moved in, so that they may live as long as the handler.
                    let (actor, ctx) = (actor, ctx);
                    start(actor, ctx, seen)
                }));
                match started {
                    Ok(handler) => {
                        this.handler.write(handler);
                        this.busy = true;
                    }
                    Err(panic) => return this.fail(Failure::Panic(describe_panic(panic))),
                }
            }
            // SAFETY: `busy` says that it is there; it stays where it is until it is dropped there.
            let handler = unsafe { Pin::new_unchecked(this.handler.assume_init_mut()) };
            match catch_unwind(AssertUnwindSafe(|| handler.poll(cx))) {
                Ok(Poll::Pending) => return Served::Pending,
                Ok(Poll::Ready(Ok(()))) => this.drop_handler(),
                Ok(Poll::Ready(Err(error))) => return this.fail(Failure::Error(error)),
                Err(panic) => return this.fail(Failure::Panic(describe_panic(panic))),
            }
        }
    }
}

impl<A: Actor, H, S> Serving<A, H, S> {
    /// Drops the handler in its place, if there is one.
    #[inline]
    fn drop_handler(&mut self) {
        if !std::mem::take(&mut self.busy) || !std::mem::needs_drop::<H>() {
            return;
        }
        // SAFETY: it was there, and is not any more by what `busy` says.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe {
            self.handler.assume_init_drop();
        }));
        if let Err(panic) = dropped {
            let panic = describe_panic(panic);
            tracing::warn!(panic, "dropping what a handler left failed");
        }
    }

    #[cold]
    fn fail(&mut self, failure: Failure<A::Err>) -> Served {
        self.drop_handler();
        if let Some(life) = &mut self.life {
            // SAFETY: the life is ours, and no handler borrows from it any more.
            unsafe { life.as_mut() }.crash(failure);
        }
        Served::Other
    }

    /// The life goes back to its cell.
    #[inline]
    fn give_back(&mut self, outcome: impl FnOnce(Box<dyn Dormant>) -> Outcome) -> Poll<Outcome> {
        debug_assert!(!self.busy, "a handler borrows from the life");
        Poll::Ready(match self.life.take() {
            // SAFETY: it came from a box, is given away once, and no handler borrows from it.
            Some(life) => outcome(unsafe { Box::from_raw(life.as_ptr()) }),
            None => Outcome::Ended,
        })
    }
}

impl<A: Actor, H, S> Drop for Serving<A, H, S> {
    fn drop(&mut self) {
        // Only an actor that is ended from outside still has a life here.
        if let Some(life) = self.life.take() {
            self.drop_handler();
            // SAFETY: as in `give_back`.
            drop_guarded(unsafe { Box::from_raw(life.as_ptr()) });
        }
    }
}
