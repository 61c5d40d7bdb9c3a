//! Frame splitter: finds the frames in the bytes of a lane, however the bytes were cut.
//!
//! A frame that lies in one chunk is a view of it and is not copied; the view keeps the whole chunk
//! in memory for as long as it lives. A frame that lies in several chunks is put together in a
//! buffer that grows as its bytes arrive, to twice the longest frame at most.

use super::frame::FrameError;
use bytes::{Buf, Bytes, BytesMut};

/// The room that is made for a frame before its bytes have come.
const FIRST_ROOM: usize = 4096;

/// Splits one lane.
#[derive(Debug)]
pub(crate) struct FrameSplitter {
    frame_bytes_max: usize,
    /// What came last and was not looked at yet.
    chunk: Bytes,
    /// The length of the frame that has begun, and how many bytes of it are known.
    length: [u8; 4],
    length_known: usize,
    /// The beginning of a frame that lies in several chunks, without its length.
    begun: BytesMut,
}

impl FrameSplitter {
    /// A splitter that refuses frames of more than `frame_bytes_max` bytes, their length itself not
    /// counted.
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            chunk: Bytes::new(),
            length: [0; 4],
            length_known: 0,
            begun: BytesMut::new(),
        }
    }

    /// Adds the bytes that follow. To be called when [`Self::next`] has nothing more: what is left
    /// of an earlier chunk is copied otherwise.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut both = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            both.extend_from_slice(&self.chunk);
            both.extend_from_slice(&chunk);
            self.chunk = both.freeze();
        }
    }

    /// The next frame, its kind and body without its length; `None` until more bytes come. Once a
    /// length was refused there is no way to find the next frame: the error stays.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let known = &mut self.length[self.length_known..];
        let taken = known.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut known[..taken]);
        self.length_known += taken;
        if self.length_known < self.length.len() {
            return Ok(None);
        }
        let length = u32::from_le_bytes(self.length) as usize;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLong {
                length,
                limit: self.frame_bytes_max,
            });
        }
        Ok(self.take(length))
    }

    /// From now on refuses frames of more than `frame_bytes_max` bytes.
    pub(crate) fn set_limit(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Whether the bytes so far end with a whole frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.length_known == 0 && self.chunk.is_empty()
    }

    fn take(&mut self, length: usize) -> Option<Bytes> {
        let missing = length - self.begun.len();
        if self.chunk.len() < missing {
            if self.begun.is_empty() {
                self.begun.reserve(length.min(FIRST_ROOM));
            }
            self.begun.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return None;
        }
        self.length_known = 0;
        let rest = self.chunk.split_to(missing);
        if self.begun.is_empty() {
            return Some(rest);
        }
        self.begun.extend_from_slice(&rest);
        // taken whole, so that the frame does not share a buffer with the next one
        Some(std::mem::take(&mut self.begun).freeze())
    }
}

#[cfg(test)]
mod tests;
