//! RememberStore: which entities are to live although nobody sends to them, kept outside of the nodes.
//!
//! `otava` adapts its journal to it.

use crate::entity::ENTITY_ID_BYTES_MAX;
use crate::store::StoreError;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// Which entities live without messages: they start with their shard, wherever that is, and again
/// after a failure.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Remember {
    /// These, always. One that stops by itself is started again, after a wait as after a failure.
    Fixed(Arc<[Arc<str>]>),
    /// None.
    #[default]
    Nothing,
    /// Each that was started and has not stopped by itself since. It is remembered before it handles
    /// its first message; that waits for the store, bounded as what waits for a start. One that stops
    /// by itself, or asks to be passivated, is forgotten once the store has noted it. Passivation by
    /// [`crate::Passivation`] is off.
    Started(Arc<dyn RememberStore>),
}

impl Remember {
    /// These entities, always.
    pub fn fixed<I: Into<Arc<str>>>(ids: impl IntoIterator<Item = I>) -> Self {
        Self::Fixed(ids.into_iter().map(Into::into).collect())
    }

    /// Each that was started and has not stopped by itself since.
    pub fn started(store: Arc<dyn RememberStore>) -> Self {
        Self::Started(store)
    }
}

impl fmt::Debug for Remember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(ids) => f.debug_tuple("Fixed").field(&ids.len()).finish(),
            Self::Nothing => f.write_str("Nothing"),
            Self::Started(_) => f.write_str("Started(..)"),
        }
    }
}

/// Of which shard something is remembered, and by which right.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RememberedShard {
    /// The kind of the entities.
    pub kind: Arc<str>,
    /// The shard.
    pub shard: u32,
    /// How many shards the kind has at the moment. A store that keeps entities by their hash needs not
    /// care: see [`RememberedShard::hashes`].
    pub shards: u32,
    /// What the epoch was claimed for.
    pub scope: Arc<str>,
    /// The allocation of the shard. A store that can see that a later one has been claimed refuses.
    pub epoch: u64,
}

impl RememberedShard {
    /// The shard `shard` of `shards`, which `epoch` was claimed for.
    #[must_use]
    pub fn new(kind: Arc<str>, (shard, shards): (u32, u32), scope: Arc<str>, epoch: u64) -> Self {
        Self {
            kind,
            shard,
            shards,
            scope,
            epoch,
        }
    }

    /// The hashes of the entities of this shard ([`entity_hash`]). By them a store finds the entities
    /// also when the number of shards was changed since they were remembered.
    #[must_use]
    pub fn hashes(&self) -> RangeInclusive<u64> {
        let width = u128::from(u64::MAX) + 1;
        let of = |shard: u32| width / u128::from(self.shards.max(1)) * u128::from(shard);
        let (first, next) = (of(self.shard), of(self.shard.saturating_add(1)));
        let narrow = |hash: u128| u64::try_from(hash).unwrap_or(u64::MAX);
        narrow(first)..=narrow(next.saturating_sub(1))
    }
}

/// The stable hash of an entity's id, whose ranges are the shards: XXH3 with 64 bits and seed 0.
#[must_use]
pub fn entity_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// Some of those who are remembered.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RememberedPage {
    /// Their ids.
    pub ids: Vec<Arc<str>>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Keeps who is remembered. Shared by all nodes; what it has confirmed must last.
///
/// Each call carries the shard's epoch: a store that knows of a later allocation answers
/// [`RememberError::Refused`], and the shard is given up. Without that a node that has lost its shard may
/// for a while remember or forget what it should not, which costs an instance too many of an entity
/// that has stopped, or a message for one that should live.
///
/// All calls may come again, also when they were carried out.
pub trait RememberStore: Send + Sync + 'static {
    /// At most `limit` of those who are remembered in the shard, in an order of the store's that stays
    /// the same, from the one that follows `after`.
    fn load<'a>(
        &'a self,
        shard: &'a RememberedShard,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<RememberedPage, RememberError>>;

    /// Remembers these; it is no error if they are already.
    fn add<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>>;

    /// Forgets these; it is no error if they are not remembered.
    fn remove<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>>;
}

/// Why a store of remembered entities did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RememberError {
    /// The shard was given to another node.
    #[error("epoch {current} was claimed for the shard")]
    Refused {
        /// The epoch of the later allocation.
        current: u64,
    },
    /// Nothing is known; ask again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Ids in the order of their hashes.
type Ids = BTreeSet<(u64, Arc<str>)>;

/// A store in memory: for tests, and for a cluster inside one process. Share one between the nodes.
#[derive(Default)]
pub struct MemoryRememberStore {
    kinds: Mutex<BTreeMap<Arc<str>, Ids>>,
    /// The highest epoch by which a scope was written or read.
    epochs: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl MemoryRememberStore {
    /// Nobody is remembered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everybody who is remembered of a kind, sorted.
    #[must_use]
    pub fn all(&self, kind: &str) -> Vec<Arc<str>> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = kinds.get(kind).into_iter().flatten();
        let mut ids: Vec<Arc<str>> = ids.map(|(_, id)| id.clone()).collect();
        ids.sort();
        ids
    }

    /// Carries something out by the right of the shard's epoch.
    fn with<R>(
        &self,
        shard: &RememberedShard,
        act: impl FnOnce(&mut Ids) -> R,
    ) -> Result<R, RememberError> {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let current = epochs.entry(shard.scope.clone()).or_default();
        if *current > shard.epoch {
            return Err(RememberError::Refused { current: *current });
        }
        *current = shard.epoch;
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(act(kinds.entry(shard.kind.clone()).or_default()))
    }
}

impl RememberStore for MemoryRememberStore {
    fn load<'a>(
        &'a self,
        shard: &'a RememberedShard,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<RememberedPage, RememberError>> {
        let page = self.with(shard, |ids| {
            let (first, last) = shard.hashes().into_inner();
            let from = after.map_or(Bound::Included((first, Arc::from(""))), |after| {
                Bound::Excluded((entity_hash(after), after.into()))
            });
            let mut found = ids.range((from, Bound::Unbounded));
            let here = found.by_ref().take_while(|(hash, _)| *hash <= last);
            let ids: Vec<Arc<str>> = here.take(limit).map(|(_, id)| id.clone()).collect();
            let more = ids.len() == limit;
            RememberedPage { ids, more }
        });
        Box::pin(async move { page })
    }

    fn add<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>> {
        let added = self.with(shard, |known| {
            known.extend(ids.iter().map(|id| (entity_hash(id), id.clone())));
        });
        Box::pin(async move { added })
    }

    fn remove<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>> {
        let removed = self.with(shard, |known| {
            for id in ids {
                known.remove(&(entity_hash(id), id.clone()));
            }
        });
        Box::pin(async move { removed })
    }
}

impl fmt::Debug for MemoryRememberStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRememberStore")
            .finish_non_exhaustive()
    }
}

/// Whether an entity may have this id.
pub(crate) fn is_valid_id(id: &str) -> bool {
    (1..=ENTITY_ID_BYTES_MAX).contains(&id.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::hash::shard_of;

    fn shard(shard: u32, shards: u32, epoch: u64) -> RememberedShard {
        let scope = format!("k/{shard}").into();
        RememberedShard::new("k".into(), (shard, shards), scope, epoch)
    }

    #[test]
    fn the_ranges_of_hashes_are_the_shards() {
        for shards in [1, 2, 128, 65_536] {
            for n in 0..2_000 {
                let id = format!("e{n}");
                let of = shard_of(&id, shards);
                assert!(shard(of, shards, 1).hashes().contains(&entity_hash(&id)));
            }
            let last = shard(shards - 1, shards, 1);
            assert_eq!(*last.hashes().end(), u64::MAX);
        }
    }

    #[tokio::test]
    async fn pages_hold_everybody_also_by_another_number_of_shards() {
        let store = MemoryRememberStore::new();
        for n in 0..1_000 {
            let id: Arc<str> = format!("e{n}").into();
            let of = shard(shard_of(&id, 4), 4, 1);
            store.add(&of, &[id]).await.unwrap();
        }
        for shards in [1, 4, 8] {
            let mut all = BTreeSet::new();
            for number in 0..shards {
                let of = shard(number, shards, 2);
                let mut after: Option<Arc<str>> = None;
                loop {
                    let page = store.load(&of, after.as_deref(), 7).await.unwrap();
                    assert!(page.ids.len() <= 7);
                    after = page.ids.last().cloned().or(after);
                    for id in page.ids {
                        assert_eq!(shard_of(&id, shards), number);
                        assert!(all.insert(id), "twice");
                    }
                    if !page.more {
                        break;
                    }
                }
            }
            assert_eq!(all.len(), 1_000);
        }
        let id: Arc<str> = "e7".into();
        let of = shard(shard_of(&id, 4), 4, 2);
        store.remove(&of, &[id]).await.unwrap();
        assert_eq!(store.all("k").len(), 999);
    }

    #[tokio::test]
    async fn an_earlier_allocation_is_refused() {
        let store = MemoryRememberStore::new();
        store.load(&shard(0, 1, 5), None, 1).await.unwrap();
        let late = store.add(&shard(0, 1, 4), &["a".into()]).await;
        assert_eq!(late, Err(RememberError::Refused { current: 5 }));
        assert_eq!(store.all("k"), []);
    }
}
