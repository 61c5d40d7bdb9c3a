//! Keys: one secret key an entity, by which its events can be made unreadable for good.
//!
//! An entity whose builder was given a [`KeyStore`] encrypts the payloads of its events, letters and
//! snapshots. To forget it, its key is destroyed ([`KeyStore::shred`]): every copy of its events,
//! in journals, replicas and backups, can never be read again. Ids, names, tags and sequence numbers are
//! not encrypted.

use crate::error::{AppendError, JournalError};
use crate::format::FormatError;
use crate::format::sealed::{KEY_BYTES, Seal, Spot, What};
use crate::id::PersistenceId;
use crate::journal::EventRecord;
use crate::state::{SaveState, StateStore, StoredState};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps the keys of entities.
///
/// Shredding is worth as much as the store of the keys: its backups must be gone sooner than those of
/// the events.
///
/// # Cancel safety
/// A future that is dropped after its first poll does not take back what it asked for.
pub trait KeyStore: Send + Sync + 'static {
    /// The key of an entity: the one that was made for it, or a new one. Whoever asks, there is one.
    ///
    /// # Errors
    /// [`KeyError::Shredded`] for good, once its key was destroyed.
    fn key<'a>(&'a self, id: &'a PersistenceId) -> BoxFuture<'a, Result<EntityKey, KeyError>>;

    /// Destroys the key of an entity. No new one is ever made for this id. Again is the same as once.
    /// An entity that runs has its key in memory: stop it first.
    ///
    /// # Errors
    /// See [`KeyError`].
    fn shred<'a>(&'a self, id: &'a PersistenceId) -> BoxFuture<'a, Result<(), KeyError>>;
}

/// Why there is no key.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// What is stored as the key of this entity is none, or the master key does not fit.
    #[error("the key of {id} cannot be read: {source}")]
    Damaged {
        /// Whose key.
        id: PersistenceId,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The system gives no randomness for a new key.
    #[error("the system gives no randomness for a key")]
    NoRandomness,
    /// The key was destroyed: what this entity has written can never be read again.
    #[error("the key of {id} was shredded")]
    Shredded {
        /// Whose key.
        id: PersistenceId,
    },
    /// The store of the keys could not do it.
    #[error("the store of keys: {0}")]
    Store(#[from] JournalError),
}

/// A secret key, 32 random bytes. Its debug form does not show it.
#[derive(Clone, Eq, PartialEq)]
pub struct EntityKey(Arc<[u8; KEY_BYTES]>);

impl EntityKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| KeyError::NoRandomness)?;
        Ok(Self::from_bytes(bytes))
    }

    /// A key that was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes, to be kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    pub(crate) fn seal(&self) -> Seal {
        Seal::new(&self.0)
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntityKey(..)")
    }
}

/// Keys in memory: for tests. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeys(Arc<Mutex<BTreeMap<PersistenceId, Option<EntityKey>>>>);

impl MemoryKeys {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn key_now(&self, id: &PersistenceId) -> Result<EntityKey, KeyError> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.get(id) {
            Some(Some(key)) => Ok(key.clone()),
            Some(None) => Err(KeyError::Shredded { id: id.clone() }),
            None => {
                let key = EntityKey::random()?;
                keys.insert(id.clone(), Some(key.clone()));
                Ok(key)
            }
        }
    }
}

impl KeyStore for MemoryKeys {
    fn key<'a>(&'a self, id: &'a PersistenceId) -> BoxFuture<'a, Result<EntityKey, KeyError>> {
        ready(self.key_now(id)).boxed()
    }

    fn shred<'a>(&'a self, id: &'a PersistenceId) -> BoxFuture<'a, Result<(), KeyError>> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(id.clone(), None);
        ready(Ok(())).boxed()
    }
}

/// Keys in a store of states: one state an entity, whose removal is the shredding.
///
/// Give it another store than that of the events, with backups of its own. With a master key, kept
/// outside of both, the keys are encrypted at rest.
pub struct StateKeys {
    store: Arc<dyn StateStore>,
    master: Option<Seal>,
}

/// The kind of the states that hold keys.
const KEY_KIND: &str = "otava-key";
const KEY_NAME: &str = "otava.key";
const KEY_VERSION: u16 = 1;

impl StateKeys {
    /// Keys in `store`, as they are.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        let master = None;
        Self { store, master }
    }

    /// Keys are encrypted by `master`. Without it none of them can be read.
    #[must_use]
    pub fn master(mut self, master: &EntityKey) -> Self {
        self.master = Some(master.seal());
        self
    }

    async fn load(&self, place: &PersistenceId) -> Result<(u64, Option<StoredState>), KeyError> {
        let stored = self.store.load(place).await?;
        Ok((stored.as_ref().map_or(0, |state| state.revision), stored))
    }

    async fn save(&self, state: SaveState) -> Result<bool, KeyError> {
        match self.store.save(state).await {
            Ok(_) => Ok(true),
            // Somebody else was faster: look again.
            Err(AppendError::WrongSequence { .. } | AppendError::Fenced { .. }) => Ok(false),
            Err(AppendError::Store(error)) => Err(error.into()),
        }
    }

    async fn key_now(&self, id: &PersistenceId) -> Result<EntityKey, KeyError> {
        let place = PersistenceId::new(KEY_KIND, id.as_str());
        loop {
            let (revision, stored) = self.load(&place).await?;
            match stored.map(|state| state.record) {
                Some(Some(record)) => return self.read(id, &place, record),
                Some(None) => return Err(KeyError::Shredded { id: id.clone() }),
                None => {}
            }
            let key = EntityKey::random()?;
            let record = self.write(id, &place, &key)?;
            let new = SaveState::new(place.clone(), revision, Some(record));
            if self.save(new).await? {
                return Ok(key);
            }
        }
    }

    fn spot(place: &PersistenceId) -> Spot<'_> {
        Spot {
            what: What::Key,
            id: place,
            seq: 1,
            name: KEY_NAME,
            version: KEY_VERSION,
        }
    }

    fn write(
        &self,
        id: &PersistenceId,
        place: &PersistenceId,
        key: &EntityKey,
    ) -> Result<EventRecord, KeyError> {
        let plain = crate::format::encode(key.as_bytes());
        let payload = plain.and_then(|plain| match &self.master {
            Some(master) => master.close(Self::spot(place), &plain),
            None => Ok(plain),
        });
        let payload = payload.map_err(|source| KeyError::Damaged {
            id: id.clone(),
            source,
        })?;
        Ok(EventRecord::new(KEY_NAME, KEY_VERSION, payload))
    }

    fn read(
        &self,
        id: &PersistenceId,
        place: &PersistenceId,
        record: EventRecord,
    ) -> Result<EntityKey, KeyError> {
        let opened = match &self.master {
            Some(master) => master.open(Self::spot(place), record.payload),
            None => Ok(record.payload),
        };
        let bytes = opened.and_then(|payload| crate::format::decode(&payload));
        bytes
            .map(EntityKey::from_bytes)
            .map_err(|source| KeyError::Damaged {
                id: id.clone(),
                source,
            })
    }

    async fn shred_now(&self, id: &PersistenceId) -> Result<(), KeyError> {
        let place = PersistenceId::new(KEY_KIND, id.as_str());
        loop {
            let (revision, stored) = self.load(&place).await?;
            if stored.is_some_and(|state| state.record.is_none()) {
                return Ok(());
            }
            let removal = SaveState::new(place.clone(), revision, None);
            if self.save(removal).await? {
                return Ok(());
            }
        }
    }
}

impl KeyStore for StateKeys {
    fn key<'a>(&'a self, id: &'a PersistenceId) -> BoxFuture<'a, Result<EntityKey, KeyError>> {
        self.key_now(id).boxed()
    }

    fn shred<'a>(&'a self, id: &'a PersistenceId) -> BoxFuture<'a, Result<(), KeyError>> {
        self.shred_now(id).boxed()
    }
}

impl fmt::Debug for StateKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateKeys")
            .field("master", &self.master.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal as _;
    use crate::memory::MemoryJournal;

    fn id(name: &str) -> PersistenceId {
        PersistenceId::new("person", name)
    }

    async fn keeps_and_shreds(keys: &dyn KeyStore) {
        let (a, b) = (id("a"), id("b"));
        let key = keys.key(&a).await.unwrap();
        assert_eq!(keys.key(&a).await.unwrap(), key);
        assert_ne!(keys.key(&b).await.unwrap(), key);
        for _ in 0..2 {
            keys.shred(&a).await.unwrap();
            let error = keys.key(&a).await.unwrap_err();
            assert!(matches!(error, KeyError::Shredded { id } if id == a));
        }
        keys.key(&b).await.unwrap();
        // A key that never was is not made any more either.
        keys.shred(&id("c")).await.unwrap();
        assert!(keys.key(&id("c")).await.is_err());
    }

    #[tokio::test]
    async fn every_store_of_keys_keeps_and_shreds() {
        let store = || MemoryJournal::new().states().unwrap();
        let master = EntityKey::random().unwrap();
        keeps_and_shreds(&MemoryKeys::new()).await;
        keeps_and_shreds(&StateKeys::new(store())).await;
        keeps_and_shreds(&StateKeys::new(store()).master(&master)).await;
    }

    #[tokio::test]
    async fn without_the_master_key_no_key_is_read() {
        let store = MemoryJournal::new().states().unwrap();
        let master = EntityKey::from_bytes([1; KEY_BYTES]);
        let keys = StateKeys::new(Arc::clone(&store)).master(&master);
        let key = keys.key(&id("a")).await.unwrap();
        let again = StateKeys::new(Arc::clone(&store)).master(&master);
        assert_eq!(again.key(&id("a")).await.unwrap(), key);
        let other =
            StateKeys::new(Arc::clone(&store)).master(&EntityKey::from_bytes([2; KEY_BYTES]));
        for keys in [other, StateKeys::new(store)] {
            let error = keys.key(&id("a")).await.unwrap_err();
            assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(
            format!("{:?}", EntityKey::from_bytes([7; KEY_BYTES])),
            "EntityKey(..)"
        );
    }
}
