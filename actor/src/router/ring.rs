//! Ring: which routee a key belongs to, so that few keys move when routees come and go.
//!
//! Each routee has many points on a circle of 64-bit numbers, and a key belongs to the routee of the
//! first point at or after the key's hash. A routee that leaves gives up its own keys and no others.
//! Pure.

use super::hash::mix;

/// Points of each routee: enough that the largest share is about a quarter above the mean.
const POINTS_PER_ROUTEE: u64 = 128;

#[derive(Debug, Default)]
pub(super) struct Ring {
    /// By place on the circle: the point, and the routee's index in the list that made the ring.
    points: Vec<(u64, usize)>,
}

impl Ring {
    /// The ring of routees with these ids. The ids decide the points, so they must be distinct and
    /// stay the same for as long as a routee shall keep its keys.
    pub(super) fn new(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut points: Vec<(u64, u64, usize)> = Vec::new();
        for (index, id) in ids.into_iter().enumerate() {
            let start = mix(id);
            points.extend((0..POINTS_PER_ROUTEE).map(|n| (mix(start.wrapping_add(n)), id, index)));
        }
        // Points that fall together are ordered by id, whatever the order of the list.
        points.sort_unstable();
        let points = points.into_iter().map(|(point, _, index)| (point, index));
        Self {
            points: points.collect(),
        }
    }

    /// The indices of all routees, each once, in the order in which a key with this hash asks for
    /// them: its owner, then who would own it if the owner left, and so on.
    pub(super) fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let from = self.points.partition_point(|&(point, _)| point < hash);
        let (before, after) = self.points.split_at(from);
        let mut seen: Vec<usize> = Vec::new();
        let mut owner = None;
        let round = after.iter().chain(before).map(|&(_, index)| index);
        round.filter(move |&index| {
            // The owner is remembered without the list: most walks end with it.
            let Some(owned_by) = owner else {
                owner = Some(index);
                return true;
            };
            let new = owned_by != index && !seen.contains(&index);
            if new {
                seen.push(index);
            }
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::key_hash;
    use super::*;

    const KEYS: u64 = 20_000;

    fn owner(ring: &Ring, ids: &[u64], key: u64) -> u64 {
        ids[ring.walk(key_hash(&key)).next().unwrap()]
    }

    #[test]
    fn a_routee_that_comes_takes_keys_from_all_and_moves_no_other() {
        let (small, large): (Vec<u64>, Vec<u64>) = ((0..10).collect(), (0..11).collect());
        let (before, after) = (Ring::new(small.clone()), Ring::new(large.clone()));
        let mut moved = 0;
        for key in 0..KEYS {
            let (old, new) = (owner(&before, &small, key), owner(&after, &large, key));
            if old != new {
                assert_eq!(new, 10, "key {key} moved between old routees");
                moved += 1;
            }
        }
        let fair = KEYS / 11;
        assert!((fair / 2..fair * 2).contains(&moved), "{moved} moved");
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let (forth, back): (Vec<u64>, Vec<u64>) = ((0..7).collect(), (0..7).rev().collect());
        let (a, b) = (Ring::new(forth.clone()), Ring::new(back.clone()));
        assert!((0..KEYS).all(|key| owner(&a, &forth, key) == owner(&b, &back, key)));
    }

    #[test]
    fn shares_are_alike() {
        let ids: Vec<u64> = (0..10).collect();
        let ring = Ring::new(ids.clone());
        let mut shares = [0_u64; 10];
        for key in 0..KEYS {
            shares[owner(&ring, &ids, key) as usize] += 1;
        }
        let fair = KEYS / 10;
        let alike = |&share: &u64| (fair * 6 / 10..fair * 14 / 10).contains(&share);
        assert!(shares.iter().all(alike), "{shares:?}");
    }

    #[test]
    fn a_walk_names_everyone_once_and_the_next_owner_second() {
        let ids: Vec<u64> = (0..5).collect();
        let ring = Ring::new(ids.clone());
        for key in 0..100 {
            let order: Vec<usize> = ring.walk(key_hash(&key)).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            let left: Vec<u64> = ids
                .iter()
                .copied()
                .filter(|&id| id != order[0] as u64)
                .collect();
            let heir = owner(&Ring::new(left.clone()), &left, key);
            assert_eq!(heir, order[1] as u64);
        }
        assert_eq!(Ring::default().walk(7).next(), None);
    }
}
