//! State cases: revisions, fences, removal, changes.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use super::{
    append, assert_closed, assert_fenced, assert_too_large, assert_wrong, event, id, tags,
};
use crate::error::AppendError;
use crate::id::PersistenceId;
use crate::journal::{EventRecord, Fence, Journal};
use crate::query::{EventQuery, TAGS_MAX};
use crate::state::{SaveState, SavedState, StateStore, StoredState};
use futures_util::future::join_all;
use std::sync::Arc;

type Store = Arc<dyn Journal>;

fn states(store: &Store) -> Arc<dyn StateStore> {
    store.states().expect("the journal has no store of states")
}

async fn save(
    store: &Store,
    entity: &str,
    expected: u64,
    text: &str,
) -> Result<SavedState, AppendError> {
    let request = SaveState::new(id(entity), expected, Some(event(text)));
    states(store).save(request).await
}

async fn load(store: &Store, entity: &str) -> Option<StoredState> {
    let state = states(store).load(&id(entity)).await.unwrap();
    assert!(state.as_ref().is_none_or(|state| state.id == id(entity)));
    state
}

pub async fn a_new_id_has_no_state(store: Store) {
    assert_eq!(load(&store, "a").await, None);
    let changes = states(&store).changes(&EventQuery::all(), 0, 10).await;
    assert_eq!(changes.unwrap(), []);
}

pub async fn a_state_comes_back_as_it_was_saved(store: Store) {
    let large: Vec<u8> = (0..2_000_000).map(|n| (n % 251) as u8).collect();
    let most: Vec<_> = (0..TAGS_MAX).map(|n| Arc::from(n.to_string())).collect();
    let records = [
        EventRecord::new("conformance.Täg", 65_535, vec![]),
        EventRecord::new("t", 0, vec![0, 255]).tagged(tags(&["b", "a"])),
        EventRecord::new("t", 1, large).tagged(most),
        EventRecord::new("", 1, vec![1]),
    ];
    for (revision, record) in (0..).zip(records) {
        let request = SaveState::new(id("a"), revision, Some(record.clone()));
        let saved = states(&store).save(request).await.unwrap();
        let state = load(&store, "a").await.unwrap();
        assert_eq!(
            (state.revision, state.position),
            (saved.revision, saved.position)
        );
        assert!(state.record == Some(record), "revision {revision} differs");
    }
}

pub async fn revisions_count_up(store: Store) {
    let mut positions = Vec::new();
    for revision in 0..4 {
        for entity in ["a", "b"] {
            let saved = save(&store, entity, revision, "x").await.unwrap();
            assert_eq!(saved.revision, revision + 1);
            positions.push(saved.position);
        }
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
}

pub async fn a_wrong_revision_is_refused(store: Store) {
    assert_wrong(save(&store, "a", 1, "x").await, 1, 0);
    save(&store, "a", 0, "x").await.unwrap();
    save(&store, "a", 1, "y").await.unwrap();
    for expected in [0, 1, 3, u64::MAX] {
        assert_wrong(save(&store, "a", expected, "z").await, expected, 2);
    }
    assert_eq!(load(&store, "a").await.unwrap().record, Some(event("y")));
}

/// P6: exactly one change a revision, however many write.
pub async fn one_of_many_writers_wins_each_revision(store: Store) {
    for revision in 0..8 {
        let texts: Vec<_> = (0..6).map(|n| n.to_string()).collect();
        let saves = texts.iter().map(|text| save(&store, "a", revision, text));
        let results = join_all(saves).await;
        let won: Vec<_> = (0..6).filter(|&n| results[n].is_ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        let state = load(&store, "a").await.unwrap();
        assert_eq!(state.record, Some(event(&texts[won[0]])));
    }
}

pub async fn a_removed_state_has_a_revision(store: Store) {
    save(&store, "a", 0, "x").await.unwrap();
    let states = states(&store);
    assert_wrong(states.save(SaveState::new(id("a"), 0, None)).await, 0, 1);
    let removed = states.save(SaveState::new(id("a"), 1, None)).await.unwrap();
    assert_eq!(removed.revision, 2);
    let state = load(&store, "a").await.unwrap();
    assert_eq!((state.revision, state.record), (2, None));
    let changes = states.changes(&EventQuery::all(), 0, 10).await.unwrap();
    let removed = (id("a"), 2, None);
    assert_eq!(changes.len(), 1);
    let change = &changes[0];
    assert_eq!(
        (change.id.clone(), change.revision, change.record.clone()),
        removed
    );
    assert_wrong(save(&store, "a", 0, "y").await, 0, 2);
    assert_eq!(save(&store, "a", 2, "y").await.unwrap().revision, 3);
    assert_eq!(load(&store, "a").await.unwrap().record, Some(event("y")));
}

/// P6: an owner that was replaced saves nothing.
pub async fn only_the_claimed_epoch_may_save(store: Store) {
    let states = states(&store);
    let save = async |expected, epoch, text| {
        let request = SaveState::new(id("a"), expected, Some(event(text)));
        let fence = Some(Fence::new("s", epoch));
        states.save(request.fenced(fence)).await
    };
    assert_fenced(save(0, 1, "x").await, 0);
    store.claim("s", 1).await.unwrap();
    save(0, 1, "x").await.unwrap();
    store.claim("s", 2).await.unwrap();
    assert_fenced(save(1, 1, "late").await, 2);
    // The fence comes before the revision.
    assert_fenced(save(9, 1, "late").await, 2);
    save(1, 2, "y").await.unwrap();
    assert_eq!(load(&store, "a").await.unwrap().record, Some(event("y")));
}

async fn changed(store: &Store, query: &EventQuery, after: u64, max: usize) -> Vec<StoredState> {
    let changes = states(store).changes(query, after, max).await.unwrap();
    assert!(changes.len() <= max);
    assert!(
        changes.is_sorted_by(|a, b| a.position < b.position),
        "{changes:?}"
    );
    assert!(changes.iter().all(|change| change.position > after));
    changes
}

pub async fn changes_come_in_order_and_only_the_last_of_each_id(store: Store) {
    save(&store, "a", 0, "a1").await.unwrap();
    save(&store, "b", 0, "b1").await.unwrap();
    save(&store, "a", 1, "a2").await.unwrap();
    let all = EventQuery::all();
    let changes = changed(&store, &all, 0, 10).await;
    let records: Vec<_> = changes.iter().map(|change| change.record.clone()).collect();
    assert_eq!(records, [Some(event("b1")), Some(event("a2"))]);
    assert_eq!(load(&store, "b").await.as_ref(), Some(&changes[0]));
    let seen = changes[1].position;
    assert_eq!(changed(&store, &all, seen, 10).await, []);
    assert_eq!(changed(&store, &all, u64::MAX, 10).await, []);
    save(&store, "b", 1, "b2").await.unwrap();
    let changes = changed(&store, &all, seen, 10).await;
    assert_eq!(changes[0].record, Some(event("b2")));
    assert_eq!(changes.len(), 1);
}

pub async fn changes_are_found_by_id_kind_tag_and_slice(store: Store) {
    let kinds = ["k", "kk"];
    for n in 0..20 {
        let id = PersistenceId::new(kinds[n % 2], &n.to_string());
        let of_it: &[&str] = if n % 3 == 0 { &["third"] } else { &["x", "y"] };
        let record = event("x").tagged(tags(of_it));
        let request = SaveState::new(id, 0, Some(record));
        states(&store).save(request).await.unwrap();
    }
    let all = changed(&store, &EventQuery::all(), 0, 100).await;
    assert_eq!(all.len(), 20);
    for query in [
        EventQuery::all().kind("k"),
        EventQuery::all().tag("third"),
        EventQuery::all().tag("y"),
        EventQuery::all().tag("thir"),
        EventQuery::all().slices(0..=300),
        EventQuery::all().slices(301..=1023).kind("kk").tag("x"),
        EventQuery::all().id(PersistenceId::new("k", "4")),
    ] {
        let expected: Vec<_> = all
            .iter()
            .filter(|state| query.matches(&state.id, &state.record.as_ref().unwrap().tags))
            .cloned()
            .collect();
        assert_eq!(changed(&store, &query, 0, 100).await, expected, "{query:?}");
    }
}

pub async fn pages_of_changes_give_the_same(store: Store) {
    for n in 0..15 {
        save(&store, &n.to_string(), 0, "x").await.unwrap();
    }
    let query = EventQuery::all().slices(0..=700);
    let all = changed(&store, &query, 0, 100).await;
    for max in [1, 2, 7, 100] {
        let (mut read, mut after) = (Vec::new(), 0);
        loop {
            let page = changed(&store, &query, after, max).await;
            let Some(last) = page.last() else { break };
            after = last.position;
            read.extend(page);
        }
        assert_eq!(read, all, "pages of {max}");
    }
}

pub async fn states_and_events_do_not_mix(store: Store) {
    save(&store, "a", 0, "x").await.unwrap();
    assert_eq!(store.highest_seq(&id("a")).await.unwrap(), 0);
    store.append(append("a", 0, &["1", "2"])).await.unwrap();
    assert_eq!(load(&store, "a").await.unwrap().revision, 1);
    store.append(append("b", 0, &["1"])).await.unwrap();
    assert_eq!(load(&store, "b").await, None);
    save(&store, "c", 0, "x").await.unwrap();
    if let Some(queries) = store.queries() {
        let ids = queries.ids(None, 10).await.unwrap();
        assert_eq!(ids, [id("a"), id("b")]);
    }
}

pub async fn limits_hold(store: Store) {
    let refused = async |record: EventRecord| {
        let request = SaveState::new(id("a"), 0, Some(record));
        assert_too_large(states(&store).save(request).await);
    };
    refused(EventRecord::new(
        "x".repeat(EventRecord::NAME_BYTES_MAX + 1),
        1,
        vec![],
    ))
    .await;
    let payload = vec![0; EventRecord::PAYLOAD_BYTES_MAX + 1];
    refused(EventRecord::new("t", 1, payload)).await;
    refused(event("x").tagged(vec![Arc::from("t"); TAGS_MAX + 1])).await;
    let long = "x".repeat(PersistenceId::BYTES_MAX);
    assert_too_large(save(&store, &long, 0, "x").await);
    assert_eq!(load(&store, "a").await, None);
}

pub async fn after_the_end_states_are_refused(store: Store) {
    let states = states(&store);
    store.close().await;
    assert_closed(states.load(&id("a")).await);
    assert_closed(states.save(SaveState::new(id("a"), 0, None)).await);
    assert_closed(states.changes(&EventQuery::all(), 0, 1).await);
}
