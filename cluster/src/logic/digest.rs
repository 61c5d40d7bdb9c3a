//! Digest: a 64-bit fingerprint of a view, the same on every platform. Pure: bytes in, number out.
//!
//! Two nodes that hold the same view must print the same number, so the function is fixed here:
//! FNV-1a over the parts, spread by the last step of splitmix64. It guards against accidents, not
//! against forgers: whoever can publish a digest is an authenticated member.

use otava_remote::NodeId;
use std::net::IpAddr;

const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

/// Takes parts and gives their fingerprint.
#[derive(Clone, Debug)]
pub struct Digest {
    state: u64,
}

impl Digest {
    /// The digest of nothing so far.
    #[must_use]
    pub fn new() -> Self {
        Self { state: OFFSET }
    }

    /// Adds bytes. Where lengths vary, their number goes in first: see [`Digest::number`].
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.state = (self.state ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        self
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Adds the identity of a node.
    pub fn node(&mut self, node: &NodeId) -> &mut Self {
        match node.addr.ip() {
            IpAddr::V4(ip) => self.bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&ip.octets()),
        };
        self.number(u64::from(node.addr.port()))
            .number(node.incarnation)
            .number(node.name.len() as u64)
            .bytes(node.name.as_bytes())
    }

    /// The fingerprint of all that was added.
    #[must_use]
    pub fn finish(&self) -> u64 {
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part of what nodes compare: these numbers never change.
    #[test]
    fn numbers_are_fixed() {
        let node = NodeId::new("node-1", ([127, 0, 0, 1], 7001).into(), 7);
        assert_eq!(Digest::new().finish(), 0xF52A_15E9_A9B5_E89B);
        assert_eq!(
            Digest::new().number(1).node(&node).finish(),
            0x0234_11AE_B3AD_1563
        );
    }
}
