//! Context: what an actor can do as itself: spawn, watch, set timers, stop.

mod patterns;
mod steps;
mod watching;

use self::steps::ReceiveTimeout;
use self::watching::Watched;
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::cell::{Cell, Node};
use crate::error::SpawnError;
use crate::failure::{Failure, describe_panic, drop_guarded};
use crate::mailbox::{Entry, Phase, Taken};
use crate::path::ActorPath;
use crate::props::Props;
use crate::stash::Returning;
use crate::stream::Streams;
use crate::sync::lock;
use crate::system::ActorSystem;
use crate::time::Time;
use crate::timers::Timers;
use crate::watch::Terminated;
use futures_util::FutureExt;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::task::{AbortHandle, JoinSet};

/// What an actor can do as itself. Given to every handler and hook; it lives as long as the actor.
///
/// A restart begins with a clean slate: timers, the receive timeout, watches, links, streams and
/// children of the old instance are gone. What was sent stays: the mailbox, what came back from a
/// stash, and the pipes.
pub struct Context<A: Actor> {
    me: ActorRef<A::Msg>,
    /// Behind a lock that nobody waits for, mostly for the compiler: a context may be shared by
    /// reference over an await although messages need not be `Sync`.
    inner: Mutex<Inner<A::Msg>>,
}

struct Inner<M> {
    /// What was taken from the mailbox and not handled yet.
    batch: VecDeque<Entry<M>>,
    /// What only some actors have: a million idle ones shall not pay for it.
    extras: Option<Box<Extras<M>>>,
}

struct Extras<M> {
    timers: Timers<M>,
    /// The last step was a timer's: messages come next.
    timer_was_last: bool,
    // Boxed: most of those that watch or have a timer have none of these.
    receive_timeout: Option<Box<ReceiveTimeout<M>>>,
    /// The last step is something that a receive timeout waits for.
    is_at_work: bool,
    returning: Option<Box<Returning<M>>>,
    streams: Option<Box<Streams<M>>>,
    pipes: JoinSet<()>,
    watched: Watched<M>,
    /// For probes: news about actors that were not watched through this context counts too.
    takes_all_news: bool,
}

/// A future that runs beside its actor ([`Context::pipe_to_self`]). Dropping this changes nothing.
#[derive(Clone, Debug)]
pub struct Pipe(AbortHandle);

impl Pipe {
    /// Drops the future. No message comes from it, unless it is queued already.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the future is done or was aborted.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// What an actor does next.
pub(crate) enum Step<M> {
    Message(M),
    Terminated(Terminated),
    /// Nothing: the next message, news or timer wakes the actor.
    Idle,
    /// Others should have their turn.
    TurnOver,
    Stop,
    /// The function of a repeated timer panicked.
    Failed(Failure),
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(me: ActorRef<A::Msg>) -> Self {
        let inner = Inner {
            batch: VecDeque::new(),
            extras: None,
        };
        Self {
            me,
            inner: Mutex::new(inner),
        }
    }

    /// The reference to this actor.
    pub fn me(&self) -> &ActorRef<A::Msg> {
        &self.me
    }

    /// The path of this actor.
    pub fn path(&self) -> &ActorPath {
        self.me.path()
    }

    /// The system in which this actor lives.
    pub fn system(&self) -> ActorSystem {
        ActorSystem::of(&self.cell().core)
    }

    /// The time on the system's clock.
    pub fn now(&self) -> Time {
        self.cell().core.clock.now()
    }

    /// Starts a child: an actor that ends before this one does, and before this one restarts.
    ///
    /// # Errors
    /// [`SpawnError::BadName`]; [`SpawnError::NameTaken`] by a living child; [`SpawnError::Stopping`]
    /// if this actor is past its last message.
    pub fn spawn<B: Actor>(&self, name: &str, actor: B) -> Result<ActorRef<B::Msg>, SpawnError> {
        self.spawn_with(name, Props::once(actor))
    }

    /// Starts a child from a recipe.
    ///
    /// # Errors
    /// As for [`Context::spawn`], and [`SpawnError::NoFactory`].
    pub fn spawn_with<B: Actor>(
        &self,
        name: &str,
        props: Props<B>,
    ) -> Result<ActorRef<B::Msg>, SpawnError> {
        let parent: Arc<dyn Node> = self.me.target().clone();
        self.cell().core.spawn(Some(parent), Some(name), props)
    }

    /// Starts a child whose name is made up and begins with `$`.
    ///
    /// # Errors
    /// [`SpawnError::Stopping`], [`SpawnError::NoFactory`].
    pub fn spawn_anonymous<B: Actor>(
        &self,
        props: Props<B>,
    ) -> Result<ActorRef<B::Msg>, SpawnError> {
        let parent: Arc<dyn Node> = self.me.target().clone();
        self.cell().core.spawn(Some(parent), None, props)
    }

    /// The paths of the living children, sorted.
    pub fn children(&self) -> Vec<ActorPath> {
        self.me
            .target()
            .children()
            .iter()
            .map(|child| child.path().clone())
            .collect()
    }

    /// Stops this actor after the message in work; the rest of the mailbox becomes dead letters.
    pub fn stop_self(&self) {
        self.me.stop();
    }

    /// Stops this actor after everything that is queued now.
    pub fn stop_self_after_queued(&self) {
        self.me.stop_after_queued();
    }

    /// Runs `future` beside this actor and sends it the result, as `map` puts it. The message needs
    /// no room in the mailbox. It is dropped when this actor ends, or by [`Pipe::abort`]; a restart
    /// lets it go on. If it panics, that is logged, and no message comes.
    pub fn pipe_to_self<F>(
        &mut self,
        future: F,
        map: impl FnOnce(F::Output) -> A::Msg + Send + 'static,
    ) -> Pipe
    where
        F: Future + Send + 'static,
    {
        let me = self.me.clone();
        let handle = self.cell().core.handle.clone();
        let pipes = &mut self.extras().pipes;
        // Those that are done are forgotten here, so the set stays as small as what runs.
        while pipes.try_join_next().is_some() {}
        let task = async move {
            let piped = AssertUnwindSafe(async move { map(future.await) })
                .catch_unwind()
                .await;
            let target = me.target();
            match piped.map(|message| target.cell().mailbox.push_free(Entry::Free(message))) {
                Ok(Ok(wake)) => target.wake_if(wake),
                Ok(Err(entry)) => target.cell().discard([entry]),
                Err(panic) => {
                    let panic = describe_panic(panic);
                    tracing::warn!(actor = %me.path(), panic, "a piped future panicked");
                }
            }
        };
        Pipe(pipes.spawn_on(task, &handle))
    }

    fn cell(&self) -> &Cell<A::Msg> {
        self.me.target().cell()
    }

    fn inner(&mut self) -> &mut Inner<A::Msg> {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what only some actors have; `false` if this one has nothing of it.
    fn look(&self, look: impl FnOnce(&Extras<A::Msg>) -> bool) -> bool {
        let inner = lock(&self.inner);
        inner.extras.as_deref().is_some_and(look)
    }

    fn extras(&mut self) -> &mut Extras<A::Msg> {
        self.inner().extras.get_or_insert_with(|| {
            Box::new(Extras {
                timers: Timers::new(),
                timer_was_last: false,
                receive_timeout: None,
                is_at_work: false,
                returning: None,
                streams: None,
                pipes: JoinSet::new(),
                watched: Watched::default(),
                takes_all_news: false,
            })
        })
    }
}

/// What the actor's life (`life.rs`) uses.
impl<A: Actor> Context<A> {
    /// What to do next, of what is queued and due.
    fn next_queued(&mut self) -> Step<A::Msg> {
        let Self { me, inner } = self;
        let inner = inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let cell = me.target().cell();
        loop {
            if cell.mailbox.stop_requested() {
                return Step::Stop;
            }
            if !cell.spend_turn() {
                return Step::TurnOver;
            }
            match inner.batch.pop_front() {
                Some(Entry::Counted(message)) => {
                    cell.mailbox.begin();
                    return Step::Message(message);
                }
                Some(Entry::Free(message)) => return Step::Message(message),
                Some(Entry::Ended(news)) => {
                    if let Some(step) = inner.take_news(news, me) {
                        return step;
                    }
                    continue;
                }
                None => {}
            }
            if let Some(step) = inner.due_timer() {
                return step;
            }
            match cell.mailbox.take(&mut inner.batch) {
                Taken::Batch => {}
                Taken::Stop => return Step::Stop,
                Taken::Idle => return Step::Idle,
            }
        }
    }

    /// Takes everything from the old instance that a new one must not see.
    pub(crate) async fn reset(&mut self) {
        self.lift_links();
        self.forget_plans();
        self.stop_children().await;
        self.cell().close_family(false);
    }

    /// Accepts nothing any more, gives up what is queued, and waits until all children have ended.
    pub(crate) async fn wind_up(&mut self) {
        let cell = self.me.target().cell();
        let left = cell.mailbox.close();
        let taken = self.take_begun();
        self.cell().discard(taken.chain(left));
        self.forget_plans();
        self.inner().extras = None;
        self.stop_children().await;
    }

    /// For probes.
    pub(crate) fn take_all_news(&mut self) {
        self.extras().takes_all_news = true;
    }

    /// What was taken from the mailbox or came back from a stash, and is not handled yet.
    fn take_begun(&mut self) -> impl Iterator<Item = Entry<A::Msg>> + use<A> {
        let inner = self.inner();
        let batch = std::mem::take(&mut inner.batch);
        let extras = inner.extras.as_mut();
        let returning = extras.and_then(|extras| extras.returning.as_mut());
        let back = returning.map(|returning| returning.drain());
        back.into_iter().flatten().map(Entry::Free).chain(batch)
    }

    async fn stop_children(&self) {
        self.cell().close_family(true);
        for child in self.me.target().children() {
            child.request(Phase::Stopping);
        }
        poll_fn(|_| match self.cell().is_childless() {
            true => Poll::Ready(()),
            // The last child to end notifies this actor.
            false => Poll::Pending,
        })
        .await;
    }

    fn forget_plans(&mut self) {
        let Some(extras) = self.inner().extras.as_mut() else {
            return;
        };
        extras.timer_was_last = false;
        extras.is_at_work = false;
        extras.timers.clear();
        if let Some(streams) = extras.streams.as_mut() {
            streams.clear();
        }
        drop_guarded(extras.receive_timeout.take());
        self.forget_watches();
    }
}

impl<M> Inner<M> {
    /// A timer that is due, unless the last step was one and messages have not had their turn.
    fn due_timer(&mut self) -> Option<Step<M>> {
        let extras = self.extras.as_mut()?;
        if std::mem::take(&mut extras.timer_was_last) {
            return None;
        }
        let due = extras.timers.pop_due()?;
        extras.timer_was_last = true;
        Some(due.map_or_else(Step::Failed, Step::Message))
    }
}

impl<A: Actor> Drop for Context<A> {
    /// Only an actor that is ended from outside still has something here.
    fn drop(&mut self) {
        let taken = self.take_begun();
        self.cell().discard(taken);
        self.forget_plans();
    }
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.me).finish()
    }
}
