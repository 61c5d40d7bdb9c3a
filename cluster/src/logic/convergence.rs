//! Convergence: whether all know the same, who leads, and what the leader does then. Pure functions.
//!
//! Nothing is elected. Each node computes the leader from its view, and a leader acts only when all
//! members that have a say have published the digest that it holds itself, and nobody is
//! unreachable who was not declared out. So when a member is moved on, everybody has seen the state
//! before; the downing decision counts on exactly that (its "one step ahead" rule).

use crate::logic::member::Status;
use crate::logic::view::View;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The member that carries out what needs agreement, as `me` sees it: the first by address among
/// the reachable that are up or leaving; where there is none, among the other live ones.
#[must_use]
pub fn leader(view: &View, unreachable: &BTreeSet<NodeId>, me: &NodeId) -> Option<NodeId> {
    let here = |node: &NodeId| node == me || !unreachable.contains(node);
    let reachable = || view.live().filter(|(node, _)| here(node));
    let voting = reachable().find(|(_, status)| status.is_voting());
    voting
        .or_else(|| reachable().next())
        .map(|(node, _)| node.clone())
}

/// Whether all that have a say hold the digest `mine`, and nobody is unreachable but those who are
/// exiting or out. `published` is what the others have said last.
#[must_use]
pub fn is_converged(
    view: &View,
    unreachable: &BTreeSet<NodeId>,
    me: &NodeId,
    mine: u64,
    published: impl Fn(&NodeId) -> Option<u64>,
) -> bool {
    let agrees = |node: &NodeId| node == me || published(node) == Some(mine);
    let mut anyone_voting = false;
    for (node, status) in view.live() {
        if status != Status::Exiting && unreachable.contains(node) {
            return false;
        }
        anyone_voting |= status.is_voting();
        if status.is_voting() && !agrees(node) {
            return false;
        }
    }
    anyone_voting
        || view
            .live()
            .all(|(node, _)| unreachable.contains(node) || agrees(node))
}

/// How many members there must be before a joining one becomes up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Minimum {
    /// In all.
    pub members: usize,
    /// Of a role, by its name.
    pub of_role: BTreeMap<String, usize>,
}

impl Minimum {
    /// Whether there are enough: those that are joining count, those that leave do not.
    #[must_use]
    pub fn is_met(&self, view: &View) -> bool {
        let counted = || view.iter().filter(|(_, entry)| entry.status <= Status::Up);
        let of_role = |role: &str| counted().filter(|(_, entry)| entry.has_role(role)).count();
        counted().count() >= self.members
            && self
                .of_role
                .iter()
                .all(|(role, least)| of_role(role) >= *least)
    }
}

/// Whether new members may be taken on at present.
#[must_use]
pub fn takes_on(view: &View, minimum: &Minimum) -> bool {
    !view.is_stopping() && minimum.is_met(view)
}

/// What a leader moves on when all agree: who has left or was declared out goes; who joins becomes
/// up, in the order of addresses, if there are enough and `heard` knows that it lives.
#[must_use]
pub fn moves(
    view: &View,
    me: &NodeId,
    minimum: &Minimum,
    heard: impl Fn(&NodeId) -> bool,
) -> BTreeMap<NodeId, Status> {
    let takes_on = takes_on(view, minimum);
    let others_live = view.live().any(|(node, _)| node != me);
    let next = |node: &NodeId, status: Status| match status {
        status if status.is_entering() && takes_on && (node == me || heard(node)) => {
            Some(Status::Up)
        }
        // The leader itself goes last, so that the others are not left without one.
        Status::Exiting if node == me && others_live => None,
        Status::Exiting | Status::Down => Some(Status::Removed),
        _ => None,
    };
    let entries = view.iter();
    entries
        .filter_map(|(node, entry)| Some((node.clone(), next(node, entry.status)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::profile::Profile;
    use crate::logic::view::Entry;

    fn node(port: u16) -> NodeId {
        NodeId::new("n", ([127, 0, 0, 1], port).into(), 7)
    }

    /// `"1:up 2:joining"`.
    fn view(text: &str) -> View {
        let members = text.split_whitespace().map(|member| {
            let (port, status) = member.split_once(':').unwrap();
            let status = Status::ALL
                .into_iter()
                .find(|s| s.to_string() == status)
                .unwrap();
            let mut entry = Entry::joining(0);
            entry.status = status;
            (node(port.parse().unwrap()), entry)
        });
        members.collect()
    }

    fn check_leader(members: &str, unreachable: &[u16], me: u16, expected: Option<u16>) {
        let unreachable = unreachable.iter().map(|port| node(*port)).collect();
        let found = leader(&view(members), &unreachable, &node(me));
        assert_eq!(found, expected.map(node), "{members} as {me} sees it");
    }

    #[test]
    fn the_first_reachable_member_leads() {
        check_leader("1:up 2:up", &[], 2, Some(1));
        check_leader("1:joining 2:leaving 3:up", &[], 3, Some(2));
        check_leader("1:up 2:up", &[1], 2, Some(2));
        check_leader("1:up 2:up", &[1, 2], 2, Some(2));
        check_leader("1:down 2:exiting 3:joining", &[], 3, Some(2));
        check_leader("1:joining", &[], 1, Some(1));
        check_leader("1:removed", &[], 1, None);
    }

    fn check_converged(members: &str, unreachable: &[u16], agree: &[u16], expected: bool) {
        let unreachable = unreachable.iter().map(|port| node(*port)).collect();
        let published = |id: &NodeId| Some(u64::from(agree.contains(&id.addr.port())));
        let found = is_converged(&view(members), &unreachable, &node(1), 1, published);
        assert_eq!(found, expected, "{members}");
    }

    #[test]
    fn all_with_a_say_must_agree() {
        check_converged("1:up 2:up 3:joining 4:exiting", &[], &[2], true);
        check_converged("1:up 2:up", &[], &[], false);
        check_converged("1:up 2:leaving", &[], &[], false);
        check_converged("1:up 2:up", &[2], &[2], false);
        check_converged("1:up 2:joining", &[2], &[], false);
        check_converged("1:up 2:down 3:exiting", &[2, 3], &[], true);
        check_converged("1:joining 2:joining", &[], &[], false);
        check_converged("1:exiting 2:exiting", &[2], &[], true);
    }

    #[test]
    fn a_leader_moves_the_leaving_out_and_the_joining_in() {
        let moved = |members: &str| -> Vec<(u16, Status)> {
            let minimum = Minimum::default();
            let moves = moves(&view(members), &node(1), &minimum, |id| id.addr.port() != 9);
            let ports = moves.into_iter().map(|(id, to)| (id.addr.port(), to));
            ports.collect()
        };
        assert_eq!(
            moved("1:up 2:joining 3:exiting 4:down 5:leaving 9:joining"),
            [(2, Status::Up), (3, Status::Removed), (4, Status::Removed)]
        );
        assert_eq!(moved("1:exiting 2:exiting"), [(2, Status::Removed)]);
        assert_eq!(moved("1:exiting 2:removed"), [(1, Status::Removed)]);
    }
    fn raised(view: &View, members: usize, of_role: &[(&str, usize)]) -> usize {
        let of_role = of_role
            .iter()
            .map(|(role, least)| ((*role).to_owned(), *least));
        let minimum = Minimum {
            members,
            of_role: of_role.collect(),
        };
        moves(view, &node(1), &minimum, |_| true).len()
    }

    #[test]
    fn nobody_becomes_up_before_there_are_enough() {
        let mut three = view("1:joining 2:joining 3:joining 4:leaving 5:exiting");
        assert_eq!(raised(&three, 4, &[]), 1, "only the exiting one moves");
        assert_eq!(raised(&three, 3, &[]), 4);
        assert_eq!(raised(&three, 1, &[("db", 1)]), 1);
        let roles = ["db".to_owned()].into();
        let db = Profile {
            roles,
            ..Profile::default()
        }
        .shared();
        three.add(&node(2), Entry::joining(0).with_profile(db));
        assert_eq!(raised(&three, 1, &[("db", 1)]), 4);
        assert_eq!(raised(&three, 1, &[("db", 2)]), 1);
        three.stop();
        assert_eq!(raised(&three, 1, &[]), 1, "nobody new while all is stopped");
    }
}
