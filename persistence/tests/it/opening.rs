//! Opening: whose file it is, what lies beside it, and how long the log grows.

use crate::support::{append, check_events, open};
use otava_persistence::{Journal, OpenError, SqliteConfig, SqliteJournal};
use std::path::{Path, PathBuf};

async fn refusal(path: &Path) -> OpenError {
    SqliteJournal::open(path, SqliteConfig::default())
        .await
        .err()
        .expect("it was opened")
}

fn marks(folder: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .filter(|path| path.to_str().unwrap().contains("-mark-"))
        .collect()
}

#[tokio::test]
async fn what_is_no_journal_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(
        &text,
        "not a database, but long enough to look like one\n".repeat(100),
    )
    .unwrap();
    assert!(matches!(
        refusal(&text).await,
        OpenError::NotAJournal { .. }
    ));

    let foreign = folder.path().join("foreign.db");
    let db = rusqlite::Connection::open(&foreign).unwrap();
    db.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(db);
    let before = std::fs::read(&foreign).unwrap();
    assert!(matches!(
        refusal(&foreign).await,
        OpenError::NotAJournal { .. }
    ));
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    let newer = folder.path().join("newer.db");
    open(&newer).await.close().await;
    rusqlite::Connection::open(&newer)
        .unwrap()
        .pragma_update(None, "user_version", 9)
        .unwrap();
    let refused = refusal(&newer).await;
    assert!(
        matches!(
            refused,
            OpenError::NewerFormat {
                found: 9,
                known: 3,
                ..
            }
        ),
        "{refused}"
    );

    let nowhere = folder.path().join("missing/journal.db");
    assert!(matches!(refusal(&nowhere).await, OpenError::File { .. }));
}

/// A crash while the file was made leaves a file without tables; it is made again.
#[tokio::test]
async fn an_empty_file_becomes_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    std::fs::write(&path, "").unwrap();
    open(&path).await.close().await;
    let wal_mode_only = folder.path().join("wal.db");
    let db = rusqlite::Connection::open(&wal_mode_only).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(db);
    let journal = open(&wal_mode_only).await;
    journal.append(append("a", 0, 1)).await.unwrap();
    journal.close().await;
}

/// Who opens removes the marks of others, and those who still run write theirs again.
#[tokio::test]
async fn marks_of_running_processes_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let one = open(&path).await;
    one.append(append("a", 0, 1)).await.unwrap();
    let two = open(&path).await;
    assert_eq!(marks(folder.path()).len(), 1);
    one.append(append("a", 1, 1)).await.unwrap();
    assert_eq!(marks(folder.path()).len(), 2);
    two.append(append("b", 0, 1)).await.unwrap();
    assert_eq!(marks(folder.path()).len(), 2);
    one.close().await;
    two.close().await;
    let again = open(&path).await;
    assert_eq!(marks(folder.path()).len(), 1);
    assert_eq!(
        (
            check_events(&again, "a").await,
            check_events(&again, "b").await
        ),
        (2, 1)
    );
    again.close().await;
}

/// The log does not grow with what is written, and at a clean end all of it is in the main file.
#[tokio::test]
async fn the_log_stays_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let log = folder.path().join("journal.db-wal");
    let mut config = SqliteConfig::default();
    config.checkpoint_pages = 100;
    let journal = SqliteJournal::open(&path, config).await.unwrap();
    let mut longest = 0;
    for n in 0..400 {
        journal.append(append("a", n * 500, 500)).await.unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    let written = 400 * 500 * 110;
    assert!(
        longest < written / 2,
        "the log grew to {longest} of {written} bytes"
    );
    journal.close().await;
    assert!(!log.exists(), "the log is left");
    let journal = open(&path).await;
    assert_eq!(check_events(&journal, "a").await, 200_000);
    journal.close().await;
}
