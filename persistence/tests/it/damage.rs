//! Damage: bits flip, rows change, files go missing; nothing of it is taken for the truth.

use crate::support::{Random, append, check_events, event, id, open};
use otava_persistence::{
    AppendRequest, Damage, DeleteRequest, EventQuery, EventRecord, Journal, JournalError,
    OpenError, SaveState, Snapshot, SqliteConfig, SqliteJournal, VerifyError,
};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Copies a journal as it lies on the disk, as if its process had been killed now.
fn copy_as_killed(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_str().unwrap().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    to.join("journal.db")
}

fn flip(path: &Path, bit: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).unwrap();
}

fn bits(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len() * 8
}

async fn refusal(path: &Path) -> OpenError {
    SqliteJournal::open(path, SqliteConfig::default())
        .await
        .err()
        .expect("it was opened")
}

/// P5: a bit flips anywhere in the live log. SQLite alone forgets all commits behind it in silence;
/// here the journal is not opened, and says which events are missing.
#[tokio::test]
async fn a_flipped_bit_in_the_live_log_is_never_a_silent_loss() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    std::fs::create_dir(&live).unwrap();
    let journal = open(&live.join("journal.db")).await;
    for n in 0..20 {
        journal.append(append("a", n * 2, 2)).await.unwrap();
    }
    // The last commit is a claim: it counts like an event.
    journal.claim("shard", 9).await.unwrap();

    let whole = copy_as_killed(&live, &folder.path().join("whole"));
    let reopened = open(&whole).await;
    assert_eq!(check_events(&reopened, "a").await, 40);
    reopened.close().await;

    for round in 0..60 {
        let path = copy_as_killed(&live, &folder.path().join(round.to_string()));
        let log = path.with_file_name("journal.db-wal");
        let bit = random.below(bits(&log));
        flip(&log, bit);
        let before = std::fs::read(&log).unwrap();
        match refusal(&path).await {
            OpenError::AcknowledgedMissing {
                position,
                acknowledged_position: 40,
                ..
            } => {
                assert!(position <= 40);
            }
            // The log was ignored from its first byte on: there is not even a table.
            OpenError::NotAJournal { .. } | OpenError::Store { .. } => {}
            other => panic!("bit {bit}: {other}"),
        }
        assert!(
            std::fs::read(&log).unwrap() == before,
            "bit {bit}: the log was changed"
        );
    }
    journal.close().await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    std::fs::create_dir(&live).unwrap();
    let path = live.join("journal.db");
    let journal = open(&path).await;
    journal.append(append("a", 0, 5)).await.unwrap();
    journal.close().await;
    let journal = open(&path).await;
    journal.append(append("a", 5, 4)).await.unwrap();

    let path = copy_as_killed(&live, &folder.path().join("without log"));
    std::fs::remove_file(path.with_file_name("journal.db-wal")).unwrap();
    let refused = refusal(&path).await.to_string();
    assert!(refused.contains("events 6 to 9 are missing"), "{refused}");
    assert!(refused.contains("ends at commit 1 (event 5)"), "{refused}");
    // A human who removes the marks accepts the loss.
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        if file.to_str().unwrap().contains("-mark-") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let shortened = open(&path).await;
    assert_eq!(check_events(&shortened, "a").await, 5);
    shortened.close().await;

    // The whole file is gone: a new, empty one is not taken for it.
    let path = copy_as_killed(&live, &folder.path().join("without file"));
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(path.with_file_name("journal.db-wal")).unwrap();
    let refused = refusal(&path).await.to_string();
    assert!(refused.contains("events 1 to 9 are missing"), "{refused}");
    journal.close().await;
}

#[tokio::test]
async fn a_damaged_mark_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    open(&path).await.close().await;
    let names = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mark = names
        .into_iter()
        .find(|path| path.to_str().unwrap().contains("-mark-"))
        .unwrap();
    std::fs::write(&mark, vec![0; 1024]).unwrap();
    assert!(matches!(
        refusal(&path).await,
        OpenError::MarkDamaged { .. }
    ));
}

/// P5: a bit flips anywhere in the main file. What is read is right, or an error; and where an
/// index hides rows, which no checksum of a row can tell, `verify` finds it.
#[tokio::test]
async fn a_flipped_bit_in_the_main_file_is_found() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    std::fs::create_dir(&live).unwrap();
    let journal = open(&live.join("journal.db")).await;
    for entity in 0..20 {
        journal
            .append(append(&entity.to_string(), 0, 40))
            .await
            .unwrap();
    }
    journal.close().await;
    for round in 0..120 {
        let path = copy_as_killed(&live, &folder.path().join(round.to_string()));
        let bit = random.below(bits(&path));
        flip(&path, bit);
        let Ok(journal) = SqliteJournal::open(&path, SqliteConfig::default()).await else {
            continue;
        };
        let mut hidden = Vec::new();
        for entity in (0..20).map(|n| n.to_string()) {
            let Ok(page) = journal.read(&id(&entity), 1, 1000).await else {
                continue;
            };
            for stored in &page.events {
                assert_eq!(
                    stored.record,
                    event(&entity, stored.seq),
                    "bit {bit}: wrong content"
                );
            }
            if page.events.len() != 40 {
                hidden.push(entity);
            }
        }
        journal.close().await;
        if !hidden.is_empty() {
            let verified = SqliteJournal::verify(&path).await;
            assert!(
                verified.is_err(),
                "bit {bit} hides events of {hidden:?}, and nobody knows"
            );
        }
    }
}

fn tamper(path: &Path, statement: &str) {
    rusqlite::Connection::open(path)
        .unwrap()
        .execute_batch(statement)
        .unwrap();
}

/// P5: recovery stops with place and id; the other ids are not concerned.
#[tokio::test]
async fn a_changed_or_missing_event_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    for entity in ["a", "b", "c", "d"] {
        journal.append(append(entity, 0, 5)).await.unwrap();
    }
    journal.close().await;
    tamper(
        &path,
        "UPDATE events SET payload = x'00' WHERE position = 3",
    );
    tamper(&path, "DELETE FROM events WHERE position = 9");
    tamper(&path, "DELETE FROM places_new WHERE position = 12");
    let journal = open(&path).await;
    match journal.read(&id("a"), 1, 10).await {
        Err(JournalError::Corrupt {
            id: of,
            seq: 3,
            damage: Damage::Checksum { row: 3, .. },
        }) => {
            assert_eq!(of, id("a"));
        }
        other => panic!("{other:?}"),
    }
    match journal.read(&id("b"), 1, 10).await {
        Err(JournalError::Corrupt {
            seq: 4,
            damage: Damage::NoRow { row: 9 },
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    match journal.read(&id("c"), 1, 10).await {
        Err(JournalError::Corrupt {
            seq: 2,
            damage: Damage::Missing { next: 3 },
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(check_events(&journal, "d").await, 5);
    // A page that does not touch the damage is fine.
    assert_eq!(journal.read(&id("a"), 4, 10).await.unwrap().events.len(), 2);
    journal.close().await;
    match SqliteJournal::verify(&path).await {
        // Also that the head says how many places there should be, and an event that has none.
        Err(VerifyError::Damaged { findings }) => assert_eq!(findings.len(), 5, "{findings:?}"),
        other => panic!("{other:?}"),
    }
}

/// P5: a broken snapshot gives way to an older one, and that to none.
#[tokio::test]
async fn a_broken_snapshot_gives_way_to_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    let snapshots = journal.snapshots().unwrap();
    for seq in [10, 20, 30] {
        let snapshot = Snapshot::new(id("a"), seq, "test.State", 1, vec![7; 100]);
        snapshots
            .save(snapshot, NonZeroU32::new(3).unwrap())
            .await
            .unwrap();
    }
    let latest = async || {
        snapshots
            .latest(&id("a"), u64::MAX)
            .await
            .unwrap()
            .map(|found| found.seq)
    };
    assert_eq!(latest().await, Some(30));
    tamper(
        &path,
        "UPDATE snapshots SET payload = zeroblob(100) WHERE seq = 30",
    );
    assert_eq!(latest().await, Some(20));
    tamper(&path, "UPDATE snapshots SET version = 2 WHERE seq = 20");
    assert_eq!(latest().await, Some(10));
    tamper(&path, "UPDATE snapshots SET crc = crc + 1 WHERE seq = 10");
    assert_eq!(latest().await, None);
    drop(snapshots);
    journal.close().await;
}

fn tagged(seq: u64) -> EventRecord {
    event("a", seq).tagged(vec!["red".into(), "blue".into()])
}

/// A journal with something in each table.
async fn write_everything(path: &Path) {
    let journal = open(path).await;
    let events = (1..=4).map(tagged).collect();
    let request = AppendRequest::new(id("a"), 0, events);
    journal.append(request).await.unwrap();
    let other = event("b", 1).tagged(vec!["other".into()]);
    let request = AppendRequest::new(id("b"), 0, vec![other]);
    journal.append(request).await.unwrap();
    let request = DeleteRequest::new(id("a"), 1);
    journal.delete(request).await.unwrap();
    let request = SaveState::new(id("a"), 0, Some(event("a", 9)));
    journal.states().unwrap().save(request).await.unwrap();
    journal.offsets().unwrap().save("o", 3).await.unwrap();
    journal.close().await;
    SqliteJournal::verify(path).await.unwrap();
}

/// Reads all that [`write_everything`] wrote: it is right, or an error. Returns how many errors.
async fn errors(journal: &SqliteJournal, statement: &str) -> usize {
    let state = journal.states().unwrap().load(&id("a")).await;
    let offset = journal.offsets().unwrap().load("o").await;
    let mut errors = usize::from(state.is_err()) + usize::from(offset.is_err());
    let queries = journal.queries().unwrap();
    for query in [EventQuery::all(), EventQuery::all().tag("red")] {
        match queries.events(&query, 0, 10).await {
            Ok(page) => {
                for found in page.events.iter().filter(|found| found.id == id("a")) {
                    assert_eq!(found.event.record, tagged(found.event.seq), "{statement}");
                }
            }
            Err(JournalError::Corrupt { .. }) => errors += 1,
            Err(error) => panic!("{statement}: {error}"),
        }
    }
    match journal.read(&id("a"), 1, 10).await {
        Ok(page) => assert_eq!(page.events.len(), 3, "{statement}"),
        Err(JournalError::Corrupt { .. }) => errors += 1,
        Err(error) => panic!("{statement}: {error}"),
    }
    errors
}

/// P5: each table that is younger than format 1: what is changed is an error where it is read, and a
/// finding.
#[tokio::test]
async fn changed_tags_states_offsets_deletes_and_places_are_found() {
    for (statement, findings) in [
        ("UPDATE events SET tags = x'0300726564' WHERE seq = 3", 1),
        ("UPDATE events SET tags = x'FFFF' WHERE seq = 3", 1),
        ("UPDATE events SET tags = NULL WHERE seq = 3", 1),
        (
            "UPDATE event_tags SET tag = 'rad' WHERE tag = 'red' AND position = 3",
            2,
        ),
        ("DELETE FROM event_tags WHERE tag = 'blue'", 3),
        ("UPDATE event_tags SET tag = 'red' WHERE tag = 'other'", 2),
        ("UPDATE states SET payload = x'00'", 1),
        ("UPDATE states SET position = 7", 1),
        ("UPDATE states SET name = NULL", 1),
        ("UPDATE states SET revision = 2", 1),
        ("UPDATE offsets SET position = 4", 1),
        ("UPDATE deleted SET seq = 3, swept = 3", 1),
        ("UPDATE deleted SET seq = 0", 1),
        ("DELETE FROM deleted", 1),
        ("UPDATE streams SET slice = 1", 2),
        ("DELETE FROM places_new WHERE seq = 3", 3),
        ("UPDATE places_new SET position = 1 WHERE seq = 3", 2),
        (
            "INSERT INTO places SELECT stream, seq + 1, position FROM places_new",
            3,
        ),
        ("UPDATE head SET places_new = 3", 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        write_everything(&path).await;
        tamper(&path, statement);
        match SqliteJournal::verify(&path).await {
            Err(VerifyError::Damaged { findings: found }) => {
                assert!(found.len() >= findings, "{statement}: {found:?}");
            }
            other => panic!("{statement}: {other:?}"),
        }
        let journal = open(&path).await;
        let errors = errors(&journal, statement).await;
        // An index of tags that hides a row is found by `verify` only, a slice is for queries, and the
        // number of new places for the merge.
        let hides = [
            "SET tag = 'rad'",
            "DELETE FROM event_tags",
            "SET slice",
            "SET places_new",
        ];
        let hidden = hides.iter().any(|what| statement.contains(what));
        assert_eq!(errors == 0, hidden, "{statement}: {errors} errors");
        journal.close().await;
    }
}

/// A place that is taken by another event would hide one of them: the store halts instead.
#[tokio::test]
async fn two_events_in_one_place_halt_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    journal.append(append("a", 0, 5)).await.unwrap();
    journal.close().await;
    tamper(&path, "INSERT INTO places VALUES (1, 6, 2)");
    let mut config = SqliteConfig::default();
    config.new_places_max = 0;
    let journal = SqliteJournal::open(&path, config).await.unwrap();
    let refused = journal.append(append("a", 5, 1)).await.unwrap_err();
    assert!(refused.to_string().contains("UNIQUE"), "{refused}");
    journal.close().await;
    assert!(matches!(refusal(&path).await, OpenError::Halted { .. }));
}

/// A damaged epoch could let an old owner write: the store halts instead.
#[tokio::test]
async fn a_damaged_epoch_halts_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    journal.claim("shard", 8).await.unwrap();
    tamper(&path, "UPDATE epochs SET epoch = 0");
    let refused = journal.claim("shard", 7).await;
    assert!(refused.unwrap_err().to_string().contains("is damaged"));
    assert!(journal.append(append("a", 0, 1)).await.is_err());
    journal.close().await;
    assert!(matches!(refusal(&path).await, OpenError::Halted { .. }));
}
