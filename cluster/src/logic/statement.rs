//! Statement: what one node publishes: the view it holds, whom it cannot reach, and a digest of both.

use crate::logic::view::View;
use otava_remote::NodeId;
use std::collections::BTreeSet;

/// What one node says about the cluster. Only its author makes it; others pass it on unchanged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// The node that says it.
    pub author: NodeId,
    /// The cluster it speaks of: a random number drawn by the node that formed it. Statements about
    /// another cluster mean nothing here.
    pub cluster: u64,
    /// Grows with each statement of the author.
    pub version: u64,
    /// The digest of the view that the author holds and of who cannot reach whom as it knows it.
    /// Where all digests agree, all know the same.
    pub digest: u64,
    /// The view that the author holds.
    pub view: View,
    /// Whom the author itself cannot reach.
    pub unreachable: BTreeSet<NodeId>,
}

impl Statement {
    /// The most entries that are accepted from a peer, in the view and among the unreachable alike.
    pub const ENTRIES_MAX: usize = 10_000;

    /// Whether it is small enough to be worked on.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.view.len() <= Self::ENTRIES_MAX && self.unreachable.len() <= Self::ENTRIES_MAX
    }
}
