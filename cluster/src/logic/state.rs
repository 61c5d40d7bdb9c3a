//! ClusterState: the cluster as the users of one node see it, and what they are told when it changes.

use crate::logic::member::{Member, Status};
use crate::logic::profile::AppVersion;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The cluster as one node sees it at one moment. Other nodes see the same a little earlier or later.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClusterState {
    /// The members and what they are; those that were removed are no longer listed.
    pub members: BTreeMap<NodeId, Member>,
    /// The members that some member cannot reach.
    pub unreachable: BTreeSet<NodeId>,
    /// Which member says that it cannot reach whom; members that reach all they watch are not listed.
    /// Where `a` cannot reach `b` but others can, or `a` cannot reach `b` but `b` can reach `a`, it
    /// shows here and nowhere else. A member watches only some of a large cluster.
    pub cannot_reach: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// The member that carries out what needs agreement. During a partition each side has one.
    pub leader: Option<NodeId>,
    /// Whether all members that have a say have published that they see the same.
    pub converged: bool,
    /// Whether the whole cluster is about to be stopped ([`crate::Cluster::prepare_for_shutdown`]):
    /// nobody is let in any more, and nothing should be moved from member to member.
    pub preparing_for_shutdown: bool,
}

impl ClusterState {
    /// What is known of `node`.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node)
    }

    /// The members that are up, ordered by node.
    pub fn up(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| m.status == Status::Up)
    }

    /// The oldest member that is up.
    #[must_use]
    pub fn oldest(&self) -> Option<&Member> {
        self.up().min_by_key(|member| member.seniority())
    }

    /// The members that are up and have `role`, ordered by node.
    pub fn up_with_role(&self, role: &str) -> impl Iterator<Item = &Member> {
        self.up().filter(move |member| member.has_role(role))
    }

    /// The oldest member that is up and has `role`.
    #[must_use]
    pub fn oldest_with_role(&self, role: &str) -> Option<&Member> {
        let with_role = self.up_with_role(role);
        with_role.min_by_key(|member| member.seniority())
    }

    /// The versions of the program that members run: more than one during a rolling update. Those
    /// that are out do not count.
    #[must_use]
    pub fn app_versions(&self) -> BTreeSet<AppVersion> {
        let live = self.members.values().filter(|m| m.status.is_live());
        live.map(Member::app_version).collect()
    }

    /// Which members say that they cannot reach `node`.
    pub fn observers_of(&self, node: &NodeId) -> impl Iterator<Item = &NodeId> {
        let observers = self.cannot_reach.iter();
        let saying = observers.filter(move |(_, subjects)| subjects.contains(node));
        saying.map(|(observer, _)| observer)
    }

    /// Whether `node` is a member that some member cannot reach.
    #[must_use]
    pub fn is_unreachable(&self, node: &NodeId) -> bool {
        self.unreachable.contains(node)
    }
}

/// What happened in the cluster, as one node sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// Another member leads, or none.
    LeaderChanged(Option<NodeId>),
    /// A member was declared out.
    MemberDowned(NodeId),
    /// A member has handed over what it had.
    MemberExiting(NodeId),
    /// A node was let in.
    MemberJoined(NodeId),
    /// A member is on its way out.
    MemberLeaving(NodeId),
    /// A member is gone for good.
    MemberRemoved(NodeId),
    /// A member has become a full one.
    MemberUp(NodeId),
    /// A member can be used although it is no full one yet: see [`Status::WeaklyUp`].
    MemberWeaklyUp(NodeId),
    /// A member of another cluster reaches this node: two clusters have this address in their lists, or
    /// one of them was formed while the other could not be reached. They never merge; stop all nodes of
    /// one of them. Told once for each other cluster.
    OtherClusterMet(NodeId),
    /// The whole cluster is about to be stopped ([`crate::Cluster::prepare_for_shutdown`]).
    PreparingForShutdown,
    /// A member that some could not reach is reached by all again.
    ReachableAgain(NodeId),
    /// This node was declared out: it must stop what it does for the cluster.
    SelfDowned,
    /// A member cannot be reached by some.
    Unreachable(NodeId),
}

/// The events between two states of a member, `None` meaning that it was not known. What was
/// passed over is told too, so that each step of a graceful life is heard once.
pub(crate) fn steps(node: &NodeId, from: Option<Status>, to: Status) -> Vec<ClusterEvent> {
    if from.is_none() && !to.is_live() {
        return Vec::new();
    }
    let passed = Status::ALL
        .into_iter()
        .filter(|status| from.is_none_or(|from| *status > from) && *status <= to);
    let told = passed.filter(|status| match status {
        Status::Joining => true,
        // Nobody has to go through it.
        Status::WeaklyUp => to == Status::WeaklyUp,
        Status::Up | Status::Leaving | Status::Exiting => to.is_live(),
        Status::Down => to == Status::Down,
        Status::Removed => true,
    });
    told.map(|status| {
        let node = node.clone();
        match status {
            Status::Joining => ClusterEvent::MemberJoined(node),
            Status::WeaklyUp => ClusterEvent::MemberWeaklyUp(node),
            Status::Up => ClusterEvent::MemberUp(node),
            Status::Leaving => ClusterEvent::MemberLeaving(node),
            Status::Exiting => ClusterEvent::MemberExiting(node),
            Status::Down => ClusterEvent::MemberDowned(node),
            Status::Removed => ClusterEvent::MemberRemoved(node),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::profile::Profile;

    fn node(port: u16) -> NodeId {
        NodeId::new("n", ([127, 0, 0, 1], port).into(), 9)
    }

    /// C2: leaving, exiting and removed are each told once, whatever was passed over.
    #[test]
    fn each_step_of_a_life_is_told_once() {
        let told = |from, to| steps(&node(1), from, to);
        let n = || node(1);
        assert_eq!(
            told(Some(Status::Up), Status::Exiting),
            [
                ClusterEvent::MemberLeaving(n()),
                ClusterEvent::MemberExiting(n())
            ]
        );
        assert_eq!(
            told(Some(Status::Up), Status::Down),
            [ClusterEvent::MemberDowned(n())]
        );
        assert_eq!(
            told(Some(Status::Down), Status::Removed),
            [ClusterEvent::MemberRemoved(n())]
        );
        assert_eq!(
            told(Some(Status::Exiting), Status::Removed),
            [ClusterEvent::MemberRemoved(n())]
        );
        assert_eq!(told(None, Status::Up).len(), 2);
        assert_eq!(
            told(Some(Status::Joining), Status::WeaklyUp),
            [ClusterEvent::MemberWeaklyUp(n())]
        );
        assert_eq!(
            told(Some(Status::WeaklyUp), Status::Up),
            [ClusterEvent::MemberUp(n())]
        );
        assert_eq!(told(None, Status::Down), []);
    }

    #[test]
    fn the_oldest_is_up_and_has_the_lowest_age() {
        let member = |port, status, age| {
            let id = node(port);
            let roles = BTreeSet::from([if port % 2 == 0 { "even" } else { "odd" }.to_owned()]);
            let app_version = AppVersion::new(&format!("1.{port}")).unwrap();
            let profile = Profile { roles, app_version }.shared();
            let member = Member {
                id: id.clone(),
                status,
                age,
                profile,
            };
            (id, member)
        };
        let state = ClusterState {
            members: BTreeMap::from([
                member(1, Status::Joining, None),
                member(2, Status::Up, Some(7)),
                member(3, Status::Up, Some(4)),
                member(4, Status::Leaving, Some(1)),
            ]),
            ..ClusterState::default()
        };
        assert_eq!(state.oldest().map(|m| &m.id), Some(&node(3)));
        assert_eq!(state.up().count(), 2);
        assert_eq!(
            state.oldest_with_role("even").map(|m| &m.id),
            Some(&node(2))
        );
        assert_eq!(state.oldest_with_role("other"), None);
        assert_eq!(state.up_with_role("odd").count(), 1);
        let versions: Vec<String> = state
            .app_versions()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(versions, ["1.1", "1.2", "1.3", "1.4"]);
    }
}
