//! Payload: the bytes of a message, with a version and the layout of its type before them, as they cross and
//! as they are stored.

use otava_remote::{EncodeError, RemoteMessage};
use std::sync::Arc;

const VERSION: u8 = 1;
const HEAD: usize = 1 + size_of::<u64>();

/// Bytes that are no message of this type.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("it has no key before it")]
    Keyless,
    #[error("it is not understood: {0}")]
    Malformed(String),
    #[error("it is a message of another type or version of one than `{0}`")]
    OtherType(&'static str),
    #[error("it is shorter than its head")]
    Short,
    #[error("version {0} of the format is not known here")]
    Version(u8),
}

pub(super) fn seal<M: RemoteMessage>(message: &M) -> Result<Arc<[u8]>, EncodeError> {
    let encoded = otava_remote::encode(message)?;
    let mut bytes = Vec::with_capacity(HEAD + encoded.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&M::LAYOUT.to_le_bytes());
    bytes.extend_from_slice(&encoded);
    Ok(bytes.into())
}

pub(crate) fn open<M: RemoteMessage>(bytes: &[u8]) -> Result<M, PayloadError> {
    let (version, rest) = bytes.split_first().ok_or(PayloadError::Short)?;
    if *version != VERSION {
        return Err(PayloadError::Version(*version));
    }
    let (layout, rest) = rest.split_first_chunk().ok_or(PayloadError::Short)?;
    if u64::from_le_bytes(*layout) != M::LAYOUT {
        return Err(PayloadError::OtherType(M::NAME));
    }
    otava_remote::decode(rest).map_err(|error| PayloadError::Malformed(error.to_string()))
}

/// The longest key in bytes.
pub(super) const KEY_BYTES_MAX: usize = 512;

/// A payload with the key of its consumer before it, as it is stored.
pub(super) fn with_key(key: &str, payload: &[u8]) -> Arc<[u8]> {
    let length = (key.len() as u16).to_le_bytes();
    [&[VERSION], &length[..], key.as_bytes(), payload]
        .concat()
        .into()
}

/// The key and the payload behind it.
pub(super) fn split_key(bytes: &[u8]) -> Result<(&str, &[u8]), PayloadError> {
    let (version, rest) = bytes.split_first().ok_or(PayloadError::Short)?;
    if *version != VERSION {
        return Err(PayloadError::Version(*version));
    }
    let (length, rest) = rest.split_first_chunk().ok_or(PayloadError::Short)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (key, payload) = rest.split_at_checked(length).ok_or(PayloadError::Keyless)?;
    let key = std::str::from_utf8(key).map_err(|_| PayloadError::Keyless)?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX || payload.is_empty() {
        return Err(PayloadError::Keyless);
    }
    Ok((key, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
    struct Order(u16);

    impl RemoteMessage for Order {
        const NAME: &'static str = "test.Order";
    }

    #[derive(Debug, Deserialize, Serialize)]
    struct Newer(u16);

    impl RemoteMessage for Newer {
        const NAME: &'static str = "test.Order";
        const VERSION: u16 = 2;
    }

    /// These bytes are in queues: they never change.
    #[test]
    fn the_bytes_are_fixed_and_come_back() {
        let bytes = seal(&Order(7)).unwrap();
        assert_eq!(bytes[..], [1, 146, 238, 151, 100, 34, 168, 83, 128, 1, 7]);
        assert_eq!(open(&bytes), Ok(Order(7)));
        assert_eq!(
            open::<Newer>(&bytes).unwrap_err(),
            PayloadError::OtherType("test.Order")
        );
        assert_eq!(open::<Order>(&bytes[..5]), Err(PayloadError::Short));
        assert_eq!(open::<Order>(&[]), Err(PayloadError::Short));
        assert_eq!(open::<Order>(&[9; 20]), Err(PayloadError::Version(9)));
        assert!(open::<Order>(&[&bytes[..], &[0]].concat()).is_err());
    }
    /// These bytes are in queues: they never change.
    #[test]
    fn a_key_comes_back() {
        let bytes = with_key("a-7", &[8, 9]);
        assert_eq!(bytes[..], [1, 3, 0, b'a', b'-', b'7', 8, 9]);
        assert_eq!(split_key(&bytes), Ok(("a-7", &[8, 9][..])));
        for bad in [
            &[1, 0, 0, 8][..],
            &[1, 1, 0, b'a'],
            &[1, 9, 0, b'a'],
            &[1, 1, 0, 255, 8],
        ] {
            assert_eq!(split_key(bad), Err(PayloadError::Keyless));
        }
        assert_eq!(split_key(&[1, 0]), Err(PayloadError::Short));
        assert_eq!(
            split_key(&[2, 1, 0, b'a', 8]),
            Err(PayloadError::Version(2))
        );
    }
}
