//! Context: what an actor can do as itself: spawn, watch, set timers, stop.
#![allow(
    unsafe_code,
    reason = "measured: the kind of a target lies beside what producers write, and was read twice a message"
)]

mod patterns;
mod steps;
mod watching;

use self::steps::ReceiveTimeout;
use self::watching::Watched;
use self::watching::take_news;
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::cell::{Cell, Node};
use crate::dead_letters::DeadLetterReason;
use crate::effects::Effect;
use crate::error::SpawnError;
use crate::failure::{Failure, describe_panic, drop_guarded};
use crate::mailbox::{Consumer, Free, Left, Look, Phase, Seen, Signals, Taken};
use crate::observe::mark::{Extra, Mark};
use crate::observe::{LifeEvent, Observer};
use crate::path::ActorPath;
use crate::props::Props;
use crate::rng::Rng;
use crate::stash::Returning;
use crate::stream::Streams;
use crate::sync::lock;
use crate::system::ActorSystem;
use crate::time::{Clock, Time};
use crate::timers::Timers;
use crate::watch::{Ended, Terminated};
use futures_util::FutureExt;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::task::{AbortHandle, JoinSet};

/// What an actor can do as itself. Given to every handler and hook; it lives as long as the actor.
///
/// A restart begins with a clean slate: timers, the receive timeout, watches, links, streams and
/// children of the old instance are gone (the children stay with [`Props::keep_children`]). What was
/// sent stays: the mailbox, what came back from a stash, and the pipes.
pub struct Context<A: Actor> {
    me: ActorRef<A::Msg>,
    /// Behind a lock that is never locked, only for the compiler: a context may be shared by
    /// reference over an await although messages need not be `Sync`.
    extras: Option<Box<Mutex<Extras<A::Msg>>>>,
    consumer: Consumer,
}

/// What only some actors have: a million idle ones shall not pay for it.
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
    /// Who looks at this actor; nobody by default, and nobody once it has ended.
    observer: Option<Arc<Observer>>,
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

/// What comes next, at a glance.
pub(crate) enum Next<M> {
    Message(Seen<M>),
    Nothing,
    /// [`Context::next`] knows.
    Other,
    TurnOver,
}

/// What an actor does next.
pub(crate) enum Step<M> {
    /// With what its sender put beside it.
    Message(M, Option<Box<Mark>>),
    Terminated(Terminated),
    /// A child failed, or the actor's group wants something.
    Requested,
    /// Nothing: the next message, news or timer wakes the actor.
    Idle,
    /// Others should have their turn.
    TurnOver,
    Stop,
    /// The function of a repeated timer panicked.
    Failed(Failure),
}

impl<A: Actor> Context<A> {
    /// # Panics
    /// If `me` is not on this node.
    pub(crate) fn new(me: ActorRef<A::Msg>, consumer: Consumer) -> Self {
        assert!(me.target().local().is_some(), "a context is of an actor");
        Self {
            me,
            extras: None,
            consumer,
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
        ActorSystem::of(self.cell().core())
    }

    /// The time on the system's clock.
    pub fn now(&self) -> Time {
        self.cell().core().clock.now()
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
        let child = self.cell().core().spawn(Some(parent), Some(name), props)?;
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
        let child = self.cell().core().spawn(Some(parent), None, props)?;
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

    /// The living child of this name, if it understands `M`. So an instance finds children that a
    /// restart has kept.
    pub fn child<M: Send + 'static>(&self, name: &str) -> Option<ActorRef<M>> {
        let child = self.cell().child(name)?.as_any();
        child.downcast().ok().map(ActorRef::from_target)
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
        self.note(|| Effect::Piped);
        let me = self.me.clone();
        let handle = self.cell().core().handle.clone();
        let pipes = &mut self.extras().pipes;
        // Those that are done are forgotten here, so the set stays as small as what runs.
        while pipes.try_join_next().is_some() {}
        let task = async move {
            let piped = AssertUnwindSafe(async move { map(future.await) })
                .catch_unwind()
                .await;
            let target = me.target();
            let piped = piped.map(|message| Free::Message(message, Extra::None));
            match piped.map(|message| target.cell().mailbox.push_free(message)) {
                Ok(Ok(wake)) => target.wake_if(wake),
                Ok(Err(Free::Message(message, _))) => target.cell().discard([Left(message)]),
                Ok(Err(Free::Ended(_))) => {}
                Err(panic) => {
                    let panic = describe_panic(panic);
                    tracing::warn!(actor = %me.path(), panic, "a piped future panicked");
                }
            }
        };
        Pipe(pipes.spawn_on(task, &handle))
    }

    #[inline]
    fn cell(&self) -> &Cell<A::Msg> {
        // SAFETY: `new` has seen that it is local, and nothing changes `me`.
        unsafe { self.me.target().cell_unchecked() }
    }

    fn rare(&mut self) -> Option<&mut Extras<A::Msg>> {
        self.extras.as_mut().map(|extras| unlocked(extras))
    }

    /// Looks at what only some actors have; `false` if this one has nothing of it.
    fn consult(&self, look: impl FnOnce(&Extras<A::Msg>) -> bool) -> bool {
        self.extras
            .as_ref()
            .is_some_and(|extras| look(&lock(extras)))
    }

    fn extras(&mut self) -> &mut Extras<A::Msg> {
        unlocked(self.extras.get_or_insert_with(|| {
            Box::new(Mutex::new(Extras {
                timers: Timers::new(),
                timer_was_last: false,
                receive_timeout: None,
                is_at_work: false,
                returning: None,
                streams: None,
                pipes: JoinSet::new(),
                watched: Watched::default(),
                observer: None,
                takes_all_news: false,
            }))
        }))
    }
}

/// Apart, since most actors have none.
#[inline(never)]
fn are_quiet<M>(extras: &mut Mutex<Extras<M>>) -> bool {
    unlocked(extras).are_quiet()
}

/// Nobody else is there, so the lock need not be locked.
fn unlocked<M>(extras: &mut Mutex<Extras<M>>) -> &mut Extras<M> {
    extras.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// What those who look at the actor use (`observe`).
impl<A: Actor> Context<A> {
    pub(crate) fn observer(&self) -> Option<Arc<Observer>> {
        lock(self.extras.as_ref()?).observer.clone()
    }

    pub(crate) fn observe(&mut self, observer: Arc<Observer>) {
        self.extras().observer = Some(observer);
    }

    pub(crate) fn clock(&self) -> Clock {
        self.cell().core().clock
    }

    pub(crate) fn saw(&self, event: &LifeEvent<'_>) {
        if let Some(observer) = self.observer() {
            observer.saw(event);
        }
    }

    /// The end, once.
    pub(crate) fn ended(&mut self, reason: Ended) {
        let observer = self.rare().and_then(|extras| extras.observer.take());
        if let Some(observer) = observer {
            observer.saw(&LifeEvent::Ended(reason));
        }
    }

    /// The wait for the message that carried `mark` is over.
    pub(crate) fn handled(&self, mark: Option<Box<Mark>>) {
        if let Some(edge) = mark.and_then(|mark| mark.edge) {
            self.cell().core().waits.remove(edge);
        }
    }

    fn note(&self, effect: impl FnOnce() -> Effect) {
        if let Some(observer) = self.observer()
            && let Some(effects) = &observer.effects
        {
            effects.add(effect());
        }
    }
}

/// What the actor's life (`life.rs`) uses.
impl<A: Actor> Context<A> {
    /// Whether the actor has none of the things that only some actors have.
    pub(crate) fn is_bare(&self) -> bool {
        self.extras.is_none()
    }

    /// A turn begins.
    #[inline]
    pub(crate) fn begin_turn(&mut self) {
        self.cell().begin_turn();
    }

    /// What comes next, if it is a message or nothing, as almost always.
    #[inline]
    pub(crate) fn look(&mut self) -> Next<A::Msg> {
        if let Some(extras) = &mut self.extras
            && !are_quiet(extras)
        {
            return Next::Other;
        }
        let cell = self.cell();
        if cell.left_of_turn() == 0 {
            return Next::TurnOver;
        }
        match cell.mailbox.look(&self.consumer) {
            Look::Message(seen) => Next::Message(seen),
            Look::Expires(seen, at) if cell.is_first_fresh() || !self.has_expired(at) => {
                Next::Message(seen)
            }
            Look::Nothing => Next::Nothing,
            Look::Expires(..) | Look::Other => Next::Other,
        }
    }

    /// The message that [`Context::look`] has seen.
    ///
    /// # Safety
    /// `seen` is from the last look, and nothing was taken since.
    #[inline]
    pub(crate) unsafe fn take_message(&mut self, seen: Seen<A::Msg>) -> A::Msg {
        // SAFETY: as in `cell`.
        let cell = unsafe { self.me.target().cell_unchecked() };
        // It was above zero when the look was taken.
        cell.set_left_of_turn(cell.left_of_turn().wrapping_sub(1));
        // SAFETY: as the caller promises.
        unsafe { cell.mailbox.take_seen(&mut self.consumer, seen) }
    }

    /// What to do next, of what is queued and due.
    fn next_queued(&mut self) -> Step<A::Msg> {
        loop {
            let mut extras = self.extras.as_mut().map(|extras| unlocked(extras));
            let cell = self.me.target().cell();
            let requests = Signals::CHILD_FAILED | Signals::GROUP_WANTS;
            let signals = cell.mailbox.signals();
            if signals & requests != 0 && signals & Signals::STOP == 0 {
                return Step::Requested;
            }
            let Some(left) = cell.left_of_turn().checked_sub(1) else {
                // Timers come between two turns, so that a flood of messages does not stop them.
                let due = extras.as_mut().and_then(|extras| extras.due_timer());
                return match due {
                    Some(step) if !cell.mailbox.stop_requested() => step,
                    _ => Step::TurnOver,
                };
            };
            match cell.mailbox.take(&mut self.consumer) {
                Taken::Message(message, extra) | Taken::Free(Free::Message(message, extra)) => {
                    cell.set_left_of_turn(left);
                    let (expires, mark) = match extra {
                        Extra::None => (0, None),
                        Extra::Expires(at) => (at, None),
                        Extra::Marked(mark) => (mark.expires, Some(mark)),
                    };
                    if expires == 0 || !self.has_expired(expires) {
                        return Step::Message(message, mark);
                    }
                    self.cell().count_lost(DeadLetterReason::Expired);
                    drop_guarded(message);
                }
                Taken::Free(Free::Ended(news)) => {
                    cell.set_left_of_turn(left);
                    if let Some(step) = take_news(extras, news, &self.me) {
                        return step;
                    }
                }
                Taken::Soon => return Step::TurnOver,
                Taken::Stop => return Step::Stop,
                Taken::Nothing => {
                    cell.set_left_of_turn(left);
                    let due = extras.as_mut().and_then(|extras| extras.due_timer());
                    return due.unwrap_or(Step::Idle);
                }
            }
        }
    }

    /// Whether nobody waits any more for the answer to a message that expires at `expires`.
    #[inline(never)]
    fn has_expired(&self, expires: u64) -> bool {
        self.now().as_nanos() >= expires
    }

    /// Counts something that was done in this turn; `false` if the turn is over.
    pub(crate) fn spend_turn(&self) -> bool {
        let left = self.cell().left_of_turn();
        self.cell().set_left_of_turn(left.saturating_sub(1));
        left > 0
    }

    /// Takes everything from the old instance that a new one must not see.
    pub(crate) async fn reset(&mut self, keep_children: bool) {
        self.lift_links();
        self.forget_plans();
        if !keep_children {
            self.stop_children().await;
            self.cell().close_family(false);
        }
        self.cell().forget_child_failures();
    }

    /// The oldest failure that a child left to this actor.
    pub(crate) fn child_failure(&self) -> Option<Failure> {
        let (path, failure) = self.cell().take_child_failure()?;
        Some(Failure::Child { path, failure })
    }

    pub(crate) fn is_stop_requested(&self) -> bool {
        self.cell().mailbox.stop_requested()
    }

    /// Whether there is something else to do for an actor that waits without an instance.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_stop_requested() || self.cell().group_wants()
    }

    pub(crate) fn requests_seen(&self) {
        self.cell().requests_seen();
    }

    /// Lets no child start any more.
    pub(crate) fn close_family(&self) {
        self.cell().close_family(true);
    }

    /// The generator of this actor alone.
    pub(crate) fn own_rng(&self) -> Rng {
        self.cell().core().rng_of(self.me.uid())
    }

    /// Accepts nothing any more, gives up what is queued, and waits until all children have ended.
    pub(crate) async fn wind_up(&mut self) {
        if !self.winds_up_at_once() {
            self.stop_children().await;
        }
    }

    /// The same, as far as it needs no wait. `false`: there are children.
    pub(crate) fn winds_up_at_once(&mut self) -> bool {
        self.cell().mailbox.shut();
        self.discard_left();
        self.forget_plans();
        self.forget_extras();
        self.cell().close_family_if_empty()
    }

    /// For probes.
    #[cfg(feature = "testkit")]
    pub(crate) fn take_all_news(&mut self) {
        self.extras().takes_all_news = true;
    }

    /// Pipes are dropped; who looks at the actor stays.
    fn forget_extras(&mut self) {
        if let Some(extras) = self.extras.take()
            && let Some(observer) = lock(&extras).observer.take()
        {
            self.observe(observer);
        }
    }

    fn discard_left(&mut self) {
        let returning = self.rare().and_then(|extras| extras.returning.as_mut());
        if let Some(back) = returning.map(|returning| returning.drain()) {
            self.cell().discard(back.map(Left));
        }
        let Self { me, consumer, .. } = self;
        let cell = me.target().cell();
        while let Some(left) = cell.mailbox.take_left(consumer) {
            cell.discard([left]);
        }
    }

    async fn stop_children(&self) {
        if self.cell().close_family_if_empty() {
            return;
        }
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
        let Some(extras) = self.rare() else {
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

impl<M> Extras<M> {
    /// Whether nothing in here asks for a look before the next message.
    fn are_quiet(&self) -> bool {
        self.timers.is_empty()
            && !self.timer_was_last
            && self.receive_timeout.is_none()
            && self.returning.is_none()
            && self.streams.is_none()
            && self.observer.is_none()
    }

    /// A timer that is due, unless the last step was one and messages have not had their turn.
    fn due_timer(&mut self) -> Option<Step<M>> {
        if std::mem::take(&mut self.timer_was_last) {
            return None;
        }
        let due = self.timers.pop_due()?;
        self.timer_was_last = true;
        Some(due.map_or_else(Step::Failed, |message| Step::Message(message, None)))
    }
}

impl<A: Actor> Drop for Context<A> {
    /// Only an actor that is ended from outside still has something here.
    fn drop(&mut self) {
        if self.is_bare() && self.cell().mailbox.is_over(&self.consumer) {
            return;
        }
        self.ended(Ended::Stopped);
        self.cell().mailbox.shut();
        self.discard_left();
        self.forget_plans();
    }
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.me).finish()
    }
}
