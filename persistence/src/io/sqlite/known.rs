//! Known: what the committer remembers from one transaction to the next, so that it looks up once
//! what it would look up for every append.
//!
//! The number that stands for an id never changes once it is committed. The newest sequence number
//! of an id and the epoch of a scope change, and any process may change them; but every commit of
//! every process counts `head.commits` up. So what is remembered holds for as long as that count,
//! which a transaction reads with the write lock held, is the one that this process left there.
//! Whatever was rolled back is forgotten with all the rest.

use crate::id::PersistenceId;
use crate::logic::mark::Head;
use std::collections::HashMap;
use std::sync::Arc;

/// What was seen or written as of one commit.
#[derive(Default)]
pub(super) struct Known {
    /// The count of commits that it is of.
    commit: u64,
    /// Grows when another process has committed: what was remembered before is out of date.
    age: u64,
    ids: HashMap<PersistenceId, Entry>,
    epochs: HashMap<Arc<str>, u64>,
}

struct Entry {
    stream: i64,
    /// The newest sequence number, and at what age it was that.
    newest: (u64, u64),
}

/// Ids and scopes that are remembered; some 150 bytes each.
const REMEMBERED_MAX: usize = 65_536;

impl Known {
    /// A transaction finds this head.
    pub(super) fn begin(&mut self, head: Head) {
        if head.commit != self.commit {
            self.commit = head.commit;
            self.age += 1;
            self.epochs.clear();
        }
        if self.ids.len() > REMEMBERED_MAX {
            self.ids.clear();
        }
        if self.epochs.len() > REMEMBERED_MAX {
            self.epochs.clear();
        }
    }

    /// The transaction was committed, with this head.
    pub(super) fn committed(&mut self, head: Head) {
        self.commit = head.commit;
    }

    /// The transaction was taken back.
    pub(super) fn rolled_back(&mut self) {
        *self = Self::default();
    }

    /// The number of an id, and its newest sequence number if that is known.
    pub(super) fn stream(&self, id: &PersistenceId) -> Option<(i64, Option<u64>)> {
        let Entry { stream, newest } = self.ids.get(id)?;
        Some((*stream, (newest.1 == self.age).then_some(newest.0)))
    }

    pub(super) fn note_stream(&mut self, id: &PersistenceId, stream: i64) {
        // No newest number has this age.
        let newest = (0, u64::MAX);
        self.ids.insert(id.clone(), Entry { stream, newest });
    }

    /// Takes note of the newest sequence number of an id whose number is known.
    pub(super) fn note_newest(&mut self, id: &PersistenceId, seq: u64) {
        if let Some(entry) = self.ids.get_mut(id) {
            entry.newest = (seq, self.age);
        }
    }

    /// The epoch that was claimed last, 0 if none was.
    pub(super) fn epoch(&self, scope: &str) -> Option<u64> {
        self.epochs.get(scope).copied()
    }

    pub(super) fn note_epoch(&mut self, scope: &Arc<str>, epoch: u64) {
        self.epochs.insert(Arc::clone(scope), epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(commit: u64) -> Head {
        Head {
            commit,
            position: 0,
        }
    }

    #[test]
    fn what_another_process_may_have_changed_is_forgotten() {
        let (id, scope) = (PersistenceId::new("k", "a"), Arc::from("s"));
        let mut known = Known::default();
        known.begin(head(5));
        known.note_stream(&id, 3);
        assert_eq!(known.stream(&id), Some((3, None)));
        known.note_newest(&id, 9);
        known.note_epoch(&scope, 2);
        known.committed(head(6));
        known.begin(head(6));
        assert_eq!(
            (known.stream(&id), known.epoch("s")),
            (Some((3, Some(9))), Some(2))
        );
        known.begin(head(7));
        assert_eq!(
            (known.stream(&id), known.epoch("s")),
            (Some((3, None)), None)
        );
        known.note_newest(&id, 10);
        known.begin(head(7));
        assert_eq!(known.stream(&id), Some((3, Some(10))));
    }

    #[test]
    fn nothing_outlives_a_rollback() {
        let id = PersistenceId::new("k", "a");
        let mut known = Known::default();
        known.begin(head(0));
        known.note_stream(&id, 1);
        known.rolled_back();
        known.begin(head(0));
        assert_eq!(known.stream(&id), None);
    }
}
