//! Sealed: the bytes of what is encrypted with the key of its entity.
//!
//! ```text
//! payload    format byte (2) | cipher (1) | nonce (12 bytes) | sealed payload | tag (16 bytes)
//! cipher 1   ChaCha20-Poly1305 over the payload; additional data:
//!              format byte | cipher | what (1 event, 2 snapshot, 3 state, 4 key, 5 letter) |
//!              u32 length of id | id | u64 seq | u32 length of name | name | u16 version
//!                                                                   (all numbers little endian)
//! ```
//!
//! The additional data ties the bytes to their place: what is moved to another id, number or name does
//! not open. Nonces are random: a number may be used for two different events, when an append is refused
//! and another owner writes in its place, and then a nonce made of it would be used twice. With 96
//! random bits, a key is good for 2^32 payloads.

use super::FormatError;
use crate::id::PersistenceId;
use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt;

/// The format byte of what is sealed.
pub(crate) const SEALED: u8 = 2;
const CHACHA20_POLY1305_CIPHER: u8 = 1;
const HEAD: usize = 2 + NONCE_LEN;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;

/// What is sealed, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) what: What,
    pub(crate) id: &'a PersistenceId,
    /// Sequence number or revision.
    pub(crate) seq: u64,
    pub(crate) name: &'a str,
    pub(crate) version: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum What {
    Event = 1,
    Snapshot = 2,
    State = 3,
    Key = 4,
    Letter = 5,
}

impl Spot<'_> {
    fn additional_data(&self) -> Vec<u8> {
        let length = |text: &str| (text.len() as u64 as u32).to_le_bytes();
        let id = self.id.as_str();
        let mut data = vec![SEALED, CHACHA20_POLY1305_CIPHER, self.what as u8];
        data.extend(length(id));
        data.extend(id.as_bytes());
        data.extend(self.seq.to_le_bytes());
        data.extend(length(self.name));
        data.extend(self.name.as_bytes());
        data.extend(self.version.to_le_bytes());
        data
    }
}

/// Seals and opens with one key.
// Boxed: it is large, and most entities have none.
pub(crate) struct Seal(Box<LessSafeKey>);

impl Seal {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("it has the length of a key");
        Self(Box::new(LessSafeKey::new(key)))
    }

    /// # Errors
    /// The system gives no randomness.
    pub(crate) fn close(&self, spot: Spot<'_>, payload: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut nonce = [0; NONCE_LEN];
        let random = SystemRandom::new().fill(&mut nonce);
        random.map_err(|_| FormatError::Encode("the system gives no randomness".to_owned()))?;
        self.close_with(spot, payload, nonce)
    }

    fn close_with(
        &self,
        spot: Spot<'_>,
        payload: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, FormatError> {
        let mut bytes = Vec::with_capacity(HEAD + payload.len() + CHACHA20_POLY1305.tag_len());
        bytes.extend([SEALED, CHACHA20_POLY1305_CIPHER]);
        bytes.extend(nonce);
        bytes.extend(payload);
        let data = Aad::from(spot.additional_data());
        let body = &mut bytes[HEAD..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, data, body);
        let tag = tag.map_err(|_| FormatError::Encode("it is too large to encrypt".to_owned()))?;
        bytes.extend(tag.as_ref());
        Ok(bytes)
    }

    /// Opens what is sealed; what is not stays as it is.
    ///
    /// # Errors
    /// [`FormatError::Sealed`].
    pub(crate) fn open(&self, spot: Spot<'_>, bytes: Bytes) -> Result<Bytes, FormatError> {
        if bytes.first() != Some(&SEALED) {
            return Ok(bytes);
        }
        if bytes.len() < HEAD || bytes[1] != CHACHA20_POLY1305_CIPHER {
            return Err(FormatError::Sealed("its cipher is not known"));
        }
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&bytes[2..HEAD]);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let data = Aad::from(spot.additional_data());
        let mut bytes = Vec::from(bytes);
        let opened = self.0.open_within(nonce, data, &mut bytes, HEAD..);
        let length = opened.map(|payload| payload.len());
        let length = length
            .map_err(|_| FormatError::Sealed("the key does not fit, or the bytes were changed"))?;
        bytes.truncate(length);
        Ok(bytes.into())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(id: &PersistenceId) -> Spot<'_> {
        Spot {
            what: What::Event,
            id,
            seq: 7,
            name: "bank.Deposited",
            version: 3,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// P8: format 2, byte by byte.
    #[test]
    fn golden_bytes_of_format_2() {
        let id = PersistenceId::new("account", "7");
        let seal = Seal::new(&[9; KEY_BYTES]);
        let bytes = seal.close_with(spot(&id), &[1, 5], [4; NONCE_LEN]).unwrap();
        assert_eq!(hex(&bytes), GOLDEN);
        assert_eq!(*seal.open(spot(&id), bytes.into()).unwrap(), [1, 5]);
    }

    const GOLDEN: &str = "0201040404040404040404040404f14e9f9fe8358d2fa95d86860eebdde07dd9";

    #[test]
    fn what_was_moved_or_changed_does_not_open() {
        let (id, other) = (PersistenceId::new("a", "1"), PersistenceId::new("a", "2"));
        let seal = Seal::new(&[9; KEY_BYTES]);
        let bytes = seal.close(spot(&id), b"secret").unwrap();
        let refused = |seal: &Seal, spot, bytes: &[u8]| {
            matches!(
                seal.open(spot, bytes.to_vec().into()),
                Err(FormatError::Sealed(_))
            )
        };
        let here = spot(&id);
        let moved = [
            spot(&other),
            Spot { seq: 8, ..here },
            Spot { version: 4, ..here },
            Spot {
                name: "bank.Paid",
                ..here
            },
            Spot {
                what: What::Snapshot,
                ..here
            },
        ];
        for spot in moved {
            assert!(refused(&seal, spot, &bytes));
        }
        assert!(refused(&Seal::new(&[8; KEY_BYTES]), here, &bytes));
        for at in 1..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(refused(&seal, here, &changed), "byte {at}");
            assert!(refused(&seal, here, &bytes[..at]), "cut at {at}");
        }
        assert_eq!(*seal.open(here, bytes.into()).unwrap(), *b"secret");
        assert_eq!(
            *seal.open(here, vec![1, 2].into()).unwrap(),
            [1, 2],
            "it was never sealed"
        );
    }

    #[test]
    fn the_same_is_never_sealed_the_same() {
        let id = PersistenceId::new("a", "1");
        let seal = Seal::new(&[9; KEY_BYTES]);
        let (one, two) = (
            seal.close(spot(&id), b"x").unwrap(),
            seal.close(spot(&id), b"x").unwrap(),
        );
        assert_ne!(one, two);
    }
}
