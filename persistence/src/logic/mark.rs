//! Mark: the record of the newest acknowledged commit, and the verdict on a file that is opened.
//! Pure: bytes in, bytes out.
//!
//! A mark file has two slots of one disk sector each, written in turn, so that a torn write spoils
//! the newer one only. A slot is
//! `"OTAVAMK1" | u64 commit | u64 position | u32 CRC-32 of the 24 bytes before`, little endian.

/// The state of a journal after one of its commits.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Head {
    /// How many commits there were: appends, claims, terms and snapshots count.
    pub(crate) commit: u64,
    /// The position of the newest event.
    pub(crate) position: u64,
}

/// Bytes of a slot: what a disk writes whole.
pub(crate) const SLOT_BYTES: usize = 512;
/// Bytes of a mark file.
pub(crate) const FILE_BYTES: usize = 2 * SLOT_BYTES;

const MAGIC: &[u8; 8] = b"OTAVAMK1";
const RECORD_BYTES: usize = 28;

/// The bytes of one slot that are not zero.
pub(crate) fn encode(head: Head) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(MAGIC);
    record[8..16].copy_from_slice(&head.commit.to_le_bytes());
    record[16..24].copy_from_slice(&head.position.to_le_bytes());
    let sum = crc32fast::hash(&record[..24]);
    record[24..].copy_from_slice(&sum.to_le_bytes());
    record
}

/// A whole mark file, both slots the same.
pub(crate) fn encode_file(head: Head) -> [u8; FILE_BYTES] {
    let mut file = [0; FILE_BYTES];
    let record = encode(head);
    file[..RECORD_BYTES].copy_from_slice(&record);
    file[SLOT_BYTES..SLOT_BYTES + RECORD_BYTES].copy_from_slice(&record);
    file
}

/// The newest of the slots that are intact; `None` when none is.
pub(crate) fn decode_file(file: &[u8]) -> Option<Head> {
    file.chunks(SLOT_BYTES).filter_map(decode_slot).max()
}

fn decode_slot(slot: &[u8]) -> Option<Head> {
    let record = slot.get(..RECORD_BYTES)?;
    let number = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let head = Head {
        commit: number(8)?,
        position: number(16)?,
    };
    (encode(head) == record).then_some(head)
}

/// The acknowledged head that `found` does not reach, if there is one, by its place in `marks`.
pub(crate) fn not_reached(found: Head, marks: &[Head]) -> Option<usize> {
    let newest = (0..marks.len()).max_by_key(|&index| marks[index])?;
    let mark = marks[newest];
    (found.commit < mark.commit || found.position < mark.position).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: Head = Head {
        commit: 7,
        position: 70,
    };
    const NEW: Head = Head {
        commit: 8,
        position: 90,
    };

    fn file() -> [u8; FILE_BYTES] {
        let mut file = encode_file(OLD);
        file[SLOT_BYTES..SLOT_BYTES + RECORD_BYTES].copy_from_slice(&encode(NEW));
        file
    }

    #[test]
    fn the_newer_slot_counts_wherever_it_is() {
        assert_eq!(decode_file(&file()), Some(NEW));
        let mut swapped = file();
        swapped.rotate_left(SLOT_BYTES);
        assert_eq!(decode_file(&swapped), Some(NEW));
    }

    /// P5: no flipped bit gives a wrong number; at worst the one before is found.
    #[test]
    fn every_flipped_bit_is_harmless_or_found() {
        for bit in 0..FILE_BYTES * 8 {
            let mut flipped = file();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let in_newer = (SLOT_BYTES..SLOT_BYTES + RECORD_BYTES).contains(&(bit / 8));
            assert_eq!(
                decode_file(&flipped),
                Some(if in_newer { OLD } else { NEW }),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn what_is_no_mark_is_none() {
        assert_eq!(decode_file(&[]), None);
        assert_eq!(decode_file(&[0; FILE_BYTES]), None);
        assert_eq!(decode_file(&encode(NEW)[..20]), None);
    }

    #[test]
    fn a_file_below_any_mark_is_refused() {
        assert_eq!(not_reached(OLD, &[]), None);
        assert_eq!(not_reached(NEW, &[OLD, NEW]), None);
        assert_eq!(not_reached(OLD, &[OLD, NEW, OLD]), Some(1));
        // As many commits, but other ones: the file was replaced.
        assert_eq!(
            not_reached(
                Head {
                    commit: 9,
                    position: 1
                },
                &[NEW]
            ),
            Some(0)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(commit: u64, position: u64) {
            let head = Head { commit, position };
            prop_assert_eq!(decode_file(&encode_file(head)), Some(head));
        }
    }
}
