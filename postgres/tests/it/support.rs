//! Support: schemas for tests, and short names for what they write.

use otava_persistence::{AppendRequest, EventRecord, Journal, PersistenceId};
use otava_postgres::{PostgresConfig, PostgresJournal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A schema that nothing else uses, on the server at `url`.
pub(crate) fn fresh(url: &str) -> PostgresConfig {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let schema = format!("test_{}_{number}", std::process::id());
    PostgresConfig::parse(url).unwrap().schema(schema)
}

pub(crate) async fn open(config: &PostgresConfig) -> Arc<PostgresJournal> {
    Arc::new(PostgresJournal::open(config.clone()).await.unwrap())
}

pub(crate) fn id(entity: &str) -> PersistenceId {
    PersistenceId::new("test", entity)
}

pub(crate) fn append(entity: &str, expected_seq: u64, texts: &[&str]) -> AppendRequest {
    let event = |text: &&str| EventRecord::new("test.Event", 1, text.as_bytes().to_vec());
    AppendRequest::new(id(entity), expected_seq, texts.iter().map(event).collect())
}

pub(crate) async fn texts(journal: &dyn Journal, entity: &str) -> Vec<String> {
    let page = journal.read(&id(entity), 1, 4000).await.unwrap();
    let text = |event: otava_persistence::StoredEvent| String::from_utf8(event.record.payload);
    page.events
        .into_iter()
        .map(|event| text(event).unwrap())
        .collect()
}
