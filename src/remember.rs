//! Remember: keeps who is remembered of a kind of entities in the journal, beside their events.
//!
//! The entities of a kind lie in 1,024 buckets by the first bits of their hash, so that a shard is some
//! buckets, or a part of one, whatever the number of shards is or becomes. Each bucket is an id in the
//! journal: its events say who came and who went, a snapshot who was there. A node that writes to a
//! bucket knows its newest sequence number, or the journal refuses, and it reads first. The shard's
//! epoch is the fence of each write, so a node that has lost the shard can note nothing.

use futures_util::future::BoxFuture;
use otava_persistence::format::{decode, encode};
use otava_persistence::{
    AppendError, AppendRequest, DeleteRequest, EventRecord, Fence, Journal, PersistenceId, Snapshot,
};
use otava_sharding::{
    RememberError, RememberStore, RememberedPage, RememberedShard, StoreError, entity_hash,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

/// How many bits of the hash name a bucket.
const BUCKET_BITS: u32 = 10;
/// The kind of the persistence ids of buckets.
const KIND: &str = "otava-remembered";
const NAME: &str = "otava.Remembered";
const VERSION: u16 = 1;
/// After as many events the set is stored whole, and they are removed.
const COMPACT_EVERY: u64 = 64;
/// Ids in one event; more become several.
const IDS_MAX: usize = 1_000;
/// Events that are read at once.
const PAGE: usize = 500;
/// How often a write is tried that others came before.
const TRIES: usize = 8;

/// What happens in a bucket. Stored: see the golden bytes in the tests.
#[derive(Deserialize, Serialize)]
enum Change {
    Added(Vec<Arc<str>>),
    Removed(Vec<Arc<str>>),
}

/// Remembered entities in a journal: for [`otava_sharding::Remember::started`].
///
/// Give every node one over the same journal.
pub struct JournalRememberStore {
    journal: Arc<dyn Journal>,
    buckets: Mutex<BTreeMap<PersistenceId, Arc<tokio::sync::Mutex<Bucket>>>>,
}

/// One bucket as it was when it was last seen.
#[derive(Default)]
struct Bucket {
    read: bool,
    seq: u64,
    /// Where the last snapshot was tried.
    compacted: u64,
    /// By hash, then id: the order of pages.
    ids: BTreeSet<(u64, Arc<str>)>,
}

impl JournalRememberStore {
    /// Who is remembered, kept in `journal`, which must hold the claims of the shards as well.
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        let buckets = Mutex::default();
        Self { journal, buckets }
    }

    fn bucket(&self, id: &PersistenceId) -> Arc<tokio::sync::Mutex<Bucket>> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.entry(id.clone()).or_default().clone()
    }

    async fn page(
        &self,
        shard: &RememberedShard,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RememberedPage, RememberError> {
        let (first, last) = shard.hashes().into_inner();
        let from = after.map(|after| (entity_hash(after), Arc::from(after)));
        let begin = from.as_ref().map_or(first, |(hash, _)| *hash);
        let mut ids = Vec::new();
        for bucket in bucket_of(begin)..=bucket_of(last) {
            let id = bucket_id(&shard.kind, bucket);
            let cell = self.bucket(&id);
            let mut held = cell.lock().await;
            // Others may have written to a bucket since it was last looked at. The one in which the last
            // page ended was looked at for that.
            let goes_on = after.is_some() && bucket == bucket_of(begin);
            if !goes_on || !held.read {
                self.read(&id, &mut held).await?;
                self.check(&id, &held, shard).await?;
            }
            let from = from
                .clone()
                .map_or(Bound::Included((first, Arc::from(""))), Bound::Excluded);
            let found = held.ids.range((from, Bound::Unbounded));
            let here = found.take_while(|(hash, _)| *hash <= last);
            let room = limit.saturating_add(1) - ids.len();
            ids.extend(here.take(room).map(|(_, id)| id.clone()));
            if ids.len() > limit {
                ids.truncate(limit);
                return Ok(RememberedPage { ids, more: true });
            }
        }
        Ok(RememberedPage { ids, more: false })
    }

    /// Asks the journal whether the shard is still ours.
    async fn check(
        &self,
        id: &PersistenceId,
        bucket: &Bucket,
        shard: &RememberedShard,
    ) -> Result<(), RememberError> {
        let request = AppendRequest::new(id.clone(), bucket.seq, Vec::new());
        match self.journal.append(request.fenced(fence(shard))).await {
            // What others have added meanwhile is of other shards: ours is fenced.
            Ok(_) | Err(AppendError::WrongSequence { .. }) => Ok(()),
            Err(error) => Err(self.refused(id, error)),
        }
    }

    /// Brings what is known of a bucket up to what the journal has.
    async fn read(&self, id: &PersistenceId, bucket: &mut Bucket) -> Result<(), RememberError> {
        if !bucket.read {
            *bucket = Bucket::default();
            if let Some(snapshots) = self.journal.snapshots()
                && let Some(snapshot) = snapshots.latest(id, u64::MAX).await.map_err(failed)?
            {
                known(id, &snapshot.name, snapshot.version)?;
                let ids: Vec<Arc<str>> = decode(&snapshot.payload).map_err(failed)?;
                bucket.ids = ids.into_iter().map(hashed).collect();
                (bucket.seq, bucket.compacted) = (snapshot.seq, snapshot.seq);
            }
        }
        loop {
            let page = self.journal.read(id, bucket.seq + 1, PAGE).await;
            let page = page.map_err(failed)?;
            if page.deleted_seq > bucket.seq {
                // Another node has compacted it: its snapshot is newer than what is known here.
                if !bucket.read && bucket.compacted < page.deleted_seq {
                    let lost = format!("{id}: events are removed, and no snapshot holds them");
                    return Err(StoreError::new(lost).into());
                }
                bucket.read = false;
                return Box::pin(self.read(id, bucket)).await;
            }
            let is_last = page.events.len() < PAGE;
            for event in page.events {
                known(id, &event.record.name, event.record.version)?;
                let change = decode(&event.record.payload).map_err(failed)?;
                bucket.take(change);
                bucket.seq = event.seq;
            }
            if is_last {
                bucket.read = true;
                return Ok(());
            }
        }
    }

    async fn write(
        &self,
        shard: &RememberedShard,
        ids: &[Arc<str>],
        change: impl Fn(Vec<Arc<str>>) -> Change,
        is_news: impl Fn(&Bucket, &Arc<str>) -> bool,
    ) -> Result<(), RememberError> {
        let mut by_bucket: BTreeMap<u64, Vec<&Arc<str>>> = BTreeMap::new();
        for id in ids {
            let bucket = by_bucket.entry(bucket_of(entity_hash(id)));
            bucket.or_default().push(id);
        }
        for (number, ids) in by_bucket {
            let id = bucket_id(&shard.kind, number);
            let cell = self.bucket(&id);
            let mut bucket = cell.lock().await;
            if !bucket.read {
                self.read(&id, &mut bucket).await?;
            }
            self.append(&id, &mut bucket, shard, |bucket| {
                let news = ids.iter().filter(|id| is_news(bucket, id));
                let news: Vec<Arc<str>> = news.map(|id| Arc::clone(id)).collect();
                news.chunks(IDS_MAX)
                    .map(|ids| change(ids.to_vec()))
                    .collect()
            })
            .await?;
            self.compact(&id, &mut bucket, shard).await;
        }
        Ok(())
    }

    /// Appends what `changes` makes of the bucket, again from what is there if another shard of the bucket
    /// wrote meanwhile. No change is appended as well: the answer must not come from a shard that is lost.
    async fn append(
        &self,
        id: &PersistenceId,
        bucket: &mut Bucket,
        shard: &RememberedShard,
        changes: impl Fn(&Bucket) -> Vec<Change>,
    ) -> Result<(), RememberError> {
        for _ in 0..TRIES {
            let changes = changes(bucket);
            let events = changes.iter().map(|change| {
                let payload = encode(change).map_err(failed)?;
                Ok(EventRecord::new(NAME, VERSION, payload))
            });
            let events = events.collect::<Result<Vec<_>, RememberError>>()?;
            let request = AppendRequest::new(id.clone(), bucket.seq, events);
            match self.journal.append(request.fenced(fence(shard))).await {
                Ok(appended) => {
                    changes.into_iter().for_each(|change| bucket.take(change));
                    bucket.seq = appended.seq;
                    return Ok(());
                }
                Err(AppendError::WrongSequence { .. }) => self.read(id, bucket).await?,
                Err(error) => {
                    // Whether it was written is not known: the next one reads.
                    bucket.read = false;
                    return Err(self.refused(id, error));
                }
            }
        }
        Err(StoreError::new(format!("{id}: others write to it all the time")).into())
    }

    /// Stores the set whole from time to time. What fails here costs time at the next start, and nothing
    /// else.
    async fn compact(&self, id: &PersistenceId, bucket: &mut Bucket, shard: &RememberedShard) {
        let Some(snapshots) = self.journal.snapshots() else {
            return;
        };
        if bucket.seq < bucket.compacted + COMPACT_EVERY {
            return;
        }
        bucket.compacted = bucket.seq;
        let ids: Vec<_> = bucket.ids.iter().map(|(_, id)| id).collect();
        let stored = async {
            let payload = encode(&ids).map_err(failed)?;
            let snapshot = Snapshot::new(id.clone(), bucket.seq, NAME, VERSION, payload);
            let saved = snapshots.save(snapshot, NonZeroU32::MIN.saturating_add(1));
            saved.await.map_err(failed)?;
            let delete = DeleteRequest::new(id.clone(), bucket.seq).fenced(fence(shard));
            self.journal.delete(delete).await.map_err(failed)
        };
        if let Err(error) = stored.await {
            tracing::debug!(%id, %error, "a bucket of remembered entities was not compacted");
        }
    }

    /// Why something was not written. A shard that is lost is forgotten here too.
    fn refused(&self, id: &PersistenceId, error: AppendError) -> RememberError {
        if let AppendError::Fenced { current } = error {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.remove(id);
            return RememberError::Refused { current };
        }
        failed(error)
    }
}

impl Bucket {
    fn take(&mut self, change: Change) {
        match change {
            Change::Added(ids) => self.ids.extend(ids.into_iter().map(hashed)),
            Change::Removed(ids) => {
                for id in ids {
                    self.ids.remove(&hashed(id));
                }
            }
        }
    }
}

impl RememberStore for JournalRememberStore {
    fn load<'a>(
        &'a self,
        shard: &'a RememberedShard,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<RememberedPage, RememberError>> {
        Box::pin(self.page(shard, after, limit))
    }

    fn add<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>> {
        let is_news = |bucket: &Bucket, id: &Arc<str>| !bucket.ids.contains(&hashed(id.clone()));
        Box::pin(self.write(shard, ids, Change::Added, is_news))
    }

    fn remove<'a>(
        &'a self,
        shard: &'a RememberedShard,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<(), RememberError>> {
        let is_news = |bucket: &Bucket, id: &Arc<str>| bucket.ids.contains(&hashed(id.clone()));
        Box::pin(self.write(shard, ids, Change::Removed, is_news))
    }
}

impl std::fmt::Debug for JournalRememberStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalRememberStore")
    }
}

fn fence(shard: &RememberedShard) -> Option<Fence> {
    Some(Fence::new(shard.scope.clone(), shard.epoch))
}

fn hashed(id: Arc<str>) -> (u64, Arc<str>) {
    (entity_hash(&id), id)
}

fn bucket_of(hash: u64) -> u64 {
    hash >> (u64::BITS - BUCKET_BITS)
}

fn bucket_id(kind: &str, bucket: u64) -> PersistenceId {
    PersistenceId::new(KIND, &format!("{kind}/{bucket}"))
}

fn failed(error: impl std::fmt::Display) -> RememberError {
    StoreError::new(error.to_string()).into()
}

/// Whether this program wrote it, or an earlier one.
fn known(id: &PersistenceId, name: &str, version: u16) -> Result<(), RememberError> {
    if (name, version) == (NAME, VERSION) {
        return Ok(());
    }
    let other =
        format!("{id} holds {name}, version {version}; this program knows {NAME}, {VERSION}");
    Err(StoreError::new(other).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_actor::Rng;
    use otava_persistence::MemoryJournal;

    fn shard(number: u32, shards: u32, epoch: u64) -> RememberedShard {
        let scope = format!("k/{number}").into();
        RememberedShard::new("k".into(), (number, shards), scope, epoch)
    }

    fn of(id: &str, shards: u32, epoch: u64) -> RememberedShard {
        let all = (0..shards).map(|number| shard(number, shards, epoch));
        let mut mine = all.filter(|shard| shard.hashes().contains(&entity_hash(id)));
        mine.next().unwrap()
    }

    async fn claimed(journal: &MemoryJournal, shards: u32, epoch: u64) {
        for number in 0..shards {
            journal.claim(&format!("k/{number}"), epoch).await.unwrap();
        }
    }

    async fn all(store: &JournalRememberStore, shards: u32, epoch: u64) -> BTreeSet<Arc<str>> {
        let mut all = BTreeSet::new();
        for number in 0..shards {
            let shard = shard(number, shards, epoch);
            let mut after: Option<Arc<str>> = None;
            loop {
                let page = store.load(&shard, after.as_deref(), 3).await.unwrap();
                assert!(page.ids.len() <= 3);
                after = page.ids.last().cloned().or(after);
                for id in page.ids {
                    assert!(shard.hashes().contains(&entity_hash(&id)));
                    assert!(all.insert(id), "once");
                }
                if !page.more {
                    break;
                }
            }
        }
        all
    }

    /// Random additions and removals through two stores, as two nodes with shards that move, leave what a
    /// set would hold: in pages, after restarts, and with other numbers of shards.
    #[tokio::test]
    async fn what_is_remembered_is_what_was_added_and_not_removed() {
        for (seed, shards) in [(1, 1), (2, 8), (3, 2_048)] {
            let journal = MemoryJournal::new();
            claimed(&journal, shards, 1).await;
            let node = || JournalRememberStore::new(Arc::new(journal.clone()));
            let stores = [node(), node()];
            let mut rng = Rng::seeded(seed);
            let mut expected = BTreeSet::new();
            for _ in 0..600 {
                // Few ids, so that buckets see many events.
                let id: Arc<str> = format!("e{}", rng.below(40)).into();
                let (store, shard) = (&stores[rng.below(2) as usize], of(&id, shards, 1));
                if rng.below(3) > 0 {
                    store.add(&shard, std::slice::from_ref(&id)).await.unwrap();
                    expected.insert(id);
                } else {
                    store
                        .remove(&shard, std::slice::from_ref(&id))
                        .await
                        .unwrap();
                    expected.remove(&id);
                }
            }
            for store in [&stores[0], &stores[1], &node()] {
                assert_eq!(all(store, shards, 1).await, expected, "seed {seed}");
            }
            claimed(&journal, shards * 2, 1).await;
            assert_eq!(all(&node(), shards * 2, 1).await, expected);
        }
    }

    /// S6: a node that has lost its shard notes nothing and is told so, also when it changes nothing.
    #[tokio::test]
    async fn an_earlier_allocation_is_refused() {
        let journal = MemoryJournal::new();
        claimed(&journal, 1, 4).await;
        let store = JournalRememberStore::new(Arc::new(journal.clone()));
        let (late, id) = (shard(0, 1, 4), [Arc::from("a")]);
        store.add(&late, &id).await.unwrap();
        claimed(&journal, 1, 5).await;
        let refused = RememberError::Refused { current: 5 };
        assert_eq!(store.add(&late, &id).await, Err(refused.clone()));
        assert_eq!(store.remove(&late, &id).await, Err(refused.clone()));
        assert_eq!(store.load(&late, None, 9).await, Err(refused));
        let now = shard(0, 1, 5);
        assert_eq!(store.load(&now, None, 9).await.unwrap().ids, id);
    }

    /// The events do not pile up: after many changes a bucket is a snapshot and few events.
    #[tokio::test]
    async fn a_bucket_is_compacted() {
        let journal = MemoryJournal::new();
        claimed(&journal, 1, 1).await;
        let store = JournalRememberStore::new(Arc::new(journal.clone()));
        let (shard, id) = (shard(0, 1, 1), [Arc::from("a")]);
        for _ in 0..1_000 {
            store.add(&shard, &id).await.unwrap();
            store.remove(&shard, &id).await.unwrap();
        }
        store.add(&shard, &id).await.unwrap();
        let bucket = bucket_id("k", bucket_of(entity_hash("a")));
        let page = journal.read(&bucket, 1, usize::MAX).await.unwrap();
        assert_eq!(page.highest_seq, 2_001);
        assert!(page.events.len() <= 64, "{}", page.events.len());
        let anew = JournalRememberStore::new(Arc::new(journal.clone()));
        assert_eq!(anew.load(&shard, None, 9).await.unwrap().ids, id);
    }

    /// The bytes are a contract.
    #[test]
    fn changes_have_golden_bytes() {
        let added = encode(&Change::Added(vec!["ab".into()])).unwrap();
        assert_eq!(added, [1, 0, 1, 2, b'a', b'b']);
        let removed = encode(&Change::Removed(vec!["c".into()])).unwrap();
        assert_eq!(removed, [1, 1, 1, 1, b'c']);
    }
}
