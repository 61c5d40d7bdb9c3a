//! Test kit: a probe that stands in for an actor and says what reached it.

use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::context::Context;
use crate::props::Props;
use crate::system::ActorSystem;
use crate::watch::{Terminated, Watcher};
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;

/// An actor whose messages a test takes out and looks at, in the order in which they arrived.
///
/// Expectations panic when they are not met, with a text that says what came instead. Waiting uses
/// tokio's clock: with a paused clock no real time passes.
///
/// ```
/// use otava_actor::{ActorSystem, testkit::TestProbe};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let system = ActorSystem::new("test");
/// let mut probe = TestProbe::<&str>::new(&system);
/// probe.actor_ref().tell("hello").unwrap();
/// assert_eq!(probe.expect_msg(Duration::from_secs(1)).await, "hello");
/// # }
/// ```
pub struct TestProbe<M> {
    actor: ActorRef<M>,
    system: ActorSystem,
    arrived: mpsc::UnboundedReceiver<Arrived<M>>,
}

enum Arrived<M> {
    Message(M),
    Terminated(Terminated),
}

impl<M> Arrived<M> {
    fn describe(&self) -> String {
        match self {
            Self::Message(_) => format!("a message ({})", std::any::type_name::<M>()),
            Self::Terminated(news) => format!("the end of {} ({:?})", news.path, news.reason),
        }
    }
}

impl<M: Send + 'static> TestProbe<M> {
    /// A probe at the top of `system`, with a made-up name.
    ///
    /// # Panics
    /// If the system is shutting down.
    pub fn new(system: &ActorSystem) -> Self {
        let (sender, arrived) = mpsc::unbounded_channel();
        let actor = system
            .spawn_probe(Props::once(Probe { arrived: sender }))
            .expect("a probe needs a system that is not shutting down");
        Self {
            actor,
            system: system.clone(),
            arrived,
        }
    }

    /// The reference to give to those who are to send something.
    pub fn actor_ref(&self) -> &ActorRef<M> {
        &self.actor
    }

    /// Watches `actor`: its end arrives as a [`Terminated`], behind what it sent to this probe.
    pub fn watch<N: Send + 'static>(&self, actor: &ActorRef<N>) {
        let number = self.system.next_number();
        actor
            .watchable()
            .add_watcher(Watcher::new(number, self.actor.target().clone()));
    }

    /// The next message, which must come within `within`.
    ///
    /// # Panics
    /// If nothing comes, or the end of a watched actor comes first.
    pub async fn expect_msg(&mut self, within: Duration) -> M {
        match self.next(within).await {
            Some(Arrived::Message(message)) => message,
            Some(other) => panic!("expected a message, but {} came", other.describe()),
            None => panic!("expected a message within {within:?}, but nothing came"),
        }
    }

    /// The next message, if one comes within `within`.
    ///
    /// # Panics
    /// If the end of a watched actor comes first.
    pub async fn recv(&mut self, within: Duration) -> Option<M> {
        match self.next(within).await? {
            Arrived::Message(message) => Some(message),
            other => panic!(
                "expected a message or nothing, but {} came",
                other.describe()
            ),
        }
    }

    /// Nothing may come during `during`.
    ///
    /// # Panics
    /// If something comes.
    pub async fn expect_no_msg(&mut self, during: Duration) {
        if let Some(other) = self.next(during).await {
            panic!(
                "expected nothing for {during:?}, but {} came",
                other.describe()
            );
        }
    }

    /// The next thing to come must be the end of `actor`, which this probe watches.
    ///
    /// # Panics
    /// If nothing, or something else, comes within `within`.
    pub async fn expect_terminated<N: Send + 'static>(
        &mut self,
        actor: &ActorRef<N>,
        within: Duration,
    ) -> Terminated {
        match self.next(within).await {
            Some(Arrived::Terminated(news)) if news.is(actor) => news,
            Some(other) => panic!(
                "expected the end of {actor:?}, but {} came",
                other.describe()
            ),
            None => panic!("expected the end of {actor:?} within {within:?}, but nothing came"),
        }
    }

    async fn next(&mut self, within: Duration) -> Option<Arrived<M>> {
        tokio::time::timeout(within, self.arrived.recv())
            .await
            .ok()
            .flatten()
    }
}

impl<M: 'static> fmt::Debug for TestProbe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TestProbe").field(&self.actor).finish()
    }
}

impl<M> Drop for TestProbe<M> {
    fn drop(&mut self) {
        self.arrived.close();
    }
}

/// The actor of a probe.
struct Probe<M> {
    arrived: mpsc::UnboundedSender<Arrived<M>>,
}

impl<M: Send + 'static> Actor for Probe<M> {
    type Msg = M;
    type Err = Infallible;

    async fn handle(&mut self, msg: M, _: &mut Context<Self>) -> Result<(), Infallible> {
        // An error means that the test has dropped the probe and looks no more.
        let _ = self.arrived.send(Arrived::Message(msg));
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let _ = self.arrived.send(Arrived::Terminated(who));
        Ok(())
    }
}

impl ActorSystem {
    fn spawn_probe<M: Send + 'static>(
        &self,
        props: Props<Probe<M>>,
    ) -> Result<ActorRef<M>, crate::error::SpawnError> {
        self.core()
            .spawn_into(None, None, props, Context::take_all_news)
    }

    fn next_number(&self) -> u64 {
        self.core().next_number()
    }
}
