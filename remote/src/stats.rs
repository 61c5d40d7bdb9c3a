//! Stats: what the remote layer of a node has done so far, as plain counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that many may add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one and tells whether this one should be logged: the first, and then ever more rarely.
    pub(crate) fn add_and_log(&self) -> bool {
        (self.0.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two()
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_saved: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) dropped: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) frames_sent: Counter,
    pub(crate) not_permitted: Counter,
    pub(crate) not_understood: Counter,
    pub(crate) packed: Counter,
    pub(crate) peer_faults: Counter,
    pub(crate) refused: Counter,
    pub(crate) refused_calls: Counter,
    pub(crate) undelivered: Counter,
    pub(crate) unpacked: Counter,
    pub(crate) writes: Counter,
}

/// Counts since the layer was started ([`crate::Remote::stats`]).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RemoteStats {
    /// Bytes that compression saved on frames that were sent ([`crate::Compression`]).
    pub bytes_saved: u64,
    /// Bytes handed to the network.
    pub bytes_sent: u64,
    /// Frames that arrived compressed.
    pub compressed_received: u64,
    /// Frames that were sent compressed.
    pub compressed_sent: u64,
    /// Frames that were queued and then given up, because their peer was not reached.
    pub dropped: u64,
    /// Frames that arrived.
    pub frames_received: u64,
    /// Frames handed to the network.
    pub frames_sent: u64,
    /// Messages, watches and control messages that arrived from peers without the right to send them
    /// ([`crate::Rights`]).
    pub not_permitted: u64,
    /// Messages that arrived and are of another version or layout than this program knows; also
    /// counted as `undelivered`.
    pub not_understood: u64,
    /// Asks to other nodes that wait for their answer now.
    pub open_ports: u64,
    /// Nodes that are remembered now, connected or not.
    pub peers: u64,
    /// Connections that ended because the peer broke the protocol.
    pub peer_faults: u64,
    /// Frames that were not queued, because a lane was full or closed.
    pub refused: u64,
    /// Connections that other nodes made and this one refused in the handshake.
    pub refused_calls: u64,
    /// Messages that arrived and did not reach an actor: none of that name or id, another type, or a
    /// full mailbox.
    pub undelivered: u64,
    /// Writes to the network; several frames share one.
    pub writes: u64,
}

impl Counters {
    pub(crate) fn stats(&self, open_ports: usize, peers: usize) -> RemoteStats {
        RemoteStats {
            bytes_saved: self.bytes_saved.get(),
            bytes_sent: self.bytes_sent.get(),
            compressed_received: self.unpacked.get(),
            compressed_sent: self.packed.get(),
            dropped: self.dropped.get(),
            frames_received: self.frames_received.get(),
            frames_sent: self.frames_sent.get(),
            not_permitted: self.not_permitted.get(),
            not_understood: self.not_understood.get(),
            open_ports: open_ports as u64,
            peers: peers as u64,
            peer_faults: self.peer_faults.get(),
            refused: self.refused.get(),
            refused_calls: self.refused_calls.get(),
            undelivered: self.undelivered.get(),
            writes: self.writes.get(),
        }
    }
}
