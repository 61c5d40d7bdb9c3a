//! Projections: results in a table are stored exactly once, whatever ends runs and connections.

use crate::local_server::shared;
use crate::support::{append, connect, fresh, fresh_name, open};
use futures_util::future::join_all;
use otava_actor::Backoff;
use otava_persistence::{
    Envelope, FoundEvent, Journal, Projection, ProjectionCommit, ProjectionHandle,
    ProjectionOptions, ProjectionRun, SliceOffset, TransactionError, TransactionalHandler,
};
use otava_postgres::{PostgresHandler, PostgresJournal, PostgresResults};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::{Client, Transaction};

/// Writes a row for each event, into a table without any constraint. Some attempts fail, and some end
/// the session that they run in.
struct Rows {
    table: String,
    /// Counts attempts; without it nothing fails.
    attempts: Option<Arc<AtomicU64>>,
}

impl PostgresHandler<String> for Rows {
    type Error = tokio_postgres::Error;

    async fn handle(
        &mut self,
        events: &[Envelope<String>],
        transaction: &Transaction<'_>,
    ) -> Result<(), Self::Error> {
        let insert = format!("INSERT INTO {} (id, seq) VALUES ($1, $2)", self.table);
        for event in events {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
                [&event.id.entity(), &event.seq.cast_signed()];
            transaction.execute(&insert, &params).await?;
        }
        let attempt = |counter: &Arc<AtomicU64>| counter.fetch_add(1, Ordering::Relaxed) % 20;
        let sql = match self.attempts.as_ref().map(attempt) {
            Some(3) => "SELECT 1 / 0",
            Some(12) => "SELECT pg_terminate_backend(pg_backend_pid())",
            _ => return Ok(()),
        };
        transaction.execute(sql, &[]).await.map(drop)
    }

    fn passes(error: &Self::Error) -> bool {
        error.as_db_error().is_none()
    }
}

fn start(journal: &Arc<PostgresJournal>, table: &str, instances: u16) -> ProjectionHandle {
    let decode =
        |found: &FoundEvent| String::from_utf8(found.event.record.payload.to_vec()).map(Some);
    let (offsets, table) = (journal.postgres_offsets(), table.to_owned());
    let attempts = Some(Arc::new(AtomicU64::new(0)));
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(50));
    let options = ProjectionOptions::default().backoff(backoff);
    Projection::decoded_by("rows", Arc::clone(journal) as Arc<dyn Journal>, decode)
        .instances(instances)
        .options(options.batch_events(7.try_into().unwrap()))
        .exactly_once(move || {
            let (table, attempts) = (table.clone(), attempts.clone());
            PostgresResults::new(offsets.clone(), Rows { table, attempts })
        })
        .start()
        .unwrap()
}

async fn table(client: &Client) -> String {
    let table = format!("{}_rows", fresh_name());
    let make = format!("CREATE TABLE {table} (n bigserial, id text, seq bigint)");
    client.batch_execute(&make).await.unwrap();
    table
}

/// P10: handlers that fail, sessions that end, runs that overlap, another number of instances: a row for
/// each event, in the order of its entity.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_in_the_table_once() {
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    let client = connect(url).await;
    let table = table(&client).await;
    let mut running = Vec::new();
    let mut newest = 0;
    for round in 0..4 {
        let appends = (0..30).map(async |entity| {
            let (name, seq) = (entity.to_string(), round * 5);
            let texts = ["a", "b", "c", "d", "e"];
            journal
                .append(append(&name, seq, &texts))
                .await
                .unwrap()
                .position
        });
        newest = join_all(appends).await.into_iter().max().unwrap();
        // The run before is still there.
        running.push(start(&journal, &table, [2, 3, 1, 4][round as usize]));
    }
    // One that was started before may take its number later, and then replaces the one that came last.
    while running
        .last()
        .unwrap()
        .caught_up_with(newest)
        .await
        .is_err()
    {
        running.push(start(&journal, &table, 2));
    }
    for run in &running {
        run.stop().await;
    }
    let rows = client
        .query(&format!("SELECT id, seq FROM {table} ORDER BY n"), &[])
        .await;
    let mut of_entity = BTreeMap::<String, Vec<i64>>::new();
    for row in rows.unwrap() {
        of_entity.entry(row.get(0)).or_default().push(row.get(1));
    }
    assert_eq!(of_entity.len(), 30);
    for (entity, seqs) in of_entity {
        assert_eq!(seqs, (1..=20).collect::<Vec<_>>(), "{entity}");
    }
}

/// A run that has lost a slice cannot commit, nor claim any of its slices again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_replaced_stores_nothing() {
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    let client = connect(url).await;
    let table = table(&client).await;
    let mut results = PostgresResults::new(
        journal.postgres_offsets(),
        Rows {
            table: table.clone(),
            attempts: None,
        },
    );
    let (old, new) = (
        ProjectionRun::new("p", 0..=1023, 1),
        ProjectionRun::new("p", 0..=511, 2),
    );
    let commit =
        |run: &ProjectionRun, offset, restart| ProjectionCommit::new(run.clone(), offset, restart);
    let pieces = |offsets: Vec<SliceOffset>| -> Vec<_> {
        offsets
            .iter()
            .map(|at| (at.first, at.last, at.offset))
            .collect()
    };
    assert_eq!(pieces(results.claim(&old).await.unwrap()), [(0, 1023, 0)]);
    results.handle(&[], &commit(&old, 70, false)).await.unwrap();
    assert_eq!(pieces(results.claim(&new).await.unwrap()), [(0, 511, 70)]);
    let refused = results.handle(&[], &commit(&old, 80, false)).await;
    assert!(
        matches!(refused, Err(TransactionError::Fenced { current: 2 })),
        "{refused:?}"
    );
    let refused = results.claim(&old).await;
    assert!(
        matches!(refused, Err(TransactionError::Fenced { current: 2 })),
        "{refused:?}"
    );
    results.handle(&[], &commit(&new, 90, false)).await.unwrap();
    results.handle(&[], &commit(&new, 50, false)).await.unwrap();
    let whole = ProjectionRun::new("p", 0..=1023, 3);
    let both = vec![(0, 511, 90), (512, 1023, 70)];
    assert_eq!(pieces(results.claim(&whole).await.unwrap()), both);
    results.handle(&[], &commit(&whole, 5, true)).await.unwrap();
    let last = ProjectionRun::new("p", 100..=100, 4);
    assert_eq!(pieces(results.claim(&last).await.unwrap()), [(100, 100, 5)]);
}
