//! Directory: which services each node offers, each node the only author of its own list. Pure.
//!
//! # How a list gets to all
//! The list of a node has a version that counts its changes, and each service in it the version of
//! its last change. The author sends what changed to every member, and remembers how far each one
//! says it is. Whoever is behind is told the version once a second until it has asked for the rest
//! and got it: that makes up for what was lost, on the wire or during a cut. Besides, one member a
//! second is told in turn, whatever it said before.
//!
//! What is said about a service is always its whole list on that node, so hearing it twice, or
//! late, does no harm. A service that nobody offers any more is kept as an empty list until all
//! members have said that they know.
//!
//! **Invariant:** only messages that a node itself has sent change what is known of its list; a
//! node that is no member is not listed, and never comes back, since its next run is another node.

use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Services that one node may offer or have offered a moment ago.
pub const SERVICES_MAX: usize = 1_024;
/// Offers of one node, all services together.
pub const OFFERS_MAX: usize = 8_192;
/// The longest name of a service, and of its kind, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// Between two messages with changes to the same members.
const PUSH_PAUSE: Duration = Duration::from_millis(20);
/// How often those who are behind are told.
const TICK: Duration = Duration::from_secs(1);
/// How many bytes of services go into one message, by estimate; at least one service goes.
const CHANGES_BYTES_MAX: usize = 32 * 1_024;

/// What is offered: a name, and the kind of messages that are understood.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServiceId {
    /// The name of the key.
    pub name: Arc<str>,
    /// The name and version of the messages.
    pub kind: Arc<str>,
}

/// One actor that offers a service.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Offer {
    /// Given once in each run of a node.
    pub number: u64,
    /// What the author says of it: a place on a ring, a term, a group.
    pub rank: u64,
}

/// What receptionists say to each other. Each message is about the list of one of the two.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// What changed in the sender's list.
    Changes(Changes),
    /// The version of the sender's list.
    Digest {
        /// That version.
        version: u64,
    },
    /// Up to which version the sender knows the receiver's list.
    Have {
        /// That version.
        version: u64,
        /// Whether it wants the rest.
        wants: bool,
    },
}

/// All services whose last change lies above `base` and not above `version`, as they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changes {
    /// What the receiver must have for this to be of use.
    pub base: u64,
    /// What it has then.
    pub version: u64,
    /// The services with all their offers.
    pub services: Vec<(ServiceId, Vec<Offer>)>,
}

/// What the directory wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// What is listed, or who is reachable, has changed for any service.
    AllChanged,
    /// What is listed of this service has changed.
    Changed(ServiceId),
    /// Send a message; it may be lost.
    Send(NodeId, Message),
}

/// What a directory must know of a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Presence {
    /// Whether its services are listed: not before it can be used, as a weakly up member can.
    pub listed: bool,
    /// Whether all reach it.
    pub reachable: bool,
}

/// One offer as it is listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Whose it is.
    pub node: NodeId,
    /// Whether all reach that node.
    pub reachable: bool,
    /// The offer.
    pub offer: Offer,
}

/// Why an offer is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooMany;

/// The lists of all members, as one node knows them.
#[derive(Debug)]
pub struct Directory {
    me: NodeId,
    members: BTreeMap<NodeId, Presence>,
    /// The own list.
    version: u64,
    own: BTreeMap<ServiceId, Own>,
    offers: usize,
    /// How far the others are with it.
    peers: BTreeMap<NodeId, Peer>,
    /// The lists of the others.
    others: BTreeMap<NodeId, Known>,
    push_at: Option<Time>,
    pushed: Time,
    tick_at: Time,
    /// Who was told last in turn.
    turn: Option<NodeId>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Own {
    offers: Vec<Offer>,
    changed_at: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    have: u64,
    sent: u64,
}

#[derive(Debug, Default)]
struct Known {
    version: u64,
    services: BTreeMap<ServiceId, Vec<Offer>>,
    /// How many all services have.
    offers: usize,
}

impl Known {
    /// Takes the list of one service; whether that changes anything. What is more than an honest
    /// author can have is not taken: it may be above its limit for as long as it takes to hear of
    /// what it withdrew.
    fn take(&mut self, service: &ServiceId, offers: Vec<Offer>) -> bool {
        let before = self.services.get(service).map_or(0, Vec::len);
        let total = self.offers - before + offers.len();
        let room = before > 0 || self.services.len() < 2 * SERVICES_MAX;
        if total > 2 * OFFERS_MAX || !room {
            return false;
        }
        self.offers = total;
        if offers.is_empty() {
            return self.services.remove(service).is_some();
        }
        let before = self.services.insert(service.clone(), offers);
        before.as_ref() != self.services.get(service)
    }
}

impl Directory {
    /// Knows nobody and offers nothing.
    #[must_use]
    pub fn new(me: NodeId, now: Time) -> Self {
        Self {
            me,
            members: BTreeMap::new(),
            version: 0,
            own: BTreeMap::new(),
            offers: 0,
            peers: BTreeMap::new(),
            others: BTreeMap::new(),
            push_at: None,
            pushed: now,
            tick_at: now + TICK,
            turn: None,
            outputs: VecDeque::new(),
        }
    }

    /// Offers `service` here.
    ///
    /// # Errors
    /// [`TooMany`]: this node offers as much as it may.
    pub fn offer(&mut self, now: Time, service: &ServiceId, offer: Offer) -> Result<(), TooMany> {
        let room = self.own.contains_key(service) || self.own.len() < SERVICES_MAX;
        if self.offers >= OFFERS_MAX || !room {
            return Err(TooMany);
        }
        self.offers += 1;
        self.change(now, service, |offers| offers.push(offer));
        Ok(())
    }

    /// Takes an offer of this node back.
    pub fn withdraw(&mut self, now: Time, service: &ServiceId, number: u64) {
        let own = self.own.get(service);
        if own.is_none_or(|own| own.offers.iter().all(|offer| offer.number != number)) {
            return;
        }
        self.offers -= 1;
        self.change(now, service, |offers| {
            offers.retain(|offer| offer.number != number);
        });
    }

    fn change(&mut self, now: Time, service: &ServiceId, change: impl FnOnce(&mut Vec<Offer>)) {
        self.version += 1;
        let own = self.own.entry(service.clone()).or_insert_with(|| Own {
            offers: Vec::new(),
            changed_at: 0,
        });
        own.changed_at = self.version;
        change(&mut own.offers);
        self.outputs.push_back(Output::Changed(service.clone()));
        self.push_at
            .get_or_insert(now.max(self.pushed + PUSH_PAUSE));
        self.forget_empty();
    }

    /// Who is a member now, without those who are out.
    pub fn set_members(&mut self, now: Time, mut members: BTreeMap<NodeId, Presence>) {
        members.remove(&self.me);
        if self.members == members {
            return;
        }
        self.peers.retain(|node, _| members.contains_key(node));
        self.others.retain(|node, _| members.contains_key(node));
        for node in members.keys() {
            self.peers.entry(node.clone()).or_insert_with(|| {
                self.push_at.get_or_insert(now);
                Peer::default()
            });
        }
        self.members = members;
        self.forget_empty();
        self.outputs.push_back(Output::AllChanged);
    }

    /// A message of `from`, who is really the sender.
    pub fn handle(&mut self, from: &NodeId, message: Message) {
        // Who is not known yet as a member says it again.
        if !self.members.contains_key(from) {
            return;
        }
        match message {
            Message::Changes(changes) => self.learn(from, changes),
            Message::Digest { version } => {
                let have = self.others.get(from).map_or(0, |known| known.version);
                self.answer(from, have, have < version);
            }
            Message::Have { version, wants } => {
                let own = self.version;
                if let Some(peer) = self.peers.get_mut(from) {
                    peer.have = peer.have.max(version.min(own));
                    if wants {
                        peer.sent = version.min(own);
                        self.send_changes(from);
                    }
                }
                self.forget_empty();
            }
        }
    }

    fn learn(&mut self, from: &NodeId, changes: Changes) {
        let known = self.others.entry(from.clone()).or_default();
        if changes.base > known.version {
            let have = known.version;
            return self.answer(from, have, true);
        }
        if changes.version > known.version {
            known.version = changes.version;
            for (service, mut offers) in changes.services {
                offers.sort_unstable();
                if known.take(&service, offers) {
                    self.outputs.push_back(Output::Changed(service));
                }
            }
        }
        let have = known.version;
        self.answer(from, have, false);
    }

    fn answer(&mut self, to: &NodeId, version: u64, wants: bool) {
        let have = Message::Have { version, wants };
        self.outputs.push_back(Output::Send(to.clone(), have));
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.push_at.is_some_and(|at| at <= now) {
            self.push_at = None;
            self.pushed = now;
            let peers: Vec<NodeId> = self.peers.keys().cloned().collect();
            for peer in &peers {
                self.send_changes(peer);
            }
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.tick();
        }
    }

    /// Tells those who are behind, and one more.
    fn tick(&mut self) {
        let version = self.version;
        if version == 0 {
            return;
        }
        let after = self.turn.as_ref();
        let later = self
            .peers
            .keys()
            .find(|node| after.is_none_or(|after| *node > after));
        let turn = later.or_else(|| self.peers.keys().next()).cloned();
        let told = self
            .peers
            .iter()
            .filter(|(node, peer)| peer.have < version || turn.as_ref() == Some(*node));
        for (node, _) in told {
            let digest = Message::Digest { version };
            self.outputs.push_back(Output::Send(node.clone(), digest));
        }
        self.turn = turn;
    }

    /// Sends `to` what it has not been sent.
    fn send_changes(&mut self, to: &NodeId) {
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        let version = self.version;
        let mut base = std::mem::replace(&mut peer.sent, version);
        if base == version {
            return;
        }
        let news = self.own.iter().filter(|(_, own)| own.changed_at > base);
        let mut news: Vec<_> = news.collect();
        news.sort_unstable_by_key(|(_, own)| own.changed_at);
        let (mut services, mut bytes) = (Vec::new(), 0);
        for (service, own) in news {
            if bytes >= CHANGES_BYTES_MAX {
                let upto = own.changed_at - 1;
                let services = std::mem::take(&mut services);
                self.outputs.push_back(changes(to, base, upto, services));
                (base, bytes) = (upto, 0);
            }
            services.push((service.clone(), own.offers.clone()));
            bytes += service.name.len() + service.kind.len() + 16 * own.offers.len();
        }
        // Also if there is nothing: what came and went is not worth telling, but the version is.
        self.outputs.push_back(changes(to, base, version, services));
    }

    /// Forgets services without offers that all members know to be without.
    fn forget_empty(&mut self) {
        let known = self.peers.values().map(|peer| peer.have).min();
        let known = known.unwrap_or(self.version);
        self.own
            .retain(|_, own| !own.offers.is_empty() || own.changed_at > known);
    }

    /// The next thing that is to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Directory::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.push_at.map_or(self.tick_at, |at| at.min(self.tick_at))
    }

    /// Whether all members that can be reached know the own list as it is.
    #[must_use]
    pub fn is_known_to_all(&self) -> bool {
        self.peers.iter().all(|(node, peer)| {
            let reachable = self.members.get(node).is_some_and(|m| m.reachable);
            !reachable || peer.have == self.version
        })
    }

    /// Who offers `service`, by node and number.
    #[must_use]
    pub fn listed(&self, service: &ServiceId) -> Vec<Listed> {
        let mut listed = Vec::new();
        for (node, known) in &self.others {
            let presence = self.members.get(node).filter(|presence| presence.listed);
            let offers = known.services.get(service);
            if let (Some(presence), Some(offers)) = (presence, offers) {
                listed.extend(offers.iter().map(|offer| Listed {
                    node: node.clone(),
                    reachable: presence.reachable,
                    offer: *offer,
                }));
            }
        }
        if let Some(own) = self.own.get(service) {
            listed.extend(own.offers.iter().map(|offer| Listed {
                node: self.me.clone(),
                reachable: true,
                offer: *offer,
            }));
        }
        listed.sort_unstable_by(|a, b| (&a.node, a.offer).cmp(&(&b.node, b.offer)));
        listed
    }
}

fn changes(to: &NodeId, base: u64, version: u64, services: Vec<(ServiceId, Vec<Offer>)>) -> Output {
    let changes = Changes {
        base,
        version,
        services,
    };
    Output::Send(to.clone(), Message::Changes(changes))
}

#[cfg(test)]
mod tests;
