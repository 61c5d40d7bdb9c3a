//! Draft: a value while it is changed, and the delta of all changes so far.
//!
//! Each change is a small [`Causal`] that is joined into the value like one from another node, and
//! gathered for the others: a delta mutator in the sense of Almeida, Shoker, Baquero, 2018.

use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::dots::{Context, Dot, Replica};
use crate::logic::replicated::store::{Count, Dots, Element, Store, Written};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A value that is read or changed.
#[derive(Debug)]
pub struct Draft {
    /// Shared with those who read it; copied by the first change if somebody does.
    value: Arc<Causal>,
    delta: Option<Causal>,
    replica: Replica,
    /// What the writer's clock says, in microseconds.
    wall: u64,
    /// By how many bytes the value may grow.
    room: usize,
    failed: Option<Unmade>,
    /// Where it goes when it ends, if it is lent.
    home: Option<Arc<Mutex<Option<Finished>>>>,
}

/// What has become of a value, and why a change was not made.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The value.
    pub value: Arc<Causal>,
    /// All changes.
    pub delta: Option<Causal>,
    /// The first change that was not made.
    pub failed: Option<Unmade>,
    room: usize,
}

/// Where a draft that was lent comes back to when whoever has it drops it, even in a panic, or by putting
/// another in its place: a value must never be lost, since its writes would be numbered anew.
#[derive(Debug)]
pub struct Home(Arc<Mutex<Option<Finished>>>);

impl Home {
    /// What came back.
    ///
    /// # Panics
    /// If the draft still exists: somebody keeps it beyond the change that it was lent for.
    #[must_use]
    pub fn back(self) -> Finished {
        let back = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        back.expect("a replicated value is not kept beyond the update that lent it")
    }
}

/// Why a change was not made. Those before it in the same draft were.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unmade {
    /// An element or value has no encoding.
    NotEncodable(String),
    /// The value would be too large to be sent.
    TooLarge,
}

impl Draft {
    /// Begins to change `value` as `replica`.
    #[must_use]
    pub fn new(value: Arc<Causal>, replica: Replica, wall: u64) -> Self {
        Self {
            value,
            delta: None,
            replica,
            wall,
            room: usize::MAX,
            failed: None,
            home: None,
        }
    }

    /// Lends it.
    #[must_use]
    pub fn lend(mut self) -> (Self, Home) {
        let home = Arc::new(Mutex::new(None));
        self.home = Some(home.clone());
        (self, Home(home))
    }

    /// Lets the value grow by no more than `bytes`.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.room = bytes;
        self
    }

    /// What has become of the value.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        self.home = None;
        self.end()
    }

    fn end(&mut self) -> Finished {
        let blank = Arc::new(Causal::empty(&self.value.store));
        Finished {
            value: std::mem::replace(&mut self.value, blank),
            delta: self.delta.take(),
            failed: self.failed.take(),
            room: self.room,
        }
    }

    /// What stands now.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.value.store
    }

    /// The clock of the writer.
    #[must_use]
    pub fn wall(&self) -> u64 {
        self.wall
    }

    /// Says that a change could not be made.
    pub fn fail(&mut self, why: Unmade) {
        self.failed.get_or_insert(why);
    }

    /// Takes room for an addition with so many bytes of its own; whether there is enough.
    fn fits(&mut self, bytes: usize) -> bool {
        const DOT_AND_NAME: usize = 20;
        match self.room.checked_sub(bytes + DOT_AND_NAME) {
            Some(rest) => self.room = rest,
            None => self.fail(Unmade::TooLarge),
        }
        !matches!(self.failed, Some(Unmade::TooLarge))
    }

    fn apply(&mut self, store: Store, context: Context) {
        let delta = Causal { store, context };
        Arc::make_mut(&mut self.value).join_delta(&delta);
        self.gather(delta);
    }

    fn gather(&mut self, delta: Causal) {
        match &mut self.delta {
            Some(all) => all.join_deltas(&delta),
            None => self.delta = Some(delta),
        }
    }

    /// A new write, and what the context of a delta says that holds it and replaces `old`.
    fn write(&self, old: impl IntoIterator<Item = Dot>) -> (Dot, Context) {
        let number = self.value.context.highest(self.replica).saturating_add(1);
        let dot = Dot::new(self.replica, number);
        let mut context: Context = old.into_iter().collect();
        context.insert(dot);
        (dot, context)
    }

    /// Counts.
    pub fn count(&mut self, up: u64, down: u64) {
        let Store::Counter(dots) = &self.value.store else {
            return;
        };
        // A replica has one dot, with all that it counted; more after it took over from others.
        let range = Dot::new(self.replica, 0)..=Dot::new(self.replica, u64::MAX);
        let mut sum = Count { up, down };
        let mut old = Vec::new();
        for (dot, count) in dots.range(range) {
            sum.up = sum.up.saturating_add(count.up);
            sum.down = sum.down.saturating_add(count.down);
            old.push(*dot);
        }
        if old.is_empty() && !self.fits(0) {
            return;
        }
        let (dot, context) = self.write(old);
        self.apply(Store::Counter(Dots::from([(dot, sum)])), context);
    }

    /// Switches a flag.
    pub fn switch(&mut self, on: bool) {
        let Store::Flag(dots) = &self.value.store else {
            return;
        };
        let old: Vec<Dot> = dots.keys().copied().collect();
        if on {
            if old.is_empty() && !self.fits(0) {
                return;
            }
            let (dot, context) = self.write(old);
            self.apply(Store::Flag(Dots::from([(dot, ())])), context);
        } else if !old.is_empty() {
            let context = old.into_iter().collect();
            self.apply(Store::Flag(Dots::new()), context);
        }
    }

    /// Writes a register: what it holds here is replaced.
    pub fn set(&mut self, at: u64, value: Element) {
        if !self.fits(value.len()) {
            return;
        }
        let Store::Register(dots) = &self.value.store else {
            return;
        };
        let (dot, context) = self.write(dots.keys().copied());
        let written = Written { at, value };
        self.apply(Store::Register(Dots::from([(dot, written)])), context);
    }

    /// Adds an element to a set. If it is there already, the addition is a new one nevertheless, so
    /// that it stands against a removal elsewhere that has not seen this one.
    pub fn insert(&mut self, element: Element) {
        if !self.fits(element.len()) {
            return;
        }
        let Store::Set(elements) = &self.value.store else {
            return;
        };
        let old = elements.get(&element).into_iter().flat_map(BTreeMap::keys);
        let (dot, context) = self.write(old.copied());
        let dots = Dots::from([(dot, ())]);
        self.apply(Store::Set(BTreeMap::from([(element, dots)])), context);
    }

    /// Removes an element of a set, or a key of a map with its value: what is seen of it here.
    pub fn remove(&mut self, name: &Element) {
        let mut context = Context::new();
        let mut note = |dot| {
            context.insert(dot);
        };
        let store = match &self.value.store {
            Store::Set(elements) => {
                let Some(dots) = elements.get(name) else {
                    return;
                };
                dots.keys().for_each(|dot| note(*dot));
                Store::Set(BTreeMap::from([(name.clone(), Dots::new())]))
            }
            Store::Map(values) => {
                let Some(value) = values.get(name) else {
                    return;
                };
                value.each_dot(&mut note);
                Store::Map(BTreeMap::from([(name.clone(), value.names())]))
            }
            _ => return,
        };
        self.apply(store, context);
    }

    /// Removes everything that is seen here.
    pub fn clear(&mut self) {
        let mut context = Context::new();
        self.value.store.each_dot(&mut |dot| {
            context.insert(dot);
        });
        if !context.is_empty() {
            self.apply(self.value.store.names(), context);
        }
    }

    /// Takes the value of `key` out of a map, to be changed as a draft of its own and then given to
    /// [`Draft::put`]. `blank` stands for a value that is not there.
    ///
    /// Until it is put back, this one must not be looked at.
    #[must_use]
    pub fn take(&mut self, key: &Element, blank: Store) -> Self {
        let value = Arc::make_mut(&mut self.value);
        let store = match &mut value.store {
            Store::Map(values) => values.remove(key),
            _ => None,
        };
        let store = store.unwrap_or_else(|| {
            // A new key needs room too; if there is none, nothing can be put into its value.
            self.room = self.room.saturating_sub(key.len());
            blank
        });
        // The values of a map share its context.
        let context = std::mem::take(&mut value.context);
        let inner = Arc::new(Causal { store, context });
        Self::new(inner, self.replica, self.wall).with_room(self.room)
    }

    /// Puts back what [`Draft::take`] took out, with the changes that were made meanwhile.
    pub fn put(&mut self, key: Element, inner: Finished) {
        let Finished {
            value: inner,
            delta,
            failed,
            room,
        } = inner;
        self.room = room;
        let inner = Arc::unwrap_or_clone(inner);
        let value = Arc::make_mut(&mut self.value);
        value.context = inner.context;
        if let Store::Map(values) = &mut value.store
            && !inner.store.is_empty()
        {
            values.insert(key.clone(), inner.store);
        }
        if let Some(why) = failed {
            self.fail(why);
        }
        if let Some(delta) = delta {
            let store = Store::Map(BTreeMap::from([(key, delta.store)]));
            let context = delta.context;
            self.gather(Causal { store, context });
        }
    }

    /// Makes one piece of all that this replica has counted, wherever counters are.
    pub fn fold(&mut self) {
        let mut blank_keys = Vec::new();
        match &self.value.store {
            Store::Counter(dots) => {
                let mine = dots.keys().filter(|dot| dot.replica == self.replica);
                if mine.count() > 1 {
                    self.count(0, 0);
                }
            }
            Store::Map(values) => {
                let nested = values.iter().filter(|(_, value)| {
                    matches!(value, Store::Counter(_) | Store::Map(_)) && !value.is_empty()
                });
                blank_keys.extend(nested.map(|(key, value)| (key.clone(), value.empty())));
            }
            Store::Flag(_) | Store::Register(_) | Store::Set(_) => {}
        }
        for (key, blank) in blank_keys {
            let mut inner = self.take(&key, blank);
            inner.fold();
            self.put(key, inner.finish());
        }
    }
}

impl Clone for Draft {
    /// A copy that is nobody's: what is done to it goes nowhere.
    fn clone(&self) -> Self {
        Self::new(self.value.clone(), self.replica, self.wall)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let finished = self.end();
            *home.lock().unwrap_or_else(PoisonError::into_inner) = Some(finished);
        }
    }
}

#[cfg(test)]
mod tests;
