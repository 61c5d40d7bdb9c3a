//! Support: schemas for tests, and short names for what they write.

use otava_persistence::{AppendRequest, EventRecord, Journal, PersistenceId, StoredEvent};
use otava_postgres::{PostgresConfig, PostgresJournal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{Client, NoTls};

/// A name of a schema that nothing else uses.
pub(crate) fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("test_{}_{number}", std::process::id())
}

/// A schema that nothing else uses, on the server at `url`.
pub(crate) fn fresh(url: &str) -> PostgresConfig {
    PostgresConfig::parse(url).unwrap().schema(fresh_name())
}

pub(crate) async fn open(config: &PostgresConfig) -> Arc<PostgresJournal> {
    Arc::new(PostgresJournal::open(config.clone()).await.unwrap())
}

/// A connection past the journal, for looking and for doing harm.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn id(entity: &str) -> PersistenceId {
    PersistenceId::new("test", entity)
}

pub(crate) fn append(entity: &str, expected_seq: u64, texts: &[&str]) -> AppendRequest {
    let event = |text: &&str| EventRecord::new("test.Event", 1, text.as_bytes().to_vec());
    AppendRequest::new(id(entity), expected_seq, texts.iter().map(event).collect())
}

/// All events of an entity, as texts.
pub(crate) async fn texts(journal: &dyn Journal, entity: &str) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let page = journal
            .read(&id(entity), texts.len() as u64 + 1, 4000)
            .await;
        let events = page.unwrap().events;
        if events.is_empty() {
            return texts;
        }
        texts.extend(events.into_iter().map(text));
    }
}

pub(crate) fn text(event: StoredEvent) -> String {
    String::from_utf8(event.record.payload.into()).unwrap()
}

/// Waits until a session waits for an advisory lock of somebody else.
pub(crate) async fn until_one_waits(client: &Client, sessions: i64) {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    loop {
        let waiting: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        if waiting >= sessions {
            return;
        }
        tokio::task::yield_now().await;
    }
}
