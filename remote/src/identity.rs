//! Identity: who the peer of a connection is, by what its credentials say.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

/// What a peer may be.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PeerKind {
    /// A program outside that uses the cluster: it reaches what is exported to clients, and is never
    /// a member.
    Client,
    /// A node that may be a member.
    Member,
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Member => "member",
        })
    }
}

/// Who a peer is: its name, whether it may be a member, its roles, and the addresses that it may
/// listen at. An authority has vouched for all of it ([`crate::Connection::identity_as`]).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerIdentity {
    name: String,
    kind: PeerKind,
    roles: BTreeSet<String>,
    addresses: BTreeSet<SocketAddr>,
}

impl PeerIdentity {
    /// A member without roles, which may listen anywhere.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: PeerKind::Member,
            roles: BTreeSet::new(),
            addresses: BTreeSet::new(),
        }
    }

    /// A client without roles, which may listen anywhere.
    #[must_use]
    pub fn client(name: &str) -> Self {
        Self {
            kind: PeerKind::Client,
            ..Self::member(name)
        }
    }

    /// Adds a role.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        self.roles.insert(role.to_owned());
        self
    }

    /// Adds an address. With the first one, all others are forbidden to the peer.
    #[must_use]
    pub fn address(mut self, addr: SocketAddr) -> Self {
        self.addresses.insert(addr);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may be.
    #[must_use]
    pub fn kind(&self) -> PeerKind {
        self.kind
    }

    /// Whether it has this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Its roles, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// Whether its credentials say where it may listen.
    #[must_use]
    pub fn names_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Whether it may listen at `addr`, as far as its credentials know.
    #[must_use]
    pub fn may_listen_at(&self, addr: SocketAddr) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&addr)
    }
}
