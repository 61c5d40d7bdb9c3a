//! Errors: why a singleton or its proxy was not started, or was not handed over.

use crate::singleton::NAME_BYTES_MAX;
use otava_actor::SpawnError;
use otava_actor::receptionist::KeyError;
use std::time::Duration;

/// Why a singleton, or its proxy, was not started.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SingletonError {
    /// The name cannot be that of an actor.
    #[error(
        "{0:?} cannot name a singleton: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'"
    )]
    BadName(String),
    /// It was started on this node before.
    #[error("the singleton {0:?} is started on this node already")]
    Started(String),
    /// The name is in use for a singleton that understands other messages.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The proxy could not be started.
    #[error("the proxy was not started: {0}")]
    Spawn(#[from] SpawnError),
}

/// Why singletons were not handed over.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not ended within {within:?}: {names:?}; they are stopped with their node")]
pub struct SingletonHandOverError {
    /// Which.
    pub names: Vec<String>,
    /// How long was waited.
    pub within: Duration,
}
