//! Deadlines: the part of a membership that waits: heartbeats, decisions, tombstones. Pure.

use crate::logic::convergence;
use crate::logic::downing::{Decision, Situation, Strategy};
use crate::logic::member::Status;
use crate::logic::membership::{Heard, Leasing, Membership, Output, Phase};
use crate::logic::message::{Beat, BeatKind, Message};
use crate::logic::stability::stable_after;
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Membership {
    /// How long the picture must hold still at the present size.
    fn stable_after(&self) -> Duration {
        let by_size = || stable_after(self.view.live().count());
        self.config.stable_after.unwrap_or_else(by_size)
    }

    /// If this call comes later than it should by more than two heartbeats, the process stood still.
    pub(crate) fn excuse_own_delay(&mut self, now: Time) {
        let late = now.saturating_since(self.expected);
        if late > self.config.heartbeat_interval * 2 {
            self.monitor.excuse(late);
            self.stability.excuse(now, late);
        }
    }

    pub(crate) fn beat(&mut self, now: Time) {
        if now >= self.next_beat {
            self.next_beat = now + self.config.heartbeat_interval;
            let beat = Beat {
                cluster: self.cluster,
                kind: BeatKind::Ping,
            };
            let watched = self.monitor.watched();
            let pings = watched.map(|node| Output::Send(node.addr, Message::Beat(beat)));
            self.outputs.extend(pings);
        }
        self.unsettled |= self.monitor.expire(now);
    }

    /// As the leader, calls seeds that are no members, so that one that was started again does not form
    /// a cluster of its own.
    pub(crate) fn call_seeds(&mut self, now: Time) {
        if now < self.next_call {
            return;
        }
        self.next_call = now + self.config.heartbeat_interval * 4;
        if self.leader.as_ref() != Some(&self.me) {
            return;
        }
        let members: BTreeSet<_> = self.peers.iter().chain([&self.me.addr]).copied().collect();
        let beat = Beat {
            cluster: self.cluster,
            kind: BeatKind::Ping,
        };
        let contacts = self.config.contacts.iter();
        let absent = contacts.filter(|addr| !members.contains(addr));
        let calls = absent.map(|addr| Output::Send(*addr, Message::Beat(beat)));
        self.outputs.extend(calls);
    }

    /// Lets joining members be used, if somebody was unreachable for long and this node leads.
    pub(crate) fn weaken(&mut self, now: Time) {
        if self.weakly_up_at().is_none_or(|at| now < at) {
            return;
        }
        for node in self.waiting() {
            self.unsettled |= self.view.advance(&node, Status::WeaklyUp);
        }
        self.settle(now);
    }

    /// When joining members become weakly up, if there are any and this node is the one to say it.
    fn weakly_up_at(&self) -> Option<Time> {
        let at = self.disputed? + self.config.weakly_up_after?;
        let leads = self.leader.as_ref() == Some(&self.me);
        let may = leads
            && self.my_status().is_some_and(Status::is_voting)
            && self.is_anyone_lost()
            && convergence::takes_on(&self.view, &self.config.minimum)
            && !self.waiting().is_empty();
        may.then_some(at)
    }

    /// Who is joining, reachable and alive.
    fn waiting(&self) -> Vec<NodeId> {
        let joining = self.view.live().filter(|(node, status)| {
            *status == Status::Joining
                && !self.unreachable.contains(*node)
                && (*node == &self.me || self.heard.contains_key(*node))
        });
        joining.map(|(node, _)| node.clone()).collect()
    }

    /// Whether anybody is unreachable who is not about to go anyway.
    fn is_anyone_lost(&self) -> bool {
        let status = |node: &NodeId| self.view.status(node);
        let mut lost = self.unreachable.iter();
        lost.any(|node| status(node).is_some_and(|status| status < Status::Exiting))
    }

    /// Decides who is out, if it is time and this node's part.
    pub(crate) fn decide(&mut self, now: Time) {
        if !self.is_member() {
            return;
        }
        self.forget_stale_wait();
        let (decide, give_up) = self.decision_times();
        if give_up.is_some_and(|at| now >= at) {
            return self.carry_out(now, Decision::DownAll);
        }
        if decide.is_none_or(|at| now < at) {
            return;
        }
        let decision = self.config.rule.decide(&self.situation());
        if !decision.needs_lease() {
            return self.carry_out(now, decision);
        }
        let minority = decision == Decision::LeaseThenDownUnreachable { minority: true };
        if minority && self.leasing == Leasing::Idle {
            self.leasing = Leasing::Waiting(now + self.config.lease_delay);
        } else {
            self.leases_asked += 1;
            self.leasing = Leasing::Asked(self.leases_asked);
            self.outputs
                .push_back(Output::AcquireLease(self.leases_asked));
        }
    }

    /// A wait for the lease that was begun on another picture counts for nothing.
    fn forget_stale_wait(&mut self) {
        if let Leasing::Waiting(at) = self.leasing {
            let begin = self.stability.decide_at(self.stable_after());
            if !self.is_anyone_lost() || begin + self.config.lease_delay > at {
                self.leasing = Leasing::Idle;
            }
        }
    }

    /// The answer to a request for the lease. What it is about is decided by the picture of now: if
    /// that has changed meanwhile, it must hold still first, and the lease is asked for again.
    pub(crate) fn leased(&mut self, now: Time, number: u64, granted: bool) {
        if self.leasing != Leasing::Asked(number) {
            return;
        }
        self.leasing = Leasing::Idle;
        let (decide, _) = self.decision_times();
        if self.is_member() && decide.is_some_and(|at| now >= at) {
            let decision = self.config.rule.decide(&self.situation());
            self.carry_out(now, decision.with_lease(granted));
        }
    }

    fn carry_out(&mut self, now: Time, decision: Decision) {
        let down = self.situation().nodes_of(&self.config.rule, decision);
        self.put_down(&down);
        self.leasing = Leasing::Idle;
        self.stability.decided(now);
    }

    /// When this node decides, if that is its part, and when it gives up.
    fn decision_times(&self) -> (Option<Time>, Option<Time>) {
        if !self.is_anyone_lost() || self.config.rule.strategy == Strategy::Manual {
            return (None, None);
        }
        let wait = self.stable_after();
        let leads = self.leader.as_ref() == Some(&self.me);
        // Where nobody has a say yet, somebody has to decide as well, or all would wait for ever.
        let nobody_votes = || !self.view.live().any(|(_, status)| status.is_voting());
        let decides = leads && (self.my_status().is_some_and(Status::is_voting) || nobody_votes());
        let decide = match self.leasing {
            _ if !decides => None,
            Leasing::Asked(_) => None,
            Leasing::Idle => Some(self.stability.decide_at(wait)),
            Leasing::Waiting(at) => Some(at.max(self.stability.decide_at(wait))),
        };
        let gives_up = self.config.down_all_when_unstable;
        let give_up = self.stability.give_up_at(wait).filter(|_| gives_up);
        (decide, give_up)
    }

    fn situation(&self) -> Situation<'_> {
        let agrees = |(_, heard): &(&NodeId, &Heard)| heard.digest == self.published.digest;
        let seen = self.heard.iter().filter(agrees).map(|(node, _)| node);
        let situation = Situation {
            view: &self.view,
            reachability: self.reachability.clone(),
            unreachable: self.unreachable.clone(),
            seen: seen.chain([&self.me]).cloned().collect(),
        };
        situation.without_words_of_the_lost(&self.config.rule, |observer| {
            self.monitor
                .ring_of(observer, &self.view, &self.unreachable)
        })
    }

    /// Quarantines members whose farewell is over, and forgets tombstones that all have seen.
    pub(crate) fn bury(&mut self, now: Time) {
        let due = |times: &BTreeMap<NodeId, Time>, after: Duration| {
            let due = times.iter().filter(|(_, at)| now >= **at + after);
            due.map(|(node, _)| node.clone()).collect::<Vec<_>>()
        };
        for node in due(&self.farewells, Duration::ZERO) {
            self.farewells.remove(&node);
            self.outputs.push_back(Output::Quarantine(node));
        }
        for node in due(&self.removed, self.config.tombstone_after) {
            if self.converged {
                self.removed.remove(&node);
                self.view.prune(&node);
                self.graveyard.bury(node);
                self.unsettled = true;
            } else {
                self.removed.insert(node, now);
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Time {
        match &self.phase {
            Phase::Ended(_) => Time::MAX,
            Phase::Knocking(knocking) => match self.turning_back {
                Some((until, _)) => until,
                None if self.held => Time::MAX,
                None => knocking.timeout(),
            },
            Phase::Member => {
                let (decide, give_up) = self.decision_times();
                let tombstone = self.removed.values().min();
                let joining = self.my_status() == Some(Status::Joining);
                let leads = self.leader.as_ref() == Some(&self.me);
                [
                    Some(self.next_beat),
                    leads.then_some(self.next_call),
                    self.weakly_up_at(),
                    joining.then_some(self.next_knock),
                    self.monitor.deadline(),
                    decide,
                    give_up,
                    self.farewells.values().min().copied(),
                    tombstone.map(|at| *at + self.config.tombstone_after),
                ]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(Time::MAX)
            }
        }
    }
}
