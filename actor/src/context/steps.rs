//! Steps: what an actor does next when it has more than a mailbox: messages that came back from a
//! stash, attached streams, a receive timeout.
//!
//! The order is: a stop, the line of unstashed messages, then streams and mailbox in turn (a stream
//! goes first every second time), and the receive timeout when there is nothing else. Timers that are
//! due go between two batches of the mailbox, and as often in a long line.

use super::{Context, Extras, Step};
use crate::actor::Actor;
use crate::failure::guarded_call;
use crate::timers::{Make, later};
use std::task;
use std::time::Duration;
use tokio::time::Instant;

/// A message that comes when nothing else did.
pub(super) struct ReceiveTimeout<M> {
    pub(super) after: Duration,
    pub(super) make: Make<M>,
    pub(super) due: Instant,
    /// The step in work does not count.
    pub(super) is_kept: bool,
}

impl<A: Actor> Context<A> {
    /// What to do next.
    pub(crate) fn next(&mut self) -> Step<A::Msg> {
        if self.rare().is_none() {
            return self.next_queued();
        }
        self.extras().step_ends();
        let step = match self.next_unqueued() {
            Some(step) => step,
            None => match self.next_queued() {
                Step::Idle => self.next_of_idle(),
                step => step,
            },
        };
        self.extras().step_begins(&step);
        step
    }

    /// A message that goes before the mailbox.
    fn next_unqueued(&mut self) -> Option<Step<A::Msg>> {
        let extras = self.extras();
        let streams = extras.streams.as_mut();
        let stream_is_next = streams.is_some_and(|streams| streams.is_next());
        let line = extras.returning.as_mut();
        let line_is_next = line.is_some_and(|line| line.begin());
        if !line_is_next && !stream_is_next {
            return None;
        }
        let cell = self.me.target().cell();
        if cell.mailbox.stop_requested() {
            return None;
        }
        if !self.spend_turn() {
            return Some(Step::TurnOver);
        }
        if !line_is_next {
            return self.extras().streams.as_mut()?.take();
        }
        if self.returning().lets_timers_pass()
            && let Some(step) = self.extras().due_timer()
        {
            return Some(step);
        }
        let message = self.returning().pop();
        message.map(|message| Step::Message(message, None))
    }

    /// The mailbox is empty.
    fn next_of_idle(&mut self) -> Step<A::Msg> {
        let extras = self.extras();
        if let Some(streams) = &mut extras.streams
            && streams.is_ready()
            && let Some(step) = streams.take()
        {
            return step;
        }
        let Some(timeout) = &mut extras.receive_timeout else {
            return Step::Idle;
        };
        if timeout.due > Instant::now() {
            return Step::Idle;
        }
        guarded_call(&mut timeout.make)
            .map_or_else(Step::Failed, |message| Step::Message(message, None))
    }

    /// Sees to it that whatever comes first wakes this actor; `false` if something is there already.
    pub(crate) fn arm_timers(&mut self, cx: &mut task::Context<'_>) -> bool {
        let Some(extras) = self.rare() else {
            return true;
        };
        let timeout = extras.receive_timeout.as_ref().map(|timeout| timeout.due);
        let streams = extras.streams.as_ref();
        extras.timers.poll_due(timeout, cx).is_pending()
            && !streams.is_some_and(|streams| streams.is_ready())
    }
}

impl<M> Extras<M> {
    /// Whatever was begun is done: a receive timeout counts from here.
    fn step_ends(&mut self) {
        if std::mem::take(&mut self.is_at_work)
            && let Some(timeout) = &mut self.receive_timeout
            && !std::mem::take(&mut timeout.is_kept)
        {
            timeout.due = later(timeout.after);
        }
    }

    fn step_begins(&mut self, step: &Step<M>) {
        self.is_at_work = match step {
            Step::Message(..) | Step::Terminated(_) | Step::Failed(_) => true,
            Step::Idle | Step::Requested | Step::Stop | Step::TurnOver => false,
        };
    }
}
