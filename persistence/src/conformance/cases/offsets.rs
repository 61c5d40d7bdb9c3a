//! Offset cases: saved, moved back, forgotten.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use super::assert_too_large;
use crate::offset::{OFFSET_KEY_BYTES_MAX, OffsetStore};
use std::sync::Arc;

type Store = Arc<dyn OffsetStore>;

pub async fn a_new_key_has_no_offset(store: Store) {
    assert_eq!(store.load("a").await.unwrap(), None);
    store.clear("a").await.unwrap();
}

pub async fn an_offset_comes_back(store: Store) {
    for offset in [0, 1, 1 << 40, i64::MAX as u64] {
        store.save("a", offset).await.unwrap();
        assert_eq!(store.load("a").await.unwrap(), Some(offset));
    }
}

pub async fn an_offset_may_go_back(store: Store) {
    for offset in [70, 7, 0] {
        store.save("a", offset).await.unwrap();
        assert_eq!(store.load("a").await.unwrap(), Some(offset));
    }
}

pub async fn a_cleared_offset_is_gone(store: Store) {
    store.save("a", 7).await.unwrap();
    store.save("b", 8).await.unwrap();
    store.clear("a").await.unwrap();
    assert_eq!(store.load("a").await.unwrap(), None);
    assert_eq!(store.load("b").await.unwrap(), Some(8));
    store.save("a", 1).await.unwrap();
    assert_eq!(store.load("a").await.unwrap(), Some(1));
}

pub async fn keys_do_not_mix(store: Store) {
    let longest = "x".repeat(OFFSET_KEY_BYTES_MAX);
    let keys = [
        "",
        "a",
        "A",
        "a/0-511",
        "a/512-1023",
        "ä",
        "%",
        "'",
        &longest,
    ];
    for (offset, key) in keys.iter().enumerate() {
        store.save(key, offset as u64).await.unwrap();
    }
    for (offset, key) in keys.iter().enumerate() {
        assert_eq!(store.load(key).await.unwrap(), Some(offset as u64), "{key}");
    }
}

pub async fn limits_hold(store: Store) {
    let key = "x".repeat(OFFSET_KEY_BYTES_MAX + 1);
    assert_too_large(store.save(&key, 1).await);
    assert_eq!(store.load("x").await.unwrap(), None);
}
