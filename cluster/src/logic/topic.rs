//! Plan: which nodes get a message of a topic, and for whom there. Pure.
//!
//! A node that has subscribers is known by its base, to which everything for that node is sent, so
//! that it comes in order; by its having plain subscribers; and by the groups of which it has members.

use otava_remote::NodeId;
use std::collections::BTreeMap;

/// Says where a node is reached.
pub const BASE: u64 = 0;
/// Says that a node has plain subscribers.
pub const PLAIN: u64 = 1;
/// All from here on are groups.
pub const GROUPS: u64 = 2;

/// What one node gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Where, as the plan was told.
    pub to: usize,
    /// Whether its plain subscribers get the message.
    pub plain: bool,
    /// The groups of which one member there gets it.
    pub groups: Vec<u64>,
}

/// Who has which subscribers.
#[derive(Debug, Default)]
pub struct Plan {
    /// The base of each node, and whether it has plain subscribers.
    nodes: BTreeMap<usize, bool>,
    /// The bases of the nodes that have members.
    groups: BTreeMap<u64, Vec<usize>>,
    /// Whose turn it is in each group.
    turns: BTreeMap<u64, usize>,
}

impl Plan {
    /// Takes what is known now: of each entry its node and what it says. Whose turn it is in groups
    /// that stay goes on.
    pub fn replace<'a>(&mut self, entries: impl Iterator<Item = (&'a NodeId, u64)> + Clone) {
        let says_base =
            |(at, (node, says)): (usize, (&'a NodeId, u64))| (says == BASE).then_some((node, at));
        let bases: BTreeMap<&NodeId, usize> =
            entries.clone().enumerate().filter_map(says_base).collect();
        self.nodes = bases.values().map(|at| (*at, false)).collect();
        self.groups.clear();
        for (node, says) in entries {
            let Some(at) = bases.get(node) else {
                continue;
            };
            match says {
                BASE => {}
                PLAIN => {
                    self.nodes.insert(*at, true);
                }
                group => self.groups.entry(group).or_default().push(*at),
            }
        }
        let groups = &self.groups;
        self.turns.retain(|group, _| groups.contains_key(group));
    }

    /// What each node gets of the next message: at most one delivery a node.
    pub fn deal(&mut self) -> Vec<Delivery> {
        let mut deliveries: BTreeMap<usize, Delivery> = BTreeMap::new();
        let delivery = |to| Delivery {
            to,
            plain: false,
            groups: Vec::new(),
        };
        for (at, _) in self.nodes.iter().filter(|(_, plain)| **plain) {
            deliveries.insert(
                *at,
                Delivery {
                    plain: true,
                    ..delivery(*at)
                },
            );
        }
        for (group, nodes) in &self.groups {
            let turn = self.turns.entry(*group).or_default();
            let Some(at) = nodes.get(*turn % nodes.len().max(1)) else {
                continue;
            };
            *turn = turn.wrapping_add(1);
            let delivery = deliveries.entry(*at).or_insert_with(|| delivery(*at));
            delivery.groups.push(*group);
        }
        deliveries.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u16) -> NodeId {
        NodeId::new("n", ([10, 0, 0, 1], n).into(), 1)
    }

    #[test]
    fn each_node_gets_one_copy_and_groups_take_turns() {
        let nodes = [node(1), node(2), node(3), node(4)];
        let entries = [
            (0, BASE),
            (0, PLAIN),
            (0, 7),
            (1, BASE),
            (1, 7),
            (2, BASE),
            (2, PLAIN),
            (2, 8),
            // Not known where: left out.
            (3, PLAIN),
        ];
        let mut plan = Plan::default();
        plan.replace(entries.iter().map(|(n, says)| (&nodes[*n], *says)));
        let delivery = |to, plain, groups: &[u64]| Delivery {
            to,
            plain,
            groups: groups.to_vec(),
        };
        let first = [delivery(0, true, &[7]), delivery(5, true, &[8])];
        let second = [
            delivery(0, true, &[]),
            delivery(3, false, &[7]),
            delivery(5, true, &[8]),
        ];
        assert_eq!(plan.deal(), first);
        assert_eq!(plan.deal(), second);
        assert_eq!(plan.deal(), first);
        plan.replace(std::iter::empty());
        assert_eq!(plan.deal(), []);
    }
}
