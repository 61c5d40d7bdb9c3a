//! Reachability: who says that it cannot reach whom, so that "A cannot see B while C can" is visible.

use crate::logic::digest::Digest;
use crate::logic::view::View;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Observer and whom it cannot reach, for all observers that a node has heard of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reachability {
    records: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Reachability {
    /// Replaces what `observer` says. Returns whether that is something else than before.
    pub fn set(&mut self, observer: &NodeId, unreachable: &BTreeSet<NodeId>) -> bool {
        if unreachable.is_empty() {
            return self.records.remove(observer).is_some();
        }
        let before = self.records.get(observer);
        let news = before != Some(unreachable);
        if news {
            self.records.insert(observer.clone(), unreachable.clone());
        }
        news
    }

    /// Drops what is said by or about nodes that take no part any more.
    #[must_use]
    pub fn among_live(&self, view: &View) -> Self {
        let live = |node: &&NodeId| view.is_live(node);
        let observers = self.records.iter().filter(|(node, _)| view.is_live(node));
        let records = observers.map(|(observer, subjects)| {
            let subjects: BTreeSet<NodeId> = subjects.iter().filter(live).cloned().collect();
            (observer.clone(), subjects)
        });
        Self {
            records: records.filter(|(_, said)| !said.is_empty()).collect(),
        }
    }

    /// Keeps only the observers that `keep` wants.
    pub fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        self.records.retain(|observer, _| keep(observer));
    }

    /// All pairs of an observer and whom it cannot reach.
    pub fn records(&self) -> impl Iterator<Item = (&NodeId, &NodeId)> {
        let observers = self.records.iter();
        observers.flat_map(|(observer, subjects)| subjects.iter().map(move |s| (observer, s)))
    }

    /// Whom each observer cannot reach.
    #[must_use]
    pub fn by_observer(&self) -> &BTreeMap<NodeId, BTreeSet<NodeId>> {
        &self.records
    }

    /// Whom somebody cannot reach.
    #[must_use]
    pub fn unreachable(&self) -> BTreeSet<NodeId> {
        self.records.values().flatten().cloned().collect()
    }

    /// Whether everybody reaches everybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds all records to a digest.
    pub fn feed(&self, digest: &mut Digest) {
        for (observer, subject) in self.records() {
            digest.node(observer).node(subject);
        }
    }
}
