//! Conformance: all stores of this crate pass the public kit.

use crate::support::open_merging;
use otava_persistence::{
    Journal, MemoryJournal, SnapshotStore, SqliteConfig, SqliteJournal, conformance,
};
use std::cell::RefCell;
use std::sync::Arc;
use tempfile::TempDir;

mod memory {
    use super::*;

    async fn fresh() -> Arc<MemoryJournal> {
        Arc::new(MemoryJournal::new())
    }

    otava_persistence::conformance_tests!(
        fresh: journal, deletes, queries, states, snapshots, offsets
    );
}

thread_local! {
    /// Each test has a thread of its own: the folders go when it ends.
    static FOLDERS: RefCell<Vec<TempDir>> = const { RefCell::new(Vec::new()) };
}

fn folder() -> std::path::PathBuf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    FOLDERS.with_borrow_mut(|folders| folders.push(folder));
    path
}

mod embedded {
    use super::*;

    async fn fresh() -> Arc<SqliteJournal> {
        let path = folder().join("journal.db");
        let journal = SqliteJournal::open(path, SqliteConfig::default()).await;
        Arc::new(journal.unwrap())
    }

    otava_persistence::conformance_tests!(
        fresh: journal, deletes, queries, states, snapshots, offsets
    );
}

/// The same while the index of events is in two parts all the time.
mod embedded_merging {
    use super::*;

    async fn fresh() -> Arc<SqliteJournal> {
        Arc::new(open_merging(&folder().join("journal.db")).await)
    }

    otava_persistence::conformance_tests!(fresh: journal, deletes, queries, states);
}

/// The kit as one function, for who wants no test a case.
#[tokio::test]
async fn the_memory_journal_conforms() {
    let fresh = async || Arc::new(MemoryJournal::new());
    conformance::journal(fresh).await;
    conformance::deletes(fresh).await;
    conformance::queries(fresh).await;
    conformance::states(fresh).await;
    conformance::snapshots(fresh).await;
    conformance::offsets(fresh).await;
}

/// A store that breaks a promise is found, and the case is named.
#[tokio::test]
#[should_panic(expected = "conformance case `the_newest_within_the_bound_is_given` failed")]
async fn a_store_that_errs_is_found() {
    struct Forgetful(MemoryJournal);

    impl SnapshotStore for Forgetful {
        fn save(
            &self,
            snapshot: otava_persistence::Snapshot,
            keep: std::num::NonZeroU32,
        ) -> futures_util::future::BoxFuture<'_, Result<(), otava_persistence::JournalError>>
        {
            let snapshots = self.0.snapshots().unwrap();
            Box::pin(async move { snapshots.save(snapshot, keep).await })
        }

        fn latest<'a>(
            &'a self,
            id: &'a otava_persistence::PersistenceId,
            _seq_max: u64,
        ) -> futures_util::future::BoxFuture<
            'a,
            Result<Option<otava_persistence::Snapshot>, otava_persistence::JournalError>,
        > {
            SnapshotStore::latest(&self.0, id, u64::MAX)
        }

        fn delete<'a>(
            &'a self,
            id: &'a otava_persistence::PersistenceId,
            seq_max: u64,
        ) -> futures_util::future::BoxFuture<'a, Result<(), otava_persistence::JournalError>>
        {
            SnapshotStore::delete(&self.0, id, seq_max)
        }
    }

    conformance::snapshots(async || Arc::new(Forgetful(MemoryJournal::new()))).await;
}
