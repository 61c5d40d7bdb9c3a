//! Store: what writes have left behind in a value, and how two copies of it are joined.
//!
//! Every type of replicated data is one of five shapes of the same idea: each piece of a value is
//! held by the dot of the write that made it. A piece that is here and not in the other copy was
//! overwritten there if the other copy has seen its dot, and is new to it if not. So nothing needs a
//! tombstone, and an addition wins over a removal that had not seen it. (Bieniusa et al.: An optimized
//! conflict-free replicated set, 2012; Almeida, Shoker, Baquero, 2018, section 7: dot sets, dot
//! functions and dot maps.)
//!
//! Elements and values are bytes here: a node can hold, join and pass on what its program has no
//! type for.

use crate::logic::digest::Digest;
use crate::logic::replicated::dots::{Context, Dot, Replica};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An element, key or value in its encoded form.
pub type Element = Arc<[u8]>;

/// Pieces by the write that made them.
pub type Dots<V> = BTreeMap<Dot, V>;

/// What one replica has counted, up and down.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Count {
    /// All that was added.
    pub up: u64,
    /// All that was taken.
    pub down: u64,
}

/// A value of a register.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Written {
    /// When, by the clock of the writer, in whatever unit its users chose; 0 where order in time does
    /// not matter.
    pub at: u64,
    /// What.
    pub value: Element,
}

/// What writes have left behind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Store {
    /// The sum of all counts.
    Counter(Dots<Count>),
    /// On if there is any dot.
    Flag(Dots<()>),
    /// Values by key.
    Map(BTreeMap<Element, Self>),
    /// The values that no other write has replaced.
    Register(Dots<Written>),
    /// Elements, each with the additions that stand.
    Set(BTreeMap<Element, Dots<()>>),
}

/// What a join may take for granted about the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Joining {
    /// It is a whole copy.
    State,
    /// It is a delta, and this side a copy. A delta names each element and key that it touches, so
    /// the rest need not be looked at.
    Delta,
    /// Both are deltas, and so is what becomes of them: elements without dots stay named.
    Deltas,
}

impl Store {
    /// A store of the same shape with nothing in it.
    #[must_use]
    pub fn empty(&self) -> Self {
        match self {
            Self::Counter(_) => Self::Counter(Dots::new()),
            Self::Flag(_) => Self::Flag(Dots::new()),
            Self::Map(_) => Self::Map(BTreeMap::new()),
            Self::Register(_) => Self::Register(Dots::new()),
            Self::Set(_) => Self::Set(BTreeMap::new()),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Counter(dots) => dots.is_empty(),
            Self::Flag(dots) => dots.is_empty(),
            Self::Map(values) => values.is_empty(),
            Self::Register(dots) => dots.is_empty(),
            Self::Set(elements) => elements.is_empty(),
        }
    }

    /// The number of the shape, in encodings and digests.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Counter(_) => 0,
            Self::Flag(_) => 1,
            Self::Map(_) => 2,
            Self::Register(_) => 3,
            Self::Set(_) => 4,
        }
    }

    /// Joins `theirs` into this; whether that changed it. The contexts say what each side has seen.
    ///
    /// Stores of different shapes cannot meet by the rules above this; if they do, the one with the
    /// higher code remains, so that all copies still agree.
    pub fn join(
        &mut self,
        seen: &Context,
        theirs: &Self,
        they_saw: &Context,
        joining: Joining,
    ) -> bool {
        match (&mut *self, theirs) {
            (Self::Counter(mine), Self::Counter(theirs)) => join(mine, seen, theirs, they_saw),
            (Self::Flag(mine), Self::Flag(theirs)) => join(mine, seen, theirs, they_saw),
            (Self::Register(mine), Self::Register(theirs)) => join(mine, seen, theirs, they_saw),
            (Self::Set(mine), Self::Set(theirs)) => {
                let none = Dots::new();
                join_each(mine, theirs, joining, Dots::is_empty, |mine, theirs| {
                    join(mine, seen, theirs.unwrap_or(&none), they_saw)
                })
            }
            (Self::Map(mine), Self::Map(theirs)) => join_each(
                mine,
                theirs,
                joining,
                Self::is_empty,
                |mine, theirs| match theirs {
                    Some(theirs) => mine.join(seen, theirs, they_saw, joining),
                    None => {
                        let none = mine.empty();
                        mine.join(seen, &none, they_saw, joining)
                    }
                },
            ),
            (_, theirs) => {
                let replaced = self.code() < theirs.code();
                if replaced {
                    self.clone_from(theirs);
                }
                replaced
            }
        }
    }

    /// Calls `with` for each dot.
    pub fn each_dot(&self, with: &mut impl FnMut(Dot)) {
        match self {
            Self::Counter(dots) => dots.keys().for_each(|dot| with(*dot)),
            Self::Flag(dots) => dots.keys().for_each(|dot| with(*dot)),
            Self::Map(values) => values.values().for_each(|value| value.each_dot(with)),
            Self::Register(dots) => dots.keys().for_each(|dot| with(*dot)),
            Self::Set(elements) => {
                let dots = elements.values().flat_map(BTreeMap::keys);
                dots.for_each(|dot| with(*dot));
            }
        }
    }

    /// All elements and keys, each without its dots: what a delta names that removes everything.
    #[must_use]
    pub fn names(&self) -> Self {
        match self {
            Self::Map(values) => {
                let names = values
                    .iter()
                    .map(|(key, value)| (key.clone(), value.names()));
                Self::Map(names.collect())
            }
            Self::Set(elements) => {
                let names = elements
                    .keys()
                    .map(|element| (element.clone(), Dots::new()));
                Self::Set(names.collect())
            }
            other => other.empty(),
        }
    }

    /// Gives every dot of `from` the name that `rename` says; a piece that gets none is dropped.
    /// Returns whether there was any.
    pub fn rename(&mut self, from: Replica, rename: &impl Fn(Dot) -> Option<Dot>) -> bool {
        match self {
            Self::Counter(dots) => rename_dots(dots, from, rename),
            Self::Flag(dots) => rename_dots(dots, from, rename),
            Self::Register(dots) => rename_dots(dots, from, rename),
            Self::Map(values) => {
                let mut any = false;
                for value in values.values_mut() {
                    any |= value.rename(from, rename);
                }
                if any {
                    values.retain(|_, value| !value.is_empty());
                }
                any
            }
            Self::Set(elements) => {
                let mut any = false;
                for dots in elements.values_mut() {
                    any |= rename_dots(dots, from, rename);
                }
                if any {
                    elements.retain(|_, dots| !dots.is_empty());
                }
                any
            }
        }
    }

    /// About how many bytes this takes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        const DOT: usize = 14;
        const NAME: usize = 6;
        match self {
            Self::Counter(dots) => dots.len() * (DOT + 8),
            Self::Flag(dots) => dots.len() * DOT,
            Self::Map(values) => {
                let each = values
                    .iter()
                    .map(|(key, value)| NAME + key.len() + value.weight());
                each.sum()
            }
            Self::Register(dots) => {
                let each = dots
                    .values()
                    .map(|written| DOT + 8 + NAME + written.value.len());
                each.sum()
            }
            Self::Set(elements) => {
                let each = elements
                    .iter()
                    .map(|(element, dots)| NAME + element.len() + DOT * dots.len());
                each.sum()
            }
        }
    }

    /// Adds all of this to a fingerprint.
    pub fn digest(&self, digest: &mut Digest) {
        digest.number(u64::from(self.code()));
        match self {
            Self::Counter(dots) => digest_dots(dots, digest, |count, digest| {
                digest.number(count.up).number(count.down);
            }),
            Self::Flag(dots) => digest_dots(dots, digest, |(), _| {}),
            Self::Map(values) => {
                digest.number(values.len() as u64);
                for (key, value) in values {
                    digest_element(key, digest);
                    value.digest(digest);
                }
            }
            Self::Register(dots) => digest_dots(dots, digest, |written, digest| {
                digest.number(written.at);
                digest_element(&written.value, digest);
            }),
            Self::Set(elements) => {
                digest.number(elements.len() as u64);
                for (element, dots) in elements {
                    digest_element(element, digest);
                    digest_dots(dots, digest, |(), _| {});
                }
            }
        }
    }
}

fn join<V: Clone + Ord>(
    mine: &mut Dots<V>,
    seen: &Context,
    theirs: &Dots<V>,
    they_saw: &Context,
) -> bool {
    let before = mine.len();
    mine.retain(|dot, _| theirs.contains_key(dot) || !they_saw.contains(*dot));
    let mut changed = mine.len() != before;
    for (dot, value) in theirs {
        match mine.get_mut(dot) {
            // A dot is given once, so these are the same; if not, all copies choose alike.
            Some(here) if *here < *value => here.clone_from(value),
            Some(_) => continue,
            None if seen.contains(*dot) => continue,
            None => {
                mine.insert(*dot, value.clone());
            }
        }
        changed = true;
    }
    changed
}

fn join_each<V: Clone + Blank>(
    mine: &mut BTreeMap<Element, V>,
    theirs: &BTreeMap<Element, V>,
    joining: Joining,
    is_empty: impl Fn(&V) -> bool,
    mut join: impl FnMut(&mut V, Option<&V>) -> bool,
) -> bool {
    let mut changed = false;
    let keeps = joining == Joining::Deltas;
    if joining == Joining::State {
        mine.retain(|name, value| {
            changed |= join(value, theirs.get(name));
            !is_empty(value)
        });
    }
    for (name, value) in theirs {
        if let Some(here) = mine.get_mut(name) {
            if joining != Joining::State {
                changed |= join(here, Some(value));
                if !keeps && is_empty(here) {
                    mine.remove(name);
                }
            }
        } else {
            let mut here = value.blank();
            let joined = join(&mut here, Some(value));
            if keeps || !is_empty(&here) {
                mine.insert(name.clone(), here);
                changed |= joined || keeps;
            }
        }
    }
    changed
}

/// What can be made with nothing in it.
trait Blank {
    fn blank(&self) -> Self;
}

impl Blank for Store {
    fn blank(&self) -> Self {
        self.empty()
    }
}

impl Blank for Dots<()> {
    fn blank(&self) -> Self {
        Self::new()
    }
}

fn rename_dots<V: Ord>(
    dots: &mut Dots<V>,
    from: Replica,
    rename: &impl Fn(Dot) -> Option<Dot>,
) -> bool {
    let range = Dot::new(from, 0)..=Dot::new(from, u64::MAX);
    let old: Vec<Dot> = dots.range(range).map(|(dot, _)| *dot).collect();
    for dot in &old {
        if let Some(value) = dots.remove(dot)
            && let Some(new) = rename(*dot)
        {
            dots.insert(new, value);
        }
    }
    !old.is_empty()
}

fn digest_dots<V>(dots: &Dots<V>, digest: &mut Digest, each: impl Fn(&V, &mut Digest)) {
    digest.number(dots.len() as u64);
    for (dot, value) in dots {
        digest.number(dot.replica.0).number(dot.number);
        each(value, digest);
    }
}

fn digest_element(element: &Element, digest: &mut Digest) {
    digest.number(element.len() as u64).bytes(element);
}
