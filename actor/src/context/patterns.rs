//! Patterns: what an actor does with itself over time: timers, a receive timeout, putting messages
//! aside, asking without waiting, attaching streams.

use super::steps::ReceiveTimeout;
use super::{Context, Pipe};
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::ask::ReplyTo;
use crate::dead_letters::DeadLetters;
use crate::effects::Effect;
use crate::error::AskError;
use crate::failure::drop_guarded;
use crate::stash::{Returning, Stash};
use crate::stream::{StreamEvent, StreamId, Streams};
use crate::time::Time;
use crate::timers::{Make, Repeat, TimerKey, later};
use futures_util::Stream;
use std::future::{Future, IntoFuture, ready};
use std::task::{self, Poll, Waker};
use std::time::Duration;

/// Timers. Each has a key; setting a timer replaces the one of the same key, and from a timer that
/// was replaced or cancelled nothing comes any more, even if it was due. A restart or a stop ends all
/// timers in the same way. The functions of repeated timers run in the actor; a panic in one is a
/// failure of the actor.
impl<A: Actor> Context<A> {
    /// Sends `message` to this actor after `after`.
    pub fn timer_once(&mut self, key: impl Into<TimerKey>, after: Duration, message: A::Msg) {
        let key = key.into();
        self.note(|| Effect::TimerSet {
            key: key.clone(),
            after,
            repeated: false,
        });
        self.extras().timers.once(key, after, message);
    }

    /// Sends `message` to this actor at `at`, on the system's clock; soon, if that has passed.
    pub fn timer_at(&mut self, key: impl Into<TimerKey>, at: Time, message: A::Msg) {
        let (key, clock) = (key.into(), self.cell().core().clock);
        self.note(|| Effect::TimerSet {
            key: key.clone(),
            after: at.saturating_since(clock.now()),
            repeated: false,
        });
        self.extras().timers.at(key, clock.instant(at), message);
    }

    /// Sends a message made by `make` to this actor every `every`, for the first time after `every`.
    /// The ticks do not drift. Ticks that are missed because the actor is busy are left out: one
    /// comes for all of them, and if it is late by more than `every`, the next one comes `every`
    /// after it.
    ///
    /// # Panics
    /// If `every` is zero.
    pub fn timer_every(
        &mut self,
        key: impl Into<TimerKey>,
        every: Duration,
        make: impl FnMut() -> A::Msg + Send + 'static,
    ) {
        self.repeat(key.into(), every, Repeat::LeaveOut, Box::new(make));
    }

    /// As [`Context::timer_every`], with a fixed delay: between one tick and the next lies at least
    /// `delay`, so a late tick moves all that follow.
    ///
    /// # Panics
    /// If `delay` is zero.
    pub fn timer_with_delay(
        &mut self,
        key: impl Into<TimerKey>,
        delay: Duration,
        make: impl FnMut() -> A::Msg + Send + 'static,
    ) {
        self.repeat(key.into(), delay, Repeat::Delay, Box::new(make));
    }

    /// As [`Context::timer_every`], with a fixed rate: ticks that are missed because the actor is
    /// busy come one after the other as soon as it is not, so their number is right in the long run.
    /// Behind a tick that is late, at most [`crate::timers::TIMER_CATCH_UP_MAX`] are made up for, and
    /// older ones are left out. Messages have their turns in between.
    ///
    /// # Panics
    /// If `every` is zero.
    pub fn timer_at_rate(
        &mut self,
        key: impl Into<TimerKey>,
        every: Duration,
        make: impl FnMut() -> A::Msg + Send + 'static,
    ) {
        self.repeat(key.into(), every, Repeat::CatchUp, Box::new(make));
    }

    fn repeat(&mut self, key: TimerKey, every: Duration, repeat: Repeat, make: Make<A::Msg>) {
        self.note(|| Effect::TimerSet {
            key: key.clone(),
            after: every,
            repeated: true,
        });
        self.extras().timers.every(key, every, repeat, make);
    }

    /// Whether a timer of this key has something to come.
    pub fn is_timer_active(&self, key: impl Into<TimerKey>) -> bool {
        let key = key.into();
        self.consult(|extras| extras.timers.is_active(&key))
    }

    /// Removes the timer of this key; `false` if there is none.
    pub fn cancel_timer(&mut self, key: impl Into<TimerKey>) -> bool {
        let key = key.into();
        let extras = self.rare();
        let cancelled = extras.is_some_and(|extras| extras.timers.cancel(&key));
        if cancelled {
            self.note(|| Effect::TimerCancelled(key));
        }
        cancelled
    }

    /// Removes all timers. The receive timeout is none of them.
    pub fn cancel_all_timers(&mut self) {
        if let Some(extras) = self.rare() {
            extras.timers.clear();
        }
    }

    /// Sends a message made by `make` to this actor whenever it had nothing to do for `after`,
    /// counted from the end of the step before: a message, also one of its own timers, streams and
    /// pipes, or the end of a watched actor. The message of the timeout is a step as well, so it comes
    /// again, every `after`, until something else comes or it is cancelled. Setting it anew replaces
    /// it. It never overtakes a message that is queued.
    ///
    /// Handlers say which messages do not count ([`Context::keep_receive_timeout`]). A restart ends
    /// it.
    ///
    /// # Panics
    /// If `after` is zero.
    pub fn set_receive_timeout(
        &mut self,
        after: Duration,
        make: impl FnMut() -> A::Msg + Send + 'static,
    ) {
        assert!(!after.is_zero(), "a timeout needs a length above zero");
        let timeout = ReceiveTimeout {
            after,
            make: Box::new(make),
            due: later(after),
            is_kept: false,
        };
        let extras = self.extras();
        extras.is_at_work = true;
        drop_guarded(extras.receive_timeout.replace(Box::new(timeout)));
    }

    /// Ends the receive timeout; `false` if there is none.
    pub fn cancel_receive_timeout(&mut self) -> bool {
        let extras = self.rare();
        let timeout = extras.and_then(|extras| extras.receive_timeout.take());
        timeout.map(drop_guarded).is_some()
    }

    /// Lets the receive timeout come when it would have come without the message in work: for
    /// messages that are no sign of life, such as a regular question about the actor's state.
    pub fn keep_receive_timeout(&mut self) {
        let extras = self.rare();
        if let Some(timeout) = extras.and_then(|extras| extras.receive_timeout.as_mut()) {
            timeout.is_kept = true;
        }
    }
}

impl<A: Actor> Context<A> {
    /// Lets all messages of `stash` come again: in later turns, one by one, before everything in the
    /// mailbox, and not counted against its bound. Says how many.
    ///
    /// The order is the one in which they were put aside for the first time, also among those that
    /// are in line already. A message that is put aside and taken back in each of its turns keeps its
    /// place in front of the mailbox: then nothing else is handled, except timers and
    /// a stop.
    ///
    /// # Delivery
    /// They are out of the stash and wait like the mailbox: a failure of one of them, and a restart,
    /// leaves the others where they are, and an actor that stops counts them as dead letters
    /// ([`crate::DeadLetterReason::LeftInMailbox`]).
    pub fn unstash_all(&mut self, stash: &mut Stash<A::Msg>) -> usize {
        self.unstash(stash, usize::MAX)
    }

    /// As [`Context::unstash_all`], for the first `most` messages of `stash`.
    pub fn unstash(&mut self, stash: &mut Stash<A::Msg>, most: usize) -> usize {
        let back = stash.take(most);
        let messages = back.len();
        if messages > 0 {
            self.returning().put_back(back);
        }
        messages
    }

    /// Asks `target` without waiting: the answer, or why there is none, comes as a message in a later
    /// turn, as `map` puts it. The question is sent at once, so it keeps its place among what this
    /// actor tells the target. Otherwise this is [`Context::pipe_to_self`] of an ask.
    ///
    /// ```
    /// use otava_actor::{Actor, ActorRef, AskError, Context, ReplyTo};
    /// use std::time::Duration;
    ///
    /// struct Price(ReplyTo<u64>);
    ///
    /// enum Msg {
    ///     Quote,
    ///     Quoted(Result<u64, AskError>),
    /// }
    ///
    /// struct Buyer(ActorRef<Price>);
    ///
    /// impl Actor for Buyer {
    ///     type Msg = Msg;
    ///     type Err = AskError;
    ///
    ///     async fn handle(&mut self, msg: Msg, ctx: &mut Context<Self>) -> Result<(), AskError> {
    ///         match msg {
    ///             Msg::Quote => {
    ///                 ctx.ask_then(&self.0, Price, Duration::from_millis(200), Msg::Quoted);
    ///             }
    ///             Msg::Quoted(price) => println!("it costs {}", price?),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn ask_then<M: Send + 'static, R: Send + 'static>(
        &mut self,
        target: &ActorRef<M>,
        question: impl FnOnce(ReplyTo<R>) -> M,
        within: Duration,
        map: impl FnOnce(Result<R, AskError>) -> A::Msg + Send + 'static,
    ) -> Pipe {
        let mut asking = Box::pin(target.ask(question).within(within).into_future());
        match asking
            .as_mut()
            .poll(&mut task::Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => self.pipe_to_self(ready(answer), map),
            Poll::Pending => self.pipe_to_self(asking, map),
        }
    }

    /// Lets the items of `stream` come to this actor, as messages that `map` makes: the next one is
    /// taken from the stream when the one before has been handled. At its end comes
    /// [`StreamEvent::Ended`]; if it panics, [`StreamEvent::Failed`]. Items need no room in the
    /// mailbox, and take turns with the messages there and with those of other streams.
    ///
    /// The stream is polled in the actor, between two messages, and should do nothing long in it. A
    /// panic in `map` is a failure of the actor. A restart or a stop drops the stream; so does the end
    /// of a drain ([`ActorRef::stop_after_queued`]), which waits for the mailbox and not for streams.
    pub fn attach_stream<S: Stream + Send + 'static>(
        &mut self,
        stream: S,
        map: impl FnMut(StreamEvent<S::Item>) -> A::Msg + Send + 'static,
    ) -> StreamId {
        let waker = futures_util::task::waker(self.me.target().clone());
        let streams = &mut self.extras().streams;
        let streams = streams.get_or_insert_with(|| Box::new(Streams::new()));
        streams.attach(stream, map, waker)
    }

    /// Drops an attached stream; `false` if it is not there any more. Nothing comes from it.
    pub fn detach_stream(&mut self, stream: StreamId) -> bool {
        let extras = self.rare();
        let streams = extras.and_then(|extras| extras.streams.as_mut());
        streams.is_some_and(|streams| streams.detach(stream))
    }

    pub(crate) fn returning(&mut self) -> &mut Returning<A::Msg> {
        let returning = &mut self.extras().returning;
        returning.get_or_insert_with(|| Box::new(Returning::new()))
    }

    pub(crate) fn dead_letters(&self) -> &DeadLetters {
        &self.cell().core().dead_letters
    }
}
