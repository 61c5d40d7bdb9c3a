//! Fsync: one failed fsync ends the store for good, although the next one would say "fine"; a full
//! disk does not.
#![allow(clippy::print_stdout, reason = "a skipped test must say so")]

use crate::child::{command, start};
use crate::support::{append, check_events, open};
use otava_persistence::{AppendError, Journal, JournalError, OpenError, SqliteJournal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the library that makes an fsync fail; `None`, and why, when that cannot be done here.
pub(crate) fn fault_library(folder: &Path) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        println!("skipped: LD_PRELOAD faults are made for Linux");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fail_fsync.c");
    let library = folder.join("fail_fsync.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl");
    match cc.status() {
        Ok(status) if status.success() => Some(library),
        outcome => {
            println!("skipped: no C compiler: {outcome:?}");
            None
        }
    }
}

/// P4: after EIO on fsync nothing is acknowledged any more, in no process, until somebody has
/// verified the file; then every acknowledged event is there.
#[tokio::test]
async fn a_failed_fsync_halts_all_processes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fault_library(folder.path()) else {
        return;
    };
    for (round, at) in [1, 2, 7, 30].into_iter().enumerate() {
        let path = folder.path().join(format!("{round}/journal.db"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let bystander = open(&path).await;
        bystander.append(append("b", 0, 1)).await.unwrap();

        let mut faulty = command(&path, "w", "append 4 2");
        faulty
            .env("LD_PRELOAD", &library)
            .env("FAIL_FSYNC_AT", (at + 1).to_string());
        faulty.env("FAIL_FSYNC_OF", "journal.db-wal");
        let mut faulty = start(faulty);
        let mut acknowledged = BTreeMap::new();
        let mut halted = 0;
        for line in faulty.lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("ack ") {
                let (entity, seq) = rest.split_once(' ').unwrap();
                acknowledged.insert(entity.to_owned(), seq.parse::<u64>().unwrap());
            } else if line.contains("halted ") {
                assert!(line.contains("disk I/O error"), "{line}");
                halted += 1;
            }
        }
        assert_eq!(halted, 4, "every writer is told, and stops");
        assert!(faulty.process.wait().unwrap().success());

        match bystander.append(append("b", 1, 1)).await {
            Err(AppendError::Store(JournalError::Halted { .. })) => {}
            other => panic!("another process went on: {other:?}"),
        }
        bystander.close().await;
        let refused = SqliteJournal::open(&path, Default::default())
            .await
            .err()
            .unwrap();
        let OpenError::Halted { marker, .. } = refused else {
            panic!("{refused}")
        };

        SqliteJournal::verify(&path).await.unwrap();
        std::fs::remove_file(marker).unwrap();
        let journal = open(&path).await;
        assert_eq!(check_events(&journal, "b").await, 1);
        for (entity, seq) in acknowledged {
            assert!(check_events(&journal, &entity).await >= seq);
        }
        journal.close().await;
    }
}

/// P4: a full disk refuses writes and breaks nothing; when there is room, the same process goes on.
#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fault_library(folder.path()) else {
        return;
    };
    let (path, flag) = (folder.path().join("journal.db"), folder.path().join("full"));
    let mut writer = command(&path, "w", "append 3 2");
    writer
        .env("LD_PRELOAD", &library)
        .env("FAIL_WRITE_OF", "journal.db-wal")
        .env("FAIL_WRITE_WHILE", &flag);
    let mut writer = start(writer);
    let mut acknowledged = BTreeMap::new();
    for _ in 0..5 {
        for _ in 0..40 {
            acknowledged.extend(writer.next_ack());
        }
        std::fs::write(&flag, "").unwrap();
        // Each of its writers is told, and tries again.
        for _ in 0..6 {
            writer.next("full ").expect("the writer ended by itself");
        }
        std::fs::remove_file(&flag).unwrap();
    }
    for _ in 0..40 {
        acknowledged.extend(writer.next_ack());
    }
    writer.kill();
    while let Some((entity, seq)) = writer.next_ack() {
        acknowledged.insert(entity, seq);
    }
    let journal = open(&path).await;
    assert_eq!(acknowledged.len(), 3);
    for (entity, seq) in acknowledged {
        let there = check_events(&journal, &entity).await;
        assert!(there >= seq && there.is_multiple_of(2), "{entity}: {there}");
    }
    journal.close().await;
    SqliteJournal::verify(&path).await.unwrap();
}
