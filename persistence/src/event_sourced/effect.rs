//! Effect: what a command leads to: events, replies, side effects, the end.

use crate::event_sourced::EventSourced;
use otava_actor::ReplyTo;
use std::fmt;

/// What [`EventSourced::handle`] decided, to be carried out by its actor, in this order: the events
/// become durable, the state takes them in, the replies go out, the side effects run, the actor
/// stops if it should.
///
/// If the events cannot be made durable nothing else happens: who asked sees
/// [`otava_actor::AskError::NoReply`] at once.
#[must_use = "an effect does nothing unless `handle` returns it"]
pub struct Effect<E: EventSourced> {
    pub(super) events: Vec<E::Event>,
    pub(super) confirm: bool,
    pub(super) replies: Vec<Step<E>>,
    pub(super) afterwards: Vec<Step<E>>,
    pub(super) stop: bool,
}

/// Something to be done with the new state in view.
pub(super) type Step<E> = Box<dyn FnOnce(&E) + Send>;

impl<E: EventSourced> Effect<E> {
    /// No event.
    pub fn none() -> Self {
        Self::persist_all(Vec::new())
    }

    /// One event.
    pub fn persist(event: E::Event) -> Self {
        Self::persist_all(vec![event])
    }

    /// Several events, in order: all of them become durable, or none. No event is fine.
    pub fn persist_all(events: Vec<E::Event>) -> Self {
        let (replies, afterwards) = (Vec::new(), Vec::new());
        Self {
            events,
            confirm: false,
            replies,
            afterwards,
            stop: false,
        }
    }

    /// Replies a value.
    ///
    /// # Delivery
    /// At most once, after the events are durable. No reply does not mean that they are not: the
    /// node may end between the two. So commands should be such that a repeated one does no harm.
    pub fn reply<R: Send + 'static>(self, reply_to: ReplyTo<R>, value: R) -> Self {
        self.reply_with(reply_to, |_| value)
    }

    /// Replies what `answer` makes of the state that holds the events. Write its argument's type,
    /// `|state: &Self| ..`, where the compiler asks for it.
    ///
    /// # Delivery
    /// As [`Self::reply`].
    pub fn reply_with<R: Send + 'static>(
        mut self,
        reply_to: ReplyTo<R>,
        answer: impl FnOnce(&E) -> R + Send + 'static,
    ) -> Self {
        // Who asked may have gone; that is no concern of the entity.
        self.replies
            .push(Box::new(|state| drop(reply_to.send(answer(state)))));
        self
    }

    /// Runs a side effect, after all replies: a message to another actor, a metric. It must not
    /// block.
    ///
    /// # Delivery
    /// At most once: not when the node ends before, and not at recovery.
    pub fn then(mut self, effect: impl FnOnce(&E) + Send + 'static) -> Self {
        self.afterwards.push(Box::new(effect));
        self
    }

    /// Asks the journal, also when there is no event, whether this actor may still write, before
    /// the replies go out. So an answer is never read from the state of an owner that was replaced
    /// while its process was paused. It costs a look at the journal, no durable write.
    pub fn confirm(mut self) -> Self {
        self.confirm = true;
        self
    }

    /// Stops the actor in the end. Commands that wait in its mailbox go to the dead letters.
    pub fn stop(mut self) -> Self {
        self.stop = true;
        self
    }
}

impl<E: EventSourced> fmt::Debug for Effect<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effect")
            .field("events", &self.events.len())
            .field("confirm", &self.confirm)
            .field("replies", &self.replies.len())
            .field("afterwards", &self.afterwards.len())
            .field("stop", &self.stop)
            .finish()
    }
}
