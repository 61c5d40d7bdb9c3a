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

use crate::config::RemoteConfig;
use crate::core::Core;
use crate::logic::handshake::{Introduction, Known};
use crate::logic::runs::Runs;
use crate::logic::system_lane::{Overflow, SystemIn, SystemOut};
use crate::node_id::NodeId;
use crate::outbox::Outbox;
use crate::remote::RemoteEvent;
use crate::remote_ref::Address;
use crate::wire_format::{ExportId, Frame, SystemMessage, Target};
use otava_actor::{ActorPath, Ended, Terminated, Time, Watcher, WatcherId, Watching};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

pub(crate) use crate::io::lanes::Incoming;

/// Actors of this node that one peer may watch at once; one more breaks the protocol.
const WATCHED_MAX: usize = 1_000_000;

pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) control: Outbox,
    pub(crate) lanes: Vec<Outbox>,
    /// There may be a reason to connect.
    pub(crate) wake: Notify,
    /// The present connection has to end.
    pub(crate) kick: Notify,
    /// To the driver: connections that the peer made.
    pub(crate) incoming: mpsc::Sender<Incoming>,
    connected: AtomicBool,
    relation: Mutex<Relation>,
}

struct Relation {
    runs: Runs,
    /// The node that is connected, or was last.
    node: Option<NodeId>,
    connected: bool,
    /// Since when there is no connection.
    apart_since: Time,
    /// A connection is wanted also while there is nothing to send.
    kept: bool,
    out: SystemOut<SystemMessage>,
    inbound: SystemIn,
    /// What this node watches over there, by the number that the peer knows.
    watches: BTreeMap<u64, Watch>,
    next_watch: u64,
    /// What the peer watches here. `None`: just being registered.
    watched: BTreeMap<u64, Option<Watching>>,
    /// Ends that the peer is told of once it has read what was sent before them.
    ends: BTreeMap<u64, PendingEnd>,
    next_end: u64,
}

/// The end of an actor that a peer watches: told when every lane is flushed, so that the news comes
/// after everything that the actor sent.
struct PendingEnd {
    message: SystemMessage,
    lanes_left: usize,
}

struct Watch {
    address: Address,
    target: Target,
    path: ActorPath,
    uid: u64,
    watchers: Vec<Watcher>,
}

/// What is to be told once the relation is unlocked.
#[derive(Default)]
struct News {
    ended: Vec<(Watcher, Terminated)>,
    /// Runs of the node that are over: nobody there will answer.
    over: Vec<u64>,
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
            wake: Notify::new(),
            kick: Notify::new(),
            incoming,
            connected: AtomicBool::new(false),
            relation: Mutex::new(Relation {
                runs: Runs::default(),
                node: None,
                connected: false,
                apart_since: Time::ZERO,
                kept: false,
                out: SystemOut::new(config.system_resend, config.system_messages_max),
                inbound: SystemIn::default(),
                watches: BTreeMap::new(),
                next_watch: 0,
                watched: BTreeMap::new(),
                ends: BTreeMap::new(),
                next_end: 0,
            }),
        }
    }

    /// The lane of all messages to `target`.
    pub(crate) fn lane_of(&self, target: &Target) -> &Outbox {
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

    /// Control lane and ordinary lanes, in the order of their numbers.
    pub(crate) fn outboxes(&self) -> impl Iterator<Item = &Outbox> {
        std::iter::once(&self.control).chain(&self.lanes)
    }

    /// Makes the driver look whether it should connect, unless it is connected.
    pub(crate) fn wake_if_apart(&self) {
        if !self.connected.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether this run of the node is over for good.
    pub(crate) fn is_gone(&self, run: u64) -> bool {
        self.lock().runs.is_over(run)
    }

    /// The node that is connected, or was last.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.lock().node.clone()
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

    /// Whether there is something for which a connection is needed.
    pub(crate) fn wants_connection(&self) -> bool {
        let relation = self.lock();
        relation.kept
            || !relation.watches.is_empty()
            || !relation.out.is_settled()
            || self.outboxes().any(|outbox| !outbox.is_empty())
    }

    /// What the handshake has to know about `them`.
    pub(crate) fn known(&self, them: &Introduction, name_proven: bool, calling: bool) -> Known {
        let relation = self.lock();
        let run = them.node.incarnation;
        let other_name = |node: &NodeId| node.name != them.node.name;
        Known {
            name_proven,
            quarantined: relation.runs.is_quarantined(run),
            over: relation.runs.is_over(run),
            address_held: relation.connected && relation.node.as_ref().is_some_and(other_name),
            calling,
        }
    }

    /// A connection with `node` was agreed on. What was not acknowledged is queued again.
    pub(crate) fn connected(&self, core: &Core, node: &NodeId) {
        let now = core.system.now();
        let mut news = News::default();
        let resend = {
            let mut relation = self.lock();
            let before = relation.runs.present();
            relation.met(now, node, &mut news);
            relation.connected = true;
            relation.apart_since = Time::MAX;
            self.connected.store(true, Ordering::Relaxed);
            if before != Some(node.incarnation) {
                relation.start_anew(core, now, &mut news);
            }
            relation.out.all(now)
        };
        for (seq, message) in resend {
            self.push_system(core, node.incarnation, seq, message);
        }
        news.tell(core, self.addr);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&self, core: &Core) {
        let ends = {
            let mut relation = self.lock();
            relation.connected = false;
            relation.apart_since = core.system.now();
            self.connected.store(false, Ordering::Relaxed);
            std::mem::take(&mut relation.ends)
        };
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
            relation.runs.ended(run);
            relation.lose(run, &mut news);
        }
        news.tell(core, self.addr);
    }

    /// Breaks with this run of the node.
    pub(crate) fn quarantine(&self, core: &Core, node: &NodeId, reason: &str) {
        let mut news = News::default();
        {
            let mut relation = self.lock();
            if !relation.runs.quarantine(node.incarnation) {
                return;
            }
            relation.lose(node.incarnation, &mut news);
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
        let mut news = News::default();
        let mut resend = Vec::new();
        let mut lost = None;
        let run = {
            let mut relation = self.lock();
            if relation.give_up_at(&core.config) <= now {
                lost = relation.node.clone();
                relation.lose_all(&mut news);
                relation.apart_since = now;
            } else if relation.connected && relation.out.resend_at() <= now {
                resend = relation.out.all(now);
            }
            relation.runs.present()
        };
        for (seq, message) in resend {
            self.push_system(core, run.unwrap_or_default(), seq, message);
        }
        news.tell(core, self.addr);
        if let Some(node) = lost {
            self.quarantine(core, &node, "it acknowledged nothing for too long");
        }
    }

    /// Registers a watcher of an actor of the peer.
    pub(crate) fn watch(
        &self,
        core: &Core,
        address: &Address,
        target: &Target,
        path: &ActorPath,
        uid: u64,
        watcher: Watcher,
    ) {
        let mut relation = self.lock();
        if address
            .incarnation()
            .is_some_and(|run| relation.runs.is_over(run))
        {
            drop(relation);
            return watcher.notify(Terminated::new(path.clone(), uid, Ended::NodeLost));
        }
        let same = |watch: &&mut Watch| watch.target == *target && watch.address == *address;
        if let Some(watch) = relation.watches.values_mut().find(same) {
            if watch
                .watchers
                .iter()
                .all(|known| known.id() != watcher.id())
            {
                watch.watchers.push(watcher);
            }
            return;
        }
        relation.next_watch += 1;
        let number = relation.next_watch;
        let watch = Watch {
            address: address.clone(),
            target: target.clone(),
            path: path.clone(),
            uid,
            watchers: vec![watcher],
        };
        let message = SystemMessage::Watch {
            watch: number,
            target: target.clone(),
        };
        relation.watches.insert(number, watch);
        drop(relation);
        self.send_system(core, message);
    }

    /// Takes a registration back.
    pub(crate) fn unwatch(&self, core: &Core, target: &Target, id: WatcherId) {
        let mut relation = self.lock();
        let mut unwatched = None;
        for (&number, watch) in &mut relation.watches {
            if watch.target == *target {
                watch.watchers.retain(|watcher| watcher.id() != id);
                if watch.watchers.is_empty() {
                    unwatched = Some(number);
                }
            }
        }
        if let Some(number) = unwatched {
            relation.watches.remove(&number);
            drop(relation);
            self.send_system(core, SystemMessage::Unwatch { watch: number });
        }
    }

    /// Sends a system message: once, in order, as long as both runs live.
    fn send_system(&self, core: &Core, message: SystemMessage) {
        let now = core.system.now();
        let (pushed, run, node) = {
            let mut relation = self.lock();
            let pushed = relation.out.push(now, message.clone());
            let run = relation.runs.present().filter(|_| relation.connected);
            (pushed, run, relation.node.clone())
        };
        match (pushed, run) {
            (Ok(seq), Some(run)) => self.push_system(core, run, seq, message),
            (Ok(_), None) => self.wake_if_apart(),
            (Err(Overflow), _) => {
                if let Some(node) = node {
                    self.quarantine(core, &node, "too many system messages wait for it");
                }
            }
        }
    }

    fn push_system(&self, core: &Core, run: u64, seq: u64, message: SystemMessage) {
        let frame = Frame::System { seq, message };
        core.push_frame(self, &self.control, Some(run), &frame);
    }

    /// Takes a system message from `run` of the peer; `false` if the peer breaks the protocol.
    pub(crate) fn take_system(
        self: &Arc<Self>,
        core: &Arc<Core>,
        run: u64,
        seq: u64,
        message: SystemMessage,
    ) -> bool {
        let (new, taken) = {
            let mut relation = self.lock();
            if relation.runs.present() != Some(run) {
                return true;
            }
            (relation.inbound.take(seq), relation.inbound.taken())
        };
        let handled = !new || self.handle_system(core, message);
        let ack = Frame::SystemAck { seq: taken };
        core.push_frame(self, &self.control, Some(run), &ack);
        handled
    }

    fn handle_system(self: &Arc<Self>, core: &Arc<Core>, message: SystemMessage) -> bool {
        match message {
            SystemMessage::Terminated { watch, reason } => {
                let watch = self.lock().watches.remove(&watch);
                if let Some(watch) = watch {
                    watch.tell(reason.into());
                }
                true
            }
            SystemMessage::Unwatch { watch } => {
                let watching = self.lock().watched.remove(&watch);
                drop(watching);
                true
            }
            SystemMessage::Watch { watch, target } => self.begin_watched(core, watch, &target),
        }
    }

    fn begin_watched(self: &Arc<Self>, core: &Arc<Core>, watch: u64, target: &Target) -> bool {
        let Some(exported) = core.exports.find(target) else {
            let reason = Ended::Unknown.into();
            self.send_system(core, SystemMessage::Terminated { watch, reason });
            return true;
        };
        {
            let mut relation = self.lock();
            if relation.watched.len() >= WATCHED_MAX {
                return false;
            }
            relation.watched.insert(watch, None);
        }
        let (peer, for_callback) = (Arc::downgrade(self), Arc::downgrade(core));
        // Unlocked: an actor that has ended calls back at once.
        let watching = exported.on_terminated(Box::new(move |news| {
            let (Some(peer), Some(core)) = (peer.upgrade(), for_callback.upgrade()) else {
                return;
            };
            let watching = peer.lock().watched.remove(&watch);
            if watching.is_some() {
                peer.send_end(&core, watch, news.reason);
            }
            // It is the callback that runs: its registration is gone already.
            if let Some(Some(watching)) = watching {
                watching.detach();
            }
        }));
        let mut relation = self.lock();
        match relation.watched.get_mut(&watch) {
            Some(place) => *place = Some(watching),
            None => {
                drop(relation);
                drop(watching);
            }
        }
        true
    }

    /// Tells the peer of an end, behind everything that was sent to it so far.
    fn send_end(&self, core: &Core, watch: u64, reason: Ended) {
        let reason = reason.into();
        let message = SystemMessage::Terminated { watch, reason };
        let flush = {
            let mut relation = self.lock();
            let run = relation.runs.present().filter(|_| relation.connected);
            run.map(|run| {
                relation.next_end += 1;
                let end = PendingEnd {
                    message: message.clone(),
                    lanes_left: self.lanes.len(),
                };
                let token = relation.next_end;
                relation.ends.insert(token, end);
                (token, run)
            })
        };
        let Some((token, run)) = flush else {
            return self.send_system(core, message);
        };
        for lane in &self.lanes {
            if !core.push_frame(self, lane, Some(run), &Frame::Flush { token }) {
                self.take_flushed(core, token);
            }
        }
    }

    /// The peer has read one lane up to this mark.
    pub(crate) fn take_flushed(&self, core: &Core, token: u64) {
        let end = {
            let mut relation = self.lock();
            let Some(end) = relation.ends.get_mut(&token) else {
                return;
            };
            end.lanes_left = end.lanes_left.saturating_sub(1);
            if end.lanes_left > 0 {
                return;
            }
            relation.ends.remove(&token)
        };
        if let Some(end) = end {
            self.send_system(core, end.message);
        }
    }

    /// The peer has taken the system messages up to `seq`.
    pub(crate) fn take_ack(&self, now: Time, run: u64, seq: u64) {
        let mut relation = self.lock();
        if relation.runs.present() == Some(run) {
            relation.out.acknowledged(now, seq);
        }
    }

    /// The layer is closed: whoever watches an actor over there learns that it is lost.
    pub(crate) fn close(&self, core: &Core) {
        let mut news = News::default();
        self.lock().lose_all(&mut news);
        news.tell(core, self.addr);
        for outbox in self.outboxes() {
            outbox.close();
            core.give_up(self, outbox.clear());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Relation> {
        self.relation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relation {
    /// `node` is there: the run before it is over, and so is every other that somebody watched.
    fn met(&mut self, now: Time, node: &NodeId, news: &mut News) {
        if let Some(before) = self.runs.met(node.incarnation) {
            self.lose(before, news);
        }
        let runs = self
            .watches
            .values()
            .filter_map(|watch| watch.address.incarnation());
        let others: Vec<u64> = runs.filter(|&run| run != node.incarnation).collect();
        for run in others {
            self.runs.ended(run);
            self.lose(run, news);
        }
        self.node = Some(node.clone());
        self.apart_since = now;
    }

    /// The other run knows nothing of what was said to the one before.
    fn start_anew(&mut self, core: &Core, now: Time, news: &mut News) {
        let config = &core.config;
        self.out = SystemOut::new(config.system_resend, config.system_messages_max);
        self.inbound = SystemIn::default();
        news.unwatched
            .extend(std::mem::take(&mut self.watched).into_values());
        self.ends.clear();
        for (&number, watch) in &self.watches {
            let message = SystemMessage::Watch {
                watch: number,
                target: watch.target.clone(),
            };
            // There are no more watches than fitted before.
            let _ = self.out.push(now, message);
        }
    }

    /// A run of the node is over: its actors are lost.
    fn lose(&mut self, run: u64, news: &mut News) {
        let of_run = |watch: &Watch| watch.address.incarnation().is_none_or(|of| of == run);
        let ended: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, watch)| of_run(watch))
            .map(|(&number, _)| number)
            .collect();
        for number in ended {
            if let Some(watch) = self.watches.remove(&number) {
                news.lost(watch);
            }
        }
        news.over.push(run);
    }

    fn lose_all(&mut self, news: &mut News) {
        for watch in std::mem::take(&mut self.watches).into_values() {
            news.lost(watch);
        }
        news.over.extend(self.runs.present());
        news.unwatched
            .extend(std::mem::take(&mut self.watched).into_values());
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

impl Watch {
    fn tell(self, reason: Ended) {
        for watcher in self.watchers {
            watcher.notify(Terminated::new(self.path.clone(), self.uid, reason));
        }
    }
}

impl News {
    fn lost(&mut self, watch: Watch) {
        for watcher in watch.watchers {
            let news = Terminated::new(watch.path.clone(), watch.uid, Ended::NodeLost);
            self.ended.push((watcher, news));
        }
    }

    fn tell(self, core: &Core, addr: SocketAddr) {
        for (watcher, news) in self.ended {
            watcher.notify(news);
        }
        for run in self.over {
            core.exports.close_ports_of(addr, run);
        }
        drop(self.unwatched);
    }
}
