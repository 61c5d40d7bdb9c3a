//! Errors: what starting and handing over may answer.

use otava_actor::SpawnError;
use otava_remote::PublishError;
use std::time::Duration;

/// Why a kind of entities was not started.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kind's name cannot be used.
    #[error("{0:?} cannot name a kind: 1 to 64 letters, digits, '-', '_' and '.'")]
    BadKind(String),
    /// The number of shards cannot be used.
    #[error("{0} shards: it must be a power of two, at most 65,536")]
    BadShards(u32),
    /// The number of workers of a daemon process cannot be used.
    #[error("{0} workers: there must be one at least, at most 65,536")]
    BadWorkers(u32),
    /// A client needs an address to begin with.
    #[error("a client of entities needs at least one contact")]
    NoContacts,
    /// A proxy sends to members with roles that it lacks, and no roles were given.
    #[error("a proxy needs the roles of the members that host the entities")]
    NoRoles,
    /// The region was not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The region was not started; it is started once a node and kind.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// What was still here when a hand-over was given up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "after {waited:?} {shards} shards of {kind} are still here, and {buffered} messages wait for \
     a home"
)]
pub struct HandOverError {
    /// Of which kind.
    pub kind: String,
    /// Shards that did not leave; their entities are started elsewhere once this node is gone.
    pub shards: usize,
    /// Messages that are lost with this node.
    pub buffered: usize,
    /// How long it was tried.
    pub waited: Duration,
}

/// Why the number of shards is not what was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// There cannot be so many.
    #[error("{0} shards: it must be a power of two, at most 65,536")]
    BadShards(u32),
    /// The number of shards of this kind is part of what it does, as for daemon processes.
    #[error("the number of shards of this kind cannot be changed")]
    Fixed,
    /// The region of this node is gone.
    #[error("the region of this node has stopped")]
    Stopped,
    /// It has not happened in time, and may happen later.
    #[error("after {waited:?} there are {shards} shards, or some have no home yet")]
    TimedOut {
        /// How many there are now.
        shards: u32,
        /// How long it was tried.
        waited: Duration,
    },
}
