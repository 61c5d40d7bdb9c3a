//! Packed frame: a frame of a user in fewer bytes, for the lane of large messages.
//!
//! ```text
//! 23 packed      u8 method (1 LZ4) | u32 length of the frame inside | block | block | ..
//! block          u32 length | LZ4 block, without a dictionary
//! ```
//!
//! The frame inside stands without its own length: a kind and a body. Each block holds
//! [`BLOCK_BYTES`] of it, the last one what is left, so that both sides work block by block and other
//! tasks have their turn. Only messages, questions and answers are packed, and only on the lane for
//! large messages of a connection whose two nodes both speak version 2.
//!
//! **Invariant:** the length that is claimed is checked before room is made: against the limit of the
//! lane, and against what this many bytes can hold at most ([`RATIO_MAX`]). Room is made block by
//! block, for what was really there so far and once as much.

use super::codes::FrameKind;
use bytes::{Buf, Bytes};
use lz4_flex::block;

/// Bytes of the frame inside that one block holds. A contract, as the layout is.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
/// No LZ4 block holds more than this many times its own length.
const RATIO_MAX: usize = 255;
/// The number of LZ4 on the wire.
const LZ4: u8 = 1;
/// Bytes in front of the first block.
const HEAD_BYTES: usize = 6;
/// After this many bytes it is looked whether they became fewer at all.
const PROBE_BYTES: usize = 1 << 20;

/// Bytes that are no packed frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum PackedError {
    #[error("a block of a packed frame is damaged")]
    Block,
    #[error("a packed frame holds a frame of kind {0}, which is never packed")]
    Kind(u8),
    #[error("{0} bytes are left over behind a packed frame")]
    LeftOver(usize),
    #[error("a packed frame of an unknown method, {0}")]
    Method(u8),
    #[error("a packed frame claims to hold {length} bytes, where {limit} are allowed")]
    TooLong { length: usize, limit: usize },
    #[error("a packed frame ends too early")]
    Truncated,
}

/// Whether this frame, without its length, is a packed one.
pub(crate) fn is_packed(frame: &[u8]) -> bool {
    frame.first() == Some(&(FrameKind::Packed as u8))
}

/// Whether frames of this kind may be packed.
fn may_be_packed(kind: u8) -> bool {
    let kinds = [FrameKind::Message, FrameKind::Answer, FrameKind::Question];
    kinds.into_iter().any(|packed| packed as u8 == kind)
}

/// A frame that is being packed, block by block.
pub(crate) struct Packing<'a> {
    /// The frame, without its length.
    frame: &'a [u8],
    /// Where the next block begins.
    at: usize,
    /// The packed frame, without its length.
    packed: Vec<u8>,
}

impl<'a> Packing<'a> {
    /// `None` for a frame that is never packed.
    pub(crate) fn begin(frame: &'a [u8]) -> Option<Self> {
        let length = u32::try_from(frame.len()).ok()?;
        if !may_be_packed(*frame.first()?) {
            return None;
        }
        let mut packed = vec![FrameKind::Packed as u8, LZ4];
        packed.extend_from_slice(&length.to_le_bytes());
        Some(Self {
            frame,
            at: 0,
            packed,
        })
    }

    /// Packs one more block; `false` when there is none, or no gain in going on.
    pub(crate) fn step(&mut self) -> bool {
        let block = &self.frame[self.at..self.frame.len().min(self.at + BLOCK_BYTES)];
        if block.is_empty() || (self.at >= PROBE_BYTES && !self.gains()) {
            return false;
        }
        let length_at = self.packed.len();
        let begin = length_at + 4;
        let room = begin + block::get_maximum_output_size(block.len());
        self.packed.resize(room, 0);
        // The room is what the library asks for, so this cannot fail; if it did, nothing is gained.
        let Ok(written) = block::compress_into(block, &mut self.packed[begin..]) else {
            self.at = self.frame.len();
            return false;
        };
        self.packed.truncate(begin + written);
        let length = u32::try_from(written).unwrap_or(u32::MAX);
        self.packed[length_at..begin].copy_from_slice(&length.to_le_bytes());
        self.at += block.len();
        true
    }

    /// The packed frame, without its length; `None` if it is no gain over the frame as it is.
    pub(crate) fn end(self) -> Option<Vec<u8>> {
        (self.at == self.frame.len() && self.gains()).then_some(self.packed)
    }

    /// At least a sixteenth is saved. Less is not worth the work of the other side.
    fn gains(&self) -> bool {
        self.packed.len() < self.at - self.at / 16
    }
}

/// A packed frame that is being unpacked, block by block.
pub(crate) struct Unpacking {
    rest: Bytes,
    /// As much of the frame inside as is known.
    frame: Vec<u8>,
    /// How long the frame inside is.
    length: usize,
}

impl Unpacking {
    /// Looks at what a packed frame claims; the frame inside may have `limit` bytes.
    pub(crate) fn begin(mut packed: Bytes, limit: usize) -> Result<Self, PackedError> {
        if packed.len() < HEAD_BYTES {
            return Err(PackedError::Truncated);
        }
        packed.advance(1);
        let method = packed.get_u8();
        if method != LZ4 {
            return Err(PackedError::Method(method));
        }
        let length = packed.get_u32_le() as usize;
        if length > limit {
            return Err(PackedError::TooLong { length, limit });
        }
        if length == 0 || length.div_ceil(RATIO_MAX) > packed.len() {
            return Err(PackedError::Truncated);
        }
        Ok(Self {
            rest: packed,
            frame: Vec::new(),
            length,
        })
    }

    /// Unpacks one more block; the frame inside when that was the last one.
    pub(crate) fn step(&mut self) -> Result<Option<Bytes>, PackedError> {
        let known = self.frame.len();
        let inside = BLOCK_BYTES.min(self.length - known);
        let length = self.rest.try_get_u32_le();
        let length = length.map_err(|_| PackedError::Truncated)? as usize;
        if length > self.rest.len() {
            return Err(PackedError::Truncated);
        }
        let block = self.rest.split_to(length);
        if inside.div_ceil(RATIO_MAX) > block.len() {
            return Err(PackedError::Block);
        }
        if self.frame.capacity() < known + inside {
            let more = known.max(inside).min(self.length - known);
            self.frame.reserve_exact(more);
        }
        self.frame.resize(known + inside, 0);
        match block::decompress_into(&block, &mut self.frame[known..]) {
            Ok(written) if written == inside => {}
            _ => return Err(PackedError::Block),
        }
        // As soon as it is known, before more is unpacked.
        let kind = self.frame[0];
        if !may_be_packed(kind) {
            return Err(PackedError::Kind(kind));
        }
        if self.frame.len() < self.length {
            return Ok(None);
        }
        match self.rest.len() {
            0 => Ok(Some(Bytes::from(std::mem::take(&mut self.frame)))),
            left => Err(PackedError::LeftOver(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 4 << 20;

    fn pack(frame: &[u8]) -> Option<Vec<u8>> {
        let mut packing = Packing::begin(frame)?;
        while packing.step() {}
        packing.end()
    }

    fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, PackedError> {
        let mut unpacking = Unpacking::begin(Bytes::copy_from_slice(packed), limit)?;
        loop {
            if let Some(frame) = unpacking.step()? {
                return Ok(frame);
            }
        }
    }

    /// A frame of text, which shrinks.
    fn frame(bytes: usize) -> Vec<u8> {
        let words = b"the quick brown fox jumps over the lazy dog; ";
        let mut frame = vec![FrameKind::Message as u8];
        frame.extend(words.iter().cycle().take(bytes - 1));
        frame
    }

    /// What no method makes smaller.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut rng = otava_actor::Rng::seeded(1);
        let mut frame = vec![FrameKind::Answer as u8];
        frame.extend((1..bytes).map(|_| rng.next_u64() as u8));
        frame
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        for bytes in [1_000, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7] {
            let frame = frame(bytes);
            let packed = pack(&frame).unwrap();
            assert!(packed.len() < bytes / 2 && is_packed(&packed), "{bytes}");
            assert_eq!(unpack(&packed, bytes).unwrap(), frame);
            let limit = bytes - 1;
            let why = PackedError::TooLong {
                length: bytes,
                limit,
            };
            assert_eq!(unpack(&packed, limit), Err(why));
        }
    }

    #[test]
    fn what_does_not_shrink_stays_as_it_is() {
        assert_eq!(pack(&noise(1_000)), None);
        let long = noise(8 * BLOCK_BYTES);
        let mut packing = Packing::begin(&long).unwrap();
        let steps = std::iter::from_fn(|| packing.step().then_some(())).count();
        assert_eq!(steps, PROBE_BYTES / BLOCK_BYTES, "the rest is not tried");
        assert_eq!(packing.end(), None);
    }

    #[test]
    fn frames_of_the_protocol_itself_are_never_packed() {
        for kind in [FrameKind::Goodbye, FrameKind::Packed, FrameKind::Flush] {
            let mut frame = frame(1_000);
            frame[0] = kind as u8;
            assert!(Packing::begin(&frame).is_none());
        }
        assert!(Packing::begin(&[]).is_none());
        let mut packed = pack(&frame(1_000)).unwrap();
        // The token of the first block, then its first byte, which is the kind of the frame inside.
        let kind_at = HEAD_BYTES
            + 4
            + packed[HEAD_BYTES + 4..]
                .iter()
                .position(|&b| b == 16)
                .unwrap();
        packed[kind_at] = FrameKind::Packed as u8;
        assert_eq!(unpack(&packed, LIMIT), Err(PackedError::Kind(23)));
    }

    /// R5: a length that is claimed makes no room: what comes must be able to fill it.
    #[test]
    fn a_bomb_is_refused_before_there_is_room_for_it() {
        let mut zeros = vec![0; LIMIT];
        zeros[0] = FrameKind::Message as u8;
        let packed = pack(&zeros).unwrap();
        assert!(packed.len() < LIMIT / 200, "{}", packed.len());
        assert_eq!(unpack(&packed, LIMIT).unwrap().len(), LIMIT);
        assert!(matches!(
            unpack(&packed, LIMIT / 2),
            Err(PackedError::TooLong { .. })
        ));
        // A claim beyond what LZ4 can do.
        let mut claim = vec![FrameKind::Packed as u8, LZ4];
        claim.extend_from_slice(&u32::try_from(LIMIT).unwrap().to_le_bytes());
        claim.extend_from_slice(&[0; 1_000]);
        assert_eq!(unpack(&claim, LIMIT), Err(PackedError::Truncated));
        // A first block of which the bytes hold less than is claimed.
        let mut short = Unpacking::begin(Bytes::from(packed.clone()), LIMIT).unwrap();
        assert_eq!(short.step(), Ok(None));
        assert!(short.frame.capacity() <= 2 * BLOCK_BYTES);
    }

    #[test]
    fn damage_is_an_error() {
        let packed = pack(&frame(2 * BLOCK_BYTES)).unwrap();
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end], LIMIT).is_err(), "{end}");
        }
        let longer = [&packed[..], &[7]].concat();
        assert_eq!(unpack(&longer, LIMIT), Err(PackedError::LeftOver(1)));
        let mut other = packed.clone();
        other[1] = 9;
        assert_eq!(unpack(&other, LIMIT), Err(PackedError::Method(9)));
    }

    /// What version 2 wrote is read for good. How small the library makes a block may change.
    #[test]
    fn golden_packed_frame_of_version_2() {
        let golden = include_bytes!("../../fixtures/v2/frame_packed.bin");
        let (length, packed) = golden.split_first_chunk().unwrap();
        assert_eq!(u32::from_le_bytes(*length) as usize, packed.len());
        let read = unpack(packed, LIMIT).unwrap();
        assert_eq!(read, frame(300));
        assert_eq!(packed[..HEAD_BYTES], pack(&read).unwrap()[..HEAD_BYTES]);
    }

    #[test]
    #[ignore = "makes the fixture"]
    fn write_the_packed_fixture() {
        let packed = pack(&frame(300)).unwrap();
        let length = u32::try_from(packed.len()).unwrap().to_le_bytes();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/v2");
        std::fs::create_dir_all(folder).unwrap();
        let file = format!("{folder}/frame_packed.bin");
        std::fs::write(file, [&length[..], &packed].concat()).unwrap();
    }

    proptest! {
        #[test]
        fn any_frame_comes_back(body in prop::collection::vec(0_u8..4, 0..4_000)) {
            let mut frame = vec![FrameKind::Question as u8];
            frame.extend_from_slice(&body);
            if let Some(packed) = pack(&frame) {
                prop_assert_eq!(unpack(&packed, frame.len()).unwrap(), frame);
            }
        }

        #[test]
        fn any_bytes_are_an_error_or_a_frame(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[FrameKind::Packed as u8, LZ4][..], &bytes].concat();
            if let Ok(frame) = unpack(&bytes, LIMIT) {
                prop_assert!(may_be_packed(frame[0]));
            }
        }
    }
}
