//! Message: what passes from node to node besides statements: requests, answers, signs of life.

use crate::logic::door::{JoinAnswer, JoinRequest};
use crate::logic::member::Status;

/// A sign of life, or the news that it came from one who is out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Beat {
    /// The cluster it is about.
    pub cluster: u64,
    /// What it says.
    pub kind: BeatKind,
}

/// What a [`Beat`] says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BeatKind {
    /// I am in another cluster than that. A run is in one cluster for all its life, so whoever holds
    /// this one to be a member is wrong.
    Elsewhere,
    /// Are you there? To a node that is in no cluster it says as well that this one lives.
    Ping,
    /// Yes.
    Pong,
    /// The run with this incarnation, at the address to which this is sent, is out.
    Verdict {
        /// Its incarnation; another run may have the address by now.
        incarnation: u64,
        /// Down or removed.
        status: Status,
    },
}

/// What passes from node to node besides statements.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// An answer at the door, to the run with this incarnation.
    Answer(u64, JoinAnswer),
    /// A sign of life.
    Beat(Beat),
    /// A request at the door.
    Request(JoinRequest),
}
