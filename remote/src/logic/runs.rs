//! Runs: which run of the node at one address is the present one, and which are over for good.
//!
//! **Invariant:** a run that is over never becomes the present one again.

use std::collections::{BTreeSet, VecDeque};

/// Runs over that are remembered an address. Older ones than that nobody refers to any more.
const OVER_MAX: usize = 1_024;

/// The runs of the node at one address.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    present: Option<u64>,
    over: BTreeSet<u64>,
    /// Of those over, the ones that this node broke with.
    quarantined: BTreeSet<u64>,
    /// In the order in which they ended.
    order: VecDeque<u64>,
}

impl Runs {
    /// The present run, if one was met.
    pub(crate) fn present(&self) -> Option<u64> {
        self.present
    }

    /// Whether this run is over.
    pub(crate) fn is_over(&self, run: u64) -> bool {
        self.over.contains(&run)
    }

    /// Whether this node broke with this run.
    pub(crate) fn is_quarantined(&self, run: u64) -> bool {
        self.quarantined.contains(&run)
    }

    /// Whether this node broke with any run.
    pub(crate) fn any_quarantined(&self) -> bool {
        !self.quarantined.is_empty()
    }

    /// This run was met, so it is the present one. Returns the one before, which is over now.
    pub(crate) fn met(&mut self, run: u64) -> Option<u64> {
        let before = self.present.replace(run).filter(|&before| before != run);
        if let Some(before) = before {
            self.remember(before);
        }
        before
    }

    /// This run is over. Returns whether that is news.
    pub(crate) fn ended(&mut self, run: u64) -> bool {
        if self.present == Some(run) {
            self.present = None;
        }
        self.remember(run)
    }

    /// This node breaks with a run. Returns whether that is news.
    pub(crate) fn quarantine(&mut self, run: u64) -> bool {
        self.ended(run);
        self.quarantined.insert(run)
    }

    fn remember(&mut self, run: u64) -> bool {
        let new = self.over.insert(run);
        if new {
            self.order.push_back(run);
        }
        if self.order.len() > OVER_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.over.remove(&oldest);
            self.quarantined.remove(&oldest);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_ends_the_one_before() {
        let mut runs = Runs::default();
        assert_eq!(
            (runs.met(1), runs.met(1), runs.met(2)),
            (None, None, Some(1))
        );
        assert!(runs.is_over(1) && !runs.is_quarantined(1) && !runs.is_over(2));
        assert!(runs.quarantine(2) && !runs.quarantine(2));
        assert_eq!((runs.present(), runs.is_over(2)), (None, true));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut runs = Runs::default();
        for run in 0..5_000 {
            runs.met(run);
        }
        assert_eq!(runs.over.len(), OVER_MAX);
        assert!(runs.is_over(4_998) && !runs.is_over(0));
    }
}
