//! Lane preamble: the first bytes of each lane, which say what protocol it speaks and which lane
//! it is.

use super::{WIRE_VERSION_MAX, WIRE_VERSION_MIN};

const MAGIC: [u8; 4] = *b"OTVA";

/// How a lane begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LanePreamble {
    /// Which lane it is: 0 carries control and system frames, the others user messages.
    pub(crate) lane: u8,
    /// The wire version of all that follows.
    pub(crate) version: u16,
}

/// Bytes that do not begin a lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum PreambleError {
    #[error("the reserved byte of a lane is {0}, not zero")]
    Reserved(u8),
    #[error("wire version {0}; this program knows {WIRE_VERSION_MIN} to {WIRE_VERSION_MAX}")]
    UnknownVersion(u16),
    #[error("not a lane of this protocol: it begins with {0:02x?}")]
    WrongMagic([u8; 4]),
}

impl LanePreamble {
    /// Its length in bytes.
    pub(crate) const LEN: usize = 8;

    /// The bytes with which the lane begins.
    pub(crate) const fn encode(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = MAGIC;
        let [low, high] = self.version.to_le_bytes();
        [a, b, c, d, low, high, self.lane, 0]
    }

    /// Reads what [`Self::encode`] made.
    pub(crate) fn decode(bytes: [u8; Self::LEN]) -> Result<Self, PreambleError> {
        let [a, b, c, d, low, high, lane, reserved] = bytes;
        if [a, b, c, d] != MAGIC {
            return Err(PreambleError::WrongMagic([a, b, c, d]));
        }
        let version = u16::from_le_bytes([low, high]);
        if !(WIRE_VERSION_MIN..=WIRE_VERSION_MAX).contains(&version) {
            return Err(PreambleError::UnknownVersion(version));
        }
        if reserved != 0 {
            return Err(PreambleError::Reserved(reserved));
        }
        Ok(Self { lane, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote is read for good.
    #[test]
    fn golden_preamble_of_version_1() {
        let preamble = LanePreamble {
            lane: 3,
            version: 1,
        };
        let golden = include_bytes!("../../fixtures/v1/preamble.bin");
        assert_eq!(&preamble.encode(), golden);
        assert_eq!(LanePreamble::decode(*golden), Ok(preamble));
    }

    #[test]
    fn everything_else_is_refused() {
        let damaged = |at: usize, byte| {
            let mut bytes = *b"OTVA\x01\0\x03\0";
            bytes[at] = byte;
            LanePreamble::decode(bytes)
        };
        assert_eq!(damaged(6, 255).map(|preamble| preamble.lane), Ok(255));
        for at in 0..4 {
            let error = damaged(at, b'x').unwrap_err();
            assert!(matches!(error, PreambleError::WrongMagic(_)), "{error}");
        }
        assert_eq!(damaged(4, 0), Err(PreambleError::UnknownVersion(0)));
        assert_eq!(damaged(4, 2).map(|preamble| preamble.version), Ok(2));
        assert_eq!(damaged(4, 3).map(|preamble| preamble.version), Ok(3));
        assert_eq!(damaged(4, 4), Err(PreambleError::UnknownVersion(4)));
        assert_eq!(damaged(5, 1), Err(PreambleError::UnknownVersion(257)));
        assert_eq!(damaged(7, 9), Err(PreambleError::Reserved(9)));
        let error = LanePreamble::decode(*b"GET / HT").unwrap_err();
        assert_eq!(
            error.to_string(),
            "not a lane of this protocol: it begins with [47, 45, 54, 20]"
        );
    }
}
