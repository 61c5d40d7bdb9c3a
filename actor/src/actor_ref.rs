//! ActorRef: the way to reach an actor, here or on another node, by what it understands.

use crate::adapter::{Adapted, Conversion, Root};
use crate::ask::{Ask, Late, ReplyTo};
use crate::cell::Cell;
use crate::dead_letters::DeadLetterReason;
use crate::error::TellError;
use crate::failure::drop_guarded;
use crate::mailbox::{Phase, Refusal, Wake};
use crate::observe::mark::{Extra, Question, Waits};
use crate::path::ActorPath;
use crate::scheduler::Job;
use crate::system::Core;
use crate::time::Time;
use crate::tree::ActorState;
use crate::watch::{Terminated, Watchable, Watcher, WatcherId, Watching};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A reference to an actor that understands `M`. It names a protocol, not the actor's type, and says
/// nothing about where the actor runs.
///
/// One pointer, cheap to clone. References do not keep an actor alive and dropping them does not
/// stop it; it stops when somebody says so, when it fails, or with its parent. Two references are
/// equal if they reach the same actor; an actor keeps its identity over restarts.
///
/// # Delivery
/// At most once. Messages from one sender to one actor are handled in the order in which they were
/// accepted.
pub struct ActorRef<M>(Arc<Target<M>>);

/// What a reference points to.
#[allow(
    clippy::large_enum_variant,
    reason = "local actors are many and shall be one allocation; references to remote ones are few"
)]
pub(crate) enum Target<M> {
    Local(Cell<M>),
    Remote(Arc<dyn RemoteTarget<M>>),
    /// Another reference, behind a function that makes its messages.
    Adapted(Box<dyn Adapted<M>>),
}

impl<M: Send + 'static> ActorRef<M> {
    /// Queues `message` without waiting.
    ///
    /// # Delivery
    /// `Ok` means accepted, not handled: if the actor stops first, the message becomes a dead letter.
    ///
    /// # Errors
    /// The message comes back: [`TellError::Full`] if the mailbox has no room,
    /// [`TellError::Stopped`] if the actor accepts nothing any more, [`TellError::Unsendable`] if it
    /// is on another node and the message has no wire form or too large a one.
    // Always: see `Queue::claim`. What is rare is behind calls.
    #[inline(always)]
    pub fn tell(&self, message: M) -> Result<(), TellError<M>> {
        match &*self.0 {
            Target::Local(cell) => {
                let extra = Extra::now(cell.core(), None);
                match cell.mailbox.claim() {
                    Ok(claim) => {
                        self.0.wake_if(claim.fill(message, extra));
                        Ok(())
                    }
                    Err(refusal) => self.0.push_refused(refusal, message, extra),
                }
            }
            Target::Remote(remote) => remote.tell(message),
            Target::Adapted(adapted) => adapted.tell(message, None),
        }
    }

    /// As [`ActorRef::tell`], for a message that is of no use from `expires` on, by the clock of this
    /// node's system: an actor that gets to it later skips it, and it is a dead letter
    /// ([`DeadLetterReason::Expired`]). For those who carry questions on; an ask does this itself.
    ///
    /// # Errors
    /// As for [`ActorRef::tell`].
    pub fn tell_expiring(&self, message: M, expires: Time) -> Result<(), TellError<M>> {
        self.put_question(message, &Question::expiring(expires))
    }

    /// Queues `message`, and waits for room in the mailbox if there is none. Those who wait are
    /// served in the order in which they came.
    ///
    /// # Delivery
    /// As for [`ActorRef::tell`].
    ///
    /// # Errors
    /// [`TellError::Stopped`] with the message, if the actor accepts nothing any more; also if that
    /// happens while waiting.
    ///
    /// # Cancel safety
    /// A message whose `send` is dropped while it waits is dropped with it, unsent. No other sender
    /// misses its turn by that.
    pub async fn send(&self, message: M) -> Result<(), TellError<M>> {
        match &*self.0 {
            Target::Local(cell) => {
                let line = InLine {
                    cell,
                    target: &self.0,
                    message: Some(message),
                    place: None,
                };
                line.await.map_err(|refused| cell.refuse(refused))
            }
            Target::Remote(remote) => remote.send(message).await,
            Target::Adapted(adapted) => adapted.send(message).await,
        }
    }

    /// Asks a question: `question` puts the reply port into a message. The question is sent when the
    /// result is awaited, and has 5 seconds to be answered unless [`Ask::within`] says otherwise.
    ///
    /// # Errors
    /// [`crate::AskError`] names the actor: full, stopped, no answer in time, no answer ever, or a
    /// circle of actors that would wait for each other.
    ///
    /// # Delivery
    /// At most once, see [`Ask`].
    ///
    /// # Examples
    /// ```
    /// # use otava_actor::{ActorRef, AskError, ReplyTo};
    /// # use std::time::Duration;
    /// enum Query {
    ///     Balance { account: u32, reply_to: ReplyTo<i64> },
    /// }
    ///
    /// async fn balance(bank: &ActorRef<Query>) -> Result<i64, AskError> {
    ///     bank.ask(|reply_to| Query::Balance { account: 7, reply_to })
    ///         .within(Duration::from_millis(200))
    ///         .await
    /// }
    /// ```
    pub fn ask<R: Send + 'static>(&self, question: impl FnOnce(ReplyTo<R>) -> M) -> Ask<M, R> {
        Ask::new(self.clone(), question)
    }

    /// The actor's place in its system's tree.
    pub fn path(&self) -> &ActorPath {
        match &*self.0 {
            Target::Local(cell) => cell.path(),
            Target::Remote(remote) => remote.path(),
            Target::Adapted(adapted) => adapted.actor().path(),
        }
    }

    /// The actor's number, unique in its system and never given twice there.
    pub fn uid(&self) -> u64 {
        match &*self.0 {
            Target::Local(cell) => cell.uid(),
            Target::Remote(remote) => remote.uid(),
            Target::Adapted(adapted) => adapted.actor().uid(),
        }
    }

    /// Whether the actor accepts no message any more. It may still be at work on its last one; use
    /// [`ActorRef::on_terminated`] to learn when it has ended.
    pub fn is_stopped(&self) -> bool {
        match &*self.0 {
            Target::Local(cell) => !cell.mailbox.is_open(),
            Target::Remote(remote) => remote.is_stopped(),
            Target::Adapted(adapted) => adapted.actor().is_stopped(),
        }
    }

    /// How many messages wait in the mailbox, without the one in work; 0 for a remote actor.
    pub fn queued(&self) -> usize {
        match &*self.0 {
            Target::Local(cell) => cell.mailbox.len(),
            Target::Remote(_) => 0,
            Target::Adapted(adapted) => adapted.actor().queued(),
        }
    }

    /// Stops the actor after the message in work. What waits in the mailbox becomes dead letters.
    /// Nothing is accepted from now on.
    pub fn stop(&self) {
        match &*self.0 {
            Target::Local(_) => self.0.request_of(Phase::Stopping),
            Target::Remote(remote) => remote.stop(),
            Target::Adapted(adapted) => adapted.actor().stop(),
        }
    }

    /// Stops the actor after everything that is queued now. Nothing is accepted from now on. On a
    /// remote actor this does the same as [`ActorRef::stop`].
    pub fn stop_after_queued(&self) {
        match &*self.0 {
            Target::Local(_) => self.0.request_of(Phase::Draining),
            Target::Remote(remote) => remote.stop(),
            Target::Adapted(adapted) => adapted.actor().stop_after_queued(),
        }
    }

    /// Calls `callback` once when the actor ends, or at once if it has ended; not for a restart.
    /// Dropping the result takes the callback back. For code that is no actor; actors use
    /// [`crate::Context::watch`].
    ///
    /// The callback runs where the actor ended and should be short. A panic in it is caught.
    pub fn on_terminated(&self, callback: impl FnOnce(Terminated) + Send + 'static) -> Watching {
        Watching::start(self.0.clone(), callback)
    }

    /// A reference to an actor somewhere else.
    pub fn from_remote(remote: Arc<dyn RemoteTarget<M>>) -> Self {
        Self(Arc::new(Target::Remote(remote)))
    }

    /// What [`ActorRef::from_remote`] was given; `None` for a local actor, and for a reference that
    /// [`ActorRef::adapt`] made: it is here, whatever is behind it.
    pub fn remote_target(&self) -> Option<&Arc<dyn RemoteTarget<M>>> {
        match &*self.0 {
            Target::Local(_) | Target::Adapted(_) => None,
            Target::Remote(remote) => Some(remote),
        }
    }

    /// What tells references to one actor apart that understand the same messages in different ways;
    /// `None` for one without a conversion.
    #[doc(hidden)]
    pub fn conversion(&self) -> Option<Conversion> {
        match &*self.0 {
            Target::Local(_) | Target::Remote(_) => None,
            Target::Adapted(adapted) => Some(adapted.conversion()),
        }
    }

    /// The time on the clock of the actor's system, where that is known.
    #[doc(hidden)]
    pub fn clock_time(&self) -> Option<Time> {
        self.time_of(Instant::now())
    }

    pub(crate) fn from_target(target: Arc<Target<M>>) -> Self {
        Self(target)
    }

    pub(crate) fn watchable(&self) -> Arc<dyn Watchable> {
        self.0.clone()
    }

    /// The moment `instant` on the clock of the actor's system.
    pub(crate) fn time_of(&self, instant: Instant) -> Option<Time> {
        match &*self.0 {
            Target::Local(cell) => Some(cell.core().clock.time(instant)),
            Target::Remote(remote) => remote.now(),
            Target::Adapted(adapted) => adapted.actor().time_of(instant),
        }
    }

    /// Tells a question.
    pub(crate) fn put_question(&self, message: M, question: &Question) -> Result<(), TellError<M>> {
        match &*self.0 {
            Target::Local(cell) => self
                .tell_uncounted(message, Some(question))
                .map_err(|refused| cell.refuse(refused)),
            Target::Remote(remote) => remote.tell_expiring(message, question.expires),
            Target::Adapted(adapted) => adapted.tell(message, Some(question)),
        }
    }

    /// Tells a message, which may be a question. What a local actor refuses is not counted: for those
    /// who have another way for it.
    ///
    /// # Errors
    /// As for [`ActorRef::tell`].
    #[doc(hidden)]
    pub fn tell_uncounted(
        &self,
        message: M,
        question: Option<&Question>,
    ) -> Result<(), TellError<M>> {
        let cell = match (&*self.0, question) {
            (Target::Local(cell), _) => cell,
            (_, Some(question)) => return self.put_question(message, question),
            (_, None) => return self.tell(message),
        };
        let extra = Extra::now(cell.core(), question);
        let wake = cell
            .mailbox
            .push(message, extra, |oldest| cell.give_up(oldest))?;
        match question {
            Some(question) => self.0.wake_for(wake, question),
            None => self.0.wake_if(wake),
        }
        Ok(())
    }

    /// How many more messages the mailbox would take, and how many wait in it; `None` for what is no plain
    /// reference to an actor of this process.
    #[doc(hidden)]
    pub fn mailbox_room(&self) -> Option<(u64, u64)> {
        match &*self.0 {
            Target::Local(cell) => Some((cell.mailbox.room(), cell.mailbox.len() as u64)),
            Target::Remote(_) | Target::Adapted(_) => None,
        }
    }

    /// How many messages wait, where that is known.
    pub(crate) fn depth(&self) -> Option<usize> {
        match &*self.0 {
            Target::Local(cell) => Some(cell.mailbox.len()),
            Target::Remote(_) => None,
            Target::Adapted(adapted) => adapted.actor().depth(),
        }
    }

    /// Whether a message is in work, where that is known.
    pub(crate) fn is_in_work(&self) -> Option<bool> {
        let activity = match &*self.0 {
            Target::Local(cell) => cell.activity(),
            Target::Remote(_) => return None,
            Target::Adapted(adapted) => return adapted.actor().is_in_work(),
        };
        Some(matches!(
            activity,
            ActorState::Running | ActorState::Waiting
        ))
    }
}

impl<M> ActorRef<M> {
    pub(crate) fn target(&self) -> &Arc<Target<M>> {
        &self.0
    }

    /// The system of the actor, if it is here.
    pub(crate) fn core(&self) -> Option<&Arc<Core>> {
        match &*self.0 {
            Target::Local(cell) => Some(cell.core()),
            Target::Remote(_) => None,
            Target::Adapted(adapted) => adapted.actor().core(),
        }
    }

    /// Where an answer that comes too late is counted.
    pub(crate) fn late(&self) -> Option<Late> {
        match &*self.0 {
            Target::Local(cell) => Some(Late {
                letters: cell.core().dead_letters.clone(),
                path: cell.path().clone(),
            }),
            Target::Remote(_) => None,
            Target::Adapted(adapted) => adapted.actor().late(),
        }
    }
}

impl<M: 'static> ActorRef<M> {
    /// Which actor is meant, whatever it is sent through.
    pub(crate) fn root(&self) -> Root<'_> {
        match &*self.0 {
            Target::Local(_) => Root::Local(Arc::as_ptr(&self.0).addr()),
            Target::Remote(remote) => Root::Remote(remote.uid(), remote.path()),
            Target::Adapted(adapted) => adapted.actor().root(),
        }
    }
}

impl<M> Target<M> {
    pub(crate) fn local(&self) -> Option<&Cell<M>> {
        match self {
            Self::Local(cell) => Some(cell),
            Self::Remote(_) | Self::Adapted(_) => None,
        }
    }

    /// The cell, without a look at the kind of target: it lies on a cache line that producers write to.
    ///
    /// # Safety
    /// It is a local actor's.
    #[allow(
        unsafe_code,
        reason = "measured: the look was a cache miss a message while others tell"
    )]
    #[inline]
    pub(crate) unsafe fn cell_unchecked(&self) -> &Cell<M> {
        match self {
            Self::Local(cell) => cell,
            // SAFETY: as the caller promises.
            Self::Remote(_) | Self::Adapted(_) => unsafe { std::hint::unreachable_unchecked() },
        }
    }

    /// The cell, where only a local actor can be meant.
    pub(crate) fn cell(&self) -> &Cell<M> {
        self.local()
            .expect("only local actors have a context, a parent and children")
    }
}

impl<M: Send + 'static> Target<M> {
    /// Passes on what a mailbox said about waking when it got `question`. An actor that was idle
    /// handles it here and now, if somebody waits for that and it may
    /// ([`crate::scheduler::Scheduler::run_here`]).
    #[inline]
    pub(crate) fn wake_for(self: &Arc<Self>, Wake(needed): Wake, question: &Question) {
        if !needed {
            return;
        }
        if question.waits == Waits::No {
            return self.schedule();
        }
        let cell = self.cell();
        let core = cell.core();
        // SAFETY: the token goes with the job, and the body is in its place.
        #[allow(unsafe_code, reason = "a job is no reference of its own")]
        let job = unsafe { Job::new(self) };
        core.scheduler().run_here(&core.handle, job, || {
            if question.waits == Waits::Here {
                cell.first_is_fresh();
            }
        });
    }

    /// The rest of a `tell` that got no place in the queue.
    #[cold]
    fn push_refused(
        self: &Arc<Self>,
        refusal: Refusal,
        message: M,
        extra: Extra,
    ) -> Result<(), TellError<M>> {
        let cell = self.cell();
        let pushed = cell
            .mailbox
            .push_refused(refusal, message, extra, |oldest| cell.give_up(oldest));
        self.wake_if(pushed.map_err(|refused| cell.refuse(refused))?);
        Ok(())
    }
}

impl<M: Send + 'static> Cell<M> {
    /// Counts and drops the oldest message, which a newer one took the place of.
    pub(crate) fn give_up(&self, oldest: M) {
        self.count_lost(DeadLetterReason::DroppedOldest);
        drop_guarded(oldest);
    }

    /// Counts a message that goes back to its sender.
    #[cold]
    fn refuse(&self, refused: TellError<M>) -> TellError<M> {
        let reason = match refused {
            TellError::Full(_) => DeadLetterReason::RefusedFull,
            // A local mailbox refuses nothing else.
            TellError::Stopped(_) | TellError::Unsendable(..) => DeadLetterReason::RefusedStopped,
        };
        self.count_lost(reason);
        refused
    }
}

/// A sender that waits for room.
struct InLine<'a, M: Send + 'static> {
    cell: &'a Cell<M>,
    target: &'a Arc<Target<M>>,
    message: Option<M>,
    place: Option<u64>,
}

// Nothing in it is pinned: the message is only moved.
impl<M: Send + 'static> Unpin for InLine<'_, M> {}

impl<M: Send + 'static> Future for InLine<'_, M> {
    type Output = Result<(), TellError<M>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.cell
            .mailbox
            .poll_push(
                &mut this.message,
                || Extra::now(this.cell.core(), None),
                &mut this.place,
                cx,
                |oldest| this.cell.give_up(oldest),
            )
            .map(|sent| {
                this.target.wake_if(sent?);
                Ok(())
            })
    }
}

impl<M: Send + 'static> Drop for InLine<'_, M> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.cell.mailbox.leave_line(place);
        }
    }
}

impl<M> Clone for ActorRef<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: 'static> PartialEq for ActorRef<M> {
    fn eq(&self, other: &Self) -> bool {
        match (&*self.0, &*other.0) {
            (Target::Remote(a), Target::Remote(b)) => {
                Arc::ptr_eq(a, b) || (a.uid() == b.uid() && a.path() == b.path())
            }
            (Target::Local(_), Target::Local(_)) => Arc::ptr_eq(&self.0, &other.0),
            _ => self.root() == other.root(),
        }
    }
}

impl<M: 'static> Eq for ActorRef<M> {}

impl<M: 'static> Hash for ActorRef<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &*self.0 {
            Target::Local(cell) => cell.uid().hash(state),
            Target::Remote(remote) => remote.uid().hash(state),
            Target::Adapted(adapted) => adapted.actor().uid().hash(state),
        }
    }
}

impl<M: 'static> fmt::Debug for ActorRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Target::Local(cell) => fmt::Debug::fmt(cell.path(), f),
            Target::Remote(remote) => fmt::Debug::fmt(remote.path(), f),
            Target::Adapted(adapted) => fmt::Debug::fmt(adapted.actor().path(), f),
        }
    }
}

/// An actor somewhere else: how another layer, such as `otava-remote`, plugs into [`ActorRef`].
pub trait RemoteTarget<M>: Send + Sync + 'static {
    /// Queues `message` for transport without waiting.
    ///
    /// # Errors
    /// As for [`ActorRef::tell`].
    fn tell(&self, message: M) -> Result<(), TellError<M>>;

    /// As [`RemoteTarget::tell`], for a message that is of no use from `expires` on, by the clock of
    /// [`RemoteTarget::now`]. For those who know the mailbox where the message goes; a deadline that
    /// is to travel further does so in the reply port.
    ///
    /// # Errors
    /// As for [`ActorRef::tell`].
    fn tell_expiring(&self, message: M, expires: Time) -> Result<(), TellError<M>> {
        let _ = expires;
        self.tell(message)
    }

    /// Queues `message` for transport and waits for room if there is none.
    ///
    /// # Errors
    /// As for [`ActorRef::send`].
    fn send(
        &self,
        message: M,
    ) -> Pin<Box<dyn Future<Output = Result<(), TellError<M>>> + Send + '_>>;

    /// The actor's path, which must tell its node apart from all others.
    fn path(&self) -> &ActorPath;

    /// The actor's number in its own system.
    fn uid(&self) -> u64;

    /// Registers `watcher`: it is notified once, when the actor has ended or is lost. Registering
    /// the same [`WatcherId`] again changes nothing.
    fn watch(&self, watcher: Watcher);

    /// Takes a registration back.
    fn unwatch(&self, watcher: WatcherId);

    /// Whether it is known that the actor accepts nothing any more.
    fn is_stopped(&self) -> bool;

    /// Asks the actor to stop. Other nodes may not do that by default: then this logs and does
    /// nothing.
    fn stop(&self);

    /// The time on the clock of the system that holds this reference, for the deadline that travels
    /// with an ask; `None` if there is no deadline to send.
    fn now(&self) -> Option<Time> {
        None
    }

    /// The target itself, for the layer that made it.
    fn as_any(&self) -> &dyn Any;
}
