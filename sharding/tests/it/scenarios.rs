//! Proves: no fault gives a shard two writers or none, and no planned move loses or reorders anything.
//!
//! `SEED=7 cargo test -p otava-sharding --test it` replays one seed; `OTAVA_SEEDS=1000` runs more.

use crate::sim::world::{SHARDS, Step, Trap, Truth, Victim, World};
use otava_actor::{Rng, Time};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OTAVA_SEEDS").unwrap_or(50),
    }
}

/// Runs a scenario with each seed and says which seed failed.
fn each_seed(scenario: impl Fn(u64, &mut World) + std::panic::RefUnwindSafe) {
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            scenario(seed, &mut world);
            world.ledger.complaints.clone()
        });
        match run {
            Ok(complaints) => assert!(complaints.is_empty(), "SEED={seed}: {complaints:#?}"),
            Err(panic) => {
                let said = panic.downcast_ref::<String>();
                panic!("SEED={seed}: {said:?}");
            }
        }
    }
}

/// All faults are over: every shard answers to everyone within `limit`, and nothing is lost unexcused.
fn settle(world: &mut World, limit: Duration, excuses: bool) {
    let until = world.now + limit;
    let whole = world.run_until(until, World::is_whole);
    assert!(
        whole,
        "after {limit:?} not all shards are hosted: {:?}",
        world.hosted()
    );
    world.stop_sending();
    world.run_for(SECOND);
    world.send_to_all();
    world.run_for(SECOND * 3);
    let complaints = world.ledger.settle(excuses);
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(world.ledger.accepted_count() > 100);
}

fn start(world: &mut World, nodes: u16) {
    for n in 1..=nodes {
        world.join(n);
    }
    let up = world.run_until(world.now + SECOND * 20, World::is_balanced);
    assert!(up, "not balanced after 20 s: {:?}", world.hosted());
}

/// S1: nodes join and leave under load. Nothing is lost, order is kept, no shard has two homes at any
/// time, at the end no node has more than one shard above another.
#[test]
fn joins_and_leaves_lose_nothing() {
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 1_000_000);
        let nodes = 3 + rng.below(3) as u16;
        start(world, nodes);
        let mut next = nodes + 1;
        for _ in 0..3 {
            world.run_for(Duration::from_millis(rng.below(3_000)));
            if rng.below(2) == 0 || world.truth.up.len() < 3 {
                world.join(next);
                next += 1;
                continue;
            }
            let leaver = world.truth.up[rng.below(world.truth.up.len() as u64) as usize];
            world.leave(leaver);
            let until = world.now + SECOND * 20;
            assert!(
                world.run_until(until, |world| world.has_left(leaver)),
                "{leaver} stays"
            );
            world.run_for(SECOND);
            let late = world.hosted()[&leaver];
            assert_eq!(late, 0, "nothing comes back to a leaving node");
            world.crash(leaver);
            world.calm = true;
            world.down(leaver);
        }
        settle(world, SECOND * 20, false);
        let balanced = world.run_until(world.now + SECOND * 20, World::is_balanced);
        assert!(balanced, "{:?}", world.hosted());
    });
}

/// S1, S4: when a node joins, only as many shards move as it gets.
#[test]
fn what_need_not_move_stays() {
    each_seed(|_, world| {
        start(world, 3);
        world.run_for(SECOND * 3);
        let before = world.homes(1);
        world.join(4);
        let balanced = |world: &World| world.hosted()[&4] > 0 && world.is_balanced();
        assert!(world.run_until(world.now + SECOND * 20, balanced));
        world.run_for(SECOND * 5);
        let after = world.homes(1);
        let moved = before.iter().filter(|(shard, home)| after[shard] != **home);
        assert_eq!(moved.count(), world.hosted()[&4]);
        assert_eq!(world.hosted()[&4], 8);
        settle(world, SECOND, false);
    });
}

/// S2: a node dies, be it the coordinator or another: its shards answer again soon after it is downed,
/// and shards of other nodes stay where they are.
#[test]
fn a_crash_costs_only_what_was_there() {
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 2_000_000);
        start(world, 3 + rng.below(7) as u16);
        world.run_for(SECOND * 2);
        let before = world.homes(2);
        let victim = if seed % 2 == 0 { 1 } else { 3 };
        world.crash(victim);
        world.run_for(SECOND * 3);
        world.down(victim);
        let whole = world.run_until(world.now + SECOND * 5, World::is_whole);
        assert!(whole, "{:?}", world.hosted());
        let after = world.homes(2);
        let stays = before.iter().filter(|(_, (at, _))| *at != victim);
        for (shard, home) in stays {
            assert_eq!(after[shard].0, home.0, "shard {shard} moved for no reason");
        }
        settle(world, SECOND * 5, true);
    });
}

/// S2: at any step of a hand-over the coordinator dies, or the node that takes the step.
#[test]
fn a_crash_at_any_step_of_a_hand_over() {
    let steps = [
        Step::BarrierSent,
        Step::Claimed,
        Step::Ended,
        Step::LegacySent,
        Step::MovingSeen,
        Step::Stopping,
    ];
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 3_000_000);
        start(world, 3 + rng.below(3) as u16);
        world.run_for(SECOND);
        // With many messages lost each phase lasts longer, the taking over too.
        world.loss = if seed % 3 == 0 { 20 } else { 400 };
        world.trap = Some(Trap {
            on: steps[(seed % 6) as usize],
            skip: if seed % 6 == 3 { 0 } else { rng.below(12) },
            victim: if seed / 6 % 2 == 0 {
                Victim::Coordinator
            } else {
                Victim::Actor
            },
        });
        if seed % 6 == 3 {
            // A coordinator leaves in the middle of moves.
            world.join(20);
            world.run_for(Duration::from_millis(rng.below(2_000)));
            world.leave(1);
        } else if rng.below(2) == 0 {
            world.join(20);
        } else {
            let leaver = world.truth.up[rng.below(3) as usize];
            world.leave(leaver);
        }
        for _ in 0..2 {
            world.run_for(SECOND * 3);
            for dead in world.undetected() {
                world.down(dead);
            }
        }
        world.trap = None;
        world.loss = 20;
        settle(world, SECOND * 15, true);
    });
}

/// S2: a member that does not answer a new coordinator, and is not down, keeps what it has; the rest is
/// allocated without it.
#[test]
fn a_silent_member_keeps_its_shards() {
    each_seed(|_, world| {
        start(world, 3);
        world.run_for(SECOND);
        let before = world.homes(3);
        world.crash(1);
        world.cut(&[2], &[3]);
        world.down(1);
        world.run_for(SECOND * 10);
        let during = world.homes(2);
        assert_eq!(
            during.len(),
            SHARDS as usize,
            "all but the silent ones' are allocated"
        );
        for (shard, (at, epoch)) in &during {
            let kept = before[shard].0 != 1;
            assert_eq!(*at, if before[shard].0 == 3 { 3 } else { 2 });
            assert_eq!(before[shard].1 == *epoch, kept, "shard {shard}");
        }
        world.heal();
        settle(world, SECOND * 5, true);
    });
}

/// S2: the coordinator leaves or is replaced in the middle of hand-overs: they are taken back or
/// finished, without loss and in order.
#[test]
fn a_change_of_coordinators_breaks_no_hand_over() {
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 5_000_000);
        start(world, 4);
        world.run_for(SECOND);
        world.loss = 400;
        world.join(5);
        world.run_for(Duration::from_millis(500 + rng.below(1_500)));
        world.leave(1);
        world.run_for(Duration::from_millis(rng.below(3_000)));
        world.leave(2);
        world.run_for(SECOND * 10);
        world.loss = 20;
        settle(world, SECOND * 20, false);
        assert!(world.has_left(1) && world.has_left(2));
    });
}

/// S3: both sides of a split down each other and write on; the store accepts one of them for each
/// shard at a time. When one side is gone the other answers for everything.
#[test]
fn two_sides_of_a_split_never_write_both() {
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 4_000_000);
        start(world, 5);
        world.run_for(SECOND);
        let size = 1 + rng.below(4) as usize;
        world.ledger.any_order = true;
        let (a, b) = (
            [1u16, 2, 3, 4, 5].split_at(size).0.to_vec(),
            (1..=5).skip(size),
        );
        let b: Vec<u16> = b.collect();
        world.cut(&a, &b);
        let truth = |up: &[u16], gone: &[u16]| Truth {
            up: up.to_vec(),
            leaving: Vec::new(),
            gone: gone.to_vec(),
        };
        world.run_for(Duration::from_millis(rng.below(3_000)));
        world.tell_side(&a, &truth(&a, &b));
        world.run_for(Duration::from_millis(rng.below(3_000)));
        world.tell_side(&b, &truth(&b, &a));
        world.run_for(SECOND * 15);
        let (dead, alive) = if rng.below(2) == 0 { (a, b) } else { (b, a) };
        for n in &dead {
            world.crash(*n);
        }
        world.truth = truth(&alive, &dead);
        world.heal();
        settle(world, SECOND * 20, true);
    });
}

/// S9: the number of shards of a running kind is doubled and halved, under load, while nodes join and
/// leave, the coordinator among them: nothing is lost, order is kept, no entity runs twice.
#[test]
fn another_number_of_shards_loses_nothing() {
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 6_000_000);
        start(world, 3 + rng.below(2) as u16);
        world.run_for(SECOND);
        let mut shards = SHARDS;
        for round in 0..3 {
            shards = match (rng.below(3), shards) {
                (0, 8) | (1 | 2, 1..128) => shards * 2,
                (2, _) => shards / 4,
                _ => shards / 2,
            };
            world.resize(2, shards);
            world.run_for(Duration::from_millis(rng.below(200)));
            if round == 1 {
                world.join(10);
            } else if round == 2 {
                world.leave(1);
            }
            let done = |world: &World| world.is_whole() && world.layouts() == [shards].into();
            let changed = world.run_until(world.now + SECOND * 30, done);
            assert!(
                changed,
                "{shards}: {:?} {:?}",
                world.layouts(),
                world.hosted()
            );
        }
        settle(world, SECOND * 20, false);
        assert!(world.has_left(1));
    });
}

/// S2, S9: at any step of a change of the number of shards the coordinator dies, or the node that takes the
/// step: all shards answer again, by one layout or the other, and no entity has two writers.
#[test]
fn a_crash_at_any_step_of_another_number_of_shards() {
    let steps = [
        Step::BarrierSent,
        Step::Claimed,
        Step::Ended,
        Step::LayoutSet,
        Step::MovingSeen,
        Step::Stopping,
    ];
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 7_000_000);
        start(world, 3 + rng.below(3) as u16);
        world.run_for(SECOND);
        world.loss = if seed % 3 == 0 { 20 } else { 300 };
        let on = steps[(seed % 6) as usize];
        world.trap = Some(Trap {
            on,
            skip: if on == Step::LayoutSet {
                rng.below(2)
            } else {
                rng.below(70)
            },
            victim: if seed / 6 % 2 == 0 {
                Victim::Coordinator
            } else {
                Victim::Actor
            },
        });
        let shards = if rng.below(2) == 0 {
            SHARDS * 2
        } else {
            SHARDS / 2
        };
        world.resize(3, shards);
        for _ in 0..2 {
            world.run_for(SECOND * 4);
            for dead in world.undetected() {
                world.down(dead);
            }
        }
        world.trap = None;
        world.loss = 20;
        settle(world, SECOND * 20, true);
        let layouts = world.layouts();
        let expected = [SHARDS, shards].into();
        assert!(
            layouts.is_subset(&expected) && layouts.len() == 1,
            "{layouts:?}"
        );
    });
}

/// S3, S9: both sides of a split count shards anew, each in its own way, and write on: the store accepts
/// one writer for each entity at a time.
#[test]
fn two_sides_of_a_split_may_count_shards_anew() {
    each_seed(|seed, world| {
        let mut rng = Rng::seeded(seed + 8_000_000);
        start(world, 5);
        world.run_for(SECOND);
        world.ledger.any_order = true;
        let size = 1 + rng.below(4) as u16;
        let (a, b): (Vec<u16>, Vec<u16>) = (1..=5).partition(|n| *n <= size);
        world.cut(&a, &b);
        let truth = |up: &[u16], gone: &[u16]| Truth {
            up: up.to_vec(),
            leaving: Vec::new(),
            gone: gone.to_vec(),
        };
        let sides = if rng.below(2) == 0 {
            [(&a, &b), (&b, &a)]
        } else {
            [(&b, &a), (&a, &b)]
        };
        for (side, other) in sides {
            world.run_for(Duration::from_millis(rng.below(3_000)));
            world.tell_side(side, &truth(side, other));
            world.resize(
                side[0],
                [SHARDS / 2, SHARDS * 2, SHARDS * 4][rng.below(3) as usize],
            );
        }
        world.run_for(SECOND * 15);
        let (dead, alive) = if rng.below(2) == 0 { (a, b) } else { (b, a) };
        for n in &dead {
            world.crash(*n);
        }
        world.truth = truth(&alive, &dead);
        world.heal();
        // What those wish who are left is fulfilled first, step by step.
        world.run_for(SECOND * 20);
        settle(world, SECOND * 30, true);
    });
}

/// S8: the store is slow for ten seconds while the coordinator changes; the old one wakes up.
#[test]
fn a_slow_store_holds_up_but_breaks_nothing() {
    each_seed(|_, world| {
        start(world, 3);
        world.store_delay = 10_000_000;
        world.join(4);
        world.run_for(SECOND * 2);
        world.leave(1);
        world.run_for(SECOND * 30);
        world.store_delay = 5_000;
        settle(world, SECOND * 30, false);
        assert!(world.now > Time::ZERO + SECOND * 30);
    });
}
