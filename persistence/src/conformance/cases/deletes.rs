//! Delete cases: what is gone, what stays, and who may.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use super::{append, assert_closed, assert_fenced, assert_wrong, event, id, tags};
use crate::journal::{AppendRequest, DeleteRequest, Fence, Journal};
use crate::query::EventQuery;
use futures_util::future::{join, join3};
use std::sync::Arc;

type Store = Arc<dyn Journal>;

fn up_to(entity: &str, seq_max: u64) -> DeleteRequest {
    DeleteRequest::new(id(entity), seq_max)
}

/// First and last number that are there, the newest number, and up to where was deleted.
async fn range(store: &Store, entity: &str) -> (Option<(u64, u64)>, u64, u64) {
    let (mut first_and_last, mut from) = (None, 1);
    loop {
        let page = store.read(&id(entity), from, 4000).await.unwrap();
        assert_eq!(
            page.highest_seq,
            store.highest_seq(&id(entity)).await.unwrap()
        );
        let numbers: Vec<_> = page.events.iter().map(|event| event.seq).collect();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            return (first_and_last, page.highest_seq, page.deleted_seq);
        };
        assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "a gap");
        assert!(from == 1 || *first == from, "a gap before {first}");
        first_and_last = Some((first_and_last.map_or(*first, |(first, _)| first), *last));
        from = last + 1;
    }
}

pub async fn deleted_events_are_gone_and_the_others_keep_their_numbers(store: Store) {
    let texts = ["1", "2", "3", "4", "5"];
    store.append(append("a", 0, &texts)).await.unwrap();
    assert_eq!(range(&store, "a").await, (Some((1, 5)), 5, 0));
    store.delete(up_to("a", 3)).await.unwrap();
    assert_eq!(range(&store, "a").await, (Some((4, 5)), 5, 3));
    for (from, first) in [(0, 4), (2, 4), (3, 4), (4, 4), (5, 5)] {
        let page = store.read(&id("a"), from, 1).await.unwrap();
        let read = &page.events[0];
        assert_eq!((read.seq, page.deleted_seq), (first, 3), "from {from}");
        assert_eq!(read.record, event(&first.to_string()));
    }
    store.append(append("a", 5, &["6"])).await.unwrap();
    assert_eq!(range(&store, "a").await, (Some((4, 6)), 6, 3));
}

pub async fn no_number_is_given_twice(store: Store) {
    store.append(append("a", 0, &["1", "2"])).await.unwrap();
    store.delete(up_to("a", 2)).await.unwrap();
    assert_eq!(range(&store, "a").await, (None, 2, 2));
    for wrong in [0, 1, 3] {
        assert_wrong(store.append(append("a", wrong, &["x"])).await, wrong, 2);
    }
    assert_eq!(store.append(append("a", 2, &["3"])).await.unwrap().seq, 3);
    assert_eq!(range(&store, "a").await, (Some((3, 3)), 3, 2));
}

pub async fn a_number_above_the_newest_removes_what_is_there(store: Store) {
    store.append(append("a", 0, &["1", "2"])).await.unwrap();
    store.delete(up_to("a", u64::MAX)).await.unwrap();
    assert_eq!(range(&store, "a").await, (None, 2, 2));
    store.append(append("a", 2, &["3"])).await.unwrap();
    store.delete(up_to("a", 3)).await.unwrap();
    assert_eq!(range(&store, "a").await, (None, 3, 3));
    store.append(append("a", 3, &["4"])).await.unwrap();
    assert_eq!(range(&store, "a").await, (Some((4, 4)), 4, 3));
}

pub async fn deleting_again_changes_nothing(store: Store) {
    store
        .append(append("a", 0, &["1", "2", "3"]))
        .await
        .unwrap();
    for seq_max in [2, 2, 1, 0] {
        store.delete(up_to("a", seq_max)).await.unwrap();
        assert_eq!(range(&store, "a").await, (Some((3, 3)), 3, 2));
    }
}

pub async fn deleting_what_never_was_changes_nothing(store: Store) {
    store.delete(up_to("a", 5)).await.unwrap();
    assert_eq!(range(&store, "a").await, (None, 0, 0));
    store.append(append("a", 0, &["1"])).await.unwrap();
    store.delete(up_to("a", 0)).await.unwrap();
    assert_eq!(range(&store, "a").await, (Some((1, 1)), 1, 0));
}

/// P6: an owner that was replaced deletes nothing.
pub async fn a_fence_is_checked(store: Store) {
    store.append(append("a", 0, &["1", "2"])).await.unwrap();
    store.claim("s", 2).await.unwrap();
    let fenced = |epoch| up_to("a", 1).fenced(Some(Fence::new("s", epoch)));
    assert_fenced(store.delete(fenced(1)).await, 2);
    assert_fenced(store.delete(fenced(3)).await, 2);
    assert_eq!(range(&store, "a").await, (Some((1, 2)), 2, 0));
    store.delete(fenced(2)).await.unwrap();
    assert_eq!(range(&store, "a").await, (Some((2, 2)), 2, 1));
    let nobody = up_to("nobody", 1).fenced(Some(Fence::new("s", 1)));
    assert_fenced(store.delete(nobody).await, 2);
}

pub async fn other_ids_stay(store: Store) {
    for entity in ["a", "aa", "A", ""] {
        store.append(append(entity, 0, &["1", "2"])).await.unwrap();
    }
    store.delete(up_to("a", 2)).await.unwrap();
    for entity in ["aa", "A", ""] {
        assert_eq!(range(&store, entity).await, (Some((1, 2)), 2, 0));
    }
}

/// P7: more events than fit in a step, while the same id and another go on.
pub async fn many_events_are_deleted_beside_appends(store: Store) {
    const EVENTS: u64 = 12_000;
    for seq in (0..EVENTS).step_by(4000) {
        let events = vec![event("x").tagged(tags(&["t"])); 4000];
        let request = AppendRequest::new(id("a"), seq, events);
        store.append(request).await.unwrap();
    }
    let write = async |entity: &str, from: u64| {
        for seq in from..from + 20 {
            store.append(append(entity, seq, &["y"])).await.unwrap();
        }
    };
    let deleting = async { store.delete(up_to("a", EVENTS - 1)).await.unwrap() };
    join3(deleting, write("a", EVENTS), write("b", 0)).await;
    let left = Some((EVENTS, EVENTS + 20));
    assert_eq!(range(&store, "a").await, (left, EVENTS + 20, EVENTS - 1));
    assert_eq!(range(&store, "b").await, (Some((1, 20)), 20, 0));
    let (one, two) = (up_to("a", EVENTS + 10), up_to("a", EVENTS + 5));
    let (one, two) = join(store.delete(one), store.delete(two)).await;
    one.unwrap();
    two.unwrap();
    let left = Some((EVENTS + 11, EVENTS + 20));
    assert_eq!(range(&store, "a").await, (left, EVENTS + 20, EVENTS + 10));
}

/// Also where the store finds them by other ways than their id.
pub async fn deleted_events_are_not_found(store: Store) {
    let Some(queries) = store.queries() else {
        return;
    };
    let record = |text| event(text).tagged(tags(&["t"]));
    for entity in ["a", "b"] {
        let request = AppendRequest::new(id(entity), 0, vec![record("1"), record("2")]);
        store.append(request).await.unwrap();
    }
    store.delete(up_to("a", 1)).await.unwrap();
    store.delete(up_to("b", 2)).await.unwrap();
    for query in [
        EventQuery::all(),
        EventQuery::all().tag("t"),
        EventQuery::all().kind("conformance"),
        EventQuery::all().id(id("a")),
    ] {
        let page = queries.events(&query, 0, 10).await.unwrap();
        let found: Vec<_> = page.events.iter().map(|found| found.event.seq).collect();
        assert_eq!(found, [2], "{query:?}");
        assert_eq!(page.events[0].id, id("a"));
    }
    assert_eq!(queries.ids(None, 10).await.unwrap(), [id("a")]);
}

pub async fn after_the_end_deleting_is_refused(store: Store) {
    store.close().await;
    assert_closed(store.delete(up_to("a", 1)).await);
}
