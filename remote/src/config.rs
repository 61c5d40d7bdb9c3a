//! Config: the settings of the remote layer, with their defaults and reasons.

use std::time::Duration;

/// Settings of the remote layer of one node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// Ordinary lanes an association; messages to one actor always take the same one, so that a
    /// slow receiver of large messages holds up only those that share its lane. Default 2, 1 to 8.
    pub lanes: u8,
    /// The largest frame in bytes, sent or accepted. A larger message is refused to its sender, and
    /// a peer that announces one is disconnected before anything is buffered. Default 1 MiB.
    pub frame_bytes_max: usize,
    /// Bytes that wait on one lane. Beyond it `tell` says full and `send` waits. Default 4 MiB.
    pub lane_bytes_max: usize,
    /// The largest frame in bytes on the lane for large messages ([`crate::RemoteMessage::LARGE`]),
    /// sent or accepted; also the bytes that wait on it. Answers that are larger than
    /// [`Self::frame_bytes_max`] take this lane too. What a peer can make this node hold for it is
    /// twice this, and only as much as it has sent; a compressed frame may hold 255 times its own
    /// bytes, and never more than this. Default 128 MiB, at most 1 GiB.
    pub large_bytes_max: usize,
    /// Whether messages on the lane for large ones are compressed before they are sent. Others are
    /// always understood compressed, whatever this says. Default: they are not.
    pub compression: Compression,
    /// How long a handshake may take, from the connection to the welcome. Default 5 s.
    pub handshake_within: Duration,
    /// The pause after a first failed attempt to connect; it doubles up to `redial_max`. What waits
    /// for the peer is dropped, and counted, when an attempt fails. Default 50 ms.
    pub redial_min: Duration,
    /// The longest pause between attempts to connect. Default 1 s.
    pub redial_max: Duration,
    /// System messages that were not acknowledged are sent again after this time. Default 1 s.
    pub system_resend: Duration,
    /// System messages that may wait for their acknowledgement. One more and the peer is
    /// quarantined. Default 20,000.
    pub system_messages_max: usize,
    /// A peer that acknowledges no system message for this long is quarantined: its actors count
    /// as lost. Default 60 s.
    pub system_give_up: Duration,
    /// Asks to other nodes that may be unanswered at once; one more is refused. Default 1,000,000.
    pub ports_max: usize,
    /// A connection that neither side has used for this long, and nobody wants to keep, is closed;
    /// the next message makes one again. It takes up to twice this time. Default 10 min.
    pub idle_close: Duration,
    /// After this time without a connection a node is forgotten, if nothing waits for it, no
    /// reference leads to it, and nothing that was agreed with it would be lost. Default 10 min.
    pub forget_after: Duration,
    /// How long [`crate::Remote::shutdown`] waits for what is queued to be sent. Default 2 s.
    pub flush_within: Duration,
}

/// How messages on the lane for large ones are sent ([`RemoteConfig::compression`]).
///
/// A message that hardly becomes smaller is sent as it is, and so is every message to a node that is
/// too old to know compression.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// With LZ4: some hundred MB a second and core, and most for text and repeated structures.
    Lz4 {
        /// Frames of at most this many bytes are sent as they are; less than 1 KiB counts as 1 KiB.
        above: usize,
    },
}

impl Compression {
    /// A smaller frame gains nothing.
    const ABOVE_MIN: usize = 1 << 10;

    /// The length beyond which frames are packed.
    pub(crate) fn above(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Lz4 { above } => Some(above.max(Self::ABOVE_MIN)),
        }
    }
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            lanes: 2,
            frame_bytes_max: 1 << 20,
            lane_bytes_max: 4 << 20,
            large_bytes_max: 128 << 20,
            compression: Compression::None,
            handshake_within: Duration::from_secs(5),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(1),
            system_resend: Duration::from_secs(1),
            system_messages_max: 20_000,
            system_give_up: Duration::from_secs(60),
            ports_max: 1_000_000,
            idle_close: Duration::from_secs(600),
            forget_after: Duration::from_secs(600),
            flush_within: Duration::from_secs(2),
        }
    }
}

impl RemoteConfig {
    /// The most lanes that a peer may open in a connection, with those for control, for large messages
    /// and for credits.
    pub(crate) const LANES_MAX: u8 = Self::ORDINARY_LANES_MAX + 3;
    /// The most ordinary lanes.
    pub(crate) const ORDINARY_LANES_MAX: u8 = 8;
    /// The largest payload of a control message.
    pub(crate) const CONTROL_BYTES_MAX: usize = 256 << 10;

    /// Brings values into the range for which the layer is made.
    pub(crate) fn clamped(mut self) -> Self {
        self.lanes = self.lanes.clamp(1, Self::ORDINARY_LANES_MAX);
        self.frame_bytes_max = self
            .frame_bytes_max
            .clamp(2 * Self::CONTROL_BYTES_MAX, 64 << 20);
        self.lane_bytes_max = self.lane_bytes_max.max(self.frame_bytes_max);
        self.large_bytes_max = self.large_bytes_max.clamp(self.frame_bytes_max, 1 << 30);
        self
    }
}
