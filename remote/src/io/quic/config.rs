//! Configuration of QUIC: limits and times, with their reasons.

use crate::config::RemoteConfig;
use crate::logic::callers::Places;
use std::time::Duration;

/// Settings of [`crate::QuicNetwork`]. The defaults fit nodes of one data centre.
///
/// ```
/// use otava_remote::QuicConfig;
/// use std::time::Duration;
///
/// let config = QuicConfig::default().idle_timeout(Duration::from_secs(5));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuicConfig {
    /// How often a connection on which nothing else happens shows that it lives. Default 250 ms.
    /// Keep it well below [`Self::idle_timeout`], so that some of these packets may be lost.
    pub keep_alive: Duration,
    /// A connection on which nothing arrives for this long is closed. Default 2 s: a peer that was
    /// killed says nothing, and this is how its connections end. The smaller value of both sides
    /// counts.
    pub idle_timeout: Duration,
    /// How long a connection may take to be made, on either side. Default 3 s.
    pub connect_timeout: Duration,
    /// Lanes that a peer may have open at once. Default 16; less than 11, which two nodes may need, counts
    /// as 11.
    pub lanes_max: u32,
    /// Bytes that a peer may send on one lane beyond what was read. Default 192 KiB. A message on another
    /// lane waits for as much that was sent before it, and a lane carries no more than this in a
    /// round trip: between data centres give as many bytes as the line carries in one. What a peer may
    /// make this node hold is this times [`Self::lanes_max`]: no unread lane blocks another.
    pub lane_window_bytes: u32,
    /// Connections that may be under way at once because others call. Default 64; whoever calls
    /// beyond is refused and may call again.
    pub handshakes_max: usize,
    /// Of these, how many before callers must first prove that they are where they say they are.
    /// Default 32: it costs them a round trip, and keeps out packets with a forged sender.
    pub handshakes_unproved_max: usize,
    /// Of these, how many from one address (of IPv6, one network of 64 bits). Default 32: no address
    /// keeps all others out. Half as many before its callers must prove that they are there.
    pub handshakes_of_address_max: usize,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_millis(250),
            idle_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            lanes_max: 16,
            lane_window_bytes: 192 << 10,
            handshakes_max: 64,
            handshakes_unproved_max: 32,
            handshakes_of_address_max: 32,
        }
    }
}

impl QuicConfig {
    /// Sets [`Self::keep_alive`].
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Sets [`Self::idle_timeout`].
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets [`Self::connect_timeout`].
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`Self::lanes_max`].
    #[must_use]
    pub fn lanes_max(mut self, lanes: u32) -> Self {
        self.lanes_max = lanes;
        self
    }

    /// Sets [`Self::lane_window_bytes`].
    #[must_use]
    pub fn lane_window_bytes(mut self, bytes: u32) -> Self {
        self.lane_window_bytes = bytes;
        self
    }

    /// Sets [`Self::handshakes_max`].
    #[must_use]
    pub fn handshakes_max(mut self, handshakes: usize) -> Self {
        self.handshakes_max = handshakes;
        self
    }

    /// Sets [`Self::handshakes_unproved_max`].
    #[must_use]
    pub fn handshakes_unproved_max(mut self, handshakes: usize) -> Self {
        self.handshakes_unproved_max = handshakes;
        self
    }

    /// Sets [`Self::handshakes_of_address_max`].
    #[must_use]
    pub fn handshakes_of_address_max(mut self, handshakes: usize) -> Self {
        self.handshakes_of_address_max = handshakes;
        self
    }

    /// Places for callers.
    pub(crate) fn places(&self) -> Places {
        Places {
            all: self.handshakes_max,
            unproved: self.handshakes_unproved_max,
            of_address: self.handshakes_of_address_max,
        }
    }

    /// The part that quinn keeps for each connection.
    pub(crate) fn transport(&self) -> Result<quinn::TransportConfig, quinn::VarIntBoundsExceeded> {
        let lanes_max = self.lanes_max.max(RemoteConfig::LANES_MAX.into());
        let all_lanes = u64::from(lanes_max) * u64::from(self.lane_window_bytes);
        let mut transport = quinn::TransportConfig::default();
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(DATAGRAM_BYTES_MAX);
        transport
            .mtu_discovery_config(Some(discovery))
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(self.idle_timeout.try_into()?))
            .max_concurrent_uni_streams(lanes_max.into())
            .max_concurrent_bidi_streams(0u32.into())
            .datagram_receive_buffer_size(None)
            .stream_receive_window(self.lane_window_bytes.into())
            .receive_window(quinn::VarInt::from_u64(all_lanes)?)
            .send_window(SEND_WINDOW_BYTES)
            .initial_rtt(INITIAL_RTT);
        Ok(transport)
    }
}

/// Bytes that may be under way to one peer, acknowledged by nobody yet.
const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// The longest datagram that is tried. A path takes what it takes, which is found out; where it takes
/// this (loopback, jumbo frames) small messages cost a fifth less. Ten of them, which quinn sends at
/// once, are as much as the system takes at once.
pub(super) const DATAGRAM_BYTES_MAX: u16 = 6_500;

/// Assumed until measured. quinn's 333 ms mean a whole second until a lost first packet is sent
/// again, a third of the time in which a connection must be made.
const INITIAL_RTT: Duration = Duration::from_millis(100);
