//! Conformance: both journals of this crate pass the public kit.

use otava_persistence::{MemoryJournal, SqliteConfig, SqliteJournal, conformance};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[tokio::test]
async fn the_memory_journal_conforms() {
    conformance::journal(async || Arc::new(MemoryJournal::new())).await;
    conformance::snapshots(async || Arc::new(MemoryJournal::new())).await;
}

#[tokio::test]
async fn the_embedded_journal_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicU32::new(0);
    let fresh = async || {
        let name = format!("{}.db", number.fetch_add(1, Ordering::Relaxed));
        let path = folder.path().join(name);
        Arc::new(
            SqliteJournal::open(path, SqliteConfig::default())
                .await
                .unwrap(),
        )
    };
    conformance::journal(&fresh).await;
    conformance::snapshots(&fresh).await;
}
