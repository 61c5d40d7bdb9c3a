//! Wire format: the bytes that nodes exchange, and every limit that is checked before believing them.
//!
//! ```text
//! lane      preamble | frame | frame | ..
//! preamble  "OTVA" | u16 wire version | u8 lane | u8 zero
//! frame     u32 length of what follows | u8 kind | body          (little endian, no codec)
//! packed    a frame of kind 23, with another one inside, compressed: version 2, large lane only
//! credit    a frame of kind 24, how much of the large lane was taken: version 3, a lane of its own
//! payload   u8 codec format (1) | bincode 2, standard configuration, serde
//! ```
//!
//! Frames are written by hand, so that their layout is decided here and not by a library; what the
//! user's messages look like is the codec's business, and only this module and its files name the
//! codec. Golden bytes of every released version stay in `remote/fixtures/` and are decoded in tests
//! for good.
//!
//! **Invariant:** bytes from the network never panic, never make a node recurse deeper than
//! [`payload::DEPTH_MAX`], and never make it do or hold more than their own number explains: a length is
//! checked against a limit, and against the bytes that are there, before room is made for it.

mod body;
mod codes;
mod deserializer;
mod frame;
mod packed;
mod payload;
mod preamble;
mod serializer;
mod splitter;
mod type_tag;
mod view;

pub use frame::ExportId;
pub use payload::{DecodeError, EncodeError, decode, encode};

pub(crate) use codes::RefuseReason;
pub(crate) use frame::{
    CLUSTER_BYTES_MAX, Frame, FrameError, Hello, SystemMessage, TARGET_NAME_BYTES_MAX, Target,
    encode_answer, encode_message,
};
pub(crate) use packed::{PackedError, Packing, Unpacking, is_packed};
pub(crate) use payload::encode_into;
pub(crate) use preamble::{LanePreamble, PreambleError};
pub(crate) use splitter::FrameSplitter;
pub(crate) use type_tag::type_tag;
pub(crate) use view::{MessageView, TargetView, View};

/// The oldest wire version that this program speaks.
pub(crate) const WIRE_VERSION_MIN: u16 = 1;

/// The newest wire version that this program speaks.
pub(crate) const WIRE_VERSION_MAX: u16 = 3;

/// Since this version frames on the lane for large messages may be packed.
pub(crate) const PACKED_SINCE: u16 = 2;

/// Since this version the lane for large messages waits for credits, which have a lane of their own.
pub(crate) const CREDITS_SINCE: u16 = 3;
