//! Frame splitter tests: every way to cut the bytes gives the same frames.

use super::*;
use proptest::prelude::*;

fn with_lengths(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

fn split(chunks: impl IntoIterator<Item = Bytes>, limit: usize) -> Vec<Vec<u8>> {
    let mut splitter = FrameSplitter::new(limit);
    let mut frames = Vec::new();
    for chunk in chunks {
        splitter.push(chunk);
        while let Some(frame) = splitter.next().unwrap() {
            frames.push(frame.to_vec());
        }
    }
    assert!(splitter.is_between_frames());
    frames
}

#[test]
fn every_size_of_chunk_gives_the_same_frames() {
    let frames: Vec<Vec<u8>> = (1..40).map(|length| vec![length as u8; length]).collect();
    let bytes = Bytes::from(with_lengths(&frames));
    for size in 1..=bytes.len() {
        let chunks = (0..bytes.len())
            .step_by(size)
            .map(|at| bytes.slice(at..bytes.len().min(at + size)));
        assert_eq!(split(chunks, 39), frames, "chunks of {size}");
    }
}

proptest! {
    #[test]
    fn every_cut_gives_the_same_frames(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = Bytes::from(with_lengths(&frames));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|ends| bytes.slice(ends[0]..ends[1]));
        prop_assert_eq!(split(chunks, 60), frames);
    }

    /// Nobody says that one chunk must be done before the next is given.
    #[test]
    fn chunks_may_be_given_at_once(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..8),
        size in 1..50_usize,
    ) {
        let mut splitter = FrameSplitter::new(60);
        for chunk in with_lengths(&frames).chunks(size) {
            splitter.push(Bytes::copy_from_slice(chunk));
        }
        for frame in frames {
            prop_assert_eq!(splitter.next().unwrap().unwrap(), frame);
        }
        prop_assert_eq!(splitter.next(), Ok(None));
    }
}

#[test]
fn a_frame_in_one_chunk_is_not_copied() {
    let bytes = Bytes::from(with_lengths(&[vec![1, 2, 3], vec![4, 5]]));
    let place = bytes.as_ptr() as usize;
    let mut splitter = FrameSplitter::new(10);
    splitter.push(bytes);
    let first = splitter.next().unwrap().unwrap();
    let second = splitter.next().unwrap().unwrap();
    assert_eq!(first.as_ptr() as usize, place + 4);
    assert_eq!(second.as_ptr() as usize, place + 11);
}

/// R5: the length decides, before anything of the frame has come.
#[test]
fn a_frame_too_long_is_refused_at_its_length() {
    for length in [11, u32::MAX] {
        let mut splitter = FrameSplitter::new(10);
        splitter.push(Bytes::copy_from_slice(&length.to_le_bytes()[..3]));
        assert_eq!(splitter.next(), Ok(None));
        splitter.push(Bytes::copy_from_slice(&length.to_le_bytes()[3..]));
        let refused = Err(FrameError::TooLong {
            length: length as usize,
            limit: 10,
        });
        assert_eq!(splitter.next(), refused);
        splitter.push(Bytes::from_static(&[1, 0, 0, 0, 7]));
        assert_eq!(splitter.next(), refused, "there is no way back");
    }
}

#[test]
fn a_frame_of_no_bytes_is_refused() {
    let mut splitter = FrameSplitter::new(10);
    splitter.push(Bytes::from_static(&[0; 4]));
    assert_eq!(splitter.next(), Err(FrameError::Empty));
}

#[test]
fn room_is_made_as_bytes_arrive() {
    let frame_bytes_max = 16 << 20;
    let mut splitter = FrameSplitter::new(frame_bytes_max);
    splitter.push(Bytes::copy_from_slice(
        &(frame_bytes_max as u32).to_le_bytes(),
    ));
    assert_eq!(splitter.next(), Ok(None));
    splitter.push(Bytes::from_static(&[7; 100]));
    assert_eq!(splitter.next(), Ok(None));
    assert!(splitter.begun.capacity() <= FIRST_ROOM);
    assert!(!splitter.is_between_frames());
}
