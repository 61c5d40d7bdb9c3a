//! Errors: why a replicator did not start, and why an operation did not succeed.

use super::durable::StoreError;
use crate::logic::replicated::draft::Unmade;
use crate::logic::replicated::machine::{Failure, NAME_BYTES_MAX};

/// Why a replicator did not start.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What was stored cannot be read. Without it the node would give the numbers of its writes twice.
    #[error("the durable entries cannot be loaded: {0}")]
    Load(#[from] StoreError),
    /// The node has a replicator already, or is ending.
    #[error("the replicator was not started: {0}")]
    NotStarted(String),
    /// What was stored was written by a newer program, or is damaged.
    #[error("the durable entry `{key}` is not understood: {why}")]
    Unreadable {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a value was not read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The key cannot be used, or there are too many.
    #[error("`{key}` is no key (1 to {NAME_BYTES_MAX} bytes), or there are too many")]
    BadKey {
        /// The key.
        key: String,
    },
    /// The key was deleted, which is for good.
    #[error("`{key}` was deleted")]
    Deleted {
        /// The key.
        key: String,
    },
    /// None of those who were asked has it. With [`super::Level::Local`] others may.
    #[error("there is nothing under `{key}`")]
    NotFound {
        /// The key.
        key: String,
    },
    /// Too few nodes have answered in time. A change stands here nevertheless, and may reach the
    /// others: to wait for it again, make it again, or an update that changes nothing.
    #[error("{answered} nodes have answered about `{key}`, {needed} are needed")]
    Timeout {
        /// The key.
        key: String,
        /// How many have answered, this one included.
        answered: usize,
        /// How many must.
        needed: usize,
    },
    /// The key holds another type.
    #[error("`{key}` holds a {held}, not a {asked}")]
    TypeMismatch {
        /// The key.
        key: String,
        /// What it holds.
        held: String,
        /// What was asked for.
        asked: String,
    },
    /// The replicator has ended with its node, or has too much to do. A change may be made or not.
    #[error("the replicator does not answer: {why}")]
    Unavailable {
        /// What is known about it.
        why: String,
    },
}

/// Why a value was not changed, or the change not confirmed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The key cannot be used, or there are too many.
    #[error("`{key}` is no key (1 to {NAME_BYTES_MAX} bytes), or there are too many")]
    BadKey {
        /// The key.
        key: String,
    },
    /// The key was deleted, which is for good.
    #[error("`{key}` was deleted")]
    Deleted {
        /// The key.
        key: String,
    },
    /// An element or value has no encoded form. What was changed before it stands.
    #[error("`{key}` was not changed: {why}")]
    NotEncodable {
        /// The key.
        key: String,
        /// What the codec says.
        why: String,
    },
    /// It is done here, but this node could not store it: it may be lost when the node ends.
    #[error("what was done to `{key}` is not stored")]
    NotStored {
        /// The key.
        key: String,
    },
    /// The function that changes the value has panicked. What it changed before that stands.
    #[error("the function that changes `{key}` has panicked: {why}")]
    Panicked {
        /// The key.
        key: String,
        /// The message of the panic.
        why: String,
    },
    /// Too few nodes have answered in time. A change stands here nevertheless, and may reach the
    /// others: to wait for it again, make it again, or an update that changes nothing.
    #[error("{answered} nodes have answered about `{key}`, {needed} are needed")]
    Timeout {
        /// The key.
        key: String,
        /// How many have answered, this one included.
        answered: usize,
        /// How many must.
        needed: usize,
    },
    /// The value has no room for it. What was changed before it stands.
    #[error("`{key}` is too large: spread it over several keys, or raise value_bytes_max")]
    TooLarge {
        /// The key.
        key: String,
    },
    /// The key holds another type.
    #[error("`{key}` holds a {held}, not a {asked}")]
    TypeMismatch {
        /// The key.
        key: String,
        /// What it holds.
        held: String,
        /// What was asked for.
        asked: String,
    },
    /// The replicator has ended with its node, or has too much to do. A change may be made or not.
    #[error("the replicator does not answer: {why}")]
    Unavailable {
        /// What is known about it.
        why: String,
    },
}

/// Why a key was not deleted, or that not confirmed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The key cannot be used, or there are too many.
    #[error("`{key}` is no key (1 to {NAME_BYTES_MAX} bytes), or there are too many")]
    BadKey {
        /// The key.
        key: String,
    },
    /// It is done here, but this node could not store it: it may be lost when the node ends.
    #[error("what was done to `{key}` is not stored")]
    NotStored {
        /// The key.
        key: String,
    },
    /// Too few nodes have answered in time. A change stands here nevertheless, and may reach the
    /// others: to wait for it again, make it again, or an update that changes nothing.
    #[error("{answered} nodes have answered about `{key}`, {needed} are needed")]
    Timeout {
        /// The key.
        key: String,
        /// How many have answered, this one included.
        answered: usize,
        /// How many must.
        needed: usize,
    },
    /// The key holds another type.
    #[error("`{key}` holds a {held}, not a {asked}")]
    TypeMismatch {
        /// The key.
        key: String,
        /// What it holds.
        held: String,
        /// What was asked for.
        asked: String,
    },
    /// The replicator has ended with its node, or has too much to do. A change may be made or not.
    #[error("the replicator does not answer: {why}")]
    Unavailable {
        /// What is known about it.
        why: String,
    },
}

/// Why changes of a key are not told.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The key cannot be used, or there are too many.
    #[error("`{key}` is no key (1 to {NAME_BYTES_MAX} bytes), or there are too many")]
    BadKey {
        /// The key.
        key: String,
    },
    /// The key holds another type.
    #[error("`{key}` holds a {held}, not a {asked}")]
    TypeMismatch {
        /// The key.
        key: String,
        /// What it holds.
        held: String,
        /// What was asked for.
        asked: String,
    },
    /// The replicator has ended with its node, or has too much to do. A change may be made or not.
    #[error("the replicator does not answer: {why}")]
    Unavailable {
        /// What is known about it.
        why: String,
    },
}

/// What a failed operation was about.
pub(super) struct About {
    pub(super) key: String,
    pub(super) asked: String,
}

/// A failure of the machine, or of the way to it.
pub(super) enum Fault {
    Failed(Failure),
    Panicked(String),
    Unavailable(String),
}

impl GetError {
    pub(super) fn new(About { key, asked }: About, fault: Fault) -> Self {
        match fault {
            Fault::Failed(Failure::BadKey) => Self::BadKey { key },
            Fault::Failed(Failure::Deleted) => Self::Deleted { key },
            Fault::Failed(Failure::NotFound) => Self::NotFound { key },
            Fault::Failed(Failure::Timeout { answered, needed }) => Self::Timeout {
                key,
                answered,
                needed,
            },
            Fault::Failed(Failure::TypeMismatch { held }) => Self::TypeMismatch {
                key,
                held: held.to_string(),
                asked,
            },
            Fault::Unavailable(why) => Self::Unavailable { why },
            Fault::Panicked(why) => Self::Unavailable { why },
            // The machine does not answer this operation so.
            Fault::Failed(Failure::NotStored | Failure::Unmade(_)) => {
                let why = "an answer that makes no sense".to_owned();
                Self::Unavailable { why }
            }
        }
    }
}

impl UpdateError {
    pub(super) fn new(About { key, asked }: About, fault: Fault) -> Self {
        match fault {
            Fault::Failed(Failure::BadKey) => Self::BadKey { key },
            Fault::Failed(Failure::Deleted) => Self::Deleted { key },
            Fault::Failed(Failure::Unmade(Unmade::NotEncodable(why))) => {
                Self::NotEncodable { key, why }
            }
            Fault::Failed(Failure::NotStored) => Self::NotStored { key },
            Fault::Panicked(why) => Self::Panicked { key, why },
            Fault::Failed(Failure::Timeout { answered, needed }) => Self::Timeout {
                key,
                answered,
                needed,
            },
            Fault::Failed(Failure::Unmade(Unmade::TooLarge)) => Self::TooLarge { key },
            Fault::Failed(Failure::TypeMismatch { held }) => Self::TypeMismatch {
                key,
                held: held.to_string(),
                asked,
            },
            Fault::Unavailable(why) => Self::Unavailable { why },
            // The machine does not answer this operation so.
            Fault::Failed(Failure::NotFound) => {
                let why = "an answer that makes no sense".to_owned();
                Self::Unavailable { why }
            }
        }
    }
}

impl DeleteError {
    pub(super) fn new(About { key, asked }: About, fault: Fault) -> Self {
        match fault {
            Fault::Failed(Failure::BadKey) => Self::BadKey { key },
            Fault::Failed(Failure::NotStored) => Self::NotStored { key },
            Fault::Failed(Failure::Timeout { answered, needed }) => Self::Timeout {
                key,
                answered,
                needed,
            },
            Fault::Failed(Failure::TypeMismatch { held }) => Self::TypeMismatch {
                key,
                held: held.to_string(),
                asked,
            },
            Fault::Unavailable(why) => Self::Unavailable { why },
            Fault::Panicked(why) => Self::Unavailable { why },
            // The machine does not answer this operation so.
            Fault::Failed(Failure::Deleted | Failure::NotFound | Failure::Unmade(_)) => {
                let why = "an answer that makes no sense".to_owned();
                Self::Unavailable { why }
            }
        }
    }
}

impl SubscribeError {
    pub(super) fn new(About { key, asked }: About, fault: Fault) -> Self {
        match fault {
            Fault::Failed(Failure::BadKey) => Self::BadKey { key },
            Fault::Failed(Failure::TypeMismatch { held }) => Self::TypeMismatch {
                key,
                held: held.to_string(),
                asked,
            },
            Fault::Unavailable(why) => Self::Unavailable { why },
            Fault::Panicked(why) => Self::Unavailable { why },
            // The machine does not answer this operation so.
            Fault::Failed(
                Failure::Deleted
                | Failure::NotFound
                | Failure::NotStored
                | Failure::Timeout { .. }
                | Failure::Unmade(_),
            ) => {
                let why = "an answer that makes no sense".to_owned();
                Self::Unavailable { why }
            }
        }
    }
}
