//! View: who is a member and in which state, as one node knows it; a lattice, so order never matters.
//!
//! A view is a map from runs of nodes to what is known of them. Two views are joined member by
//! member: the greater state wins, the lower age wins (a member gets one age; where two leaders of
//! two sides gave two, everybody ends with the same one), the later start time wins. Therefore views
//! may reach a node in any order, any number of times, over any detour, and all nodes that have
//! heard the same facts hold the same view.
//!
//! **Invariant:** joining views is commutative, associative and idempotent. Whatever needs judgement
//! (which of two runs at one address is the older) is not part of the join: a node that judges adds
//! a fact, as everybody else's facts are added.

use crate::logic::digest::Digest;
use crate::logic::member::{Member, Status};
use crate::logic::profile::{self, Profile};
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of one member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What it is.
    pub status: Status,
    /// Its place in the order of becoming up.
    pub age: Option<u64>,
    /// When it was started, in milliseconds of its own wall clock. Only ever compared between two
    /// runs at the same address, and only where nothing better tells which one is the later.
    pub started: u64,
    /// What it says of itself; `None` if that is nothing, or not known.
    pub profile: Option<Arc<Profile>>,
}

impl Entry {
    /// A member that was just let in.
    #[must_use]
    pub fn joining(started: u64) -> Self {
        Self {
            status: Status::Joining,
            age: None,
            started,
            profile: None,
        }
    }

    /// What the member says of itself.
    #[must_use]
    pub fn with_profile(mut self, profile: Option<Arc<Profile>>) -> Self {
        self.profile = profile;
        self
    }

    /// Whether the member has `role`.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.profile
            .as_ref()
            .is_some_and(|profile| profile.roles.contains(role))
    }

    /// The tombstone of a member.
    #[must_use]
    pub fn removed() -> Self {
        Self {
            status: Status::Removed,
            age: None,
            started: 0,
            profile: None,
        }
    }

    fn join(self, other: Self) -> Self {
        let ages = [self.age, other.age];
        Self {
            status: self.status.max(other.status),
            age: ages.into_iter().flatten().min(),
            started: self.started.max(other.started),
            profile: profile::join(self.profile, other.profile),
        }
    }
}

/// What a node holds to be the members and their states. A copy costs nothing until one of the two is
/// changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct View {
    entries: Arc<BTreeMap<NodeId, Entry>>,
    /// The whole cluster prepares for its end.
    stopping: bool,
}

impl View {
    /// A view without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of `node`.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.entries.get(node)
    }

    /// The state of `node`, if anything is known of it.
    #[must_use]
    pub fn status(&self, node: &NodeId) -> Option<Status> {
        self.get(node).map(|entry| entry.status)
    }

    /// Whether `node` takes part.
    #[must_use]
    pub fn is_live(&self, node: &NodeId) -> bool {
        self.status(node).is_some_and(Status::is_live)
    }

    /// All entries, tombstones included, ordered by node.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.entries.iter()
    }

    /// Whether the whole cluster prepares for its end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Adds the fact that the whole cluster prepares for its end. Returns whether it was new.
    pub fn stop(&mut self) -> bool {
        !std::mem::replace(&mut self.stopping, true)
    }

    /// The members that take part, ordered by node.
    pub fn live(&self) -> impl Iterator<Item = (&NodeId, Status)> {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| entry.status.is_live())
            .map(|(node, entry)| (node, entry.status))
    }

    /// The runs at the address of `node` that take part, itself not counted.
    pub fn live_twins<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a NodeId> {
        let live = self.live().map(|(other, _)| other);
        live.filter(move |other| other.addr == node.addr && *other != node)
    }

    /// How many entries there are, tombstones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds one fact. Returns whether anything was new.
    pub fn add(&mut self, node: &NodeId, fact: Entry) -> bool {
        let joined = match self.entries.get(node) {
            Some(known) => {
                let joined = known.clone().join(fact);
                if joined == *known {
                    return false;
                }
                joined
            }
            None => fact,
        };
        Arc::make_mut(&mut self.entries).insert(node.clone(), joined);
        true
    }

    /// Whether the two are copies of one view that nobody has changed since: quickly, and not found of
    /// all that are equal.
    #[must_use]
    pub fn is_copy_of(&self, other: &Self) -> bool {
        self.stopping == other.stopping && Arc::ptr_eq(&self.entries, &other.entries)
    }

    /// Whether joining `other` would add nothing, but for tombstones of members that are not known here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let is_here = |(node, fact): (&NodeId, &Entry)| match self.entries.get(node) {
            Some(known) => known.clone().join(fact.clone()) == *known,
            None => fact.status == Status::Removed,
        };
        (self.stopping || !other.stopping)
            && (self.is_copy_of(other) || other.entries.iter().all(is_here))
    }

    /// Adds all facts of another view. Returns whether anything was new.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut news = other.stopping && self.stop();
        for (node, entry) in other.entries.iter() {
            news |= self.add(node, entry.clone());
        }
        news
    }

    /// Moves a known member on to `status`; going back has no effect. Returns whether it moved.
    pub fn advance(&mut self, node: &NodeId, status: Status) -> bool {
        if self.status(node).is_none_or(|known| known >= status) {
            return false;
        }
        let entry = Arc::make_mut(&mut self.entries).get_mut(node);
        entry.is_some_and(|entry| {
            entry.status = status;
            true
        })
    }

    /// Makes a joining member a full one, the youngest of all.
    pub fn raise(&mut self, node: &NodeId) {
        let age = self.age_next();
        if let Some(entry) = Arc::make_mut(&mut self.entries).get_mut(node)
            && entry.status.is_entering()
        {
            entry.status = Status::Up;
            entry.age = Some(age);
        }
    }

    /// Forgets a tombstone. Members that are not removed stay.
    pub fn prune(&mut self, node: &NodeId) {
        if self.status(node) == Some(Status::Removed) {
            Arc::make_mut(&mut self.entries).remove(node);
        }
    }

    /// The members as users see them, tombstones left out.
    #[must_use]
    pub fn members(&self) -> BTreeMap<NodeId, Member> {
        let known = self.entries.iter();
        let present = known.filter(|(_, entry)| entry.status < Status::Removed);
        let member = |(id, entry): (&NodeId, &Entry)| Member {
            id: id.clone(),
            status: entry.status,
            age: entry.age,
            profile: entry.profile.clone(),
        };
        present.map(|item| (item.0.clone(), member(item))).collect()
    }

    /// Adds all but the tombstones to a digest: whether a member was removed or never known makes
    /// no difference, so that nodes may forget tombstones at different times.
    pub fn feed(&self, digest: &mut Digest) {
        if self.stopping {
            digest.number(1);
        }
        for (node, entry) in self.entries.iter() {
            if entry.status < Status::Removed {
                digest
                    .node(node)
                    .number(u64::from(entry.status.code()))
                    .number(entry.age.map_or(0, |age| age.saturating_add(1)));
                if let Some(profile) = &entry.profile {
                    let texts = profile.roles.iter().map(String::as_str);
                    for text in texts.chain([profile.app_version.as_str()]) {
                        digest.number(text.len() as u64).bytes(text.as_bytes());
                    }
                }
            }
        }
    }

    fn age_next(&self) -> u64 {
        let ages = self.entries.values().filter_map(|entry| entry.age);
        ages.max().unwrap_or(0).saturating_add(1)
    }
}

impl FromIterator<(NodeId, Entry)> for View {
    fn from_iter<I: IntoIterator<Item = (NodeId, Entry)>>(items: I) -> Self {
        let mut view = Self::new();
        for (node, entry) in items {
            view.add(&node, entry);
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(port: u16, incarnation: u64) -> NodeId {
        NodeId::new("n", ([127, 0, 0, 1], port).into(), incarnation)
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let status = (0u8..7).prop_map(|code| Status::from_code(code).unwrap());
        let profile = proptest::option::of("[ab]").prop_map(|role| {
            let roles = role.into_iter().collect();
            Profile {
                roles,
                ..Profile::default()
            }
            .shared()
        });
        (status, proptest::option::of(0u64..4), 0u64..4, profile).prop_map(
            |(status, age, started, profile)| Entry {
                status,
                age,
                started,
                profile,
            },
        )
    }

    fn views() -> impl Strategy<Value = View> {
        let nodes = (0u16..4, 0u64..2).prop_map(|(port, run)| node(port, run));
        let members = proptest::collection::vec((nodes, entries()), 0..8);
        (members, proptest::bool::ANY).prop_map(|(members, stopping)| View {
            stopping,
            ..View::from_iter(members)
        })
    }

    fn joined(a: &View, b: &View) -> View {
        let mut view = a.clone();
        view.join(b);
        view
    }

    proptest! {
        #[test]
        fn order_and_repetition_never_matter(a in views(), b in views(), c in views()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            let mut again = joined(&a, &b);
            prop_assert!(!again.join(&b), "nothing is new the second time");
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_adds_nothing(a in views(), b in views()) {
            prop_assert!(joined(&a, &b).covers(&b));
            let news = b.iter().any(|(node, entry)| {
                let known = a.get(node).is_some() || entry.status < Status::Removed;
                known && a.clone().add(node, entry.clone())
            });
            prop_assert_eq!(a.covers(&b), !(news || b.is_stopping() && !a.is_stopping()));
        }
    }

    #[test]
    fn ages_follow_the_order_of_becoming_up() {
        let (a, b) = (node(1, 0), node(2, 0));
        let mut view = View::new();
        view.add(&a, Entry::joining(0));
        view.add(&b, Entry::joining(0));
        view.raise(&b);
        view.raise(&a);
        view.raise(&a);
        assert_eq!(view.get(&b).unwrap().age, Some(1));
        assert_eq!(view.get(&a).unwrap().age, Some(2));
    }

    #[test]
    fn a_tombstone_and_ignorance_have_the_same_digest() {
        let mut view = View::new();
        view.add(&node(1, 0), Entry::joining(0));
        let digest = |view: &View| {
            let mut digest = Digest::new();
            view.feed(&mut digest);
            digest.finish()
        };
        let before = digest(&view);
        view.add(&node(2, 0), Entry::removed());
        assert_eq!(digest(&view), before);
        view.add(&node(3, 0), Entry::joining(0));
        assert_ne!(digest(&view), before);
        view.prune(&node(2, 0));
        view.prune(&node(3, 0));
        assert_eq!(view.len(), 2);
    }
}
