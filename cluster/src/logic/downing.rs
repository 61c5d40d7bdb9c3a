//! Downing: who is out for good when some members cannot reach others. Pure functions.
//!
//! A node that cannot be reached may be dead, or alive and just as sure that we are dead. If both
//! sides go on there are two clusters, and two owners of everything. So each side, without hearing
//! from the other, must come to the complementary answer: one goes on, the other stops itself.
//!
//! The tempting wrong answers: a timeout alone (both sides go on); asking the other side (it cannot
//! be asked); voting (a vote needs the members that are missing). What works is a rule over the
//! last state that all have agreed on, such as "the larger side goes on". Three things spoil it:
//!
//! 1. **The sides do not know the same.** A leader may have moved a member on just before the cut,
//!    and only its side knows. Since a leader moves nobody before all have seen the state before,
//!    the two sides are at most one step apart. [`Strategy::decide`] therefore asks a second time,
//!    as if every step that the other side could have made had been made; where the answer changes,
//!    nobody can be sure, and all go down.
//! 2. **The cut is not clean.** A cannot reach B, but C reaches both. Then there are no sides. Who
//!    is both observer and observed in the graph of unreachability, or is called unreachable though
//!    it has published that it knows so, is *indirectly connected*: it is put down, and the rule is
//!    applied to the rest.
//! 3. **It does not hold still.** See [`crate::logic::stability`].
//!
//! The rules and their edge cases follow Pekko's split brain resolver, and the table in the tests
//! follows the cases of its test.
//!
//! **Invariant:** a decision depends on nothing but the [`Situation`], so any two nodes that see
//! the same decide the same.

#[cfg(test)]
mod tests;

use crate::logic::member::Status;
use crate::logic::reachability::Reachability;
use crate::logic::view::{Entry, View};
use otava_remote::NodeId;
use std::collections::BTreeSet;
use std::fmt;

/// The rule by which a side of a partition goes on or stops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Strategy {
    /// Whenever somebody is unreachable for long, everybody stops.
    DownAll,
    /// The larger side goes on; of two equal ones that with the lowest address.
    KeepMajority,
    /// The side with the oldest member goes on. If it is alone while there are two or more others,
    /// those go on.
    KeepOldest,
    /// Nothing is decided; somebody calls [`crate::Cluster::down`].
    Manual,
    /// A side with this many members goes on. More than twice as many members less one must not be
    /// in the cluster, or both sides could have enough: then all stop.
    StaticQuorum(usize),
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DownAll => f.write_str("down-all"),
            Self::KeepMajority => f.write_str("keep-majority"),
            Self::KeepOldest => f.write_str("keep-oldest"),
            Self::Manual => f.write_str("manual"),
            Self::StaticQuorum(size) => write!(f, "static-quorum-{size}"),
        }
    }
}

/// What a rule answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// Everybody stops.
    DownAll,
    /// The members in between stop, and whoever the rule names among the rest.
    DownIndirectlyConnected,
    /// This side stops.
    DownReachable,
    /// The other side is out.
    DownUnreachable,
    /// Somebody else decides.
    Nothing,
}

/// What a node knows when it decides.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The members.
    pub view: &'a View,
    /// Who says that it cannot reach whom, among live members.
    pub reachability: Reachability,
    /// Whom somebody cannot reach; never the node that decides.
    pub unreachable: BTreeSet<NodeId>,
    /// Who has published the same digest as this node, itself included.
    pub seen: BTreeSet<NodeId>,
}

impl Strategy {
    /// Whom the rule puts down in this situation.
    #[must_use]
    pub fn nodes_to_down(self, situation: &Situation<'_>) -> BTreeSet<NodeId> {
        situation.nodes_of(self, self.decide(situation))
    }

    /// What the rule answers in this situation.
    #[must_use]
    pub fn decide(self, situation: &Situation<'_>) -> Decision {
        let indirect = || !situation.indirectly_connected().is_empty();
        match self {
            Self::DownAll => Decision::DownAll,
            Self::Manual => Decision::Nothing,
            Self::StaticQuorum(size)
                if situation.members(PLAIN).count() >= size.saturating_mul(2) =>
            {
                Decision::DownAll
            }
            _ if indirect() => Decision::DownIndirectlyConnected,
            Self::KeepMajority => self.twice(keep_majority(situation, PLAIN, PLAIN), || {
                keep_majority(situation, FEWEST, MOST)
            }),
            Self::KeepOldest => self.twice(keep_oldest(situation, PLAIN), || {
                keep_oldest(situation, FEWEST_WITH_JOINING)
            }),
            Self::StaticQuorum(size) => {
                if situation.reachable(PLAIN).count() >= size {
                    Decision::DownUnreachable
                } else {
                    Decision::DownReachable
                }
            }
        }
    }

    /// Goes on only if that is right also one step ahead.
    fn twice(self, first: Decision, ahead: impl FnOnce() -> Decision) -> Decision {
        if first == Decision::DownUnreachable && ahead() != Decision::DownUnreachable {
            return Decision::DownAll;
        }
        first
    }
}

/// Whom to count: joining members may already be up on the other side, leaving ones exiting.
#[derive(Clone, Copy)]
struct Count {
    joining: bool,
    leaving: bool,
}

const PLAIN: Count = Count {
    joining: false,
    leaving: true,
};
const FEWEST: Count = Count {
    joining: false,
    leaving: false,
};
const FEWEST_WITH_JOINING: Count = Count {
    joining: true,
    leaving: false,
};
const MOST: Count = Count {
    joining: true,
    leaving: true,
};

fn keep_majority(situation: &Situation<'_>, here: Count, there: Count) -> Decision {
    let Some(lowest) = situation.members(here).map(|(node, _)| node).next() else {
        return Decision::DownAll;
    };
    let this_side = situation.reachable(here).count();
    let other_side = situation.lost(there).count();
    let keep = if this_side == other_side {
        !situation.unreachable.contains(lowest)
    } else {
        this_side > other_side
    };
    if keep {
        Decision::DownUnreachable
    } else {
        Decision::DownReachable
    }
}

fn keep_oldest(situation: &Situation<'_>, count: Count) -> Decision {
    let with_age = Count {
        joining: false,
        ..count
    };
    let by_age = |item: &(&NodeId, &Entry)| (item.1.age.unwrap_or(u64::MAX), item.0.clone());
    let Some((oldest, _)) = situation.members(with_age).min_by_key(by_age) else {
        return Decision::DownAll;
    };
    let this_side = situation.reachable(count).count();
    let other_side = situation.lost(count).count();
    let keep = if situation.unreachable.contains(oldest) {
        other_side == 1 && this_side >= 2
    } else {
        this_side != 1 || other_side < 2
    };
    if keep {
        Decision::DownUnreachable
    } else {
        Decision::DownReachable
    }
}

impl Situation<'_> {
    /// Who is counted, in the order of addresses.
    fn members(&self, count: Count) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.view
            .iter()
            .filter(move |(_, entry)| match entry.status {
                Status::Up => true,
                Status::Joining => count.joining,
                Status::Leaving => count.leaving,
                _ => false,
            })
    }

    fn reachable(&self, count: Count) -> impl Iterator<Item = (&NodeId, &Entry)> {
        let members = self.members(count);
        members.filter(|(node, _)| !self.unreachable.contains(*node))
    }

    fn lost(&self, count: Count) -> impl Iterator<Item = (&NodeId, &Entry)> {
        let members = self.members(count);
        members.filter(|(node, _)| self.unreachable.contains(*node))
    }

    /// Who can be put down: who takes part and is not about to go anyway.
    fn downable(&self) -> BTreeSet<NodeId> {
        self.members(MOST).map(|(node, _)| node.clone()).collect()
    }

    /// Who cannot be reached by some, but is not cut off: a clean split or a crash shows neither.
    fn indirectly_connected(&self) -> BTreeSet<NodeId> {
        let mut found = self.in_between();
        found.extend(self.knowing());
        found
    }

    /// Who is observed by somebody and observes somebody.
    fn in_between(&self) -> BTreeSet<NodeId> {
        let observed = self.reachability.unreachable();
        let observers = self.reachability.records().map(|(observer, _)| observer);
        observers
            .filter(|node| observed.contains(*node))
            .cloned()
            .collect()
    }

    /// Observer and observed, where the observed has published that it knows of it.
    fn knowing(&self) -> BTreeSet<NodeId> {
        let records = self.reachability.records();
        let knowing = records.filter(|(_, subject)| self.seen.contains(*subject));
        knowing
            .flat_map(|(observer, subject)| [observer.clone(), subject.clone()])
            .collect()
    }

    /// Whom a decision of `strategy` puts down.
    #[must_use]
    pub fn nodes_of(&self, strategy: Strategy, decision: Decision) -> BTreeSet<NodeId> {
        let downable = self.downable();
        match decision {
            Decision::DownAll => downable,
            Decision::Nothing => BTreeSet::new(),
            Decision::DownReachable => &downable - &self.unreachable,
            Decision::DownUnreachable => &downable & &self.unreachable,
            Decision::DownIndirectlyConnected => {
                let indirect = self.indirectly_connected();
                if self.unreachable.is_subset(&indirect) {
                    return &downable & &indirect;
                }
                match self.nodes_of_the_rest(strategy, &downable) {
                    Some(more) => &downable & &(&indirect | &more),
                    None => downable,
                }
            }
        }
    }

    /// What the rule says once all that passes between indirectly connected members is left out;
    /// `None` if even then some of them remain.
    fn nodes_of_the_rest(
        &self,
        strategy: Strategy,
        downable: &BTreeSet<NodeId>,
    ) -> Option<BTreeSet<NodeId>> {
        let (in_between, knowing) = (self.in_between(), self.knowing());
        let mut kept = Reachability::default();
        let mut said: BTreeSet<NodeId> = BTreeSet::new();
        let mut last: Option<&NodeId> = None;
        for (observer, subject) in self.reachability.records() {
            let both = |set: &BTreeSet<NodeId>| set.contains(observer) && set.contains(subject);
            if !both(downable) || both(&in_between) || both(&knowing) {
                continue;
            }
            if last != Some(observer) {
                said.clear();
                last = Some(observer);
            }
            said.insert(subject.clone());
            kept.set(observer, &said);
        }
        let rest = Situation {
            view: self.view,
            unreachable: kept.unreachable(),
            reachability: kept,
            seen: self.seen.clone(),
        };
        let decision = strategy.decide(&rest);
        (decision != Decision::DownIndirectlyConnected).then(|| rest.nodes_of(strategy, decision))
    }
}
