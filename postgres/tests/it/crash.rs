//! Crash: the server is killed under load; what was acknowledged is there once, in order.

use crate::local_server::{LocalServer, own};
use crate::support::{append, fresh, id, open, texts};
use futures_util::future::join_all;
use otava_persistence::{AppendError, Journal, JournalError};
use otava_postgres::PostgresJournal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const WRITERS: usize = 50;
const KILLS: u64 = 4;

/// P5: an answer that never comes is an unknown outcome, and no reason to halt for good: the writer
/// recovers and goes on, on the same journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_outlives_the_server() {
    let Some(server) = own(&[]) else { return };
    let config = fresh(&server.url());
    let journal = open(&config).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let kills = Arc::new(AtomicU64::new(0));
    let writer = |writer| {
        let (journal, acknowledged) = (Arc::clone(&journal), Arc::clone(&acknowledged));
        tokio::spawn(write(journal, writer, acknowledged, Arc::clone(&kills)))
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    kill_again_and_again(&server, &acknowledged, &kills).await;
    let ledgers = join_all(writers).await.into_iter();
    let ledgers: Vec<_> = ledgers.map(Result::unwrap).collect();
    let unknown: usize = ledgers.iter().map(|ledger| ledger.unknown).sum();
    println!(
        "{} acknowledged, {unknown} unknown",
        acknowledged.load(Ordering::Relaxed)
    );
    assert!(unknown > 0, "the server was never killed under load");
    let reader = open(&config).await;
    for (writer, ledger) in ledgers.into_iter().enumerate() {
        let stored = texts(&*reader, &writer.to_string()).await;
        assert_eq!(stored.len() as u64, ledger.seq);
        for (seq, text) in (1..).zip(&stored) {
            let known = ledger.acknowledged.get(&seq);
            assert!(
                known.is_none_or(|known| known == text),
                "{writer}: {seq} is {text}"
            );
        }
        assert!(ledger.acknowledged.keys().all(|&seq| seq <= ledger.seq));
    }
}

async fn kill_again_and_again(server: &LocalServer, acknowledged: &AtomicU64, kills: &AtomicU64) {
    for kill in 1..=KILLS {
        let enough = acknowledged.load(Ordering::Relaxed) + 500;
        while acknowledged.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        tokio::task::block_in_place(|| {
            server.kill();
            server.start_again().unwrap();
        });
        kills.store(kill, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Ledger {
    seq: u64,
    acknowledged: BTreeMap<u64, String>,
    unknown: usize,
}

/// Appends until the last kill is over; after an error it recovers as an entity does.
async fn write(
    journal: Arc<PostgresJournal>,
    writer: usize,
    acknowledged: Arc<AtomicU64>,
    kills: Arc<AtomicU64>,
) -> Ledger {
    let name = writer.to_string();
    let mut ledger = Ledger::default();
    let mut again = tokio::time::interval(Duration::from_millis(20));
    for attempt in 0.. {
        if kills.load(Ordering::Relaxed) == KILLS {
            break;
        }
        let text = format!("{attempt}");
        match journal.append(append(&name, ledger.seq, &[&text])).await {
            Ok(appended) => {
                ledger.seq = appended.seq;
                ledger.acknowledged.insert(appended.seq, text);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(AppendError::Store(JournalError::Unknown { .. })) => ledger.unknown += 1,
            Err(AppendError::Store(JournalError::Unavailable { .. })) => {}
            Err(other) => panic!("{other}"),
        }
        loop {
            match journal.highest_seq(&id(&name)).await {
                Ok(seq) => {
                    ledger.seq = seq;
                    break;
                }
                // It is down, and comes back: only asking tells when.
                Err(JournalError::Unavailable { .. }) => drop(again.tick().await),
                Err(other) => panic!("{other}"),
            }
        }
    }
    ledger
}
