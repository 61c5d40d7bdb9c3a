//! Inbound: what arrives on a lane reaches the actor, port or handler that it names.

use crate::config::RemoteConfig;
use crate::core::Core;
use crate::exports::Undelivered;
use crate::io::lanes::{CONTROL_LANE, FrameReader, LaneFault, is_lane};
use crate::network::LaneReader;
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::remote::Channel;
use crate::remote_ref::Address;
use crate::wire::in_scope;
use crate::wire_format::{DecodeError, ExportId, Frame, Target};
use bytes::Bytes;
use otava_actor::{ActorPath, DeadLetterReason, Refusal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Frames that are handled before other tasks have their turn.
const TURN_FRAMES: u32 = 64;

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
        reader.allow(self.core.config.frame_bytes_max);
        let control = reader.lane() == CONTROL_LANE;
        let mut turn = 0;
        while let Some(frame) = reader.next().await? {
            self.core.counters.frames_received.add(1);
            let end = if control {
                self.handle_control(frame)?
            } else {
                self.handle_ordinary(frame)?;
                None
            };
            if let Some(end) = end {
                return Ok(end);
            }
            turn += 1;
            if turn % TURN_FRAMES == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(LaneEnd::Finished)
    }

    pub(crate) fn handle_control(&self, frame: Frame) -> Result<Option<LaneEnd>, LaneFault> {
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

    pub(crate) fn handle_ordinary(&self, frame: Frame) -> Result<(), LaneFault> {
        match frame {
            Frame::Message {
                target,
                tag,
                payload,
            } => self.deliver(&target, tag, &payload, &[]),
            Frame::Question {
                target,
                tag,
                payload,
                ports,
            } => self.deliver(&target, tag, &payload, &ports),
            Frame::NoAnswer { port, why } => {
                let (exports, addr) = (&self.core.exports, self.node.addr);
                self.guarded(|| match why.refusal() {
                    Some(why) => exports.refuse_port(addr, port, why),
                    None => exports.close_port(addr, port),
                });
            }
            Frame::Answer { port, payload } => self.answer(port, payload),
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

    /// Hands a message to its actor. Where that fails, whoever waits at one of `ports` learns why.
    fn deliver(&self, target: &Target, tag: u64, payload: &[u8], ports: &[ExportId]) {
        let from = Address::Exactly(self.node.clone());
        let Some(exported) = self.core.exports.find(target) else {
            for &port in ports {
                self.core.send_no_answer(&from, port, Refusal::Stopped);
            }
            let path = ActorPath::new(format!("{}/{target:?}", self.core.id));
            let letters = self.core.system.dead_letters();
            letters.report(&path, DeadLetterReason::RefusedStopped, "(not known)");
            self.count_undelivered(format_args!("no actor is reached by {target:?}"));
            return;
        };
        let delivered = self.guarded(|| {
            let read = || exported.deliver(tag, payload);
            let (delivered, _) = in_scope(&self.core, from.clone(), read);
            delivered
        });
        match delivered {
            Some(Ok(())) => {}
            Some(Err(undelivered)) => {
                for &port in ports {
                    self.core.send_no_answer(&from, port, undelivered.refusal());
                }
                self.note_undelivered(exported.path(), &undelivered);
                // The message in it is the program's own.
                self.guarded(|| drop(undelivered));
            }
            None => {
                for &port in ports {
                    self.core.send_port_dropped(&from, port);
                }
            }
        }
    }

    fn note_undelivered(&self, actor: &ActorPath, undelivered: &Undelivered) {
        let (message_type, what) = match undelivered {
            Undelivered::Refused { .. } => return self.core.counters.undelivered.add(1),
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

    fn answer(&self, port: ExportId, payload: Bytes) {
        let from = Address::Exactly(self.node.clone());
        let exports = &self.core.exports;
        let answered = self.guarded(|| {
            let (answered, _) = in_scope(&self.core, from, || {
                exports.answer(self.node.addr, port, &payload)
            });
            answered
        });
        match answered {
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
