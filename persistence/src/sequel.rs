//! Sequel: what follows once a change is durable: replies, then side effects, then perhaps the end.

use otava_actor::ReplyTo;
use std::fmt;

/// Something to be done with the new state in view.
type Step<S> = Box<dyn FnOnce(&S) + Send>;

pub(crate) struct Sequel<S> {
    replies: Vec<Step<S>>,
    side_effects: Vec<Step<S>>,
    stop: bool,
}

impl<S> Default for Sequel<S> {
    fn default() -> Self {
        Self {
            replies: Vec::new(),
            side_effects: Vec::new(),
            stop: false,
        }
    }
}

impl<S: 'static> Sequel<S> {
    pub(crate) fn reply<R: Send + 'static>(
        &mut self,
        reply_to: ReplyTo<R>,
        answer: impl FnOnce(&S) -> R + Send + 'static,
    ) {
        // Who asked may have gone; that is no concern of the entity.
        let step = Box::new(|state: &S| drop(reply_to.send(answer(state))));
        self.replies.push(step);
    }

    pub(crate) fn side_effect(&mut self, effect: impl FnOnce(&S) + Send + 'static) {
        self.side_effects.push(Box::new(effect));
    }

    pub(crate) fn stop(&mut self) {
        self.stop = true;
    }

    /// Both as one, in this order.
    pub(crate) fn extend(&mut self, other: Self) {
        self.replies.extend(other.replies);
        self.side_effects.extend(other.side_effects);
        self.stop |= other.stop;
    }

    /// Does it all. Returns whether the actor stops now.
    pub(crate) fn run(self, state: &S) -> bool {
        for step in self.replies.into_iter().chain(self.side_effects) {
            step(state);
        }
        self.stop
    }
}

impl<S> fmt::Debug for Sequel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequel")
            .field("replies", &self.replies.len())
            .field("side_effects", &self.side_effects.len())
            .field("stop", &self.stop)
            .finish()
    }
}
