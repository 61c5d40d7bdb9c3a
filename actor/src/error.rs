//! Errors: what telling, asking and spawning may answer.

use crate::path::ActorPath;
use std::fmt;
use std::time::Duration;

/// A message that was not accepted. It comes back in the error, so that nothing is lost unseen.
#[derive(Clone, Copy, Eq, PartialEq)]
#[non_exhaustive]
pub enum TellError<M> {
    /// The mailbox holds as many messages as it may. Later, or with
    /// [`crate::ActorRef::send`], it may have room.
    Full(M),
    /// The actor has stopped or is stopping, and will never accept a message again.
    Stopped(M),
    /// The message cannot be put on the wire, now or later. Only for actors on other nodes.
    Unsendable(M, Unsendable),
}

/// Why a message cannot be put on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// It has no wire form; the log says why.
    #[error("the message cannot be encoded")]
    NotEncodable,
    /// Its wire form is larger than a frame may be.
    #[error("the message is larger than {bytes_max} bytes, the limit of a frame")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

impl<M> TellError<M> {
    /// The message that was refused.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Stopped(message) | Self::Unsendable(message, _) => message,
        }
    }

    /// Whether the mailbox was full, so that trying again later makes sense.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// The same refusal of another message, for example of the one this was made from.
    pub fn map<T>(self, convert: impl FnOnce(M) -> T) -> TellError<T> {
        match self {
            Self::Full(message) => TellError::Full(convert(message)),
            Self::Stopped(message) => TellError::Stopped(convert(message)),
            Self::Unsendable(message, why) => TellError::Unsendable(convert(message), why),
        }
    }
}

impl<M> fmt::Debug for TellError<M> {
    /// Without the message: it need not be printable, and may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Stopped(_) => f.write_str("Stopped(..)"),
            Self::Unsendable(_, why) => write!(f, "Unsendable(.., {why:?})"),
        }
    }
}

impl<M> fmt::Display for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the mailbox is full"),
            Self::Stopped(_) => f.write_str("the actor has stopped"),
            Self::Unsendable(_, why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<M> std::error::Error for TellError<M> {}

/// Why an ask has no answer. Each variant names the actor that was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The mailbox was full: the question was never accepted.
    #[error("{path} was not asked: its mailbox is full")]
    Full {
        /// The actor that was asked.
        path: ActorPath,
    },
    /// The question was accepted, but the reply port was dropped without an answer: by the handler,
    /// by its failure, or with the mailbox of an actor that stopped.
    #[error("{path} dropped the question without an answer")]
    NoReply {
        /// The actor that was asked.
        path: ActorPath,
    },
    /// The actor had already stopped: the question was never accepted.
    #[error("{path} was not asked: it has stopped")]
    Stopped {
        /// The actor that was asked.
        path: ActorPath,
    },
    /// No answer came in time. The question may still be handled; a late answer is counted as a
    /// dead letter.
    #[error("{path} did not answer within {waited:?}")]
    Timeout {
        /// The actor that was asked.
        path: ActorPath,
        /// How long the asker waited.
        waited: Duration,
    },
    /// The question cannot be put on the wire.
    #[error("{path} was not asked: {why}")]
    Unsendable {
        /// The actor that was to be asked.
        path: ActorPath,
        /// Why.
        why: Unsendable,
    },
}

/// Why an actor was not started.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The name is empty, longer than 255 bytes, begins with `$`, or contains `/` or a control
    /// character.
    #[error(
        "{name:?} cannot name an actor: 1 to 255 bytes, no '/', no control character, no '$' first"
    )]
    BadName {
        /// The refused name.
        name: String,
    },
    /// A living sibling has this name.
    #[error("an actor named {path} is alive")]
    NameTaken {
        /// The path both would have.
        path: ActorPath,
    },
    /// Restart was asked for, but the actor was given by value: a second instance cannot be made.
    /// Use [`crate::Props::new`] with a factory.
    #[error("{path} was to be restarted on failure, but was given by value: use a factory")]
    NoFactory {
        /// The path the actor would have had.
        path: ActorPath,
    },
    /// The parent, or the whole system, is stopping.
    #[error("{path} was not started: its parent is stopping")]
    Stopping {
        /// The path the actor would have had.
        path: ActorPath,
    },
}
