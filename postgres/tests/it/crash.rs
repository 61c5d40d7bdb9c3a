//! Crash: the server is killed under load; what was acknowledged is there once, in order.

use crate::local_server::{LocalServer, own};
use crate::support::{append, fresh, id, open, texts};
use futures_util::future::join_all;
use otava_persistence::{AppendError, Journal, JournalError};
use otava_postgres::PostgresJournal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const WRITERS: usize = 50;
const KILLS_MIN: u64 = 4;

/// P1, of the server: an answer that never comes is an unknown outcome, and no reason to halt for
/// good: the writer recovers and goes on, on the same journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_outlives_the_server() {
    let Some(server) = own(&[]) else { return };
    let config = fresh(&server.url());
    let journal = open(&config).await;
    let counts = Arc::new(Counts::default());
    let writer = |writer| tokio::spawn(write(Arc::clone(&journal), writer, Arc::clone(&counts)));
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    kill_again_and_again(&server, &counts).await;
    let ledgers = join_all(writers).await.into_iter();
    let ledgers: Vec<_> = ledgers.map(Result::unwrap).collect();
    println!("{counts:?}");
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

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    ended: AtomicBool,
}

/// Until it has been killed a few times, and at least once in the middle of a statement.
async fn kill_again_and_again(server: &LocalServer, counts: &Counts) {
    let mut kills = 0;
    while kills < KILLS_MIN || counts.unknown.load(Ordering::Relaxed) == 0 {
        let enough = counts.acknowledged.load(Ordering::Relaxed) + 500;
        while counts.acknowledged.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        tokio::task::block_in_place(|| {
            server.kill();
            server.start_again().unwrap();
        });
        kills += 1;
    }
    counts.ended.store(true, Ordering::Relaxed);
}

#[derive(Default)]
struct Ledger {
    seq: u64,
    acknowledged: BTreeMap<u64, String>,
}

/// Appends until the last kill is over; after an error it recovers as an entity does.
async fn write(journal: Arc<PostgresJournal>, writer: usize, counts: Arc<Counts>) -> Ledger {
    let name = writer.to_string();
    let mut ledger = Ledger::default();
    let mut again = tokio::time::interval(Duration::from_millis(20));
    for attempt in 0.. {
        if counts.ended.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{attempt}");
        match journal.append(append(&name, ledger.seq, &[&text])).await {
            Ok(appended) => {
                ledger.seq = appended.seq;
                ledger.acknowledged.insert(appended.seq, text);
                counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(AppendError::Store(JournalError::Unknown { .. })) => {
                counts.unknown.fetch_add(1, Ordering::Relaxed);
            }
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
