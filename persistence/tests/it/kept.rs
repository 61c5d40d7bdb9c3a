//! Kept: deletes, tags, states and offsets survive kill -9, and what a delete leaves is swept.

use crate::child::{Kept, command, start};
use crate::support::{Random, append, event, id, open};
use otava_persistence::{
    AppendRequest, DeleteRequest, EventQuery, Journal, SqliteConfig, SqliteJournal,
};
use std::collections::BTreeMap;
use std::path::Path;

/// P1: kill -9 at random moments, of a process that does everything there is.
#[tokio::test]
async fn everything_acknowledged_survives_kill_9() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut acknowledged = BTreeMap::new();
    for round in 0..8 {
        let mut writer = start(command(&path, "k", "keep 6"));
        for _ in 0..random.below(300) {
            acknowledged.extend(writer.next_kept());
        }
        writer.kill();
        while let Some((entity, kept)) = writer.next_kept() {
            acknowledged.insert(entity, kept);
        }
        let journal = open(&path).await;
        for (entity, kept) in &acknowledged {
            check(&journal, entity, kept)
                .await
                .unwrap_or_else(|what| panic!("round {round}: {entity}: {what}"));
        }
        journal.close().await;
        SqliteJournal::verify(&path).await.unwrap();
    }
}

/// Compares an entity with what was acknowledged of it.
async fn check(journal: &SqliteJournal, entity: &str, kept: &Kept) -> Result<(), String> {
    let page = journal.read(&id(entity), 1, 1000).await.unwrap();
    let state = journal.states().unwrap().load(&id(entity)).await.unwrap();
    let offset = journal.offsets().unwrap().load(entity).await.unwrap();
    let there = Kept {
        events: page.highest_seq,
        deleted: page.deleted_seq,
        revision: state.as_ref().map_or(0, |state| state.revision),
        offset: offset.unwrap_or_default(),
    };
    let whole = [
        there.events >= kept.events,
        there.deleted >= kept.deleted,
        there.revision >= kept.revision,
        there.offset >= kept.offset,
        page.events.len() as u64 == there.events - there.deleted,
        state.is_none_or(|state| state.record == Some(event(entity, state.revision))),
    ];
    if whole != [true; 6] {
        return Err(format!("{there:?}, acknowledged was {kept:?}: {whole:?}"));
    }
    let query = EventQuery::all().tag(entity);
    let found = journal.queries().unwrap().events(&query, 0, 1000).await;
    let found: Vec<_> = found
        .unwrap()
        .events
        .into_iter()
        .map(|found| found.event)
        .collect();
    if found == page.events {
        Ok(())
    } else {
        Err(format!(
            "{} are found by tag, {} are there",
            found.len(),
            page.events.len()
        ))
    }
}

fn count(path: &Path, what: &str) -> u64 {
    let db = rusqlite::Connection::open(path).unwrap();
    let count: i64 = db
        .query_row(&format!("SELECT count(*) FROM {what}"), [], |row| {
            row.get(0)
        })
        .unwrap();
    count.cast_unsigned()
}

/// A large delete is acknowledged at once; its rows go a little at a time, and what is left when
/// the process ends goes when the journal is opened again.
#[tokio::test]
async fn the_rows_of_deleted_events_go_away() {
    const EVENTS: u64 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    for seq in (0..EVENTS).step_by(5000) {
        let record = |n| event("a", seq + n).tagged(vec!["t".into()]);
        let events = (1..=5000).map(record).collect();
        let request = AppendRequest::new(id("a"), seq, events);
        journal.append(request).await.unwrap();
    }
    journal.append(append("b", 0, 7)).await.unwrap();
    let request = DeleteRequest::new(id("a"), EVENTS - 1);
    journal.delete(request).await.unwrap();
    assert!(count(&path, "events") > 5000, "all at once");
    // Hidden at once, however far the sweep has come.
    let queries = journal.queries().unwrap();
    for query in [EventQuery::all().tag("t"), EventQuery::all().id(id("a"))] {
        let page = queries.events(&query, 0, 100).await.unwrap();
        let seqs: Vec<_> = page.events.iter().map(|found| found.event.seq).collect();
        assert_eq!(seqs, [EVENTS], "{query:?}");
    }
    drop(queries);
    journal.close().await;
    SqliteJournal::verify(&path).await.unwrap();

    // Each request waits behind at most one step of the sweep: after some all is gone.
    let journal = open(&path).await;
    for seq in 0..30 {
        journal.append(append("c", seq, 1)).await.unwrap();
    }
    assert_eq!(count(&path, "events"), 1 + 7 + 30);
    assert_eq!(count(&path, "event_tags"), 1);
    assert_eq!(count(&path, "deleted WHERE swept < seq"), 0);
    assert_eq!(journal.highest_seq(&id("a")).await.unwrap(), EVENTS);
    journal.close().await;
    SqliteJournal::verify(&path).await.unwrap();
}

/// P6: deletes and states of an owner that was replaced, from two handles on one file.
#[tokio::test]
async fn an_old_owner_neither_deletes_nor_saves() {
    use otava_persistence::{AppendError, Fence, SaveState};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (old, new) = (open(&path).await, open(&path).await);
    old.claim("shard", 1).await.unwrap();
    old.append(append("a", 0, 3)).await.unwrap();
    new.claim("shard", 2).await.unwrap();
    let fence = Some(Fence::new("shard", 1));
    let request = DeleteRequest::new(id("a"), 2).fenced(fence.clone());
    let refused = old.delete(request).await;
    assert!(matches!(refused, Err(AppendError::Fenced { current: 2 })));
    let request = SaveState::new(id("a"), 0, Some(event("a", 1))).fenced(fence);
    let refused = old.states().unwrap().save(request).await;
    assert!(matches!(refused, Err(AppendError::Fenced { current: 2 })));
    let page = new.read(&id("a"), 1, 10).await.unwrap();
    assert_eq!((page.events.len(), page.deleted_seq), (3, 0));
    old.close().await;
    new.close().await;
}

/// P10: three processes append and a live reader of a fourth misses nothing and sees nothing twice;
/// it is woken by commits of others.
#[tokio::test]
async fn a_live_reader_follows_other_processes() {
    use futures_util::StreamExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let config = SqliteConfig::default().watch_period(std::time::Duration::from_millis(5));
    let journal = SqliteJournal::open(&path, config).await.unwrap();
    let live = |query| otava_persistence::live_events(journal.queries().unwrap(), query, 0);
    let (mut all, mut low) = (
        live(EventQuery::all()),
        live(EventQuery::all().slices(0..=511)),
    );
    let mut writers = ["w1", "w2", "w3"].map(|name| start(command(&path, name, "append 4 3")));
    let mut seen = Vec::new();
    for _ in 0..3000 {
        seen.push(all.next().await.unwrap().unwrap());
    }
    for writer in &mut writers {
        writer.kill();
    }
    let position = |found: &otava_persistence::FoundEvent| found.event.position;
    let positions: Vec<_> = seen.iter().map(position).collect();
    assert_eq!(positions, (1..=3000).collect::<Vec<_>>());
    let mut next: BTreeMap<_, u64> = BTreeMap::new();
    for found in &seen {
        let seq = next.entry(found.id.clone()).or_default();
        *seq += 1;
        assert_eq!(found.event.seq, *seq, "{}", found.id);
    }
    seen.retain(|found| found.id.slice() <= 511);
    for expected in seen {
        assert_eq!(low.next().await.unwrap().unwrap(), expected);
    }
    drop((all, low));
    journal.close().await;
}
