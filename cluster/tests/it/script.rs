//! Script: a short language for what happens to a world, and what must be so after it.

use crate::checkers;
use crate::world::{World, addr};
use otava_actor::Time;
use otava_cluster::ClusterEvent;
use otava_cluster::logic::membership::Input;
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) fn numbers(text: &str) -> Vec<u16> {
    text.split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect()
}

/// Runs a script, operations separated by `;`: `start 1 2 3`, `wait 10` (seconds), `crash 1`,
/// `leave 1`, `split 1 2|3 4 5`, `cut 1 2` (from, to), `heal`, `pause 1`, `resume 1`,
/// `disturb 20 150 250` (percent lost, milliseconds of delay).
pub(crate) fn play(world: &mut World, script: &str) {
    for op in script.split(';').map(str::trim) {
        let (verb, rest) = op.split_once(' ').unwrap_or((op, ""));
        let groups: Vec<Vec<u16>> = rest.split('|').map(numbers).collect();
        let all: Vec<u16> = groups.concat();
        match verb {
            "start" => all.iter().for_each(|n| world.start(*n)),
            "wait" => world.run(Duration::from_secs(all[0].into()), |world| {
                if let Err(broken) = checkers::always(world) {
                    panic!("{broken}\n{}", world.log.join("\n"));
                }
            }),
            "crash" => all.iter().for_each(|n| world.crash(*n)),
            "leave" => all.iter().for_each(|n| world.input(*n, Input::Leave)),
            "finish" => all.iter().for_each(|n| world.input(*n, Input::FinishLeave)),
            "pause" => all.iter().for_each(|n| world.pause(*n, true)),
            "resume" => all.iter().for_each(|n| world.pause(*n, false)),
            "split" => world.split(&groups),
            "cut" => world.cut(all[0], all[1]),
            "heal" => world.heal(),
            "disturb" => world.disturb(all[0].into(), (all[1].into(), all[2].into())),
            _ => panic!("no such operation: {op}"),
        }
    }
}

/// After the script exactly the nodes `survivors` are up, and agree on it.
pub(crate) fn check(script: &str, survivors: &str) -> World {
    let mut world = World::new(7);
    play(&mut world, script);
    check_world(&world, script, survivors);
    world
}

/// Exactly the nodes `survivors` are up after the script, and agree on it.
pub(crate) fn check_world(world: &World, script: &str, survivors: &str) {
    let expected: BTreeSet<_> = numbers(survivors).into_iter().map(addr).collect();
    let log = world.log.join("\n");
    let running: BTreeSet<_> = world.members().map(|node| node.id.addr).collect();
    assert_eq!(running, expected, "{script}\n{log}");
    assert_eq!(checkers::in_the_end(world), Ok(()), "{script}\n{log}");
    for node in world.members() {
        let state = node.membership.state();
        assert_eq!(state.up().count(), expected.len(), "{state:?}\n{log}");
    }
}

pub(crate) fn alarms(world: &World) -> usize {
    let events = world.nodes.values().flat_map(|node| &node.events);
    events
        .filter(|(_, event)| matches!(event, ClusterEvent::Unreachable(_)))
        .count()
}

/// When the node `observer` was first told something that `is` about the address of `subject`.
pub(crate) fn told(
    world: &World,
    observer: u16,
    is: impl Fn(&ClusterEvent) -> bool,
) -> Option<Time> {
    let node = world.node(observer)?;
    let found = node.events.iter().find(|(_, event)| is(event));
    found.map(|(at, _)| *at)
}
