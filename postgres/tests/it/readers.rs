//! Readers: they miss nothing of what several processes write, and are told of it.

use crate::local_server::shared;
use crate::support::{append, fresh, id, open, text};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use otava_persistence::{EventQuery, EventRecord, Journal, current_events, live_events};
use std::collections::BTreeSet;
use std::time::Duration;

/// Positions become visible in their order: whoever reads behind the last one misses none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_misses_nothing_of_three_writers() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let reader = open(&config).await;
    let live = live_events(reader.queries().unwrap(), EventQuery::all(), 0);
    let reading = tokio::spawn(live.take(3 * 20 * 15).try_collect::<Vec<_>>());
    let writers = (0..3).map(async |writer| {
        let journal = open(&config).await;
        let entities = (0..20).map(async |entity| {
            let name = format!("{writer}/{entity}");
            for seq in 0..15 {
                let text = format!("{name}/{}", seq + 1);
                journal.append(append(&name, seq, &[&text])).await.unwrap();
            }
        });
        join_all(entities).await;
    });
    join_all(writers).await;
    let found = reading.await.unwrap().unwrap();
    assert!(found.is_sorted_by(|a, b| a.event.position < b.event.position));
    let of_event = |found: otava_persistence::FoundEvent| {
        let expected = format!("{}/{}", found.id.entity(), found.event.seq);
        let text = text(found.event);
        assert_eq!(text, expected);
        text
    };
    let texts: BTreeSet<_> = found.into_iter().map(of_event).collect();
    assert_eq!(texts.len(), 3 * 20 * 15);
}

/// Without notices this test would last for ever: nothing looks for itself here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_writes_is_told() {
    let Some(url) = shared() else { return };
    let config = fresh(url).poll_interval(Duration::from_secs(100_000));
    let (reader, writer) = (open(&config).await, open(&config).await);
    let live = live_events(reader.queries().unwrap(), EventQuery::all(), 0);
    let mut live = std::pin::pin!(live);
    for seq in 0..5 {
        let (found, appended) = futures_util::future::join(
            live.next(),
            writer.append(append("a", seq, &[&seq.to_string()])),
        )
        .await;
        let found = found.unwrap().unwrap();
        assert_eq!(found.event.position, appended.unwrap().position);
        assert_eq!(text(found.event), seq.to_string());
    }
}

/// Without notices a reader looks for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notices_events_are_found_all_the_same() {
    let Some(url) = shared() else { return };
    let config = fresh(url).poll_interval(Duration::from_millis(20));
    let reader = open(&config).await;
    let queries = reader.queries().unwrap();
    assert_eq!(queries.changed(0).await.unwrap(), 0);
    assert_eq!(queries.changed(7).await.unwrap(), 7);
}

/// A page ends when it is large enough, whatever was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_come_in_small_pages() {
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    let large = |n: u8| EventRecord::new("large", 1, vec![n; 3 << 20]);
    for seq in 0..8 {
        let request = otava_persistence::AppendRequest::new(id("a"), seq, vec![large(seq as u8)]);
        journal.append(request).await.unwrap();
    }
    let page = journal.read(&id("a"), 1, 1000).await.unwrap();
    assert_eq!((page.events.len(), page.highest_seq), (3, 8));
    let query = EventQuery::all();
    let page = journal
        .queries()
        .unwrap()
        .events(&query, 0, 1000)
        .await
        .unwrap();
    assert_eq!((page.events.len(), page.more), (3, true));
    let found: Vec<_> = current_events(journal.queries().unwrap(), query, 0)
        .map(|found| found.unwrap().event.record.payload[0])
        .collect()
        .await;
    assert_eq!(found, (0..8).collect::<Vec<_>>());
}
