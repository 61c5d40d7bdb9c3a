//! Inbound: what arrives on a lane reaches the actor, port or handler that it names.

use crate::config::RemoteConfig;
use crate::core::Core;
use crate::exports::{Exported, Undelivered};
use crate::io::lanes::{CONTROL_LANE, FrameReader, LARGE_LANE, LaneFault, is_lane};
use crate::network::LaneReader;
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::remote::Channel;
use crate::remote_ref::Address;
use crate::wire::in_scope;
use crate::wire_format::{ExportId, Frame, Target, TargetView, View};
use bytes::Bytes;
use otava_actor::{ActorPath, DeadLetterReason};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Weak};

/// Frames that are handled before other tasks have their turn.
const TURN_FRAMES: u64 = 64;

/// The reading side of one connection.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) core: Arc<Core>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) node: NodeId,
}

/// How a lane ended without a fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LaneEnd {
    Finished,
    Goodbye,
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
}

impl Found {
    fn again(&self, target: TargetView<'_>) -> Option<Arc<dyn Exported>> {
        (self.target == target.0)
            .then(|| self.exported.as_ref()?.upgrade())
            .flatten()
    }

    fn remember(&mut self, target: TargetView<'_>, exported: &Arc<dyn Exported>) {
        self.target.clear();
        self.target.extend_from_slice(target.0);
        self.exported = Some(Arc::downgrade(exported));
    }
}

impl Inbound {
    /// Reads which lane it is, then its frames.
    pub(crate) async fn begin_lane(
        self,
        lane: Box<dyn LaneReader>,
        opened: OpenedLanes,
    ) -> Result<LaneEnd, LaneFault> {
        let reader = FrameReader::begin(lane).await?;
        let lane = reader.lane();
        if !opened.note(lane) {
            return Err(LaneFault::Peer(format!("lane {lane} may not be opened")));
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
        while let Some(first) = reader.next_bytes().await? {
            // One scope for all: what it costs is paid once.
            let (turn, _) = in_scope(&self.core, from.clone(), || {
                self.turn(first, &mut reader, &mut found)
            });
            if turn? {
                tokio::task::yield_now().await;
            }
        }
        Ok(LaneEnd::Finished)
    }

    /// Handles a frame and those that have arrived behind it; whether there may be more.
    fn turn(
        &self,
        first: Bytes,
        reader: &mut FrameReader,
        found: &mut Found,
    ) -> Result<bool, LaneFault> {
        let (mut next, mut handled) = (Some(first), 0);
        while let Some(frame) = next {
            self.handle_ordinary(frame, found)?;
            handled += 1;
            if handled == TURN_FRAMES {
                break;
            }
            next = reader.buffered()?;
        }
        self.peer.use_it();
        self.core.counters.frames_received.add(handled);
        Ok(handled == TURN_FRAMES)
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
        Ok(LaneEnd::Finished)
    }

    fn handle_control(&self, frame: Frame) -> Result<Option<LaneEnd>, LaneFault> {
        let run = self.node.incarnation;
        match frame {
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
                if !self.peer.take_system(&self.core, run, seq, message) {
                    return Err(LaneFault::Peer("it watches too many actors".to_owned()));
                }
            }
            Frame::Flushed { token } => self.peer.take_flushed(&self.core, token),
            Frame::SystemAck { seq } => self.peer.take_ack(self.core.system.now(), run, seq),
            Frame::Goodbye => return Ok(Some(LaneEnd::Goodbye)),
            other => return Err(unexpected(&other)),
        }
        Ok(None)
    }

    fn handle_ordinary(&self, frame: Bytes, found: &mut Found) -> Result<(), LaneFault> {
        match View::of(&frame) {
            Some(View::Message {
                target,
                tag,
                payload,
            }) => self.deliver(target, tag, payload, found),
            Some(View::Answer { port, payload }) => {
                self.answer(port, payload);
                Ok(())
            }
            None => self.handle_rare(Frame::decode(frame)?),
        }
    }

    fn handle_rare(&self, frame: Frame) -> Result<(), LaneFault> {
        match frame {
            Frame::Flush { token } => {
                let run = Some(self.node.incarnation);
                let answer = Frame::Flushed { token };
                self.core
                    .push_frame(&self.peer, &self.peer.control, run, &answer);
            }
            Frame::PortDropped { port } => self.core.exports.close_port(self.node.addr, port),
            other => return Err(unexpected(&other)),
        }
        Ok(())
    }

    /// To be called inside a scope of the wire.
    fn deliver(
        &self,
        target: TargetView<'_>,
        tag: u64,
        payload: &[u8],
        found: &mut Found,
    ) -> Result<(), LaneFault> {
        let exported = match found.again(target) {
            Some(exported) => exported,
            None => {
                let decoded = target.decode();
                let decoded = decoded.map_err(|e| LaneFault::Peer(e.to_string()))?;
                let Some(exported) = self.core.exports.find(&decoded) else {
                    self.nobody(&decoded);
                    return Ok(());
                };
                found.remember(target, &exported);
                exported
            }
        };
        match self.guarded(|| exported.deliver(tag, payload)) {
            Some(Ok(())) | None => {}
            Some(Err(Undelivered::Refused)) => self.core.counters.undelivered.add(1),
            Some(Err(error)) => {
                self.count_undelivered(format_args!("{}: {error}", exported.path()));
            }
        }
        Ok(())
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

fn unexpected(frame: &Frame) -> LaneFault {
    LaneFault::Peer(format!("a {:?} frame where none may be", frame.kind()))
}
