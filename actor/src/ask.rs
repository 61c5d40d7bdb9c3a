//! Ask: a question with a deadline, and the one-shot port through which its answer comes.
//!
//! Both sides share one slot, the only allocation of an ask. The slot is empty, answered, refused,
//! given up by its asker, or dropped unanswered; the first of these that happens decides, under its lock.

use crate::actor_ref::ActorRef;
use crate::dead_letters::{DeadLetterReason, DeadLetters};
use crate::error::{AskError, Refusal, TellError};
use crate::observe::mark::{Question, Waits};
use crate::path::ActorPath;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::time::Time;
use crate::wait_graph::{self, Edge};
use pin_project_lite::pin_project;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How long an ask waits unless [`Ask::within`] says otherwise.
pub const ASK_WITHIN_DEFAULT: Duration = Duration::from_secs(5);

/// A question that is handled where it is asked, at once, is not looked at for its expiry if it has at
/// least this long: the look at the clock would be an eighth of the whole ask.
const SOON: Duration = Duration::from_millis(1);

/// A question that is sent when it is awaited.
///
/// Awaited outside of an actor, on a runtime with more than one worker, it may run an actor that
/// idles on the thread of the asker: neither has to be woken, which is several times faster. So do
/// not hold a lock of `std` over the `await` that a handler may want, and do not count on
/// [`Ask::within`] while that actor blocks its thread; [`crate::watchdog`] names it.
///
/// # Delivery
/// At most once. [`AskError::Timeout`] and [`AskError::NoReply`] say nothing about whether the
/// question was handled.
///
/// # Cancel safety
/// Dropping the future gives the answer up. A question that was sent stays sent.
#[must_use = "a question is sent when it is awaited"]
pub struct Ask<M, R, T = ActorRef<M>> {
    target: T,
    message: M,
    slot: Arc<Slot<R>>,
    within: Duration,
}

/// Whom a question goes to: an actor, or what chooses one when the question is sent.
#[doc(hidden)]
pub trait Asked<M> {
    /// What [`Asked::through`] understands.
    type Through: Send + 'static;

    /// The actor that stands for all of them: errors name it, and its system's clock counts.
    fn through(&self) -> &ActorRef<Self::Through>;

    /// Sends the question, which is asked `now`. Says where it went.
    ///
    /// # Errors
    /// As for [`ActorRef::tell`].
    fn put(&self, message: M, question: &Question, now: Option<Time>)
    -> Result<Went, TellError<M>>;
}

/// Where a question went.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Went {
    /// To an actor of this process, which may have answered already.
    Here,
    /// To another node, or to somebody who passes it on.
    Away,
}

impl<M: Send + 'static> Asked<M> for ActorRef<M> {
    type Through = M;

    fn through(&self) -> &Self {
        self
    }

    fn put(&self, message: M, question: &Question, _: Option<Time>) -> Result<Went, TellError<M>> {
        self.put_question(message, question)?;
        Ok(match self.remote_target() {
            None => Went::Here,
            Some(_) => Went::Away,
        })
    }
}

impl<M: Send + 'static, R: Send + 'static, T: Asked<M>> Ask<M, R, T> {
    /// A question to `target`, as [`ActorRef::ask`] makes one for an actor.
    #[doc(hidden)]
    pub fn new(target: T, question: impl FnOnce(ReplyTo<R>) -> M) -> Self {
        let slot = Arc::new(Slot::new(State::Empty(None), Some(Time::MAX)));
        let message = question(ReplyTo::new(slot.clone()));
        Self {
            target,
            message,
            slot,
            within: ASK_WITHIN_DEFAULT,
        }
    }

    /// Sets how long to wait for the answer, from the moment of sending; 5 seconds by default.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }
}

impl<M: Send + 'static, R: Send + 'static, T: Asked<M>> IntoFuture for Ask<M, R, T> {
    type Output = Result<R, AskError>;
    type IntoFuture = Asking<M, R, T>;

    fn into_future(self) -> Asking<M, R, T> {
        Asking {
            target: self.target,
            message: Some(self.message),
            slot: self.slot,
            within: self.within,
            deadline: None,
            sleep: None,
            came_again: false,
            over: false,
            edge: None,
        }
    }
}

impl<M, R, T> fmt::Debug for Ask<M, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// An [`Ask`] under way. It must be awaited inside a tokio runtime.
    #[must_use = "futures do nothing unless polled"]
    pub struct Asking<M, R, T = ActorRef<M>>
    where
        T: Asked<M>,
    {
        target: T,
        // Taken when the question is sent.
        message: Option<M>,
        slot: Arc<Slot<R>>,
        within: Duration,
        deadline: Option<Instant>,
        // Made when the answer is not there at once.
        #[pin]
        sleep: Option<Sleep>,
        // The task has been told to come again, without a timer.
        came_again: bool,
        // Nothing is waited for any more.
        over: bool,
        // Stands while an actor awaits this in its handler.
        edge: Option<Edge>,
    }

    impl<M, R, T> PinnedDrop for Asking<M, R, T>
    where
        T: Asked<M>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            wait_is_over(this.target.through(), this.edge);
            if !*this.over && this.message.is_none() {
                let unseen = this.slot.abandon(this.target.through().late());
                drop(unseen);
            }
        }
    }
}

impl<M: Send + 'static, R: Send + 'static, T: Asked<M>> Future for Asking<M, R, T> {
    type Output = Result<R, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.message.is_some()
            && let Err(refused) = self.as_mut().begin()
        {
            *self.as_mut().project().over = true;
            return Poll::Ready(Err(refused));
        }
        let mut this = self.project();
        let comes_again = !std::mem::replace(this.came_again, true);
        let answer = this.slot.poll_answer((!comes_again).then(|| cx.waker()));
        let ended = if let Poll::Ready(answer) = answer {
            answer.map_err(|refusal| {
                let path = this.target.through().path().clone();
                refusal.map_or_else(
                    || AskError::NoReply {
                        path: path.clone(),
                        waited: this.deadline.map(|deadline| {
                            let left = deadline.saturating_duration_since(Instant::now());
                            this.within.saturating_sub(left)
                        }),
                        queued: this.target.through().depth(),
                    },
                    |refusal| refusal.of(path.clone()),
                )
            })
        } else if comes_again {
            // An actor that was at work will most likely have answered when others have had their turn
            // on this thread: coming again costs less than a timer, a waker and being woken.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        } else {
            if this.sleep.is_none() {
                let deadline = this.deadline.unwrap_or_else(crate::time::far_away);
                this.sleep.set(Some(tokio::time::sleep_until(deadline)));
            }
            if let Some(sleep) = this.sleep.as_pin_mut() {
                ready!(sleep.poll(cx));
            }
            // The answer may have come between the two looks.
            let answer = this.slot.abandon(this.target.through().late());
            answer.ok_or_else(|| AskError::Timeout {
                path: this.target.through().path().clone(),
                waited: *this.within,
                queued: this.target.through().depth(),
                in_work: this.target.through().is_in_work(),
            })
        };
        *this.over = true;
        wait_is_over(this.target.through(), this.edge);
        Poll::Ready(ended)
    }
}

impl<M: Send + 'static, R: Send + 'static, T: Asked<M>> Asking<M, R, T> {
    /// Sends the question and starts the clock.
    fn begin(self: Pin<&mut Self>) -> Result<(), AskError> {
        let this = self.project();
        let Some(message) = this.message.take() else {
            return Ok(());
        };
        *this.edge = wait_begins(this.target.through()).map_err(|path| AskError::Cycle { path })?;
        let now = Instant::now();
        *this.deadline = now.checked_add(*this.within);
        let asked_at = this.target.through().time_of(now);
        let deadline = asked_at.map(|now| now + *this.within);
        this.slot.set_deadline(deadline);
        let question = Question {
            expires: deadline.unwrap_or(Time::MAX),
            edge: *this.edge,
            waits: match *this.within >= SOON {
                true => Waits::Here,
                false => Waits::HereShortly,
            },
        };
        let refused = match this.target.put(message, &question, asked_at) {
            Ok(went) => {
                // An answer from further off will not be there so soon.
                *this.came_again = went == Went::Away;
                return Ok(());
            }
            Err(refused) => refused,
        };
        wait_is_over(this.target.through(), this.edge);
        let path = this.target.through().path().clone();
        Err(match refused {
            TellError::Full(_) => AskError::Full {
                path,
                queued: this.target.through().depth(),
            },
            TellError::Stopped(_) => AskError::Stopped { path },
            TellError::Unsendable(_, why) => AskError::Unsendable { path, why },
        })
    }
}

/// Notes that the actor which is polled on this thread, if it is one, waits for `target`.
#[inline]
fn wait_begins<M: Send + 'static>(target: &ActorRef<M>) -> Result<Option<Edge>, Vec<ActorPath>> {
    let Some(core) = target.core() else {
        return Ok(None);
    };
    let Some(asker) = wait_graph::at_work(Arc::as_ptr(core).addr()) else {
        return Ok(None);
    };
    core.waits.add(asker, target.uid(), target.path()).map(Some)
}

fn wait_is_over<M>(target: &ActorRef<M>, edge: &mut Option<Edge>) {
    if let Some(edge) = edge.take()
        && let Some(core) = target.core()
    {
        core.waits.remove(edge);
    }
}

/// The port through which a question is answered, once. It travels inside the question.
///
/// When the last handle on the port is dropped unanswered, the asker learns it at once
/// ([`AskError::NoReply`]).
pub struct ReplyTo<R> {
    /// `None` once it was used.
    slot: Option<Arc<Slot<R>>>,
}

impl<R> ReplyTo<R> {
    fn new(slot: Arc<Slot<R>>) -> Self {
        Self { slot: Some(slot) }
    }

    fn slot(&self) -> &Arc<Slot<R>> {
        self.slot.as_ref().expect("only `send` takes it out")
    }
}

impl<R: Send + 'static> ReplyTo<R> {
    /// Answers.
    ///
    /// # Errors
    /// The answer itself, if nobody waits for it any more or it was answered already.
    ///
    /// # Delivery
    /// `Ok` means that the answer was put where the asker finds it if it still looks.
    pub fn send(mut self, answer: R) -> Result<(), R> {
        match self.slot.take() {
            // The other handles on an answered port need not know how many there are.
            Some(slot) => slot.answer(answer),
            None => Err(answer),
        }
    }

    /// Says why there will be no answer, for those who carry questions on: the asker's error names
    /// it, where a port that is only dropped says [`AskError::NoReply`]. It changes nothing for a
    /// port that was answered already.
    pub fn refuse(mut self, why: Refusal) {
        if let Some(slot) = self.slot.take() {
            slot.refuse(why);
        }
    }

    /// When the asker stops waiting, on its system's clock; `None` if it waits without end, or if
    /// that is not known.
    pub fn deadline(&self) -> Option<Time> {
        self.slot().deadline()
    }

    /// Whether an answer would find nobody.
    pub fn is_closed(&self) -> bool {
        !matches!(
            *lock(&self.slot().state),
            State::Empty(_) | State::Forward(_)
        )
    }

    /// A port and the future of its answer. `deadline` is only carried to the one who answers;
    /// whoever waits sees to it that it stops waiting.
    pub fn channel(deadline: Option<Time>) -> (Self, Reply<R>) {
        let slot = Arc::new(Slot::new(State::Empty(None), deadline));
        (Self::new(slot.clone()), Reply { slot, path: None })
    }

    /// A port that hands its answer to `forward`, for one who carries it further. If the port is
    /// dropped unanswered, `forward` is dropped uncalled.
    pub fn from_fn(forward: impl FnOnce(R) + Send + 'static, deadline: Option<Time>) -> Self {
        let answered = move |answer: Result<R, Refusal>| {
            if let Ok(answer) = answer {
                forward(answer);
            }
        };
        Self::from_outcome(answered, deadline)
    }

    /// As [`Self::from_fn`], for one who also carries on that the question was refused.
    pub fn from_outcome(
        forward: impl FnOnce(Result<R, Refusal>) + Send + 'static,
        deadline: Option<Time>,
    ) -> Self {
        let state = State::Forward(Box::new(forward));
        Self::new(Arc::new(Slot::new(state, deadline)))
    }

    /// A second handle on the same port: the first answer through either of them wins.
    #[doc(hidden)]
    pub fn share(&self) -> Self {
        self.slot().ports.fetch_add(1, Ordering::Relaxed);
        Self::new(self.slot().clone())
    }
}

impl<R> Drop for ReplyTo<R> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take()
            && slot.ports.fetch_sub(1, Ordering::AcqRel) == 1
        {
            slot.last_port_dropped();
        }
    }
}

thread_local! {
    /// Why messages are dropped on this thread at the moment ([`Refusal::refuse`]).
    static WHY: Cell<Option<Refusal>> = const { Cell::new(None) };
}

impl Refusal {
    /// Drops `message`, which was for an actor that will not get it: whoever waits at a reply port in
    /// it learns this reason, where they would see [`AskError::NoReply`]. For those who carry
    /// messages of a type that they do not look into.
    ///
    /// ```
    /// use otava_actor::{AskError, Refusal, ReplyTo};
    ///
    /// # async fn f() {
    /// let (port, reply) = ReplyTo::<u32>::channel(None);
    /// let message = Some(("how many?", port));
    /// Refusal::Full.refuse(message);
    /// assert!(matches!(reply.await, Err(AskError::Full { .. })));
    /// # }
    /// ```
    pub fn refuse<M>(self, message: M) {
        /// Also after a panic of the message's own drop.
        struct Restore(Option<Refusal>);
        impl Drop for Restore {
            fn drop(&mut self) {
                WHY.set(self.0);
            }
        }
        let _restore = Restore(WHY.replace(Some(self)));
        drop(message);
    }
}

impl<R> fmt::Debug for ReplyTo<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo(..)")
    }
}

/// The future of an answer ([`ReplyTo::channel`]). It waits until the port is answered or dropped.
///
/// # Cancel safety
/// Polling it through a reference loses nothing; dropping it gives the answer up.
#[must_use = "futures do nothing unless polled"]
pub struct Reply<R> {
    slot: Arc<Slot<R>>,
    path: Option<ActorPath>,
}

impl<R> Reply<R> {
    /// Names who was asked, for the errors of this reply.
    pub fn of(mut self, path: ActorPath) -> Self {
        self.path = Some(path);
        self
    }
}

impl<R> Future for Reply<R> {
    type Output = Result<R, AskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.slot.poll_answer(Some(cx.waker())));
        Poll::Ready(answer.map_err(|refusal| {
            let path = self.path.clone();
            let path = path.unwrap_or_else(|| ActorPath::new("(a reply port)"));
            match refusal {
                Some(refusal) => refusal.of(path),
                None => AskError::NoReply {
                    path,
                    waited: None,
                    queued: None,
                },
            }
        }))
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        let unseen = self.slot.abandon(None);
        drop(unseen);
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

/// What port and asker share.
struct Slot<R> {
    state: Mutex<State<R>>,
    /// Living handles of the port's side.
    ports: AtomicU64,
    /// Nanoseconds; `NO_DEADLINE` if there is none.
    deadline: AtomicU64,
}

/// Where an answer that comes too late is counted.
pub(crate) struct Late {
    pub(crate) letters: DeadLetters,
    pub(crate) path: ActorPath,
}

enum State<R> {
    /// Not answered; the waker of the one who waits.
    Empty(Option<Waker>),
    Forward(Box<dyn FnOnce(Result<R, Refusal>) + Send>),
    Answered(R),
    Refused(Refusal),
    /// Given up by its asker.
    GivenUp(Box<Late>),
    /// Answered or refused and taken, given up, or dropped unanswered.
    Over,
}

const NO_DEADLINE: u64 = u64::MAX;

impl<R> Slot<R> {
    fn new(state: State<R>, deadline: Option<Time>) -> Self {
        let deadline = deadline.unwrap_or(Time::MAX).as_nanos();
        Self {
            state: Mutex::new(state),
            ports: AtomicU64::new(1),
            deadline: AtomicU64::new(deadline),
        }
    }

    fn set_deadline(&self, deadline: Option<Time>) {
        self.deadline
            .store(deadline.unwrap_or(Time::MAX).as_nanos(), Ordering::Relaxed);
    }

    fn deadline(&self) -> Option<Time> {
        let nanos = self.deadline.load(Ordering::Relaxed);
        (nanos != NO_DEADLINE).then(|| Time::from_nanos(nanos))
    }

    fn answer(&self, answer: R) -> Result<(), R> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Over) {
            State::Empty(waker) => {
                *state = State::Answered(answer);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
                Ok(())
            }
            State::Forward(forward) => {
                drop(state);
                forward(Ok(answer));
                Ok(())
            }
            State::GivenUp(late) => {
                drop(state);
                let kind = std::any::type_name::<R>();
                late.letters
                    .report(&late.path, DeadLetterReason::LateReply, kind);
                Err(answer)
            }
            before => {
                *state = before;
                drop(state);
                Err(answer)
            }
        }
    }

    fn refuse(&self, why: Refusal) {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Over) {
            State::Empty(waker) => {
                *state = State::Refused(why);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Forward(forward) => {
                drop(state);
                forward(Err(why));
            }
            // Dropped unlocked: nobody waits for an answer, and this is none.
            given_up @ State::GivenUp(_) => {
                drop(state);
                drop(given_up);
            }
            before => *state = before,
        }
    }

    /// The answer; why there will be none, if somebody said so. When it comes, `asker` is woken.
    fn poll_answer(&self, asker: Option<&Waker>) -> Poll<Result<R, Option<Refusal>>> {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Empty(waker) => {
                let asker = asker.filter(|asker| {
                    let known = waker.as_ref();
                    !known.is_some_and(|known| known.will_wake(asker))
                });
                // Not dropped under the lock: it may be the last that holds a task of the user.
                let before = asker.and_then(|asker| waker.replace(asker.clone()));
                drop(state);
                drop(before);
                Poll::Pending
            }
            _ => match std::mem::replace(&mut *state, State::Over) {
                State::Answered(answer) => Poll::Ready(Ok(answer)),
                State::Refused(why) => Poll::Ready(Err(Some(why))),
                _ => Poll::Ready(Err(None)),
            },
        }
    }

    /// The asker gives up; an answer that was there already is returned, one that comes later is
    /// counted as `late` says.
    fn abandon(&self, late: Option<Late>) -> Option<R> {
        let given_up = late.map_or(State::Over, |late| State::GivenUp(Box::new(late)));
        let mut state = lock(&self.state);
        let before = match *state {
            State::Over => State::Over,
            _ => std::mem::replace(&mut *state, given_up),
        };
        drop(state);
        match before {
            State::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    fn last_port_dropped(&self) {
        if let Some(why) = WHY.get() {
            return self.refuse(why);
        }
        let mut state = lock(&self.state);
        if matches!(*state, State::Answered(_) | State::Refused(_) | State::Over) {
            return;
        }
        let before = std::mem::replace(&mut *state, State::Over);
        drop(state);
        if let State::Empty(Some(waker)) = before {
            waker.wake();
        }
    }
}

#[cfg(all(test, otava_loom))]
mod loom_models;
