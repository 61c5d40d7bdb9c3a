//! Projections: a report in tables of the database has every event once, whatever runs and ends.

use crate::local_server::shared;
use crate::support::{append, connect, fresh, fresh_name, open};
use futures_util::FutureExt as _;
use otava_persistence::{
    Envelope, EventQuery, FoundEvent, Journal, OnPoison, Projection, ProjectionCommit,
    ProjectionOptions, ProjectionPlan, ProjectionRun, ProjectionState, SliceOffset,
    TransactionError, TransactionalHandler,
};
use otava_postgres::{OffsetError, PostgresJournal, PostgresOffsets};
use std::convert::Infallible;
use std::sync::Arc;
use tokio_postgres::Error;

struct Report {
    offsets: PostgresOffsets,
    table: Arc<str>,
}

impl TransactionalHandler<()> for Report {
    type Error = OffsetError<Error>;

    async fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<Self::Error>> {
        self.offsets.claim_slices(run).await
    }

    async fn handle(
        &mut self,
        events: &[Envelope<()>],
        commit: &ProjectionCommit,
    ) -> Result<(), TransactionError<Self::Error>> {
        let sql = format!("INSERT INTO {} (entity, seq) VALUES ($1, $2)", self.table);
        let rows: Vec<(String, i64)> = events
            .iter()
            .map(|event| (event.id.entity().to_owned(), event.seq.cast_signed()))
            .collect();
        self.offsets
            .commit(commit, |transaction| {
                async move {
                    for (entity, seq) in rows {
                        transaction.execute(&sql, &[&entity, &seq]).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    fn passes(error: &Self::Error) -> bool {
        matches!(error, OffsetError::Store(_))
    }
}

fn plan(journal: &Arc<PostgresJournal>, table: &Arc<str>, instances: u16) -> ProjectionPlan {
    let (offsets, table) = (journal.postgres_offsets(), Arc::clone(table));
    let decode = |_: &FoundEvent| Ok::<_, Infallible>(Some(()));
    let journal: Arc<dyn Journal> = journal.clone();
    let options = ProjectionOptions::default().on_poison(OnPoison::Stop { retries: 0 });
    Projection::decoded_by("report", journal, decode)
        .query(EventQuery::all().kind("test"))
        .options(options.batch_events(7.try_into().unwrap()))
        .instances(instances)
        .exactly_once(move || Report {
            offsets: offsets.clone(),
            table: Arc::clone(&table),
        })
}

/// P10: runs are cut off anywhere, run at the same time, and have other numbers of instances; each event
/// is in the table once. A second time would be refused by the table, and end the projection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_has_every_event_once() {
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    let table: Arc<str> = format!("{}_report", fresh_name()).into();
    let client = connect(url).await;
    let make = format!(
        "CREATE TABLE {table} (entity text, seq bigint, n bigserial, PRIMARY KEY (entity, seq))"
    );
    client.batch_execute(&make).await.unwrap();
    let mut olds = Vec::new();
    let mut last = 0;
    for round in 0..12_u64 {
        for entity in 0..9 {
            let name = format!("e{entity}");
            let request = append(&name, round * 3, &["a", "b", "c"]);
            last = journal.append(request).await.unwrap().position;
        }
        let instances = [1, 4, 3, 8][round as usize % 4];
        let running = plan(&journal, &table, instances).start().unwrap();
        let mut statuses = running.watch();
        let some = 5 * (round % 4);
        let far = |all: &Vec<otava_persistence::ProjectionStatus>| {
            let handled: u64 = all.iter().map(|one| one.handled).sum();
            handled >= some || all.iter().any(|one| one.state.has_ended())
        };
        statuses.wait_for(far).await.unwrap();
        match round % 3 {
            0 => running.abort(),
            1 => running.stop().await,
            _ => olds.push(running),
        }
    }
    let running = plan(&journal, &table, 5).start().unwrap();
    running.caught_up_with(last).await.unwrap();
    let rows = client
        .query(&format!("SELECT entity, seq FROM {table} ORDER BY n"), &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 9 * 12 * 3);
    for entity in 0..9 {
        let name = format!("e{entity}");
        let mine = rows.iter().filter(|row| row.get::<_, String>(0) == name);
        let seqs: Vec<i64> = mine.map(|row| row.get(1)).collect();
        assert_eq!(seqs, (1..=36).collect::<Vec<_>>());
    }
    running.stop().await;
    for old in olds {
        old.stop().await;
        let failed =
            |one: &otava_persistence::ProjectionStatus| one.state == ProjectionState::Failed;
        assert!(!old.statuses().iter().any(failed), "{:?}", old.statuses());
    }
    journal.close().await;
}
