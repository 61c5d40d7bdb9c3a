//! NodeId: which run of which node, the identity that everything between nodes refers to.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// One run of one node: its name, where it is reached, and the incarnation of this run.
///
/// The same name at the same address with another incarnation is another node: nothing that was
/// meant for the old one reaches the new one.
#[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NodeId {
    /// Where its peers reach it.
    pub addr: SocketAddr,
    /// Random, new at every start.
    pub incarnation: u64,
    /// Its name, which its certificate is bound to.
    pub name: Arc<str>,
}

impl NodeId {
    /// The longest name of a node in bytes.
    pub const NAME_BYTES_MAX: usize = 128;

    /// The run `incarnation` of the node `name` at `addr`.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, addr: SocketAddr, incarnation: u64) -> Self {
        Self {
            addr,
            incarnation,
            name: name.into(),
        }
    }

    /// Whether `name` may name a node: 1 to 128 letters, digits, `-`, `_` and `.`, so that it can
    /// stand in a certificate, in a path and in a log.
    #[must_use]
    pub fn is_valid_name(name: &str) -> bool {
        let fits = (1..=Self::NAME_BYTES_MAX).contains(&name.len());
        fits && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }
}

impl fmt::Display for NodeId {
    /// `node-1@127.0.0.1:7001#00c0ffee00c0ffee`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{:016x}", self.name, self.addr, self.incarnation)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_where_and_which_run() {
        let id = NodeId::new("node-1", SocketAddr::from(([127, 0, 0, 1], 7001)), 0xc0ffee);
        assert_eq!(id.to_string(), "node-1@127.0.0.1:7001#0000000000c0ffee");
    }

    #[test]
    fn names_are_plain() {
        assert!(NodeId::is_valid_name("node-1.eu_west"));
        for bad in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(!NodeId::is_valid_name(bad), "{bad:?}");
        }
    }
}
