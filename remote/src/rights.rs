//! Rights: who may reach which protocol of this node.
//!
//! The default: members reach everything that is published or was handed out to them, clients reach
//! nothing. What a node grants counts for messages and watches alike, also where the sender was
//! given a reference: a right belongs to a peer, a reference can be passed on.
//!
//! Answers need no right: who was asked may answer, once.

use crate::identity::{PeerIdentity, PeerKind};
use crate::message::RemoteMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// A set of peers: by what they are, by their names, by their roles. One of these is enough.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Who {
    members: bool,
    clients: bool,
    names: BTreeSet<String>,
    roles: BTreeSet<String>,
}

impl Who {
    /// Nobody.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// All members.
    pub fn members() -> Self {
        Self {
            members: true,
            ..Self::default()
        }
    }

    /// All clients.
    pub fn clients() -> Self {
        Self {
            clients: true,
            ..Self::default()
        }
    }

    /// All members, and all clients.
    pub fn everybody() -> Self {
        Self {
            members: true,
            clients: true,
            ..Self::default()
        }
    }

    /// Also the node or client of this name.
    pub fn or_peer(mut self, name: &str) -> Self {
        self.names.insert(name.to_owned());
        self
    }

    /// Also every node or client whose certificate has this role.
    pub fn or_role(mut self, role: &str) -> Self {
        self.roles.insert(role.to_owned());
        self
    }

    fn includes(&self, peer: &PeerIdentity) -> bool {
        let by_kind = match peer.kind() {
            PeerKind::Client => self.clients,
            PeerKind::Member => self.members,
        };
        by_kind || self.names.contains(peer.name()) || peer.roles().any(|r| self.roles.contains(r))
    }
}

/// What a node grants its peers ([`crate::RemoteBuilder::rights`]).
///
/// A rule for the commands of entities has to include all members: they pass commands on to each
/// other, and host entities for each other.
///
/// ```
/// use otava_remote::{Rights, Who};
/// # use otava_remote::RemoteMessage;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Deserialize, Serialize)]
/// # struct Account;
/// # impl RemoteMessage for Account { const NAME: &'static str = "bank.Account"; }
/// # #[derive(Deserialize, Serialize)]
/// # struct Audit;
/// # impl RemoteMessage for Audit { const NAME: &'static str = "bank.Audit"; }
///
/// let rights = Rights::default()
///     .export_to_clients::<Account>()
///     .protocol::<Audit>(Who::nobody().or_role("auditor"));
/// # let _ = rights;
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Rights {
    rules: BTreeMap<String, Who>,
    addresses_in_certificates: bool,
}

impl Rights {
    /// Lets exactly these peers reach the protocol `M`. It takes the place of an earlier rule for it.
    pub fn protocol<M: RemoteMessage>(self, who: Who) -> Self {
        self.protocol_named(M::RIGHTS, who)
    }

    /// The same, for a protocol that this program knows by its name only ([`RemoteMessage::RIGHTS`]).
    pub fn protocol_named(mut self, name: &str, who: Who) -> Self {
        self.rules.insert(name.to_owned(), who);
        self
    }

    /// Lets clients reach the protocol `M` too, beside all members. For entities, `M` is the type of
    /// their commands.
    pub fn export_to_clients<M: RemoteMessage>(self) -> Self {
        self.protocol::<M>(Who::everybody())
    }

    /// Demands that the certificate of every member says where it may listen. Then none can claim
    /// the address of another one that is away.
    pub fn addresses_in_certificates(mut self) -> Self {
        self.addresses_in_certificates = true;
        self
    }

    /// Whether a peer may listen at `addr`, as far as certificates can say.
    pub(crate) fn allows_address(&self, peer: &PeerIdentity, addr: SocketAddr) -> bool {
        let must_say = self.addresses_in_certificates && peer.kind() == PeerKind::Member;
        peer.may_listen_at(addr) && (peer.names_addresses() || !must_say)
    }

    fn allows(&self, peer: &PeerIdentity, protocol: &str) -> bool {
        match self.rules.get(protocol) {
            Some(who) => who.includes(peer),
            None => peer.kind() == PeerKind::Member,
        }
    }
}

/// What one connected peer may do here.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    rights: Arc<Rights>,
    peer: Arc<PeerIdentity>,
    /// A member where there are no rules: the common case, which costs nothing.
    all: bool,
}

impl Permit {
    pub(crate) fn new(rights: &Arc<Rights>, peer: Arc<PeerIdentity>) -> Self {
        Self {
            all: rights.rules.is_empty() && peer.kind() == PeerKind::Member,
            rights: rights.clone(),
            peer,
        }
    }

    /// Whether it may send to actors of this protocol, and watch them.
    pub(crate) fn allows(&self, protocol: &str) -> bool {
        self.all || self.rights.allows(&self.peer, protocol)
    }

    /// Whether it may send control messages: gossip, heartbeats, joining.
    pub(crate) fn allows_control(&self) -> bool {
        self.kind() == PeerKind::Member
    }

    pub(crate) fn kind(&self) -> PeerKind {
        self.peer.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rights: &Rights, peer: PeerIdentity, protocol: &str) -> bool {
        Permit::new(&Arc::new(rights.clone()), Arc::new(peer)).allows(protocol)
    }

    /// X9: the default, and every way to be in a set.
    #[test]
    fn rights_are_as_granted() {
        let (node, client) = (PeerIdentity::member("n"), PeerIdentity::client("c"));
        let auditor = || PeerIdentity::client("d").role("auditor");
        let default = Rights::default();
        assert!(allowed(&default, node.clone(), "p") && !allowed(&default, client.clone(), "p"));
        assert!(!allowed(&default, auditor(), "p"));
        let rights = Rights::default()
            .protocol_named("audit", Who::nobody().or_role("auditor").or_peer("n"))
            .protocol_named("open", Who::everybody())
            .protocol_named("outside", Who::clients())
            .protocol_named("closed", Who::nobody());
        for (protocol, of_node, of_client, of_auditor) in [
            ("audit", true, false, true),
            ("open", true, true, true),
            ("outside", false, true, true),
            ("closed", false, false, false),
            ("other", true, false, false),
        ] {
            assert_eq!(
                allowed(&rights, node.clone(), protocol),
                of_node,
                "{protocol}"
            );
            assert_eq!(
                allowed(&rights, client.clone(), protocol),
                of_client,
                "{protocol}"
            );
            assert_eq!(
                allowed(&rights, auditor(), protocol),
                of_auditor,
                "{protocol}"
            );
        }
        assert!(!allowed(&rights, PeerIdentity::member("m"), "audit"));
    }

    /// X4: a certificate that names addresses is good for these only.
    #[test]
    fn an_address_is_held_against_the_certificate() {
        let [here, there] = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let (anywhere, bound) = (
            PeerIdentity::member("n"),
            PeerIdentity::member("n").address(here),
        );
        let (lax, strict) = (
            Rights::default(),
            Rights::default().addresses_in_certificates(),
        );
        assert!(lax.allows_address(&anywhere, there) && !strict.allows_address(&anywhere, there));
        for rights in [lax, strict] {
            assert!(rights.allows_address(&bound, here) && !rights.allows_address(&bound, there));
            assert!(rights.allows_address(&PeerIdentity::client("c"), there));
        }
    }
}
