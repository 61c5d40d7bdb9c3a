//! Slices: which instance of a projection has which, and how offsets pass from one division to another.
//! Pure.

use crate::id::SLICES;

/// The slices of instance `index` of `instances`, first and last: as even as they go.
pub(crate) fn range_of(index: u16, instances: u16) -> (u16, u16) {
    let edge = |index: u16| {
        let edge = u32::from(index) * u32::from(SLICES) / u32::from(instances);
        u16::try_from(edge).unwrap_or(SLICES)
    };
    (edge(index), edge(index + 1) - 1)
}

/// An offset that holds for a range of slices.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct SliceOffset {
    /// The first slice.
    pub first: u16,
    /// The last slice.
    pub last: u16,
    /// The position behind which to go on with these slices.
    pub offset: u64,
}

impl SliceOffset {
    /// The offset of the slices from `first` to `last`.
    #[must_use]
    pub fn new(first: u16, last: u16, offset: u64) -> Self {
        Self {
            first,
            last,
            offset,
        }
    }
}

/// What becomes of the offsets of a projection when a run takes a range of slices.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Carved {
    /// The offsets within the range, which they cover without a gap: the run goes on behind these.
    pub inside: Vec<SliceOffset>,
    /// What was cut off: offsets of slices outside that had shared a range with some inside.
    pub outside: Vec<SliceOffset>,
}

/// Cuts stored offsets at the borders of the slices from `first` to `last`. What has no offset begins
/// at 0. `stored` are those that overlap with these slices; they do not overlap with each other.
///
/// For stores that keep offsets in one transaction with results: they replace the rows that overlap
/// by what this returns, and so the number of instances can change without an event that is handled
/// twice, or never.
///
/// ```
/// use otava_persistence::{SliceOffset, carve};
///
/// let carved = carve(&[SliceOffset::new(0, 1023, 70)], 0, 511);
/// assert_eq!(carved.inside, [SliceOffset::new(0, 511, 70)]);
/// assert_eq!(carved.outside, [SliceOffset::new(512, 1023, 70)]);
/// ```
#[must_use]
pub fn carve(stored: &[SliceOffset], first: u16, last: u16) -> Carved {
    let mut stored = stored.to_vec();
    stored.sort_unstable();
    let mut carved = Carved::default();
    // The first slice that is not covered yet; wider than a slice, so that it can pass the last one.
    let (mut next, end) = (u32::from(first), u32::from(last));
    for row in stored {
        if row.first > last || row.last < first {
            carved.outside.push(row);
            continue;
        }
        if row.first < first {
            carved
                .outside
                .push(SliceOffset::new(row.first, first - 1, row.offset));
        }
        let begin = row.first.max(first);
        cover(&mut carved.inside, &mut next, u32::from(begin), 0);
        let behind = u32::from(row.last.min(last)) + 1;
        cover(&mut carved.inside, &mut next, behind, row.offset);
        if row.last > last {
            carved
                .outside
                .push(SliceOffset::new(last + 1, row.last, row.offset));
        }
    }
    cover(&mut carved.inside, &mut next, end + 1, 0);
    carved
}

/// Covers the slices from `next` up to but not including `end`; one offset in one range.
fn cover(inside: &mut Vec<SliceOffset>, next: &mut u32, end: u32, offset: u64) {
    let slice = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    if *next >= end {
        return;
    }
    match inside.last_mut() {
        Some(before) if before.offset == offset => before.last = slice(end - 1),
        _ => inside.push(SliceOffset::new(slice(*next), slice(end - 1), offset)),
    }
    *next = end;
}

/// The offset of `slice` in ranges that do not overlap; 0 outside of them.
pub(crate) fn offset_of(pieces: &[SliceOffset], slice: u16) -> u64 {
    let piece = pieces
        .iter()
        .find(|piece| (piece.first..=piece.last).contains(&slice));
    piece.map_or(0, |piece| piece.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slices_are_divided_evenly_without_gap_or_overlap() {
        for instances in 1..=SLICES {
            let mut next = 0;
            for index in 0..instances {
                let (first, last) = range_of(index, instances);
                assert_eq!(first, next);
                assert!(last >= first);
                let (count, share) = (last - first + 1, SLICES / instances);
                assert!(count == share || count == share + 1, "{instances}: {count}");
                next = last + 1;
            }
            assert_eq!(next, SLICES);
        }
    }

    #[test]
    fn a_gap_begins_at_nothing_and_equal_neighbours_join() {
        let piece = SliceOffset::new;
        let stored = [piece(20, 29, 7), piece(30, 39, 7), piece(60, 99, 9)];
        let carved = carve(&stored, 10, 79);
        let inside = [
            piece(10, 19, 0),
            piece(20, 39, 7),
            piece(40, 59, 0),
            piece(60, 79, 9),
        ];
        assert_eq!(carved.inside, inside);
        assert_eq!(carved.outside, [piece(80, 99, 9)]);
        assert_eq!((offset_of(&inside, 39), offset_of(&inside, 80)), (7, 0));
    }

    proptest! {
        /// Whatever divisions follow each other, and however far each instance came: no slice goes
        /// back or forward by being cut.
        #[test]
        fn every_slice_keeps_its_offset_over_divisions(
            story in proptest::collection::vec((1_u16..40, any::<u16>(), 0_u64..5), 1..40),
        ) {
            let mut truth = vec![0_u64; usize::from(SLICES)];
            let mut rows: Vec<SliceOffset> = Vec::new();
            for (instances, index, progress) in story {
                let (first, last) = range_of(index % instances, instances);
                let (overlapping, others): (Vec<_>, Vec<_>) = rows
                    .iter()
                    .partition(|row| row.first <= last && row.last >= first);
                let carved = carve(&overlapping, first, last);
                prop_assert_eq!(carved.inside.first().map(|row| row.first), Some(first));
                prop_assert_eq!(carved.inside.last().map(|row| row.last), Some(last));
                let reached = truth.iter().max().unwrap() + progress;
                let advanced = carved.inside.iter().map(|row| SliceOffset { offset: reached, ..*row });
                rows = others;
                rows.extend(carved.outside);
                rows.extend(advanced);
                truth[usize::from(first)..=usize::from(last)].fill(reached);
                for (slice, expected) in truth.iter().enumerate() {
                    prop_assert_eq!(offset_of(&rows, slice as u16), *expected);
                }
            }
        }
    }
}
