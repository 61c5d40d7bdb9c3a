//! Sequence: decides whether rows that were read are the whole of what was asked for, in order.
//! Pure: numbers in, verdict out.

use crate::error::Damage;

/// Follows the sequence numbers of one id while its rows are read.
pub(crate) struct Sequence {
    next: u64,
}

impl Sequence {
    /// The reading begins at `from`, 0 and 1 meaning the first.
    pub(crate) fn from(from: u64) -> Self {
        Self { next: from.max(1) }
    }

    /// Takes note of a row.
    ///
    /// # Errors
    /// The number at which the reading has to stop, and what is wrong there.
    pub(crate) fn take(&mut self, seq: u64, row: u64) -> Result<(), (u64, Damage)> {
        if seq > self.next {
            return Err((self.next, Damage::Missing { next: seq }));
        }
        if seq < self.next {
            return Err((
                self.next,
                Damage::Malformed {
                    row,
                    what: "sequence number",
                },
            ));
        }
        self.next += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_without_gaps_passes() {
        let mut sequence = Sequence::from(0);
        assert_eq!((1..=3).try_for_each(|seq| sequence.take(seq, 0)), Ok(()));
    }

    /// P6: replay finds an overlap and a gap.
    #[test]
    fn gap_and_overlap_are_named() {
        let mut sequence = Sequence::from(5);
        assert_eq!(sequence.take(5, 0), Ok(()));
        assert_eq!(sequence.take(8, 0), Err((6, Damage::Missing { next: 8 })));
        let again = Damage::Malformed {
            row: 77,
            what: "sequence number",
        };
        assert_eq!(sequence.take(5, 77), Err((6, again)));
    }
}
