//! Actor: the trait that users implement.

use crate::context::Context;
use crate::watch::Terminated;
use std::any::TypeId;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll};

/// State that is touched by one message at a time.
///
/// Write the methods as plain `async fn`. A handler has `&mut self` for as long as it runs, awaits
/// included: the next message is handled when it is done. Everything an actor does runs on tokio's
/// workers, so tokio's timers and sockets work in it, and blocking calls do not belong in it.
///
/// # Failure
/// A returned `Err` and a panic are the same event, a failure. What follows is decided where the
/// actor was spawned ([`crate::Supervision`]): it stops, goes on, or is made anew, or its parent
/// fails too. The message that failed is not handled again.
///
/// One thing cannot be contained: a value whose `Drop` panics while a panic unwinds over it. The
/// language ends the process then.
///
/// # Behaviour that changes
/// An actor that behaves differently in each of its states keeps an enum of them: the example
/// `traffic_light` shows how.
///
/// # Examples
/// ```
/// use otava_actor::{Actor, ActorSystem, Context, ReplyTo};
///
/// struct Counter(u64);
///
/// enum Message {
///     Add(u64),
///     Get(ReplyTo<u64>),
/// }
///
/// impl Actor for Counter {
///     type Msg = Message;
///     type Err = std::convert::Infallible;
///
///     async fn handle(&mut self, msg: Message, _: &mut Context<Self>) -> Result<(), Self::Err> {
///         match msg {
///             Message::Add(n) => self.0 += n,
///             Message::Get(reply_to) => {
///                 // Whether the asker still waits does not matter here.
///                 let _ = reply_to.send(self.0);
///             }
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let system = ActorSystem::new("example");
/// let counter = system.spawn("counter", Counter(40))?;
/// counter.tell(Message::Add(2))?;
/// assert_eq!(counter.ask(Message::Get).await?, 42);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no actor",
    note = "implement `Actor` for it, or put `#[actor]` at its implementation of a protocol"
)]
pub trait Actor: Sized + Send + 'static {
    /// What this actor understands. Usually an enum; it need not be `Debug`, `Clone` or `Sync`.
    type Msg: Send + 'static;

    /// What a hook, a handler or a factory may fail with. A decider sees it ([`crate::Props::decide`]),
    /// the log has it as text.
    type Err: Display + Send + 'static;

    /// Runs before the first message, once for each instance (so again after a restart).
    fn started(
        &mut self,
        _ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Self::Err>> + Send {
        NoHook::<Result<(), Self::Err>>(PhantomData)
    }

    /// Handles one message.
    fn handle(
        &mut self,
        msg: Self::Msg,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Self::Err>> + Send;

    /// An actor that this one watches has ended: told exactly once, after everything that the dead
    /// actor sent to this one.
    fn terminated(
        &mut self,
        _who: Terminated,
        _ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Self::Err>> + Send {
        async { Ok(()) }
    }

    /// The end of this instance, but not of the actor: another instance will follow. Runs on an
    /// instance that failed and is to be replaced, and on one that restarts with its group
    /// ([`crate::Group`]). The place to give something back while children still live.
    ///
    /// The order of a restart: `restarting`, then the children end (unless they are kept), the
    /// instance is dropped, a back-off waits, the factory runs, `started` runs, and the next message
    /// is handled. A panic in this hook is logged, and the restart goes on. It does not run if there
    /// is no instance, because the factory failed.
    fn restarting(&mut self, _ctx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The end: no message follows, all children have ended. Runs once for the instance that ends
    /// for good, also after a failure, and not for an instance that a restart replaces.
    fn stopped(&mut self, _ctx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        NoHook::<()>(PhantomData)
    }
}

/// The hook of an actor that has none of its own. Only this file makes one, so an actor whose hook
/// has this type has nothing to run there.
struct NoHook<T>(PhantomData<fn() -> T>);

impl<E> Future for NoHook<Result<(), E>> {
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

impl Future for NoHook<()> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Whether actors of this type do something when they start.
pub(crate) fn has_start_hook<A: Actor>() -> bool {
    !is_none::<A, _, Result<(), A::Err>>(|actor, ctx| actor.started(ctx))
}

/// Whether actors of this type do something when they end.
pub(crate) fn has_stop_hook<A: Actor>() -> bool {
    !is_none::<A, _, ()>(|actor, ctx| actor.stopped(ctx))
}

/// Asks for a type only; the hook is not called.
fn is_none<A: Actor, F: 'static, T: 'static>(
    _: impl FnOnce(&'static mut A, &'static mut Context<A>) -> F,
) -> bool {
    TypeId::of::<F>() == TypeId::of::<NoHook<T>>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    struct Plain;

    impl Actor for Plain {
        type Msg = ();
        type Err = Infallible;

        async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Infallible> {
            Ok(())
        }
    }

    struct Hooked;

    impl Actor for Hooked {
        type Msg = ();
        type Err = Infallible;

        fn started(
            &mut self,
            _: &mut Context<Self>,
        ) -> impl Future<Output = Result<(), Infallible>> + Send {
            std::future::ready(Ok(()))
        }

        async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Infallible> {
            Ok(())
        }

        async fn stopped(&mut self, _: &mut Context<Self>) {}
    }

    #[test]
    fn hooks_of_an_actors_own_are_told_from_those_of_the_trait() {
        assert!(!has_start_hook::<Plain>() && !has_stop_hook::<Plain>());
        assert!(has_start_hook::<Hooked>() && has_stop_hook::<Hooked>());
    }
}
