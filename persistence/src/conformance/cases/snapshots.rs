//! Snapshot cases: newest first, retention, replacement, deletion.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use super::{assert_too_large, id};
use crate::journal::EventRecord;
use crate::snapshot::{Snapshot, SnapshotStore};
use std::num::NonZeroU32;
use std::sync::Arc;

type Store = Arc<dyn SnapshotStore>;

fn snapshot(entity: &str, seq: u64, text: &str) -> Snapshot {
    Snapshot::new(
        id(entity),
        seq,
        "conformance.State",
        1,
        text.as_bytes().to_vec(),
    )
}

fn keep(snapshots: u32) -> NonZeroU32 {
    NonZeroU32::new(snapshots).unwrap()
}

async fn latest(store: &Store, entity: &str, seq_max: u64) -> Option<u64> {
    store
        .latest(&id(entity), seq_max)
        .await
        .unwrap()
        .map(|snapshot| snapshot.seq)
}

pub async fn a_new_id_has_no_snapshot(store: Store) {
    assert_eq!(latest(&store, "a", u64::MAX).await, None);
    store.delete(&id("a"), u64::MAX).await.unwrap();
}

pub async fn a_snapshot_comes_back_as_it_was_saved(store: Store) {
    let large: Vec<u8> = (0..3_000_000).map(|n| (n % 253) as u8).collect();
    for (seq, payload) in [(1, vec![]), (2, vec![0, 1, 255]), (1 << 40, large)] {
        let saved = Snapshot::new(id("a"), seq, "conformance.Täg", 65_535, payload);
        store.save(saved.clone(), keep(9)).await.unwrap();
        let read = store.latest(&id("a"), u64::MAX).await.unwrap();
        assert!(read == Some(saved), "snapshot {seq} differs");
    }
}

pub async fn the_newest_within_the_bound_is_given(store: Store) {
    for seq in [10, 30, 20] {
        store.save(snapshot("a", seq, "x"), keep(9)).await.unwrap();
    }
    for (seq_max, expected) in [
        (u64::MAX, Some(30)),
        (30, Some(30)),
        (29, Some(20)),
        (10, Some(10)),
        (9, None),
        (0, None),
    ] {
        assert_eq!(
            latest(&store, "a", seq_max).await,
            expected,
            "at most {seq_max}"
        );
    }
}

pub async fn only_the_newest_are_kept(store: Store) {
    for seq in 1..=10 {
        store.save(snapshot("a", seq, "x"), keep(3)).await.unwrap();
        store.save(snapshot("b", seq, "x"), keep(9)).await.unwrap();
    }
    assert_eq!(latest(&store, "a", 8).await, Some(8));
    assert_eq!(latest(&store, "a", 7).await, None);
    assert_eq!(latest(&store, "b", 7).await, Some(7));
    store.save(snapshot("a", 11, "x"), keep(1)).await.unwrap();
    assert_eq!(latest(&store, "a", 10).await, None);
}

pub async fn the_same_number_is_replaced(store: Store) {
    store.save(snapshot("a", 1, "old"), keep(2)).await.unwrap();
    store.save(snapshot("a", 2, "x"), keep(2)).await.unwrap();
    store.save(snapshot("a", 1, "new"), keep(2)).await.unwrap();
    let read = store.latest(&id("a"), 1).await.unwrap().unwrap();
    assert_eq!(read.payload, b"new");
    assert_eq!(latest(&store, "a", u64::MAX).await, Some(2));
}

pub async fn deleted_snapshots_are_gone(store: Store) {
    for seq in 1..=3 {
        store.save(snapshot("a", seq, "x"), keep(9)).await.unwrap();
        store.save(snapshot("b", seq, "x"), keep(9)).await.unwrap();
    }
    store.delete(&id("a"), 2).await.unwrap();
    assert_eq!(latest(&store, "a", 2).await, None);
    assert_eq!(latest(&store, "a", 3).await, Some(3));
    assert_eq!(latest(&store, "b", 2).await, Some(2));
    store.delete(&id("a"), u64::MAX).await.unwrap();
    assert_eq!(latest(&store, "a", u64::MAX).await, None);
}

pub async fn ids_do_not_mix(store: Store) {
    for (n, entity) in ["", "a", "A", "a|", "ä"].into_iter().enumerate() {
        store
            .save(snapshot(entity, n as u64 + 1, entity), keep(1))
            .await
            .unwrap();
    }
    for (n, entity) in ["", "a", "A", "a|", "ä"].into_iter().enumerate() {
        let read = store.latest(&id(entity), u64::MAX).await.unwrap().unwrap();
        assert_eq!(
            (read.seq, read.payload),
            (n as u64 + 1, entity.as_bytes().to_vec())
        );
    }
}

pub async fn limits_hold(store: Store) {
    let long = "x".repeat(EventRecord::NAME_BYTES_MAX + 1);
    let snapshot = Snapshot::new(id("a"), 1, long, 1, vec![]);
    assert_too_large(store.save(snapshot, keep(1)).await);
    assert_eq!(latest(&store, "a", u64::MAX).await, None);
}
