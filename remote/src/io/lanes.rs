//! Lanes: frames in and out of one lane of a connection, and the first words on it.

use crate::config::RemoteConfig;
use crate::core::Core;
use crate::identity::PeerIdentity;
use crate::io::credits::CreditedReader;
use crate::logic::handshake::Introduction;
use crate::logic::large_window::FalseCredit;
use crate::network::{Connection, LaneError, LaneRank, LaneReader, LaneWriter};
use crate::node_id::NodeId;
use crate::outbox::{Alike, Batch, Outbox};
use crate::peer::Peer;
use crate::wire_format::{
    CREDITS_SINCE, Frame, FrameError, FrameSplitter, Hello, LanePreamble, PACKED_SINCE,
    PackedError, Packing, PreambleError, WIRE_VERSION_MAX, WIRE_VERSION_MIN,
};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// The number of the control lane; ordinary lanes follow.
pub(crate) const CONTROL_LANE: u8 = 0;
/// The number of the lane for large messages, whatever the number of ordinary ones.
pub(crate) const LARGE_LANE: u8 = RemoteConfig::ORDINARY_LANES_MAX + 1;
/// The number of the lane on which credits for the peer's large lane go out.
pub(crate) const CREDIT_LANE: u8 = RemoteConfig::ORDINARY_LANES_MAX + 2;
/// The most bytes that are read at once.
const READ_BYTES_MAX: usize = 64 << 10;
/// A frame of the handshake is small.
const HANDSHAKE_BYTES_MAX: usize = 4 << 10;

/// A connection that a peer made, with its introduction read.
pub(crate) struct Incoming {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) hello: Hello,
    pub(crate) reader: FrameReader,
}

/// A connection on which both sides have agreed.
pub(crate) struct Link {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) node: NodeId,
    /// Who the node is by its credentials.
    pub(crate) identity: Arc<PeerIdentity>,
    /// The newest wire version that both speak.
    pub(crate) version: u16,
    pub(crate) reader: FrameReader,
    /// Of the control lane; taken when it is put to work.
    pub(crate) writer: Option<Box<dyn LaneWriter>>,
}

/// What ends a connection: the network, or a peer that breaks the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneFault {
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error("the peer broke the protocol: {0}")]
    Peer(String),
}

impl LaneFault {
    pub(crate) fn unexpected(frame: &Frame) -> Self {
        Self::Peer(format!("a {:?} frame where none may be", frame.kind()))
    }
}

impl From<FalseCredit> for LaneFault {
    fn from(error: FalseCredit) -> Self {
        Self::Peer(error.to_string())
    }
}

impl From<FrameError> for LaneFault {
    fn from(error: FrameError) -> Self {
        Self::Peer(error.to_string())
    }
}

impl From<PackedError> for LaneFault {
    fn from(error: PackedError) -> Self {
        Self::Peer(error.to_string())
    }
}

impl From<PreambleError> for LaneFault {
    fn from(error: PreambleError) -> Self {
        Self::Peer(error.to_string())
    }
}

/// The receiving end of a lane, cut into frames.
pub(crate) struct FrameReader {
    reader: Box<dyn LaneReader>,
    splitter: FrameSplitter,
    lane: u8,
    version: u16,
}

impl FrameReader {
    /// Reads what a lane begins with. Until the handshake is done only small frames are taken.
    pub(crate) async fn begin(mut reader: Box<dyn LaneReader>) -> Result<Self, LaneFault> {
        let mut head = BytesMut::with_capacity(LanePreamble::LEN);
        while head.len() < LanePreamble::LEN {
            match reader.read(LanePreamble::LEN - head.len()).await? {
                Some(bytes) => head.extend_from_slice(&bytes),
                None => return Err(LaneFault::Peer("a lane without a beginning".to_owned())),
            }
        }
        let mut bytes = [0; LanePreamble::LEN];
        bytes.copy_from_slice(&head);
        let preamble = LanePreamble::decode(bytes)?;
        if !(WIRE_VERSION_MIN..=WIRE_VERSION_MAX).contains(&preamble.version) {
            let version = preamble.version;
            return Err(LaneFault::Peer(format!("unknown wire version {version}")));
        }
        Ok(Self {
            reader,
            splitter: FrameSplitter::new(HANDSHAKE_BYTES_MAX),
            lane: preamble.lane,
            version: preamble.version,
        })
    }

    /// Whether packed frames may stand on it.
    pub(crate) fn takes_packed(&self) -> bool {
        self.lane == LARGE_LANE && self.version >= PACKED_SINCE
    }

    /// Whether credits are sent for what is taken of it.
    pub(crate) fn wants_credits(&self) -> bool {
        self.lane == LARGE_LANE && self.version >= CREDITS_SINCE
    }

    /// From now on credits go out on a lane of their own, if the connection still takes one. To be called
    /// before anything was read that follows the beginning.
    pub(crate) async fn with_credits(self, connection: &Arc<dyn Connection>) -> Self {
        let Ok(credits) = open(connection, CREDIT_LANE, self.version, None).await else {
            // What has arrived is read nevertheless.
            return self;
        };
        let reader = Box::new(CreditedReader::new(self.reader, credits));
        Self { reader, ..self }
    }

    pub(crate) fn lane(&self) -> u8 {
        self.lane
    }

    /// From now on frames of up to `frame_bytes_max` are taken. To be called between frames, before
    /// anything that follows was read.
    pub(crate) fn allow(&mut self, frame_bytes_max: usize) {
        self.splitter.set_limit(frame_bytes_max);
    }

    /// The next frame; `None` when the peer finished the lane.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, LaneFault> {
        match self.next_bytes().await? {
            Some(bytes) => Ok(Some(Frame::decode(bytes)?)),
            None => Ok(None),
        }
    }

    /// As [`Self::next`], not decoded.
    pub(crate) async fn next_bytes(&mut self) -> Result<Option<Bytes>, LaneFault> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            // Each read lets the network send and take more: a frame in many pieces would keep this
            // thread, and with it whatever was woken for that.
            if self.lane == LARGE_LANE {
                tokio::task::yield_now().await;
            }
            match self.reader.read(READ_BYTES_MAX).await? {
                Some(bytes) => self.splitter.push(bytes),
                None if self.splitter.is_between_frames() => return Ok(None),
                None => return Err(LaneFault::Peer("a lane ended within a frame".to_owned())),
            }
        }
    }

    /// The next frame, not decoded, if it has arrived whole.
    pub(crate) fn buffered(&mut self) -> Result<Option<Bytes>, LaneFault> {
        Ok(self.splitter.next()?)
    }
}

/// The wire version of control lanes: the peer's versions are not known when the first one begins.
pub(crate) const CONTROL_VERSION: u16 = WIRE_VERSION_MIN;

/// The newest wire version that both this node and the peer speak.
pub(crate) fn common_version(theirs: &Hello) -> u16 {
    theirs.version_max.min(WIRE_VERSION_MAX)
}

/// Opens a lane and writes what it begins with, and `frame` behind it.
pub(crate) async fn open(
    connection: &Arc<dyn Connection>,
    lane: u8,
    version: u16,
    frame: Option<&Frame>,
) -> Result<Box<dyn LaneWriter>, LaneError> {
    let mut writer = connection.open_lane().await?;
    writer.set_rank(match lane {
        CONTROL_LANE | CREDIT_LANE => LaneRank::First,
        LARGE_LANE => LaneRank::Last,
        _ => LaneRank::Middle,
    });
    let preamble = LanePreamble { lane, version };
    let mut bytes = preamble.encode().to_vec();
    if let Some(frame) = frame {
        frame.encode_into(&mut bytes);
    }
    writer.write(Bytes::from(bytes)).await?;
    Ok(writer)
}

/// Writes what waits in `outbox`, until it is held, or closed and empty. Then it finishes the lane; a
/// closed one after `last`, if there is one. Frames of more than `pack_above` bytes are packed.
pub(crate) async fn write_lane(
    core: &Core,
    peer: &Peer,
    outbox: &Outbox,
    node: &NodeId,
    mut writer: Box<dyn LaneWriter>,
    pack_above: Option<usize>,
    last: Option<Frame>,
) -> Result<(), LaneFault> {
    while let Some(batch) = outbox.take().await {
        let (bytes, frames) = keep_for(core, peer, node.incarnation, batch);
        if bytes.is_empty() {
            continue;
        }
        let bytes = match pack_above {
            Some(above) => pack(core, bytes, above).await,
            None => bytes,
        };
        core.counters.frames_sent.add(frames as u64);
        core.counters.bytes_sent.add(bytes.len() as u64);
        core.counters.writes.add(1);
        writer.write(bytes).await?;
    }
    if let Some(frame) = last.filter(|_| outbox.is_closed()) {
        let mut bytes = Vec::new();
        frame.encode_into(&mut bytes);
        writer.write(Bytes::from(bytes)).await?;
    }
    writer.finish().await;
    Ok(())
}

/// Packs the frames of more than `above` bytes in a piece. Others have their turn between blocks.
async fn pack(core: &Core, piece: Bytes, above: usize) -> Bytes {
    // One frame that is longer than a piece stands alone in it, so mostly nothing is copied.
    let mut packed_piece: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(length) = piece[at..].first_chunk() {
        let end = at + 4 + u32::from_le_bytes(*length) as usize;
        let Some(frame) = piece.get(at + 4..end) else {
            break;
        };
        let packed = match Packing::begin(frame).filter(|_| frame.len() > above) {
            Some(mut packing) => {
                while packing.step() {
                    tokio::task::yield_now().await;
                }
                packing.end()
            }
            None => None,
        };
        match packed {
            Some(packed) => {
                core.counters.packed.add(1);
                let saved = frame.len() - packed.len();
                core.counters.bytes_saved.add(saved as u64);
                let piece_so_far = packed_piece.get_or_insert_with(|| piece[..at].to_vec());
                let length = u32::try_from(packed.len()).unwrap_or(u32::MAX);
                piece_so_far.extend_from_slice(&length.to_le_bytes());
                piece_so_far.extend_from_slice(&packed);
            }
            None => {
                if let Some(piece_so_far) = &mut packed_piece {
                    piece_so_far.extend_from_slice(&piece[at..end]);
                }
            }
        }
        at = end;
    }
    packed_piece.map_or(piece, Bytes::from)
}

/// Takes out what is meant for another run of the node than the one that is connected. Returns what
/// is left, and how many frames that are.
fn keep_for(core: &Core, peer: &Peer, run: u64, batch: Batch) -> (Bytes, usize) {
    let fits = |alike: &Alike| alike.about.incarnation.is_none_or(|of| of == run);
    if batch.alike.iter().all(fits) {
        let frames = batch.alike.iter().map(|alike| alike.frames).sum();
        return (batch.bytes, frames);
    }
    let mut kept = BytesMut::with_capacity(batch.bytes.len());
    let (mut rest, mut ports, mut frames) = (batch.bytes, batch.ports.into_iter(), 0);
    for alike in batch.alike {
        let bytes = rest.split_to(alike.bytes);
        let ports: Vec<_> = ports.by_ref().take(alike.ports).collect();
        if fits(&alike) {
            kept.extend_from_slice(&bytes);
            frames += alike.frames;
        } else {
            core.close_ports(peer.addr, &ports);
            core.give_up_frames(peer, alike);
        }
    }
    (kept.freeze(), frames)
}

/// How this node introduces itself.
pub(crate) fn hello(core: &Core) -> Hello {
    let us = introduction_of_us(core);
    Hello {
        cluster: us.cluster,
        version_min: us.version_min,
        version_max: us.version_max,
        node: us.node,
        lanes: core.config.lanes,
        frame_bytes_max: u32::try_from(core.config.frame_bytes_max).unwrap_or(u32::MAX),
    }
}

pub(crate) fn introduction_of_us(core: &Core) -> Introduction {
    Introduction {
        cluster: core.cluster.clone(),
        node: core.id.clone(),
        version_min: WIRE_VERSION_MIN,
        version_max: WIRE_VERSION_MAX,
    }
}

/// What a peer said of itself, as far as it decides anything.
pub(crate) fn introduction_of(hello: &Hello) -> Introduction {
    Introduction {
        cluster: hello.cluster.clone(),
        node: hello.node.clone(),
        version_min: hello.version_min,
        version_max: hello.version_max,
    }
}

/// Whether this many lanes may be open in one connection.
pub(crate) fn is_lane(lane: u8) -> bool {
    lane < RemoteConfig::LANES_MAX
}
