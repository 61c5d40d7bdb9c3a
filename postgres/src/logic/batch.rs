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

/// Requests that wait, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Waiting<T>(VecDeque<T>);

/// How large a batch may become. A single request is taken whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl<T: Write> Waiting<T> {
    pub(crate) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(crate) fn push(&mut self, request: T) {
        self.0.push_back(request);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next batch: at most one request of each id, those of one id in their order.
    pub(crate) fn take(&mut self, limits: BatchLimits) -> Vec<T> {
        let mut ids = BTreeSet::new();
        let mut batch = Vec::with_capacity(limits.requests.min(self.0.len()));
        let mut kept = VecDeque::new();
        let mut bytes: usize = 0;
        while batch.len() < limits.requests
            && (batch.is_empty() || bytes < limits.bytes)
            && let Some(request) = self.0.pop_front()
        {
            if ids.insert(request.id().clone()) {
                bytes = bytes.saturating_add(request.bytes());
                batch.push(request);
            } else {
                kept.push_back(request);
            }
        }
        kept.append(&mut self.0);
        self.0 = kept;
        batch
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

    #[test]
    fn one_request_of_an_id_goes_into_a_batch_and_order_is_kept() {
        let mut waiting = waiting(&[("a", 1), ("a", 2), ("b", 1), ("a", 3), ("c", 1), ("b", 2)]);
        let limits = BatchLimits {
            requests: 10,
            bytes: 100,
        };
        assert_eq!(names(&waiting.take(limits)), "a1 b1 c1 ");
        assert_eq!(names(&waiting.take(limits)), "a2 b2 ");
        assert_eq!(names(&waiting.take(limits)), "a3 ");
        assert!(waiting.is_empty());
    }

    #[test]
    fn limits_end_a_batch_and_never_keep_a_single_request_back() {
        let mut waiting = waiting(&[("a", 500), ("b", 1), ("b", 2), ("c", 1), ("d", 1)]);
        let limits = BatchLimits {
            requests: 2,
            bytes: 100,
        };
        assert_eq!(names(&waiting.take(limits)), "a500 ");
        assert_eq!(names(&waiting.take(limits)), "b1 c1 ");
        assert_eq!(names(&waiting.take(limits)), "b2 d1 ");
    }
}
