//! Journal cases: appends, order, fences, terms, limits, end.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use super::{
    append, assert_closed, assert_fenced, assert_too_large, assert_wrong, event, id, tags,
};
use crate::error::{AppendError, ClaimError, JournalError};
use crate::id::PersistenceId;
use crate::journal::{
    APPEND_EVENTS_MAX, AppendRequest, Appended, EventRecord, Fence, Journal, StoredEvent,
};
use crate::query::TAGS_MAX;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;

type Store = Arc<dyn Journal>;

async fn texts(store: &Store, entity: &str) -> Vec<String> {
    let page = store.read(&id(entity), 1, 1000).await.unwrap();
    let numbers: Vec<_> = page.events.iter().map(|event| event.seq).collect();
    assert_eq!(
        numbers,
        (1..=page.highest_seq).collect::<Vec<_>>(),
        "numbers of {entity}"
    );
    page.events.iter().map(text).collect()
}

fn text(event: &StoredEvent) -> String {
    String::from_utf8(event.record.payload.to_vec()).unwrap()
}

pub async fn a_new_id_has_no_events(store: Store) {
    assert_eq!(store.highest_seq(&id("a")).await.unwrap(), 0);
    let page = store.read(&id("a"), 1, 10).await.unwrap();
    assert_eq!((page.events.len(), page.highest_seq), (0, 0));
}

pub async fn events_come_back_as_they_were_written(store: Store) {
    let record = EventRecord::new("conformance.Täg", 65_535, vec![1, 2, 3]);
    let request = AppendRequest::new(id("a"), 0, vec![record.clone()]);
    assert_eq!(store.append(request).await.unwrap().seq, 1);
    assert_eq!(store.append(append("a", 1, &["b"])).await.unwrap().seq, 2);
    let page = store.read(&id("a"), 1, 10).await.unwrap();
    assert_eq!(page.events[0].record, record);
    assert_eq!(page.events[1].record, event("b"));
    assert_eq!(
        (page.events[0].seq, page.events[1].seq, page.highest_seq),
        (1, 2, 2)
    );
    assert_eq!(store.highest_seq(&id("a")).await.unwrap(), 2);
}

pub async fn events_of_one_append_follow_each_other(store: Store) {
    let appended = store
        .append(append("a", 0, &["x", "y", "z"]))
        .await
        .unwrap();
    assert_eq!(appended.seq, 3);
    store.append(append("a", 3, &["u", "v"])).await.unwrap();
    assert_eq!(texts(&store, "a").await, ["x", "y", "z", "u", "v"]);
}

pub async fn any_payload_comes_back(store: Store) {
    let payloads: [Vec<u8>; 4] = [
        vec![],
        vec![0; 3],
        (0..=255).collect(),
        (0..1_000_000).map(|n| (n % 251) as u8).collect(),
    ];
    let record = |payload: &Vec<u8>| EventRecord::new("t", 0, payload.clone());
    let records: Vec<_> = payloads.iter().map(record).collect();
    store
        .append(AppendRequest::new(id("a"), 0, records.clone()))
        .await
        .unwrap();
    let page = store.read(&id("a"), 1, 10).await.unwrap();
    let read: Vec<_> = page.events.into_iter().map(|event| event.record).collect();
    assert!(read == records, "payloads differ");
}

pub async fn tags_come_back(store: Store) {
    let most: Vec<String> = (0..TAGS_MAX).map(|n| format!("tag {n}")).collect();
    let most: Vec<_> = most.iter().map(String::as_str).collect();
    let longest = "x".repeat(EventRecord::NAME_BYTES_MAX);
    let all = [
        &[][..],
        &["a"],
        &["b", "a"],
        &["ä", "", "A", "a"],
        &most,
        &[&longest],
    ];
    let records: Vec<_> = all.iter().map(|of| event("x").tagged(tags(of))).collect();
    let request = AppendRequest::new(id("a"), 0, records.clone());
    store.append(request).await.unwrap();
    let page = store.read(&id("a"), 1, 10).await.unwrap();
    let read: Vec<_> = page.events.into_iter().map(|event| event.record).collect();
    assert_eq!(read, records);
}

pub async fn ids_do_not_mix(store: Store) {
    let entities = [
        "", "a", "A", "a ", "aa", "a|b", "ä", "a\0", "%", "_", "'", "ａ",
    ];
    for entity in entities {
        store.append(append(entity, 0, &[entity])).await.unwrap();
    }
    for entity in entities {
        assert_eq!(texts(&store, entity).await, [entity]);
    }
    let other_kind = PersistenceId::new("other", "a");
    assert_eq!(store.highest_seq(&other_kind).await.unwrap(), 0);
}

pub async fn a_page_begins_and_ends_where_it_should(store: Store) {
    let all = ["1", "2", "3", "4", "5"];
    store.append(append("a", 0, &all)).await.unwrap();
    for (from, max, expected) in [
        (1, 2, &all[..2]),
        (0, 2, &all[..2]),
        (3, 2, &all[2..4]),
        (4, 100, &all[3..]),
        (6, 100, &[]),
        (u64::MAX, 100, &[]),
        (1, 0, &[]),
        (1, usize::MAX, &all),
    ] {
        let page = store.read(&id("a"), from, max).await.unwrap();
        let read: Vec<_> = page.events.iter().map(text).collect();
        assert_eq!(read, expected, "from {from}, at most {max}");
        assert_eq!(page.highest_seq, 5);
    }
}

pub async fn positions_order_all_events(store: Store) {
    let mut positions = Vec::new();
    for (entity, seq) in [("a", 0), ("b", 0), ("a", 2), ("c", 0)] {
        let appended = store
            .append(append(entity, seq, &["x", "y"]))
            .await
            .unwrap();
        positions.push(appended.position);
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    let mut all = BTreeSet::new();
    for entity in ["a", "b", "c"] {
        let page = store.read(&id(entity), 1, 10).await.unwrap();
        let of_one: Vec<_> = page.events.iter().map(|event| event.position).collect();
        assert!(of_one.is_sorted_by(|a, b| a < b), "{of_one:?}");
        all.extend(of_one);
    }
    assert_eq!(all.len(), 8);
    assert_eq!(all.last(), positions.last());
}

pub async fn an_append_of_nothing_checks_and_writes_nothing(store: Store) {
    assert_eq!(
        store.append(append("a", 0, &[])).await.unwrap(),
        Appended::new(0, 0)
    );
    assert_wrong(store.append(append("a", 1, &[])).await, 1, 0);
    store.append(append("a", 0, &["x"])).await.unwrap();
    assert_eq!(
        store.append(append("a", 1, &[])).await.unwrap(),
        Appended::new(1, 0)
    );
    let fence = Some(Fence::new("s", 1));
    assert_fenced(store.append(append("a", 1, &[]).fenced(fence)).await, 0);
    assert_eq!(texts(&store, "a").await, ["x"]);
}

pub async fn a_wrong_sequence_number_is_refused(store: Store) {
    assert_wrong(store.append(append("a", 1, &["x"])).await, 1, 0);
    store.append(append("a", 0, &["x", "y"])).await.unwrap();
    for expected in [0, 1, 3, u64::MAX] {
        assert_wrong(
            store.append(append("a", expected, &["z"])).await,
            expected,
            2,
        );
    }
    assert_eq!(texts(&store, "a").await, ["x", "y"]);
}

/// P6: exactly one event a sequence number, however many write.
pub async fn one_of_many_writers_wins_each_number(store: Store) {
    for round in 0..10 {
        let writers: Vec<_> = (0..8).map(|n| format!("{round}/{n}")).collect();
        let appends = writers
            .iter()
            .map(|text| store.append(append("a", round, &[text])));
        let results = join_all(appends).await;
        let won: Vec<_> = (0..8).filter(|&n| results[n].is_ok()).collect();
        assert_eq!(won.len(), 1, "round {round}: {results:?}");
        let read = texts(&store, "a").await;
        assert_eq!(read.last(), Some(&writers[won[0]]));
    }
    assert_eq!(texts(&store, "a").await.len(), 10);
}

pub async fn appends_to_many_ids_at_once_are_all_there(store: Store) {
    let entities: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    for seq in 0..3 {
        let appends = entities
            .iter()
            .map(|entity| store.append(append(entity, seq, &[entity])));
        assert!(join_all(appends).await.iter().all(Result::is_ok));
    }
    for entity in &entities {
        assert_eq!(texts(&store, entity).await, [entity.as_str(); 3]);
    }
}

pub async fn refused_appends_spoil_no_others(store: Store) {
    store.claim("s", 2).await.unwrap();
    let entities: Vec<_> = (0..60).map(|n| n.to_string()).collect();
    let requests = entities.iter().enumerate().map(|(n, entity)| match n % 3 {
        0 => append(entity, 0, &["x", "y"]),
        1 => append(entity, 7, &["x"]),
        _ => append(entity, 0, &["x"]).fenced(Some(Fence::new("s", 1))),
    });
    let results = join_all(requests.map(|request| store.append(request))).await;
    for (n, result) in results.into_iter().enumerate() {
        match n % 3 {
            0 => assert_eq!(result.unwrap().seq, 2),
            1 => assert_wrong(result, 7, 0),
            _ => assert_fenced(result, 2),
        }
        let there = if n % 3 == 0 { 2 } else { 0 };
        assert_eq!(store.highest_seq(&id(&entities[n])).await.unwrap(), there);
    }
}

pub async fn a_claim_only_grows(store: Store) {
    for epoch in [0, 1, 1, 5, 5, 1 << 40] {
        store.claim("s", epoch).await.unwrap();
    }
    for epoch in [0, 5, (1 << 40) - 1] {
        match store.claim("s", epoch).await {
            Err(ClaimError::Fenced { current }) => assert_eq!(current, 1 << 40),
            other => panic!("claim of {epoch}: expected Fenced, got {other:?}"),
        }
    }
}

pub async fn only_the_claimed_epoch_may_write(store: Store) {
    let fenced = |seq, epoch| append("a", seq, &["x"]).fenced(Some(Fence::new("s", epoch)));
    assert_fenced(store.append(fenced(0, 1)).await, 0);
    store.claim("s", 3).await.unwrap();
    assert_fenced(store.append(fenced(0, 2)).await, 3);
    assert_fenced(store.append(fenced(0, 4)).await, 3);
    store.append(fenced(0, 3)).await.unwrap();
    store.claim("s", 3).await.unwrap();
    store.append(fenced(1, 3)).await.unwrap();
    assert_eq!(texts(&store, "a").await.len(), 2);
}

/// P6: the paused owner wakes up after another has taken over.
pub async fn the_older_of_two_writers_is_refused(store: Store) {
    let write = |seq, epoch, text| append("a", seq, &[text]).fenced(Some(Fence::new("s", epoch)));
    store.claim("s", 1).await.unwrap();
    store.append(write(0, 1, "first")).await.unwrap();
    store.claim("s", 2).await.unwrap();
    assert_fenced(store.append(write(1, 1, "late")).await, 2);
    store.append(write(1, 2, "second")).await.unwrap();
    assert_fenced(store.append(write(2, 1, "later")).await, 2);
    assert_eq!(texts(&store, "a").await, ["first", "second"]);
}

pub async fn scopes_do_not_mix(store: Store) {
    store.claim("a", 7).await.unwrap();
    store.claim("", 1).await.unwrap();
    store.claim("A", 2).await.unwrap();
    for (n, (scope, epoch)) in [("a", 7), ("", 1), ("A", 2), ("b", 0)]
        .into_iter()
        .enumerate()
    {
        let fence = Some(Fence::new(scope, epoch));
        store
            .append(append("x", n as u64, &["x"]).fenced(fence))
            .await
            .unwrap();
    }
    // Series of terms are another thing than epochs, also under the same name.
    assert_eq!(store.next_term("a").await.unwrap(), 1);
    store.claim("a", 7).await.unwrap();
}

pub async fn a_fence_is_checked_before_the_sequence_number(store: Store) {
    store.claim("s", 2).await.unwrap();
    assert_fenced(
        store
            .append(append("a", 9, &["x"]).fenced(Some(Fence::new("s", 1))))
            .await,
        2,
    );
}

pub async fn terms_count_up(store: Store) {
    for term in 1..=5 {
        assert_eq!(store.next_term("a").await.unwrap(), term);
    }
    assert_eq!(store.next_term("b").await.unwrap(), 1);
}

pub async fn no_term_is_given_twice(store: Store) {
    let terms = join_all((0..50).map(|_| store.next_term("a"))).await;
    let different: BTreeSet<_> = terms.into_iter().map(Result::unwrap).collect();
    assert_eq!(different.len(), 50);
}

pub async fn limits_hold(store: Store) {
    let long = |bytes: usize| "x".repeat(bytes + 1);
    let refused = async |record| {
        let request = AppendRequest::new(id("a"), 0, vec![record]);
        assert_too_large(store.append(request).await);
    };
    refused(EventRecord::new(
        long(EventRecord::NAME_BYTES_MAX),
        1,
        vec![],
    ))
    .await;
    let payload = vec![0; EventRecord::PAYLOAD_BYTES_MAX + 1];
    refused(EventRecord::new("t", 1, payload)).await;
    let many: Vec<_> = (0..=TAGS_MAX).map(|n| Arc::from(n.to_string())).collect();
    refused(event("x").tagged(many)).await;
    let long_tag = long(EventRecord::NAME_BYTES_MAX);
    refused(event("x").tagged(tags(&[&long_tag]))).await;

    let long_id = long(PersistenceId::BYTES_MAX);
    assert_too_large(store.append(append(&long_id, 0, &["x"])).await);
    let many = vec![event("x"); APPEND_EVENTS_MAX + 1];
    assert_too_large(store.append(AppendRequest::new(id("a"), 0, many)).await);
    let scope = long(Fence::SCOPE_BYTES_MAX);
    let fence = Some(Fence::new(scope.as_str(), 0));
    assert_too_large(store.append(append("a", 0, &[]).fenced(fence)).await);
    assert!(matches!(
        store.claim(&scope, 1).await,
        Err(ClaimError::Store(JournalError::TooLarge { .. }))
    ));
    assert_too_large(store.next_term(&scope).await);
    assert_eq!(store.highest_seq(&id("a")).await.unwrap(), 0);
}

pub async fn after_the_end_everything_is_refused(store: Store) {
    store.append(append("a", 0, &["x"])).await.unwrap();
    store.close().await;
    store.close().await;
    assert_closed(store.append(append("a", 1, &["x"])).await);
    match store.claim("s", 1).await {
        Err(ClaimError::Store(error)) => assert_closed(Err::<(), _>(error)),
        other => panic!("expected Closed, got {other:?}"),
    }
    assert_closed(store.read(&id("a"), 1, 1).await);
    assert_closed(store.highest_seq(&id("a")).await);
    assert_closed(store.next_term("s").await);
}

pub async fn what_was_accepted_before_the_end_is_done(store: Store) {
    let entities: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    let appends = entities
        .iter()
        .map(|entity| store.append(append(entity, 0, &["x"])));
    let (results, ()) = futures_util::future::join(join_all(appends), store.close()).await;
    for result in results {
        match result {
            Ok(appended) => assert_eq!(appended.seq, 1),
            Err(AppendError::Store(JournalError::Closed)) => {}
            other => panic!("expected success or Closed, got {other:?}"),
        }
    }
}
