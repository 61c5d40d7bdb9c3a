//! Batch: which of the waiting requests go into the next statement. Pure.

use otava_persistence::PersistenceId;
use std::collections::{BTreeSet, VecDeque};

/// Something that is written for one id.
pub(crate) trait Write {
    /// Whose it is. Two writes of one id never share a statement.
    fn id(&self) -> &PersistenceId;

    /// Roughly how many bytes it adds to a statement.
    fn bytes(&self) -> usize;
}

/// Requests that wait, in the order in which they came, and the ids for which one is under way.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    requests: VecDeque<T>,
    under_way: BTreeSet<PersistenceId>,
    /// How many of the first requests are known to wait for one of their id that is under way.
    held: usize,
}

/// How large a batch may become. A single request is taken whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl<T: Write> Waiting<T> {
    pub(crate) fn new() -> Self {
        Self {
            requests: VecDeque::new(),
            under_way: BTreeSet::new(),
            held: 0,
        }
    }

    pub(crate) fn push(&mut self, request: T) {
        self.requests.push_back(request);
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// How many may go into a batch, as far as is known.
    pub(crate) fn free(&self) -> usize {
        self.requests.len() - self.held
    }

    /// How many are under way: one of an id.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Takes the next batch: at most one request of each id, and none of an id for which one is under
    /// way, so that those of one id are carried out in their order.
    pub(crate) fn take(&mut self, limits: BatchLimits) -> Vec<T> {
        let mut batch = Vec::with_capacity(limits.requests.min(self.requests.len()));
        let mut kept = VecDeque::new();
        let mut bytes: usize = 0;
        while batch.len() < limits.requests
            && (batch.is_empty() || bytes < limits.bytes)
            && let Some(request) = self.requests.pop_front()
        {
            if self.under_way.insert(request.id().clone()) {
                bytes = bytes.saturating_add(request.bytes());
                batch.push(request);
            } else {
                kept.push_back(request);
            }
        }
        self.held = kept.len();
        kept.append(&mut self.requests);
        self.requests = kept;
        batch
    }

    /// Takes note that a batch is answered: its ids are free again.
    pub(crate) fn answered(&mut self, batch: &[T]) {
        for request in batch {
            self.under_way.remove(request.id());
        }
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct One(PersistenceId, usize);

    impl Write for One {
        fn id(&self) -> &PersistenceId {
            &self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn waiting(all: &[(&str, usize)]) -> Waiting<One> {
        let mut waiting = Waiting::new();
        for (entity, bytes) in all {
            waiting.push(One(PersistenceId::new("k", entity), *bytes));
        }
        waiting
    }

    fn names(batch: &[One]) -> String {
        let name = |one: &One| format!("{}{} ", one.0.entity(), one.1);
        batch.iter().map(name).collect()
    }

    fn next(waiting: &mut Waiting<One>, limits: BatchLimits) -> String {
        let batch = waiting.take(limits);
        waiting.answered(&batch);
        names(&batch)
    }

    #[test]
    fn one_request_of_an_id_goes_into_a_batch_and_order_is_kept() {
        let mut waiting = waiting(&[("a", 1), ("a", 2), ("b", 1), ("a", 3), ("c", 1), ("b", 2)]);
        let limits = BatchLimits {
            requests: 10,
            bytes: 100,
        };
        assert_eq!(next(&mut waiting, limits), "a1 b1 c1 ");
        assert_eq!(next(&mut waiting, limits), "a2 b2 ");
        assert_eq!(next(&mut waiting, limits), "a3 ");
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn an_id_that_is_under_way_waits_and_the_others_go_past() {
        let mut waiting = waiting(&[("a", 1), ("b", 1), ("a", 2), ("c", 1)]);
        let two = BatchLimits {
            requests: 2,
            bytes: 100,
        };
        let first = waiting.take(two);
        assert_eq!(names(&first), "a1 b1 ");
        assert_eq!(waiting.free(), 2, "nobody has looked yet");
        let second = waiting.take(two);
        assert_eq!(names(&second), "c1 ");
        assert_eq!((waiting.len(), waiting.free()), (1, 0));
        assert_eq!(waiting.under_way(), 3);
        assert_eq!(names(&waiting.take(two)), "");
        waiting.answered(&second);
        assert_eq!(names(&waiting.take(two)), "");
        waiting.answered(&first);
        assert_eq!(waiting.free(), 1);
        assert_eq!(names(&waiting.take(two)), "a2 ");
    }

    #[test]
    fn limits_end_a_batch_and_never_keep_a_single_request_back() {
        let mut waiting = waiting(&[("a", 500), ("b", 1), ("b", 2), ("c", 1), ("d", 1)]);
        let limits = BatchLimits {
            requests: 2,
            bytes: 100,
        };
        assert_eq!(next(&mut waiting, limits), "a500 ");
        assert_eq!(next(&mut waiting, limits), "b1 c1 ");
        assert_eq!(next(&mut waiting, limits), "b2 d1 ");
    }
}
