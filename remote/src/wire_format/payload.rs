//! Payload: a message as bytes, encoded in place and decoded within limits.
//!
//! The first byte says how the rest was encoded; only [`FORMAT`] is known so far. A payload does not
//! say which type it holds: that follows from where it was sent.

use super::deserializer::Deserializer;
use super::serializer::Serializer;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format byte that this version writes.
pub(crate) const FORMAT: u8 = 1;

/// How deep values may lie in each other: structures, enums, options, collections, each one level.
pub(crate) const DEPTH_MAX: usize = 64;

/// How many elements of collections may take no byte at all, in a whole payload. Bytes would bound
/// the others, nothing bounds these.
pub(crate) const EMPTY_ELEMENTS_MAX: usize = 1024;

/// How many times its own length a payload may take in memory, beside [`MEMORY_FREE`]: as elements of
/// collections and behind boxes. Not counted: texts and bytes, which take what they are long, and the
/// room that collections keep in reserve.
pub(crate) const MEMORY_FACTOR: usize = 64;

/// The memory that every payload may take.
pub(crate) const MEMORY_FREE: usize = 1 << 20;

/// Why no payload was made of a value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value, or the format, does not allow it.
    #[error("cannot encode: {0}")]
    Refused(String),
    /// Values lie in each other deeper than a peer would read.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// How many levels are allowed.
        limit: usize,
    },
    /// The payload or the frame around it would be longer than allowed.
    #[error("too large: more than {limit} bytes")]
    TooLarge {
        /// How many bytes are allowed.
        limit: usize,
    },
    /// Collections hold more elements that take no byte than a peer would read.
    #[error("collections hold more than {limit} elements of no size")]
    TooManyEmpty {
        /// How many are allowed in a payload.
        limit: usize,
    },
}

/// Why no value was made of a payload.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Bytes are left after the value: they are of another type.
    #[error("{0} bytes are left over after the value")]
    LeftOver(usize),
    /// The bytes do not hold a value of the type.
    #[error("not a value of the type: {0}")]
    Malformed(String),
    /// The message calls a method of its protocol that this program does not know, or knows with
    /// other types.
    #[error("no method {method} in this program's version of the protocol")]
    NotUnderstood {
        /// The tag of the method, in hexadecimal digits.
        method: String,
    },
    /// Values lie in each other deeper than allowed.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// How many levels are allowed.
        limit: usize,
    },
    /// A collection claims more elements than the bytes can hold.
    #[error("a collection claims {claimed} elements, but only {left} bytes are left")]
    TooLong {
        /// How many elements were claimed.
        claimed: u64,
        /// How many bytes there were for them.
        left: usize,
    },
    /// Collections hold more elements that take no byte than allowed.
    #[error("collections hold more than {limit} elements of no size")]
    TooManyEmpty {
        /// How many are allowed in a payload.
        limit: usize,
    },
    /// The elements of its collections would take far more memory than the payload has bytes.
    #[error("it would take more than {limit} bytes of memory, far more than it is long")]
    TooMuchMemory {
        /// How many bytes were allowed: 64 times the length of the payload, and 1 MiB.
        limit: usize,
    },
    /// The bytes end before the value does.
    #[error("the bytes end in the middle of the value")]
    Truncated,
    /// The format byte is of no known format.
    #[error("unknown format {0:?}; this program knows format 1")]
    UnknownFormat(Option<u8>),
    /// The type wants something that the format cannot do.
    #[error("the format cannot hold this type: {0}")]
    Unsupported(&'static str),
}

/// Encodes a value as a payload.
///
/// # Errors
/// See [`EncodeError`]. What is encoded can be decoded, unless its elements take a byte each and more
/// than 64 in memory, and are a mebibyte and more in all: [`DecodeError::TooMuchMemory`].
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    encode_into(value, &mut out, usize::MAX)?;
    Ok(out)
}

/// Appends the payload of a value, of at most `limit` bytes, to `out`. After an error `out` is as
/// it was.
pub(crate) fn encode_into<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), EncodeError> {
    let begin = out.len();
    let Some(body_limit) = limit.checked_sub(1) else {
        return Err(EncodeError::TooLarge { limit });
    };
    out.push(FORMAT);
    let result = Serializer::encode(value, out, body_limit);
    if result.is_err() {
        out.truncate(begin);
    }
    result.map_err(|error| match error {
        EncodeError::TooLarge { .. } => EncodeError::TooLarge { limit },
        other => other,
    })
}

/// Decodes what [`encode`] made.
///
/// Whatever the bytes claim, they cannot make this recurse deeper than 64 levels or keep it busy
/// for longer than their own length explains. Room is made only for elements that the rest of the
/// bytes could hold, and elements take at most 64 times the length of the bytes, and 1 MiB.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let Some((&FORMAT, body)) = bytes.split_first() else {
        return Err(DecodeError::UnknownFormat(bytes.first().copied()));
    };
    Deserializer::decode_whole(body)
}

#[cfg(test)]
mod tests;
