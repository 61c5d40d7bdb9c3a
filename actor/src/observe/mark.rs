//! Mark: what travels beside a message for those who look: when it was sent, in which span, and who
//! waits for its answer in a handler.
//!
//! Only messages that somebody has a use for it carry one: with metrics switched on, with a listener to
//! spans of messages, or when an actor awaits the answer in its handler. All others carry nothing.

use crate::system::Core;
use crate::time::Time;
use crate::wait_graph::Edge;
use tracing::{Span, span};

/// What is known about one message.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// When it was accepted, on the system's clock.
    pub(crate) sent_at: Option<Time>,
    /// The span in which it was sent.
    pub(crate) cause: Option<span::Id>,
    /// The ask that is awaited in a handler until this message is handled.
    pub(crate) edge: Option<Edge>,
    /// When the message expires, in nanoseconds on the system's clock; 0: never.
    pub(crate) expires: u64,
}

/// What an asker says to the mailbox about its question.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// When nobody waits for the answer any more, on the clock of the actor's system.
    pub(crate) expires: Time,
    /// The ask, if it is awaited in a handler.
    pub(crate) edge: Option<Edge>,
    pub(crate) waits: Waits,
}

impl Question {
    /// One that is carried on for somebody who waits elsewhere, until this time.
    pub fn expiring(expires: Time) -> Self {
        Self {
            expires,
            edge: None,
            waits: Waits::No,
        }
    }
}

/// Whether somebody waits for the answer on the thread that sends the question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waits {
    /// For so long that a question which is handled at once has not expired.
    Here,
    HereShortly,
    No,
}

/// What lies beside a message in its mailbox.
pub(crate) enum Extra {
    None,
    /// Nanoseconds on the system's clock; not 0.
    Expires(u64),
    Marked(Box<Mark>),
}

impl Extra {
    /// For a message that is sent here and now, as a question if it is one.
    #[inline]
    pub(crate) fn now(core: &Core, question: Option<&Question>) -> Self {
        let traced = super::messages_are_traced();
        let edge = question.and_then(|question| question.edge);
        let expires = question.map_or(0, |question| question.expires.as_nanos());
        if traced || edge.is_some() || core.measures() {
            return Self::Marked(Mark::now(core, traced, expires, edge));
        }
        match expires {
            0 => Self::None,
            at => Self::Expires(at),
        }
    }
}

impl Mark {
    #[cold]
    fn now(core: &Core, traced: bool, expires: u64, edge: Option<Edge>) -> Box<Self> {
        Box::new(Self {
            sent_at: core.measures().then(|| core.clock.now()),
            cause: traced.then(Span::current).and_then(|span| span.id()),
            edge,
            expires,
        })
    }
}
