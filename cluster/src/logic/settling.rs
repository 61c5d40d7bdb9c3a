//! Settling: what follows when facts or observations of a membership have changed. Pure.
//!
//! Always the same steps in the same order, until nothing changes any more: listen to those who
//! have been let in, put down earlier runs at one address, work out who is reachable, follow the
//! ring, publish, lead. Then the outside is told, once, and a node that is out ends.

use crate::logic::convergence;
use crate::logic::digest::Digest;
use crate::logic::door::JoinAnswer;
use crate::logic::member::Status;
use crate::logic::membership::{End, Membership, Output, Told};
use crate::logic::message::{Beat, BeatKind, Message};
use crate::logic::state::{ClusterEvent, steps};
use crate::logic::statement::Statement;
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Membership {
    /// Brings everything that follows from facts and observations up to date.
    pub(crate) fn settle(&mut self, now: Time) {
        if !self.is_member() {
            return;
        }
        while self.unsettled || self.digests_changed {
            if self.unsettled {
                self.unsettled = false;
                while self.hear_strangers() {}
                self.part_twins();
                self.work_out_reachability(now);
                self.publish();
            }
            self.digests_changed = false;
            self.look_around(now);
            self.tell(now);
            self.lead();
        }
        for node in std::mem::take(&mut self.accepted) {
            if self.view.is_live(&node) {
                let statement = Box::new((*self.published).clone());
                let answer = JoinAnswer::Accepted(statement);
                self.send(node.addr, Message::Answer(node.incarnation, answer));
            }
        }
        match self.my_status() {
            Some(Status::Removed) if self.wished_to_leave => self.end_with(End::Left),
            Some(status) if !status.is_live() => self.end_with(End::Downed),
            _ => {}
        }
    }

    /// Of two live runs at one address the one that started later is the living one.
    fn part_twins(&mut self) {
        let rank = |id: &NodeId| (self.view.get(id).map(|e| e.started), id.incarnation);
        let mut earlier = BTreeSet::new();
        let mut before: Option<&NodeId> = None;
        // Nodes are ordered by address first, so the runs at one address are neighbours.
        for (node, _) in self.view.live() {
            let twin = before.filter(|other| other.addr == node.addr);
            let (lower, higher) = match twin {
                Some(other) if rank(other) > rank(node) => (Some(node), other),
                _ => (twin, node),
            };
            earlier.extend(lower.cloned());
            before = Some(higher);
        }
        self.put_down(&earlier);
    }

    fn work_out_reachability(&mut self, now: Time) {
        self.heard.retain(|node, _| self.view.is_live(node));
        self.said.retain(|node| self.view.is_live(node));
        self.said.set(&self.me, self.monitor.unreachable());
        self.reachability = self.said.among_live(&self.view);
        let mut unreachable = self.reachability.unreachable();
        unreachable.remove(&self.me);
        self.monitor.follow(now, &self.view, &unreachable);
        if unreachable != self.unreachable {
            // Who is out is not back.
            let mut gone = self.unreachable.difference(&unreachable);
            if gone.any(|node| self.view.is_live(node)) {
                self.stability.came_back(now);
            } else {
                self.stability.lost(now);
            }
            self.unreachable = unreachable;
        }
        let going = |node: &NodeId| self.view.status(node) == Some(Status::Exiting);
        if self.unreachable.iter().all(going) {
            self.stability.settled();
        }
        if self.view.is_live(&self.me) {
            let live = self.view.live().filter(|(node, _)| **node != self.me);
            self.peers = live.map(|(node, _)| node.addr).collect();
        }
    }

    fn publish(&mut self) {
        let mut digest = Digest::new();
        self.view.feed(&mut digest);
        self.reachability.feed(&mut digest);
        let digest = digest.finish();
        let last = &self.published;
        let same = last.version > 0
            && last.digest == digest
            && last.view == self.view
            && last.unreachable == *self.monitor.unreachable();
        if !same {
            self.published = Arc::new(Statement {
                author: self.me.clone(),
                cluster: self.cluster,
                version: last.version + 1,
                digest,
                view: self.view.clone(),
                unreachable: self.monitor.unreachable().clone(),
            });
            let statement = self.published.clone();
            self.outputs.push_back(Output::Publish(statement));
        }
    }

    /// Works out who leads, and whether all agree.
    fn look_around(&mut self, now: Time) {
        self.leader = convergence::leader(&self.view, &self.unreachable, &self.me);
        let published = |node: &NodeId| self.heard.get(node).map(|heard| heard.digest);
        let digest = self.published.digest;
        self.converged =
            convergence::is_converged(&self.view, &self.unreachable, &self.me, digest, published);
        self.disputed = (!self.converged).then(|| self.disputed.unwrap_or(now));
    }

    /// Does the leader's part, if it is this node's. What was before has been told by then, so that
    /// no step is passed over.
    fn lead(&mut self) {
        if !self.converged || self.leader.as_ref() != Some(&self.me) {
            return;
        }
        let heard = |node: &NodeId| self.heard.contains_key(node);
        let minimum = &self.config.minimum;
        let moves = convergence::moves(&self.view, &self.me, minimum, heard);
        for (node, status) in moves {
            if status == Status::Up {
                self.view.raise(&node);
            } else {
                self.view.advance(&node, status);
            }
            self.unsettled = true;
        }
    }

    /// Tells the outside what has changed since it was told last.
    fn tell(&mut self, now: Time) {
        let told_all = self.told.leader == self.leader
            && self.told.stopping == self.view.is_stopping()
            && self.told.unreachable == self.unreachable
            && self.told.statuses.len() == self.view.len()
            && self
                .view
                .iter()
                .zip(&self.told.statuses)
                .all(|((node, entry), (id, status))| node == id && entry.status == *status);
        if told_all {
            return;
        }
        let told = std::mem::take(&mut self.told);
        let mut news = Vec::new();
        let mut out = Vec::new();
        let mut members_changed = false;
        for (node, entry) in self.view.iter() {
            let before = told.statuses.get(node).copied();
            if before == Some(entry.status) {
                continue;
            }
            members_changed |= before.is_some_and(Status::is_voting) || entry.status.is_voting();
            news.extend(steps(node, before, entry.status));
            if !entry.status.is_live() && before.is_none_or(Status::is_live) {
                out.push((node.clone(), entry.status));
            }
            if entry.status == Status::Removed {
                self.removed.insert(node.clone(), now);
            }
        }
        for node in self.unreachable.difference(&told.unreachable) {
            news.push(ClusterEvent::Unreachable(node.clone()));
        }
        for node in told.unreachable.difference(&self.unreachable) {
            if self.view.is_live(node) {
                news.push(ClusterEvent::ReachableAgain(node.clone()));
            }
        }
        if self.view.is_stopping() && !told.stopping {
            news.push(ClusterEvent::PreparingForShutdown);
        }
        if self.leader != told.leader {
            news.push(ClusterEvent::LeaderChanged(self.leader.clone()));
        }
        if members_changed {
            self.stability.members_changed(now);
        }
        self.outputs.extend(news.into_iter().map(Output::Event));
        for (node, status) in out {
            self.part_from(now, node, status);
        }
        let statuses = self.view.iter().map(|(node, e)| (node.clone(), e.status));
        self.told = Told {
            statuses: statuses.collect(),
            unreachable: self.unreachable.clone(),
            leader: self.leader.clone(),
            stopping: self.view.is_stopping(),
        };
    }

    /// A member is out: it is told so, and no longer talked to. One that was removed without having
    /// been put down has left in peace, and is given time to hear of its removal.
    fn part_from(&mut self, now: Time, node: NodeId, status: Status) {
        if node == self.me {
            return;
        }
        let verdict = Beat {
            cluster: self.cluster,
            kind: BeatKind::Verdict {
                incarnation: node.incarnation,
                status,
            },
        };
        self.send(node.addr, Message::Beat(verdict));
        if status == Status::Removed {
            self.farewells.insert(node, now + self.config.farewell);
        } else if self.view.is_live(&self.me) {
            // Who is out itself still has to tell the others.
            self.outputs.push_back(Output::Quarantine(node));
        }
    }
}
