//! Conformance: the PostgreSQL stores pass the public kit.

use crate::local_server::shared;
use crate::support::{fresh, open};
use otava_persistence::conformance;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_conforms() {
    let Some(url) = shared() else { return };
    conformance::journal(async || open(&fresh(url)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_conform() {
    let Some(url) = shared() else { return };
    conformance::deletes(async || open(&fresh(url)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_conform() {
    let Some(url) = shared() else { return };
    conformance::queries(async || open(&fresh(url)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_conform() {
    let Some(url) = shared() else { return };
    conformance::states(async || open(&fresh(url)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_conform() {
    let Some(url) = shared() else { return };
    conformance::snapshots(async || open(&fresh(url)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_conform() {
    let Some(url) = shared() else { return };
    conformance::offsets(async || Arc::new(open(&fresh(url)).await.postgres_offsets())).await;
}
