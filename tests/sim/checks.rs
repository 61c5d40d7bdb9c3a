//! Checks: what must hold at the end of every story, whatever happened in it.

use crate::fleet::{ENTITIES, Fleet, entity_of};
use otava::{ClusterEvent, Journal, PersistentEntity};
use otava_persistence::PersistenceId;
use std::collections::{BTreeMap, BTreeSet};

/// Every command that was acknowledged is in the journal once, at the entity that it was for, and the
/// events of each entity are numbered without gaps or doubles. Returns the journal.
pub(crate) async fn journal(fleet: &Fleet, acknowledged: &BTreeSet<u64>) -> Vec<Vec<u64>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for e in 0..ENTITIES {
        let id = PersistenceId::new(crate::counter::Counter::KIND, &entity_of(e));
        let page = fleet.world.journal.read(&id, 1, usize::MAX).await.unwrap();
        let mut taken = Vec::new();
        for (event, seq) in page.events.iter().zip(1..) {
            assert_eq!(event.seq, seq, "{id}");
            let n = otava_persistence::format::decode::<u64>(&event.record.payload).unwrap();
            assert_eq!(n % ENTITIES, e, "{n} came to the wrong entity");
            assert!(seen.insert(n), "{n} was written twice");
            taken.push(n);
        }
        all.push(taken);
    }
    let lost: Vec<_> = acknowledged.difference(&seen).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    all
}

/// Nobody was put down without a fault that explains it.
pub(crate) fn false_alarms(fleet: &Fleet) {
    for (time, seen_by, event) in fleet.world.events.lock().unwrap().iter() {
        if let ClusterEvent::MemberDowned(node) = event {
            let explained = fleet.excused.contains(node);
            assert!(
                explained,
                "{time} {seen_by}: {node} was put down for nothing"
            );
        }
    }
}

/// The newest event of each node that still runs leaves nobody in doubt: all see the same members.
pub(crate) fn views_agree(fleet: &Fleet) {
    let mut views = BTreeMap::new();
    for (number, member) in &fleet.live {
        let members: BTreeSet<_> = member.node.state().members.keys().cloned().collect();
        views.insert(*number, members);
    }
    let distinct: BTreeSet<_> = views.values().collect();
    assert!(distinct.len() <= 1, "{views:#?}");
}
