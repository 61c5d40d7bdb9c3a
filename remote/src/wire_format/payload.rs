//! Payload: a message as bytes, encoded in place and decoded within limits.
//!
//! The first byte says how the rest was encoded; only [`FORMAT`] is known so far. A payload does not
//! say which type it holds: that follows from where it was sent.

use super::deserializer::Deserializer;
use bincode::enc::write::Writer;
use bincode::error::EncodeError as CodecError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format byte that this version writes.
pub(crate) const FORMAT: u8 = 1;

/// How deep values may lie in each other: structures, enums, options, collections, each one level.
pub(crate) const DEPTH_MAX: usize = 64;

/// How many elements of collections may take no byte at all, in a whole payload. Bytes would bound
/// the others, nothing bounds these.
pub(crate) const EMPTY_ELEMENTS_MAX: usize = 1024;

/// Why no payload was made of a value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value, or the format, does not allow it.
    #[error("cannot encode: {0}")]
    Refused(String),
    /// The payload or the frame around it would be longer than allowed.
    #[error("too large: more than {limit} bytes")]
    TooLarge {
        /// How many bytes are allowed.
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
/// [`EncodeError::Refused`] when the type cannot be encoded, for example a sequence of unknown
/// length.
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
    let mut writer = LimitedWriter {
        end: begin.saturating_add(limit),
        out,
        overflowed: false,
    };
    let encoded = writer.write(&[FORMAT]).and_then(|()| {
        bincode::serde::encode_into_writer(value, &mut writer, bincode::config::standard())
    });
    // a type may have turned the writer's error into its own, or into none
    let result = if writer.overflowed {
        Err(EncodeError::TooLarge { limit })
    } else {
        encoded.map_err(refused)
    };
    if result.is_err() {
        out.truncate(begin);
    }
    result
}

/// Decodes what [`encode`] made.
///
/// Whatever the bytes claim, they cannot make this recurse deeper than 64 levels or keep it busy
/// for longer than their own length explains, and room is made only for elements that the rest of
/// the bytes could hold.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let Some((&FORMAT, body)) = bytes.split_first() else {
        return Err(DecodeError::UnknownFormat(bytes.first().copied()));
    };
    Deserializer::decode_whole(body)
}

/// Writes to a vector until a limit.
struct LimitedWriter<'a> {
    end: usize,
    out: &'a mut Vec<u8>,
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

fn refused(error: CodecError) -> EncodeError {
    EncodeError::Refused(match error {
        CodecError::OtherString(says) => says,
        CodecError::Other(says) => says.to_owned(),
        CodecError::Serde(_) => "a collection does not say how long it is".to_owned(),
        other => other.to_string(),
    })
}
