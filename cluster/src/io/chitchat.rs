//! Chitchat: carries statements with the chitchat library, over the control lane of the remote layer.
//!
//! chitchat exchanges the key-value states of nodes; [`crate::facts`] says which keys. Its messages
//! never touch a socket of their own: they go as control messages over the mutually authenticated
//! connections, so whoever is no member of the mesh cannot speak. Its opinion of who is alive is not
//! asked; that is the business of `logic/`.
//!
//! It has one interval for good. So that its messages, which name every node, do not grow with the square of
//! the nodes, some of its rounds are not sent (`logic/rounds.rs`): to it they are lost on the way.
//!
//! Its one task must never wait for us: sending is a push into a bounded lane, receiving takes from a
//! bounded inbox and decodes without a wait. If the task ends, by an error or a panic, no news would
//! come any more and nobody would notice; so its end is watched and ends this dissemination.
//!
//! Its task is spawned by the library, so it cannot be one of those that the remote layer keeps going while
//! user code holds every thread ([`Remote::spawn_isolated`]). It gets a thread with a runtime of its own
//! instead: a node that heard nothing for ten seconds would not learn that another one was put down, and
//! stop because nobody decides. On a runtime with one thread it stays there, since a simulation depends
//! on nothing but its seed.

use crate::facts;
use crate::io::dissemination::{Broken, Dissemination};
use crate::lock::lock;
use crate::logic::rounds::Rounds;
use crate::logic::statement::Statement;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable,
    FailureDetectorConfig, ListenerHandle, Serializable, spawn_chitchat,
};
use futures_util::future::BoxFuture;
use otava_remote::{Channel, NodeId, Remote};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, RuntimeFlavor};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Messages that wait to be worked on; more are dropped, as a network would.
const INBOX_MAX: usize = 1_024;
/// Lots of statements that wait for the driver.
const READ_MAX: usize = 1_024;
/// The largest message that chitchat sends.
const MESSAGE_BYTES_MAX: usize = 65_507;
/// The version of this use of chitchat, the first byte of each message.
const VERSION: u8 = 1;
/// How long the states of silent nodes and deleted keys are kept. What matters of them is kept by
/// `logic/`, and every message names every node that is kept.
const GRACE: Duration = Duration::from_secs(60);
/// How many peers are told at once of a new statement.
const TOLD_AT_ONCE: usize = 2;

pub(crate) struct Chitchat {
    own: watch::Sender<Own>,
    read: mpsc::Receiver<Result<Vec<Arc<Statement>>, Broken>>,
    /// When it is dropped the worker ends.
    _alive: oneshot::Sender<()>,
}

/// What this node says, and to whom.
#[derive(Clone, Default)]
struct Own {
    statement: Option<Arc<Statement>>,
    peers: Vec<SocketAddr>,
}

impl Chitchat {
    /// Begins to speak with the first statement, since only then it is known of which cluster.
    pub(crate) fn start(remote: &Remote, started: u64, interval: Duration) -> Self {
        let (own, own_reader) = watch::channel(Own::default());
        let (sender, read) = mpsc::channel(READ_MAX);
        let worker = Worker {
            remote: remote.clone(),
            started,
            interval,
            rounds: Arc::new(Mutex::new(Rounds::new(interval))),
            own: own_reader,
            read: sender,
            written: BTreeMap::new(),
            versions: BTreeMap::new(),
            told: 0,
        };
        let (alive, ended) = oneshot::channel::<()>();
        let work = async move {
            tokio::select! {
                biased;
                _ = ended => {}
                () = worker.run() => {}
            }
        };
        spawn(remote, work);
        Self {
            own,
            read,
            _alive: alive,
        }
    }
}

/// Runs `work`, with what it spawns, on a thread of its own where there are several.
fn spawn(remote: &Remote, work: impl Future<Output = ()> + Send + 'static) {
    let handle = remote.system().handle();
    if handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
        handle.spawn(work);
        return;
    }
    let runtime = Builder::new_current_thread().enable_time().build();
    let started = runtime.and_then(|runtime| {
        let run = move || runtime.block_on(work);
        let thread = std::thread::Builder::new().name("otava-gossip".to_owned());
        thread.spawn(run)
    });
    // What `work` holds is dropped with it, so its owner sees the end.
    if let Err(error) = started {
        tracing::error!(%error, "no thread for gossip");
    }
}

impl Dissemination for Chitchat {
    fn publish(&mut self, statement: Arc<Statement>) {
        self.own.send_modify(|own| own.statement = Some(statement));
    }

    fn set_peers(&mut self, peers: &[SocketAddr]) {
        self.own.send_if_modified(|own| {
            let differs = own.peers != peers;
            if differs {
                own.peers = peers.to_vec();
            }
            differs
        });
    }

    fn forget(&mut self, _: &dyn Fn(&NodeId) -> bool) {}

    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<Statement>>, Broken>> {
        Box::pin(async {
            let ended = || Err(Broken("its task has ended".into()));
            self.read.recv().await.unwrap_or_else(ended)
        })
    }
}

/// Moves statements between the driver and chitchat.
struct Worker {
    remote: Remote,
    started: u64,
    interval: Duration,
    rounds: Arc<Mutex<Rounds>>,
    own: watch::Receiver<Own>,
    read: mpsc::Sender<Result<Vec<Arc<Statement>>, Broken>>,
    /// The keys and values that chitchat has of this node.
    written: BTreeMap<String, String>,
    /// The versions that were read last.
    versions: BTreeMap<ChitchatId, u64>,
    told: usize,
}

impl Worker {
    async fn run(mut self) {
        let first = self.own.wait_for(|own| own.statement.is_some()).await;
        let Ok(own) = first.map(|own| own.clone()) else {
            return;
        };
        let Some(cluster) = own.statement.as_ref().map(|statement| statement.cluster) else {
            return;
        };
        let broken = match self.spawn(cluster, &own.peers).await {
            Ok(handle) => self.work(handle, own).await,
            Err(error) => error.to_string(),
        };
        let _ = self.read.send(Err(Broken(broken))).await;
    }

    async fn spawn(&self, cluster: u64, peers: &[SocketAddr]) -> anyhow::Result<ChitchatHandle> {
        let me = self.remote.id();
        let node = format!("{:016x}", me.incarnation);
        let lane = ControlLane {
            remote: self.remote.clone(),
            rounds: self.rounds.clone(),
            own: self.own.clone(),
        };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(node, self.started, me.addr),
            cluster_id: format!("{cluster:016x}"),
            gossip_interval: self.interval,
            listen_addr: me.addr,
            seed_nodes: peers.iter().map(SocketAddr::to_string).collect(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: self.interval * 5,
                dead_node_grace_period: GRACE,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        spawn_chitchat(config, Vec::new(), &lane).await
    }

    /// Works until something breaks, and says what.
    async fn work(&mut self, handle: ChitchatHandle, own: Own) -> String {
        let (changed, _listener) = self.listen(&handle).await;
        let ended = handle.termination_watcher();
        tokio::pin!(ended);
        if let Err(broken) = self.write(&handle, &own).await {
            return broken;
        }
        loop {
            tokio::select! {
                biased;
                result = &mut ended => {
                    return result.map_or_else(|e| e.to_string(), |()| "it was ended".into());
                }
                news = self.own.changed() => {
                    let own = self.own.borrow_and_update().clone();
                    if news.is_err() {
                        return "its owner is gone".into();
                    }
                    if let Err(broken) = self.write(&handle, &own).await {
                        return broken;
                    }
                }
                () = changed.notified() => {}
                () = tokio::time::sleep(self.interval) => {}
            }
            if self.read(&handle).await.is_err() {
                return "its owner is gone".into();
            }
        }
    }

    async fn listen(&self, handle: &ChitchatHandle) -> (Arc<Notify>, ListenerHandle) {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let listener = handle
            .with_chitchat(move |chitchat| {
                let notify = notify.clone();
                chitchat.subscribe_event(facts::HEADER, move |_| notify.notify_one())
            })
            .await;
        (changed, listener)
    }

    /// Brings chitchat's keys of this node up to date, the header last.
    async fn write(&mut self, handle: &ChitchatHandle, own: &Own) -> Result<(), String> {
        let Some(statement) = &own.statement else {
            return Ok(());
        };
        let facts = facts::write(statement).map_err(|error| error.to_string())?;
        if facts == self.written {
            return Ok(());
        }
        handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                for key in self.written.keys().filter(|key| !facts.contains_key(*key)) {
                    state.delete(key);
                }
                let changed = facts
                    .iter()
                    .filter(|(key, value)| self.written.get(*key) != Some(*value));
                let (header, others): (Vec<_>, Vec<_>) =
                    changed.partition(|(key, _)| *key == facts::HEADER);
                for (key, value) in others.into_iter().chain(header) {
                    state.set(key, value);
                }
            })
            .await;
        self.written = facts;
        let told = TOLD_AT_ONCE.min(own.peers.len());
        lock(&self.rounds).expect_urgent(told);
        for _ in 0..told {
            self.told = (self.told + 1) % own.peers.len();
            // An error means that it has ended, which the caller sees.
            let _ = handle.gossip(own.peers[self.told]);
        }
        Ok(())
    }

    /// Hands on the statements whose headers are new.
    async fn read(&mut self, handle: &ChitchatHandle) -> Result<(), ()> {
        let versions = &mut self.versions;
        let news = handle
            .with_chitchat(|chitchat| {
                let me = chitchat.self_chitchat_id().clone();
                let states = chitchat.node_states();
                versions.retain(|id, _| states.contains_key(id));
                let mut news = Vec::new();
                for (id, state) in states.iter().filter(|(id, _)| **id != me) {
                    let version = state.get(facts::HEADER).and_then(facts::version);
                    if version.is_none() || version == versions.get(id).copied() {
                        continue;
                    }
                    versions.extend(version.map(|version| (id.clone(), version)));
                    let incarnation = u64::from_str_radix(&id.node_id, 16);
                    let addr = id.gossip_advertise_addr;
                    let statement = incarnation
                        .ok()
                        .and_then(|it| facts::read(addr, it, state.key_values()));
                    match statement {
                        Some(statement) => news.push(Arc::new(statement)),
                        None => tracing::warn!(?id, "a statement is not understood"),
                    }
                }
                news
            })
            .await;
        if news.is_empty() {
            return Ok(());
        }
        self.read.send(Ok(news)).await.map_err(|_| ())
    }
}

/// chitchat's transport: the control lane.
struct ControlLane {
    remote: Remote,
    rounds: Arc<Mutex<Rounds>>,
    own: watch::Receiver<Own>,
}

#[async_trait]
impl Transport for ControlLane {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let dropped = Mutex::new(0u64);
        self.remote.on_control(Channel::GOSSIP, move |from, bytes| {
            let fits = bytes.len() <= MESSAGE_BYTES_MAX + 1;
            if !fits || sender.try_send((from.addr, bytes.to_vec())).is_err() {
                let mut dropped = lock(&dropped);
                *dropped += 1;
                tracing::debug!(%from, dropped = *dropped, "a gossip message is dropped");
            }
        });
        Ok(Box::new(ControlSocket {
            remote: self.remote.clone(),
            rounds: self.rounds.clone(),
            own: self.own.clone(),
            inbox,
        }))
    }
}

/// A message of chitchat; `None` if it is of another version.
pub(crate) fn decode_chitchat(bytes: &[u8]) -> Option<anyhow::Result<ChitchatMessage>> {
    let (&VERSION, mut rest) = bytes.split_first()? else {
        return None;
    };
    Some(ChitchatMessage::deserialize(&mut rest))
}

struct ControlSocket {
    remote: Remote,
    rounds: Arc<Mutex<Rounds>>,
    own: watch::Receiver<Own>,
    inbox: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
}

#[async_trait]
impl Socket for ControlSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if matches!(message, ChitchatMessage::Syn { .. }) {
            let nodes = self.own.borrow().peers.len() + 1;
            let now = self.remote.system().now();
            if !lock(&self.rounds).lets_out(now, nodes) {
                return Ok(());
            }
        }
        let mut bytes = Vec::with_capacity(message.serialized_len() + 1);
        bytes.push(VERSION);
        message.serialize(&mut bytes);
        self.remote.send_control(to, Channel::GOSSIP, bytes.into());
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.inbox.recv().await else {
                return Err(anyhow::Error::msg("the remote layer has ended"));
            };
            // Nothing is awaited from here on, so a dropped future has lost nothing.
            match decode_chitchat(&bytes) {
                Some(Ok(message)) => return Ok((from, message)),
                Some(Err(error)) => tracing::warn!(%from, %error, "a gossip message is ignored"),
                None => tracing::warn!(%from, "a gossip message of another version is ignored"),
            }
        }
    }
}
