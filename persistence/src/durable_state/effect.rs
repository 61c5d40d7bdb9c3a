//! State effect: what a command leads to: a new state or none, replies, side effects, the end.

use crate::sequel::Sequel;
use otava_actor::ReplyTo;
use std::fmt;

/// What [`crate::DurableState::handle`] decided, to be carried out by its actor, in this order: the
/// change becomes durable, the state is replaced, the replies go out, the side effects run, the actor
/// stops if it should.
///
/// If the change cannot be made durable nothing else happens: who asked sees
/// [`otava_actor::AskError::NoReply`] at once.
#[must_use = "an effect does nothing unless `handle` returns it"]
pub struct StateEffect<S> {
    pub(super) change: Change<S>,
    pub(super) sequel: Sequel<S>,
}

pub(super) enum Change<S> {
    Delete,
    None,
    Set(S),
}

impl<S: 'static> StateEffect<S> {
    /// No change.
    pub fn none() -> Self {
        Self::new(Change::None)
    }

    /// The state is this from now on.
    pub fn set(state: S) -> Self {
        Self::new(Change::Set(state))
    }

    /// The state is removed from the store; it is the empty one again. Its revisions go on.
    pub fn delete() -> Self {
        Self::new(Change::Delete)
    }

    fn new(change: Change<S>) -> Self {
        let sequel = Sequel::default();
        Self { change, sequel }
    }

    /// Replies a value.
    ///
    /// # Delivery
    /// As [`crate::Effect::reply`].
    pub fn reply<R: Send + 'static>(self, reply_to: ReplyTo<R>, value: R) -> Self {
        self.reply_with(reply_to, |_| value)
    }

    /// Replies what `answer` makes of the new state.
    ///
    /// # Delivery
    /// As [`crate::Effect::reply`].
    pub fn reply_with<R: Send + 'static>(
        mut self,
        reply_to: ReplyTo<R>,
        answer: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Self {
        self.sequel.reply(reply_to, answer);
        self
    }

    /// Runs a side effect, after all replies. It must not block.
    ///
    /// # Delivery
    /// As [`crate::Effect::then`].
    pub fn then(mut self, effect: impl FnOnce(&S) + Send + 'static) -> Self {
        self.sequel.side_effect(effect);
        self
    }

    /// Stops the actor in the end. Commands that wait in its mailbox go to the dead letters.
    pub fn stop(mut self) -> Self {
        self.sequel.stop();
        self
    }
}

impl<S> fmt::Debug for StateEffect<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match self.change {
            Change::Delete => "delete",
            Change::None => "none",
            Change::Set(_) => "set",
        };
        f.debug_struct("StateEffect")
            .field("change", &change)
            .field("sequel", &self.sequel)
            .finish()
    }
}
