//! Errors: why a producer did not start, did not take a message, or does not know what became of one.

use super::payload::PayloadError;
use super::queue::QueueError;
use otava_actor::SpawnError;
use otava_actor::receptionist::KeyError;
use otava_remote::EncodeError;
use std::fmt;

/// Why a producer did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The key of the workers is in use for other messages.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its actor could not be started.
    #[error("the producer was not started: {0}")]
    Spawn(#[from] SpawnError),
    /// What the queue keeps could not be loaded.
    #[error("the queue cannot be loaded: {0}")]
    Queue(#[from] QueueError),
    /// A stored message is not one of this producer: of another type, damaged, or out of place.
    #[error("message {number} of the queue cannot be sent: {why}")]
    Unreadable {
        /// Its number.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl StartError {
    pub(super) fn unreadable(number: u64, why: &PayloadError) -> Self {
        Self::Unreadable {
            number,
            why: why.to_string(),
        }
    }
}

/// Why a message was not taken. It comes back in the error.
#[non_exhaustive]
pub enum SendError<M> {
    /// The key is empty, or longer than 512 bytes.
    BadKey(M),
    /// The producer has ended.
    Ended(M),
    /// As many messages or bytes as may be are unconfirmed. Only from `try_send`.
    Full(M),
    /// It has no encoded form. References to actors have none outside of messages between nodes.
    NotEncodable(M, EncodeError),
    /// Its encoded form is larger than [`message_bytes_max`](super::ProducerConfig::message_bytes_max).
    TooLarge {
        /// The message.
        message: M,
        /// How large it is.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl<M> SendError<M> {
    /// The message that was not taken.
    pub fn into_message(self) -> M {
        match self {
            Self::BadKey(message)
            | Self::Ended(message)
            | Self::Full(message)
            | Self::NotEncodable(message, _)
            | Self::TooLarge { message, .. } => message,
        }
    }
}

impl<M> fmt::Debug for SendError<M> {
    /// Without the message: it need not be printable, and may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey(_) => f.write_str("BadKey(..)"),
            Self::Ended(_) => f.write_str("Ended(..)"),
            Self::Full(_) => f.write_str("Full(..)"),
            Self::NotEncodable(_, why) => write!(f, "NotEncodable(.., {why:?})"),
            Self::TooLarge { bytes, .. } => write!(f, "TooLarge({bytes}, ..)"),
        }
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey(_) => f.write_str("a key has 1 to 512 bytes"),
            Self::Ended(_) => f.write_str("the producer has ended"),
            Self::Full(_) => f.write_str("too many messages are unconfirmed"),
            Self::NotEncodable(_, why) => write!(f, "the message cannot be encoded: {why}"),
            Self::TooLarge {
                bytes, bytes_max, ..
            } => write!(f, "the message has {bytes} bytes, the limit is {bytes_max}"),
        }
    }
}

impl<M> std::error::Error for SendError<M> {}

/// The producer has ended before it knew. With a durable queue another run of it delivers what was
/// stored; without one, whether the message was handled is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the producer has ended before the message was confirmed")]
pub struct Unconfirmed;
