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
