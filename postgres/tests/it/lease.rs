//! Lease: one owner at a time, by the clock of the server, and a term for each change.

use crate::local_server::shared;
use crate::support::{fresh, open};
use futures_util::future::join_all;
use otava_cluster::{Grant, Lease};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_owner_holds_a_name() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let (one, other) = (open(&config).await.lease(), open(&config).await.lease());
    let taken = |by: &str| Ok(Grant::Taken { by: by.to_owned() });
    let held = |term| Ok(Grant::Held { term });
    assert_eq!(one.holder("x").await, Ok(None));
    assert_eq!(one.acquire("x", "a", LONG).await, held(1));
    assert_eq!(other.acquire("x", "b", LONG).await, taken("a"));
    assert_eq!(one.acquire("x", "a", LONG).await, held(1));
    assert_eq!(other.acquire("y", "b", LONG).await, held(1));
    other.release("x", "b").await.unwrap();
    assert_eq!(other.holder("x").await, Ok(Some("a".to_owned())));
    one.release("x", "a").await.unwrap();
    assert_eq!(other.holder("x").await, Ok(None));
    assert_eq!(other.acquire("x", "b", LONG).await, held(2));
    // Its time is over at once: whoever comes next has a new term, also the same owner.
    assert_eq!(other.acquire("x", "b", Duration::ZERO).await, held(2));
    assert_eq!(one.acquire("x", "a", Duration::ZERO).await, held(3));
    assert_eq!(one.acquire("x", "a", LONG).await, held(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_ask_at_once_one_gets_it() {
    let Some(url) = shared() else { return };
    let lease = open(&fresh(url)).await.lease();
    let owners: Vec<_> = (0..20).map(|owner| owner.to_string()).collect();
    let grants = join_all(owners.iter().map(|owner| lease.acquire("x", owner, LONG))).await;
    let held = grants
        .iter()
        .filter(|grant| matches!(grant, Ok(Grant::Held { term: 1 })));
    assert_eq!(held.count(), 1);
    let taken = grants
        .iter()
        .filter(|grant| matches!(grant, Ok(Grant::Taken { .. })));
    assert_eq!(taken.count(), 19);
}
