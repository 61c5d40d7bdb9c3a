//! Tests: what each strategy does with given placements.

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
    let limit = strategy.limit.of(all);
    let (mut rounds, mut moved) = (0, 0);
    loop {
        let moves = strategy.rebalance(&Placement::new(hosting.clone()));
        if moves.is_empty() {
            assert!(spread(&hosting) <= 1);
            return (rounds, moved);
        }
        assert!(moves.len() <= limit, "at most {limit} a round");
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

/// S4: Pekko's sizes: two rounds suffice for 20 regions with 20 shards each, five for 100 regions with
/// 1,000 shards each, of which one has lost everything.
#[test]
fn large_hostings_are_balanced_in_few_rounds() {
    for (regions, each, rounds_max) in [(20, 20, 2), (100, 1_000, 5)] {
        let mut sizes = vec![each; regions];
        sizes[regions / 2] = 0;
        let strategy = LeastShards {
            limit: RoundLimit {
                percent: 10,
                shards: u32::MAX,
            },
        };
        let (rounds, moved) = rounds(hosting(&sizes), strategy);
        assert!(rounds <= rounds_max, "{regions} regions: {rounds} rounds");
        assert_eq!(moved, each * (regions - 1) / regions);
    }
}

#[test]
fn the_smaller_of_both_limits_holds() {
    let limit = |percent, shards| RoundLimit { percent, shards };
    assert_eq!(limit(10, 1_000).of(500), 50);
    assert_eq!(limit(10, 7).of(500), 7);
    assert_eq!(limit(0, 0).of(500), 1);
    assert_eq!(RoundLimit::default().of(100_000), 1_000);
    let strategy = LeastShards {
        limit: limit(100, 3),
    };
    let moves = strategy.rebalance(&Placement::new(hosting(&[50, 0])));
    assert_eq!(moves.len(), 3);
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
    let placement = Placement::new(hosting(&[2, 1, 1]));
    assert_eq!(strategy.allocate(9, &placement), Some(node(2)));
    assert_eq!(strategy.allocate(9, &Placement::default()), None);
}

fn homes(hosting: &Hosting) -> BTreeMap<u32, NodeId> {
    let homes = hosting.iter();
    homes
        .flat_map(|(node, shards)| shards.iter().map(move |shard| (*shard, node.clone())))
        .collect()
}

fn allocated(strategy: &dyn AllocationStrategy, regions: usize, shards: u32) -> Hosting {
    let mut placement = Placement::new(hosting(&vec![0; regions]));
    for shard in 0..shards {
        let at = strategy.allocate(shard, &placement).unwrap();
        placement.hosting.get_mut(&at).unwrap().push(shard);
    }
    placement.hosting
}

/// S4: by hash, a region that comes gets its share from all others and nothing else moves; when it goes,
/// everything is where it was.
#[test]
fn a_hashed_home_depends_on_the_members_only() {
    let strategy = ConsistentHashing {
        limit: RoundLimit {
            percent: 5,
            shards: 1_000,
        },
    };
    let before = allocated(&strategy, 5, 1_000);
    assert!(
        before
            .values()
            .all(|shards| (150..250).contains(&shards.len()))
    );
    let mut grown = before.clone();
    grown.insert(node(6), Vec::new());
    let mut moved = 0;
    loop {
        let moves = strategy.rebalance(&Placement::new(grown.clone()));
        assert!(moves.len() <= 50);
        assert!(moves.iter().all(|one| one.to == node(6)));
        if moves.is_empty() {
            break;
        }
        moved += moves.len();
        apply(&mut grown, &moves);
    }
    assert_eq!(grown[&node(6)].len(), moved);
    assert!((120..220).contains(&moved), "{moved}");
    let mut shrunk = Placement::new(grown);
    for shard in shrunk.hosting.remove(&node(6)).unwrap() {
        let at = strategy.allocate(shard, &shrunk).unwrap();
        shrunk.hosting.get_mut(&at).unwrap().push(shard);
    }
    assert_eq!(homes(&shrunk.hosting), homes(&before));
    // The next run of a node has what the one before had.
    let again = |id: &NodeId| NodeId::new(id.name.to_string(), id.addr, 2);
    let restarted = before.keys().map(|id| (again(id), Vec::new()));
    let placement = Placement::new(restarted.collect());
    for (shard, home) in homes(&before) {
        assert_eq!(strategy.allocate(shard, &placement), Some(again(&home)));
    }
}

#[test]
fn a_shard_lives_where_it_is_told_to() {
    let strategy = ExternalAllocation::new(RoundLimit {
        percent: 100,
        shards: 2,
    });
    let handle = strategy.clone();
    for shard in [0, 1, 2] {
        handle.place(shard, "n3");
    }
    handle.place(4, "nobody");
    let mut placement = Placement::new(hosting(&[3, 3, 0]));
    let moves = strategy.rebalance(&placement);
    assert_eq!(moves.len(), 2, "as the limit says");
    apply(&mut placement.hosting, &moves);
    let moves = strategy.rebalance(&placement);
    apply(&mut placement.hosting, &moves);
    assert_eq!(strategy.rebalance(&placement), []);
    assert_eq!(placement.hosting[&node(3)].len(), 3);
    assert_eq!(strategy.allocate(1, &placement), Some(node(3)));
    placement.hosting.remove(&node(3));
    let elsewhere = strategy.allocate(1, &placement);
    assert_eq!(elsewhere, Some(node(1)), "while its node is away");
    handle.release(1);
    assert_eq!(handle.placed().len(), 3);
    assert_eq!(strategy.rebalance(&placement), [], "it stays");
}

fn loaded(sizes: &[usize], load: impl Fn(u32) -> u32) -> Placement {
    let hosting = hosting(sizes);
    let loads = hosting.values().flatten();
    let loads = loads.map(|shard| (*shard, load(*shard))).collect();
    Placement::new(hosting).with_loads(loads)
}

fn carried(placement: &Placement) -> Vec<u64> {
    let regions = placement.hosting.values();
    let load = |shard: &u32| u64::from(placement.loads[shard]);
    regions
        .map(|shards| shards.iter().map(load).sum())
        .collect()
}

/// Rebalances until nothing moves; how many moves that took.
fn settle(strategy: &LeastLoad, placement: &mut Placement) -> usize {
    let mut moved = 0;
    for _ in 0..200 {
        let moves = strategy.rebalance(placement);
        if moves.is_empty() {
            return moved;
        }
        assert!(moves.len() <= strategy.limit.of(placement.shards()));
        moved += moves.len();
        apply(&mut placement.hosting, &moves);
    }
    panic!("it does not settle: {:?}", carried(placement));
}

/// S4: random loads: it settles, no region carries much more than another unless a single shard does, and
/// loads that waver a little move nothing any more.
#[test]
fn load_is_spread_and_does_not_flap() {
    let mut rng = Rng::seeded(6);
    let strategy = LeastLoad::default();
    for round in 0..50 {
        let regions = 2 + rng.below(8) as usize;
        let sizes: Vec<usize> = (0..regions).map(|_| 5 + rng.below(20) as usize).collect();
        let loads: Vec<u32> = (0..400).map(|_| rng.below(1_000) as u32).collect();
        let mut placement = loaded(&sizes, |shard| loads[shard as usize]);
        settle(&strategy, &mut placement);
        let after = carried(&placement);
        let average = after.iter().sum::<u64>() / regions as u64;
        let spread = after.iter().max().unwrap() - after.iter().min().unwrap();
        assert!(spread <= average / 5, "round {round}: {after:?}");
        for _ in 0..20 {
            let mut wavering = placement.clone();
            for load in wavering.loads.values_mut() {
                *load = (*load * (98 + rng.below(5) as u32)) / 100;
            }
            let moved = strategy.rebalance(&wavering).len();
            assert_eq!(moved, 0, "round {round}: {moved} moves for a waver");
        }
    }
}

#[test]
fn a_lone_busy_shard_stays_and_its_neighbours_leave() {
    let strategy = LeastLoad::default();
    let busy = |shard| if shard == 0 { 10_000 } else { 100 };
    let mut placement = loaded(&[11, 1], busy);
    settle(&strategy, &mut placement);
    assert_eq!(placement.hosting[&node(1)], [0]);
    let mut alone = loaded(&[1, 1], busy);
    assert_eq!(settle(&strategy, &mut alone), 0);
}

#[test]
fn nothing_moves_by_what_is_not_measured_or_not_worth_it() {
    let strategy = LeastLoad::default();
    let mut placement = loaded(&[4, 0], |_| 500);
    placement.loads.remove(&3);
    assert_eq!(strategy.rebalance(&placement), []);
    assert_eq!(strategy.rebalance(&loaded(&[4, 0], |_| 20)), [], "idle");
    assert_eq!(strategy.rebalance(&loaded(&[4, 0], |_| 500)).len(), 1);
    let uneven = loaded(&[3, 1], |shard| if shard == 3 { 900 } else { 350 });
    assert_eq!(strategy.rebalance(&uneven), [], "it is even enough");
}

#[test]
fn a_shard_without_a_home_goes_to_the_least_busy_region() {
    let strategy = LeastLoad::default();
    let placement = loaded(&[1, 5], |shard| if shard == 0 { 1_000 } else { 10 });
    assert_eq!(strategy.allocate(9, &placement), Some(node(2)));
    let spread = allocated(&strategy, 4, 40);
    assert!(spread.values().all(|shards| shards.len() == 10));
}
