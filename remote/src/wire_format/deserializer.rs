//! Deserializer: walks a payload for serde, counting levels, claims and elements of no size.
//!
//! The codec reads the leaves; collections, structures and enums are walked here, because the
//! codec's own walk recurses as deep as the bytes say (30 kB of them overflow a stack of 2 MiB), and
//! loops over elements of no size as often as the bytes say.
//!
//! What a collection claims is compared with the bytes left, less what the collections around it
//! still claim: each element takes a byte, or is one of the few that may take none. So all claims
//! together never exceed the length of the payload.
//!
//! An element may take far more memory than bytes (a variant of one byte in an enum of 500). What the
//! elements of collections take is counted as they are read, and so is what a box takes beyond the
//! pointer to it; a payload has [`MEMORY_FACTOR`] times its length for that, and [`MEMORY_FREE`].
//!
//! Measured, best of 20 rounds, beside the codec's own walk with its limit on: a message of 22 bytes
//! 74 ns (106), 1,000 numbers 2.9 us (6.3), 1,000 bytes 1.8 us (4.0), 100 short texts 4.8 us (5.3), a
//! map of 100 texts 16 us (14); so the counting costs nothing that matters. To repeat it:
//! `cargo test -p otava-remote --release --lib -- --ignored --nocapture decoding_costs`.

use super::payload::{DEPTH_MAX, DecodeError, EMPTY_ELEMENTS_MAX, MEMORY_FACTOR, MEMORY_FREE};
use bincode::config::Configuration;
use bincode::de::read::{BorrowReader, Reader};
use bincode::de::{Decoder, DecoderImpl};
use bincode::error::DecodeError as CodecError;
use bincode::{BorrowDecode, Decode};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::fmt::Display;

/// Reads one value, at one level.
pub(super) struct Deserializer<'a, 'de> {
    source: &'a mut Source<'de>,
    levels_left: usize,
    /// How many elements the collections around this value still claim after it.
    promised: u64,
    /// The memory that is there for this value already, as a field or element of another one.
    covered: usize,
}

/// What all levels share.
struct Source<'de> {
    decoder: DecoderImpl<Unread<'de>, Configuration, ()>,
    empty_elements_left: usize,
    memory_left: usize,
    memory: usize,
}

impl<'de> Source<'de> {
    /// Counts memory that a value takes.
    #[inline]
    fn spend(&mut self, bytes: usize) -> Result<(), DecodeError> {
        let left = self.memory_left.checked_sub(bytes);
        self.memory_left = left.ok_or(DecodeError::TooMuchMemory { limit: self.memory })?;
        Ok(())
    }

    #[inline]
    fn left(&mut self) -> usize {
        self.decoder.reader().0.len()
    }

    #[inline]
    fn read<T: Decode<()>>(&mut self) -> Result<T, DecodeError> {
        T::decode(&mut self.decoder).map_err(explain)
    }

    #[inline]
    fn borrow<T: BorrowDecode<'de, ()>>(&mut self) -> Result<T, DecodeError> {
        T::borrow_decode(&mut self.decoder).map_err(explain)
    }

    /// To be called after each element, with the bytes that were left before it.
    #[inline]
    fn count_element(&mut self, left_before: usize) -> Result<(), DecodeError> {
        if self.left() < left_before {
            return Ok(());
        }
        let spent = self.empty_elements_left.checked_sub(1);
        self.empty_elements_left = spent.ok_or(DecodeError::TooManyEmpty {
            limit: EMPTY_ELEMENTS_MAX,
        })?;
        Ok(())
    }
}

impl<'de> Deserializer<'_, 'de> {
    /// The value that `bytes` hold, all of them.
    pub(super) fn decode_whole<T: DeserializeOwned>(bytes: &'de [u8]) -> Result<T, DecodeError> {
        let memory = bytes.len().saturating_mul(MEMORY_FACTOR);
        let memory = memory.saturating_add(MEMORY_FREE);
        let mut source = Source {
            decoder: DecoderImpl::new(Unread(bytes), bincode::config::standard(), ()),
            empty_elements_left: EMPTY_ELEMENTS_MAX,
            memory_left: memory,
            memory,
        };
        let value = T::deserialize(Deserializer {
            source: &mut source,
            levels_left: DEPTH_MAX,
            promised: 0,
            covered: size_of::<T>(),
        })?;
        match source.left() {
            0 => Ok(value),
            left => Err(DecodeError::LeftOver(left)),
        }
    }

    /// The same place, one level further down.
    #[inline]
    fn deeper(self) -> Result<Self, DecodeError> {
        let levels_left = self.levels_left.checked_sub(1);
        Ok(Self {
            levels_left: levels_left.ok_or(DecodeError::TooDeep { limit: DEPTH_MAX })?,
            ..self
        })
    }

    /// One level further down in a value of type `T`, whose memory is counted unless it is covered.
    #[inline]
    fn inside<T>(self) -> Result<Self, DecodeError> {
        let uncovered = size_of::<T>().saturating_sub(self.covered);
        self.source.spend(uncovered)?;
        self.deeper()
    }

    /// The number of elements of a collection, once it is believable.
    #[inline]
    fn claimed(&mut self) -> Result<u64, DecodeError> {
        let claimed = self.source.read::<u64>()?;
        let left = self.source.left();
        let most = left as u64 + self.source.empty_elements_left as u64;
        match claimed.checked_add(self.promised) {
            Some(all) if all <= most => Ok(claimed),
            _ => Err(DecodeError::TooLong { claimed, left }),
        }
    }

    /// Elements whose number is a matter of the type.
    #[inline]
    fn fields<V: Visitor<'de>>(self, number: usize, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Fields {
            inside: self,
            to_come: number,
        })
    }
}

/// Methods that read a leaf and show it to the visitor.
macro_rules! leaves {
    ($($method:ident $visit:ident)*) => { $(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(self.source.read()?)
        }
    )* };
}

impl<'de> de::Deserializer<'de> for Deserializer<'_, 'de> {
    type Error = DecodeError;

    leaves! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_i128 visit_i128
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_u128 visit_u128
        deserialize_f32 visit_f32
        deserialize_f64 visit_f64
        deserialize_char visit_char
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::Unsupported(
            "it asks the bytes what they are (untagged or flattened?)",
        ))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::Unsupported("it skips a value"))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::Unsupported("it asks for a field by its name"))
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.source.borrow()?)
    }

    // a view of bytes is taken first: the codec would make room before it looks whether they exist
    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_string(self.source.borrow::<&str>()?.to_owned())
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.source.borrow()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_byte_buf(self.source.borrow::<&[u8]>()?.to_owned())
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.source.read::<u8>()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self.deeper()?),
            other => Err(DecodeError::Malformed(format!(
                "an option begins with 0 or 1, not {other}"
            ))),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self.deeper()?)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut inside = self.deeper()?;
        let to_come = inside.claimed()?;
        visitor.visit_seq(Elements { inside, to_come })
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut inside = self.deeper()?;
        let to_come = inside.claimed()?;
        visitor.visit_map(Elements { inside, to_come })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.inside::<V::Value>()?.fields(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.inside::<V::Value>()?.fields(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.inside::<V::Value>()?.fields(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(self.inside::<V::Value>()?)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

impl<'de> EnumAccess<'de> for Deserializer<'_, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), DecodeError> {
        let index: u32 = self.source.read()?;
        let variant =
            seed.deserialize(IntoDeserializer::<DecodeError>::into_deserializer(index))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Deserializer<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, DecodeError> {
        seed.deserialize(Self {
            covered: size_of::<T::Value>(),
            ..self
        })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fields(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fields(fields.len(), visitor)
    }
}

/// The elements of a structure or tuple.
struct Fields<'a, 'de> {
    inside: Deserializer<'a, 'de>,
    to_come: usize,
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(to_come) = self.to_come.checked_sub(1) else {
            return Ok(None);
        };
        self.to_come = to_come;
        let element = seed.deserialize(Deserializer {
            source: &mut *self.inside.source,
            covered: size_of::<T::Value>(),
            ..self.inside
        })?;
        Ok(Some(element))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.to_come)
    }
}

/// The elements of a collection whose number the bytes claim.
struct Elements<'a, 'de> {
    inside: Deserializer<'a, 'de>,
    to_come: u64,
}

impl<'de> Elements<'_, 'de> {
    #[inline]
    fn read<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DecodeError> {
        let bytes = size_of::<T::Value>();
        self.inside.source.spend(bytes)?;
        seed.deserialize(Deserializer {
            source: &mut *self.inside.source,
            levels_left: self.inside.levels_left,
            promised: self.inside.promised + self.to_come,
            covered: bytes,
        })
    }

    #[inline]
    fn next<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some(to_come) = self.to_come.checked_sub(1) else {
            return Ok(None);
        };
        self.to_come = to_come;
        let left = self.inside.source.left();
        let element = self.read(seed)?;
        self.inside.source.count_element(left)?;
        Ok(Some(element))
    }

    /// `claimed` has compared it with the length of the payload, so it fits.
    #[inline]
    fn to_come(&self) -> Option<usize> {
        usize::try_from(self.to_come).ok()
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.next(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.to_come()
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    // keys of no size are counted, whatever their values take: a map has room for one of them
    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        self.next(seed)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        self.read(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.to_come()
    }
}

/// The bytes that were not read yet.
struct Unread<'de>(&'de [u8]);

impl<'de> BorrowReader<'de> for Unread<'de> {
    #[inline]
    fn take_bytes(&mut self, length: usize) -> Result<&'de [u8], CodecError> {
        let split = self.0.split_at_checked(length);
        let (taken, rest) = split.ok_or(CodecError::UnexpectedEnd { additional: length })?;
        self.0 = rest;
        Ok(taken)
    }
}

impl Reader for Unread<'_> {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), CodecError> {
        bytes.copy_from_slice(self.take_bytes(bytes.len())?);
        Ok(())
    }

    #[inline]
    fn peek_read(&mut self, length: usize) -> Option<&[u8]> {
        self.0.get(..length)
    }

    #[inline]
    fn consume(&mut self, length: usize) {
        self.0 = self.0.get(length..).unwrap_or_default();
    }
}

impl de::Error for DecodeError {
    fn custom<T: Display>(says: T) -> Self {
        Self::Malformed(cut(says.to_string()))
    }

    /// Derived code says this of names only, and the format has none: it is the tag of a method.
    fn unknown_variant(variant: &str, _: &'static [&'static str]) -> Self {
        let method = cut(variant.to_owned());
        Self::NotUnderstood { method }
    }
}

/// What is kept of words in an error: code of the program may quote in them what a peer sent, and
/// errors are logged and remembered.
const WORDS_BYTES_MAX: usize = 256;

fn cut(mut words: String) -> String {
    if words.len() > WORDS_BYTES_MAX {
        let mut ends = (0..=WORDS_BYTES_MAX).rev();
        let end = ends.find(|&end| words.is_char_boundary(end));
        words.truncate(end.unwrap_or_default());
        words.push_str("...");
        words.shrink_to_fit();
    }
    words
}

#[cold]
fn explain(error: CodecError) -> DecodeError {
    match error {
        CodecError::UnexpectedEnd { .. } => DecodeError::Truncated,
        CodecError::Utf8 { inner } => DecodeError::Malformed(inner.to_string()),
        CodecError::InvalidBooleanValue(value) => {
            DecodeError::Malformed(format!("a bool is 0 or 1, not {value}"))
        }
        CodecError::InvalidCharEncoding(bytes) => {
            DecodeError::Malformed(format!("no char is encoded as {bytes:?}"))
        }
        CodecError::InvalidIntegerType { expected, found } => {
            DecodeError::Malformed(format!("found a {found:?} where {expected:?} was expected"))
        }
        other => DecodeError::Malformed(other.to_string()),
    }
}
