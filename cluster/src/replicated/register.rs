//! Registers: one value that is written as a whole: the last one, or all that were written at once.

use super::crdt::{Crdt, Datum, decode, encode};
use crate::logic::replicated::Sealed;
use crate::logic::replicated::dots::Dot;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::store::{Dots, Store, Written};
use std::fmt;
use std::marker::PhantomData;

/// A register of which the last write counts, by the clocks of the writers.
///
/// A write always counts more than those that its writer had seen. Of writes that did not see each
/// other the one with the later time counts, and if those are equal the one of the replica with the
/// higher number, so that all nodes choose the same; the other is lost. Clocks that are wrong by a
/// minute decide wrongly for a minute: where that matters use [`MvRegister`].
pub struct LwwRegister<T>(Draft, PhantomData<fn() -> T>);

impl<T: Datum> LwwRegister<T> {
    /// Writes it, at the time of this node's clock.
    pub fn set(&mut self, value: &T) {
        self.set_at(value, self.0.wall());
    }

    /// Writes it at a time of one's own: microseconds, or a version. If what is seen here is not older,
    /// this counts as just after it.
    pub fn set_at(&mut self, value: &T, time: u64) {
        let seen = self.newest().map_or(0, |(_, written)| written.at);
        let Some(value) = encode(&mut self.0, value) else {
            return;
        };
        self.0.set(time.max(seen.saturating_add(1)), value);
    }

    /// What was written last; `None` if nothing was.
    #[must_use]
    pub fn value(&self) -> Option<T> {
        decode(&self.newest()?.1.value)
    }

    /// When it was written last; `None` if it never was.
    #[must_use]
    pub fn written_at(&self) -> Option<u64> {
        self.newest().map(|(_, written)| written.at)
    }

    fn newest(&self) -> Option<(&Dot, &Written)> {
        let dots = pieces(self.0.store())?;
        dots.iter().max_by_key(|(dot, written)| (written.at, **dot))
    }
}

/// A register that keeps all values which were written at once: those of writers that had not seen each
/// other's. The next write replaces them all.
pub struct MvRegister<T>(Draft, PhantomData<fn() -> T>);

impl<T: Datum> MvRegister<T> {
    /// Writes it: in place of all values that are seen here.
    pub fn set(&mut self, value: &T) {
        if let Some(value) = encode(&mut self.0, value) {
            self.0.set(0, value);
        }
    }

    /// The values: none if nothing was written, several if that happened at once. The order means
    /// nothing, but is the same on all nodes.
    #[must_use]
    pub fn values(&self) -> Vec<T> {
        let pieces = pieces(self.0.store()).into_iter().flatten();
        pieces
            .filter_map(|(_, written)| decode(&written.value))
            .collect()
    }
}

fn pieces(store: &Store) -> Option<&Dots<Written>> {
    match store {
        Store::Register(dots) => Some(dots),
        _ => None,
    }
}

macro_rules! register {
    ($($type:ident, $name:literal;)*) => {
        $(impl<T> Clone for $type<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone(), PhantomData)
            }
        }

        impl<T> fmt::Debug for $type<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        }

        impl<T> Sealed for $type<T> {}

        impl<T: Datum> Crdt for $type<T> {
            fn type_name() -> String {
                format!(concat!($name, "<{}>"), T::NAME)
            }

            fn blank() -> Store {
                Store::Register(Dots::new())
            }

            fn open(draft: Draft) -> Self {
                Self(draft, PhantomData)
            }
        })*
    };
}

register! {
    LwwRegister, "lww-register";
    MvRegister, "mv-register";
}
