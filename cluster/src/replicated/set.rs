//! Sets: one that only grows, and one from which elements can be removed.

use super::crdt::{Crdt, Datum, decode, encode, form};
use crate::logic::replicated::Sealed;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::store::{Dots, Element, Store};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A set that only grows.
pub struct GSet<T>(Draft, PhantomData<fn() -> T>);

impl<T: Datum> GSet<T> {
    /// Adds an element.
    pub fn insert(&mut self, element: &T) {
        if let Some(element) = encode(&mut self.0, element)
            && !contains(&self.0, &element)
        {
            self.0.insert(element);
        }
    }
}

/// A set from which elements can be removed, and in which additions win: an element that is added and
/// removed at once is there.
///
/// A removal takes what was added as far as it is seen where it is removed. Nothing of a removed element
/// is kept.
pub struct OrSet<T>(Draft, PhantomData<fn() -> T>);

impl<T: Datum> OrSet<T> {
    /// Adds an element. If it is there already this is an addition nevertheless, which wins over
    /// removals elsewhere that have not seen it.
    pub fn insert(&mut self, element: &T) {
        if let Some(element) = encode(&mut self.0, element) {
            self.0.insert(element);
        }
    }

    /// Removes an element.
    pub fn remove(&mut self, element: &T) {
        if let Some(element) = form(element) {
            self.0.remove(&element);
        }
    }

    /// Removes all elements that are seen here.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

fn elements(draft: &Draft) -> Option<&BTreeMap<Element, Dots<()>>> {
    match draft.store() {
        Store::Set(elements) => Some(elements),
        _ => None,
    }
}

fn contains(draft: &Draft, element: &Element) -> bool {
    elements(draft).is_some_and(|elements| elements.contains_key(element))
}

macro_rules! set {
    ($($type:ident, $name:literal;)*) => {
        $(impl<T: Datum> $type<T> {
            /// Whether the element is there.
            #[must_use]
            pub fn contains(&self, element: &T) -> bool {
                form(element).is_some_and(|element| contains(&self.0, &element))
            }

            /// How many elements there are.
            #[must_use]
            pub fn len(&self) -> usize {
                elements(&self.0).map_or(0, BTreeMap::len)
            }

            /// Whether there is none.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The elements, in the order of their encoded forms: the same on all nodes. Each is decoded
            /// on the way.
            pub fn iter(&self) -> impl Iterator<Item = T> {
                let elements = elements(&self.0).into_iter().flat_map(BTreeMap::keys);
                elements.filter_map(decode)
            }
        }

        impl<T> Clone for $type<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone(), PhantomData)
            }
        }

        impl<T> fmt::Debug for $type<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let len = elements(&self.0).map_or(0, BTreeMap::len);
                let mut shown = f.debug_struct(stringify!($type));
                shown.field("len", &len).finish_non_exhaustive()
            }
        }

        impl<T> Sealed for $type<T> {}

        impl<T: Datum> Crdt for $type<T> {
            fn type_name() -> String {
                format!(concat!($name, "<{}>"), T::NAME)
            }

            fn blank() -> Store {
                Store::Set(BTreeMap::new())
            }

            fn open(draft: Draft) -> Self {
                Self(draft, PhantomData)
            }
        })*
    };
}

set! {
    GSet, "g-set";
    OrSet, "or-set";
}
