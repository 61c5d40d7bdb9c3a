//! Driver: one task a peer, which owns the connection: calls, admits, serves, calls again.
//!
//! ```text
//!            something to send                hello, welcome
//!   apart ---------------------> calling ---------------------> connected
//!     ^  \                          | failed: what waits is given up, pause     |
//!     |   \-- the peer calls: judge, welcome --------------------------->       |
//!     '---------------------------------------------- connection ends ----------'
//! ```
//!
//! A peer that calls although it is connected has lost the old connection: the new one takes its
//! place. What the old one carried and the peer had not read is lost, in one piece a lane.

use crate::config::RemoteConfig;
use crate::core::{Core, NewPeer};
use crate::identity::PeerKind;
use crate::io::acceptor::{reason_of, refuse};
use crate::io::credits::{CreditedWriter, Credits};
use crate::io::inbound::{Inbound, LaneEnd, Lanes, OpenedLanes};
use crate::io::lanes::{
    CONTROL_LANE, CONTROL_VERSION, FrameReader, Incoming, LARGE_LANE, LaneFault, Link,
    common_version, hello, introduction_of, introduction_of_us, open, write_lane,
};
use crate::io::standby::sleep_until;
use crate::logic::handshake::{Verdict, judge, judge_caller};
use crate::network::{ConnectError, Connection, LaneError, LaneReader};
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::remote::RemoteEvent;
use crate::rights::Permit;
use crate::wire_format::{CREDITS_SINCE, Frame, Hello, PACKED_SINCE, RefuseReason};
use futures_util::future::BoxFuture;
use otava_actor::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// Starts a driver for each new peer; ends when the layer is closed and all drivers have ended.
pub(crate) async fn run_drivers(core: Arc<Core>, mut new: mpsc::UnboundedReceiver<NewPeer>) {
    let mut drivers = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(NewPeer { peer, incoming }) = new.recv() => {
                let driver = Driver::new(core.clone(), peer, incoming);
                drivers.spawn(core.clone().isolated(driver.run()));
            }
            Some(_) = drivers.join_next() => {}
            () = core.ending() => break,
        }
    }
    new.close();
    while drivers.join_next().await.is_some() {}
}

/// Callers of one peer that are being welcomed or refused at once. One more is sent away without a
/// word; it calls again.
const ADMISSIONS_MAX: usize = 8;
/// How long what has arrived on a connection is read on when the connection has ended.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// How long the two sides of a connection that nobody uses may take to part.
const PART_WITHIN: Duration = Duration::from_secs(2);

struct Driver {
    core: Arc<Core>,
    peer: Arc<Peer>,
    incoming: mpsc::Receiver<Incoming>,
    /// Callers that are being welcomed, and such that are being refused, each in its own time.
    welcomes: JoinSet<Option<Link>>,
    refusals: JoinSet<()>,
    /// The pause before the next call.
    pause: Duration,
    /// No call before this time.
    call_from: Time,
}

/// How a connection ended.
enum ServeEnd {
    /// From without, or in order: what has arrived is still read.
    Ended(String),
    /// By this node, for a reason: nothing more is read.
    Broken(String),
    /// Nobody uses it: both sides say so and close it when they have everything. What is sent
    /// meanwhile waits for the next connection.
    Idle,
    Replaced(Link),
}

/// Why a call led to nothing.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Lane(#[from] LaneFault),
    #[error("the other end refused: {reason:?}, {detail}")]
    Refused {
        reason: RefuseReason,
        detail: String,
        /// Whether it is the member that is known at this address, by its credentials.
        by_member: bool,
    },
    #[error("{node} was refused: {verdict:?}")]
    Refusing { node: NodeId, verdict: Verdict },
    #[error("no welcome within {0:?}")]
    Timeout(Duration),
}

impl Driver {
    fn new(core: Arc<Core>, peer: Arc<Peer>, incoming: mpsc::Receiver<Incoming>) -> Self {
        let pause = core.config.redial_min;
        Self {
            core,
            peer,
            incoming,
            welcomes: JoinSet::new(),
            refusals: JoinSet::new(),
            pause,
            call_from: Time::ZERO,
        }
    }

    async fn run(mut self) {
        let mut next = None;
        loop {
            let link = match next.take() {
                Some(link) => link,
                None => match self.connect().await {
                    Some(link) => link,
                    None => break,
                },
            };
            next = self.serve(link).await;
            if self.core.is_ending() {
                break;
            }
        }
        self.peer.close(&self.core);
    }

    /// Waits for a connection, made by either side; `None` at the end of the layer.
    async fn connect(&mut self) -> Option<Link> {
        let mut call: Option<BoxFuture<'static, Result<Link, CallError>>> = None;
        let mut forget_at = self.core.system.now() + self.core.config.forget_after;
        loop {
            let may_call = call.is_none()
                && self.welcomes.is_empty()
                && self.core.system.now() >= self.call_from;
            if may_call && self.peer.wants_connection() {
                call = Some(Box::pin(make_call(self.core.clone(), self.peer.clone())));
            }
            let calling = call.is_some();
            let woken_at = if calling || may_call || !self.welcomes.is_empty() {
                Time::MAX
            } else {
                self.call_from
            };
            let tick_at = self.peer.next_tick(&self.core.config);
            tokio::select! {
                biased;
                () = self.core.ending() => return None,
                Some(incoming) = self.incoming.recv() => self.admit(incoming, calling),
                Some(welcomed) = self.welcomes.join_next() => {
                    if let Ok(Some(link)) = welcomed {
                        return Some(link);
                    }
                }
                result = async { Some(call.as_mut()?.await) }, if calling => {
                    call = None;
                    match result {
                        Some(Ok(link)) => return Some(link),
                        Some(Err(error)) => self.call_failed(&error),
                        None => {}
                    }
                }
                () = self.peer.wake.notified(), if may_call => {}
                () = sleep_until(&self.core.system, woken_at) => {}
                () = sleep_until(&self.core.system, forget_at), if !calling => {
                    let unsought = self.incoming.is_empty() && self.welcomes.is_empty();
                    if unsought && self.core.forget(&self.peer) {
                        return None;
                    }
                    forget_at = self.core.system.now() + self.core.config.forget_after;
                }
                () = sleep_until(&self.core.system, tick_at) => {
                    self.peer.tick(&self.core, self.core.system.now());
                }
            }
        }
    }

    fn call_failed(&mut self, error: &CallError) {
        if let CallError::Refused {
            reason, by_member, ..
        } = error
        {
            match reason {
                // The peer calls this node, and its call goes on.
                RefuseReason::Duplicate => {
                    self.call_from = self.core.system.now() + self.core.config.redial_min;
                    return;
                }
                // A member that hears of it stops, so anybody else may say it in vain.
                RefuseReason::Quarantined if *by_member => {
                    if let Some(node) = self.peer.node() {
                        self.core.emit(RemoteEvent::QuarantinedBy(node));
                    }
                }
                _ => {}
            }
        }
        if let CallError::Connect(ConnectError::Refused { .. }) = error
            && self.core.counters.refused_calls.add_and_log()
        {
            tracing::warn!(peer = %self.peer.addr, %error, "no connection");
        }
        tracing::debug!(peer = %self.peer.addr, %error, "could not connect");
        for outbox in self.peer.outboxes() {
            self.core.give_up(&self.peer, outbox.clear());
        }
        self.call_from = self.core.system.now() + self.pause;
        self.pause = (self.pause * 2).min(self.core.config.redial_max);
    }

    /// Judges a peer that called, and begins to welcome or refuse it. The peer may take its time for
    /// that, or never read: nothing else waits for it.
    fn admit(&mut self, incoming: Incoming, calling: bool) {
        let Incoming {
            connection,
            hello: theirs,
            reader,
        } = incoming;
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() + self.welcomes.len() >= ADMISSIONS_MAX {
            connection.close("busy");
            return;
        }
        let caller = introduction_of(&theirs);
        let version = common_version(&theirs);
        let identity = connection.identity_as(&caller.node.name);
        let known = self
            .peer
            .known(&self.core, &caller, identity.as_ref(), calling);
        let verdict = judge_caller(&introduction_of_us(&self.core), &caller, known);
        let node = caller.node;
        let within = self.core.config.handshake_within;
        let (Verdict::Accept, Some(identity)) = (verdict, identity) else {
            if verdict != Verdict::Duplicate && self.core.counters.refused_calls.add_and_log() {
                tracing::warn!(%node, ?verdict, "refused");
            }
            let (reason, detail) = reason_of(verdict);
            let refusal = async move { refuse(&connection, reason, detail, within).await };
            self.refusals.spawn(refusal);
            return;
        };
        let welcome = Frame::Welcome(hello(&self.core));
        self.welcomes.spawn(async move {
            let opened = open(&connection, CONTROL_LANE, CONTROL_VERSION, Some(&welcome));
            let opened = tokio::time::timeout(within, opened).await;
            let Ok(Ok(writer)) = opened else {
                tracing::debug!(%node, "it went away before it was welcomed");
                connection.close("it takes no welcome");
                return None;
            };
            Some(Link {
                connection,
                node,
                identity: Arc::new(identity),
                version,
                reader,
                writer: Some(writer),
            })
        });
    }

    /// Carries frames until the connection ends. Returns the connection that took its place, if one
    /// did.
    async fn serve(&mut self, mut link: Link) -> Option<Link> {
        let node = link.node.clone();
        self.pause = self.core.config.redial_min;
        if !self.peer.connected(&self.core, &node, &link.identity) {
            link.connection.close("quarantined");
            return None;
        }
        self.core.emit(RemoteEvent::Connected(node.clone()));
        tracing::debug!(%node, "connected");
        let connection = link.connection.clone();
        let credits = Credits::new();
        let mut writers = self.start_writers(&mut link, &credits);
        let mut readers = Readers::start(&self.core, &self.peer, link, credits);
        let end = self.carry(&connection, &mut readers, &mut writers).await;
        let mut lost_nothing = false;
        let (reason, next) = match end {
            ServeEnd::Idle => {
                lost_nothing = self.part(&connection, &mut readers, &mut writers).await;
                ("nobody uses it".to_owned(), None)
            }
            ServeEnd::Ended(reason) => {
                // Whoever leaves lanes unfinished beyond that has nothing more to say.
                let drained = readers.drain(&connection);
                let _ = tokio::time::timeout(DRAIN_WITHIN, drained).await;
                (reason, None)
            }
            ServeEnd::Broken(reason) => (reason, None),
            ServeEnd::Replaced(link) => ("replaced by a newer connection".to_owned(), Some(link)),
        };
        tracing::debug!(%node, reason, "disconnected");
        connection.close(&reason);
        readers.tasks.shutdown().await;
        writers.shutdown().await;
        if readers.control == Some(LaneEnd::Goodbye) {
            self.peer.left(&self.core, node.incarnation);
        }
        self.peer.disconnected(&self.core, lost_nothing);
        self.core.emit(RemoteEvent::Disconnected(node));
        next
    }

    async fn carry(
        &mut self,
        connection: &Arc<dyn Connection>,
        readers: &mut Readers,
        writers: &mut JoinSet<Result<(), LaneFault>>,
    ) -> ServeEnd {
        let node = readers.inbound.node.clone();
        let mut idle_at = self.core.system.now() + self.core.config.idle_close;
        loop {
            let tick_at = self.peer.next_tick(&self.core.config);
            let result = tokio::select! {
                biased;
                () = self.core.ending() => {
                    self.flush(readers, writers).await;
                    return ServeEnd::Broken("goodbye".to_owned());
                }
                () = self.peer.kick.notified() => {
                    if self.peer.is_gone(node.incarnation) {
                        return ServeEnd::Broken("quarantined".to_owned());
                    }
                    Ok(())
                }
                Some(incoming) = self.incoming.recv() => {
                    self.admit(incoming, false);
                    Ok(())
                }
                Some(welcomed) = self.welcomes.join_next() => match welcomed {
                    Ok(Some(link)) => return ServeEnd::Replaced(link),
                    _ => Ok(()),
                },
                // Before the ends of lanes: when the control lane ends, the others have arrived.
                lane = connection.accept_lane() => readers.accept(lane),
                Some(ended) = readers.tasks.join_next() => readers.ended(ended),
                Some(ended) = writers.join_next() => {
                    ended.unwrap_or_else(|error| Err(LaneFault::Peer(error.to_string())))
                }
                reason = connection.closed() => return ServeEnd::Ended(reason),
                () = sleep_until(&self.core.system, idle_at) => {
                    if self.peer.is_idle(&self.core) {
                        return ServeEnd::Idle;
                    }
                    idle_at = self.core.system.now() + self.core.config.idle_close;
                    Ok(())
                }
                () = sleep_until(&self.core.system, tick_at) => {
                    self.peer.tick(&self.core, self.core.system.now());
                    Ok(())
                }
            };
            match result {
                Ok(()) if readers.control == Some(LaneEnd::Goodbye) => {
                    return ServeEnd::Ended("the peer said goodbye".to_owned());
                }
                Ok(()) if readers.control.is_some() => return ServeEnd::Idle,
                Ok(()) => {}
                Err(LaneFault::Lane(error)) => return ServeEnd::Ended(error.reason),
                Err(fault) => return ServeEnd::Broken(self.faulted(&node, &fault)),
            }
        }
    }

    fn faulted(&self, node: &NodeId, fault: &LaneFault) -> String {
        if self.core.counters.peer_faults.add_and_log() {
            tracing::warn!(%node, %fault, "the connection is closed");
        }
        fault.to_string()
    }

    /// One writer a lane. The one of the control lane says goodbye when its outbox is closed.
    fn start_writers(
        &self,
        link: &mut Link,
        credits: &Arc<Credits>,
    ) -> JoinSet<Result<(), LaneFault>> {
        let mut writers = JoinSet::new();
        for outbox in self.peer.outboxes() {
            outbox.release();
        }
        if let Some(writer) = link.writer.take() {
            let (core, peer, node) = (self.core.clone(), self.peer.clone(), link.node.clone());
            writers.spawn(self.core.clone().isolated(async move {
                let last = Some(Frame::Goodbye);
                write_lane(&core, &peer, &peer.control, &node, writer, None, last).await
            }));
        }
        let version = link.version;
        let pack_above = self.core.config.compression.above();
        let pack_above = pack_above.filter(|_| version >= PACKED_SINCE);
        for lane in 1..=self.core.config.lanes {
            let (core, peer) = (self.core.clone(), self.peer.clone());
            let (connection, node) = (link.connection.clone(), link.node.clone());
            writers.spawn(self.core.clone().isolated(async move {
                let writer = open(&connection, lane, version, None).await?;
                let outbox = &peer.lanes[usize::from(lane) - 1];
                write_lane(&core, &peer, outbox, &node, writer, None, None).await
            }));
        }
        let (core, peer) = (self.core.clone(), self.peer.clone());
        let (connection, node) = (link.connection.clone(), link.node.clone());
        let credits = credits.clone();
        writers.spawn(async move {
            // Most peers never need it.
            if !peer.large.filled().await {
                return Ok(());
            }
            let mut writer = open(&connection, LARGE_LANE, version, None).await?;
            if version >= CREDITS_SINCE {
                let (lane, core) = (writer, core.clone());
                writer = Box::new(CreditedWriter {
                    lane,
                    credits,
                    core,
                });
            }
            write_lane(&core, &peer, &peer.large, &node, writer, pack_above, None).await
        });
        writers
    }

    /// Ends a connection that nobody uses, together with the peer, which hears of it by the end of
    /// the control lane and does the same. Each writes what it has begun and reads until the other
    /// has no more; whoever is done closes. `false` if something may be lost.
    async fn part(
        &self,
        connection: &Arc<dyn Connection>,
        readers: &mut Readers,
        writers: &mut JoinSet<Result<(), LaneFault>>,
    ) -> bool {
        for outbox in self.peer.user_lanes() {
            outbox.hold();
        }
        let parted = async {
            // The peer reads the end of the control lane when it has the others, so that one ends last.
            let mut written = true;
            for _ in self.peer.user_lanes() {
                written &= matches!(readers.end_of(writers).await, Some(Ok(Ok(()))));
            }
            self.peer.control.hold();
            written &= matches!(writers.join_next().await, Some(Ok(Ok(()))));
            readers.read_to_the_end(connection).await && written
        };
        let parted = tokio::time::timeout(PART_WITHIN, parted).await;
        parted.unwrap_or(false)
    }

    /// Sends what is queued, then goodbye, but waits no longer than configured.
    async fn flush(&self, readers: &mut Readers, writers: &mut JoinSet<Result<(), LaneFault>>) {
        for outbox in self.peer.user_lanes() {
            outbox.close();
        }
        let flushed = async {
            // The goodbye must not overtake anything, so the control lane ends last.
            for _ in self.peer.user_lanes() {
                readers.end_of(writers).await;
            }
            self.peer.control.close();
            writers.join_next().await;
        };
        let within = self.core.config.flush_within;
        if tokio::time::timeout(within, flushed).await.is_err() {
            tracing::warn!(peer = %self.peer.addr, "not everything was sent before the end");
        }
    }
}

/// The reading side of a connection: one task a lane.
///
/// **Invariant:** all of them have ended before another connection takes the place of this one, so
/// that what arrives keeps its order.
struct Readers {
    inbound: Inbound,
    tasks: JoinSet<Result<LaneEnd, LaneFault>>,
    lanes: Lanes,
    accepted: u8,
    /// How the control lane ended, if it did: the peer leaves, or has no use for the connection.
    control: Option<LaneEnd>,
}

impl Readers {
    fn start(core: &Arc<Core>, peer: &Arc<Peer>, link: Link, credits: Arc<Credits>) -> Self {
        let inbound = Inbound {
            core: core.clone(),
            peer: peer.clone(),
            node: link.node,
            permit: Permit::new(&core.rights, link.identity),
        };
        let mut tasks = JoinSet::new();
        let control = inbound.clone().read_lane(link.reader);
        tasks.spawn(core.clone().isolated(control));
        Self {
            inbound,
            tasks,
            lanes: Lanes {
                connection: link.connection,
                opened: OpenedLanes::default(),
                credits,
            },
            accepted: 1,
            control: None,
        }
    }

    /// Takes in a lane that the peer opened. No number comes twice, so there are never more of them
    /// than there are numbers.
    fn accept(&mut self, lane: Result<Box<dyn LaneReader>, LaneError>) -> Result<(), LaneFault> {
        let lane = lane?;
        if self.accepted >= RemoteConfig::LANES_MAX {
            return Err(LaneFault::Peer("it opens too many lanes".to_owned()));
        }
        self.accepted += 1;
        let (inbound, lanes) = (self.inbound.clone(), self.lanes.clone());
        self.tasks.spawn(inbound.begin_lane(lane, lanes));
        Ok(())
    }

    fn ended(
        &mut self,
        ended: Result<Result<LaneEnd, LaneFault>, JoinError>,
    ) -> Result<(), LaneFault> {
        let end = ended.unwrap_or_else(|error| Err(LaneFault::Peer(error.to_string())))?;
        if end != LaneEnd::Finished {
            self.control = Some(end);
        }
        Ok(())
    }

    /// How the next writer to end has ended. The peer's lanes are taken in meanwhile: a writer may wait
    /// for credits, which come on one of them.
    async fn end_of(
        &mut self,
        writers: &mut JoinSet<Result<(), LaneFault>>,
    ) -> Option<Result<Result<(), LaneFault>, JoinError>> {
        let connection = self.lanes.connection.clone();
        let mut accepts = true;
        loop {
            tokio::select! {
                biased;
                ended = writers.join_next() => return ended,
                lane = connection.accept_lane(), if accepts => accepts = self.accept(lane).is_ok(),
            }
        }
    }

    /// Reads on until the peer has finished every lane, the control lane last; `false` if it does not.
    async fn read_to_the_end(&mut self, connection: &Arc<dyn Connection>) -> bool {
        let mut accepts = true;
        while self.control.is_none() || !self.tasks.is_empty() {
            tokio::select! {
                biased;
                // First: when the control lane ends, the others have arrived.
                lane = connection.accept_lane(), if accepts => accepts = self.accept(lane).is_ok(),
                Some(ended) = self.tasks.join_next() => {
                    if self.ended(ended).is_err() {
                        return false;
                    }
                }
                else => return false,
            }
        }
        true
    }

    /// Reads on until nothing can come any more.
    async fn drain(&mut self, connection: &Arc<dyn Connection>) {
        let mut accepts = true;
        while accepts || !self.tasks.is_empty() {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next() => {
                    // What is wrong with a lane does not matter any more.
                    let _ = self.ended(ended);
                }
                lane = connection.accept_lane(), if accepts => accepts = self.accept(lane).is_ok(),
            }
        }
    }
}

async fn make_call(core: Arc<Core>, peer: Arc<Peer>) -> Result<Link, CallError> {
    let connection = core.network.connect(peer.addr).await?;
    let within = core.config.handshake_within;
    let greeted = tokio::time::timeout(within, async {
        let ours = Frame::Hello(hello(&core));
        let writer = open(&connection, CONTROL_LANE, CONTROL_VERSION, Some(&ours))
            .await
            .map_err(LaneFault::from)?;
        let lane = connection.accept_lane().await.map_err(LaneFault::from)?;
        let mut reader = FrameReader::begin(lane).await?;
        let answer = reader.next().await?;
        Ok::<_, CallError>((writer, reader, answer))
    });
    let (writer, reader, answer) = match greeted.await {
        Ok(greeted) => greeted?,
        Err(_) => {
            connection.close("no welcome");
            return Err(CallError::Timeout(within));
        }
    };
    let theirs: Hello = match answer {
        Some(Frame::Welcome(theirs)) if reader.lane() == CONTROL_LANE => theirs,
        Some(Frame::Refuse { reason, detail }) => {
            let named = peer.node().map(|node| node.name);
            let identity = named.and_then(|name| connection.identity_as(&name));
            let by_member = identity.is_some_and(|identity| {
                identity.kind() == PeerKind::Member && identity.may_listen_at(peer.addr)
            });
            return Err(CallError::Refused {
                reason,
                detail,
                by_member,
            });
        }
        _ => return Err(LaneFault::Peer("no welcome came first".to_owned()).into()),
    };
    let them = introduction_of(&theirs);
    let version = common_version(&theirs);
    let identity = connection.identity_as(&them.node.name);
    let known = peer.known(&core, &them, identity.as_ref(), false);
    let verdict = judge(&introduction_of_us(&core), &them, known);
    let node = them.node;
    let identity = identity.filter(|_| verdict == Verdict::Accept && node.addr == peer.addr);
    let Some(identity) = identity else {
        connection.close("not the node that was called");
        return Err(CallError::Refusing { node, verdict });
    };
    Ok(Link {
        connection,
        node,
        identity: Arc::new(identity),
        version,
        reader,
        writer: Some(writer),
    })
}
