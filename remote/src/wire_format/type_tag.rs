//! Type tag: the number by which both ends make sure that they mean the same message type.

const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The tag of a message type: FNV-1a with 64 bits over the name and the two bytes of the version,
/// little endian. A contract of the wire: the same on every machine and for good.
pub(crate) const fn type_tag(name: &str, version: u16) -> u64 {
    // `for` is not allowed in a const fn
    let name = name.as_bytes();
    let mut hash = FNV_OFFSET_BASIS;
    let mut at = 0;
    while at < name.len() {
        hash = step(hash, name[at]);
        at += 1;
    }
    let [low, high] = version.to_le_bytes();
    step(step(hash, low), high)
}

const fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(FNV_PRIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed elsewhere; they never change.
    #[test]
    fn tags_are_fixed() {
        assert_eq!(type_tag("", 0), 0x0832_8807_b4eb_6fed);
        assert_eq!(type_tag("bank.Account", 1), 0x2042_f5b1_eb90_e607);
        assert_eq!(type_tag("bank.Account", 2), 0x2038_c3b1_eb88_3c8c);
        assert_eq!(type_tag("ä", 65_535), 0xcc28_27c6_d8e3_9b48);
    }

    /// The bare hash, against the vectors that its authors published.
    #[test]
    fn the_hash_is_fnv_1a() {
        let hash = |text: &str| text.bytes().fold(FNV_OFFSET_BASIS, step);
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
