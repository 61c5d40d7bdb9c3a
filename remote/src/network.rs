//! Network: what this crate needs from whatever carries its bytes, as two traits and their lanes.
//!
//! Two implementations come with the crate, QUIC ([`crate::QuicNetwork`]) and a network in memory
//! ([`crate::VirtualNetwork`]); both pass [`crate::conformance`].
//!
//! ```text
//! Network --connect/accept--> Connection --open/accept--> LaneWriter ~~~ bytes in order ~~~> LaneReader
//! ```
//!
//! **Invariant:** a network carries bytes and knows who is at the other end; what the bytes mean is
//! decided above it.

use crate::identity::PeerIdentity;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;

/// One end point: it listens at an address and connects to others.
///
/// Futures of these traits may be dropped at any time: a connection or lane that was being made is
/// given up, what was being read is not lost, and what was being written may or may not arrive.
pub trait Network: Send + Sync + 'static {
    /// Where peers reach this end point.
    fn local_addr(&self) -> SocketAddr;

    /// Connects to the end point at `to`.
    ///
    /// # Errors
    /// [`ConnectError`]; within a time limit of the implementation.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, Result<Arc<dyn Connection>, ConnectError>>;

    /// The next connection that a peer made, its credentials checked; `None` once the network is
    /// closed. A peer that is slow or hostile holds up no other.
    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>>;

    /// Makes a task, to be spawned then, as independent of code that holds the runtime's threads as
    /// this network's own tasks are. By itself a network changes nothing about it.
    fn isolated(&self, task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        task
    }

    /// Stops listening and closes all connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A connection to one peer; either side may open lanes. Dropping every handle closes it.
pub trait Connection: Send + Sync + 'static {
    /// From where the peer sends. The address at which it listens may be another one.
    fn peer_addr(&self) -> SocketAddr;

    /// Whether the peer has proved that it may call itself `name`.
    fn proves_name(&self, name: &str) -> bool;

    /// Who the peer is if it calls itself `name`; `None` if it has not proved that it may. Default:
    /// for a network whose peers prove names only, a member.
    fn identity_as(&self, name: &str) -> Option<PeerIdentity> {
        self.proves_name(name).then(|| PeerIdentity::member(name))
    }

    /// Opens a lane to the peer. The peer sees it when the first bytes are written.
    ///
    /// # Errors
    /// [`LaneError`], if the connection is closed.
    fn open_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneWriter>, LaneError>>;

    /// The next lane that the peer opened.
    ///
    /// # Errors
    /// [`LaneError`], if the connection is closed.
    fn accept_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneReader>, LaneError>>;

    /// Closes the connection at once, both ways. What is still on its way may be lost. The peer
    /// sees `reason` if it still hears anything.
    fn close(&self, reason: &str);

    /// Waits until the connection is closed, by whomever, and says why.
    fn closed(&self) -> BoxFuture<'_, String>;
}

/// The sending end of a lane: bytes arrive in order, or not at all from some point on.
pub trait LaneWriter: Send + 'static {
    /// Writes all of `bytes`; waits while the peer does not keep up.
    ///
    /// # Errors
    /// [`LaneError`], if the lane or its connection is closed.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), LaneError>>;

    /// Says which lanes go first where not all can go at once. Without effect where a network knows
    /// no such thing.
    fn set_rank(&mut self, _rank: LaneRank) {}

    /// Says that nothing follows, and waits until the peer has everything or is gone.
    fn finish(&mut self) -> BoxFuture<'_, ()>;
}

/// What goes first, where the lanes of one connection cannot all go at once.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum LaneRank {
    /// Heartbeats and what else holds a cluster together.
    First,
    /// Messages of users.
    Middle,
    /// Large messages, for which nobody else is to wait.
    Last,
}

/// The receiving end of a lane.
pub trait LaneReader: Send + 'static {
    /// The next bytes, at least 1 and at most `max` of them; `None` when the writer finished.
    ///
    /// # Errors
    /// [`LaneError`], if the lane or its connection is closed.
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LaneError>>;
}

/// Why no connection was made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This end point is closed.
    #[error("this node's network is closed")]
    Closed,
    /// The peer has no credentials that this node accepts, or does not accept this node's.
    #[error("{to} and this node do not accept each other: {reason}")]
    Refused {
        /// Who was called.
        to: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// Nobody answered.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// Who was called.
        to: SocketAddr,
        /// What was tried.
        reason: String,
    },
}

/// A lane that carries nothing any more.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the lane is closed: {reason}")]
pub struct LaneError {
    /// Why.
    pub reason: String,
}

impl LaneError {
    /// A lane that is closed for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}
