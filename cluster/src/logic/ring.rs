//! Ring: whom a node sends heartbeats to, so that all are watched by some and nobody by all. Pure.

use crate::logic::digest::Digest;
use otava_remote::NodeId;
use std::collections::BTreeSet;

/// The nodes that `me` watches: the next `count` after it on a ring ordered by hash, so that
/// neighbours on it are rarely neighbours in a rack. Those that are unreachable are watched as they
/// are passed but do not count: where a whole stretch of the ring is cut off, the watch moves on
/// until all of it is known.
#[must_use]
pub fn neighbours<'a>(
    me: &NodeId,
    members: impl Iterator<Item = &'a NodeId>,
    unreachable: &BTreeSet<NodeId>,
    count: usize,
) -> BTreeSet<NodeId> {
    let mine = (place(me), me);
    let mut ring: Vec<(u64, &NodeId)> = members
        .filter(|node| *node != me)
        .map(|node| (place(node), node))
        .collect();
    ring.sort_unstable();
    let start = ring.partition_point(|other| *other < mine);
    let mut counted = 0;
    let mut found = BTreeSet::new();
    for (_, node) in ring[start..].iter().chain(&ring[..start]) {
        if counted == count {
            break;
        }
        counted += usize::from(!unreachable.contains(node));
        found.insert((*node).clone());
    }
    found
}

fn place(node: &NodeId) -> u64 {
    Digest::new().node(node).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Vec<NodeId> {
        let node = |port| NodeId::new("n", ([127, 0, 0, 1], 7000 + port).into(), 9);
        (0..count).map(node).collect()
    }

    fn watched_by(me: &NodeId, all: &[NodeId], unreachable: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        neighbours(me, all.iter(), unreachable, 5)
    }

    #[test]
    fn each_is_watched_by_as_many_as_it_watches() {
        let all = nodes(30);
        let nobody = BTreeSet::new();
        for node in &all {
            let watchers = all
                .iter()
                .filter(|other| watched_by(other, &all, &nobody).contains(node));
            assert_eq!(watchers.count(), 5, "{node}");
            assert_eq!(watched_by(node, &all, &nobody).len(), 5);
        }
    }

    #[test]
    fn a_small_cluster_is_watched_whole() {
        let all = nodes(4);
        assert_eq!(watched_by(&all[0], &all, &BTreeSet::new()).len(), 3);
        assert_eq!(watched_by(&all[0], &all[..1], &BTreeSet::new()).len(), 0);
    }

    #[test]
    fn the_unreachable_do_not_count() {
        let all = nodes(30);
        let first = watched_by(&all[0], &all, &BTreeSet::new());
        let more = watched_by(&all[0], &all, &first);
        assert_eq!(more.len(), 10);
        assert!(first.is_subset(&more));
    }
}
