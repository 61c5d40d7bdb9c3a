//! Fixtures: journal files of each released format are kept and must be read for good.

use crate::support::{append, check_events, event, id, open};
use otava_persistence::{AppendError, Fence, Journal, Snapshot, SqliteJournal};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1/journal.db")
}

fn snapshot() -> Snapshot {
    Snapshot::new(id("a"), 2, "test.State", 3, vec![1, 2, 3])
}

/// P8: a file of format 1 has what was written, and takes more.
#[tokio::test]
async fn a_journal_of_format_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    std::fs::copy(fixture(), &path).unwrap();
    let verified = SqliteJournal::verify(&path).await.unwrap();
    assert_eq!(
        (verified.ids, verified.events, verified.snapshots),
        (2, 6, 1)
    );

    let journal = open(&path).await;
    assert_eq!(check_events(&journal, "a").await, 3);
    assert_eq!(check_events(&journal, "ä|b").await, 3);
    let page = journal.read(&id("a"), 3, 1).await.unwrap();
    assert_eq!(
        (page.events[0].position, &page.events[0].record),
        (6, &event("a", 3))
    );
    let snapshots = journal.snapshots().unwrap();
    assert_eq!(
        snapshots.latest(&id("a"), u64::MAX).await.unwrap(),
        Some(snapshot())
    );
    assert_eq!(journal.next_term("term").await.unwrap(), 3);
    let old = append("a", 3, 1).fenced(Some(Fence::new("shard", 6)));
    assert!(matches!(
        journal.append(old).await,
        Err(AppendError::Fenced { current: 7 })
    ));
    journal
        .append(append("a", 3, 1).fenced(Some(Fence::new("shard", 7))))
        .await
        .unwrap();
    journal.close().await;
}

/// Makes the fixture of the present format: `cargo test -p otava-persistence -- --ignored
/// write_the_fixture`. A released fixture is never made again.
#[tokio::test]
#[ignore = "makes the fixture"]
async fn write_the_fixture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    journal.append(append("a", 0, 2)).await.unwrap();
    journal.append(append("ä|b", 0, 3)).await.unwrap();
    journal.append(append("a", 2, 1)).await.unwrap();
    let snapshots = journal.snapshots().unwrap();
    snapshots.save(snapshot(), NonZeroU32::MIN).await.unwrap();
    journal.claim("shard", 7).await.unwrap();
    for _ in 0..2 {
        journal.next_term("term").await.unwrap();
    }
    drop(snapshots);
    journal.close().await;
    assert!(!fixture().exists(), "the fixture is there already");
    std::fs::copy(&path, fixture()).unwrap();
}
