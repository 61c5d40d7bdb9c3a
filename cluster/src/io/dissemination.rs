//! Dissemination: what a driver needs from whatever carries statements to all members.

use crate::logic::statement::Statement;
use futures_util::future::BoxFuture;
use otava_remote::NodeId;
use std::net::SocketAddr;
use std::sync::Arc;

/// Carries the newest statement of each member to all others. What is old may be skipped.
pub(crate) trait Dissemination: Send {
    /// Makes this node's newest statement known, in place of the one before.
    fn publish(&mut self, statement: Arc<Statement>);

    /// Whom to exchange statements with from now on.
    fn set_peers(&mut self, peers: &[SocketAddr]);

    /// Forgets the statements of those who are out.
    fn forget(&mut self, is_out: &dyn Fn(&NodeId) -> bool);

    /// The next statements of other members. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Broken`]: nothing will come any more.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<Statement>>, Broken>>;
}

/// A dissemination that has stopped for good, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("gossip has stopped: {0}")]
pub(crate) struct Broken(pub(crate) String);
