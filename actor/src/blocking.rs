//! Blocking actors: actors whose handler is a plain function that may block, on a thread of their own.
//!
//! An ordinary actor stands in front of the thread: it has the mailbox, the supervision and the
//! place in the tree, hands over one message at a time, and waits for the outcome. The instance lives
//! on the thread from its making to its drop, so it need not be `Send`.
//!
//! ```
//! use otava_actor::{ActorSystem, BlockingActor, BlockingContext, ReplyTo};
//!
//! struct Archive;
//! struct Load(String, ReplyTo<std::io::Result<String>>);
//!
//! impl BlockingActor for Archive {
//!     type Msg = Load;
//!     type Err = std::convert::Infallible;
//!     fn handle(&mut self, Load(file, reply_to): Load, _: &mut BlockingContext<Load>) -> Result<(), Self::Err> {
//!         let _ = reply_to.send(std::fs::read_to_string(file));
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let system = ActorSystem::new("example");
//! let archive = system.spawn_blocking("archive", || Archive)?;
//! assert!(archive.ask(|reply_to| Load("no such file".into(), reply_to)).await?.is_err());
//! # Ok(())
//! # }
//! ```

use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::context::Context;
use crate::error::SpawnError;
use crate::failure::{Failure, drop_guarded, guarded_call, in_words};
use crate::path::ActorPath;
use crate::props::Props;
use crate::sync::lock;
use crate::system::ActorSystem;
use crate::time::Time;
use std::fmt::{self, Display};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// An actor that may block its thread, which is its own: for files, for libraries that know no
/// `async`, for long computations.
///
/// Everything else is as for an [`Actor`]: one message at a time, the mailbox, supervision (an `Err`
/// and a panic are the same event, a failure), watching, stopping. A stop waits for the message in
/// work. A thread cannot be ended from outside: if a handler does not return within the limit of a
/// shutdown, the actor is named and given up, and its thread goes on until the handler returns.
pub trait BlockingActor: Sized + 'static {
    /// What this actor understands.
    type Msg: Send + 'static;

    /// What a hook or handler may fail with.
    type Err: Display;

    /// Runs before the first message, once for each instance.
    fn started(&mut self, _ctx: &mut BlockingContext<Self::Msg>) -> Result<(), Self::Err> {
        Ok(())
    }

    /// Handles one message.
    fn handle(
        &mut self,
        msg: Self::Msg,
        ctx: &mut BlockingContext<Self::Msg>,
    ) -> Result<(), Self::Err>;

    /// The end: no message follows. Not for an instance that a restart replaces.
    fn stopped(&mut self, _ctx: &mut BlockingContext<Self::Msg>) {}
}

/// What a blocking actor can do as itself.
pub struct BlockingContext<M> {
    me: ActorRef<M>,
    system: ActorSystem,
}

impl<M: Send + 'static> BlockingContext<M> {
    /// The reference to this actor.
    pub fn me(&self) -> &ActorRef<M> {
        &self.me
    }

    /// The path of this actor.
    pub fn path(&self) -> &ActorPath {
        self.me.path()
    }

    /// The system in which this actor lives. Its [`ActorSystem::handle`] can `block_on` a future
    /// here, for example an ask: this thread is none of the runtime's.
    pub fn system(&self) -> &ActorSystem {
        &self.system
    }

    /// The time on the system's clock.
    pub fn now(&self) -> Time {
        self.system.now()
    }

    /// Stops this actor after the message in work.
    pub fn stop_self(&self) {
        self.me.stop();
    }

    /// Stops this actor after everything that is queued now.
    pub fn stop_self_after_queued(&self) {
        self.me.stop_after_queued();
    }
}

impl<M: Send + 'static> fmt::Debug for BlockingContext<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockingContext").field(&self.me).finish()
    }
}

impl ActorSystem {
    /// Starts a blocking actor at the top of the tree, on a thread of its own. `factory` runs on that
    /// thread. With [`Props::blocking`] it can also be a child, restart, and have another mailbox.
    ///
    /// # Errors
    /// As for [`ActorSystem::spawn`]. If the operating system gives no thread, the actor fails.
    pub fn spawn_blocking<B: BlockingActor>(
        &self,
        name: &str,
        factory: impl FnMut() -> B + Send + 'static,
    ) -> Result<ActorRef<B::Msg>, SpawnError> {
        self.spawn_with(name, Props::blocking(factory))
    }
}

impl<B: BlockingActor> Props<Blocking<B>> {
    /// A blocking actor made by `factory`, which runs on the actor's thread. Each instance has a
    /// thread of its own; the next one is made when the one before was dropped.
    pub fn blocking(factory: impl FnMut() -> B + Send + 'static) -> Self {
        let factory: Factory<B> = Arc::new(Mutex::new(factory));
        let before = Arc::new(Mutex::new(None));
        Self::new(move || Blocking {
            factory: factory.clone(),
            before: before.clone(),
            thread: None,
        })
    }
}

type Factory<B> = Arc<Mutex<dyn FnMut() -> B + Send>>;

/// The actor in front of a blocking one; see [`Props::blocking`].
pub struct Blocking<B: BlockingActor> {
    factory: Factory<B>,
    /// The end of the last thread of this actor, for the next one to wait for.
    before: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    /// Dropping this side ends the thread after what it does now.
    thread: Option<mpsc::Sender<Order<B::Msg>>>,
}

impl<B: BlockingActor> fmt::Debug for Blocking<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<B>())
    }
}

/// One step of the actor on the thread, and where its outcome goes.
struct Order<M> {
    step: Step<M>,
    ctx: BlockingContext<M>,
    done: oneshot::Sender<Result<(), Failure<String>>>,
}

enum Step<M> {
    Start,
    Handle(M),
    Stop,
}

impl<B: BlockingActor> Actor for Blocking<B> {
    type Msg = B::Msg;
    type Err = BlockingFailure;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), BlockingFailure> {
        self.thread_ended().await;
        let (orders, taken) = mpsc::channel();
        let (alive, ended) = oneshot::channel();
        let factory = self.factory.clone();
        let thread = std::thread::Builder::new().name(ctx.path().name().to_owned());
        let started = thread.spawn(move || {
            serve(&factory, &taken);
            drop(taken);
            // The factory may hold something of the user's; the actor may have dropped its own.
            drop_guarded(factory);
            drop(alive);
        });
        started.map_err(|error| BlockingFailure(format!("no thread: {error}")))?;
        self.thread = Some(orders);
        *lock(&self.before) = Some(ended);
        self.run(Step::Start, ctx).await
    }

    async fn handle(
        &mut self,
        msg: B::Msg,
        ctx: &mut Context<Self>,
    ) -> Result<(), BlockingFailure> {
        self.run(Step::Handle(msg), ctx).await
    }

    async fn stopped(&mut self, ctx: &mut Context<Self>) {
        if let Err(failure) = self.run(Step::Stop, ctx).await {
            tracing::warn!(actor = %ctx.path(), %failure, "the stop hook of the actor failed");
        }
        self.thread = None;
        self.thread_ended().await;
    }
}

impl<B: BlockingActor> Blocking<B> {
    /// Lets the thread do one step, and waits for it.
    async fn run(
        &mut self,
        step: Step<B::Msg>,
        ctx: &Context<Self>,
    ) -> Result<(), BlockingFailure> {
        // Without a thread there was a failure before, which was reported.
        let Some(thread) = &self.thread else {
            return Ok(());
        };
        let (done, outcome) = oneshot::channel();
        let ctx = BlockingContext {
            me: ctx.me().clone(),
            system: ctx.system(),
        };
        let _ = thread.send(Order { step, ctx, done });
        let gone = "the thread of the actor has ended".to_owned();
        let outcome = outcome.await.unwrap_or(Err(Failure::Error(gone)));
        outcome.map_err(|failure| BlockingFailure(failure.to_string()))
    }

    /// Waits until the last thread has dropped its instance.
    async fn thread_ended(&self) {
        let before = lock(&self.before).take();
        if let Some(before) = before {
            // Nobody sends: the news is that the sender is gone.
            let _ = before.await;
        }
    }
}

/// The life of one thread: makes the instance, does what it is told, and drops the instance.
fn serve<B: BlockingActor>(factory: &Factory<B>, orders: &mpsc::Receiver<Order<B::Msg>>) {
    let mut instance = None;
    while let Ok(Order {
        step,
        mut ctx,
        done,
    }) = orders.recv()
    {
        let outcome = match step {
            Step::Start => match guarded_call(|| (lock(factory))()) {
                Ok(made) => {
                    let made = instance.insert(made);
                    in_words(guarded_call(|| made.started(&mut ctx)))
                }
                Err(failure) => Err(failure.widen()),
            },
            Step::Handle(msg) => match instance.as_mut() {
                Some(actor) => in_words(guarded_call(|| actor.handle(msg, &mut ctx))),
                None => {
                    drop_guarded(msg);
                    Ok(())
                }
            },
            Step::Stop => match instance.as_mut() {
                Some(actor) => guarded_call(|| actor.stopped(&mut ctx)).map_err(Failure::widen),
                None => Ok(()),
            },
        };
        // The actor in front may have been given up meanwhile.
        let _ = done.send(outcome);
    }
    drop_guarded(instance);
}

/// What a blocking actor failed with, as text: the error itself stays on its thread.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BlockingFailure(String);
