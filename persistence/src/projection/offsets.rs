//! Slice offsets: what a store keeps of a projection whose results are stored with their offset.

use crate::logic::slices::{SliceOffset, carve};
use crate::projection::{ProjectionCommit, ProjectionRun};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The offsets of projections, by slices, and which run has which: for results in memory, and the
/// model for other stores. What surrounds it must make it one with the results, by a lock for example.
///
/// ```
/// use otava_persistence::{ProjectionCommit, ProjectionRun, SliceOffset, SliceOffsets};
///
/// let mut offsets = SliceOffsets::default();
/// let old = ProjectionRun::new("report", 0..=1023, 1);
/// assert_eq!(offsets.claim(&old), Ok(vec![SliceOffset::new(0, 1023, 0)]));
/// assert_eq!(offsets.advance(&ProjectionCommit::new(old.clone(), 70, false)), Ok(()));
///
/// let new = ProjectionRun::new("report", 0..=511, 2);
/// assert_eq!(offsets.claim(&new), Ok(vec![SliceOffset::new(0, 511, 70)]));
/// // The old run no longer has all of its slices.
/// assert!(offsets.advance(&ProjectionCommit::new(old, 80, false)).is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct SliceOffsets(BTreeMap<Arc<str>, Vec<Row>>);

#[derive(Clone, Copy, Debug)]
struct Row {
    epoch: u64,
    at: SliceOffset,
}

/// The epoch of the run that has the slices now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("another run of the projection has taken over, at epoch {current}")]
pub struct RunFenced {
    /// The highest epoch by which one of the slices is taken.
    pub current: u64,
}

impl SliceOffsets {
    /// See [`crate::TransactionalHandler::claim`].
    ///
    /// # Errors
    /// [`RunFenced`] when a run with a higher epoch has one of the slices.
    pub fn claim(&mut self, run: &ProjectionRun) -> Result<Vec<SliceOffset>, RunFenced> {
        let rows = self.0.entry(Arc::clone(&run.name)).or_default();
        let (taken, mut kept): (Vec<Row>, Vec<Row>) =
            rows.iter().partition(|row| overlaps(row, run));
        let newest = taken.iter().map(|row| row.epoch).max().unwrap_or(0);
        if newest > run.epoch {
            return Err(RunFenced { current: newest });
        }
        // What is cut off keeps the epoch of the run that had it, which can no longer commit.
        for row in &taken {
            let carved = carve(&[row.at], run.first, run.last);
            let outside = carved.outside.into_iter();
            kept.extend(outside.map(|at| Row { at, ..*row }));
        }
        let offsets: Vec<_> = taken.iter().map(|row| row.at).collect();
        let inside = carve(&offsets, run.first, run.last).inside;
        let epoch = run.epoch;
        kept.extend(inside.iter().map(|&at| Row { epoch, at }));
        *rows = kept;
        Ok(inside)
    }

    /// See [`crate::TransactionalHandler::handle`].
    ///
    /// # Errors
    /// [`RunFenced`] when the run does not have all of its slices any more; nothing has changed.
    pub fn advance(&mut self, commit: &ProjectionCommit) -> Result<(), RunFenced> {
        let run = &commit.run;
        let rows = self.0.entry(Arc::clone(&run.name)).or_default();
        let mine = || rows.iter().filter(|row| overlaps(row, run));
        let slices = |row: &Row| u32::from(row.at.last - row.at.first) + 1;
        let owned: u32 = mine()
            .filter(|row| row.epoch == run.epoch)
            .map(slices)
            .sum();
        if owned != u32::from(run.last - run.first) + 1 {
            let current = mine().map(|row| row.epoch).max().unwrap_or(0);
            return Err(RunFenced { current });
        }
        for row in rows.iter_mut().filter(|row| overlaps(row, run)) {
            let ahead = if commit.restart { 0 } else { row.at.offset };
            row.at.offset = commit.offset.max(ahead);
        }
        Ok(())
    }
}

fn overlaps(row: &Row, run: &ProjectionRun) -> bool {
    row.at.first <= run.last && row.at.last >= run.first
}
