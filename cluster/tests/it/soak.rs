//! Proves: over half an hour of random faults, looked at after every step, no two parts of a cluster both go on, and
//! after each episode of faults all agree and whoever was lost can come back.
//!
//! ```text
//! SEEDS=1000 MINUTES=30 cargo test --release -p otava-cluster --test it a_long_life -- --nocapture
//! SEED=7 MINUTES=30 cargo test -p otava-cluster --test it a_long_life
//! ```
//!
//! The second one replays seed 7 and prints what happened.
//!
//! **Left out by name: a second cut within the time of detection after a bridge** or a cut of one pair, which no rule
//! bears that does not ask a lease ([`QUIET_AFTER_A_BRIDGE`], `logic/downing.rs`).
#![allow(clippy::print_stdout, reason = "a long run says how far it is")]

use crate::checkers::{self, Watch};
use crate::simulation::{fault, for_each, seeds};
use crate::world::World;
use otava_actor::{Rng, Time};
use std::sync::Mutex;
use std::time::Duration;

/// How long after a bridge, or a cut of one pair, nothing else is cut: until it is found, decided, and told.
const QUIET_AFTER_A_BRIDGE: Duration = Duration::from_secs(8);
/// How long after the last fault, and after the lost have been started again, until all agree.
const LIVE_WITHIN: Duration = Duration::from_secs(30);

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

struct Soak {
    world: World,
    rng: Rng,
    size: u16,
    watch: Watch,
    broken: Option<String>,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed ^ 0x50AC);
        Self {
            world: World::new(seed),
            size: 5 + rng.below(5) as u16,
            rng,
            watch: Watch::default(),
            broken: None,
        }
    }

    fn run(&mut self, length: Duration) {
        let (watch, broken) = (&mut self.watch, &mut self.broken);
        self.world.run_step_by_step(length, |world| {
            if broken.is_none() {
                *broken = watch.look(world).err();
            }
        });
    }

    fn all_agree(&mut self) {
        self.run(LIVE_WITHIN);
        let end = checkers::in_the_end(&self.world);
        self.broken = self.broken.take().or(end.err());
    }

    /// Starts whoever does not run, as an operator would, and all are up again.
    fn come_back(&mut self) {
        for number in 1..=self.size {
            if self
                .world
                .node(number)
                .is_none_or(|node| node.ended.is_some())
            {
                self.world.start(number);
            }
        }
        self.all_agree();
        let running = |number| {
            let node = self.world.node(number);
            let state = node.map(|node| node.membership.state());
            state.is_some_and(|state| state.up().count() >= usize::from(self.size))
        };
        if let Some(number) = (1..=self.size).find(|number| !running(*number)) {
            let broken = format!("node {number} is not one of {} that are up", self.size);
            self.broken.get_or_insert(broken);
        }
    }

    fn episode(&mut self) {
        for _ in 0..=self.rng.below(3) {
            let bridge = fault(&mut self.world, &mut self.rng, self.size);
            let length = 500 + self.rng.below(20_000);
            self.run(Duration::from_millis(length));
            if bridge || self.rng.below(2) == 0 {
                self.world.heal();
            }
            if bridge {
                self.run(QUIET_AFTER_A_BRIDGE);
            }
        }
        self.world.heal();
        self.all_agree();
        self.come_back();
    }

    /// What was broken, if anything, and how many episodes there were.
    fn live(&mut self, length: Duration) -> Result<u32, String> {
        self.come_back();
        let mut episodes = 0;
        while self.broken.is_none() && self.world.now < Time::ZERO + length {
            self.episode();
            episodes += 1;
        }
        match self.broken.take() {
            Some(broken) => Err(broken),
            None => Ok(episodes),
        }
    }
}

/// C12: safety at every step, liveness after the last fault of each episode.
#[test]
fn a_long_life() {
    let length = Duration::from_secs(60 * number("MINUTES", 5));
    let seeds = seeds(8);
    let failed = Mutex::new(Vec::new());
    let done = Mutex::new((0_usize, 0, 0));
    let real = std::time::Instant::now();
    for_each(&seeds, |seed| {
        let mut soak = Soak::new(seed);
        match soak.live(length) {
            Ok(episodes) => {
                let mut done = done.lock().unwrap();
                *done = (done.0 + 1, done.1 + episodes, done.2 + soak.world.handled);
                if done.0.is_multiple_of(50) || done.0 == seeds.len() {
                    let seconds = real.elapsed().as_secs();
                    println!(
                        "{} seeds, {} episodes, {} steps, {seconds} s",
                        done.0, done.1, done.2
                    );
                }
            }
            Err(broken) => {
                if seeds.len() == 1 {
                    println!("{}", soak.world.log.join("\n"));
                }
                println!("SEED={seed} at {}: {broken}", soak.world.now);
                failed.lock().unwrap().push(seed);
            }
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {failed:?}",
        failed.len(),
        seeds.len()
    );
}
