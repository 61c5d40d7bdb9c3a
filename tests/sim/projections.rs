//! Proves: a projection over the cluster stores every event once, whatever happens to its nodes.

use crate::counter::{Command, Counter};
use otava::prelude::*;
use otava::testkit::{Simulation, seeds};
use otava::{ClusterProjection, Entities, Projection, ShardingConfig};
use otava_persistence::{
    Envelope, EventQueries, EventQuery, ProjectionCommit, ProjectionRun, ProjectionState,
    RunFenced, SliceOffset, SliceOffsets, TransactionError, TransactionalHandler,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A table outside of the cluster: the numbers that each entity took, and the offsets.
#[derive(Default)]
struct Table {
    offsets: SliceOffsets,
    rows: BTreeMap<String, Vec<u64>>,
}

struct Report(Arc<Mutex<Table>>);

fn fenced<X>(RunFenced { current }: RunFenced) -> TransactionError<X> {
    TransactionError::Fenced { current }
}

impl TransactionalHandler<u64> for Report {
    type Error = std::convert::Infallible;

    async fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<Self::Error>> {
        sleep(Duration::from_millis(2)).await;
        self.0.lock().unwrap().offsets.claim(run).map_err(fenced)
    }

    async fn handle(
        &mut self,
        events: &[Envelope<u64>],
        commit: &ProjectionCommit,
    ) -> Result<(), TransactionError<Self::Error>> {
        sleep(Duration::from_millis(5)).await;
        let mut table = self.0.lock().unwrap();
        table.offsets.advance(commit).map_err(fenced)?;
        for event in events {
            let entity = event.id.entity().to_owned();
            table.rows.entry(entity).or_default().push(event.event);
        }
        Ok(())
    }
}

const IDS: u64 = 12;

#[derive(Clone)]
struct Hosted {
    counters: Entities<Command>,
    report: ClusterProjection,
}

fn host(node: &Node, table: &Arc<Mutex<Table>>) -> Hosted {
    let options = EntityOptions::default().sharding(ShardingConfig::default().shards(16));
    let counters = node.entities::<Counter>(options).unwrap();
    let table = Arc::clone(table);
    let plan = Projection::of::<Counter>("report", node.journal().clone())
        .query(EventQuery::all().kind(Counter::KIND))
        .instances(6)
        .exactly_once(move || Report(Arc::clone(&table)));
    let report = node.projection(plan, ShardingConfig::default()).unwrap();
    Hosted { counters, report }
}

/// Waits until all instances say that they are behind nothing and rest or wait; which nodes have them.
async fn until_all_wait(report: &ClusterProjection, newest: u64) {
    let waiting = async {
        loop {
            let statuses = report.statuses().await;
            let there = statuses.iter().flatten().filter(|one| one.offset >= newest);
            if there.count() == 6 {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let done = timeout(Duration::from_secs(120), waiting).await;
    if done.is_err() {
        panic!(
            "the projection does not catch up: {:?}",
            report.statuses().await
        );
    }
}

/// P10, S2: while nodes crash, leave, come and are cut off, each event is stored once and in order; the
/// instances are spread, and can be paused and begun again from anywhere.
#[test]
fn a_projection_over_the_cluster_stores_every_event_once() {
    for seed in seeds(2) {
        let table = Arc::<Mutex<Table>>::default();
        let shared = Arc::clone(&table);
        let host = move |node: &Node| host(node, &shared);
        Simulation::seeded(seed)
            .nodes(4)
            .run(host, async |cluster| {
                let load = cluster.load(3, async move |hosted: Hosted, n| {
                    let counter = hosted.counters.entity(format!("c-{}", n % IDS));
                    let _ = counter.ask(|to| Command::Take(n, to)).await;
                });
                cluster.random_faults(Duration::from_secs(60)).await;
                load.stop().await;
                let (_, Hosted { counters, report }) = cluster.some_node();
                let journal = cluster.journal();
                let newest = EventQueries::changed(&*journal, 0).await.unwrap();
                until_all_wait(&report, newest).await;
                let rows = table.lock().unwrap().rows.clone();
                let mut stored = 0;
                for id in (0..IDS).map(|n| format!("c-{n}")) {
                    let taken = counters.entity(&id).ask(Command::Get).await.unwrap();
                    assert_eq!(rows.get(&id).unwrap_or(&Vec::new()), &taken, "{id}");
                    stored += taken.len();
                }
                assert!(stored > 300, "only {stored}");
                let homes: std::collections::BTreeSet<_> =
                    report.homes().into_iter().flatten().collect();
                assert!(homes.len() > 1, "all instances are on one node");

                report.pause().await.unwrap();
                table.lock().unwrap().rows.clear();
                report.restart_from(0).await.unwrap();
                let statuses = report.statuses().await;
                let paused = |one: &_| matches!(one, Ok(status) if is_paused(status));
                assert!(statuses.iter().all(paused), "{statuses:?}");
                report.resume().await.unwrap();
                until_all_wait(&report, newest).await;
                assert_eq!(table.lock().unwrap().rows, rows);
            });
    }
}

fn is_paused(status: &otava::ProjectionStatus) -> bool {
    status.state == ProjectionState::Paused && status.offset == 0
}
