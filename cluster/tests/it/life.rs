//! Proves: how members become up, who is let in when, and that clusters never mix.

use crate::script::{alarms, check_world, play, told};
use crate::world::{World, addr};
use otava_cluster::logic::convergence::Minimum;
use otava_cluster::logic::knocking::Founder;
use otava_cluster::logic::membership::{End, Input};
use otava_cluster::{AppVersion, ClusterEvent, Status, Strategy};
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

fn addrs(numbers: &[u16]) -> Vec<SocketAddr> {
    numbers.iter().map(|number| addr(*number)).collect()
}

/// What `observer` holds the node `subject` to be.
fn status(world: &World, observer: u16, subject: u16) -> Option<Status> {
    let state = world.node(observer)?.membership.state();
    let found = state
        .members
        .into_values()
        .find(|m| m.id.addr == addr(subject));
    found.map(|member| member.status)
}

/// How many clusters there are.
fn clusters(world: &World) -> usize {
    let clusters = world.members().map(|node| node.membership.cluster());
    clusters.collect::<BTreeSet<u64>>().len()
}

#[test]
fn nobody_is_up_before_there_are_enough() {
    let mut world = World::new(7);
    world.minimum.members = 3;
    play(&mut world, "start 1 2; wait 15");
    assert_eq!(status(&world, 2, 1), Some(Status::Joining));
    assert_eq!(world.node(1).unwrap().membership.state().members.len(), 2);
    play(&mut world, "start 3; wait 5");
    check_world(&world, "three", "1 2 3");
    let of_role = BTreeMap::from([("db".to_owned(), 1)]);
    let mut world = World::new(7);
    world.minimum = Minimum {
        members: 1,
        of_role,
    };
    play(&mut world, "start 1 2; wait 15");
    assert_eq!(status(&world, 2, 1), Some(Status::Joining));
    world.role = Some("db".into());
    play(&mut world, "start 3; wait 5");
    check_world(&world, "one of db", "1 2 3");
    assert_eq!(alarms(&world), 0);
}

/// Who crashes before anybody was up keeps nobody waiting: it comes back at its address, or all
/// start anew, since nobody can tell who goes on.
#[test]
fn a_crash_before_there_are_enough() {
    let mut world = World::new(7);
    world.minimum.members = 4;
    play(
        &mut world,
        "start 1 2 3; wait 5; start 3; wait 3; start 4; wait 8",
    );
    check_world(&world, "a restart", "1 2 3 4");
    let mut world = World::new(7);
    world.minimum.members = 4;
    play(&mut world, "start 1 2 3; wait 5; crash 3; wait 20");
    let downed = world.ends.iter().filter(|(_, end)| *end == End::Downed);
    assert_eq!(
        (downed.count(), world.members().count()),
        (2, 0),
        "{:?}",
        world.ends
    );
}

/// Two sides of a split before anybody was up never both go on.
#[test]
fn a_split_before_there_are_enough() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.minimum.members = 5;
        play(&mut world, "start 1 2 3 4; wait 6");
        world.start(5);
        world.run(Duration::from_millis(seed * 150), |_| {});
        play(&mut world, "split 1 2|3 4 5; wait 25");
        assert!(clusters(&world) <= 1, "seed {seed}");
        let sides = [[1, 2].as_slice(), &[3, 4, 5]].map(|side| {
            side.iter().any(|n| {
                world
                    .node(*n)
                    .is_some_and(|node| node.ended.is_none() && node.membership.cluster() != 0)
            })
        });
        assert!(
            sides != [true, true],
            "seed {seed}: both sides go on\n{}",
            world.log.join("\n")
        );
    }
}

/// Joining members can be used while somebody is unreachable for long, and become up afterwards.
#[test]
fn members_are_weakly_up_while_one_is_unreachable() {
    let mut world = World::new(3);
    world.rule = Strategy::Manual.into();
    play(
        &mut world,
        "start 1 2 3 4; wait 10; crash 4; wait 6; start 5; wait 1",
    );
    assert_eq!(status(&world, 2, 5), Some(Status::Joining));
    play(&mut world, "wait 8");
    for observer in [1, 2, 3, 5] {
        assert_eq!(
            status(&world, observer, 5),
            Some(Status::WeaklyUp),
            "{observer}"
        );
    }
    let weak = |event: &ClusterEvent| matches!(event, ClusterEvent::MemberWeaklyUp(_));
    assert!(told(&world, 3, weak).is_some());
    let four = world.node(1).unwrap().membership.state();
    let four: Option<NodeId> = four.unreachable.first().cloned();
    world.input(1, Input::Down(four.unwrap()));
    play(&mut world, "wait 5");
    check_world(&world, "the lost one is out", "1 2 3 5");
    // By choice there is no such state.
    let mut world = World::new(3);
    world.rule = Strategy::Manual.into();
    world.weakly_up_after = None;
    play(
        &mut world,
        "start 1 2 3 4; wait 10; crash 4; wait 6; start 5; wait 30",
    );
    assert_eq!(status(&world, 2, 5), Some(Status::Joining));
}

/// A weakly up member has no say in who goes on: the larger side of the full members does.
#[test]
fn weakly_up_members_do_not_decide_a_split() {
    let mut world = World::new(3);
    world.rule = Strategy::Manual.into();
    play(
        &mut world,
        "start 1 2 3 4; wait 10; crash 4; wait 6; start 5 6 7; wait 12",
    );
    assert_eq!(status(&world, 1, 7), Some(Status::WeaklyUp));
    play(&mut world, "split 1 2|3 5 6 7; wait 12");
    let state = world.node(5).unwrap().membership.state();
    assert_eq!(state.leader.map(|leader| leader.addr), Some(addr(3)));
}

/// C2: a cluster that is about to be stopped lets nobody in, all are told, and all can leave.
#[test]
fn a_cluster_prepares_for_its_end() {
    let mut world = World::new(7);
    play(&mut world, "start 1 2 3; wait 8");
    world.input(2, Input::PrepareShutdown);
    play(&mut world, "wait 2");
    for number in 1..=3 {
        let node = world.node(number).unwrap();
        assert!(node.membership.state().preparing_for_shutdown, "{number}");
        let told = node
            .events
            .iter()
            .filter(|(_, e)| *e == ClusterEvent::PreparingForShutdown);
        assert_eq!(told.count(), 1, "{number}");
    }
    play(&mut world, "start 4; wait 20");
    assert_eq!(world.node(4).unwrap().membership.cluster(), 0);
    assert_eq!(world.node(1).unwrap().membership.state().members.len(), 3);
    play(&mut world, "leave 1 2 3; finish 1 2 3; wait 10");
    let left = world.ends.iter().filter(|(_, end)| *end == End::Left);
    assert_eq!(left.count(), 3, "{:?}", world.ends);
    // Who was kept out finds a cluster that begins anew.
    play(&mut world, "start 1; wait 8");
    check_world(&world, "anew", "1 4");
}

/// C1: the only seed, started again after all others have forgotten it, joins them.
#[test]
fn a_lone_seed_that_is_started_again_joins_the_cluster_that_lives() {
    for gone in [
        "crash 1; start 1",
        "crash 1; wait 4; start 1",
        "crash 1; wait 90; start 1",
    ] {
        let mut world = World::new(7);
        world.seeds = addrs(&[1]);
        play(
            &mut world,
            &format!("start 1 2 3 4; wait 8; {gone}; wait 15"),
        );
        check_world(&world, gone, "1 2 3 4");
        assert!(world.ends.is_empty(), "{:?}", world.ends);
    }
}

/// C11: two formed clusters do not merge, though their lists overlap; both are told of the other.
#[test]
fn two_formed_clusters_never_merge() {
    let mut world = World::new(7);
    for number in [1, 2, 3] {
        world.seeds_of.insert(number, addrs(&[1, 11]));
    }
    for number in [11, 12, 13] {
        world.seeds_of.insert(number, addrs(&[11, 1]));
    }
    // Each is formed while it cannot reach the other.
    play(
        &mut world,
        "split 1 2 3|11 12 13; start 1 2 3 11 12 13; wait 10; heal; wait 60",
    );
    assert_eq!((world.members().count(), clusters(&world)), (6, 2));
    let met = |event: &ClusterEvent| matches!(event, ClusterEvent::OtherClusterMet(_));
    assert!(told(&world, 1, met).is_some() && told(&world, 11, met).is_some());
    assert_eq!(alarms(&world), 0);
    for number in [1, 2, 3, 11, 12, 13] {
        let state = world.node(number).unwrap().membership.state();
        assert!(
            state.converged && state.members.len() == 3,
            "{number}: {state:?}"
        );
    }
}

/// C11: a node that asks both is in one of them, and the other forgets it at once.
#[test]
fn a_node_that_asks_two_clusters_is_in_one() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for number in [1, 2, 3] {
            world.seeds_of.insert(number, addrs(&[1]));
        }
        for number in [11, 12, 13] {
            world.seeds_of.insert(number, addrs(&[11]));
        }
        world.seeds_of.insert(21, addrs(&[1, 11]));
        play(&mut world, "start 1 2 3 11 12 13; wait 8; start 21; wait 8");
        assert_eq!((world.members().count(), clusters(&world)), (7, 2));
        let sizes = [1, 11].map(|n| world.node(n).unwrap().membership.state().members.len());
        assert_eq!(sizes.iter().sum::<usize>(), 7, "seed {seed}: {sizes:?}");
        assert_eq!(status(&world, 21, 21), Some(Status::Up), "seed {seed}");
        assert_eq!(alarms(&world), 0, "seed {seed}");
    }
}

fn finding(contacts_min: usize) -> Founder {
    Founder::Lowest {
        contacts_min,
        stable_for: Duration::from_secs(5),
    }
}

/// C1: without a fixed first seed: one cluster in whatever order they start, none before all that
/// were found have answered.
#[test]
fn the_lowest_that_was_found_forms_the_cluster() {
    for script in [
        "start 1 2 3 4 5; wait 15",
        "start 5 4 3 2; wait 20; start 1; wait 15",
        "start 1; wait 20; start 2 3; wait 9; start 5 4; wait 15",
        "disturb 20 1 200; start 1 2 3 4 5; wait 60; heal; wait 5",
    ] {
        let mut world = World::new(7);
        world.founder = finding(3);
        world.seeds = addrs(&[5, 3, 1, 2, 4]);
        play(&mut world, script);
        check_world(&world, script, "1 2 3 4 5");
    }
    let mut world = World::new(7);
    world.founder = finding(2);
    world.seeds = addrs(&[1, 2, 3]);
    play(&mut world, "start 1 2; wait 60");
    assert_eq!(clusters(&world), 0, "3 was found and has not answered");
}

/// C1: those that find different things form one cluster all the same, or none, as long as what
/// they find overlaps.
#[test]
fn who_finds_less_than_the_others_does_not_split_them() {
    let mut world = World::new(7);
    world.founder = finding(2);
    world.seeds = addrs(&[1, 2, 3, 4]);
    // 2 does not find 1, and so holds itself for the lowest.
    world.seeds_of.insert(2, addrs(&[2, 3, 4]));
    play(&mut world, "start 1 2 3 4; wait 30");
    assert_eq!(clusters(&world), 0);
    // What it finds is complete some time later.
    world.input(2, Input::Found(addrs(&[1, 2, 3, 4])));
    play(&mut world, "wait 15");
    check_world(&world, "complete", "1 2 3 4");
    // The lowest, started again, joins those who live.
    play(&mut world, "crash 1; wait 30; start 1; wait 15");
    check_world(&world, "the lowest again", "1 2 3 4");
}

/// C7: a node that is started again quickly with another role: one entry, and the new role.
#[test]
fn a_quick_restart_brings_the_new_role() {
    let mut world = World::new(7);
    play(&mut world, "start 1 2 3 4; wait 10");
    world.role = Some("db".into());
    play(&mut world, "start 4; wait 1; start 4; wait 15");
    check_world(&world, "restarts", "1 2 3 4");
    for number in 1..=4 {
        let state = world.node(number).unwrap().membership.state();
        let with_role: Vec<_> = state.up_with_role("db").map(|m| m.id.addr).collect();
        assert_eq!(with_role, [addr(4)], "{number}");
    }
}

/// C4: who cannot reach whom can be seen by all, in one direction and for one pair.
#[test]
fn one_way_and_partial_reachability_are_seen_by_all() {
    let mut world = World::new(7);
    world.rule = Strategy::Manual.into();
    play(&mut world, "start 1 2 3 4; wait 10; cut 1 2; wait 10");
    for number in 1..=4 {
        let state = world.node(number).unwrap().membership.state();
        // Pings of 1 do not arrive at 2, and answers of 1 to 2 do not: both say so of each other.
        let said: Vec<(SocketAddr, Vec<SocketAddr>)> = state
            .cannot_reach
            .iter()
            .map(|(observer, subjects)| (observer.addr, subjects.iter().map(|s| s.addr).collect()))
            .collect();
        assert_eq!(
            said,
            [(addr(1), vec![addr(2)]), (addr(2), vec![addr(1)])],
            "{number}"
        );
        let two = state
            .unreachable
            .iter()
            .find(|n| n.addr == addr(2))
            .or(state.unreachable.first());
        assert_eq!(
            state.observers_of(two.unwrap()).count(),
            1,
            "3 and 4 reach it"
        );
    }
}

/// C6: wrong wall clocks change nothing: only runs that were let in at one address without knowing of
/// each other are told apart by them.
#[test]
fn wall_clocks_do_not_matter() {
    const HOUR: i64 = 3_600_000;
    let mut world = World::new(7);
    play(&mut world, "start 1 2");
    world.clock_skew_millis = HOUR;
    play(&mut world, "start 3; wait 8");
    for skew in [-2 * HOUR, HOUR, -4 * HOUR] {
        world.clock_skew_millis = skew;
        play(&mut world, "start 4; wait 10");
        check_world(&world, "a restart with another clock", "1 2 3 4");
    }
    assert!(world.ends.is_empty(), "{:?}", world.ends);
}

/// C9: a rolling update, one node at a time, and back: no alarm, and all see whether versions are mixed.
#[test]
fn a_rolling_update() {
    let mut world = World::new(7);
    let version = |text| AppVersion::new(text).unwrap();
    world.app_version = version("1.9.0");
    play(&mut world, "start 1 2 3 4 5; wait 10");
    for to in ["1.10.0", "1.9.0"] {
        for number in (1..=5).rev() {
            play(
                &mut world,
                &format!("leave {number}; wait 1; finish {number}; wait 4"),
            );
            world.app_version = version(to);
            play(&mut world, &format!("start {number}; wait 6"));
            check_world(&world, to, "1 2 3 4 5");
            let versions = world.node(3).unwrap().membership.state().app_versions();
            assert_eq!(versions.len() > 1, number > 1, "{number}: {versions:?}");
        }
    }
    assert_eq!(alarms(&world), 0);
    assert!(world.ends.iter().all(|(_, end)| *end == End::Left));
}

/// C10: all are killed and started again: one cluster within 15 seconds.
#[test]
fn a_cluster_that_was_killed_as_a_whole_forms_again() {
    let all = "1 2 3 4 5 6 7";
    for start in ["start 1 2 3 4 5 6 7", "start 7 6 5 4 3 2; wait 5; start 1"] {
        let mut world = World::new(7);
        play(
            &mut world,
            &format!("start {all}; wait 10; crash {all}; wait 3; {start}; wait 10"),
        );
        check_world(&world, start, all);
    }
}
