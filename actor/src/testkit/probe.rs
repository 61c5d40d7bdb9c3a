//! TestProbe: stands in for an actor and says what reached it.

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
use tokio::time::Instant;

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
    /// When [`TestProbe::within`] ends.
    deadline: Option<Instant>,
}

/// What [`TestProbe::fish_for`] does with a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fish {
    /// This is the one: keep it and stop.
    Catch,
    /// Keep it and go on.
    Keep,
    /// Throw it away and go on.
    Skip,
    /// It should not have come: the test fails with this text.
    Fail(String),
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
            deadline: None,
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

    /// The next message, which must come within `within` and be as `matches` says.
    ///
    /// # Panics
    /// If nothing comes, or the end of a watched actor comes first, or another message.
    pub async fn expect_msg_matching(
        &mut self,
        within: Duration,
        matches: impl FnOnce(&M) -> bool,
    ) -> M {
        let message = self.expect_msg(within).await;
        let kind = std::any::type_name::<M>();
        assert!(
            matches(&message),
            "a message ({kind}) came that does not match"
        );
        message
    }

    /// Looks at one message after the other until `judge` says [`Fish::Catch`]: all within `within`.
    /// Returns those to be kept, the caught one last.
    ///
    /// # Panics
    /// If nothing was caught in time, `judge` says [`Fish::Fail`], or the end of a watched actor comes.
    pub async fn fish_for(
        &mut self,
        within: Duration,
        mut judge: impl FnMut(&M) -> Fish,
    ) -> Vec<M> {
        let end = later(within);
        let mut kept = Vec::new();
        let mut skipped = 0_usize;
        loop {
            let message = match self.next_until(end).await {
                Some(Arrived::Message(message)) => message,
                Some(other) => panic!("fished for a message, but {} came", other.describe()),
                None => panic!(
                    "fished for {within:?} and caught nothing; kept {}, skipped {skipped}",
                    kept.len()
                ),
            };
            match judge(&message) {
                Fish::Catch => {
                    kept.push(message);
                    return kept;
                }
                Fish::Keep => kept.push(message),
                Fish::Skip => skipped += 1,
                Fish::Fail(why) => panic!("a message came that should not: {why}"),
            }
        }
    }

    /// The next messages are these, in any order, and all come within `within`.
    ///
    /// # Panics
    /// If another one comes, or one is missing; equal ones must come as often as they are listed.
    pub async fn expect_msgs_in_any_order(
        &mut self,
        within: Duration,
        messages: impl IntoIterator<Item = M>,
    ) where
        M: fmt::Debug + PartialEq,
    {
        let end = later(within);
        let mut missing: Vec<M> = messages.into_iter().collect();
        while !missing.is_empty() {
            match self.next_until(end).await {
                Some(Arrived::Message(message)) => {
                    let place = missing.iter().position(|expected| *expected == message);
                    let Some(place) = place else {
                        panic!("expected one of {missing:?}, but {message:?} came");
                    };
                    missing.remove(place);
                }
                Some(other) => panic!("expected {missing:?}, but {} came", other.describe()),
                None => panic!("expected also {missing:?} within {within:?}"),
            }
        }
    }

    /// The next things to come are the ends of all `actors`, which this probe watches, in any order
    /// and within `within`. Returned in the order in which they came.
    ///
    /// # Panics
    /// If one does not come, or something else comes.
    pub async fn expect_terminated_in_any_order<N: Send + 'static>(
        &mut self,
        actors: impl IntoIterator<Item = &ActorRef<N>>,
        within: Duration,
    ) -> Vec<Terminated> {
        let end = later(within);
        let mut missing: Vec<&ActorRef<N>> = actors.into_iter().collect();
        let mut ended = Vec::new();
        while !missing.is_empty() {
            match self.next_until(end).await {
                Some(Arrived::Terminated(news)) => {
                    let place = missing.iter().position(|actor| news.is(actor));
                    let Some(place) = place else {
                        panic!(
                            "expected the end of one of {missing:?}, but {} ended",
                            news.path
                        );
                    };
                    missing.remove(place);
                    ended.push(news);
                }
                Some(other) => panic!(
                    "expected the end of {missing:?}, but {} came",
                    other.describe()
                ),
                None => panic!("expected the end of {missing:?} too within {within:?}"),
            }
        }
        ended
    }

    /// Runs `body`, which must be done within `limit`: no expectation in it waits longer.
    ///
    /// ```
    /// # use otava_actor::{ActorSystem, testkit::TestProbe};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let system = ActorSystem::new("test");
    /// # let mut probe = TestProbe::<u8>::new(&system);
    /// let minute = Duration::from_secs(60);
    /// probe.actor_ref().tell(1).unwrap();
    /// probe.actor_ref().tell(2).unwrap();
    /// probe.within(Duration::from_secs(1), async |probe| {
    ///     assert_eq!(probe.expect_msg(minute).await, 1);
    ///     assert_eq!(probe.expect_msg(minute).await, 2);
    /// }).await;
    /// # }
    /// ```
    ///
    /// # Panics
    /// If it takes longer.
    ///
    /// # Cancel safety
    /// If it is dropped before it is done, the limit stays.
    pub async fn within<T>(
        &mut self,
        limit: Duration,
        body: impl AsyncFnOnce(&mut Self) -> T,
    ) -> T {
        let outer = self.deadline;
        let end = later(limit);
        self.deadline = Some(outer.map_or(end, |outer| outer.min(end)));
        let result = body(self).await;
        self.deadline = outer;
        assert!(Instant::now() <= end, "this took longer than {limit:?}");
        result
    }

    /// The messages that have arrived and were not taken out yet, without waiting.
    ///
    /// # Panics
    /// If the end of a watched actor is among them.
    pub fn received(&mut self) -> Vec<M> {
        let mut messages = Vec::new();
        while let Ok(arrived) = self.arrived.try_recv() {
            match arrived {
                Arrived::Message(message) => messages.push(message),
                other => panic!("expected messages only, but {} came", other.describe()),
            }
        }
        messages
    }

    async fn next(&mut self, within: Duration) -> Option<Arrived<M>> {
        self.next_until(later(within)).await
    }

    async fn next_until(&mut self, end: Instant) -> Option<Arrived<M>> {
        let end = self.deadline.map_or(end, |deadline| deadline.min(end));
        tokio::time::timeout_at(end, self.arrived.recv())
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

fn later(within: Duration) -> Instant {
    Instant::now()
        .checked_add(within)
        .unwrap_or_else(crate::time::far_away)
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
