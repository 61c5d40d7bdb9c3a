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
//!    the two sides are at most one step apart. [`Rule::decide`] therefore asks a second time,
//!    as if every step that the other side could have made had been made; where the answer changes,
//!    nobody can be sure, and all go down.
//! 2. **The cut is not clean.** A cannot reach B, but C reaches both. Then there are no sides. Who
//!    is both observer and observed in the graph of unreachability, or is called unreachable though
//!    it has published that it knows so, is *indirectly connected*: it is put down, and the rule is
//!    applied to the rest. That is safe as far as those that remain can tell them. Whom none of them
//!    reaches may be no bridge at all: after one clean cut and another soon after it, each side has
//!    what the other ones said before, and all look as if they stood in between. So those that
//!    remain must besides be right, by the rule, beside those whom they cannot tell; else they stop.
//!    Where all who see the same have lost all others, what those said before counts for nothing.
//! 3. **It does not hold still.** See [`crate::logic::stability`].
//!
//! What no rule of this kind bears is a second cut within the time of detection after one of the
//! second kind: whoever remains of a bridge puts down members that are alive and, by the new cut, do
//! not hear of it, while they may be a majority. When the cut heals, those that have not decided by
//! then are told (a quarantine by any member ends a node); if both have, two clusters remain. What
//! is stored is safe even then: the store refuses the writes of the older epoch.
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
    /// those go on ([`crate::ClusterConfig::down_if_alone`]).
    KeepOldest,
    /// The side that gets a lease goes on ([`crate::ClusterConfig::lease`]): safe whatever each side
    /// knows, as long as the store of the lease can be trusted and reached. The smaller side waits
    /// before it asks, so that the larger one gets it if it lives.
    LeaseMajority,
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
            Self::LeaseMajority => f.write_str("lease-majority"),
            Self::Manual => f.write_str("manual"),
            Self::StaticQuorum(size) => write!(f, "static-quorum-{size}"),
        }
    }
}

/// A strategy with all that nodes must agree on to decide alike. Its text is compared at the door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// By what a side goes on or stops.
    pub strategy: Strategy,
    /// Only members with this role count; the others go with their side.
    pub role: Option<String>,
    /// Whether an oldest member that is alone stops itself, if there are two or more others.
    pub down_if_alone: bool,
}

impl From<Strategy> for Rule {
    fn from(strategy: Strategy) -> Self {
        Self {
            strategy,
            role: None,
            down_if_alone: true,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.strategy)?;
        if let Some(role) = &self.role {
            write!(f, " of {role}")?;
        }
        if self.strategy == Strategy::KeepOldest && !self.down_if_alone {
            f.write_str(", even alone")?;
        }
        Ok(())
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
    /// As [`Decision::DownIndirectlyConnected`] if the lease is granted.
    LeaseThenDownIndirectlyConnected,
    /// As [`Decision::DownUnreachable`] if the lease is granted, and [`Decision::DownReachable`] if not.
    LeaseThenDownUnreachable {
        /// This side is the smaller one: it waits before it asks.
        minority: bool,
    },
    /// Somebody else decides.
    Nothing,
    /// The lease for [`Decision::LeaseThenDownIndirectlyConnected`] was not granted: this side stops,
    /// and the members in between.
    YieldIndirectlyConnected,
}

impl Decision {
    /// Whether a lease must be asked for before it is carried out.
    #[must_use]
    pub fn needs_lease(self) -> bool {
        matches!(
            self,
            Self::LeaseThenDownIndirectlyConnected | Self::LeaseThenDownUnreachable { .. }
        )
    }

    /// What becomes of it, now that the lease was granted or not.
    #[must_use]
    pub fn with_lease(self, granted: bool) -> Self {
        match self {
            Self::LeaseThenDownIndirectlyConnected if granted => Self::DownIndirectlyConnected,
            Self::LeaseThenDownIndirectlyConnected => Self::YieldIndirectlyConnected,
            Self::LeaseThenDownUnreachable { .. } if granted => Self::DownUnreachable,
            Self::LeaseThenDownUnreachable { .. } => Self::DownReachable,
            other => other,
        }
    }
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

impl Rule {
    /// Whom the rule puts down in this situation, without asking for a lease.
    #[must_use]
    pub fn nodes_to_down(&self, situation: &Situation<'_>) -> BTreeSet<NodeId> {
        situation.nodes_of(self, self.decide(situation))
    }

    /// What the rule answers in this situation.
    #[must_use]
    pub fn decide(&self, situation: &Situation<'_>) -> Decision {
        let counted = Counted {
            view: situation.view,
            unreachable: &situation.unreachable,
            without: &BTreeSet::new(),
            role: self.role.as_deref(),
        };
        let indirect = || !situation.indirectly_connected().is_empty();
        match self.strategy {
            Strategy::DownAll => Decision::DownAll,
            Strategy::Manual => Decision::Nothing,
            Strategy::StaticQuorum(size) if counted.members(PLAIN).count() > largest(size) => {
                Decision::DownAll
            }
            Strategy::LeaseMajority if indirect() => Decision::LeaseThenDownIndirectlyConnected,
            Strategy::LeaseMajority => Decision::LeaseThenDownUnreachable {
                minority: counted.is_minority(),
            },
            _ if indirect() => {
                if self.bears_out_the_rest(situation) {
                    Decision::DownIndirectlyConnected
                } else {
                    Decision::DownReachable
                }
            }
            _ => self.decide_sides(&counted),
        }
    }

    /// What the rule answers where there are two sides.
    fn decide_sides(&self, counted: &Counted<'_>) -> Decision {
        match self.strategy {
            Strategy::KeepMajority => twice(counted.keep_majority(PLAIN, PLAIN), || {
                counted.keep_majority(FEWEST, MOST)
            }),
            Strategy::KeepOldest => {
                let if_alone = self.down_if_alone;
                twice(counted.keep_oldest(PLAIN, if_alone), || {
                    counted.keep_oldest(FEWEST_WITH_JOINING, if_alone)
                })
            }
            Strategy::StaticQuorum(size) => keep_if(counted.reachable(PLAIN).count() >= size),
            Strategy::DownAll | Strategy::LeaseMajority | Strategy::Manual => Decision::Nothing,
        }
    }

    /// Whether those that remain when the indirectly connected are put down may go on beside those of
    /// them whom they cannot tell.
    fn bears_out_the_rest(&self, situation: &Situation<'_>) -> bool {
        let down = situation.nodes_of(self, Decision::DownIndirectlyConnected);
        let remaining = &situation.downable() - &down;
        let lost: BTreeSet<NodeId> = situation
            .reachability
            .records()
            .filter(|(observer, subject)| remaining.contains(*observer) && down.contains(*subject))
            .map(|(_, subject)| subject.clone())
            .collect();
        if remaining.is_empty() || lost.is_disjoint(&situation.indirectly_connected()) {
            return true;
        }
        self.goes_on_without(situation, &lost, &down)
    }

    /// Whether those who are left beside `lost` may go on even if `out` of them are put down. A lease decides
    /// that by itself.
    fn goes_on_without(
        &self,
        situation: &Situation<'_>,
        lost: &BTreeSet<NodeId>,
        out: &BTreeSet<NodeId>,
    ) -> bool {
        let sides = Counted {
            view: situation.view,
            unreachable: lost,
            without: &(out - lost),
            role: self.role.as_deref(),
        };
        self.strategy == Strategy::LeaseMajority
            || self.decide_sides(&sides) == Decision::DownUnreachable
    }

    /// By how many members the cluster is larger than a static quorum allows: both sides of a split
    /// could have enough, so all would stop.
    #[must_use]
    pub fn too_many(&self, view: &View) -> usize {
        let Strategy::StaticQuorum(size) = self.strategy else {
            return 0;
        };
        let counted = view
            .iter()
            .filter(|(_, entry)| PLAIN.counts(entry, self.role.as_deref()));
        counted.count().saturating_sub(largest(size))
    }
}

/// The largest cluster of which a quorum of `size` is more than half.
fn largest(size: usize) -> usize {
    size.saturating_mul(2).saturating_sub(1)
}

/// Goes on only if that is right also one step ahead.
fn twice(first: Decision, ahead: impl FnOnce() -> Decision) -> Decision {
    if first == Decision::DownUnreachable && ahead() != Decision::DownUnreachable {
        return Decision::DownAll;
    }
    first
}

fn keep_if(keep: bool) -> Decision {
    if keep {
        Decision::DownUnreachable
    } else {
        Decision::DownReachable
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

impl Count {
    fn counts(self, entry: &Entry, role: Option<&str>) -> bool {
        let by_status = match entry.status {
            Status::Up => true,
            Status::Joining | Status::WeaklyUp => self.joining,
            // Who leaves before it was up has never had a say.
            Status::Leaving => self.leaving && (self.joining || entry.age.is_some()),
            _ => false,
        };
        by_status && role.is_none_or(|role| entry.has_role(role))
    }
}

/// Two sides as a rule sees them that counts members with one role only.
struct Counted<'a> {
    view: &'a View,
    unreachable: &'a BTreeSet<NodeId>,
    /// Who is on no side.
    without: &'a BTreeSet<NodeId>,
    role: Option<&'a str>,
}

impl<'a> Counted<'a> {
    /// Who is counted, in the order of addresses.
    fn members(&self, count: Count) -> impl Iterator<Item = (&'a NodeId, &'a Entry)> {
        let (role, without) = (self.role, self.without);
        let entries = self.view.iter();
        entries.filter(move |(node, entry)| count.counts(entry, role) && !without.contains(*node))
    }

    fn reachable(&self, count: Count) -> impl Iterator<Item = (&'a NodeId, &'a Entry)> {
        let unreachable = self.unreachable;
        let members = self.members(count);
        members.filter(|(node, _)| !unreachable.contains(*node))
    }

    fn lost(&self, count: Count) -> impl Iterator<Item = (&'a NodeId, &'a Entry)> {
        let unreachable = self.unreachable;
        let members = self.members(count);
        members.filter(|(node, _)| unreachable.contains(*node))
    }

    /// Whether the member that moved others on before the cut, with this role or not, is on the other
    /// side.
    fn is_leader_lost(&self) -> bool {
        let mut voting = self
            .view
            .live()
            .filter(|(node, status)| status.is_voting() && !self.without.contains(*node));
        let leader = voting.next();
        leader.is_some_and(|(node, _)| self.unreachable.contains(node))
    }

    fn is_minority(&self) -> bool {
        self.reachable(PLAIN).count() < self.lost(PLAIN).count()
    }

    fn keep_majority(&self, here: Count, there: Count) -> Decision {
        let this_side = self.reachable(here).count();
        let other_side = self.lost(there).count();
        if this_side == 0 && other_side == 0 {
            return Decision::DownAll;
        }
        // Of two equal sides the one with the lowest address. If the leader is on the other side, that
        // side may count members that are not counted here, and the lowest may be one of them.
        let counted_there = if self.is_leader_lost() { there } else { here };
        let lowest_here = self.reachable(here).next();
        let lowest_there = self.lost(counted_there).next();
        let lower = || lowest_here.map(|(node, _)| node) < lowest_there.map(|(node, _)| node);
        keep_if(this_side > other_side || (this_side == other_side && lower()))
    }

    fn keep_oldest(&self, count: Count, down_if_alone: bool) -> Decision {
        let with_age = Count {
            joining: false,
            ..count
        };
        let by_age = |item: &(&NodeId, &Entry)| (item.1.age.unwrap_or(u64::MAX), item.0.clone());
        let Some((oldest, _)) = self.members(with_age).min_by_key(by_age) else {
            return Decision::DownAll;
        };
        let this_side = self.reachable(count).count();
        let other_side = self.lost(count).count();
        let alone = |one: usize, others: usize| down_if_alone && one == 1 && others >= 2;
        keep_if(if self.unreachable.contains(oldest) {
            alone(other_side, this_side)
        } else {
            !alone(this_side, other_side)
        })
    }
}

impl Situation<'_> {
    /// Leaves out what members said before they were lost, if it is sure that they are: everybody who has
    /// not seen what this node sees is unreachable for all of those who have and watch it. One that could
    /// not reach a node that crashed, and then crashed itself, would else look as if it stood in between, and
    /// all would stop. Who does stand in between is reached by somebody.
    ///
    /// But the lost may live, and have put down whom they could not reach before they were cut off: then
    /// fewer are needed for going on there. So those who are left must be right, by the rule, without these.
    #[must_use]
    pub fn without_words_of_the_lost(
        mut self,
        rule: &Rule,
        ring_of: impl Fn(&NodeId) -> BTreeSet<NodeId>,
    ) -> Self {
        let live = self.view.live().map(|(node, _)| node);
        let lost: BTreeSet<NodeId> = live
            .filter(|node| !self.seen.contains(*node))
            .cloned()
            .collect();
        let said = self.reachability.by_observer();
        let by_lost = said.iter().filter(|(observer, _)| lost.contains(*observer));
        let missed_by_lost: BTreeSet<NodeId> =
            by_lost.flat_map(|(_, whom)| whom).cloned().collect();
        if missed_by_lost.is_empty()
            || !rule.goes_on_without(&self, &lost, &missed_by_lost)
            || !self.are_lost_for_all(&lost, ring_of)
        {
            return self;
        }
        self.reachability
            .retain(|observer| !lost.contains(observer));
        self.unreachable = &self.unreachable & &self.reachability.unreachable();
        self
    }

    /// Whether each of `lost` is missed by somebody who has seen what this node sees, and reached by none of
    /// those of them that watch it.
    fn are_lost_for_all(
        &self,
        lost: &BTreeSet<NodeId>,
        ring_of: impl Fn(&NodeId) -> BTreeSet<NodeId>,
    ) -> bool {
        let (said, nobody) = (self.reachability.by_observer(), BTreeSet::new());
        let mut missed_by_none = lost.clone();
        for observer in &self.seen {
            let missed = said.get(observer).unwrap_or(&nobody);
            if !(&ring_of(observer) & lost).is_subset(missed) {
                return false;
            }
            missed_by_none.retain(|node| !missed.contains(node));
        }
        missed_by_none.is_empty()
    }

    /// Who can be put down: who takes part and is not about to go anyway.
    fn downable(&self) -> BTreeSet<NodeId> {
        let entries = self.view.iter();
        let downable = entries.filter(|(_, entry)| MOST.counts(entry, None));
        downable.map(|(node, _)| node.clone()).collect()
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

    /// Whom a decision of `rule` puts down; one that needs a lease as if it were granted.
    #[must_use]
    pub fn nodes_of(&self, rule: &Rule, decision: Decision) -> BTreeSet<NodeId> {
        let downable = self.downable();
        match decision {
            Decision::DownAll => downable,
            Decision::Nothing => BTreeSet::new(),
            Decision::DownReachable => &downable - &self.unreachable,
            Decision::DownUnreachable | Decision::LeaseThenDownUnreachable { .. } => {
                &downable & &self.unreachable
            }
            Decision::YieldIndirectlyConnected => {
                let reachable = &downable - &self.unreachable;
                &downable & &(&reachable | &self.indirectly_connected())
            }
            Decision::DownIndirectlyConnected | Decision::LeaseThenDownIndirectlyConnected => {
                let indirect = self.indirectly_connected();
                if self.unreachable.is_subset(&indirect) {
                    return &downable & &indirect;
                }
                match self.nodes_of_the_rest(rule, &downable) {
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
        rule: &Rule,
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
        let clear = rest.indirectly_connected().is_empty();
        clear.then(|| rest.nodes_of(rule, rule.decide(&rest)))
    }
}
