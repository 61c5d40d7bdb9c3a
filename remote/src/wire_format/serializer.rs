//! Serializer: writes a payload for serde, and refuses what no peer would read.
//!
//! It counts as the deserializer does, levels and elements of no size. So a message that is too deep
//! fails at its sender, who can say so to the user, and not at its receiver.

use super::payload::{DEPTH_MAX, EMPTY_ELEMENTS_MAX, EncodeError};
use bincode::config::Configuration;
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder, EncoderImpl};
use bincode::error::EncodeError as CodecError;
use serde::Serialize;
use serde::ser::{self, Error as _};
use std::fmt::Display;

/// Writes one value, at one level.
pub(super) struct Serializer<'a, 'out> {
    sink: &'a mut Sink<'out>,
    levels_left: usize,
}

/// What all levels share.
struct Sink<'out> {
    encoder: EncoderImpl<LimitedWriter<'out>, Configuration>,
    empty_elements_left: usize,
}

impl Sink<'_> {
    #[inline]
    fn written(&mut self) -> usize {
        self.encoder.writer().out.len()
    }

    #[inline]
    fn write(&mut self, leaf: impl Encode) -> Result<(), EncodeError> {
        let result = leaf.encode(&mut self.encoder);
        result.map_err(|error| explain(error, self.encoder.writer().limit))
    }

    /// To be called after each element, with what had been written before it.
    #[inline]
    fn count_element(&mut self, written_before: usize) -> Result<(), EncodeError> {
        if self.written() > written_before {
            return Ok(());
        }
        let spent = self.empty_elements_left.checked_sub(1);
        self.empty_elements_left = spent.ok_or(EncodeError::TooManyEmpty {
            limit: EMPTY_ELEMENTS_MAX,
        })?;
        Ok(())
    }
}

impl Serializer<'_, '_> {
    /// Appends `value`, in at most `limit` bytes. After an error `out` may hold a part of it.
    pub(super) fn encode<T: Serialize + ?Sized>(
        value: &T,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), EncodeError> {
        let writer = LimitedWriter {
            end: out.len().saturating_add(limit),
            limit,
            out,
            overflowed: false,
        };
        let mut sink = Sink {
            encoder: EncoderImpl::new(writer, bincode::config::standard()),
            empty_elements_left: EMPTY_ELEMENTS_MAX,
        };
        let result = value.serialize(Serializer {
            sink: &mut sink,
            levels_left: DEPTH_MAX,
        });
        // a type may have made the writer's error into its own, or into none
        if sink.encoder.writer().overflowed {
            return Err(EncodeError::TooLarge { limit });
        }
        result
    }

    #[inline]
    fn deeper(self) -> Result<Self, EncodeError> {
        let levels_left = self.levels_left.checked_sub(1);
        Ok(Self {
            sink: self.sink,
            levels_left: levels_left.ok_or(EncodeError::TooDeep { limit: DEPTH_MAX })?,
        })
    }
}

/// Methods that write a leaf.
macro_rules! leaves {
    ($($method:ident $leaf:ty)*) => { $(
        #[inline]
        fn $method(self, leaf: $leaf) -> Result<(), EncodeError> {
            self.sink.write(leaf)
        }
    )* };
}

impl<'a, 'out> ser::Serializer for Serializer<'a, 'out> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Parts<'a, 'out>;
    type SerializeTuple = Parts<'a, 'out>;
    type SerializeTupleStruct = Parts<'a, 'out>;
    type SerializeTupleVariant = Parts<'a, 'out>;
    type SerializeMap = Parts<'a, 'out>;
    type SerializeStruct = Parts<'a, 'out>;
    type SerializeStructVariant = Parts<'a, 'out>;

    leaves! {
        serialize_bool bool
        serialize_i8 i8
        serialize_i16 i16
        serialize_i32 i32
        serialize_i64 i64
        serialize_i128 i128
        serialize_u8 u8
        serialize_u16 u16
        serialize_u32 u32
        serialize_u64 u64
        serialize_u128 u128
        serialize_f32 f32
        serialize_f64 f64
        serialize_char char
        serialize_str &str
        serialize_bytes &[u8]
    }

    #[inline]
    fn serialize_none(self) -> Result<(), EncodeError> {
        self.sink.write(0_u8)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        self.sink.write(1_u8)?;
        value.serialize(self.deeper()?)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), EncodeError> {
        self.deeper()?.sink.write(index)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self.deeper()?)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let inside = self.deeper()?;
        inside.sink.write(index)?;
        value.serialize(inside)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Parts<'a, 'out>, EncodeError> {
        Parts::collection(self, len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Parts<'a, 'out>, EncodeError> {
        Parts::collection(self, len)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Parts<'a, 'out>, EncodeError> {
        Parts::fields(self)
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a, 'out>, EncodeError> {
        Parts::fields(self)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a, 'out>, EncodeError> {
        Parts::fields(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a, 'out>, EncodeError> {
        self.sink.write(index)?;
        Parts::fields(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a, 'out>, EncodeError> {
        self.sink.write(index)?;
        Parts::fields(self)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a structure, or the elements of a collection.
pub(super) struct Parts<'a, 'out> {
    inside: Serializer<'a, 'out>,
    /// How many elements the collection said it has, and still owes; nothing for structures, whose
    /// number of fields is not written.
    owed: Option<usize>,
}

impl<'a, 'out> Parts<'a, 'out> {
    #[inline]
    fn collection(at: Serializer<'a, 'out>, len: Option<usize>) -> Result<Self, EncodeError> {
        let len = len.ok_or_else(|| EncodeError::custom("a collection of unknown length"))?;
        let inside = at.deeper()?;
        inside.sink.write(len)?;
        Ok(Self {
            inside,
            owed: Some(len),
        })
    }

    #[inline]
    fn fields(at: Serializer<'a, 'out>) -> Result<Self, EncodeError> {
        Ok(Self {
            inside: at.deeper()?,
            owed: None,
        })
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Serializer {
            sink: &mut *self.inside.sink,
            levels_left: self.inside.levels_left,
        })
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let owed = self.owed.and_then(|owed| owed.checked_sub(1));
        self.owed = Some(owed.ok_or_else(|| EncodeError::custom(WRONG_LENGTH))?);
        let written = self.inside.sink.written();
        self.part(value)?;
        self.inside.sink.count_element(written)
    }

    #[inline]
    fn finish(self) -> Result<(), EncodeError> {
        match self.owed {
            None | Some(0) => Ok(()),
            Some(_) => Err(EncodeError::custom(WRONG_LENGTH)),
        }
    }
}

const WRONG_LENGTH: &str = "a collection has not as many elements as it says";

impl ser::SerializeSeq for Parts<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.element(value)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

impl ser::SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.element(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.part(value)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

/// Traits of values whose parts are written one after the other.
macro_rules! structures {
    ($($of:ident $method:ident $($key:ty)?;)*) => { $(
        impl ser::$of for Parts<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $(_: $key,)?
                value: &T,
            ) -> Result<(), EncodeError> {
                self.part(value)
            }

            #[inline]
            fn end(self) -> Result<(), EncodeError> {
                Ok(())
            }
        }
    )* };
}

structures! {
    SerializeStruct serialize_field &'static str;
    SerializeStructVariant serialize_field &'static str;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

/// Writes to a vector until a limit.
struct LimitedWriter<'out> {
    end: usize,
    limit: usize,
    out: &'out mut Vec<u8>,
    overflowed: bool,
}

impl Writer for LimitedWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        if bytes.len() > self.end - self.out.len() {
            self.overflowed = true;
            return Err(CodecError::UnexpectedEnd);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl ser::Error for EncodeError {
    fn custom<T: Display>(says: T) -> Self {
        Self::Refused(says.to_string())
    }
}

#[cold]
fn explain(error: CodecError, limit: usize) -> EncodeError {
    match error {
        CodecError::UnexpectedEnd => EncodeError::TooLarge { limit },
        other => EncodeError::Refused(other.to_string()),
    }
}
