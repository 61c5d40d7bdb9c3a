//! Disk: stalls, a disk that is really full, and a file system that turns read-only.
#![allow(clippy::print_stdout, reason = "a skipped test must say so")]

use crate::child::{Writer, command, start};
use crate::fsync::fault_library;
use crate::support::{append, check_events, open};
use otava_persistence::{AppendError, Journal, JournalError, SqliteConfig, SqliteJournal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

type Acknowledged = BTreeMap<String, u64>;

/// P4: fsyncs that take half a second: who wrote waits, whoever else writes waits behind it up to its
/// limit, and everything that was acknowledged is there.
#[tokio::test]
async fn a_disk_that_stalls_delays_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fault_library(folder.path()) else {
        return;
    };
    let path = folder.path().join("journal.db");
    let hasty = SqliteConfig::default().busy_limit(Duration::from_millis(20));
    let (patient, hasty) = (open(&path).await, SqliteJournal::open(&path, hasty).await);
    let hasty = hasty.unwrap();
    let mut slow = command(&path, "w", "append 3 2");
    slow.env("LD_PRELOAD", &library)
        .env("STALL_FSYNC_OF", "journal.db-wal")
        .env("STALL_FSYNC_EVERY", "4");
    let mut slow = start(slow);
    let mut acknowledged = Acknowledged::new();
    acknowledged.extend(slow.next_ack());
    let (mut seq, mut waited) = (0, 0);
    while waited < 3 {
        match hasty.append(append("hasty", seq, 1)).await {
            Ok(appended) => seq = appended.seq,
            Err(AppendError::Store(JournalError::Busy { .. })) => {
                waited += 1;
                // It has time to wait.
                let request = append("patient", waited - 1, 1);
                assert_eq!(patient.append(request).await.unwrap().seq, waited);
            }
            Err(error) => panic!("{error}"),
        }
    }
    slow.kill();
    drain(&mut slow, &mut acknowledged);
    acknowledged.extend([("hasty".to_owned(), seq), ("patient".to_owned(), waited)]);
    hasty.close().await;
    patient.close().await;
    check(&path, &acknowledged).await;
}

/// P4: a file system of 16 MiB is written full: writers are told, and go on when there is room.
#[tokio::test]
async fn a_small_disk_is_filled_and_emptied() {
    let Some(disk) = Mounted::new("tmpfs", &["-t", "tmpfs", "-o", "size=16m", "tmpfs"]) else {
        return;
    };
    let (path, filler) = (disk.folder.join("journal.db"), disk.folder.join("filler"));
    std::fs::write(&filler, vec![7; 6 << 20]).unwrap();
    let mut writer = start(command(&path, "w", "append 3 40"));
    let mut acknowledged = Acknowledged::new();
    let mut full = 0;
    while full < 6 {
        let line = writer.next("").expect("the writer ended by itself");
        full += u64::from(line.contains("full "));
        note(&line, &mut acknowledged);
    }
    std::fs::remove_file(&filler).unwrap();
    for _ in 0..60 {
        acknowledged.extend(writer.next_ack());
    }
    writer.kill();
    drain(&mut writer, &mut acknowledged);
    assert_eq!(acknowledged.len(), 3);
    check(&path, &acknowledged).await;
}

/// P4: the file system aborts and is read-only from then on: nothing is acknowledged any more, and what
/// was is there when it is mounted again.
#[tokio::test]
async fn a_file_system_that_turns_read_only_ends_the_store() {
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("ext4.img");
    std::fs::File::create(&image)
        .and_then(|file| file.set_len(64 << 20))
        .unwrap();
    let image = image.to_str().unwrap();
    if !succeeds("mkfs.ext4", &["-q", image]) {
        println!("skipped: no mkfs.ext4");
        return;
    }
    let Some(disk) = Mounted::new("ext4", &["-o", "loop", image]) else {
        return;
    };
    let path = disk.folder.join("journal.db");
    for round in 0..3 {
        let mut writer = start(command(&path, &format!("w{round}"), "append 4 2"));
        let mut acknowledged = Acknowledged::new();
        for _ in 0..50 {
            acknowledged.extend(writer.next_ack());
        }
        let place = disk.folder.to_str().unwrap();
        assert!(succeeds("mount", &["-o", "remount,abort", place]));
        let mut halted = 0;
        while let Some(line) = writer.next("") {
            halted += u64::from(line.contains("halted "));
            note(&line, &mut acknowledged);
        }
        assert_eq!(halted, 4, "every writer is told, and stops");
        assert!(writer.process.wait().unwrap().success());
        assert!(succeeds("umount", &[place]));
        assert!(succeeds("mount", &["-o", "loop", image, place]));
        check(&path, &acknowledged).await;
    }
}

/// Takes note of a line of a writer, if it is an acknowledgement.
fn note(line: &str, acknowledged: &mut Acknowledged) {
    if let Some((_, rest)) = line.split_once("ack ") {
        let (entity, seq) = rest.split_once(' ').unwrap();
        acknowledged.insert(entity.to_owned(), seq.parse().unwrap());
    }
}

/// What a writer that has ended said before.
fn drain(writer: &mut Writer, acknowledged: &mut Acknowledged) {
    while let Some((entity, seq)) = writer.next_ack() {
        acknowledged.insert(entity, seq);
    }
}

/// Everything acknowledged is there, and the file is whole.
async fn check(path: &Path, acknowledged: &Acknowledged) {
    SqliteJournal::verify(path).await.unwrap();
    let journal = open(path).await;
    for (entity, seq) in acknowledged {
        let there = check_events(&journal, entity).await;
        assert!(there >= *seq, "{entity}: {there}, {seq} was acknowledged");
    }
    journal.close().await;
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

/// A file system of its own, until it is dropped.
struct Mounted {
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl Mounted {
    /// `None`, and why, where it cannot be mounted.
    fn new(kind: &str, arguments: &[&str]) -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(kind);
        std::fs::create_dir(&folder).unwrap();
        let place = folder.to_str().unwrap();
        if !succeeds("mount", &[arguments, &[place]].concat()) {
            println!("skipped: {kind} cannot be mounted, which needs root");
            return None;
        }
        let _parent = parent;
        Some(Self { folder, _parent })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a writer.
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
    }
}
