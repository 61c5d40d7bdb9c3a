//! Crdt: what the types of replicated data have in common, what can be in them, and their keys.

use crate::logic::replicated::Sealed;
use crate::logic::replicated::draft::{Draft, Unmade};
use crate::logic::replicated::store::{Element, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A type of replicated data: copies of it that were changed apart always merge, to the same value on
/// all nodes. The types are those of this module; a structure of one's own is an [`super::OrMap`] of
/// them, or several keys.
pub trait Crdt: Sealed + fmt::Debug + Sized + Send + 'static {
    /// The name of the type, the same in all programs: `or-set<string>`. A key holds one type; who asks
    /// for another is told.
    fn type_name() -> String;

    /// What it is without any write.
    #[doc(hidden)]
    fn blank() -> Store;

    #[doc(hidden)]
    fn open(draft: Draft) -> Self;
}

/// What can be an element of a set, a value of a register or a key of a map: it has a serde form and a
/// stable name.
///
/// Two elements are the same if their encoded forms are, so a type whose form depends on hash order
/// (a `HashMap` inside) will not do. A form that a program cannot decode, since a newer one has written
/// it, is kept and passed on, and not shown.
///
/// ```
/// use otava_cluster::replicated::Datum;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, Serialize)]
/// struct OrderId(u64);
///
/// impl Datum for OrderId {
///     const NAME: &'static str = "shop.OrderId";
/// }
/// ```
pub trait Datum: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the type in all programs. A contract: renaming the Rust type is free, changing this
    /// is not. Change it with the layout.
    const NAME: &'static str;
}

macro_rules! data {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl Datum for $type {
            const NAME: &'static str = $name;
        })*
    };
}

data! {
    bool => "bool", char => "char", String => "string", Vec<u8> => "bytes",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128",
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128",
    otava_remote::NodeId => "otava.NodeId",
}

/// The encoded form, or `None`, which fails the draft.
pub(super) fn encode<T: Datum>(draft: &mut Draft, datum: &T) -> Option<Element> {
    match otava_remote::encode(datum) {
        Ok(bytes) => Some(bytes.into()),
        Err(error) => {
            draft.fail(Unmade::NotEncodable(error.to_string()));
            None
        }
    }
}

/// The encoded form of something that is looked for; what has none is nowhere.
pub(super) fn form<T: Datum>(datum: &T) -> Option<Element> {
    otava_remote::encode(datum).ok().map(Into::into)
}

pub(super) fn decode<T: Datum>(element: &Element) -> Option<T> {
    otava_remote::decode(element).ok()
}

/// The name of an entry, and the type of its value.
///
/// Two keys of the same name and different types name the same entry, which has one of the types: the
/// other finds [`super::GetError::TypeMismatch`].
pub struct Key<C> {
    name: Arc<str>,
    value: PhantomData<fn() -> C>,
}

impl<C: Crdt> Key<C> {
    /// The key of this name: 1 to 512 bytes.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            value: PhantomData,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }
}

impl<C> Clone for Key<C> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            value: PhantomData,
        }
    }
}

impl<C: Crdt> fmt::Debug for Key<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}: {})", self.name, C::type_name())
    }
}
