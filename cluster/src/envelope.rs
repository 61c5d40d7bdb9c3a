//! Envelope: a version before the bytes of a value, the same for all that this crate says and stores.

use otava_remote::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of what stands on top of the membership, where it has no other.
const VERSION: u8 = 1;

/// Bytes that mean nothing here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("the payload is not understood: {0}")]
    Malformed(String),
    #[error("version {0} of the format is not known here")]
    Version(u8),
}

/// The bytes of a value as this version writes it.
///
/// # Errors
/// [`EncodeError`], if it has no bytes or too many.
pub(crate) fn seal<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, EncodeError> {
    let encoded = otava_remote::encode(value)?;
    let mut bytes = Vec::with_capacity(encoded.len() + 1);
    bytes.push(version);
    bytes.extend_from_slice(&encoded);
    Ok(bytes)
}

/// The value in bytes of any version up to `newest`.
pub(crate) fn open<T: DeserializeOwned>(newest: u8, bytes: &[u8]) -> Result<T, EnvelopeError> {
    match bytes.split_first() {
        Some((version, rest)) if (1..=newest).contains(version) => {
            otava_remote::decode(rest).map_err(|error| EnvelopeError::Malformed(error.to_string()))
        }
        Some((version, _)) => Err(EnvelopeError::Version(*version)),
        None => Err(EnvelopeError::Malformed("it is empty".into())),
    }
}

/// The bytes of a message; `None`, with a line in the log, if it is too large to be sent.
pub(crate) fn pack<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    seal(VERSION, value)
        .inspect_err(|error| tracing::error!(%error, "a message cannot be encoded and is not sent"))
        .ok()
}

pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    open(VERSION, bytes)
}
