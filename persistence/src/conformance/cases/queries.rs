//! Query cases: what is found, in which order, by pages and live, beside writers.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use super::{append, assert_closed, event, id, tags};
use crate::id::{PersistenceId, SLICES};
use crate::journal::{AppendRequest, Journal};
use crate::query::{EventQueries, EventQuery, FoundEvent, current_events, live_events};
use futures_util::future::{join, join_all, poll_immediate};
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;

type Store = Arc<dyn Journal>;

fn queries(store: &Store) -> Arc<dyn EventQueries> {
    store.queries().expect("the journal has no queries")
}

/// Events of three kinds, of entities of many slices, with and without tags.
async fn fill(store: &Store) -> Vec<FoundEvent> {
    const KINDS: [&str; 3] = ["k", "kk", "K"];
    const TAGS: [&[&str]; 5] = [&[], &["red"], &["red", "blue"], &["re"], &["blue", "blue"]];
    let mut highest = BTreeMap::new();
    for n in 0..60 {
        let id = PersistenceId::new(KINDS[n % 3], &(n % 13).to_string());
        let record = |m: usize| event(&format!("{n}/{m}")).tagged(tags(TAGS[(n + m) % 5]));
        let events = (0..1 + n % 4).map(record).collect();
        let seq: &mut u64 = highest.entry(id.clone()).or_default();
        let request = AppendRequest::new(id, *seq, events);
        *seq = store.append(request).await.unwrap().seq;
    }
    everything(store, highest.into_keys()).await
}

/// What the journal itself says that there is, in the order of positions.
async fn everything(store: &Store, ids: impl Iterator<Item = PersistenceId>) -> Vec<FoundEvent> {
    let mut all = Vec::new();
    for id in ids {
        let page = store.read(&id, 1, 100_000).await.unwrap();
        assert_eq!(page.events.len() as u64, page.highest_seq);
        let events = page.events.into_iter();
        all.extend(events.map(|event| FoundEvent::new(id.clone(), event)));
    }
    all.sort_by_key(|found| found.event.position);
    all
}

/// All that a query finds behind `after`, in pages of `max`.
async fn find(store: &Store, query: &EventQuery, mut after: u64, max: usize) -> Vec<FoundEvent> {
    let (queries, mut all) = (queries(store), Vec::new());
    loop {
        let page = queries.events(query, after, max).await.unwrap();
        assert!(page.events.len() <= max, "{} of {max}", page.events.len());
        let mut last = after;
        for found in &page.events {
            assert!(found.event.position > last, "{query:?}: order");
            last = found.event.position;
        }
        assert!(page.through >= last, "{query:?}: {} < {last}", page.through);
        all.extend(page.events);
        if !page.more {
            return all;
        }
        assert!(page.through > after, "{query:?}: a page goes nowhere");
        after = page.through;
    }
}

fn matching(all: &[FoundEvent], query: &EventQuery) -> Vec<FoundEvent> {
    let wanted = |found: &&FoundEvent| query.matches(&found.id, &found.event.record.tags);
    all.iter().filter(wanted).cloned().collect()
}

/// What is found is what `matches` says, and there is some of it and not all.
async fn check(store: &Store, all: &[FoundEvent], query: EventQuery) {
    let expected = matching(all, &query);
    assert_eq!(find(store, &query, 0, 1000).await, expected, "{query:?}");
    assert!(
        !expected.is_empty() && expected.len() < all.len(),
        "{query:?}"
    );
}

pub async fn an_empty_store_gives_nothing(store: Store) {
    let queries = queries(&store);
    for query in [EventQuery::all(), EventQuery::all().tag("t")] {
        let page = queries.events(&query, 0, 10).await.unwrap();
        assert_eq!((page.events.len(), page.more), (0, false));
    }
    assert_eq!(queries.ids(None, 10).await.unwrap(), []);
}

pub async fn every_event_is_found_once_in_order(store: Store) {
    let all = fill(&store).await;
    assert_eq!(find(&store, &EventQuery::all(), 0, 1000).await, all);
}

pub async fn events_are_found_by_id(store: Store) {
    let all = fill(&store).await;
    for entity in ["0", "7", "12"] {
        let query = EventQuery::all().id(PersistenceId::new("kk", entity));
        check(&store, &all, query).await;
    }
    let nobody = EventQuery::all().id(id("nobody"));
    assert_eq!(find(&store, &nobody, 0, 10).await, []);
}

pub async fn events_are_found_by_kind(store: Store) {
    let all = fill(&store).await;
    for kind in ["k", "kk", "K"] {
        check(&store, &all, EventQuery::all().kind(kind)).await;
    }
    for kind in ["", "kkk", "%"] {
        let nothing = EventQuery::all().kind(kind);
        assert_eq!(find(&store, &nothing, 0, 10).await, []);
    }
}

pub async fn events_are_found_by_tag(store: Store) {
    let all = fill(&store).await;
    for tag in ["red", "re", "blue"] {
        check(&store, &all, EventQuery::all().tag(tag)).await;
    }
    for tag in ["", "r", "Red", "red ", "%"] {
        let nothing = EventQuery::all().tag(tag);
        assert_eq!(find(&store, &nothing, 0, 10).await, []);
    }
}

pub async fn events_are_found_by_slice(store: Store) {
    let all = fill(&store).await;
    let mut found = Vec::new();
    for (first, last) in [(0, 99), (100, 511), (512, 800), (801, SLICES - 1)] {
        let query = EventQuery::all().slices(first..=last);
        found.extend(find(&store, &query, 0, 1000).await);
        check(&store, &all, query).await;
    }
    found.sort_by_key(|found| found.event.position);
    assert_eq!(found, all, "the ranges together");
    let one = all[0].id.slice();
    check(&store, &all, EventQuery::all().slices(one..=one)).await;
    #[allow(clippy::reversed_empty_ranges, reason = "it asks for nothing")]
    let nothing = EventQuery::all().slices(9..=3);
    assert_eq!(find(&store, &nothing, 0, 10).await, []);
    let whole = EventQuery::all().slices(0..=u16::MAX);
    assert_eq!(find(&store, &whole, 0, 1000).await, all);
}

pub async fn all_conditions_hold_together(store: Store) {
    let all = fill(&store).await;
    let query = EventQuery::all();
    check(&store, &all, query.clone().tag("red").kind("k")).await;
    check(&store, &all, query.clone().tag("red").slices(0..=600)).await;
    check(&store, &all, query.clone().kind("k").slices(0..=600)).await;
    let slices = query.clone().tag("blue").kind("kk").slices(200..=1023);
    check(&store, &all, slices).await;
    let one = PersistenceId::new("kk", "7");
    check(&store, &all, query.clone().id(one.clone()).tag("red")).await;
    let contradiction = query.id(one).kind("k");
    assert_eq!(find(&store, &contradiction, 0, 10).await, []);
}

pub async fn pages_of_any_size_give_the_same(store: Store) {
    let all = fill(&store).await;
    for query in [
        EventQuery::all(),
        EventQuery::all().tag("red"),
        EventQuery::all().slices(0..=500),
        EventQuery::all().kind("kk"),
        EventQuery::all().id(PersistenceId::new("k", "6")),
    ] {
        let expected = matching(&all, &query);
        for max in [1, 2, 3, 10, all.len()] {
            assert_eq!(
                find(&store, &query, 0, max).await,
                expected,
                "{query:?} in pages of {max}"
            );
        }
        let page = queries(&store).events(&query, 0, 0).await.unwrap();
        assert!(page.events.is_empty(), "a page of nothing");
    }
}

/// A reader whose query matches little does not look at the same events again and again.
pub async fn a_page_passes_what_does_not_match(store: Store) {
    let all = fill(&store).await;
    let newest = all.last().unwrap().event.position;
    for query in [
        EventQuery::all().tag("nowhere"),
        EventQuery::all().kind("nowhere"),
        EventQuery::all().id(id("nowhere")),
        EventQuery::all(),
    ] {
        let (mut after, mut more) = (0, true);
        while more {
            let page = queries(&store).events(&query, after, 1000).await.unwrap();
            (after, more) = (page.through, page.more);
        }
        assert!(after >= newest, "{query:?}: {after} < {newest}");
    }
}

/// P10: restart from an offset.
pub async fn a_reader_goes_on_from_any_position(store: Store) {
    let all = fill(&store).await;
    for query in [EventQuery::all(), EventQuery::all().tag("red")] {
        let expected = matching(&all, &query);
        for (n, found) in expected.iter().enumerate() {
            let rest = find(&store, &query, found.event.position, 1000).await;
            assert_eq!(rest, expected[n + 1..], "{query:?}");
        }
    }
}

pub async fn a_position_far_ahead_gives_nothing(store: Store) {
    fill(&store).await;
    for after in [1 << 50, i64::MAX as u64, u64::MAX] {
        let page = queries(&store).events(&EventQuery::all(), after, 10).await;
        let page = page.unwrap();
        assert_eq!((page.events.len(), page.more), (0, false), "after {after}");
    }
}

pub async fn a_current_stream_ends(store: Store) {
    let all = fill(&store).await;
    let query = EventQuery::all().tag("red");
    let stream = current_events(queries(&store), query.clone(), 0);
    let found: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(found, matching(&all, &query));
}

const WRITERS: u64 = 12;
const APPENDS: u64 = 25;

/// Events that the writers below make with a slice below half or the tag `odd`.
fn of_writers(entity: u64, seq: u64) -> AppendRequest {
    let texts: &[&str] = if seq.is_multiple_of(3) {
        &["x", "y"]
    } else {
        &["z"]
    };
    let mut request = append(&entity.to_string(), seq, texts);
    for (record, seq) in request.events.iter_mut().zip(seq + 1..) {
        record.tags = tags(if seq % 2 == 1 { &["odd"] } else { &["even"] });
    }
    request
}

/// Writers that write at the same time, to ids of their own.
async fn write(store: &Store) {
    let writers = (0..WRITERS).map(|entity| async move {
        let mut seq = 0;
        for _ in 0..APPENDS {
            seq = store.append(of_writers(entity, seq)).await.unwrap().seq;
        }
    });
    join_all(writers).await;
}

async fn everything_written(store: &Store) -> Vec<FoundEvent> {
    let ids = (0..WRITERS).map(|entity| id(&entity.to_string()));
    everything(store, ids).await
}

/// What one writer makes in all.
fn events_of_a_writer() -> u64 {
    (0..APPENDS).fold(0, |seq, _| seq + of_writers(0, seq).events.len() as u64)
}

/// P10: several writers at once, a live reader beside them: no gap, no duplicate, in order.
pub async fn a_live_stream_misses_nothing_of_many_writers(store: Store) {
    let expected = usize::try_from(WRITERS * events_of_a_writer()).unwrap();
    let live = live_events(queries(&store), EventQuery::all(), 0);
    let reading = live.take(expected).try_collect::<Vec<_>>();
    let (found, ()) = join(reading, write(&store)).await;
    let (found, there) = (found.unwrap(), everything_written(&store).await);
    assert_eq!(there.len(), expected);
    let positions = |events: &[FoundEvent]| -> Vec<u64> {
        events.iter().map(|found| found.event.position).collect()
    };
    assert_eq!(positions(&found), positions(&there));
    assert_eq!(found, there);
}

/// P10: the readers of a projection, each with its part.
pub async fn live_streams_by_tag_and_slice_miss_nothing(store: Store) {
    let parts = [
        EventQuery::all().slices(0..=511),
        EventQuery::all().slices(512..=1023),
        EventQuery::all().tag("odd"),
        EventQuery::all().tag("even").slices(0..=700),
        EventQuery::all().kind("conformance"),
    ];
    let mut model = Vec::new();
    for entity in 0..WRITERS {
        let mut seq = 0;
        for _ in 0..APPENDS {
            let request = of_writers(entity, seq);
            seq += request.events.len() as u64;
            model.extend(
                request
                    .events
                    .into_iter()
                    .map(|event| (id(&entity.to_string()), event)),
            );
        }
    }
    let readers = parts.iter().map(|query| {
        let wanted = model
            .iter()
            .filter(|(id, record)| query.matches(id, &record.tags));
        let live = live_events(queries(&store), query.clone(), 0);
        live.take(wanted.count()).try_collect::<Vec<_>>()
    });
    let (found, ()) = join(join_all(readers), write(&store)).await;
    let there = everything_written(&store).await;
    for (query, found) in parts.iter().zip(found) {
        let (found, expected) = (found.unwrap(), matching(&there, query));
        assert!(!expected.is_empty());
        assert_eq!(found, expected, "{query:?}");
    }
}

/// P10: a reader that stops reading neither stops the writers nor another reader, and has all
/// events when it goes on.
pub async fn a_slow_reader_holds_nobody_up(store: Store) {
    let mut slow = live_events(queries(&store), EventQuery::all(), 0);
    let (first, ()) = join(slow.next(), async {
        store.append(of_writers(0, 0)).await.unwrap();
    })
    .await;
    let mut found = vec![first.unwrap().unwrap()];
    let mut seq = store.highest_seq(&id("0")).await.unwrap();
    for _ in 0..400 {
        seq = store.append(of_writers(0, seq)).await.unwrap().seq;
    }
    let expected = usize::try_from(seq).unwrap();
    let other = live_events(queries(&store), EventQuery::all(), 0);
    let other: Vec<_> = other.take(expected).try_collect().await.unwrap();
    let rest: Vec<_> = slow.take(expected - 1).try_collect().await.unwrap();
    found.extend(rest);
    assert_eq!(found, other);
    let numbers: Vec<_> = found.iter().map(|found| found.event.seq).collect();
    assert_eq!(numbers, (1..=seq).collect::<Vec<_>>());
}

pub async fn a_waiting_reader_is_woken(store: Store) {
    let queries = queries(&store);
    let first = store.append(append("a", 0, &["x"])).await.unwrap().position;
    assert!(queries.changed(0).await.unwrap() >= first);
    let waiting = async {
        let mut newest = first;
        while newest <= first {
            newest = queries.changed(first).await.unwrap();
        }
        newest
    };
    let (newest, second) = join(waiting, store.append(append("a", 1, &["y"]))).await;
    assert!(newest >= second.unwrap().position);
    // Waiting for what is far ahead may end early, but does not fail.
    drop(poll_immediate(queries.changed(u64::MAX)).await);
}

pub async fn ids_come_in_the_order_of_their_text(store: Store) {
    let mut ids: Vec<_> = [
        "", "a", "A", "aa", "a|b", "ä", "z", "0", "10", "9", "_", "%",
    ]
    .into_iter()
    .map(id)
    .collect();
    ids.push(PersistenceId::new("con", "z"));
    ids.push(PersistenceId::new("conformance2", "a"));
    for id in &ids {
        let request = AppendRequest::new(id.clone(), 0, vec![event("x")]);
        store.append(request).await.unwrap();
    }
    ids.sort();
    let queries = queries(&store);
    for max in [1, 5, 100] {
        let mut found = Vec::new();
        loop {
            let page = queries.ids(found.last(), max).await.unwrap();
            assert!(page.len() <= max);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, ids, "pages of {max}");
    }
    let behind = queries.ids(Some(&id("aaa")), 1).await.unwrap();
    assert_eq!(behind, [id("a|b")]);
    assert_eq!(queries.ids(None, 0).await.unwrap(), []);
}

pub async fn after_the_end_queries_are_refused(store: Store) {
    let queries = queries(&store);
    let newest = store.append(append("a", 0, &["x"])).await.unwrap().position;
    let query = EventQuery::all();
    // Who waits is told, and does not wait for ever.
    let (waited, ()) = join(queries.changed(newest), store.close()).await;
    if let Ok(position) = waited {
        assert_eq!(position, newest);
    }
    assert_closed(queries.events(&query, 0, 1).await);
    assert_closed(queries.changed(newest).await);
    assert_closed(queries.ids(None, 1).await);
}
