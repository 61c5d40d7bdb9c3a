//! Checkers: what must hold of a world of memberships, at every moment and after the last fault.

use crate::world::{Node, World};
use otava_cluster::logic::view::View;
use otava_cluster::{ClusterEvent, Status};
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Holds at every moment.
pub(crate) fn always(world: &World) -> Result<(), String> {
    one_leader_per_converged_view(world)?;
    for node in world.members() {
        one_run_an_address(node)?;
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

/// What one observer was told: nobody who was out is a member again, and no step is told twice.
#[derive(Default)]
struct Story {
    heard: usize,
    out: BTreeSet<NodeId>,
    told: BTreeSet<String>,
}

impl Story {
    /// Listens to what it has not heard of all that the observer was told.
    fn hear(&mut self, node: &Node) -> Result<(), String> {
        let observer = &node.id;
        for (_, event) in &node.events[self.heard..] {
            match event {
                ClusterEvent::MemberDowned(node) | ClusterEvent::MemberRemoved(node) => {
                    self.out.insert(node.clone());
                }
                ClusterEvent::MemberJoined(node) | ClusterEvent::MemberUp(node)
                    if self.out.contains(node) =>
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
            if step && !self.told.insert(format!("{event:?}")) {
                return Err(format!("{observer} is told {event:?} twice"));
            }
        }
        self.heard = node.events.len();
        Ok(())
    }
}

/// C12, at every step: looks at the nodes that have changed since it looked last.
#[derive(Default)]
pub(crate) struct Watch {
    seen: BTreeMap<NodeId, (u64, Story)>,
}

impl Watch {
    pub(crate) fn look(&mut self, world: &World) -> Result<(), String> {
        self.seen
            .retain(|id, _| world.nodes.get(&id.addr).is_some_and(|node| node.id == *id));
        for node in world.nodes.values() {
            let (changes, story) = self.seen.entry(node.id.clone()).or_default();
            if *changes == node.changes {
                continue;
            }
            *changes = node.changes;
            story.hear(node)?;
            if node.ended.is_none() && node.membership.cluster() != 0 {
                one_run_an_address(node)?;
                beside_the_others(world, node)?;
            }
        }
        Ok(())
    }
}

fn one_run_an_address(node: &Node) -> Result<(), String> {
    let mut addrs = BTreeSet::new();
    for (member, _) in node.membership.view().live() {
        if !addrs.insert(member.addr) {
            return Err(format!("{} sees two runs at {}", node.id, member.addr));
        }
    }
    Ok(())
}

/// Sure of itself: all agree, and nobody is unreachable.
fn is_sure(node: &Node) -> bool {
    node.membership.is_converged() && node.membership.unreachable().is_empty()
}

/// Two that are sure are in one cluster, do not hold each other out, and have one leader if they see the
/// same.
fn beside_the_others(world: &World, node: &Node) -> Result<(), String> {
    if !is_sure(node) {
        return Ok(());
    }
    let mine = &node.membership;
    for other in world
        .members()
        .filter(|other| other.id != node.id && is_sure(other))
    {
        let theirs = &other.membership;
        let apart = mine.cluster() != theirs.cluster()
            || (!mine.view().is_live(&other.id) && !theirs.view().is_live(&node.id));
        if apart {
            return Err(format!("{} and {} go on apart", node.id, other.id));
        }
        let live = |view: &View| {
            view.live()
                .map(|(id, s)| (id.clone(), s))
                .collect::<Vec<_>>()
        };
        if mine.leader() != theirs.leader() && live(mine.view()) == live(theirs.view()) {
            return Err(format!(
                "{} and {} have two leaders of one view",
                node.id, other.id
            ));
        }
    }
    Ok(())
}

/// Holds some time after the last fault: all that are still members are members of each other, in
/// one cluster, and agree.
pub(crate) fn in_the_end(world: &World) -> Result<(), String> {
    for node in world.nodes.values() {
        Story::default().hear(node)?;
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
