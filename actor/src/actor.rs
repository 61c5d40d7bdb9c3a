//! Actor: the trait that users implement.

use crate::context::Context;
use crate::watch::Terminated;
use std::fmt::Display;
use std::future::Future;

/// State that is touched by one message at a time.
///
/// Write the methods as plain `async fn`. A handler has `&mut self` for as long as it runs, awaits
/// included: the next message is handled when it is done. Everything an actor does runs on tokio's
/// workers, so tokio's timers and sockets work in it, and blocking calls do not belong in it.
///
/// # Failure
/// A returned `Err` and a panic are the same event, a failure. What follows is decided where the
/// actor was spawned ([`crate::Supervision`]): it stops, or it is made anew and goes on with the
/// next message. The message that failed is not handled again.
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
pub trait Actor: Sized + Send + 'static {
    /// What this actor understands. Usually an enum; it need not be `Debug`, `Clone` or `Sync`.
    type Msg: Send + 'static;

    /// What a hook or handler may fail with. It is logged and then decides nothing else.
    type Err: Display + Send + 'static;

    /// Runs before the first message, once for each instance (so again after a restart).
    fn started(
        &mut self,
        _ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Self::Err>> + Send {
        async { Ok(()) }
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

    /// The end: no message follows, all children have ended. Runs once for the instance that ends
    /// for good, also after a failure, and not for an instance that a restart replaces.
    fn stopped(&mut self, _ctx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        async {}
    }
}
