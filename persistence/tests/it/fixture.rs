//! Fixtures: journal files of each released format are kept and must be read for good.

use crate::support::{append, check_events, event, id, open};
use otava_persistence::{
    AppendError, AppendRequest, DeleteRequest, EventQuery, EventRecord, Fence, Journal, OpenError,
    SaveState, Snapshot, SqliteConfig, SqliteJournal,
};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn fixture(format: u32) -> PathBuf {
    let name = format!("fixtures/v{format}/journal.db");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A copy, for a fixture is never changed.
fn copy(format: u32, folder: &Path) -> PathBuf {
    let path = folder.join("journal.db");
    std::fs::copy(fixture(format), &path).unwrap();
    path
}

fn snapshot() -> Snapshot {
    Snapshot::new(id("a"), 2, "test.State", 3, vec![1, 2, 3])
}

fn user_version(path: &Path) -> u32 {
    let db = rusqlite::Connection::open(path).unwrap();
    db.pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

/// P8: a file of format 1 has what was written, and takes more, also what only later formats have.
#[tokio::test]
async fn a_journal_of_format_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy(1, folder.path());
    let verified = SqliteJournal::verify(&path).await.unwrap();
    assert_eq!(
        (verified.ids, verified.events, verified.snapshots),
        (2, 6, 1)
    );
    assert_eq!(user_version(&path), 1, "verifying changes nothing");

    let journal = open(&path).await;
    check_format_1(&journal).await;
    let queries = journal.queries().unwrap();
    let slice = id("a").slice();
    let query = EventQuery::all().kind("test").slices(slice..=slice);
    let page = queries.events(&query, 0, 10).await.unwrap();
    let seqs: Vec<_> = page.events.iter().map(|found| found.event.seq).collect();
    assert_eq!((seqs, page.through), (vec![1, 2, 3, 4], 7));

    write_format_2(&journal).await;
    drop(queries);
    journal.close().await;
    assert_eq!(user_version(&path), 3);
    SqliteJournal::verify(&path).await.unwrap();
    let journal = open(&path).await;
    check_format_2(&journal).await;
    journal.close().await;
}

/// P8: the same of formats 2 and 3, which hold the same.
#[tokio::test]
async fn a_journal_of_a_later_format_is_read() {
    for format in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let path = copy(format, folder.path());
        let verified = SqliteJournal::verify(&path).await.unwrap();
        assert_eq!((verified.ids, verified.events), (6, 9));
        assert_eq!((verified.snapshots, verified.states), (1, 2));
        assert_eq!(user_version(&path), format, "verifying changes nothing");
        let journal = open(&path).await;
        check_format_1(&journal).await;
        check_format_2(&journal).await;
        journal.close().await;
        assert_eq!(user_version(&path), 3);
        SqliteJournal::verify(&path).await.unwrap();
    }
}

/// The tables are the same, whether made or changed.
#[tokio::test]
async fn a_changed_file_has_the_columns_of_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.db");
    open(&new).await.close().await;
    let columns = |path: &Path| -> Vec<(String, String, String, bool, i64)> {
        let db = rusqlite::Connection::open(path).unwrap();
        let mut select = db
            .prepare(
                "SELECT s.name, c.name, c.type, c.\"notnull\", c.pk
                 FROM sqlite_schema AS s, pragma_table_xinfo(s.name) AS c ORDER BY s.name, c.cid",
            )
            .unwrap();
        let rows = select.query_map([], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    assert!(columns(&new).len() >= 52);
    for format in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let changed = copy(format, folder.path());
        open(&changed).await.close().await;
        assert_eq!(columns(&changed), columns(&new));
    }
}

/// A process of the older version would go on with what it knows: the file is not changed under it.
#[tokio::test]
async fn a_file_that_an_older_process_has_open_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy(1, folder.path());
    let older = rusqlite::Connection::open(&path).unwrap();
    older
        .execute_batch("PRAGMA journal_mode = WAL; UPDATE head SET commits = commits + 1")
        .unwrap();
    let config = SqliteConfig::default().busy_limit(Duration::from_millis(50));
    match SqliteJournal::open(&path, config).await.err() {
        Some(OpenError::OldFormatInUse { known: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    // As if it had been killed: what it has committed lies in its log, and comes along.
    let killed = folder.path().join("killed.db");
    std::fs::copy(&path, &killed).unwrap();
    let log = |path: &Path| path.with_extension("db-wal");
    std::fs::copy(log(&path), log(&killed)).unwrap();
    let journal = open(&killed).await;
    check_format_1(&journal).await;
    journal.close().await;

    let insert = "INSERT INTO events (position, stream, seq, tag, version, written_at_ms, payload, \
                  crc) VALUES (99, 1, 99, 'x', 1, 0, x'', 0)";
    older
        .execute_batch(&format!("BEGIN; {insert}; ROLLBACK"))
        .expect("the older process goes on");
    drop(older);
    let journal = open(&path).await;
    check_format_1(&journal).await;
    journal.close().await;
}

/// Several processes of this version find the older file at the same moment.
#[tokio::test]
async fn a_file_is_changed_once_by_many_who_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy(1, folder.path());
    let opens = (0..6).map(|_| SqliteJournal::open(&path, SqliteConfig::default()));
    let journals = futures_util::future::join_all(opens).await;
    for journal in journals {
        let journal = journal.unwrap();
        assert_eq!(check_events(&journal, "a").await, 3);
        journal.close().await;
    }
    assert_eq!(user_version(&path), 3);
    SqliteJournal::verify(&path).await.unwrap();
}

async fn check_format_1(journal: &SqliteJournal) {
    assert_eq!(check_events(journal, "a").await, 3);
    assert_eq!(check_events(journal, "ä|b").await, 3);
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
}

async fn write_format_1(journal: &SqliteJournal) {
    journal.append(append("a", 0, 2)).await.unwrap();
    journal.append(append("ä|b", 0, 3)).await.unwrap();
    journal.append(append("a", 2, 1)).await.unwrap();
    let snapshots = journal.snapshots().unwrap();
    snapshots.save(snapshot(), NonZeroU32::MIN).await.unwrap();
    journal.claim("shard", 7).await.unwrap();
    for _ in 0..2 {
        journal.next_term("term").await.unwrap();
    }
}

fn tagged(text: &str, tags: &[&str]) -> EventRecord {
    let record = EventRecord::new("test.Tagged", 9, text.as_bytes().to_vec());
    record.tagged(tags.iter().map(|tag| (*tag).into()).collect())
}

async fn write_format_2(journal: &SqliteJournal) {
    let events = vec![
        tagged("1", &["red", "ä"]),
        tagged("2", &["blue", "red"]),
        tagged("3", &[]),
    ];
    let request = AppendRequest::new(id("tagged"), 0, events);
    journal.append(request).await.unwrap();
    journal.append(append("deleted", 0, 5)).await.unwrap();
    for (entity, seq_max) in [("deleted", 4), ("tagged", 1)] {
        let request = DeleteRequest::new(id(entity), seq_max);
        journal.delete(request).await.unwrap();
    }
    journal.append(append("gone", 0, 2)).await.unwrap();
    journal
        .delete(DeleteRequest::new(id("gone"), 2))
        .await
        .unwrap();
    let states = journal.states().unwrap();
    let state = Some(tagged("state", &["red"]));
    states
        .save(SaveState::new(id("state"), 0, state))
        .await
        .unwrap();
    states.save(SaveState::new(id("a"), 0, None)).await.unwrap();
    let offsets = journal.offsets().unwrap();
    offsets.save("report/0-511", 12).await.unwrap();
}

async fn check_format_2(journal: &SqliteJournal) {
    let queries = journal.queries().unwrap();
    let query = EventQuery::all().tag("red");
    let page = queries.events(&query, 0, 10).await.unwrap();
    assert_eq!(page.events.len(), 1);
    assert_eq!(page.events[0].event.record, tagged("2", &["blue", "red"]));
    for (entity, highest, deleted, left) in
        [("deleted", 5, 4, 1), ("gone", 2, 2, 0), ("tagged", 3, 1, 2)]
    {
        let page = journal.read(&id(entity), 1, 10).await.unwrap();
        assert_eq!(
            (page.highest_seq, page.deleted_seq, page.events.len()),
            (highest, deleted, left)
        );
    }
    let states = journal.states().unwrap();
    let state = states.load(&id("state")).await.unwrap().unwrap();
    assert_eq!((state.revision, state.position), (1, 1));
    assert_eq!(state.record, Some(tagged("state", &["red"])));
    let removed = states.load(&id("a")).await.unwrap().unwrap();
    assert_eq!((removed.revision, removed.record), (1, None));
    let offsets = journal.offsets().unwrap();
    assert_eq!(offsets.load("report/0-511").await.unwrap(), Some(12));
}

/// Makes the fixture of the present format: `cargo test -p otava-persistence -- --ignored
/// write_the_fixture`. A released fixture is never made again.
#[tokio::test]
#[ignore = "makes the fixture"]
async fn write_the_fixture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    write_format_1(&journal).await;
    write_format_2(&journal).await;
    journal.close().await;
    // As a merge would, which takes more events than a fixture should have.
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "INSERT INTO places SELECT * FROM places_new WHERE seq <= 2;
         DELETE FROM places_new WHERE seq <= 2;
         UPDATE head SET places_new = (SELECT count(*) FROM places_new);",
    )
    .unwrap();
    drop(db);
    let fixture = fixture(3);
    assert!(!fixture.exists(), "the fixture is there already");
    std::fs::create_dir_all(fixture.parent().unwrap()).unwrap();
    std::fs::copy(&path, fixture).unwrap();
}
