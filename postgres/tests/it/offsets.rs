//! Offsets: what a projection writes and its offset are there together or not at all.

use crate::child;
use crate::local_server::shared;
use crate::support::{connect, fresh, fresh_name, open};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use otava_persistence::{JournalError, OffsetStore as _};
use otava_postgres::{OffsetError, PostgresConfig, PostgresOffsets};
use tokio_postgres::error::Error;

async fn add(
    offsets: &PostgresOffsets,
    table: &str,
    (expected, new): (Option<u64>, u64),
) -> Result<u64, OffsetError<Error>> {
    let sql = format!("UPDATE {table} SET total = total + 1");
    offsets
        .with_offset("totals", expected, new, |transaction| {
            async move { transaction.execute(&sql, &[]).await }.boxed()
        })
        .await
}

async fn total(url: &str, table: &str) -> i64 {
    let row = connect(url)
        .await
        .query_one(&format!("SELECT total FROM {table}"), &[])
        .await;
    row.unwrap().get(0)
}

async fn table(url: &str) -> String {
    let table = format!("{}_totals", fresh_name());
    let make = format!("CREATE TABLE {table} AS SELECT 0::bigint AS total");
    connect(url).await.batch_execute(&make).await.unwrap();
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_move_an_offset_one_writes() {
    let Some(url) = shared() else { return };
    let (table, config) = (table(url).await, fresh(url));
    let runners = join_all((0..3).map(async |_| open(&config).await.postgres_offsets())).await;
    for round in 0..10_u64 {
        let step = (round.checked_sub(1), round);
        let moves = join_all(runners.iter().map(|runner| add(runner, &table, step))).await;
        let moved = moves.iter().filter(|moved| moved.is_ok()).count();
        let refused = |moved: &&Result<_, _>| matches!(moved, Err(OffsetError::Moved { .. }));
        assert_eq!((moved, moves.iter().filter(refused).count()), (1, 2));
    }
    assert_eq!(total(url, &table).await, 10);
    assert_eq!(runners[0].load("totals").await.unwrap(), Some(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_fails_moves_nothing() {
    let Some(url) = shared() else { return };
    let (table, config) = (table(url).await, fresh(url));
    let offsets = open(&config).await.postgres_offsets();
    add(&offsets, &table, (None, 1)).await.unwrap();
    let sql = format!("UPDATE {table} SET total = total + 1");
    let failed = offsets
        .with_offset("totals", Some(1), 2, |transaction| {
            async move {
                transaction.execute(&sql, &[]).await.unwrap();
                transaction.execute("SELECT nonsense", &[]).await
            }
            .boxed()
        })
        .await;
    assert!(matches!(failed, Err(OffsetError::Handler(_))), "{failed:?}");
    assert_eq!(offsets.load("totals").await.unwrap(), Some(1));
    assert_eq!(total(url, &table).await, 1);
    // Dropped halfway is as good as never begun.
    let halfway = offsets.with_offset("totals", Some(1), 2, |transaction| {
        let sql = format!("UPDATE {table} SET total = 77");
        async move {
            transaction.execute(&sql, &[]).await.unwrap();
            std::future::pending::<Result<(), Error>>().await
        }
        .boxed()
    });
    let limit = std::time::Duration::from_millis(200);
    tokio::time::timeout(limit, halfway).await.unwrap_err();
    add(&offsets, &table, (Some(1), 2)).await.unwrap();
    assert_eq!(total(url, &table).await, 2);
}

/// P6: a process that was paused in the middle of its transaction. The server ends it, another takes
/// over, and what the paused one commits when it wakes up is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_does_not_hold_an_offset_and_does_not_write() {
    let Some(url) = shared() else { return };
    let schema = fresh_name();
    let config = PostgresConfig::parse(url).unwrap().schema(&schema);
    let offsets = open(&config).await.postgres_offsets();
    offsets.save("p", 1).await.unwrap();
    let client = connect(url).await;
    let table = "DROP TABLE IF EXISTS results; CREATE TABLE results (who text)";
    client.batch_execute(table).await.unwrap();
    let mut paused = child::start(url, &schema, "offset");
    paused.next("holding").unwrap();
    paused.signal("STOP");
    // Waits for the row lock until the server has ended the session of the paused one.
    offsets
        .with_offset("p", Some(1), 2, |transaction| {
            async move {
                let row = "INSERT INTO results (who) VALUES ('other')";
                transaction.execute(row, &[]).await
            }
            .boxed()
        })
        .await
        .unwrap();
    paused.signal("CONT");
    paused.say("go on");
    let refused = paused.next("refused").unwrap();
    assert!(!refused.is_empty());
    let rows = client.query("SELECT who FROM results", &[]).await.unwrap();
    let who: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(who, ["other"]);
}

#[tokio::test]
async fn after_the_end_nothing_is_moved() {
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    let offsets = journal.postgres_offsets();
    otava_persistence::Journal::close(&*journal).await;
    let refused = add(&offsets, "nowhere", (None, 1)).await;
    assert!(
        matches!(refused, Err(OffsetError::Store(JournalError::Closed))),
        "{refused:?}"
    );
}
