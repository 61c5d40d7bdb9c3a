//! Errors: why an actor is not registered.

use crate::logic::receptionist::{NAME_BYTES_MAX, OFFERS_MAX, SERVICES_MAX};
use otava_actor::receptionist::KeyError;

/// Why an actor was not registered in the cluster.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name of the key, or that of its messages, is empty or too long to be told to others.
    #[error("{0:?} cannot be told to other nodes: names have 1 to {NAME_BYTES_MAX} bytes")]
    BadName(String),
    /// The key is in use for actors that understand other messages.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This node offers as much as it may.
    #[error(
        "this node offers too much: at most {OFFERS_MAX} registrations under {SERVICES_MAX} keys; \
         register one actor that stands for many"
    )]
    TooMany,
}
