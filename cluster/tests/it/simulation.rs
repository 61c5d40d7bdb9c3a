//! Proves: over random faults no two parts both go on, views converge, and a seed replays its run.
//!
//! `SEED=7 cargo test -p otava-cluster --test it random_faults` runs one seed and prints its log,
//! `SEEDS=5000` runs more of them.

use crate::checkers;
use crate::world::World;
use otava_actor::Rng;
use otava_cluster::Strategy;
use otava_cluster::logic::downing::Rule;
use otava_cluster::logic::membership::Input;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The first seed and how many; each is printed when it fails.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED").map(|seed| seed.parse()) {
        Ok(Ok(seed)) => vec![seed],
        _ => {
            let more = std::env::var("SEEDS").map(|count| count.parse());
            (0..more.ok().and_then(Result::ok).unwrap_or(count)).collect()
        }
    }
}

/// Calls `run` for each seed, on all processors; each seed is a world of its own.
pub(crate) fn for_each(seeds: &[u64], run: impl Fn(u64) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(*seed);
                }
            });
        }
    });
}

/// A random life of a cluster of `size`; returns the world after its end.
fn live(seed: u64, size: u16, rule: Rule) -> Result<World, Box<(World, String)>> {
    let mut rng = Rng::seeded(seed ^ 0x5EED);
    let mut world = World::new(seed);
    let leases = rule.strategy == Strategy::LeaseMajority;
    world.rule = rule;
    for number in 1..=size {
        world.start(number);
    }
    let mut broken = None;
    let mut run = |world: &mut World, millis: u64| {
        world.run(Duration::from_millis(millis), |world| {
            if broken.is_none() {
                broken = checkers::always(world).err();
            }
        });
    };
    run(&mut world, 12_000 + u64::from(size) * 200);
    for _ in 0..=rng.below(3) {
        let bridge = fault(&mut world, &mut rng, size);
        run(&mut world, 500 + rng.below(20_000));
        if bridge || rng.below(2) == 0 {
            world.heal();
        }
        if bridge && !leases {
            // Another cut within the time of detection is more than the rule bears: see
            // `logic/downing.rs`.
            run(&mut world, 8_000);
        }
    }
    world.heal();
    run(&mut world, 30_000);
    let broken = broken.or_else(|| checkers::in_the_end(&world).err());
    match broken {
        Some(broken) => Err(Box::new((world, broken))),
        None => Ok(world),
    }
}

/// One random fault or wish. Returns whether it may leave some that reach both who do not reach each
/// other.
pub(crate) fn fault(world: &mut World, rng: &mut Rng, size: u16) -> bool {
    let mut numbers: Vec<u16> = (1..=size).collect();
    rng.shuffle(&mut numbers);
    let some = 1 + rng.below(u64::from(size) - 1) as usize;
    let which = rng.below(10);
    match which {
        0 | 1 => {
            world.heal();
            world.split(&[numbers[..some].to_vec(), numbers[some..].to_vec()]);
        }
        2 => {
            world.heal();
            world.cut(numbers[0], numbers[1]);
        }
        3 => {
            world.heal();
            // One sees both sides.
            let (one, other) = numbers[1..].split_at(some.min(numbers.len() - 1) / 2);
            world.split(&[one.to_vec(), other.to_vec()]);
        }
        4 => numbers[..some.div_ceil(3)]
            .iter()
            .for_each(|n| world.crash(*n)),
        5 => {
            world.heal();
            world.start(numbers[0]);
        }
        6 => {
            world.input(numbers[0], Input::Leave);
            world.input(numbers[0], Input::FinishLeave);
        }
        7 => world.disturb(rng.below(30), (1, 10 + rng.below(300))),
        8 => {
            world.pause(numbers[0], true);
            world.run(Duration::from_millis(rng.below(30_000)), |_| {});
            world.pause(numbers[0], false);
        }
        _ => {
            world.heal();
            world.start(size + 1);
        }
    }
    matches!(which, 2 | 3)
}

fn size_of(seed: u64) -> u16 {
    let sizes = [
        3, 4, 5, 5, 6, 7, 8, 10, 13, 5, 3, 4, 5, 6, 7, 5, 9, 11, 5, 30,
    ];
    sizes[(seed % sizes.len() as u64) as usize]
}

/// C12: safety in every run; views converge within 30 seconds after the last fault.
#[test]
fn random_faults() {
    let seeds = seeds(200);
    for_each(&seeds, |seed| {
        check(&seeds, seed, Strategy::KeepMajority.into());
    });
}

fn check(seeds: &[u64], seed: u64, rule: Rule) {
    if let Err(failed) = live(seed, size_of(seed), rule) {
        let (world, broken) = *failed;
        if seeds.len() == 1 {
            panic!("SEED={seed}: {broken}\n{}", world.log.join("\n"));
        }
        panic!("SEED={seed}: {broken}");
    }
}

/// C12: the same with a lease, which bears a second cut at any moment, and with the other rules.
#[test]
fn random_faults_under_other_rules() {
    let seeds = seeds(40);
    for_each(&seeds, |seed| {
        let strategy = match seed % 4 {
            0 => Strategy::KeepOldest,
            1 => Strategy::StaticQuorum(usize::from(size_of(seed)).div_ceil(2) + 1),
            _ => Strategy::LeaseMajority,
        };
        check(&seeds, seed, strategy.into());
    });
}

/// The same seed gives the same run, event by event.
#[test]
fn a_seed_replays() {
    for seed in [1, 4, 9] {
        let log = |failed: Box<(World, String)>| failed.0.log;
        let rule = || Strategy::KeepMajority.into();
        let once = live(seed, size_of(seed), rule()).map_or_else(log, |world| world.log);
        let again = live(seed, size_of(seed), rule()).map_or_else(log, |world| world.log);
        assert!(once.len() > 10);
        assert_eq!(once, again, "seed {seed}");
    }
}

/// Clean splits of any size: exactly the larger side goes on, or that with the lowest address.
#[test]
fn clean_splits() {
    for_each(&seeds(40), |seed| {
        let size = size_of(seed);
        let mut rng = Rng::seeded(seed);
        let mut world = World::new(seed);
        (1..=size).for_each(|number| world.start(number));
        world.run(Duration::from_secs(20), |_| {});
        let mut numbers: Vec<u16> = (1..=size).collect();
        rng.shuffle(&mut numbers);
        let (one, other) = numbers.split_at(1 + rng.below(u64::from(size) - 1) as usize);
        world.split(&[one.to_vec(), other.to_vec()]);
        world.run(Duration::from_secs(60), |_| {});
        let tie = one.len() == other.len();
        let keeps_one = one.len() > other.len() || (tie && one.contains(&1));
        let mut expected = if keeps_one { one } else { other }.to_vec();
        expected.sort_unstable();
        let running: Vec<u16> = world.members().map(|node| node.id.addr.port()).collect();
        assert_eq!(running, expected, "SEED={seed}: {one:?} | {other:?}");
        assert_eq!(checkers::in_the_end(&world), Ok(()), "SEED={seed}");
    });
}
