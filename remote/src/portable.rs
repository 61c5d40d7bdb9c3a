//! Portable: what a field with `#[serde(with = "otava_remote::wire")]` may hold: collections of references.
//!
//! Each collection is written and read in the form that serde gives it, with the elements' own form
//! inside; so `Vec<T>` here is on the wire what `Vec<T>` is there.

use crate::node_id::NodeId;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What can be in a field with `#[serde(with = "otava_remote::wire")]`: references, and collections
/// of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a reference, nor plain, nor a collection of these",
    note = "a type without references says so: `impl otava_remote::wire::Plain for {Self} {{}}`; one \
            with references has `#[serde(with = \"otava_remote::wire\")]` on its own fields, and \
            stands outside of such a field"
)]
pub trait Portable: Sized {
    #[doc(hidden)]
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    #[doc(hidden)]
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// A type that stands beside references in a collection, for example in a tuple, and is written by
/// its own serde form.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// #[derive(Deserialize, Serialize)]
/// enum Rank {
///     First,
///     Second,
/// }
///
/// /// Now a field may be a `Vec<(Rank, ActorRef<M>)>`.
/// impl otava_remote::wire::Plain for Rank {}
/// ```
pub trait Plain: Serialize + DeserializeOwned {}

impl<T: Plain> Portable for T {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer)
    }
}

macro_rules! plain {
    ($($ty:ty)*) => { $( impl Plain for $ty {} )* };
}

plain! {
    () bool char f32 f64 i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize
    String Arc<str> Box<str> Duration IpAddr Ipv4Addr Ipv6Addr SocketAddr NodeId
}

/// Writes what it holds as a part of a message.
pub(crate) struct Writing<'a, T>(pub(crate) &'a T);

impl<T: Portable> Serialize for Writing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// What was read as a part of a message.
pub(crate) struct Reading<T>(pub(crate) T);

impl<'de, T: Portable> Deserialize<'de> for Reading<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

impl<T: Portable> Portable for Option<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Writing).serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Option::<Reading<T>>::deserialize(deserializer)?;
        Ok(read.map(|Reading(value)| value))
    }
}

impl<T: Portable, E: Portable> Portable for Result<T, E> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self.as_ref().map(Writing).map_err(Writing);
        written.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Result::<Reading<T>, Reading<E>>::deserialize(deserializer)?;
        Ok(read
            .map(|Reading(value)| value)
            .map_err(|Reading(error)| error))
    }
}

impl<T: Portable, const N: usize> Portable for [T; N] {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        for value in self {
            tuple.serialize_element(&Writing(value))?;
        }
        tuple.end()
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Portable, const N: usize> Visitor<'de> for Array<T, N> {
            type Value = [T; N];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[T; N], A::Error> {
                let mut values = Vec::new();
                while values.len() < N
                    && let Some(Reading(value)) = seq.next_element()?
                {
                    values.push(value);
                }
                let len = values.len();
                values
                    .try_into()
                    .map_err(|_| A::Error::invalid_length(len, &self))
            }
        }

        deserializer.deserialize_tuple(N, Array::<T, N>(PhantomData))
    }
}

/// Collections that are written as a sequence of their elements.
macro_rules! sequences {
    ($($collection:ident<T $(: $bound:ident $(+ $more:ident)*)? $(, $hasher:ident)?>)*) => { $(
        impl<T: Portable $(+ $bound $(+ $more)*)? $(, $hasher: BuildHasher + Default)?> Portable
            for $collection<T $(, $hasher)?>
        {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.iter().map(Writing))
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read = Vec::<Reading<T>>::deserialize(deserializer)?;
                Ok(read.into_iter().map(|Reading(value)| value).collect())
            }
        }
    )* };
}

sequences! {
    BTreeSet<T: Ord>
    HashSet<T: Eq + Hash, H>
    Vec<T>
    VecDeque<T>
}

/// Keys are written by their own serde form.
impl<K, V> Portable for BTreeMap<K, V>
where
    K: Serialize + DeserializeOwned + Ord,
    V: Portable,
{
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(key, value)| (key, Writing(value))))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = BTreeMap::<K, Reading<V>>::deserialize(deserializer)?;
        let entries = read.into_iter();
        Ok(entries.map(|(key, Reading(value))| (key, value)).collect())
    }
}

/// Keys are written by their own serde form.
impl<K, V, H> Portable for HashMap<K, V, H>
where
    K: Serialize + DeserializeOwned + Eq + Hash,
    V: Portable,
    H: BuildHasher + Default,
{
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(key, value)| (key, Writing(value))))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = HashMap::<K, Reading<V>>::deserialize(deserializer)?;
        let entries = read.into_iter();
        Ok(entries.map(|(key, Reading(value))| (key, value)).collect())
    }
}

macro_rules! tuples {
    ($(($($T:ident $at:tt),+) $len:literal;)*) => { $(
        impl<$($T: Portable),+> Portable for ($($T,)+) {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut tuple = serializer.serialize_tuple($len)?;
                $( tuple.serialize_element(&Writing(&self.$at))?; )+
                tuple.end()
            }

            fn read<'de, De: Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
                let read = <($(Reading<$T>,)+)>::deserialize(deserializer)?;
                Ok(($(read.$at.0,)+))
            }
        }
    )* };
}

tuples! {
    (A 0) 1;
    (A 0, B 1) 2;
    (A 0, B 1, C 2) 3;
    (A 0, B 1, C 2, D 3) 4;
    (A 0, B 1, C 2, D 3, E 4) 5;
    (A 0, B 1, C 2, D 3, E 4, F 5) 6;
}
