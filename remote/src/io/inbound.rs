//! Inbound: what arrives on a lane reaches the actor, port or handler that it names.

use crate::config::RemoteConfig;
use crate::core::Core;
use crate::exports::{Exported, Undelivered};
use crate::io::credits::Credits;
use crate::io::lanes::{CONTROL_LANE, CREDIT_LANE, FrameReader, LARGE_LANE, LaneFault, is_lane};
use crate::network::{Connection, LaneReader};
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::remote::Channel;
use crate::remote_ref::Address;
use crate::rights::Permit;
use crate::wire::in_scope;
use crate::wire_format::{
    DecodeError, ExportId, Frame, MessageView, Target, TargetView, Unpacking, View, is_packed,
};
use bytes::Bytes;
use otava_actor::{ActorPath, DeadLetterReason, Refusal};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Frames that are handled before other tasks have their turn.
const TURN_FRAMES: u64 = 64;

/// How long a lane waits for an actor that it has filled the mailbox of, and how often it looks: an actor
/// that was not on a processor for that long has other troubles, and others want to go on.
const FULL_WAIT: Duration = Duration::from_millis(100);
const FULL_LOOK: Duration = Duration::from_millis(1);

/// A frame that is handled apart ([`apart`]): to decode it takes about as long as to hand it over.
const LARGE_BYTES: usize = 256 << 10;

/// The reading side of one connection.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) core: Arc<Core>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) node: NodeId,
    /// What the peer may do here.
    pub(crate) permit: Permit,
}

/// The connection on which lanes arrive, and what they share.
#[derive(Clone)]
pub(crate) struct Lanes {
    pub(crate) connection: Arc<dyn Connection>,
    /// Those that the peer has opened.
    pub(crate) opened: OpenedLanes,
    /// What the peer has taken of this node's large lane.
    pub(crate) credits: Arc<Credits>,
}

/// How a lane ended without a fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LaneEnd {
    /// An ordinary lane.
    Finished,
    /// The control lane: the peer leaves.
    Goodbye,
    /// The control lane: nobody over there uses the connection.
    Unused,
}

/// Why a turn of handling frames is over.
enum Turn {
    /// Nothing more has arrived.
    Idle,
    /// Others have their turn; there may be more.
    More,
    /// A packed frame is next.
    Packed(Bytes),
    /// The mailbox of an actor is full.
    Full(Held),
}

/// A message that waits for room in the mailbox of its actor.
struct Held {
    exported: Arc<dyn Exported>,
    message: Box<dyn Any + Send>,
    /// The reply ports in it.
    ports: Vec<ExportId>,
}

/// The numbers of the lanes that the peer has opened in one connection, a bit each.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenedLanes(Arc<AtomicU16>);

impl OpenedLanes {
    /// Notes a lane; `false` if it may not be opened, or was before.
    fn note(&self, lane: u8) -> bool {
        let bit = 1_u16.checked_shl(u32::from(lane)).unwrap_or(0);
        let new = self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        lane != CONTROL_LANE && is_lane(lane) && new
    }
}

/// The actor that the last message of a lane was for: the next one is often for it too.
#[derive(Default)]
struct Found {
    /// As it was written.
    target: Vec<u8>,
    /// Gone when the actor is, or is not exported any more.
    exported: Option<Weak<dyn Exported>>,
    /// Whether the peer may send to it.
    allowed: bool,
}

/// The actor that a message is for.
struct Receiver {
    exported: Arc<dyn Exported>,
    /// Whether the peer may send to it.
    allowed: bool,
}

impl Found {
    fn again(&self, target: TargetView<'_>) -> Option<Receiver> {
        if self.target != target.0 {
            return None;
        }
        Some(Receiver {
            exported: self.exported.as_ref()?.upgrade()?,
            allowed: self.allowed,
        })
    }

    fn remember(&mut self, target: TargetView<'_>, receiver: &Receiver) {
        self.target.clear();
        self.target.extend_from_slice(target.0);
        self.exported = Some(Arc::downgrade(&receiver.exported));
        self.allowed = receiver.allowed;
    }
}

impl Inbound {
    /// Reads which lane it is, then its frames.
    pub(crate) async fn begin_lane(
        self,
        lane: Box<dyn LaneReader>,
        lanes: Lanes,
    ) -> Result<LaneEnd, LaneFault> {
        let mut reader = FrameReader::begin(lane).await?;
        let lane = reader.lane();
        if !lanes.opened.note(lane) {
            return Err(LaneFault::Peer(format!("lane {lane} may not be opened")));
        }
        if lane == CREDIT_LANE {
            lanes.credits.read(&self.core, reader).await?;
            return Ok(LaneEnd::Finished);
        }
        if reader.wants_credits() {
            reader = reader.with_credits(&lanes.connection).await;
        }
        self.read_lane(reader).await
    }

    /// Handles the frames of a lane, in order, until it ends.
    pub(crate) async fn read_lane(self, mut reader: FrameReader) -> Result<LaneEnd, LaneFault> {
        reader.allow(if reader.lane() == LARGE_LANE {
            self.core.config.large_bytes_max
        } else {
            self.core.config.frame_bytes_max
        });
        if reader.lane() == CONTROL_LANE {
            return self.read_control(reader).await;
        }
        let mut found = Found::default();
        let from = Address::Exactly(self.node.clone());
        let mut packed = None;
        loop {
            let first = match packed.take() {
                Some(packed) => self.unpack(packed).await?,
                None => match reader.next_bytes().await? {
                    Some(frame) if reader.takes_packed() && is_packed(&frame) => {
                        self.unpack(frame).await?
                    }
                    Some(frame) => frame,
                    None => return Ok(LaneEnd::Finished),
                },
            };
            // One scope for all: what it costs is paid once.
            let large = first.len() >= LARGE_BYTES;
            let turn = || {
                in_scope(&self.core, from.clone(), || {
                    self.turn(first, &mut reader, &mut found)
                })
            };
            let (turn, _) = if large { apart(turn) } else { turn() };
            match turn? {
                Turn::Idle => {}
                Turn::More => tokio::task::yield_now().await,
                Turn::Packed(frame) => packed = Some(frame),
                Turn::Full(held) => self.wait_for_room(held).await,
            }
        }
    }

    /// Keeps the lane while an actor that is slower than the network makes room: then the sender waits too. One
    /// that makes none in time is not waited for again until it has caught up.
    async fn wait_for_room(&self, held: Held) {
        let Held {
            exported,
            message,
            ports,
        } = held;
        let system = &self.core.system;
        let until = system.now() + FULL_WAIT;
        while !exported.has_room() {
            if system.now() >= until {
                exported.do_not_wait();
                break;
            }
            system.sleep_until(system.now() + FULL_LOOK).await;
        }
        if let Some(Err(undelivered)) = self.guarded(|| exported.deliver_late(message)) {
            self.drop_undelivered(&*exported, undelivered, ports);
        }
    }

    /// Tells whoever waits at one of the ports why, and counts it.
    fn drop_undelivered(
        &self,
        exported: &dyn Exported,
        undelivered: Undelivered,
        ports: impl IntoIterator<Item = ExportId>,
    ) {
        for port in ports {
            let from = Address::Exactly(self.node.clone());
            let why = undelivered.refusal();
            self.core.send_no_answer(&from, port, why);
        }
        self.note_undelivered(exported.path(), &undelivered);
        // The message in it is the program's own.
        self.guarded(|| drop(undelivered));
    }

    /// The frame inside a packed one. Others have their turn between its blocks.
    async fn unpack(&self, packed: Bytes) -> Result<Bytes, LaneFault> {
        let mut unpacking = Unpacking::begin(packed, self.core.config.large_bytes_max)?;
        loop {
            if let Some(frame) = unpacking.step()? {
                self.core.counters.unpacked.add(1);
                return Ok(frame);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Handles a frame and those that have arrived behind it.
    fn turn(
        &self,
        first: Bytes,
        reader: &mut FrameReader,
        found: &mut Found,
    ) -> Result<Turn, LaneFault> {
        let (mut next, mut handled) = (Some(first), 0);
        let mut end = Turn::Idle;
        while let Some(frame) = next {
            let held = self.handle_ordinary(frame, found)?;
            handled += 1;
            if let Some(held) = held {
                end = Turn::Full(held);
                break;
            }
            if handled == TURN_FRAMES {
                end = Turn::More;
                break;
            }
            next = reader.buffered()?;
            if let Some(frame) = next.take_if(|it| reader.takes_packed() && is_packed(it)) {
                end = Turn::Packed(frame);
            }
        }
        self.peer.use_it();
        self.core.counters.frames_received.add(handled);
        Ok(end)
    }

    async fn read_control(self, mut reader: FrameReader) -> Result<LaneEnd, LaneFault> {
        let mut turn = 0;
        while let Some(frame) = reader.next().await? {
            self.peer.use_it();
            self.core.counters.frames_received.add(1);
            if let Some(end) = self.handle_control(frame)? {
                return Ok(end);
            }
            turn += 1;
            if turn % TURN_FRAMES == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(LaneEnd::Unused)
    }

    /// Handles one frame of an ordinary lane.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn take_ordinary(&self, frame: Bytes) -> Result<(), LaneFault> {
        let from = Address::Exactly(self.node.clone());
        let handle = || self.handle_ordinary(frame, &mut Found::default());
        in_scope(&self.core, from, handle).0.map(drop)
    }

    /// Handles one frame of the control lane.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn take_control(&self, frame: Bytes) -> Result<(), LaneFault> {
        self.handle_control(Frame::decode(frame)?).map(drop)
    }

    fn handle_control(&self, frame: Frame) -> Result<Option<LaneEnd>, LaneFault> {
        let run = self.node.incarnation;
        match frame {
            Frame::Control { channel, .. } if !self.permit.allows_control() => {
                self.count_not_permitted(format_args!("a control message on channel {channel}"));
            }
            Frame::Control { channel, payload } => {
                if payload.len() > RemoteConfig::CONTROL_BYTES_MAX {
                    return Err(LaneFault::Peer("a control message is too large".to_owned()));
                }
                match self.core.handler(Channel(channel)) {
                    Some(handler) => {
                        self.guarded(|| handler(&self.node, payload));
                    }
                    None => {
                        self.count_undelivered(format_args!("nobody listens on channel {channel}"))
                    }
                }
            }
            Frame::System { seq, message } => {
                if !self
                    .peer
                    .take_system(&self.core, run, seq, message, &self.permit)
                {
                    return Err(LaneFault::Peer("it watches too many actors".to_owned()));
                }
            }
            Frame::Flushed { token } => self.peer.take_flushed(&self.core, token),
            Frame::SystemAck { seq } => self.peer.take_ack(self.core.system.now(), run, seq),
            Frame::Goodbye => return Ok(Some(LaneEnd::Goodbye)),
            other => return Err(LaneFault::unexpected(&other)),
        }
        Ok(None)
    }

    /// Returns a message that is not handed over yet.
    fn handle_ordinary(&self, frame: Bytes, found: &mut Found) -> Result<Option<Held>, LaneFault> {
        match View::of(&frame) {
            Some(View::Message(message)) => return self.deliver(message, found),
            Some(View::Answer { port, payload }) => self.answer(port, payload),
            None => self.handle_rare(Frame::decode(frame)?)?,
        }
        Ok(None)
    }

    fn handle_rare(&self, frame: Frame) -> Result<(), LaneFault> {
        match frame {
            Frame::NoAnswer { port, why } => {
                let (exports, addr) = (&self.core.exports, self.node.addr);
                self.guarded(|| match why.refusal() {
                    Some(why) => exports.refuse_port(addr, port, why),
                    None => exports.close_port(addr, port),
                });
            }
            Frame::Flush { token } => {
                let run = Some(self.node.incarnation);
                let answer = Frame::Flushed { token };
                self.core
                    .push_frame(&self.peer, &self.peer.control, run, &answer);
            }
            Frame::PortDropped { port } => self.core.exports.close_port(self.node.addr, port),
            other => return Err(LaneFault::unexpected(&other)),
        }
        Ok(())
    }

    /// Hands a message to its actor, or returns it if there is no room yet. Where that fails, whoever waits at
    /// one of its ports learns why. To be called inside a scope of the wire.
    fn deliver(
        &self,
        message: MessageView<'_>,
        found: &mut Found,
    ) -> Result<Option<Held>, LaneFault> {
        let known = match found.again(message.target) {
            Some(known) => Some(known),
            None => self.find(message.target, found)?,
        };
        let from = || Address::Exactly(self.node.clone());
        let Some(Receiver { exported, allowed }) = known else {
            for port in message.ports() {
                self.core.send_no_answer(&from(), port, Refusal::Stopped);
            }
            return Ok(None);
        };
        if !allowed {
            // Before a byte of it is decoded.
            self.refuse(&*exported, message);
            return Ok(None);
        }
        let kind = self.permit.kind();
        match self.guarded(|| exported.deliver(message.tag, message.payload, kind)) {
            Some(Ok(())) => {}
            Some(Err(Undelivered::Full { message: full })) => {
                let held = Held {
                    exported,
                    message: full,
                    ports: message.ports().collect(),
                };
                return Ok(Some(held));
            }
            Some(Err(Undelivered::NotPermitted)) => self.refuse(&*exported, message),
            Some(Err(undelivered)) => {
                self.drop_undelivered(&*exported, undelivered, message.ports());
            }
            None => {
                for port in message.ports() {
                    self.core.send_port_dropped(&from(), port);
                }
            }
        }
        Ok(None)
    }

    /// Whom a message is for; `None`, with that said, if nobody is reached.
    fn find(
        &self,
        target: TargetView<'_>,
        found: &mut Found,
    ) -> Result<Option<Receiver>, LaneFault> {
        let decoded = target.decode();
        let decoded = decoded.map_err(|e| LaneFault::Peer(e.to_string()))?;
        let Some(exported) = self.core.exports.find(&decoded) else {
            self.nobody(&decoded);
            return Ok(None);
        };
        let allowed = self.permit.allows(exported.protocol());
        let receiver = Receiver { exported, allowed };
        found.remember(target, &receiver);
        Ok(Some(receiver))
    }

    /// Refuses a message that the peer has no right to send, and tells whoever waits at one of its ports.
    fn refuse(&self, exported: &dyn Exported, message: MessageView<'_>) {
        let from = Address::Exactly(self.node.clone());
        for port in message.ports() {
            let why = Refusal::NotPermitted;
            self.core.send_no_answer(&from, port, why);
        }
        let (actor, protocol) = (exported.path(), exported.protocol());
        self.count_not_permitted(format_args!("a message of {protocol} to {actor}"));
    }

    /// Counts what the peer had no right to; logs the first, and then ever fewer of them.
    fn count_not_permitted(&self, what: std::fmt::Arguments<'_>) {
        if self.core.counters.not_permitted.add_and_log() {
            let kind = self.permit.kind();
            tracing::warn!(from = %self.node, %kind, "not permitted: {what}");
        }
    }

    fn note_undelivered(&self, actor: &ActorPath, undelivered: &Undelivered) {
        let (message_type, what) = match undelivered {
            Undelivered::NotPermitted | Undelivered::Full { .. } | Undelivered::Refused { .. } => {
                return self.core.counters.undelivered.add(1);
            }
            Undelivered::OtherType { message_type } => (message_type, None),
            Undelivered::Undecodable {
                message_type,
                source: DecodeError::NotUnderstood { method },
            } => (message_type, Some(method)),
            Undelivered::Undecodable { .. } => {
                return self.count_undelivered(format_args!("{actor}: {undelivered}"));
            }
        };
        self.core.counters.undelivered.add(1);
        self.core.counters.not_understood.add(1);
        let what = what.map_or("another layout", String::as_str);
        if self.core.is_news(message_type, what) {
            tracing::warn!(from = %self.node, %actor, "not understood, said once: {undelivered}");
        }
    }

    fn nobody(&self, target: &Target) {
        let path = ActorPath::new(format!("{}/{target:?}", self.core.id));
        let letters = self.core.system.dead_letters();
        letters.report(&path, DeadLetterReason::RefusedStopped, "(not known)");
        self.count_undelivered(format_args!("no actor is reached by {target:?}"));
    }

    /// To be called inside a scope of the wire.
    fn answer(&self, port: ExportId, payload: &[u8]) {
        let exports = &self.core.exports;
        match self.guarded(|| exports.answer(self.node.addr, port, payload)) {
            Some(Ok(true)) | None => {}
            Some(Ok(false)) => {
                let path = ActorPath::new(format!("{}/(reply port)", self.core.id));
                let letters = self.core.system.dead_letters();
                letters.report(&path, DeadLetterReason::LateReply, "(not known)");
            }
            Some(Err(error)) => self.count_undelivered(format_args!("an answer: {error}")),
        }
    }

    /// Calls code of the program: a handler, or what reads a message. If it panics, what it was
    /// called for counts as not delivered, and the connection goes on: `None`.
    fn guarded<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        // Whatever the call touched is the program's own, or consumed.
        let words = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => return Some(result),
            Err(panic) => otava_actor::describe_panic(panic),
        };
        self.count_undelivered(format_args!("what should take it panicked: {words}"));
        None
    }

    /// Counts what did not reach anybody; logs the first, and then ever fewer of them.
    fn count_undelivered(&self, what: std::fmt::Arguments<'_>) {
        if self.core.counters.undelivered.add_and_log() {
            tracing::warn!(from = %self.node, "not delivered: {what}");
        }
    }
}

/// Handles something large, which may hold its thread for milliseconds, so that what waits for this
/// thread goes on elsewhere. It cannot be given up halfway, as it could on a thread of its own.
fn apart<T>(handle: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(handle),
        _ => handle(),
    }
}
