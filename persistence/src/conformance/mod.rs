//! Conformance kit: what every store must do, as functions that any implementer can call in a test.
//!
//! ```no_run
//! # use otava_persistence::{conformance, Journal, MemoryJournal};
//! # use std::sync::Arc;
//! #[tokio::test]
//! async fn my_journal_conforms() {
//!     conformance::journal(async || Arc::new(MemoryJournal::new())).await;
//! }
//! ```
//!
//! Every case gets an empty store of its own. The kit needs tokio's runtime around it, paused time
//! is fine. It cannot test what needs a crash, a second process or a broken disk: those tests stand
//! beside each store.

mod journal;
mod snapshots;

use crate::journal::Journal;
use crate::snapshot::SnapshotStore;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Runs all cases for a [`Journal`]. `factory` makes an empty one.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn journal<J: Journal>(factory: impl AsyncFn() -> Arc<J>) {
    journal::all(async || factory().await as Arc<dyn Journal>).await;
}

/// Runs all cases for a [`SnapshotStore`]. `factory` makes an empty one.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn snapshots<S: SnapshotStore>(factory: impl AsyncFn() -> Arc<S>) {
    snapshots::all(async || factory().await as Arc<dyn SnapshotStore>).await;
}

/// Runs one case and names it when it fails.
async fn case(name: &str, run: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let message = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        panic!("conformance case `{name}` failed: {message}");
    }
}
