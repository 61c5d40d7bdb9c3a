//! Envelope: a version before the bytes of a message, for what stands on top of the membership.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of these formats, the first byte of each payload.
const VERSION: u8 = 1;

/// Bytes from a peer that mean nothing here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("the payload is not understood: {0}")]
    Malformed(String),
    #[error("version {0} of the format is not known here")]
    Version(u8),
}

/// The bytes of a message; `None`, with a line in the log, if it is too large to be sent.
pub(crate) fn pack<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    match otava_remote::encode(value) {
        Ok(encoded) => {
            let mut bytes = Vec::with_capacity(encoded.len() + 1);
            bytes.push(VERSION);
            bytes.extend_from_slice(&encoded);
            Some(bytes)
        }
        Err(error) => {
            tracing::error!(%error, "a message cannot be encoded and is not sent");
            None
        }
    }
}

pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            otava_remote::decode(rest).map_err(|error| EnvelopeError::Malformed(error.to_string()))
        }
        Some((version, _)) => Err(EnvelopeError::Version(*version)),
        None => Err(EnvelopeError::Malformed("it is empty".into())),
    }
}
