//! Models: how the loom models of this crate are run (`scripts/loom.sh`).

use crate::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Wake, Waker};

/// Every interleaving.
pub(crate) fn exhaustive(model: impl Fn() + Send + Sync + 'static) {
    check(None, model);
}

/// Every interleaving in which threads are taken off their cores at most `preemptions` times, not
/// counting where they wait: all of them would take hours.
pub(crate) fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    check(Some(preemptions), model);
}

fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Counts how often its waker was used.
#[derive(Clone)]
pub(crate) struct Wakings(Arc<Count>);

struct Count(AtomicU64);

impl Default for Wakings {
    fn default() -> Self {
        Self(Arc::new(Count(AtomicU64::new(0))))
    }
}

impl Wakings {
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(self.0.clone())
    }

    /// Whether it was used since the last time.
    pub(crate) fn take(&self) -> bool {
        self.0.0.swap(0, Ordering::AcqRel) > 0
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
