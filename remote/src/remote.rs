//! Remote: the handle of one node's remote layer, and how it is started and ended.

use crate::config::RemoteConfig;
use crate::core::{Core, Phase};
use crate::exports::{Exports, Ids, Past};
use crate::identity::PeerIdentity;
use crate::io::{acceptor, driver, standby};
use crate::message::RemoteMessage;
use crate::network::Network;
use crate::node_id::NodeId;
use crate::remote_ref::{Address, RemoteRef};
use crate::rights::Rights;
use crate::stats::RemoteStats;
use crate::wire_format::{CLUSTER_BYTES_MAX, Frame, TARGET_NAME_BYTES_MAX, Target};
use bytes::Bytes;
use otava_actor::{ActorPath, ActorRef, ActorSystem, Rng, Time};
use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

/// Events that a subscriber may be behind before it misses some.
const EVENTS_MAX: usize = 1_024;
/// How often ports whose askers gave up are closed.
const PORT_SWEEP: Duration = Duration::from_secs(1);

/// One node's remote layer. A handle, cheap to clone; [`Remote::shutdown`] ends the layer.
///
/// Other nodes are called when there is something to send to them, and call this one. Each pair has
/// at most one connection, with a control lane and a few ordinary lanes.
#[derive(Clone)]
pub struct Remote {
    core: Arc<Core>,
    tasks: Arc<Tasks>,
}

struct Tasks {
    acceptor: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    drivers: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.sweeper.abort();
        let drivers = self
            .drivers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(drivers) = drivers {
            drivers.abort();
        }
    }
}

impl Remote {
    #[cfg(feature = "fuzzing")]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Sets up the layer of a node: its actor system, the name of its cluster, its own name, and the
    /// network on which it listens already.
    pub fn builder(
        system: &ActorSystem,
        cluster: &str,
        node: &str,
        network: Arc<dyn Network>,
    ) -> RemoteBuilder {
        RemoteBuilder {
            system: system.clone(),
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            network,
            config: RemoteConfig::default(),
            rights: Rights::default(),
            seed: None,
        }
    }

    /// Which run of which node this is.
    pub fn id(&self) -> &NodeId {
        &self.core.id
    }

    /// The name of the cluster that this node belongs to.
    pub fn cluster(&self) -> &str {
        &self.core.cluster
    }

    /// The actor system of this node.
    pub fn system(&self) -> &ActorSystem {
        &self.core.system
    }

    /// Makes `actor` reachable under `name` for every node that this one talks to, until it ends or
    /// the name is withdrawn. What is not published, and not sent to a node as a reference, cannot
    /// be reached by it.
    ///
    /// # Errors
    /// [`PublishError`]: the name is empty, longer than 255 bytes, or taken.
    pub fn publish<M: RemoteMessage>(
        &self,
        name: &str,
        actor: &ActorRef<M>,
    ) -> Result<(), PublishError> {
        self.publish_with(name, actor, None)
    }

    /// As [`Remote::publish`], with a way past the mailbox of `actor` for what comes from other nodes:
    /// each message, in the order of its lane, is given to `past` first, with the time from which on it
    /// is of no use; what that gives back goes to `actor`. It runs where frames are read: it must be
    /// short and must not block.
    ///
    /// # Errors
    /// As for [`Remote::publish`].
    #[doc(hidden)]
    pub fn publish_past<M: RemoteMessage>(
        &self,
        name: &str,
        actor: &ActorRef<M>,
        past: impl Fn(M, Option<Time>) -> Option<M> + Send + Sync + 'static,
    ) -> Result<(), PublishError> {
        self.publish_with(name, actor, Some(Box::new(past)))
    }

    fn publish_with<M: RemoteMessage>(
        &self,
        name: &str,
        actor: &ActorRef<M>,
        past: Option<Past<M>>,
    ) -> Result<(), PublishError> {
        if name.is_empty() || name.len() > TARGET_NAME_BYTES_MAX {
            return Err(PublishError::BadName(name.to_owned()));
        }
        if self.core.exports.publish(name, actor, past) {
            Ok(())
        } else {
            Err(PublishError::NameTaken(name.to_owned()))
        }
    }

    /// Takes a published name back. References that came in messages go on.
    pub fn withdraw(&self, name: &str) {
        self.core.exports.withdraw(name);
    }

    /// The actor that is published under `name` at exactly this run of a node. Nothing is sent for
    /// this: whether there is one shows when it is used.
    ///
    /// # Delivery
    /// At most once, in order. What nobody takes is a dead letter over there.
    pub fn resolve<M: RemoteMessage>(&self, node: &NodeId, name: &str) -> ActorRef<M> {
        self.reference(Address::Exactly(node.clone()), name)
    }

    /// The actor that is published under `name` at an address, whichever node runs there.
    ///
    /// # Delivery
    /// As for [`Remote::resolve`]; in order as long as the same node runs there.
    pub fn resolve_at<M: RemoteMessage>(&self, addr: SocketAddr, name: &str) -> ActorRef<M> {
        self.reference(Address::At(addr), name)
    }

    fn reference<M: RemoteMessage>(&self, address: Address, name: &str) -> ActorRef<M> {
        let target = Target::Name(name.into());
        if address.node() == Some(&self.core.id)
            && let Some(actor) = self.core.exports.find_as::<M>(&target)
        {
            return actor;
        }
        let path = ActorPath::new(format!("{address}/{name}"));
        let remote = RemoteRef::<M>::new(self.core.clone(), address, target, path, 0);
        ActorRef::from_remote(Arc::new(remote))
    }

    /// Sends a small message on the control lane, ahead of all user traffic: a heartbeat, gossip.
    /// Never waits; without a connection one is made.
    ///
    /// # Delivery
    /// At most once. Dropped, and counted, if it is larger than 256 KiB, if the lane is full, or if
    /// the node cannot be reached now.
    pub fn send_control(&self, to: SocketAddr, channel: Channel, payload: Bytes) {
        if payload.len() > RemoteConfig::CONTROL_BYTES_MAX {
            tracing::error!(%to, bytes = payload.len(), "a control message is too large");
            self.core.counters.refused.add(1);
            return;
        }
        if let Some(peer) = self.core.peer(to) {
            let frame = Frame::Control {
                channel: channel.0,
                payload,
            };
            self.core.push_frame(&peer, &peer.control, None, &frame);
        }
    }

    /// Takes the control messages of `channel`. The handler is called in the order of arrival from
    /// each node, which the handshake has identified, and must not block. It takes the place of
    /// the one before.
    pub fn on_control(
        &self,
        channel: Channel,
        handler: impl Fn(&NodeId, Bytes) + Send + Sync + 'static,
    ) {
        self.core.set_handler(channel, Arc::new(handler));
    }

    /// Keeps `what` under `name` for those who read messages on this node: [`crate::wire::provided`]
    /// finds it. So a reference of another layer, which says in a message only whom it means, leads
    /// somewhere where it is read. It takes the place of the one before, and is dropped when the layer
    /// ends.
    pub fn provide(&self, name: impl Into<String>, what: Arc<dyn Any + Send + Sync>) {
        self.core.provide(name.into(), what);
    }

    /// Spawns a task on which the node's life depends: it goes on while user code holds every thread
    /// of the runtime, as the control lane does. Over [`crate::QuicNetwork`], on a runtime with
    /// several threads; elsewhere it is an ordinary task.
    ///
    /// It must never block, and wait for times by [`Remote::sleep_until`] only: nobody runs the
    /// runtime's timers then.
    pub fn spawn_isolated(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.core.network.isolated(Box::pin(task));
        self.core.system.handle().spawn(task);
    }

    /// Waits until `time` on the system's clock, also where the runtime's timers do not run
    /// ([`Remote::spawn_isolated`]).
    ///
    /// # Cancel safety
    /// Nothing happens if it is dropped.
    pub async fn sleep_until(&self, time: Time) {
        standby::sleep_until(&self.core.system, time).await;
    }

    /// Breaks with this run of a node, for good: nothing passes in either direction, watchers of its
    /// actors are told [`otava_actor::Ended::NodeLost`], and asks to it end at once. A new run of
    /// the same node is welcome.
    pub fn quarantine(&self, node: &NodeId, reason: &str) {
        if let Some(peer) = self.core.peer(node.addr) {
            peer.quarantine(&self.core, node, reason);
        }
    }

    /// What happens to associations from now on. A subscriber that is more than 1,024 events behind
    /// misses the oldest.
    pub fn events(&self) -> RemoteEvents {
        RemoteEvents {
            receiver: self.core.events.subscribe(),
        }
    }

    /// Keeps a connection to whichever node runs at `addr`: one is made now, and again whenever it is
    /// lost, also while there is nothing to send. For those who choose whom to ask by who is there.
    pub fn keep_connected(&self, addr: SocketAddr) {
        if let Some(peer) = self.core.peer(addr) {
            peer.keep(true);
        }
    }

    /// Takes [`Remote::keep_connected`] back. A connection that is there stays.
    pub fn release_connection(&self, addr: SocketAddr) {
        if let Some(peer) = self.core.known_peer(addr) {
            peer.keep(false);
        }
    }

    /// Whether there is a connection to whichever node runs at `addr`. A node that has just died
    /// counts as connected until its silence is noticed.
    pub fn is_connected_at(&self, addr: SocketAddr) -> bool {
        let peer = self.core.known_peer(addr);
        peer.is_some_and(|peer| peer.is_connected())
    }

    /// Whether there is a connection to this run of a node.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.core
            .known_peer(node.addr)
            .is_some_and(|peer| peer.is_connected_to(node))
    }

    /// Who the node of this run is by its credentials: its roles, whether it is a client. `None` unless it
    /// is connected, or was the last one at its address.
    pub fn identity_of(&self, node: &NodeId) -> Option<PeerIdentity> {
        self.core.known_peer(node.addr)?.identity_of(node)
    }

    /// What was done so far.
    pub fn stats(&self) -> RemoteStats {
        let (ports, peers) = (self.core.exports.open_ports(), self.core.peers());
        self.core.counters.stats(ports, peers)
    }

    /// Sends what is queued, says goodbye, and closes the network. Peers tell watchers of this
    /// node's actors that they are lost.
    ///
    /// # Cancel safety
    /// Dropped, the layer closes nevertheless, but nobody waits for it.
    pub async fn shutdown(&self) {
        let drivers = {
            let mut drivers = self
                .tasks
                .drivers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            drivers.take()
        };
        match drivers {
            Some(drivers) => {
                let handle = self.core.system.handle();
                // An error means that the runtime ends too.
                let _ = handle.spawn(end(self.core.clone(), drivers)).await;
            }
            // Somebody else ends it already.
            None => self.core.reached(Phase::Closed).await,
        }
    }
}

/// Ends the layer.
async fn end(core: Arc<Core>, drivers: JoinHandle<()>) {
    core.advance(Phase::Flushing);
    // An error means that a driver panicked; there is nothing left to flush then.
    let _ = drivers.await;
    for peer in core.close_peers() {
        peer.close(&core);
    }
    core.network.close().await;
    core.forget_handlers();
    core.advance(Phase::Closed);
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(self.id()).finish()
    }
}

/// Settings of a remote layer that is about to start ([`Remote::builder`]).
#[must_use]
pub struct RemoteBuilder {
    system: ActorSystem,
    cluster: String,
    node: String,
    network: Arc<dyn Network>,
    config: RemoteConfig,
    rights: Rights,
    seed: Option<u64>,
}

impl RemoteBuilder {
    /// The settings.
    pub fn config(mut self, config: RemoteConfig) -> Self {
        self.config = config;
        self
    }

    /// Who may reach which protocol. Default: members all of them, clients none.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Draws incarnation and ids from a seed, so that a simulation replays. Whoever knows the seed
    /// can guess the ids: only for tests.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the layer on the tokio runtime of the actor system.
    ///
    /// # Errors
    /// [`StartError`]: a name that cannot be used.
    pub fn start(self) -> Result<Remote, StartError> {
        if !NodeId::is_valid_name(&self.node) {
            return Err(StartError::BadNodeName(self.node));
        }
        if self.cluster.is_empty() || self.cluster.len() > CLUSTER_BYTES_MAX {
            return Err(StartError::BadClusterName(self.cluster));
        }
        let mut ids = match self.seed {
            Some(seed) => Ids::Seeded(Rng::seeded(seed)),
            None => Ids::os(),
        };
        let incarnation = ids.draw() as u64;
        let id = NodeId::new(self.node, self.network.local_addr(), incarnation);
        let (new_drivers, new) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let config = self.config.clamped();
        let exports = Arc::new(Exports::new(ids, config.ports_max));
        let handle = self.system.handle().clone();
        let core = Arc::new(Core::new(
            id,
            self.cluster,
            self.system,
            config,
            self.rights,
            exports,
            self.network,
            events,
            new_drivers,
        ));
        let tasks = Tasks {
            acceptor: handle.spawn(core.clone().isolated(acceptor::run(core.clone()))),
            sweeper: handle.spawn(sweep(core.clone())),
            drivers: Mutex::new(Some(handle.spawn(driver::run_drivers(core.clone(), new)))),
        };
        Ok(Remote {
            core,
            tasks: Arc::new(tasks),
        })
    }
}

impl fmt::Debug for RemoteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBuilder")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Closes ports whose askers gave up, now and then, until the layer is closed.
async fn sweep(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.reached(Phase::Closed) => return,
            () = tokio::time::sleep(PORT_SWEEP) => {
                core.exports.close_expired_ports(core.system.now());
            }
        }
    }
}

/// What control messages are about: each layer takes its own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Channel(pub u8);

impl Channel {
    /// Membership gossip.
    pub const GOSSIP: Self = Self(1);
    /// Failure detection.
    pub const HEARTBEAT: Self = Self(2);
    /// Joining a cluster.
    pub const JOIN: Self = Self(3);
    /// The first channel for other uses.
    pub const FIRST_FREE: Self = Self(16);
}

/// What happened to an association.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RemoteEvent {
    /// There is a connection to this node.
    Connected(NodeId),
    /// The connection is gone; it may come back.
    Disconnected(NodeId),
    /// This node broke with that one.
    Quarantined(NodeId),
    /// That node broke with this one.
    QuarantinedBy(NodeId),
}

/// A subscription to events ([`Remote::events`]).
#[derive(Debug)]
pub struct RemoteEvents {
    receiver: broadcast::Receiver<RemoteEvent>,
}

impl RemoteEvents {
    /// The next event; `None` when the layer is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Option<RemoteEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "a subscriber to remote events is too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Why an actor was not published.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The name is empty or longer than 255 bytes.
    #[error("{0:?} cannot be published: a name has 1 to 255 bytes")]
    BadName(String),
    /// A living actor is published under this name.
    #[error("an actor is published as {0:?} already")]
    NameTaken(String),
}

/// Why the layer was not started.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The cluster's name is empty or too long.
    #[error("{0:?} cannot name a cluster: 1 to 128 bytes")]
    BadClusterName(String),
    /// The node's name cannot stand in a certificate.
    #[error("{0:?} cannot name a node: 1 to 128 letters, digits, '-', '_' and '.'")]
    BadNodeName(String),
}
