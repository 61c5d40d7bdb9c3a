//! Deadlines: the part of a membership that waits: heartbeats, decisions, tombstones. Pure.

use crate::logic::downing::{Decision, Situation, Strategy};
use crate::logic::member::Status;
use crate::logic::membership::{Beat, BeatKind, Heard, Membership, Message, Output, Phase};
use crate::logic::stability::stable_after;
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

impl Membership {
    /// How long the picture must hold still at the present size.
    fn stable_after(&self) -> Duration {
        let by_size = || stable_after(self.view.live().count());
        self.config.stable_after.unwrap_or_else(by_size)
    }

    /// If this call comes later than it should by more than a heartbeat, the process stood still.
    pub(crate) fn excuse_own_delay(&mut self, now: Time) {
        let late = now.saturating_since(self.expected);
        if late > self.config.heartbeat_interval {
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

    /// Decides who is out, if it is time and this node's part.
    pub(crate) fn decide(&mut self, now: Time) {
        let strategy = self.config.strategy;
        if !self.is_member() || strategy == Strategy::Manual {
            return;
        }
        let (decide, give_up) = self.decision_times();
        let down = if give_up.is_some_and(|at| now >= at) {
            self.situation().nodes_of(strategy, Decision::DownAll)
        } else if decide.is_some_and(|at| now >= at) {
            strategy.nodes_to_down(&self.situation())
        } else {
            return;
        };
        self.put_down(&down);
        self.stability.decided(now);
    }

    /// When this node decides, if that is its part, and when it gives up.
    fn decision_times(&self) -> (Option<Time>, Option<Time>) {
        if self.unreachable.is_empty() || self.config.strategy == Strategy::Manual {
            return (None, None);
        }
        let wait = self.stable_after();
        let leads = self.leader.as_ref() == Some(&self.me);
        let decides = leads && self.my_status().is_some_and(Status::is_voting);
        (
            decides.then(|| self.stability.decide_at(wait)),
            self.stability.give_up_at(wait),
        )
    }

    fn situation(&self) -> Situation<'_> {
        let agrees = |(_, heard): &(&NodeId, &Heard)| heard.digest == self.published.digest;
        let seen = self.heard.iter().filter(agrees).map(|(node, _)| node);
        Situation {
            view: &self.view,
            reachability: self.reachability.clone(),
            unreachable: self.unreachable.clone(),
            seen: seen.chain([&self.me]).cloned().collect(),
        }
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
                None => knocking.timeout(),
            },
            Phase::Member => {
                let (decide, give_up) = self.decision_times();
                let tombstone = self.removed.values().min();
                let joining = self.my_status() == Some(Status::Joining);
                [
                    Some(self.next_beat),
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
