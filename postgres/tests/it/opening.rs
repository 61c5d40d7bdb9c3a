//! Opening: migrations, versions, and errors that say what is wrong and hold no secret.

use crate::local_server::shared;
use crate::support::{append, connect, fresh, open, texts};
use futures_util::future::join_all;
use otava_persistence::{ClaimError, Journal, JournalError};
use otava_postgres::{OpenError, PostgresConfig, PostgresJournal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_open_a_new_schema_at_once() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let journals = join_all((0..8).map(|_| open(&config))).await;
    for (seq, journal) in (0..).zip(&journals) {
        journal.append(append("a", seq, &["x"])).await.unwrap();
    }
    assert_eq!(texts(&*journals[0], "a").await.len(), 8);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let journal = open(&config).await;
    let note = "INSERT INTO @.migrations (version, program) VALUES (99, 'of the future')";
    execute(&journal, &config, note).await;
    let refused = PostgresJournal::open(config).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerSchema { found: 99, .. }),
        "{refused}"
    );
}

async fn execute(journal: &PostgresJournal, config: &PostgresConfig, sql: &str) {
    let client = journal.postgres_offsets().client().await.unwrap();
    client.batch_execute(&in_schema(config, sql)).await.unwrap();
}

/// Only `Debug` tells the name.
fn in_schema(config: &PostgresConfig, sql: &str) -> String {
    let shown = format!("{config:?}");
    let name = shown.split("schema: \"").nth(1).unwrap();
    sql.replace('@', name.split('"').next().unwrap())
}

#[tokio::test]
async fn without_leave_nothing_is_migrated() {
    let Some(url) = shared() else { return };
    let config = fresh(url).migrate(false);
    let refused = PostgresJournal::open(config.clone()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::NotMigrated { found: 0, .. }),
        "{refused}"
    );
    open(&config.clone().migrate(true)).await;
    open(&config).await;
}

#[tokio::test]
async fn no_error_shows_the_password() {
    for address in [
        "postgres://u:hunter2@127.0.0.1:1/db",
        "postgres://u:hunter2@127.0.0.1:1/db?sslmode=require",
    ] {
        let config = PostgresConfig::parse(address).unwrap();
        let refused = PostgresJournal::open(config).await.unwrap_err();
        let shown = format!("{refused} {refused:?}");
        assert!(matches!(refused, OpenError::Connect { .. }), "{shown}");
        assert!(
            shown.contains("127.0.0.1:1") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    let config = PostgresConfig::parse("host=h").unwrap().schema("\"; DROP");
    let refused = PostgresJournal::open(config).await.unwrap_err();
    assert!(matches!(refused, OpenError::Config(_)), "{refused}");
}

/// What the session says does not matter: what fences rest on is checked where they are.
#[tokio::test]
async fn the_functions_demand_the_isolation_and_the_durability_that_they_need() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let journal = open(&config).await;
    let client = connect(url).await;
    let claim = in_schema(&config, "SELECT @.claim_1('s', 1)");
    let begin = "SET synchronous_commit = off; BEGIN";
    client
        .batch_execute(&format!("{begin}; {claim}"))
        .await
        .unwrap();
    let row = client
        .query_one("SHOW synchronous_commit", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "on");
    client.batch_execute("COMMIT").await.unwrap();
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}; {claim}");
        let error = client.batch_execute(&begin).await.unwrap_err();
        let said = error.as_db_error().unwrap().message();
        assert!(said.contains("read committed"), "{said}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    assert!(matches!(
        journal.claim("s", 0).await,
        Err(ClaimError::Fenced { current: 1 })
    ));
}

/// Numbers that the server has no room for are refused, or equal nothing.
#[tokio::test]
async fn numbers_above_what_the_server_holds_do_no_harm() {
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    assert!(matches!(
        journal.claim("s", u64::MAX).await,
        Err(ClaimError::Store(JournalError::TooLarge { .. }))
    ));
    let fence = otava_persistence::Fence::new("s", u64::MAX);
    let refused = journal
        .append(append("a", 0, &["x"]).fenced(Some(fence)))
        .await;
    assert!(
        matches!(
            refused,
            Err(otava_persistence::AppendError::Fenced { current: 0 })
        ),
        "{refused:?}"
    );
}
