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

/// Why an ask has no answer. Each variant names the actor that was asked, and what was known of it
/// when the ask failed: a queue depth is `None` for an actor on another node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The asker awaits this in its handler, and the actor that was to be asked waits in the same
    /// way, over any number of others, for the asker: no answer could ever come. The question was
    /// not sent. Use [`crate::ActorRef::tell`] and let the answer be a message, or ask with
    /// [`crate::Context::pipe_to_self`], so that the handler returns.
    #[error(
        "{} was not asked: {} would wait for each other for ever; let one of them return from its \
         handler and take the answer as a message",
        asked(.path), circle(.path)
    )]
    Cycle {
        /// Who waits for whom, from the asker on: each for the next one, the last for the first. One
        /// actor that asks itself is alone in it.
        path: Vec<ActorPath>,
    },
    /// The mailbox was full: the question was never accepted.
    #[error(
        "{path} was not asked: its mailbox is full{}; it is slower than its senders: ask again \
         later, ask less at once, or give it more room or helpers",
        told(.queued, None)
    )]
    Full {
        /// The actor that was asked.
        path: ActorPath,
        /// How many messages waited in its mailbox.
        queued: Option<usize>,
    },
    /// The question was accepted, but the reply port was dropped without an answer: by the handler,
    /// by its failure, or with the mailbox of an actor that stopped.
    #[error(
        "{path} dropped the question without an answer{}{}; see its log for a failure, and whether \
         each branch of its handler answers",
        after(.waited), told(.queued, None)
    )]
    NoReply {
        /// The actor that was asked.
        path: ActorPath,
        /// How long the asker had waited; `None` for a bare [`crate::Reply`], which has no beginning.
        waited: Option<Duration>,
        /// How many messages waited in its mailbox.
        queued: Option<usize>,
    },
    /// The other node does not grant this one, or this client, the right to reach the protocol. The
    /// question was not handled.
    #[error(
        "{path} may not be asked from here: its node does not grant the protocol to this certificate; \
         see the rights of that node, and the name and roles in the certificate of this one"
    )]
    NotPermitted {
        /// The actor that was asked.
        path: ActorPath,
    },
    /// The actor is one that is started by its first message, and it could not be started. The
    /// question was not handled.
    #[error("{path} was not asked: it could not be started; see the log of its node")]
    NotStarted {
        /// The actor that was to be asked.
        path: ActorPath,
    },
    /// The program of the other node does not know this question: it has an older version of the
    /// protocol, or another layout of it. The question was not handled.
    #[error(
        "{path} does not understand the question: its program has another version of the protocol; \
         ask only what the oldest program in use knows"
    )]
    NotUnderstood {
        /// The actor that was asked.
        path: ActorPath,
    },
    /// The actor had already stopped: the question was never accepted.
    #[error("{path} was not asked: it has stopped; watch it to learn when that happens")]
    Stopped {
        /// The actor that was asked.
        path: ActorPath,
    },
    /// No answer came in time. The question may still be handled; a late answer is counted as a
    /// dead letter.
    #[error(
        "{path} did not answer within {waited:?}{}; {}",
        told(.queued, *.in_work),
        what_slows(.queued, *.in_work)
    )]
    Timeout {
        /// The actor that was asked.
        path: ActorPath,
        /// How long the asker waited.
        waited: Duration,
        /// How many messages waited in its mailbox when the time was over.
        queued: Option<usize>,
        /// Whether it was handling a message by then; `None` if that is not known.
        in_work: Option<bool>,
    },
    /// Nobody is left to whom the question could be handed, or the way to them was not found. The
    /// question was not handled.
    #[error("{path} was not asked: it is nowhere in the cluster now; ask again later")]
    Unreachable {
        /// The actor that was to be asked.
        path: ActorPath,
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

impl AskError {
    /// The actor that was asked, or was to be asked.
    pub fn target(&self) -> Option<&ActorPath> {
        match self {
            Self::Cycle { path } => path.get(1).or(path.first()),
            Self::Full { path, .. }
            | Self::NoReply { path, .. }
            | Self::NotPermitted { path }
            | Self::NotStarted { path }
            | Self::NotUnderstood { path }
            | Self::Stopped { path }
            | Self::Timeout { path, .. }
            | Self::Unreachable { path }
            | Self::Unsendable { path, .. } => Some(path),
        }
    }
}

/// Why a question was not even handed to the actor that it was for ([`crate::ReplyTo::refuse`]).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// Its mailbox is full.
    Full,
    /// The asker has no right to reach the protocol.
    NotPermitted,
    /// It is started by its first message, and could not be.
    NotStarted,
    /// The program there does not know the question.
    NotUnderstood,
    /// It has stopped, or was never there.
    Stopped,
    /// Nobody is left who could take it.
    Unreachable,
}

impl Refusal {
    /// The error of an ask of `path` that was refused so.
    #[must_use]
    pub fn of(self, path: ActorPath) -> AskError {
        match self {
            Self::Full => AskError::Full { path, queued: None },
            Self::NotPermitted => AskError::NotPermitted { path },
            Self::NotStarted => AskError::NotStarted { path },
            Self::NotUnderstood => AskError::NotUnderstood { path },
            Self::Stopped => AskError::Stopped { path },
            Self::Unreachable => AskError::Unreachable { path },
        }
    }
}

fn asked(path: &[ActorPath]) -> String {
    let asked = path.get(1).or(path.first());
    asked.map_or_else(|| "the actor".to_owned(), ActorPath::to_string)
}

fn circle(path: &[ActorPath]) -> String {
    let all = path.iter().chain(path.first());
    all.map(ActorPath::as_str).collect::<Vec<_>>().join(" -> ")
}

fn after(waited: &Option<Duration>) -> String {
    waited.map_or_else(String::new, |waited| format!(" after {waited:?}"))
}

/// What was known of the actor, in brackets.
fn told(queued: &Option<usize>, in_work: Option<bool>) -> String {
    let work = match in_work {
        Some(true) => ", one in work",
        Some(false) => ", none in work",
        None => "",
    };
    queued.map_or_else(String::new, |queued| {
        format!(" ({queued} messages in its mailbox{work})")
    })
}

/// Where to look when an answer is late.
fn what_slows(queued: &Option<usize>, in_work: Option<bool>) -> &'static str {
    match (queued, in_work) {
        (Some(0), Some(true)) => "its handler is still at it, or waits for something",
        (Some(0), _) => "the question was taken, but its reply port is kept or handed on",
        (Some(_), Some(true)) => "the message in work holds up those behind it",
        (Some(_), _) => "it is slower than its senders, or the runtime is busy",
        (None, _) => "it is on another node: the question or its answer may also be lost",
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(queued: Option<usize>, in_work: Option<bool>) -> String {
        let error = AskError::Timeout {
            path: ActorPath::new("s/a"),
            waited: Duration::from_millis(30),
            queued,
            in_work,
        };
        assert_eq!(error.target().map(ActorPath::as_str), Some("s/a"));
        error.to_string()
    }

    #[test]
    fn a_timeout_says_what_was_seen_and_where_to_look() {
        assert_eq!(
            timeout(Some(7), Some(true)),
            "s/a did not answer within 30ms (7 messages in its mailbox, one in work); the message in \
             work holds up those behind it"
        );
        assert_eq!(
            timeout(Some(0), Some(false)),
            "s/a did not answer within 30ms (0 messages in its mailbox, none in work); the question \
             was taken, but its reply port is kept or handed on"
        );
        assert_eq!(
            timeout(None, None),
            "s/a did not answer within 30ms; it is on another node: the question or its answer may \
             also be lost"
        );
        let waits = timeout(Some(0), Some(true));
        assert!(waits.contains("its handler is still at it"), "{waits}");
        let slow = timeout(Some(1), Some(false));
        assert!(slow.contains("slower than its senders"), "{slow}");
    }

    #[test]
    fn every_error_of_an_ask_names_its_target() {
        let path = ActorPath::new("s/a");
        let circle = AskError::Cycle {
            path: vec![ActorPath::new("s/asker"), path.clone()],
        };
        let full = AskError::Full {
            path: path.clone(),
            queued: Some(3),
        };
        let no_reply = AskError::NoReply {
            path: path.clone(),
            waited: Some(Duration::from_secs(1)),
            queued: Some(0),
        };
        let stopped = AskError::Stopped { path: path.clone() };
        let unknown = AskError::NotUnderstood { path: path.clone() };
        for (error, part) in [
            (circle, "s/asker -> s/a -> s/asker"),
            (full, "(3 messages in its mailbox)"),
            (
                no_reply,
                "without an answer after 1s (0 messages in its mailbox)",
            ),
            (stopped, "it has stopped"),
            (unknown, "another version of the protocol"),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("s/a ") && text.contains(part), "{text}");
            assert_eq!(error.target(), Some(&path));
        }
    }
}
