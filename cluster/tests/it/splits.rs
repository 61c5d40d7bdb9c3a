//! Proves: each strategy of downing in the virtual network, with nodes that die, split and flap.

use crate::script::{check_world, play};
use crate::world::World;
use otava_cluster::Strategy;
use otava_cluster::logic::downing::Rule;

/// After `script` under `rule` exactly the nodes `survivors` are up, and agree on it.
fn check(rule: impl Into<Rule>, script: &str, survivors: &str) {
    let mut world = World::new(7);
    world.rule = rule.into();
    let title = format!("{}: {script}", world.rule);
    play(&mut world, script);
    check_world(&world, &title, survivors);
}

const FIVE: &str =
    "start 1; wait 1; start 2; wait 1; start 3; wait 1; start 4; wait 1; start 5; wait 8";

/// C3, C4: which nodes are left when two of five die, when they are cut off, and when one pair is.
#[test]
fn who_is_left_under_each_strategy() {
    for (strategy, crash, split, pair) in [
        (Strategy::KeepMajority, "3 4 5", "3 4 5", "3 4 5"),
        // The oldest is 1, on the side of two.
        (Strategy::KeepOldest, "", "1 2", "3 4 5"),
        (Strategy::StaticQuorum(3), "3 4 5", "3 4 5", "3 4 5"),
        (Strategy::StaticQuorum(4), "", "", "3 4 5"),
        (Strategy::StaticQuorum(2), "", "", ""),
        (Strategy::DownAll, "", "", ""),
        (Strategy::LeaseMajority, "3 4 5", "3 4 5", "3 4 5"),
    ] {
        check(strategy, &format!("{FIVE}; crash 1 2; wait 25"), crash);
        check(
            strategy,
            &format!("{FIVE}; split 1 2|3 4 5; wait 25; heal; wait 5"),
            split,
        );
        check(
            strategy,
            &format!("{FIVE}; cut 1 2; wait 25; heal; wait 5"),
            pair,
        );
    }
}

/// C3: the oldest that is alone gives way, unless it was chosen otherwise.
#[test]
fn an_oldest_that_is_alone() {
    let oldest = || Rule::from(Strategy::KeepOldest);
    let alone = |down_if_alone| Rule {
        down_if_alone,
        ..oldest()
    };
    check(alone(true), &format!("{FIVE}; crash 1; wait 25"), "2 3 4 5");
    check(
        alone(true),
        &format!("{FIVE}; split 1|2 3 4 5; wait 25; heal; wait 5"),
        "2 3 4 5",
    );
    check(
        alone(false),
        &format!("{FIVE}; split 1|2 3 4 5; wait 25; heal; wait 5"),
        "1",
    );
    check(alone(false), &format!("{FIVE}; crash 1; wait 25"), "");
}

/// Only the members with the role are counted; the others go with their side.
#[test]
fn the_side_with_more_of_the_role_goes_on() {
    let mut world = World::new(7);
    world.rule = Rule {
        role: Some("db".into()),
        ..Strategy::KeepMajority.into()
    };
    world.role = Some("db".into());
    play(&mut world, "start 1 2; wait 4");
    world.role = None;
    play(
        &mut world,
        "start 3 4 5; wait 8; split 1 2|3 4 5; wait 25; heal; wait 5",
    );
    check_world(&world, "two of db", "1 2");
}

/// The smaller side waits, so the larger one gets the lease; if that is dead, the smaller one gets it.
/// A store that gives no answer lets nobody go on.
#[test]
fn the_lease_goes_to_the_larger_side_that_lives() {
    let lease = Strategy::LeaseMajority;
    check(lease, &format!("{FIVE}; split 1 2|3 4 5; wait 25"), "3 4 5");
    check(lease, &format!("{FIVE}; crash 1 2 3; wait 25"), "4 5");
    check(
        lease,
        &format!("{FIVE}; split 1 2|3 4|5; wait 30; heal; wait 5"),
        "1 2",
    );
    let mut world = World::new(7);
    world.rule = lease.into();
    world.leases_answer = false;
    play(&mut world, &format!("{FIVE}; crash 5; wait 40"));
    check_world(&world, "no answer", "");
}

/// C4: links that flap while one node is dead: all go down when it was unstable for too long and not
/// before. By choice nobody does for that reason, and the dead one goes when the rest holds still.
#[test]
fn flapping_links() {
    // Two nodes in turns, 4 s away and 2 s back: something changes every one or two seconds.
    let to_4 = "split 4|1 2; wait 1; heal; split 4|1 2; wait 2";
    let to_3 = "split 3|1 2; wait 1; heal; split 3|1 2; wait 2";
    let flap = format!("crash 5; split 3|1 2; wait 3; {to_4}; {to_3}; {to_4}");
    let mut world = World::new(7);
    play(&mut world, &format!("{FIVE}; {flap}"));
    assert!(world.ends.is_empty(), "too early: {}", world.log.join("\n"));
    play(&mut world, &format!("{to_3}; heal; wait 10"));
    check_world(&world, "unstable", "");
    let mut world = World::new(7);
    world.down_all_when_unstable = false;
    play(&mut world, &format!("{FIVE}; {flap}; heal; wait 1"));
    assert!(world.ends.is_empty(), "too early: {}", world.log.join("\n"));
    play(&mut world, "wait 15");
    check_world(&world, "unstable, but nobody minds", "1 2 3 4");
}
