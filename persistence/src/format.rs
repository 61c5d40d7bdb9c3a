//! Format: the bytes of events and snapshots at rest; the only file that names the codec.
//!
//! ```text
//! payload   format byte (1) | bincode 2, standard configuration (little endian, varint), serde
//!           format byte (2) | cipher | nonce | sealed payload          (with the key of the entity)
//!           format byte (3) | mail | payload                 (a snapshot of an entity with letters)
//! checksum  CRC-32 (IEEE) over what identifies the row and what it holds:
//!             u32 length of id | id | u64 seq | u32 length of name | name | u16 version |
//!             u64 written at, ms | payload            (all numbers little endian)
//!           and, only if there are tags: | tags | u32 length of tags
//! tags      for each: u16 length | text
//! ```
//!
//! The format byte says how the bytes were encoded, the version beside the name says which layout of
//! the type was encoded: the first is this crate's, the second is the user's. Golden bytes of every
//! released format stay in `persistence/fixtures/` and are decoded in tests for good.

pub(crate) mod mail;
pub(crate) mod sealed;

use crate::journal::EventRecord;
use crate::snapshot::Snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format byte that this version writes.
pub const FORMAT: u8 = 1;

/// Why bytes could not be made from a value, or a value from bytes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes do not hold a value of the type.
    #[error("cannot decode: {0}")]
    Decode(String),
    /// The type cannot be encoded, for example a sequence of unknown length.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// Bytes are left after the value: they are of another type, or of another version of it.
    #[error("{0} bytes are left over after the value")]
    LeftOver(usize),
    /// The bytes are encrypted and cannot be opened.
    #[error("it is encrypted: {0}")]
    Sealed(&'static str),
    /// The format byte is of no known format.
    #[error("unknown format {0:?}; this program knows formats 1 to 3")]
    UnknownFormat(Option<u8>),
}

/// Encodes an event or a state.
///
/// # Errors
/// [`FormatError::Encode`] when the type cannot be encoded.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FormatError> {
    let mut bytes = vec![FORMAT];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(|error| FormatError::Encode(error.to_string()))?;
    Ok(bytes)
}

/// Decodes what [`encode`] made. Never allocates more than the limits of a payload allow, whatever
/// the bytes claim.
///
/// # Errors
/// See [`FormatError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let body = match bytes.split_first() {
        Some((&FORMAT, body)) => body,
        Some((&sealed::SEALED, _)) => return Err(FormatError::Sealed("no keys were given")),
        other => return Err(FormatError::UnknownFormat(other.map(|(format, _)| *format))),
    };
    let config = bincode::config::standard().with_limit::<{ Snapshot::PAYLOAD_BYTES_MAX }>();
    let (value, read) = bincode::serde::decode_from_slice(body, config)
        .map_err(|error| FormatError::Decode(error.to_string()))?;
    if read == body.len() {
        Ok(value)
    } else {
        Err(FormatError::LeftOver(body.len() - read))
    }
}

/// The checksum of one row: of an event, or of a snapshot with its name and version.
pub(crate) fn checksum(id: &str, seq: u64, written_at_ms: u64, record: RecordRef<'_>) -> u32 {
    Checksums::default().of(id, seq, written_at_ms, record)
}

/// Makes the checksums of many rows, and keeps what those of one id begin with.
#[derive(Default)]
pub(crate) struct Checksums {
    /// What is short goes in as one: many small pieces cost more than a large one.
    short: Vec<u8>,
    /// Up to here it holds the length of an id, and the id.
    id_end: usize,
    fresh: crc32fast::Hasher,
}

impl Checksums {
    /// Payloads up to this length are short.
    const SHORT_MAX: usize = 512;

    /// As [`checksum`].
    pub(crate) fn of(
        &mut self,
        id: &str,
        seq: u64,
        written_at_ms: u64,
        record: RecordRef<'_>,
    ) -> u32 {
        let length = |text: &str| (text.len() as u64 as u32).to_le_bytes();
        let short = &mut self.short;
        if short.get(4..self.id_end) == Some(id.as_bytes()) {
            short.truncate(self.id_end);
        } else {
            short.clear();
            short.extend(length(id));
            short.extend(id.as_bytes());
            self.id_end = short.len();
        }
        short.extend(seq.to_le_bytes());
        short.extend(length(record.name));
        short.extend(record.name.as_bytes());
        short.extend(record.version.to_le_bytes());
        short.extend(written_at_ms.to_le_bytes());
        let mut hasher = self.fresh.clone();
        if record.payload.len() <= Self::SHORT_MAX {
            short.extend(record.payload);
            hasher.update(short);
        } else {
            hasher.update(short);
            hasher.update(record.payload);
        }
        if !record.tags.is_empty() {
            hasher.update(record.tags);
            hasher.update(&(record.tags.len() as u64 as u32).to_le_bytes());
        }
        hasher.finalize()
    }
}

/// What a checksum covers beside its place.
#[derive(Clone, Copy)]
pub(crate) struct RecordRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: u16,
    pub(crate) payload: &'a [u8],
    /// As they are stored ([`crate::logic::tags`]); rows of the first format of the file have none.
    pub(crate) tags: &'a [u8],
}

impl<'a> RecordRef<'a> {
    pub(crate) fn new(record: &'a EventRecord, tags: &'a [u8]) -> Self {
        Self {
            name: &record.name,
            version: record.version,
            payload: &record.payload,
            tags,
        }
    }
}

impl<'a> From<&'a Snapshot> for RecordRef<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Self {
            name: &snapshot.name,
            version: snapshot.version,
            payload: &snapshot.payload,
            tags: &[],
        }
    }
}

#[cfg(test)]
mod tests;
