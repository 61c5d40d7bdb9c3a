//! Protocol: how the messages of a `#[protocol]` are written: each method by its tag.
//!
//! What serde derives for an enum numbers its variants by their place, so that two programs whose
//! enums differ in one variant take one message for another. [`Tagged`] stands between the derived
//! code and the format: on the wire there is the tag of the method
//! ([`otava_actor::protocol::Method::tag`]), a hash of its name and types, in place of the number.
//!
//! **Invariant:** a message is read as the method that wrote it, with the types that wrote it, or it
//! is not understood.

use otava_actor::protocol::Method;
use serde::de::value::U32Deserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, Visitor};
use serde::ser::{Error as _, Impossible, Serializer};
use serde::{Serialize, forward_to_deserialize_any};
use std::fmt;

/// A serializer or deserializer in which the variants of one enum are called by tags.
#[doc(hidden)]
pub struct Tagged<T> {
    inner: T,
    methods: &'static [Method],
}

impl<T> Tagged<T> {
    /// `methods` are those of the enum, in the order of its variants.
    pub fn new(inner: T, methods: &'static [Method]) -> Self {
        Self { inner, methods }
    }
}

const NO_ENUM: &str = "the messages of a protocol are an enum with a variant for each method";

impl<S: Serializer> Tagged<S> {
    fn tag(&self, variant: u32) -> Result<u32, S::Error> {
        let method = usize::try_from(variant)
            .ok()
            .and_then(|at| self.methods.get(at));
        method
            .map(|method| method.tag)
            .ok_or_else(|| S::Error::custom(NO_ENUM))
    }
}

/// Methods that nothing derived for an enum calls.
macro_rules! no_enum {
    ($($method:ident($($arg:ty),*) -> $out:ty;)*) => { $(
        fn $method(self, $(_: $arg),*) -> Result<$out, S::Error> {
            Err(S::Error::custom(NO_ENUM))
        }
    )* };
}

impl<S: Serializer> Serializer for Tagged<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Impossible<S::Ok, S::Error>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = S::SerializeTupleVariant;
    type SerializeMap = Impossible<S::Ok, S::Error>;
    type SerializeStruct = Impossible<S::Ok, S::Error>;
    type SerializeStructVariant = S::SerializeStructVariant;

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        variant_index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        let tag = self.tag(variant_index)?;
        self.inner.serialize_unit_variant(name, tag, variant)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        variant_index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let tag = self.tag(variant_index)?;
        self.inner
            .serialize_newtype_variant(name, tag, variant, value)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        variant_index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<S::SerializeTupleVariant, S::Error> {
        let tag = self.tag(variant_index)?;
        self.inner.serialize_tuple_variant(name, tag, variant, len)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        variant_index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<S::SerializeStructVariant, S::Error> {
        let tag = self.tag(variant_index)?;
        self.inner.serialize_struct_variant(name, tag, variant, len)
    }

    no_enum! {
        serialize_bool(bool) -> S::Ok;
        serialize_i8(i8) -> S::Ok;
        serialize_i16(i16) -> S::Ok;
        serialize_i32(i32) -> S::Ok;
        serialize_i64(i64) -> S::Ok;
        serialize_u8(u8) -> S::Ok;
        serialize_u16(u16) -> S::Ok;
        serialize_u32(u32) -> S::Ok;
        serialize_u64(u64) -> S::Ok;
        serialize_f32(f32) -> S::Ok;
        serialize_f64(f64) -> S::Ok;
        serialize_char(char) -> S::Ok;
        serialize_str(&str) -> S::Ok;
        serialize_bytes(&[u8]) -> S::Ok;
        serialize_none() -> S::Ok;
        serialize_unit() -> S::Ok;
        serialize_unit_struct(&'static str) -> S::Ok;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom(NO_ENUM))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom(NO_ENUM))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tagged<D> {
    type Error = D::Error;

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Tagged::new(visitor, self.methods);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(D::Error::custom(NO_ENUM))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Tagged<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Tagged::new(data, self.methods))
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Tagged<A> {
    type Error = A::Error;
    type Variant = A::Variant;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, A::Variant), A::Error> {
        let (at, rest) = self.inner.variant_seed(Place(self.methods))?;
        let at: U32Deserializer<A::Error> = at.into_deserializer();
        Ok((seed.deserialize(at)?, rest))
    }
}

/// Finds the place of a method by its tag, or by its name in formats that write names.
struct Place(&'static [Method]);

impl Place {
    #[inline]
    fn of<E: serde::de::Error>(
        &self,
        is_it: impl Fn(&Method) -> bool,
        seen: impl fmt::Display,
    ) -> Result<u32, E> {
        let at = self.0.iter().position(is_it);
        let at = at.and_then(|at| u32::try_from(at).ok());
        at.ok_or_else(|| E::unknown_variant(&seen.to_string(), &[]))
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = u32;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Place {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tag or the name of a method")
    }

    #[inline]
    fn visit_u64<E: serde::de::Error>(self, tag: u64) -> Result<u32, E> {
        self.of(
            |method| u64::from(method.tag) == tag,
            format_args!("{tag:08x}"),
        )
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<u32, E> {
        self.of(|method| method.name == name, name)
    }
}
