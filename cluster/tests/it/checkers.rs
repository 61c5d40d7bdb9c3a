//! Checkers: what must hold of a world of memberships, at every moment and after the last fault.

use crate::world::World;
use otava_cluster::{ClusterEvent, Status};
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Holds at every moment.
pub(crate) fn always(world: &World) -> Result<(), String> {
    one_leader_per_converged_view(world)?;
    for node in world.members() {
        let state = node.membership.state();
        let mut addrs = BTreeSet::new();
        for member in state.members.values().filter(|m| m.status < Status::Down) {
            if !addrs.insert(member.id.addr) {
                return Err(format!("{} sees two runs at {}", node.id, member.id.addr));
            }
        }
    }
    Ok(())
}

fn one_leader_per_converged_view(world: &World) -> Result<(), String> {
    let mut leaders: BTreeMap<String, Option<NodeId>> = BTreeMap::new();
    for node in world.members() {
        let state = node.membership.state();
        if !state.converged || !state.unreachable.is_empty() {
            continue;
        }
        let key = format!("{} {:?}", node.membership.cluster(), state.members);
        let others = leaders.entry(key).or_insert_with(|| state.leader.clone());
        if *others != state.leader {
            return Err(format!("{others:?} and {:?} lead one view", state.leader));
        }
    }
    Ok(())
}

/// Nobody who was out is a member again.
fn nobody_comes_back<'a>(
    observer: &NodeId,
    events: impl Iterator<Item = &'a ClusterEvent>,
) -> Result<(), String> {
    let mut out = BTreeSet::new();
    let mut told = BTreeSet::new();
    for event in events {
        match event {
            ClusterEvent::MemberDowned(node) | ClusterEvent::MemberRemoved(node) => {
                out.insert(node);
            }
            ClusterEvent::MemberJoined(node) | ClusterEvent::MemberUp(node)
                if out.contains(node) =>
            {
                return Err(format!("{observer} sees {node} come back"));
            }
            _ => {}
        }
        let step = !matches!(
            event,
            ClusterEvent::LeaderChanged(_)
                | ClusterEvent::Unreachable(_)
                | ClusterEvent::ReachableAgain(_)
        );
        if step && !told.insert(format!("{event:?}")) {
            return Err(format!("{observer} is told {event:?} twice"));
        }
    }
    Ok(())
}

/// Holds some time after the last fault: all that are still members are members of each other, in
/// one cluster, and agree.
pub(crate) fn in_the_end(world: &World) -> Result<(), String> {
    for node in world.nodes.values() {
        nobody_comes_back(&node.id, node.events.iter().map(|(_, event)| event))?;
    }
    let mut first: Option<(u64, BTreeMap<NodeId, Status>)> = None;
    for node in world.members() {
        let state = node.membership.state();
        let view: BTreeMap<NodeId, Status> = state
            .members
            .values()
            .map(|member| (member.id.clone(), member.status))
            .collect();
        let mine = (node.membership.cluster(), view);
        if !state.converged || !state.unreachable.is_empty() {
            return Err(format!("{} has not converged: {state:?}", node.id));
        }
        match &first {
            None => first = Some(mine),
            Some(other) if *other != mine => {
                return Err(format!("two views go on: {other:?} and {mine:?}"));
            }
            Some(_) => {}
        }
    }
    let Some((_, view)) = first else {
        return Ok(());
    };
    let running: BTreeSet<NodeId> = world.members().map(|node| node.id.clone()).collect();
    let listed: BTreeSet<NodeId> = view.keys().cloned().collect();
    if running != listed {
        return Err(format!("{running:?} run but {listed:?} are listed"));
    }
    Ok(())
}
