//! Context: what an actor can do as itself: spawn, watch, set timers, stop.

use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::cell::{Cell, Node};
use crate::effects::Effect;
use crate::error::SpawnError;
use crate::failure::{Failure, describe_panic, drop_guarded};
use crate::mailbox::{Entry, Phase, Taken};
use crate::observe::mark::{Mark, Marked};
use crate::observe::{LifeEvent, Observer};
use crate::path::ActorPath;
use crate::props::Props;
use crate::system::ActorSystem;
use crate::time::{Clock, Time};
use crate::timers::{TimerKey, Timers};
use crate::watch::{Ended, Terminated, Watchable, Watcher};
use futures_util::FutureExt;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::task::JoinSet;

/// What an actor can do as itself. Given to every handler and hook; it lives as long as the actor.
///
/// A restart begins with a clean slate: timers, watches and children of the old instance are gone,
/// the mailbox stays.
pub struct Context<A: Actor> {
    me: ActorRef<A::Msg>,
    /// Who looks at this actor; nobody by default, and nobody once it has ended.
    observer: Option<Arc<Observer>>,
    /// Behind a lock that is never locked, only for the compiler: a context may be shared by
    /// reference over an await although messages need not be `Sync`.
    inner: Mutex<Inner<A::Msg>>,
}

struct Inner<M> {
    /// What came with the message in work.
    mark: Option<Box<Marked<M>>>,
    /// What was taken from the mailbox and not handled yet.
    batch: VecDeque<Entry<M>>,
    /// What only some actors have: a million idle ones shall not pay for it.
    extras: Option<Box<Extras<M>>>,
}

struct Extras<M> {
    timers: Timers<M>,
    /// The last step was a timer's: messages come next.
    timer_was_last: bool,
    pipes: JoinSet<()>,
    watched: Watched,
    /// For probes: news about actors that were not watched through this context counts too.
    takes_all_news: bool,
}

/// The actors that this one watches, by registration and by target.
#[derive(Default)]
struct Watched {
    by_number: BTreeMap<u64, (u64, ActorPath)>,
    by_target: BTreeMap<(u64, ActorPath), (u64, Arc<dyn Watchable>)>,
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
            mark: None,
            batch: VecDeque::new(),
            extras: None,
        };
        Self {
            me,
            observer: None,
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
        let child = self.cell().core.spawn(Some(parent), Some(name), props)?;
        self.note(|| Effect::Spawned(child.path().clone()));
        Ok(child)
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
        let child = self.cell().core.spawn(Some(parent), None, props)?;
        self.note(|| Effect::Spawned(child.path().clone()));
        Ok(child)
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
        self.note(|| Effect::StopRequested {
            after_queued: false,
        });
        self.me.stop();
    }

    /// Stops this actor after everything that is queued now.
    pub fn stop_self_after_queued(&self) {
        self.note(|| Effect::StopRequested { after_queued: true });
        self.me.stop_after_queued();
    }

    /// Watches `actor`: [`Actor::terminated`] is called exactly once when it has ended, after
    /// everything that it sent to this actor; soon, if it has ended already. Watching twice is
    /// watching once. An actor that watches itself hears nothing: it is gone by then.
    pub fn watch<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        let number = self.cell().core.next_number();
        let key = (actor.uid(), actor.path().clone());
        let watched = &mut self.extras().watched;
        if watched.by_target.contains_key(&key) {
            return;
        }
        watched.by_number.insert(number, key.clone());
        watched.by_target.insert(key, (number, actor.watchable()));
        self.note(|| Effect::Watched(actor.path().clone()));
        actor
            .watchable()
            .add_watcher(Watcher::new(number, self.me.target().clone()));
    }

    /// Stops watching `actor`. From now on [`Actor::terminated`] is not called for it, also if the
    /// news was already on its way.
    pub fn unwatch<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        let key = (actor.uid(), actor.path().clone());
        let Some(extras) = self.inner().extras.as_mut() else {
            return;
        };
        if let Some((number, target)) = extras.watched.by_target.remove(&key) {
            extras.watched.by_number.remove(&number);
            target.remove_watcher(Watcher::new(number, self.me.target().clone()).id());
            self.note(|| Effect::Unwatched(actor.path().clone()));
        }
    }

    /// Sends `message` to this actor after `after`. A timer of the same key is replaced: nothing
    /// comes from it any more, even if it was due.
    pub fn timer_once(&mut self, key: impl Into<TimerKey>, after: Duration, message: A::Msg) {
        let key = key.into();
        self.note(|| Effect::TimerSet {
            key: key.clone(),
            after,
            repeated: false,
        });
        self.extras().timers.once(key, after, message);
    }

    /// Sends a message made by `make` to this actor every `every`, for the first time after `every`.
    /// Ticks that are missed because the actor is busy are left out. A timer of the same key is
    /// replaced.
    ///
    /// # Panics
    /// If `every` is zero.
    pub fn timer_every(
        &mut self,
        key: impl Into<TimerKey>,
        every: Duration,
        make: impl FnMut() -> A::Msg + Send + 'static,
    ) {
        assert!(!every.is_zero(), "a timer needs an interval above zero");
        let key = key.into();
        self.note(|| Effect::TimerSet {
            key: key.clone(),
            after: every,
            repeated: true,
        });
        self.extras().timers.every(key, every, Box::new(make));
    }

    /// Removes the timer of this key; `false` if there is none. Nothing comes from it any more, even
    /// if it was due.
    pub fn cancel_timer(&mut self, key: impl Into<TimerKey>) -> bool {
        let key = key.into();
        let extras = self.inner().extras.as_mut();
        let cancelled = extras.is_some_and(|extras| extras.timers.cancel(&key));
        if cancelled {
            self.note(|| Effect::TimerCancelled(key));
        }
        cancelled
    }

    /// Runs `future` beside this actor and sends it the result, as `map` puts it. The message needs
    /// no room in the mailbox. It is dropped when this actor ends; a restart lets it go on. If it
    /// panics, that is logged, and no message comes.
    pub fn pipe_to_self<F>(
        &mut self,
        future: F,
        map: impl FnOnce(F::Output) -> A::Msg + Send + 'static,
    ) where
        F: Future + Send + 'static,
    {
        self.note(|| Effect::Piped);
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
        pipes.spawn_on(task, &handle);
    }

    fn cell(&self) -> &Cell<A::Msg> {
        self.me.target().cell()
    }

    fn inner(&mut self) -> &mut Inner<A::Msg> {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn extras(&mut self) -> &mut Extras<A::Msg> {
        self.inner().extras.get_or_insert_with(|| {
            Box::new(Extras {
                timers: Timers::new(),
                timer_was_last: false,
                pipes: JoinSet::new(),
                watched: Watched::default(),
                takes_all_news: false,
            })
        })
    }
}

/// What those who look at the actor use (`observe`).
impl<A: Actor> Context<A> {
    pub(crate) fn observer(&self) -> Option<&Arc<Observer>> {
        self.observer.as_ref()
    }

    pub(crate) fn observe(&mut self, observer: Option<Arc<Observer>>) {
        self.observer = observer;
    }

    pub(crate) fn mark(&mut self) -> Option<&mut Mark> {
        self.inner().mark.as_mut().map(|marked| &mut marked.mark)
    }

    pub(crate) fn clock(&self) -> Clock {
        self.cell().core.clock
    }

    pub(crate) fn saw(&self, event: &LifeEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer.saw(event);
        }
    }

    /// The end, once.
    pub(crate) fn ended(&mut self, reason: Ended) {
        if let Some(observer) = self.observer.take() {
            observer.saw(&LifeEvent::Ended(reason));
        }
    }

    fn note(&self, effect: impl FnOnce() -> Effect) {
        let observer = self.observer.as_ref();
        if let Some(effects) = observer.and_then(|observer| observer.effects.as_ref()) {
            effects.add(effect());
        }
    }
}

/// What the actor's life (`life.rs`) uses.
impl<A: Actor> Context<A> {
    /// What to do next.
    pub(crate) fn next(&mut self) -> Step<A::Msg> {
        let Self { me, inner, .. } = self;
        let inner = inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let cell = me.target().cell();
        // Whoever waited for the answer to the message before waits for this actor no more.
        if let Some(edge) = inner.mark.take().and_then(|marked| marked.mark.edge) {
            cell.core.waits.remove(edge);
        }
        loop {
            if cell.mailbox.stop_requested() {
                return Step::Stop;
            }
            if !cell.spend_turn() {
                return Step::TurnOver;
            }
            match inner.batch.pop_front() {
                Some(Entry::Counted(parcel)) => {
                    cell.mailbox.begin();
                    let (message, mark) = parcel.open();
                    inner.mark = mark;
                    return Step::Message(message);
                }
                Some(Entry::Free(message)) => return Step::Message(message),
                Some(Entry::Ended(news)) => {
                    let (number, news) = *news;
                    let extras = inner.extras.as_mut();
                    if extras
                        .is_some_and(|extras| extras.watched.ended(number) || extras.takes_all_news)
                    {
                        return Step::Terminated(news);
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

    /// Sees to it that the earliest timer wakes this actor; `false` if it is due already.
    pub(crate) fn arm_timers(&mut self, cx: &mut task::Context<'_>) -> bool {
        self.inner()
            .extras
            .as_mut()
            .is_none_or(|extras| extras.timers.poll_due(cx).is_pending())
    }

    /// Takes everything from the old instance that a new one must not see.
    pub(crate) async fn reset(&mut self) {
        self.forget_timers_and_watches();
        self.stop_children().await;
        self.cell().close_family(false);
    }

    /// Accepts nothing any more, gives up what is queued, and waits until all children have ended.
    pub(crate) async fn wind_up(&mut self) {
        let cell = self.me.target().cell();
        let left = cell.mailbox.close();
        let batch = std::mem::take(&mut self.inner().batch);
        self.cell().discard(batch.into_iter().chain(left));
        self.forget_timers_and_watches();
        self.inner().extras = None;
        self.stop_children().await;
    }

    /// For probes.
    #[cfg(feature = "testkit")]
    pub(crate) fn take_all_news(&mut self) {
        self.extras().takes_all_news = true;
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

    fn forget_timers_and_watches(&mut self) {
        let Some(extras) = self.inner().extras.as_mut() else {
            return;
        };
        extras.timer_was_last = false;
        drop_guarded(std::mem::replace(&mut extras.timers, Timers::new()));
        let watched = std::mem::take(&mut extras.watched);
        for (number, target) in watched.by_target.into_values() {
            target.remove_watcher(Watcher::new(number, self.me.target().clone()).id());
        }
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

impl Watched {
    /// Takes the registration `number` out; `false` if it was taken back before.
    fn ended(&mut self, number: u64) -> bool {
        let Some(key) = self.by_number.remove(&number) else {
            return false;
        };
        self.by_target.remove(&key);
        true
    }
}

impl<A: Actor> Drop for Context<A> {
    /// Only an actor that is ended from outside still has something here.
    fn drop(&mut self) {
        self.ended(Ended::Stopped);
        let batch = std::mem::take(&mut self.inner().batch);
        self.cell().discard(batch);
        self.forget_timers_and_watches();
    }
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.me).finish()
    }
}
