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

use crate::core::{Core, NewPeer};
use crate::io::acceptor::refuse;
use crate::io::inbound::{Inbound, LaneEnd};
use crate::io::lanes::{
    CONTROL_LANE, FrameReader, Incoming, LaneFault, Link, hello, introduction_of,
    introduction_of_us, is_lane, open, write_lane,
};
use crate::logic::handshake::{Verdict, judge, judge_caller};
use crate::network::ConnectError;
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::remote::RemoteEvent;
use crate::wire_format::{Frame, Hello, RefuseReason};
use futures_util::future::BoxFuture;
use otava_actor::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Starts a driver for each new peer; ends when the layer is closed and all drivers have ended.
pub(crate) async fn run_drivers(core: Arc<Core>, mut new: mpsc::UnboundedReceiver<NewPeer>) {
    let mut drivers = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(NewPeer { peer, incoming }) = new.recv() => {
                drivers.spawn(Driver::new(core.clone(), peer, incoming).run());
            }
            Some(_) = drivers.join_next() => {}
            () = core.ending() => break,
        }
    }
    new.close();
    while drivers.join_next().await.is_some() {}
}

struct Driver {
    core: Arc<Core>,
    peer: Arc<Peer>,
    incoming: mpsc::Receiver<Incoming>,
    /// The pause before the next call.
    pause: Duration,
    /// No call before this time.
    call_from: Time,
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
        loop {
            let may_call = call.is_none() && self.core.system.now() >= self.call_from;
            if may_call && self.peer.wants_connection() {
                call = Some(Box::pin(make_call(self.core.clone(), self.peer.clone())));
            }
            let calling = call.is_some();
            let woken_at = if calling || may_call {
                Time::MAX
            } else {
                self.call_from
            };
            let tick_at = self.peer.next_tick(&self.core.config);
            tokio::select! {
                biased;
                () = self.core.ending() => return None,
                Some(incoming) = self.incoming.recv() => {
                    if let Some(link) = self.admit(incoming, calling).await {
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
                () = self.peer.wake.notified(), if !calling => {}
                () = self.core.system.sleep_until(woken_at) => {}
                () = self.core.system.sleep_until(tick_at) => {
                    self.peer.tick(&self.core, self.core.system.now());
                }
            }
        }
    }

    fn call_failed(&mut self, error: &CallError) {
        if let CallError::Refused { reason, .. } = error {
            match reason {
                // The peer calls this node, and its call goes on.
                RefuseReason::Duplicate => {
                    self.call_from = self.core.system.now() + self.core.config.redial_min;
                    return;
                }
                RefuseReason::Quarantined => {
                    if let Some(node) = self.peer.node() {
                        self.core.emit(RemoteEvent::QuarantinedBy(node));
                    }
                }
                _ => {}
            }
        }
        tracing::debug!(peer = %self.peer.addr, %error, "could not connect");
        for outbox in self.peer.outboxes() {
            self.core.give_up(&self.peer, outbox.clear());
        }
        self.call_from = self.core.system.now() + self.pause;
        self.pause = (self.pause * 2).min(self.core.config.redial_max);
    }

    /// Judges a peer that called, and welcomes or refuses it.
    async fn admit(&self, incoming: Incoming, calling: bool) -> Option<Link> {
        let Incoming {
            connection,
            hello: theirs,
            reader,
        } = incoming;
        let caller = introduction_of(&theirs);
        let proven = connection.proves_name(&caller.node.name);
        let known = self.peer.known(&caller, proven, calling);
        let verdict = judge_caller(&introduction_of_us(&self.core), &caller, known);
        let node = caller.node;
        if verdict != Verdict::Accept {
            if verdict != Verdict::Duplicate {
                tracing::warn!(%node, ?verdict, "refused");
            }
            let (reason, detail) = reason_of(verdict);
            refuse(&connection, reason, &detail).await;
            return None;
        }
        let welcome = Frame::Welcome(hello(&self.core));
        match open(&connection, CONTROL_LANE, Some(&welcome)).await {
            Ok(writer) => Some(Link {
                connection,
                node,
                reader,
                writer: Some(writer),
            }),
            Err(error) => {
                tracing::debug!(%node, %error, "it went away before it was welcomed");
                None
            }
        }
    }

    /// Carries frames until the connection ends. Returns the connection that took its place, if one
    /// did.
    async fn serve(&mut self, mut link: Link) -> Option<Link> {
        let node = link.node.clone();
        self.pause = self.core.config.redial_min;
        if !self.peer.connected(&self.core, &node) {
            link.connection.close("quarantined");
            return None;
        }
        self.core.emit(RemoteEvent::Connected(node.clone()));
        tracing::debug!(%node, "connected");
        let connection = link.connection.clone();
        let mut writers = self.start_writers(&mut link);
        let mut readers = self.start_readers(link);
        let mut next = None;
        let reason = loop {
            let tick_at = self.peer.next_tick(&self.core.config);
            tokio::select! {
                biased;
                () = self.core.ending() => {
                    self.flush(&mut writers).await;
                    break "goodbye".to_owned();
                }
                () = self.peer.kick.notified() => {
                    if self.peer.is_gone(node.incarnation) {
                        break "quarantined".to_owned();
                    }
                }
                Some(incoming) = self.incoming.recv() => {
                    if let Some(link) = self.admit(incoming, false).await {
                        next = Some(link);
                        break "replaced by a newer connection".to_owned();
                    }
                }
                Some(ended) = readers.join_next() => match ended {
                    Ok(Ok(LaneEnd::Finished)) => {}
                    Ok(Ok(LaneEnd::Goodbye)) => break "the peer said goodbye".to_owned(),
                    Ok(Err(fault)) => break self.faulted(&node, &fault),
                    Err(error) => break error.to_string(),
                },
                Some(ended) = writers.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => break self.faulted(&node, &fault),
                    Err(error) => break error.to_string(),
                },
                reason = connection.closed() => break reason,
                () = self.core.system.sleep_until(tick_at) => {
                    self.peer.tick(&self.core, self.core.system.now());
                }
            }
        };
        tracing::debug!(%node, reason, "disconnected");
        connection.close(&reason);
        readers.shutdown().await;
        writers.shutdown().await;
        self.peer.disconnected(&self.core);
        self.core.emit(RemoteEvent::Disconnected(node));
        next
    }

    fn faulted(&self, node: &NodeId, fault: &LaneFault) -> String {
        if matches!(fault, LaneFault::Peer(_)) && self.core.counters.peer_faults.add_and_log() {
            tracing::warn!(%node, %fault, "the connection is closed");
        }
        fault.to_string()
    }

    /// One writer a lane. The one of the control lane says goodbye when its outbox is closed.
    fn start_writers(&self, link: &mut Link) -> JoinSet<Result<(), LaneFault>> {
        let mut writers = JoinSet::new();
        if let Some(writer) = link.writer.take() {
            let (core, peer, node) = (self.core.clone(), self.peer.clone(), link.node.clone());
            writers.spawn(async move {
                let last = Some(Frame::Goodbye);
                write_lane(&core, &peer, &peer.control, &node, writer, last).await
            });
        }
        for lane in 1..=self.core.config.lanes {
            let (core, peer) = (self.core.clone(), self.peer.clone());
            let (connection, node) = (link.connection.clone(), link.node.clone());
            writers.spawn(async move {
                let writer = open(&connection, lane, None).await?;
                let outbox = &peer.lanes[usize::from(lane) - 1];
                write_lane(&core, &peer, outbox, &node, writer, None).await
            });
        }
        writers
    }

    fn start_readers(&self, link: Link) -> JoinSet<Result<LaneEnd, LaneFault>> {
        let mut readers = JoinSet::new();
        let inbound = Inbound {
            core: self.core.clone(),
            peer: self.peer.clone(),
            node: link.node,
        };
        readers.spawn(inbound.clone().read_lane(link.reader));
        let connection = link.connection;
        readers.spawn(async move { accept_lanes(&inbound, &connection).await });
        readers
    }

    /// Sends what is queued, then goodbye, but waits no longer than configured.
    async fn flush(&self, writers: &mut JoinSet<Result<(), LaneFault>>) {
        for outbox in &self.peer.lanes {
            outbox.close();
        }
        let flushed = async {
            // The goodbye must not overtake anything, so the control lane ends last.
            for _ in &self.peer.lanes {
                writers.join_next().await;
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

/// Takes in the lanes that the peer opens and reads each of them.
async fn accept_lanes(
    inbound: &Inbound,
    connection: &Arc<dyn crate::network::Connection>,
) -> Result<LaneEnd, LaneFault> {
    let mut lanes = JoinSet::new();
    let mut seen = [false; 256];
    loop {
        tokio::select! {
            biased;
            Some(ended) = lanes.join_next() => match ended {
                Ok(Ok(LaneEnd::Finished)) => {}
                Ok(other) => return other,
                Err(error) => return Err(LaneFault::Peer(error.to_string())),
            },
            lane = connection.accept_lane() => {
                let reader = FrameReader::begin(lane?).await?;
                let lane = reader.lane();
                let again = std::mem::replace(&mut seen[usize::from(lane)], true);
                if lane == CONTROL_LANE || !is_lane(lane) || again {
                    return Err(LaneFault::Peer(format!("lane {lane} may not be opened")));
                }
                lanes.spawn(inbound.clone().read_lane(reader));
            }
        }
    }
}

async fn make_call(core: Arc<Core>, peer: Arc<Peer>) -> Result<Link, CallError> {
    let connection = core.network.connect(peer.addr).await?;
    let within = core.config.handshake_within;
    let greeted = tokio::time::timeout(within, async {
        let ours = Frame::Hello(hello(&core));
        let writer = open(&connection, CONTROL_LANE, Some(&ours))
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
            return Err(CallError::Refused { reason, detail });
        }
        _ => return Err(LaneFault::Peer("no welcome came first".to_owned()).into()),
    };
    let them = introduction_of(&theirs);
    let proven = connection.proves_name(&them.node.name);
    let known = peer.known(&them, proven, false);
    let verdict = judge(&introduction_of_us(&core), &them, known);
    let node = them.node;
    if verdict != Verdict::Accept || node.addr != peer.addr {
        connection.close("not the node that was called");
        return Err(CallError::Refusing { node, verdict });
    }
    Ok(Link {
        connection,
        node,
        reader,
        writer: Some(writer),
    })
}

/// How a verdict is told to the peer.
fn reason_of(verdict: Verdict) -> (RefuseReason, String) {
    let reason = match verdict {
        Verdict::Accept | Verdict::Duplicate => RefuseReason::Duplicate,
        Verdict::AddressHeld | Verdict::NameNotProven => RefuseReason::NameNotProven,
        Verdict::ClusterDiffers => RefuseReason::ClusterNameDiffers,
        Verdict::Quarantined => RefuseReason::Quarantined,
        Verdict::RunOver => RefuseReason::StaleIncarnation,
        Verdict::VersionDiffers => RefuseReason::VersionUnsupported,
    };
    let detail = match verdict {
        Verdict::Accept | Verdict::Duplicate => "this node's own call goes on",
        Verdict::AddressHeld => "another node is connected under this address",
        Verdict::ClusterDiffers => "the two nodes belong to different clusters",
        Verdict::NameNotProven => "the certificate is for another name",
        Verdict::Quarantined => "this run of the node is quarantined: start it anew",
        Verdict::RunOver => "a newer run of the node was met at its address",
        Verdict::VersionDiffers => "no common version of the protocol",
    };
    (reason, detail.to_owned())
}
