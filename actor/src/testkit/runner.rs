//! ActorRunner: one actor on the thread of a test, one message after the other, and what it did.

use super::TestProbe;
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::ask::ReplyTo;
use crate::effects::{Effect, Effects};
use crate::error::AskError;
use crate::observe::Observer;
use crate::props::Props;
use crate::system::ActorSystem;
use crate::time::Time;
use crate::tree::ActorState;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How much virtual time one message may take.
const HANDLER_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Looks without a change after which a system counts as quiet: what runs beside the actors, such as
/// piped futures, needs some rounds until it has a message for them.
const QUIET_ROUNDS: u32 = 16;
/// Rounds after which a system that never becomes quiet is given up.
const ROUNDS_MAX: u32 = 100_000;

/// Runs one actor without threads and without waiting: each call handles what there is to handle, on
/// the calling thread, and returns what the actor did.
///
/// Inside is a real system on a runtime of its own whose clock stands still, so children, watches,
/// timers and pipes are the real ones. The clock moves only in [`ActorRunner::advance`], and while a
/// handler waits for it. For plain `#[test]` functions: inside a tokio runtime it cannot be used.
///
/// ```
/// use otava_actor::{Actor, Context, testkit::{ActorRunner, Effect}};
/// use std::time::Duration;
///
/// struct Egg;
///
/// impl Actor for Egg {
///     type Msg = &'static str;
///     type Err = std::convert::Infallible;
///     async fn handle(&mut self, msg: &'static str, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
///         match msg {
///             "boil" => ctx.timer_once("done", Duration::from_secs(300), "stop"),
///             _ => ctx.stop_self(),
///         }
///         Ok(())
///     }
/// }
///
/// let mut egg = ActorRunner::new(Egg);
/// let effects = egg.run("boil");
/// assert!(matches!(&effects[0], Effect::TimerSet { repeated: false, .. }));
/// assert_eq!(egg.advance(Duration::from_secs(299)), []);
/// let effects = egg.advance(Duration::from_secs(1));
/// assert!(effects.contains(&Effect::StopRequested { after_queued: false }));
/// assert!(egg.has_ended());
/// ```
pub struct ActorRunner<A: Actor> {
    actor: ActorRef<A::Msg>,
    effects: Effects,
    ended: bool,
    /// Before the runtime, so that it is dropped while that is still there.
    system: ActorSystem,
    runtime: Runtime,
}

impl<A: Actor> ActorRunner<A> {
    /// Starts `actor` and runs its start hook.
    ///
    /// # Panics
    /// Inside a tokio runtime.
    pub fn new(actor: A) -> Self {
        Self::with_props(Props::once(actor))
    }

    /// As [`ActorRunner::new`], from a recipe. The effects of the start hook wait in
    /// [`ActorRunner::effects`].
    ///
    /// # Panics
    /// Inside a tokio runtime, and if the recipe is refused ([`crate::SpawnError`]).
    pub fn with_props(props: Props<A>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("the operating system lets a runtime start");
        let effects = Effects::new();
        let observer = Observer {
            metrics: None,
            effects: Some(effects.clone()),
        };
        let (system, actor) = runtime.block_on(async {
            let system = ActorSystem::new("runner");
            let actor = system.core().spawn_into(None, Some("actor"), props, |ctx| {
                ctx.observe(Arc::new(observer));
            });
            (system, actor)
        });
        let mut runner = Self {
            actor: actor.unwrap_or_else(|refused| panic!("{refused}")),
            effects,
            ended: false,
            system,
            runtime,
        };
        runner.come_to_rest();
        runner
    }

    /// Hands `message` to the actor and runs until it is handled, and everything that follows from
    /// it without the clock. Returns what the actor did in this call.
    ///
    /// # Panics
    /// If the actor has stopped or its mailbox is full, if the handler needs more than an hour on the
    /// clock or waits for something that nobody gives, or if the actors never come to rest.
    pub fn run(&mut self, message: A::Msg) -> Vec<Effect> {
        self.effects();
        if let Err(refused) = self.actor.tell(message) {
            panic!("the message was not accepted: {refused}");
        }
        self.come_to_rest();
        self.effects()
    }

    /// Asks the actor, and runs until there is an answer or none can come any more.
    ///
    /// # Errors
    /// As for [`ActorRef::ask`].
    pub fn ask<R: Send + 'static>(
        &mut self,
        question: impl FnOnce(ReplyTo<R>) -> A::Msg,
    ) -> Result<R, AskError> {
        let ask = self.actor.ask(question).into_future();
        let answer = self.runtime.block_on(ask);
        self.come_to_rest();
        answer
    }

    /// Moves the clock by `time`, over all timers on the way, and runs what they bring. Returns what
    /// the actor did in this call.
    ///
    /// # Panics
    /// If the actors never come to rest.
    pub fn advance(&mut self, time: Duration) -> Vec<Effect> {
        self.effects();
        self.block_on_ref(async |system| {
            let end = system.now() + time;
            quiet(system).await;
            system.sleep_until(end).await;
            quiet(system).await;
        });
        self.note_end();
        self.effects()
    }

    /// Stops the actor, its children first, and returns what it did.
    ///
    /// # Panics
    /// As for [`ActorRunner::run`].
    pub fn stop(&mut self) -> Vec<Effect> {
        self.effects();
        self.actor.stop();
        self.come_to_rest();
        self.effects()
    }

    /// What the actor did that no call has returned: in its start hook before the first call, and in
    /// [`ActorRunner::ask`]. Every other call drops what is still here.
    pub fn effects(&mut self) -> Vec<Effect> {
        let effects = self.effects.take();
        self.ended |= effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ended(_)));
        effects
    }

    /// Whether the actor has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The reference to the actor.
    pub fn actor_ref(&self) -> &ActorRef<A::Msg> {
        &self.actor
    }

    /// The system inside.
    pub fn system(&self) -> &ActorSystem {
        &self.system
    }

    /// The time on the virtual clock.
    pub fn now(&self) -> Time {
        let _inside = self.runtime.enter();
        self.system.now()
    }

    /// A probe in the system inside. What reached it is in [`TestProbe::received`] after each call.
    pub fn probe<M: Send + 'static>(&self) -> TestProbe<M> {
        let _inside = self.runtime.enter();
        TestProbe::new(&self.system)
    }

    /// Runs any future on the runtime inside, such as an expectation of a probe.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Until the actor has nothing to do.
    fn come_to_rest(&mut self) {
        let target = self.actor.target().clone();
        let effects = self.effects.clone();
        self.block_on_ref(async |system| {
            let end = system.now() + HANDLER_LIMIT;
            loop {
                quiet(system).await;
                if target.cell().activity() != ActorState::Waiting {
                    return;
                }
                let news = tokio::time::timeout(end.saturating_since(system.now()), effects.news());
                assert!(
                    news.await.is_ok(),
                    "the actor waits for something that does not come"
                );
            }
        });
        self.note_end();
    }

    fn note_end(&mut self) {
        self.ended |= self.effects.has_ended();
    }

    fn block_on_ref<T>(&self, body: impl AsyncFnOnce(&ActorSystem) -> T) -> T {
        self.runtime.block_on(body(&self.system))
    }
}

/// Until nothing can run any more unless time goes on.
async fn quiet(system: &ActorSystem) {
    let mut quiet_rounds = 0;
    for _ in 0..ROUNDS_MAX {
        tokio::task::yield_now().await;
        quiet_rounds = match system.core().is_busy() {
            true => 0,
            false => quiet_rounds + 1,
        };
        if quiet_rounds == QUIET_ROUNDS {
            return;
        }
    }
    panic!("the actors never come to rest: does one of them send messages to itself for ever?");
}

impl<A: Actor> fmt::Debug for ActorRunner<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActorRunner").field(&self.actor).finish()
    }
}
