//! Frame: what travels on a lane, written and read by hand.
//!
//! ```text
//! 1 hello        node | string cluster | u16 version min | u16 version max | u8 lanes | u32 frame max
//! 2 welcome      as hello
//! 3 refuse       u8 reason | string detail
//! 4 control      u8 channel | payload
//! 5 system       u64 seq | 1: u64 watch | target   2: u64 watch   3: u64 watch | u8 reason
//! 6 system ack   u64 seq
//! 7 goodbye
//! 16 message     target | u64 type tag | payload
//! 17 answer      u128 port | payload
//! 18 port dropped  u128 port
//! 19 flush       u64 token
//! 20 flushed     u64 token
//! 21 question    target | u64 type tag | payload | u128 port .. | u8 number of ports
//! 22 no answer   u128 port | u8 reason
//! 23 packed      another frame, compressed: see `packed.rs`
//! 24 credit      u64 bytes of the large lane that were taken, behind its preamble
//!
//! node     string name | address | u64 incarnation
//! address  4 | 4 bytes | u16 port   or   6 | 16 bytes | u16 port
//! target   0 | u128 export          or   1 | string name
//! string   u16 length | UTF-8
//! ```
//!
//! Numbers are little endian, addresses in network order. A payload takes the rest of its frame.
//!
//! A question is a message with the reply ports in it once more, behind its payload, where a node
//! finds them that cannot read the payload: because the actor is gone, or the message not known. So
//! whoever asked learns that at once. More ports than [`PORTS_MAX`] are not listed.
//!
//! Kinds, reasons and all that is written here are a contract: numbers are added, never changed.

use super::body::{Body, put_node, put_ports, put_string, put_target};
use super::codes::{EndedCode, FrameKind, RefusalCode, RefuseReason};
use super::payload::EncodeError;
use crate::NodeId;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// The longest name of a cluster in bytes.
pub(crate) const CLUSTER_BYTES_MAX: usize = 128;

/// The longest detail of a refusal in bytes; longer ones are cut when they are written.
pub(crate) const DETAIL_BYTES_MAX: usize = 512;

/// The longest name of a published actor in bytes.
pub(crate) const TARGET_NAME_BYTES_MAX: usize = 255;

/// The most reply ports that a question lists.
pub(crate) const PORTS_MAX: usize = u8::MAX as usize;

/// Names something that a node has made reachable: an actor, or a port for one answer.
///
/// It is random, and whoever knows it may send to it: logs show its beginning only.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExportId(pub u128);

impl fmt::Display for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}…", self.0 >> 112)
    }
}

impl fmt::Debug for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whom a message is for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Target {
    /// An actor whose reference has crossed the wire.
    Export(ExportId),
    /// An actor that was published under this name, of at most [`TARGET_NAME_BYTES_MAX`] bytes.
    Name(Arc<str>),
}

/// How a node introduces itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    /// The cluster that it belongs to, of at most [`CLUSTER_BYTES_MAX`] bytes.
    pub(crate) cluster: String,
    /// The oldest wire version that it speaks.
    pub(crate) version_min: u16,
    /// The newest wire version that it speaks.
    pub(crate) version_max: u16,
    /// Which run of which node it is. Flow and scope of an IPv6 address do not travel.
    pub(crate) node: NodeId,
    /// On how many lanes it sends user messages.
    pub(crate) lanes: u8,
    /// The longest frame that it accepts.
    pub(crate) frame_bytes_max: u32,
}

/// What must reach the other node, once and in order, for as long as both live.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SystemMessage {
    /// The actor that was watched under this number has ended.
    Terminated { watch: u64, reason: EndedCode },
    /// Nobody waits for the end of the actor under this number any more.
    Unwatch { watch: u64 },
    /// Somebody wants to know when `target` ends.
    Watch { watch: u64, target: Target },
}

/// One frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    Hello(Hello),
    Welcome(Hello),
    Refuse {
        reason: RefuseReason,
        detail: String,
    },
    Control {
        channel: u8,
        payload: Bytes,
    },
    System {
        seq: u64,
        message: SystemMessage,
    },
    SystemAck {
        seq: u64,
    },
    Goodbye,
    Message {
        target: Target,
        tag: u64,
        payload: Bytes,
    },
    Answer {
        port: ExportId,
        payload: Bytes,
    },
    PortDropped {
        port: ExportId,
    },
    Flush {
        token: u64,
    },
    Flushed {
        token: u64,
    },
    /// A message with reply ports in it, at most [`PORTS_MAX`] of which are listed.
    Question {
        target: Target,
        tag: u64,
        payload: Bytes,
        ports: Vec<ExportId>,
    },
    /// The question behind a port was not even handed to an actor.
    NoAnswer {
        port: ExportId,
        why: RefusalCode,
    },
    /// All bytes of the large lane up to this number, behind its preamble, were taken.
    Credit {
        taken: u64,
    },
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of no bytes")]
    Empty,
    #[error("malformed {kind:?} frame: {problem}")]
    Malformed { kind: FrameKind, problem: Malformed },
    #[error("a frame of {length} bytes, where {limit} are allowed")]
    TooLong { length: usize, limit: usize },
    #[error("unknown kind of frame {0}")]
    UnknownKind(u8),
}

/// What is wrong with the body of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("its node has a name that no node may have")]
    BadNodeName,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    #[error("its {field} is not UTF-8")]
    NotUtf8 { field: &'static str },
    #[error("its {field} has {length} bytes, where {limit} are allowed")]
    TooLong {
        field: &'static str,
        length: usize,
        limit: usize,
    },
    #[error("it may not stand here")]
    OutOfPlace,
    #[error("it ends too early")]
    Truncated,
    #[error("its {field} begins with {code}, which is unknown")]
    UnknownCode { field: &'static str, code: u8 },
}

impl Frame {
    /// Which kind it is.
    pub(crate) const fn kind(&self) -> FrameKind {
        match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::Welcome(_) => FrameKind::Welcome,
            Self::Refuse { .. } => FrameKind::Refuse,
            Self::Control { .. } => FrameKind::Control,
            Self::System { .. } => FrameKind::System,
            Self::SystemAck { .. } => FrameKind::SystemAck,
            Self::Goodbye => FrameKind::Goodbye,
            Self::Message { .. } => FrameKind::Message,
            Self::Answer { .. } => FrameKind::Answer,
            Self::PortDropped { .. } => FrameKind::PortDropped,
            Self::Flush { .. } => FrameKind::Flush,
            Self::Flushed { .. } => FrameKind::Flushed,
            Self::Question { .. } => FrameKind::Question,
            Self::NoAnswer { .. } => FrameKind::NoAnswer,
            Self::Credit { .. } => FrameKind::Credit,
        }
    }

    /// Appends the frame with its length.
    ///
    /// Strings that are longer than allowed are written as they are, and the peer refuses the frame:
    /// better than to cut a name into another one. Only the detail of a refusal is cut.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let begin = begin_frame(out, self.kind());
        match self {
            Self::Hello(hello) | Self::Welcome(hello) => {
                put_node(out, &hello.node);
                put_string(out, &hello.cluster);
                out.extend_from_slice(&hello.version_min.to_le_bytes());
                out.extend_from_slice(&hello.version_max.to_le_bytes());
                out.push(hello.lanes);
                out.extend_from_slice(&hello.frame_bytes_max.to_le_bytes());
            }
            Self::Refuse { reason, detail } => {
                out.push(reason.code());
                put_string(out, cut(detail, DETAIL_BYTES_MAX));
            }
            Self::Control { channel, payload } => {
                out.push(*channel);
                out.extend_from_slice(payload);
            }
            Self::System { seq, message } => {
                out.extend_from_slice(&seq.to_le_bytes());
                put_system(out, message);
            }
            Self::SystemAck { seq: number }
            | Self::Flush { token: number }
            | Self::Flushed { token: number }
            | Self::Credit { taken: number } => out.extend_from_slice(&number.to_le_bytes()),
            Self::Goodbye => {}
            Self::Message {
                target,
                tag,
                payload,
            } => {
                put_target(out, target);
                out.extend_from_slice(&tag.to_le_bytes());
                out.extend_from_slice(payload);
            }
            Self::Answer { port, payload } => {
                out.extend_from_slice(&port.0.to_le_bytes());
                out.extend_from_slice(payload);
            }
            Self::PortDropped { port } => out.extend_from_slice(&port.0.to_le_bytes()),
            Self::Question {
                target,
                tag,
                payload,
                ports,
            } => {
                put_target(out, target);
                out.extend_from_slice(&tag.to_le_bytes());
                out.extend_from_slice(payload);
                put_ports(out, ports);
            }
            Self::NoAnswer { port, why } => {
                out.extend_from_slice(&port.0.to_le_bytes());
                out.push(why.code());
            }
        }
        end_frame(out, begin);
    }

    /// Reads one frame, its kind and body, without its length: what the splitter yields. Payloads
    /// are views of `bytes`.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let code = *bytes.first().ok_or(FrameError::Empty)?;
        let kind = FrameKind::from_code(code).ok_or(FrameError::UnknownKind(code))?;
        let mut body = Body::new(bytes.slice(1..));
        Self::decode_body(kind, &mut body)
            .and_then(|frame| body.end().map(|()| frame))
            .map_err(|problem| FrameError::Malformed { kind, problem })
    }

    fn decode_body(kind: FrameKind, body: &mut Body) -> Result<Self, Malformed> {
        Ok(match kind {
            FrameKind::Hello => Self::Hello(hello(body)?),
            FrameKind::Welcome => Self::Welcome(hello(body)?),
            FrameKind::Refuse => Self::Refuse {
                reason: RefuseReason::from_code(body.u8()?),
                detail: body.text("detail", DETAIL_BYTES_MAX)?,
            },
            FrameKind::Control => Self::Control {
                channel: body.u8()?,
                payload: body.rest(),
            },
            FrameKind::System => Self::System {
                seq: body.u64()?,
                message: system(body)?,
            },
            FrameKind::SystemAck => Self::SystemAck { seq: body.u64()? },
            FrameKind::Goodbye => Self::Goodbye,
            FrameKind::Message => Self::Message {
                target: body.target()?,
                tag: body.u64()?,
                payload: body.rest(),
            },
            FrameKind::Answer => Self::Answer {
                port: body.export()?,
                payload: body.rest(),
            },
            FrameKind::PortDropped => Self::PortDropped {
                port: body.export()?,
            },
            FrameKind::Flush => Self::Flush { token: body.u64()? },
            FrameKind::Flushed => Self::Flushed { token: body.u64()? },
            FrameKind::Question => {
                let ports = body.ports_at_the_end()?;
                Self::Question {
                    target: body.target()?,
                    tag: body.u64()?,
                    payload: body.rest(),
                    ports,
                }
            }
            FrameKind::NoAnswer => Self::NoAnswer {
                port: body.export()?,
                why: RefusalCode::from_code(body.u8()?),
            },
            FrameKind::Credit => Self::Credit { taken: body.u64()? },
            // Unpacked where it is allowed, before anything is decoded.
            FrameKind::Packed => return Err(Malformed::OutOfPlace),
        })
    }
}

/// Appends a message frame whose payload `payload` appends in place, a question if that opened ports.
/// The frame, without its length, may have at most `limit` bytes; after an error `out` is as it was.
/// Returns also the ports, after an error too.
pub(crate) fn encode_message(
    out: &mut Vec<u8>,
    target: &Target,
    tag: u64,
    limit: usize,
    payload: impl FnOnce(&mut Vec<u8>) -> (Result<(), EncodeError>, Vec<ExportId>),
) -> (Result<(), EncodeError>, Vec<ExportId>) {
    let mut ports = Vec::new();
    let kind_at = out.len() + LENGTH_BYTES;
    let encoded = encode_around(out, FrameKind::Message, limit, |out| {
        put_target(out, target);
        out.extend_from_slice(&tag.to_le_bytes());
        let (encoded, opened) = payload(out);
        ports = opened;
        if encoded.is_ok() && !ports.is_empty() {
            out[kind_at] = FrameKind::Question as u8;
            put_ports(out, &ports);
        }
        encoded
    });
    (encoded, ports)
}

/// Appends an answer frame, as [`encode_message`] does it.
pub(crate) fn encode_answer(
    out: &mut Vec<u8>,
    port: ExportId,
    limit: usize,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    encode_around(out, FrameKind::Answer, limit, |out| {
        out.extend_from_slice(&port.0.to_le_bytes());
        payload(out)
    })
}

fn encode_around(
    out: &mut Vec<u8>,
    kind: FrameKind,
    limit: usize,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let begin = out.len();
    let inside = begin_frame(out, kind);
    let result = match body(out) {
        Ok(()) if out.len() - inside > limit => Err(EncodeError::TooLarge { limit }),
        other => other,
    };
    match result {
        Ok(()) => end_frame(out, inside),
        Err(_) => out.truncate(begin),
    }
    result
}

const LENGTH_BYTES: usize = 4;

/// Leaves room for the length; what follows it begins at the returned place.
fn begin_frame(out: &mut Vec<u8>, kind: FrameKind) -> usize {
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind as u8);
    out.len() - 1
}

/// A frame too long for its length field claims the longest length, and is refused.
fn end_frame(out: &mut [u8], begin: usize) {
    let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
    out[begin - LENGTH_BYTES..begin].copy_from_slice(&length.to_le_bytes());
}

/// The beginning of `text`, of at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    let end = ends.find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or_default()]
}

const WATCH: u8 = 1;
const UNWATCH: u8 = 2;
const TERMINATED: u8 = 3;

fn put_system(out: &mut Vec<u8>, message: &SystemMessage) {
    let (code, watch) = match message {
        SystemMessage::Watch { watch, .. } => (WATCH, watch),
        SystemMessage::Unwatch { watch } => (UNWATCH, watch),
        SystemMessage::Terminated { watch, .. } => (TERMINATED, watch),
    };
    out.push(code);
    out.extend_from_slice(&watch.to_le_bytes());
    match message {
        SystemMessage::Watch { target, .. } => put_target(out, target),
        SystemMessage::Unwatch { .. } => {}
        SystemMessage::Terminated { reason, .. } => out.push(reason.code()),
    }
}

fn system(body: &mut Body) -> Result<SystemMessage, Malformed> {
    let code = body.u8()?;
    let watch = body.u64()?;
    match code {
        WATCH => Ok(SystemMessage::Watch {
            watch,
            target: body.target()?,
        }),
        UNWATCH => Ok(SystemMessage::Unwatch { watch }),
        TERMINATED => Ok(SystemMessage::Terminated {
            watch,
            reason: EndedCode::from_code(body.u8()?),
        }),
        code => Err(Malformed::UnknownCode {
            field: "system message",
            code,
        }),
    }
}

fn hello(body: &mut Body) -> Result<Hello, Malformed> {
    Ok(Hello {
        node: body.node()?,
        cluster: body.text("cluster name", CLUSTER_BYTES_MAX)?,
        version_min: body.u16()?,
        version_max: body.u16()?,
        lanes: body.u8()?,
        frame_bytes_max: body.u32()?,
    })
}

#[cfg(test)]
mod tests;
