//! Hash: which shard an entity id belongs to, on every node and in every version.
//!
//! The id's UTF-8 bytes are hashed by XXH3 with 64 bits and seed 0; the top bits of the hash are the
//! shard. So a shard is a range of the hash, and twice as many shards split each range in two. This
//! is a wire contract, kept by the vectors in `fixtures/v1/shards.txt`.

use xxhash_rust::xxh3::xxh3_64;

/// The most shards a kind may have.
pub const SHARDS_MAX: u32 = 65_536;

/// How many bits a hash has.
pub const HASH_BITS: u32 = 64;

/// Whether a kind may have this many shards: a power of two, at most 65,536.
#[must_use]
pub fn is_valid_shards(shards: u32) -> bool {
    shards.is_power_of_two() && shards <= SHARDS_MAX
}

/// The stable hash of an entity's id, whose ranges are the shards.
#[must_use]
pub fn hash_of(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The shard of the entity `id` among `shards`.
///
/// # Panics
/// If `shards` is no valid number of shards; it is checked where sharding starts.
#[must_use]
pub fn shard_of(id: &str, shards: u32) -> u32 {
    shard_at(hash_of(id), shards)
}

/// The shard of a hash among `shards`.
///
/// # Panics
/// If `shards` is no valid number of shards; it is checked where sharding starts.
#[must_use]
pub fn shard_at(hash: u64, shards: u32) -> u32 {
    assert!(is_valid_shards(shards), "{shards} shards");
    let bits = shards.trailing_zeros();
    // Shifted in two steps: with one shard there are 64 bits to lose.
    let top = (hash >> 1) >> (63 - bits);
    u32::try_from(top).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_written_vectors() {
        let text = include_str!("../../fixtures/v1/shards.txt");
        let mut checked = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut parts = line.split('\t');
            let mut number = || parts.next().unwrap().to_owned();
            let (hash, of_128, of_65536) = (number(), number(), number());
            let id = number();
            assert_eq!(format!("{:016x}", xxh3_64(id.as_bytes())), hash, "{id:?}");
            assert_eq!(shard_of(&id, 128).to_string(), of_128, "{id:?}");
            assert_eq!(shard_of(&id, 65_536).to_string(), of_65536, "{id:?}");
            assert_eq!(shard_of(&id, 1), 0);
            checked += 1;
        }
        assert_eq!(checked, 8);
    }

    #[test]
    fn the_empty_text_has_the_published_hash() {
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn twice_the_shards_split_each_in_two() {
        for n in 0..1_000 {
            let id = format!("entity-{n}");
            assert_eq!(shard_of(&id, 256) / 2, shard_of(&id, 128));
        }
    }

    #[test]
    fn ids_spread_evenly() {
        let mut counts = [0u32; 128];
        for n in 0..128_000 {
            counts[shard_of(&format!("N{n}"), 128) as usize] += 1;
        }
        assert!(
            counts.iter().all(|n| (850..1_150).contains(n)),
            "{counts:?}"
        );
    }
}
