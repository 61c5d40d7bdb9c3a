//! Proves: one fault at a time leads to what was promised, in the time that was promised.

use crate::checkers;
use crate::script::{alarms, check, play, told};
use crate::world::{World, addr};
use otava_actor::Time;
use otava_cluster::logic::membership::End;
use otava_cluster::{ClusterEvent, Status};
use std::time::Duration;

/// C2: a node that leaves while its request to be let in is on its way leaves nobody behind.
#[test]
fn a_node_that_turns_back_at_the_door_leaves_no_ghost() {
    for millis in 0..8 {
        let mut world = World::new(7);
        play(&mut world, "start 1 2 3; wait 8; start 4");
        world.run(Duration::from_millis(millis), |_| {});
        play(&mut world, "leave 4; finish 4; wait 9");
        assert_eq!(alarms(&world), 0, "{}", world.log.join("\n"));
        assert_eq!(checkers::in_the_end(&world), Ok(()));
        assert_eq!(world.members().count(), 3);
    }
}

/// C1: all at once, seeds included; the first seed last; the first seed anew.
#[test]
fn one_cluster_however_it_starts() {
    check("start 1; wait 3", "1");
    check("start 1 2 3 4 5 6 7 8 9; wait 8", "1 2 3 4 5 6 7 8 9");
    check("start 2 3 4; wait 6; start 1; wait 6", "1 2 3 4");
    let world = check(
        "start 1 2 3 4 5; wait 8; crash 1; start 1; wait 15",
        "1 2 3 4 5",
    );
    assert!(world.ends.is_empty(), "{:?}", world.ends);
}

/// C3: a crashed node is unreachable for all within 3 seconds, and removed within 7.
#[test]
fn a_crashed_node_is_found_and_removed() {
    let mut world = World::new(1);
    play(&mut world, "start 1 2 3 4 5; wait 10");
    assert_eq!(alarms(&world), 0);
    let crashed = world.now;
    play(&mut world, "crash 5; wait 15");
    let since = |at: Option<Time>| at.unwrap().saturating_since(crashed);
    for observer in 1..=4 {
        let found = told(&world, observer, |e| {
            matches!(e, ClusterEvent::Unreachable(_))
        });
        assert!(since(found) <= Duration::from_secs(3), "{found:?}");
        let removed = told(&world, observer, |e| {
            matches!(e, ClusterEvent::MemberRemoved(_))
        });
        assert!(since(removed) <= Duration::from_secs(7), "{removed:?}");
    }
}

/// C3: who is lost while the loss of another is waited for, the leader too, costs the others nothing.
#[test]
fn one_crash_after_the_other_ends_nobody_else() {
    let begin = "start 1 2 3 4 5; wait 10; crash 5";
    for wait in 1..8 {
        check(&format!("{begin}; wait {wait}; crash 1; wait 25"), "2 3 4");
        check(&format!("{begin}; wait {wait}; crash 4; wait 25"), "1 2 3");
    }
    let nine = "start 1 2 3 4 5 6 7 8 9; wait 15; crash 9";
    for wait in [2, 4, 6] {
        let script = format!(
            "{nine}; wait {wait}; crash 8; wait {wait}; crash 1; wait {wait}; crash 2; wait 30"
        );
        check(&script, "3 4 5 6 7");
    }
}

/// C5: a leader that stood still for a moment while a decision was due decides later, and that is all.
#[test]
fn a_leader_that_stands_still_while_it_should_decide_ends_nobody() {
    let begin = "start 1 2 3 4 5; wait 10; crash 5";
    for wait in 2..8 {
        let script = format!("{begin}; wait {wait}; pause 1; wait 2; resume 1; wait 20");
        check(&script, "1 2 3 4");
    }
}

/// C3: half of the cluster at once, the oldest among them, is a tie: the lowest address goes on.
#[test]
fn crashes_of_many() {
    check(
        "start 1 2 3 4 5 6 7; wait 10; crash 1 2 3; wait 25",
        "4 5 6 7",
    );
    check("start 1 2 3 4 5 6; wait 10; crash 4 5 6; wait 25", "1 2 3");
    check("start 1 2 3 4 5 6; wait 10; crash 1 2 3; wait 25", "");
}

/// C2: leaving, exiting and removed are told once, nobody is unreachable, gone in 5 seconds.
#[test]
fn a_leave_is_no_fault() {
    for leaver in 1..=3 {
        let script =
            format!("start 1 2 3 4; wait 10; leave {leaver}; wait 1; finish {leaver}; wait 4");
        let rest: Vec<String> = (1..=4)
            .filter(|n| *n != leaver)
            .map(|n: u16| n.to_string())
            .collect();
        let world = check(&script, &rest.join(" "));
        assert_eq!(alarms(&world), 0);
        assert!(matches!(world.ends[..], [(_, End::Left)]));
        let steps = |is: fn(&ClusterEvent) -> bool| told(&world, 4, is).is_some();
        assert!(steps(|e| matches!(e, ClusterEvent::MemberLeaving(_))));
        assert!(steps(|e| matches!(e, ClusterEvent::MemberExiting(_))));
        assert!(steps(|e| matches!(e, ClusterEvent::MemberRemoved(_))));
    }
}

/// C2: of three at once, and of all.
#[test]
fn many_may_leave_at_once() {
    let script = "start 1 2 3 4 5; wait 10; leave 1 2 3; finish 1 2 3; wait 6";
    assert_eq!(check(script, "4 5").ends.len(), 3);
    let script = "start 1 2 3 4 5; wait 10; leave 1 2 3 4 5; finish 1 2 3 4 5; wait 10";
    let world = check(script, "");
    let left = world.ends.iter().filter(|(_, end)| *end == End::Left);
    assert_eq!(left.count(), 5, "{:?}", world.ends);
}

#[test]
fn a_clean_split_leaves_the_larger_side() {
    let start = "start 1 2 3 4 5; wait 10";
    check(
        &format!("{start}; split 1 2|3 4 5; wait 20; heal; wait 5"),
        "3 4 5",
    );
    check(
        &format!("{start}; split 1 2 3|4 5; wait 20; heal; wait 5"),
        "1 2 3",
    );
    check(
        &format!("{start}; split 1 2|3 4|5; wait 30; heal; wait 5"),
        "",
    );
    let world = check(
        &format!("{start}; split 1 2|3 4 5; wait 2; heal; wait 20"),
        "1 2 3 4 5",
    );
    assert_eq!(alarms(&world), 0);
}

#[test]
fn a_larger_cluster_splits_cleanly_too() {
    let all: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    let (low, high) = (all[..9].join(" "), all[9..].join(" "));
    let script = format!(
        "start {}; wait 20; split {low}|{high}; wait 40; heal; wait 5",
        all.join(" ")
    );
    check(&script, &high);
}

/// C4: two that do not see each other while the third sees both go, the third stays.
#[test]
fn the_indirectly_connected_go() {
    let start = "start 1 2 3 4 5; wait 10";
    check(
        &format!("{start}; split 1|2; wait 25; heal; wait 5"),
        "3 4 5",
    );
    check(&format!("{start}; cut 1 2; wait 25; heal; wait 5"), "3 4 5");
}

/// C4: loss and delay alone put nobody out.
#[test]
fn loss_and_delay_are_no_fault() {
    let start = "start 1 2 3 4 5; wait 10";
    check(
        &format!("{start}; disturb 0 150 250; wait 120"),
        "1 2 3 4 5",
    );
    check(
        &format!("{start}; disturb 20 1 10; wait 120; heal; wait 5"),
        "1 2 3 4 5",
    );
}

/// C5: a pause of 2 seconds raises no alarm; after one of 60 the node learns that it is out.
#[test]
fn a_paused_node_is_forgiven_or_ends() {
    let start = "start 1 2 3 4 5; wait 10";
    let world = check(
        &format!("{start}; pause 2; wait 2; resume 2; wait 10"),
        "1 2 3 4 5",
    );
    assert_eq!(alarms(&world), 0);
    let world = check(
        &format!("{start}; pause 2; wait 60; resume 2; wait 5"),
        "1 3 4 5",
    );
    assert!(matches!(world.ends[..], [(_, End::Downed)]));
    let blamed = world.ends[0].0.addr;
    assert_eq!(blamed, addr(2));
}

/// C5: where the whole machine stood still, nobody blames anybody.
#[test]
fn a_machine_that_stood_still_raises_no_alarm() {
    let all = "1 2 3 4 5";
    let script = format!("start {all}; wait 10; pause {all}; wait 30; resume {all}; wait 10");
    assert_eq!(alarms(&check(&script, all)), 0);
}

/// C7: three quick restarts at one address; before the node was up, too.
#[test]
fn restarts_at_one_address_never_meet() {
    let start = "start 1 2 3 4; wait 10";
    check(
        &format!("{start}; start 4; wait 3; start 4; wait 3; start 4; wait 15"),
        "1 2 3 4",
    );
    check(
        "start 1 2 3; wait 8; start 4; wait 1; start 4; wait 1; start 4; wait 15",
        "1 2 3 4",
    );
    let world = check(&format!("{start}; crash 3; start 3; wait 15"), "1 2 3 4");
    assert!(world.ends.is_empty());
}

/// Convergence: nobody becomes up while somebody is unreachable.
#[test]
fn nobody_becomes_up_while_one_is_unreachable() {
    let mut world = World::new(3);
    play(
        &mut world,
        "start 1 2 3 4 5; wait 10; crash 5; wait 3; start 6; wait 1",
    );
    let state = world.node(1).unwrap().membership.state();
    assert!(!state.unreachable.is_empty());
    let six = state.members.values().find(|m| m.id.addr == addr(6));
    assert_eq!(six.map(|member| member.status), Some(Status::Joining));
    play(&mut world, "wait 15");
    let state = world.node(1).unwrap().membership.state();
    assert_eq!(state.up().count(), 5);
}

/// C8: after many have come and gone the view is as small as at first.
#[test]
fn tombstones_are_forgotten() {
    let mut world = World::new(5);
    play(&mut world, "start 1 2 3; wait 8");
    for _ in 0..5 {
        play(
            &mut world,
            "start 4 5 6 7 8 9; wait 5; leave 4 5 6 7 8 9; finish 4 5 6 7 8 9; wait 8",
        );
    }
    play(&mut world, "wait 60");
    assert_eq!(world.members().count(), 3);
    for node in world.members() {
        assert_eq!(node.membership.view_len(), 3, "{}", node.id);
    }
}
