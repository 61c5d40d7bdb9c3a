//! Map: replicated values by key, which can be removed with what is in them.

use super::crdt::{Crdt, Datum, decode, encode, form};
use crate::logic::replicated::Sealed;
use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::dots::{Context, Replica};
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::store::{Element, Store};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// A map of replicated values: sets, counters, registers, or maps again.
///
/// A key is there as long as there is something in its value. Removing it removes what is seen of the
/// value here: what others write at the same time stays. Of a counter that means: who counted at the
/// same time keeps all that it had counted, also before.
///
/// ```
/// use otava_cluster::replicated::{GCounter, Level, Key, OrMap, Replicator};
///
/// # async fn demo(replicator: Replicator) -> Result<(), Box<dyn std::error::Error>> {
/// let visits = Key::<OrMap<String, GCounter>>::new("visits");
/// let visit = replicator.update(&visits, |visits| {
///     visits.update(&"/index".to_owned(), |page| page.add(1));
/// });
/// visit.level(Level::majority()).await?;
/// # Ok(())
/// # }
/// ```
pub struct OrMap<K, V>(Draft, PhantomData<fn() -> (K, V)>);

impl<K: Datum, V: Crdt> OrMap<K, V> {
    /// Changes the value of a key, which begins as an empty one; returns what `change` returns.
    pub fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> R {
        let Some(key) = encode(&mut self.0, key) else {
            // The draft has failed; the change is made to nothing.
            let nothing = Arc::new(Causal::empty(&V::blank()));
            return change(&mut V::open(Draft::new(nothing, Replica(0), self.0.wall())));
        };
        // What was taken must be put back, whatever happens.
        let (draft, home) = self.0.take(&key, V::blank()).lend();
        let result = catch_unwind(AssertUnwindSafe(|| change(&mut V::open(draft))));
        self.0.put(key, home.back());
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Removes a key with what is in its value.
    pub fn remove(&mut self, key: &K) {
        if let Some(key) = form(key) {
            self.0.remove(&key);
        }
    }

    /// Removes everything that is seen here.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The value of a key, to be read.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        let store = values(&self.0)?.get(&form(key)?)?;
        Some(self.view(store))
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        form(key).is_some_and(|key| values(&self.0).is_some_and(|values| values.contains_key(&key)))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        values(&self.0).map_or(0, BTreeMap::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys, in the order of their encoded forms.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        let keys = values(&self.0).into_iter().flat_map(BTreeMap::keys);
        keys.filter_map(decode)
    }

    /// Keys and values, in the order of the keys' encoded forms. Each is copied on the way.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        let values = values(&self.0).into_iter().flatten();
        values.filter_map(|(key, store)| Some((decode(key)?, self.view(store))))
    }

    /// A copy of a value, to be read.
    fn view(&self, store: &Store) -> V {
        let value = Causal {
            store: store.clone(),
            context: Context::new(),
        };
        V::open(Draft::new(Arc::new(value), Replica(0), self.0.wall()))
    }
}

fn values(draft: &Draft) -> Option<&BTreeMap<Element, Store>> {
    match draft.store() {
        Store::Map(values) => Some(values),
        _ => None,
    }
}

impl<K, V> Clone for OrMap<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K, V> fmt::Debug for OrMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = values(&self.0).map_or(0, BTreeMap::len);
        f.debug_struct("OrMap")
            .field("len", &len)
            .finish_non_exhaustive()
    }
}

impl<K, V> Sealed for OrMap<K, V> {}

impl<K: Datum, V: Crdt> Crdt for OrMap<K, V> {
    fn type_name() -> String {
        format!("or-map<{},{}>", K::NAME, V::type_name())
    }

    fn blank() -> Store {
        Store::Map(BTreeMap::new())
    }

    fn open(draft: Draft) -> Self {
        Self(draft, PhantomData)
    }
}
