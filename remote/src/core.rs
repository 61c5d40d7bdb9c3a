//! Core: what all parts of one node's remote layer share, and the way of a frame into an outbox.

use crate::config::RemoteConfig;
use crate::exports::{Exports, tag_of};
use crate::io::standby::poll_what_it_wakes;
use crate::message::RemoteMessage;
use crate::node_id::NodeId;
use crate::outbox::{About, Alike, Batch, NotQueued, Outbox};
use crate::peer::{Incoming, Peer};
use crate::remote::{Channel, RemoteEvent};
use crate::remote_ref::Address;
use crate::rights::Rights;
use crate::stats::Counters;
use crate::wire::in_scope;
use crate::wire_format::{
    EncodeError, ExportId, Frame, Target, encode_answer, encode_into, encode_message,
};
use bytes::Bytes;
use otava_actor::{ActorPath, ActorSystem, DeadLetterReason, Refusal, Unsendable};
use serde::Serialize;
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use tokio::sync::{Notify, broadcast, mpsc};

/// Peers that a node remembers. Beyond it new addresses are refused.
const PEERS_MAX: usize = 10_000;
/// Kinds of messages that are not understood and stand in the log, each once.
const NOT_UNDERSTOOD_MAX: usize = 256;
/// Connections that wait to be admitted by one peer's driver.
const INCOMING_MAX: usize = 4;

/// So many questions at once are few: sending each for itself costs less than the wait for company.
pub(crate) const FEW: usize = 8;

/// Something that another layer finds again while a message is read.
pub(crate) type Provided = Arc<dyn Any + Send + Sync>;

/// Takes control messages of one channel.
pub(crate) type ControlHandler = Arc<dyn Fn(&NodeId, Bytes) + Send + Sync>;

pub(crate) struct Core {
    pub(crate) id: NodeId,
    pub(crate) cluster: String,
    pub(crate) system: ActorSystem,
    pub(crate) config: RemoteConfig,
    pub(crate) rights: Arc<Rights>,
    pub(crate) exports: Arc<Exports>,
    pub(crate) counters: Counters,
    pub(crate) events: broadcast::Sender<RemoteEvent>,
    pub(crate) network: Arc<dyn crate::network::Network>,
    /// Questions of other nodes that wait for their answer from here.
    pub(crate) unanswered: AtomicUsize,
    /// How far the end of the layer is.
    phase: Mutex<Phase>,
    /// The end has come nearer. It wakes those who wait in the order in which they came, which a
    /// watch channel does not: a simulation must replay the end too.
    phase_changed: Notify,
    handlers: RwLock<BTreeMap<Channel, ControlHandler>>,
    /// What other layers need while messages are read ([`crate::Remote::provide`]).
    provided: RwLock<BTreeMap<String, Provided>>,
    /// What was not understood and is in the log: the type that was expected, and what came.
    not_understood: Mutex<BTreeSet<(&'static str, String)>>,
    peers: RwLock<Peers>,
    /// Where drivers of new peers are started; closed at the end.
    new_drivers: mpsc::UnboundedSender<NewPeer>,
}

/// A peer that was just met and has no driver yet.
pub(crate) struct NewPeer {
    pub(crate) peer: Arc<Peer>,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
}

/// The life of the layer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    Running,
    /// What is queued is still sent.
    Flushing,
    Closed,
}

#[derive(Default)]
struct Peers {
    by_addr: BTreeMap<SocketAddr, Arc<Peer>>,
    closed: bool,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotSent {
    Full,
    Gone,
    Unsendable(Unsendable),
}

thread_local! {
    /// Where frames are encoded before they are queued, so that no lock is held while user code
    /// encodes. Taken out while in use: encoding may nest.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is not kept.
const SCRATCH_KEPT_MAX: usize = 64 << 10;

fn with_scratch<T>(run: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = run(&mut scratch);
    if scratch.capacity() <= SCRATCH_KEPT_MAX {
        SCRATCH.set(scratch);
    }
    result
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "called once, by the builder")]
    pub(crate) fn new(
        id: NodeId,
        cluster: String,
        system: ActorSystem,
        config: RemoteConfig,
        rights: Rights,
        exports: Arc<Exports>,
        network: Arc<dyn crate::network::Network>,
        events: broadcast::Sender<RemoteEvent>,
        new_drivers: mpsc::UnboundedSender<NewPeer>,
    ) -> Self {
        Self {
            id,
            cluster,
            system,
            config,
            rights: Arc::new(rights),
            exports,
            counters: Counters::default(),
            events,
            network,
            unanswered: AtomicUsize::new(0),
            phase: Mutex::new(Phase::Running),
            phase_changed: Notify::new(),
            handlers: RwLock::default(),
            provided: RwLock::default(),
            not_understood: Mutex::default(),
            peers: RwLock::default(),
            new_drivers,
        }
    }

    /// The peer at `addr`, made and driven if it is new; `None` if there can be none.
    pub(crate) fn peer(&self, addr: SocketAddr) -> Option<Arc<Peer>> {
        if let Some(peer) = self.known_peer(addr) {
            return Some(peer);
        }
        let mut peers = self.lock_peers();
        if let Some(peer) = peers.by_addr.get(&addr) {
            return Some(peer.clone());
        }
        if peers.closed || peers.by_addr.len() >= PEERS_MAX || addr == self.id.addr {
            return None;
        }
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        let peer = Arc::new(Peer::new(addr, &self.config, sender));
        let new = NewPeer {
            peer: peer.clone(),
            incoming,
        };
        // An error means that the layer has just been closed.
        self.new_drivers.send(new).ok()?;
        peers.by_addr.insert(addr, peer.clone());
        Some(peer)
    }

    /// The peer at `addr`, if anything was ever exchanged with it.
    pub(crate) fn known_peer(&self, addr: SocketAddr) -> Option<Arc<Peer>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.by_addr.get(&addr).cloned()
    }

    /// Forgets a peer, if nothing is lost with it. Only its driver calls this.
    pub(crate) fn forget(&self, peer: &Arc<Peer>) -> bool {
        let mut peers = self.lock_peers();
        // One is in the table and one is the driver's. Any other is of somebody who may send; new
        // ones come from the table only, which is locked.
        let wanted = Arc::strong_count(peer) > 2
            || !peer.is_forgettable()
            || self.exports.waits_for(peer.addr);
        if !wanted {
            peers.by_addr.remove(&peer.addr);
        }
        !wanted
    }

    /// How many peers are remembered.
    pub(crate) fn peers(&self) -> usize {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.by_addr.len()
    }

    /// All peers, from now on the only ones.
    pub(crate) fn close_peers(&self) -> Vec<Arc<Peer>> {
        let mut peers = self.lock_peers();
        peers.closed = true;
        peers.by_addr.values().cloned().collect()
    }

    pub(crate) fn set_handler(&self, channel: Channel, handler: ControlHandler) {
        let mut handlers = self
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        handlers.insert(channel, handler);
    }

    pub(crate) fn handler(&self, channel: Channel) -> Option<ControlHandler> {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        handlers.get(&channel).cloned()
    }

    pub(crate) fn provide(&self, name: String, what: Provided) {
        let mut provided = self
            .provided
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = provided.insert(name, what);
        drop(provided);
        // It may be the last that holds something of the user.
        drop(before);
    }

    pub(crate) fn provided(&self, name: &str) -> Option<Provided> {
        let provided = self.provided.read();
        let provided = provided.unwrap_or_else(PoisonError::into_inner);
        provided.get(name).cloned()
    }

    /// Drops all handlers and what was provided: they may hold on to this layer.
    pub(crate) fn forget_handlers(&self) {
        let mut handlers = self
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        handlers.clear();
        drop(handlers);
        let mut provided = self
            .provided
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let provided = std::mem::take(&mut *provided);
        drop(provided);
    }

    /// Queues a user's message.
    pub(crate) fn send_message<M: RemoteMessage>(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        address: &Address,
        target: &Target,
        message: &M,
    ) -> Result<(), NotSent> {
        if address.incarnation().is_some_and(|run| peer.is_gone(run)) {
            return Err(NotSent::Gone);
        }
        let limit = if M::LARGE {
            self.config.large_bytes_max
        } else {
            self.config.frame_bytes_max
        };
        with_scratch(|frame| {
            let tag = const { tag_of::<M>() };
            let (encoded, ports) = encode_message(frame, target, tag, limit, |out| {
                in_scope(self, address.clone(), || encode_into(message, out, limit))
            });
            if let Err(error) = encoded {
                self.close_ports(peer.addr, &ports);
                return Err(not_sent::<M>(error));
            }
            let about = About {
                incarnation: address.incarnation(),
                message_type: Some(std::any::type_name::<M>()),
            };
            let lane = peer.lane_for::<M>(target);
            let awaited = !ports.is_empty() && self.exports.few_ports();
            self.at_once_if(awaited, lane, || {
                self.push(peer, lane, frame, about, &ports)
            })
        })
    }

    /// Queues an answer; `false` if it cannot be sent, so that its port should be given up.
    pub(crate) fn send_answer<R: Serialize>(
        self: &Arc<Self>,
        asker: &Address,
        port: ExportId,
        answer: &R,
    ) -> bool {
        let Some(peer) = self.peer(asker.addr()) else {
            return false;
        };
        let limit = self.config.large_bytes_max;
        with_scratch(|frame| {
            let (encoded, ports) = in_scope(self, asker.clone(), || {
                encode_answer(frame, port, limit, |out| encode_into(answer, out, limit))
            });
            if let Err(error) = encoded {
                self.close_ports(peer.addr, &ports);
                let _ = not_sent::<R>(error);
                return false;
            }
            let about = About {
                incarnation: asker.incarnation(),
                message_type: Some(std::any::type_name::<R>()),
            };
            // Without its length, as the limit counts.
            let lane = if frame.len() - 4 > self.config.frame_bytes_max {
                peer.large()
            } else {
                peer.lane_of_port(port)
            };
            let awaited = self.unanswered.load(Ordering::Relaxed) <= FEW;
            let sent = self.at_once_if(awaited, lane, || {
                self.push(&peer, lane, frame, about, &ports)
            });
            if sent.is_err() {
                let path = ActorPath::new(format!("{asker}/(reply port)"));
                let kind = std::any::type_name::<R>();
                let letters = self.system.dead_letters();
                letters.report(&path, DeadLetterReason::Unreachable, kind);
            }
            sent.is_ok()
        })
    }

    /// Tells an asker on another node that nobody will answer.
    pub(crate) fn send_port_dropped(&self, asker: &Address, port: ExportId) {
        self.send_of_port(asker, port, &Frame::PortDropped { port });
    }

    /// Tells an asker on another node why its question is not answered.
    pub(crate) fn send_no_answer(&self, asker: &Address, port: ExportId, why: Refusal) {
        let why = why.into();
        self.send_of_port(asker, port, &Frame::NoAnswer { port, why });
    }

    fn send_of_port(&self, asker: &Address, port: ExportId, frame: &Frame) {
        if let Some(peer) = self.peer(asker.addr()) {
            let lane = peer.lane_of_port(port);
            self.push_frame(&peer, lane, asker.incarnation(), frame);
        }
    }

    /// Notes what was not understood; `true` the first time.
    pub(crate) fn is_news(&self, message_type: &'static str, what: &str) -> bool {
        let mut noted = self
            .not_understood
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        noted.len() < NOT_UNDERSTOOD_MAX && noted.insert((message_type, what.to_owned()))
    }

    /// Queues a frame that carries no user's message. Without room it is dropped, and counted:
    /// `false`.
    pub(crate) fn push_frame(
        &self,
        peer: &Peer,
        outbox: &Outbox,
        incarnation: Option<u64>,
        frame: &Frame,
    ) -> bool {
        with_scratch(|bytes| {
            frame.encode_into(bytes);
            let about = About {
                incarnation,
                message_type: None,
            };
            self.push(peer, outbox, bytes, about, &[]).is_ok()
        })
    }

    fn push(
        &self,
        peer: &Peer,
        outbox: &Outbox,
        frame: &mut Vec<u8>,
        about: About,
        ports: &[ExportId],
    ) -> Result<(), NotSent> {
        match outbox.push(frame, about, ports) {
            Ok(()) => {
                peer.use_it();
                peer.wake_if_apart();
                Ok(())
            }
            Err(why) => {
                self.close_ports(peer.addr, ports);
                self.counters.refused.add(1);
                Err(match why {
                    NotQueued::Closed => NotSent::Gone,
                    NotQueued::Full => NotSent::Full,
                })
            }
        }
    }

    /// Pushes to `lane`. What is awaited, by one of few, goes to the network on this thread if the lane
    /// rests: no company is to be expected for it, and every other thread is further off.
    fn at_once_if<T>(&self, awaited: bool, lane: &Outbox, push: impl FnOnce() -> T) -> T {
        if awaited && lane.rests(self.system.now()) {
            poll_what_it_wakes(push)
        } else {
            push()
        }
    }

    pub(crate) fn close_ports(&self, addr: SocketAddr, ports: &[ExportId]) {
        for &port in ports {
            self.exports.close_port(addr, port);
        }
    }

    /// Frames that were queued and will not be sent: each message is a dead letter, and whoever
    /// asked in it learns that no answer will come.
    pub(crate) fn give_up(&self, peer: &Peer, batches: impl IntoIterator<Item = Batch>) {
        for batch in batches {
            self.close_ports(peer.addr, &batch.ports);
            for alike in batch.alike {
                self.give_up_frames(peer, alike);
            }
        }
    }

    /// As [`Core::give_up`], for frames whose ports are closed already.
    pub(crate) fn give_up_frames(&self, peer: &Peer, alike: Alike) {
        self.counters.dropped.add(alike.frames as u64);
        if let Some(message_type) = alike.about.message_type {
            let path = ActorPath::new(format!("{}/(queue)", peer.addr));
            let letters = self.system.dead_letters();
            for _ in 0..alike.frames {
                letters.report(&path, DeadLetterReason::Unreachable, message_type);
            }
        }
    }

    /// The same work as a task that goes on while user code holds the runtime's threads, if the
    /// network has such a thing. For what never blocks and runs no code of users.
    pub(crate) async fn isolated<T: Send + 'static>(
        self: Arc<Self>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let result = Arc::new(Mutex::new(None));
        let for_task = result.clone();
        let task = async move {
            let done = work.await;
            *for_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        };
        self.network.isolated(Box::pin(task)).await;
        let done = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match done {
            Some(done) => done,
            // It ended without a result only if it panicked, which ended this task too.
            None => std::future::pending().await,
        }
    }

    /// Brings the end nearer.
    pub(crate) fn advance(&self, phase: Phase) {
        {
            let mut now = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            *now = phase.max(*now);
        }
        self.phase_changed.notify_waiters();
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the layer is at least in this phase.
    pub(crate) async fn reached(&self, phase: Phase) {
        loop {
            let changed = self.phase_changed.notified();
            if self.phase() >= phase {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the end of the layer begins.
    pub(crate) async fn ending(&self) {
        self.reached(Phase::Flushing).await;
    }

    /// Whether the end of the layer has begun.
    pub(crate) fn is_ending(&self) -> bool {
        self.phase() > Phase::Running
    }

    pub(crate) fn emit(&self, event: RemoteEvent) {
        // An error means that nobody listens.
        let _ = self.events.send(event);
    }

    fn lock_peers(&self) -> RwLockWriteGuard<'_, Peers> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_sent<M>(error: EncodeError) -> NotSent {
    let message_type = std::any::type_name::<M>();
    tracing::warn!(message_type, %error, "a message has no wire form");
    NotSent::Unsendable(match error {
        EncodeError::TooLarge { limit } => Unsendable::TooLarge { bytes_max: limit },
        _ => Unsendable::NotEncodable,
    })
}
