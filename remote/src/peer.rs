//! Peer: the association with the node at one address: its queues, runs, watches, system messages.
//!
//! Senders and the driver of the association share it. The driver (`io/driver.rs`) owns the
//! connection; everything that outlives a connection is here.
//!
//! ```text
//! senders --frames--> outboxes ----------------> driver: one writer a lane ~~~> network
//! watchers <--news--- Relation <--connected, ---- driver: readers <~~~~~~~~~~~~ network
//!                     runs, system lane, watches
//! ```
//!
//! **Invariant:** nobody is told anything while the relation is locked: watchers and askers run code
//! that may come back here.

mod system;
mod watching;

use self::watching::PendingEnd;
use crate::config::RemoteConfig;
use crate::core::Core;
use crate::identity::{PeerIdentity, PeerKind};
use crate::logic::handshake::{Introduction, Known};
use crate::logic::runs::Runs;
use crate::logic::system_lane::{SystemIn, SystemOut};
use crate::message::RemoteMessage;
use crate::node_id::NodeId;
use crate::outbox::Outbox;
use crate::remote::RemoteEvent;
use crate::watches::{Watch, Watched, Watches};
use crate::wire_format::{ExportId, SystemMessage, Target};
use otava_actor::{Ended, Terminated, Time, Watcher, Watching};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

pub(crate) use crate::io::lanes::Incoming;

pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) control: Outbox,
    pub(crate) lanes: Vec<Outbox>,
    /// Of the lane for large messages. Its lane is opened when there is something on it.
    pub(crate) large: Outbox,
    large_used: AtomicBool,
    /// There may be a reason to connect.
    pub(crate) wake: Notify,
    /// The present connection has to end.
    pub(crate) kick: Notify,
    /// To the driver: connections that the peer made.
    pub(crate) incoming: mpsc::Sender<Incoming>,
    connected: AtomicBool,
    /// Something was sent or has arrived since somebody looked.
    used: AtomicBool,
    /// The present run, for those who only want to see that it is not over; 0 if there is none.
    present: AtomicU64,
    relation: Mutex<Relation>,
}

/// The relation while somebody looks at it or changes it.
struct Locked<'a> {
    relation: MutexGuard<'a, Relation>,
    present: &'a AtomicU64,
}

impl Deref for Locked<'_> {
    type Target = Relation;

    fn deref(&self) -> &Relation {
        &self.relation
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Relation {
        &mut self.relation
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let present = self.relation.runs.present().unwrap_or_default();
        self.present.store(present, Ordering::Release);
    }
}

struct Relation {
    runs: Runs,
    /// The node that is connected, or was last.
    node: Option<NodeId>,
    /// Who that node is by its credentials.
    identity: Option<Arc<PeerIdentity>>,
    connected: bool,
    /// Since when there is no connection.
    apart_since: Time,
    /// A connection is wanted also while there is nothing to send.
    kept: bool,
    out: SystemOut<SystemMessage>,
    inbound: SystemIn,
    /// What this node watches over there.
    watches: Watches,
    /// What the peer watches here.
    watched: Watched,
    /// Ends that the peer is told of once it has read what was sent before them.
    ends: BTreeMap<u64, PendingEnd>,
    next_end: u64,
}

/// What is to be told once the relation is unlocked.
#[derive(Default)]
struct News {
    ended: Vec<(Watcher, Terminated)>,
    /// Runs of the node that are over: nobody there will answer. With each, whether it was the
    /// present one.
    over: Vec<(u64, bool)>,
    /// Dropped unlocked too: dropping takes callbacks back.
    unwatched: Vec<Option<Watching>>,
}

impl Peer {
    pub(crate) fn new(
        addr: SocketAddr,
        config: &RemoteConfig,
        incoming: mpsc::Sender<Incoming>,
    ) -> Self {
        let outbox = || Outbox::new(config.lane_bytes_max);
        Self {
            addr,
            control: outbox(),
            lanes: (0..config.lanes).map(|_| outbox()).collect(),
            large: Outbox::new(config.large_bytes_max),
            large_used: AtomicBool::new(false),
            wake: Notify::new(),
            kick: Notify::new(),
            incoming,
            connected: AtomicBool::new(false),
            used: AtomicBool::new(false),
            present: AtomicU64::new(0),
            relation: Mutex::new(Relation {
                runs: Runs::default(),
                node: None,
                identity: None,
                connected: false,
                apart_since: Time::ZERO,
                kept: false,
                out: SystemOut::new(config.system_resend, config.system_messages_max),
                inbound: SystemIn::default(),
                watches: Watches::default(),
                watched: Watched::default(),
                ends: BTreeMap::new(),
                next_end: 0,
            }),
        }
    }

    /// The lane of all messages of this protocol to `target`.
    pub(crate) fn lane_for<M: RemoteMessage>(&self, target: &Target) -> &Outbox {
        if M::LARGE {
            self.large()
        } else {
            self.lane_of(target)
        }
    }

    /// The lane for large messages, to be used now.
    pub(crate) fn large(&self) -> &Outbox {
        self.large_used.store(true, Ordering::Relaxed);
        &self.large
    }

    fn lane_of(&self, target: &Target) -> &Outbox {
        let number = match target {
            Target::Export(ExportId(id)) => (*id % self.lanes.len() as u128) as usize,
            Target::Name(name) => {
                let sum = name.bytes().fold(0_usize, |sum, b| sum + usize::from(b));
                sum % self.lanes.len()
            }
        };
        &self.lanes[number]
    }

    pub(crate) fn lane_of_port(&self, port: ExportId) -> &Outbox {
        &self.lanes[(port.0 % self.lanes.len() as u128) as usize]
    }

    /// Those of all lanes, in the order of their numbers.
    pub(crate) fn outboxes(&self) -> impl Iterator<Item = &Outbox> {
        std::iter::once(&self.control).chain(self.user_lanes())
    }

    /// The outboxes of the lanes on which messages of users go.
    pub(crate) fn user_lanes(&self) -> impl Iterator<Item = &Outbox> {
        self.lanes.iter().chain([&self.large])
    }

    /// Those on which anything was ever sent.
    fn used_lanes(&self) -> impl Iterator<Item = &Outbox> {
        let used = self.lanes.len() + usize::from(self.large_used.load(Ordering::Relaxed));
        self.user_lanes().take(used)
    }

    /// Makes the driver look whether it should connect, unless it is connected.
    pub(crate) fn wake_if_apart(&self) {
        if !self.connected.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether this run of the node is over for good.
    pub(crate) fn is_gone(&self, run: u64) -> bool {
        let present = self.present.load(Ordering::Acquire);
        (present == 0 || present != run) && self.lock().runs.is_over(run)
    }

    /// The node that is connected, or was last.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.lock().node.clone()
    }

    /// Who `node` is by its credentials, if it is connected or was last.
    pub(crate) fn identity_of(&self, node: &NodeId) -> Option<PeerIdentity> {
        let relation = self.lock();
        let same = relation.node.as_ref() == Some(node);
        relation.identity.as_deref().filter(|_| same).cloned()
    }

    /// Whether this very run of the node is connected.
    pub(crate) fn is_connected_to(&self, node: &NodeId) -> bool {
        let relation = self.lock();
        relation.connected && relation.node.as_ref() == Some(node)
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether there is to be a connection also while there is nothing to send.
    pub(crate) fn keep(&self, kept: bool) {
        self.lock().kept = kept;
        self.wake_if_apart();
    }

    /// Notes that something was sent or has arrived.
    pub(crate) fn use_it(&self) {
        // Mostly it stands already, and then no other thread's cache is disturbed.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nothing was sent and nothing arrived since this was asked last, and nobody here needs
    /// the connection.
    pub(crate) fn is_idle(&self, core: &Core) -> bool {
        let used = self.used.swap(false, Ordering::Relaxed);
        !used
            && !self.wants_connection()
            && self.lock().watched.is_empty()
            && !core.exports.waits_for(self.addr)
    }

    /// Whether nothing would be lost with what is remembered of the node: nothing waits, it was not
    /// broken with, and no numbers of system messages were agreed on with a run that may come back.
    pub(crate) fn is_forgettable(&self) -> bool {
        let relation = self.lock();
        let used = !relation.out.is_fresh() || relation.inbound.taken() > 0;
        let needed = relation.connected || relation.kept || relation.runs.any_quarantined();
        !needed
            && !used
            && relation.watches.is_empty()
            && relation.watched.is_empty()
            && self.outboxes().all(Outbox::is_empty)
    }

    /// Whether there is something for which a connection is needed.
    pub(crate) fn wants_connection(&self) -> bool {
        let relation = self.lock();
        relation.kept
            || !relation.watches.is_empty()
            || !relation.out.is_settled()
            || self.outboxes().any(|outbox| !outbox.is_empty())
    }

    /// What the handshake has to know about `them`.
    pub(crate) fn known(
        &self,
        core: &Core,
        them: &Introduction,
        identity: Option<&PeerIdentity>,
        calling: bool,
    ) -> Known {
        let relation = self.lock();
        let (run, addr) = (them.node.incarnation, them.node.addr);
        Known {
            name_proven: identity.is_some(),
            address_proven: identity.is_some_and(|it| core.rights.allows_address(it, addr)),
            quarantined: relation.runs.is_quarantined(run),
            over: relation.runs.is_over(run),
            address_held: identity.is_some_and(|it| relation.is_held_against(it)),
            calling,
        }
    }

    /// A connection with `node` was agreed on. What was not acknowledged is queued again. `false` if
    /// this node broke with that run meanwhile.
    pub(crate) fn connected(
        &self,
        core: &Core,
        node: &NodeId,
        identity: &Arc<PeerIdentity>,
    ) -> bool {
        let now = core.system.now();
        let mut news = News::default();
        {
            let mut relation = self.lock();
            if relation.runs.is_over(node.incarnation) {
                return false;
            }
            let before = relation.runs.present();
            relation.met(now, node, &mut news);
            relation.identity = Some(identity.clone());
            relation.connected = true;
            relation.apart_since = Time::MAX;
            self.connected.store(true, Ordering::Relaxed);
            if before != Some(node.incarnation) {
                relation.start_anew(core, now, &mut news);
            }
            self.resend(core, &mut relation, now);
        }
        news.tell(core, self.addr);
        true
    }

    /// The connection is gone. Where it may have taken questions or answers with it, whoever
    /// would wait for them for ever is told.
    pub(crate) fn disconnected(&self, core: &Core, lost_nothing: bool) {
        let ends = {
            let mut relation = self.lock();
            relation.connected = false;
            relation.apart_since = core.system.now();
            self.connected.store(false, Ordering::Relaxed);
            std::mem::take(&mut relation.ends)
        };
        if !lost_nothing {
            core.exports.close_endless_ports_to(self.addr);
        }
        // What the peer has not read by now it never will.
        for end in ends.into_values() {
            self.send_system(core, end.message);
        }
    }

    /// The connected node says goodbye: this run of it is over.
    pub(crate) fn left(&self, core: &Core, run: u64) {
        let mut news = News::default();
        {
            let mut relation = self.lock();
            let present = relation.runs.present() == Some(run);
            relation.runs.ended(run);
            relation.lose(core, run, present, &mut news);
        }
        news.tell(core, self.addr);
    }

    /// Breaks with this run of the node.
    pub(crate) fn quarantine(&self, core: &Core, node: &NodeId, reason: &str) {
        let mut news = News::default();
        {
            let mut relation = self.lock();
            let run = node.incarnation;
            let present = relation.runs.present() == Some(run);
            if !relation.runs.quarantine(run) {
                return;
            }
            relation.lose(core, run, present, &mut news);
        }
        tracing::warn!(%node, reason, "quarantined: nothing is exchanged with it any more");
        self.kick.notify_one();
        news.tell(core, self.addr);
        core.emit(RemoteEvent::Quarantined(node.clone()));
    }

    /// When [`Peer::tick`] has something to do.
    pub(crate) fn next_tick(&self, config: &RemoteConfig) -> Time {
        let relation = self.lock();
        let resend = if relation.connected {
            relation.out.resend_at()
        } else {
            Time::MAX
        };
        resend.min(relation.give_up_at(config))
    }

    /// Sends again what was not acknowledged, and gives up a node that is silent for too long.
    pub(crate) fn tick(&self, core: &Core, now: Time) {
        {
            let mut relation = self.lock();
            if relation.give_up_at(&core.config) > now {
                if relation.connected && relation.out.resend_at() <= now {
                    self.resend(core, &mut relation, now);
                }
                return;
            }
        }
        self.give_up(core, "it acknowledged nothing for too long");
    }

    /// Whoever watches an actor of the node learns that it is lost; the node itself, if one was
    /// met, is broken with.
    fn give_up(&self, core: &Core, why: &str) {
        let mut news = News::default();
        let lost = {
            let mut relation = self.lock();
            let present = relation.runs.present();
            relation.lose_all(core, &mut news);
            let node = relation.node.as_ref();
            node.filter(|node| present == Some(node.incarnation))
                .cloned()
        };
        news.tell(core, self.addr);
        if let Some(node) = lost {
            self.quarantine(core, &node, why);
        }
    }

    /// The layer is closed: whoever watches an actor over there learns that it is lost.
    pub(crate) fn close(&self, core: &Core) {
        let mut news = News::default();
        self.lock().lose_all(core, &mut news);
        news.tell(core, self.addr);
        for outbox in self.outboxes() {
            outbox.close();
            core.give_up(self, outbox.clear());
        }
    }

    fn lock(&self) -> Locked<'_> {
        Locked {
            relation: self.relation.lock().unwrap_or_else(PoisonError::into_inner),
            present: &self.present,
        }
    }
}

impl Relation {
    /// Whether the address belongs to another node than `caller`: to one that is connected, to one whose
    /// certificate names the address while that of the caller does not, or, against a client, to a
    /// member that may come back. A client of the same name is another one: names of clients and of members
    /// need not differ.
    fn is_held_against(&self, caller: &PeerIdentity) -> bool {
        let (Some(node), Some(holder)) = (&self.node, &self.identity) else {
            return false;
        };
        let by_certificate = holder.names_addresses() && !caller.names_addresses();
        let client_for_member =
            caller.kind() == PeerKind::Client && holder.kind() == PeerKind::Member;
        let against_client = client_for_member && !self.runs.is_over(node.incarnation);
        let is_another = client_for_member || holder.name() != caller.name();
        is_another && (self.connected || by_certificate || against_client)
    }

    /// `node` is there: the run before it is over, and so is every other that somebody watched.
    fn met(&mut self, now: Time, node: &NodeId, news: &mut News) {
        if let Some(before) = self.runs.met(node.incarnation) {
            self.lose_watches(before, true, news);
        }
        let runs = self
            .watches
            .iter()
            .filter_map(|(_, watch)| watch.address.incarnation());
        let others: Vec<u64> = runs.filter(|&run| run != node.incarnation).collect();
        for run in others {
            if self.runs.ended(run) {
                self.lose_watches(run, false, news);
            }
        }
        self.node = Some(node.clone());
        self.apart_since = now;
    }

    /// The other run knows nothing of what was said to the one before.
    fn start_anew(&mut self, core: &Core, now: Time, news: &mut News) {
        self.forget(core, news);
        let run = self.runs.present();
        let messages = self.watches.iter();
        let messages: Vec<_> = messages
            .map(|(number, watch)| (number, watch.message(number, run)))
            .collect();
        for (number, message) in messages {
            if self.out.push(now, message).is_err()
                && let Some(watch) = self.watches.take(number)
            {
                news.lost(watch);
            }
        }
    }

    /// Forgets what was said in either direction, and what the peer watches here.
    fn forget(&mut self, core: &Core, news: &mut News) {
        let config = &core.config;
        self.out = SystemOut::new(config.system_resend, config.system_messages_max);
        self.inbound = SystemIn::default();
        news.unwatched.extend(self.watched.take_all());
        self.ends.clear();
    }

    /// `run` of the peer says that what this node watches under a number has ended.
    fn terminated(&mut self, core: &Core, run: u64, number: u64, reason: Ended, news: &mut News) {
        let Some(watch) = self.watches.take(number) else {
            return;
        };
        match watch.address.incarnation().filter(|&of| of != run) {
            // The present run has answered for another one: that one is over.
            Some(other) => {
                news.lost(watch);
                self.runs.ended(other);
                self.lose(core, other, false, news);
            }
            None => news.ended.extend(watch.news(reason)),
        }
    }

    /// A run of the node is over: its actors are lost. What is watched at whichever node is there
    /// is lost with the run that was `present`. With that run, all that was said is forgotten.
    fn lose(&mut self, core: &Core, run: u64, present: bool, news: &mut News) {
        self.lose_watches(run, present, news);
        if present {
            self.forget(core, news);
        }
    }

    fn lose_watches(&mut self, run: u64, present: bool, news: &mut News) {
        let of_run = |watch: &Watch| watch.address.incarnation().map_or(present, |of| of == run);
        for watch in self.watches.take_where(of_run) {
            news.lost(watch);
        }
        news.over.push((run, present));
    }

    fn lose_all(&mut self, core: &Core, news: &mut News) {
        for watch in self.watches.take_where(|_| true) {
            news.lost(watch);
        }
        news.over.extend(self.runs.present().map(|run| (run, true)));
        self.forget(core, news);
    }

    /// When the node counts as lost, if it says nothing until then.
    fn give_up_at(&self, config: &RemoteConfig) -> Time {
        let since = if self.watches.is_empty() {
            self.out.silent_since()
        } else {
            self.out.silent_since().min(self.apart_since)
        };
        since + config.system_give_up
    }
}

impl News {
    fn lost(&mut self, watch: Watch) {
        self.ended.extend(watch.news(Ended::NodeLost));
    }

    fn tell(self, core: &Core, addr: SocketAddr) {
        for (watcher, news) in self.ended {
            watcher.notify(news);
        }
        for (run, present) in self.over {
            core.exports.close_ports_of(addr, run, present);
        }
        drop(self.unwatched);
    }
}
