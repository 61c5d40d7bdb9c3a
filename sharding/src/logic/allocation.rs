//! Allocation: which region gets a shard, and which shards move so that all carry about the same.

use otava_remote::NodeId;
use std::collections::BTreeMap;

/// Which shards each region has or is about to get, the numbers ascending. Regions that may get
/// none are left out.
pub type Hosting = BTreeMap<NodeId, Vec<u32>>;

/// One planned move.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    /// What moves.
    pub shard: u32,
    /// Where it goes.
    pub to: NodeId,
}

/// Decides where shards live. The same input must give the same answer.
pub trait AllocationStrategy: Send + Sync + 'static {
    /// The region that gets `shard`, which nobody has; `None` leaves it without a home for now.
    fn allocate(&self, shard: u32, hosting: &Hosting) -> Option<NodeId>;

    /// The moves of the next round. Asked only when no shard is on its way and every member answers,
    /// and again when a round is done. Moves of unknown shards or to unknown regions are ignored.
    fn rebalance(&self, hosting: &Hosting) -> Vec<Move>;
}

/// The default strategy: the region with the fewest shards gets the next one, and shards move until
/// no region has more than one above another, with as few moves as that takes.
#[derive(Clone, Copy, Debug)]
pub struct LeastShards {
    /// How many percent of all shards may move in one round; at least one shard may. 10 by default.
    pub percent_a_round: u32,
}

impl Default for LeastShards {
    fn default() -> Self {
        Self {
            percent_a_round: 10,
        }
    }
}

impl AllocationStrategy for LeastShards {
    fn allocate(&self, _: u32, hosting: &Hosting) -> Option<NodeId> {
        let least = hosting.iter().min_by_key(|(_, shards)| shards.len());
        least.map(|(node, _)| node.clone())
    }

    fn rebalance(&self, hosting: &Hosting) -> Vec<Move> {
        let all: usize = hosting.values().map(Vec::len).sum();
        let limit = (all * self.percent_a_round as usize / 100).max(1);
        let mut left = hosting.clone();
        // What arrives in this round does not leave in it: only what was there can be taken.
        let mut arriving: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut moves = Vec::new();
        while moves.len() < limit {
            let size = |node: &NodeId, shards: &Vec<u32>| {
                shards.len() + arriving.get(node).copied().unwrap_or(0)
            };
            let sizes = left.iter().map(|(node, shards)| (size(node, shards), node));
            let most = sizes.clone().rev().max_by_key(|(size, _)| *size);
            let least = sizes.min_by_key(|(size, _)| *size);
            let (Some((high, from)), Some((low, to))) = (most, least) else {
                break;
            };
            let (from, to) = (from.clone(), to.clone());
            if high <= low + 1 {
                break;
            }
            let Some(shard) = left.get_mut(&from).and_then(Vec::pop) else {
                break;
            };
            *arriving.entry(to.clone()).or_default() += 1;
            moves.push(Move { shard, to });
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_actor::Rng;
    use std::net::SocketAddr;

    fn node(n: u16) -> NodeId {
        NodeId::new(format!("n{n}"), SocketAddr::from(([127, 0, 0, 1], n)), 1)
    }

    fn hosting(sizes: &[usize]) -> Hosting {
        let mut next = 0;
        let mut take = |count: usize| {
            let from = next;
            next += count as u32;
            (from..next).collect()
        };
        (1..)
            .zip(sizes)
            .map(|(n, size)| (node(n), take(*size)))
            .collect()
    }

    fn apply(hosting: &mut Hosting, moves: &[Move]) {
        for Move { shard, to } in moves {
            for shards in hosting.values_mut() {
                shards.retain(|other| other != shard);
            }
            hosting.get_mut(to).unwrap().push(*shard);
        }
    }

    fn spread(hosting: &Hosting) -> usize {
        let sizes = || hosting.values().map(Vec::len);
        sizes().max().unwrap() - sizes().min().unwrap()
    }

    fn rounds(mut hosting: Hosting, strategy: LeastShards) -> (usize, usize) {
        let all: usize = hosting.values().map(Vec::len).sum();
        let (mut rounds, mut moved) = (0, 0);
        loop {
            let moves = strategy.rebalance(&hosting);
            if moves.is_empty() {
                assert!(spread(&hosting) <= 1);
                return (rounds, moved);
            }
            assert!(moves.len() <= (all / 10).max(1), "at most 10 % a round");
            apply(&mut hosting, &moves);
            rounds += 1;
            moved += moves.len();
        }
    }

    /// S4: as few moves as it takes, at most 10 % a round, at the end a spread of one.
    #[test]
    fn a_new_region_gets_its_share() {
        let (rounds, moved) = rounds(hosting(&[50, 50, 0]), LeastShards::default());
        assert_eq!((rounds, moved), (4, 33));
    }

    /// S4: random regions and shards.
    #[test]
    fn every_random_hosting_is_balanced_with_the_fewest_moves() {
        let mut rng = Rng::seeded(4);
        for _ in 0..200 {
            let regions = 1 + rng.below(30) as usize;
            let sizes: Vec<usize> = (0..regions).map(|_| rng.below(40) as usize).collect();
            let all: usize = sizes.iter().sum();
            let (floor, rest) = (all / regions, all % regions);
            let mut sorted = sizes.clone();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let target = |place: usize| floor + usize::from(place < rest);
            let excess = (0..).zip(&sorted).map(|(i, n)| n.saturating_sub(target(i)));
            let (_, moved) = rounds(hosting(&sizes), LeastShards::default());
            assert_eq!(moved, excess.sum::<usize>(), "{sizes:?}");
        }
    }

    #[test]
    fn a_shard_goes_to_the_region_with_the_fewest() {
        let strategy = LeastShards::default();
        assert_eq!(strategy.allocate(9, &hosting(&[2, 1, 1])), Some(node(2)));
        assert_eq!(strategy.allocate(9, &Hosting::new()), None);
    }
}
