//! Key hash: 64 bits of a key, the same in every run and on every machine.
//!
//! The hashers of the standard library promise neither. This one is FNV-1a over the bytes of the
//! key, whose result is mixed once more, because FNV leaves keys that differ in their last byte
//! close together. It is not made against people who choose keys in order to collide.

use std::hash::{Hash, Hasher};

/// The hash of `key`, for [`crate::Routing::hashed_by`]: the same in every run, on every machine.
/// A `#[derive(Hash)]` feeds its fields in the order in which they are written down, so changing
/// that order changes the hash.
///
/// ```
/// use otava_actor::router::key_hash;
///
/// assert_eq!(key_hash("account-17"), key_hash(&String::from("account-17")));
/// ```
pub fn key_hash<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = StableHasher(FNV_OFFSET);
    key.hash(&mut hasher);
    hasher.finish()
}

/// Mixes 64 bits so that each bit of the input changes half of the output (splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01B3;

struct StableHasher(u64);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    // Numbers would be written as this machine stores them, and lengths as wide as its words.
    fn write_u16(&mut self, n: u16) {
        self.write(&n.to_le_bytes());
    }

    fn write_u32(&mut self, n: u32) {
        self.write(&n.to_le_bytes());
    }

    fn write_u64(&mut self, n: u64) {
        self.write(&n.to_le_bytes());
    }

    fn write_u128(&mut self, n: u128) {
        self.write(&n.to_le_bytes());
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_hashed_as_published_for_fnv() {
        for (text, hash) in [
            ("", 0xCBF2_9CE4_8422_2325_u64),
            ("a", 0xAF63_DC4C_8601_EC8C),
            ("foobar", 0x8594_4171_F739_67E8),
        ] {
            let mut hasher = StableHasher(FNV_OFFSET);
            hasher.write(text.as_bytes());
            assert_eq!(hasher.0, hash, "{text:?}");
        }
    }

    #[test]
    fn the_mix_is_the_published_one() {
        let state = 1_234_567_u64.wrapping_add(0x9E37_79B9_7F4A_7C15);
        assert_eq!(mix(state), 6_457_827_717_110_365_317);
    }

    /// Written down once: another value here means that keys move when programs are updated.
    #[test]
    fn keys_keep_their_hash() {
        let hashes = [
            key_hash("account-17"),
            key_hash(&17_u32),
            key_hash(&(1_u8, 2_usize)),
        ];
        assert_eq!(
            hashes,
            [
                9_063_708_607_155_473_129,
                3_874_827_217_358_778_840,
                3_874_529_914_793_882_856
            ]
        );
    }
}
