//! Buffers: messages that wait until the home of their shard is known, bounded and counted.

use std::collections::{BTreeMap, VecDeque};

/// How many messages may wait.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    /// For one shard.
    pub per_shard: usize,
    /// For all shards of a region together.
    pub in_all: usize,
}

/// What waits, by shard, in the order of arrival.
#[derive(Debug)]
pub struct Buffers<D> {
    limits: BufferLimits,
    waiting: BTreeMap<u32, VecDeque<D>>,
    total: usize,
}

impl<D> Buffers<D> {
    /// Nothing waits.
    #[must_use]
    pub fn new(limits: BufferLimits) -> Self {
        Self {
            limits,
            waiting: BTreeMap::new(),
            total: 0,
        }
    }

    /// Lets `item` wait.
    ///
    /// # Errors
    /// The item, if there is no room.
    pub fn push(&mut self, shard: u32, item: D) -> Result<(), D> {
        let of_shard = self.waiting.get(&shard).map_or(0, VecDeque::len);
        if self.total >= self.limits.in_all || of_shard >= self.limits.per_shard {
            return Err(item);
        }
        self.waiting.entry(shard).or_default().push_back(item);
        self.total += 1;
        Ok(())
    }

    /// Everything that waits for `shard`.
    pub fn take(&mut self, shard: u32) -> VecDeque<D> {
        let items = self.waiting.remove(&shard).unwrap_or_default();
        self.total -= items.len();
        items
    }

    /// The shards for which something waits.
    #[must_use]
    pub fn shards(&self) -> Vec<u32> {
        self.waiting.keys().copied().collect()
    }

    /// How much waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S7: the bound is exact, for a shard and in all.
    #[test]
    fn bounds_are_exact() {
        let mut buffers = Buffers::new(BufferLimits {
            per_shard: 2,
            in_all: 3,
        });
        let shards = [1, 1, 1, 2, 3];
        let refused: Vec<usize> = (0..)
            .zip(shards)
            .filter_map(|(n, shard)| buffers.push(shard, n).err())
            .collect();
        assert_eq!((refused, buffers.len()), (vec![2, 4], 3));
        assert_eq!(buffers.take(1), [0, 1]);
        assert_eq!((buffers.len(), buffers.shards()), (1, vec![2]));
        assert_eq!(buffers.push(3, 9), Ok(()));
    }
}
