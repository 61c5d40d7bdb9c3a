//! Mark: what travels beside a message for those who look: when it was sent, in which span, and who
//! waits for its answer in a handler.
//!
//! Only messages that somebody has a use for it carry one: with metrics switched on, with a listener to
//! spans of messages, or when an actor awaits the answer in its handler. All others carry nothing.

use crate::system::Core;
use crate::time::Time;
use crate::wait_graph::Edge;
use tracing::{Level, Span, span};

/// What is known about one message.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// When it was accepted, on the system's clock.
    pub(crate) sent_at: Option<Time>,
    /// The span in which it was sent.
    pub(crate) cause: Option<span::Id>,
    /// The ask that is awaited in a handler until this message is handled.
    pub(crate) edge: Option<Edge>,
}

impl Mark {
    /// The mark of a message that is sent here and now; `None` if nobody has a use for it.
    pub(crate) fn now(core: &Core, edge: Option<Edge>) -> Option<Self> {
        let traced = tracing::enabled!(target: "otava::message", Level::DEBUG);
        if !traced && edge.is_none() && !core.measures() {
            return None;
        }
        Some(Self {
            sent_at: core.measures().then(|| core.clock.now()),
            cause: traced.then(Span::current).and_then(|span| span.id()),
            edge,
        })
    }
}

/// A message, and its mark if it has one.
pub(crate) enum Parcel<M> {
    Plain(M),
    Marked(Box<Marked<M>>),
}

/// A mark in the box in which its message came; the message is taken out when its turn comes.
pub(crate) struct Marked<M> {
    pub(crate) mark: Mark,
    message: Option<M>,
}

impl<M> Parcel<M> {
    /// Wraps a message that is sent here and now.
    pub(crate) fn now(message: M, core: &Core, edge: Option<Edge>) -> Self {
        match Mark::now(core, edge) {
            None => Self::Plain(message),
            Some(mark) => Self::Marked(Box::new(Marked {
                mark,
                message: Some(message),
            })),
        }
    }

    /// The message, and what is left of its parcel.
    pub(crate) fn open(self) -> (M, Option<Box<Marked<M>>>) {
        match self {
            Self::Plain(message) => (message, None),
            Self::Marked(mut marked) => {
                let message = marked.message.take();
                let message = message.expect("a parcel is opened once: this consumes it");
                (message, Some(marked))
            }
        }
    }

    pub(crate) fn into_message(self) -> M {
        self.open().0
    }
}
