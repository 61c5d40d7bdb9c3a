//! Entering: the part of a membership that asks to be let in, and that answers at the door. Pure.

use crate::logic::door::{JoinAnswer, JoinRequest, Refusal, compare, compare_shared};
use crate::logic::member::Status;
use crate::logic::membership::{End, Membership, Phase};
use crate::logic::message::Message;
use crate::logic::view::{Entry, View};
use otava_actor::Time;
use otava_remote::NodeId;
use std::net::SocketAddr;

impl Membership {
    /// Begins to ask, if this node was held back.
    pub(crate) fn knock_now(&mut self, now: Time) {
        let held = std::mem::take(&mut self.held);
        if let Phase::Knocking(knocking) = &mut self.phase
            && held
        {
            knocking.begin(now);
        }
    }

    pub(crate) fn knock(&mut self, now: Time) {
        if self.held {
            return;
        }
        let Phase::Knocking(knocking) = &mut self.phase else {
            return;
        };
        if let Some((until, _)) = self.turning_back {
            if now >= until {
                self.end_with(End::Left);
            }
            return;
        }
        if knocking.forms(now) {
            let mut view = View::new();
            let entry = Entry::joining(self.config.started);
            view.add(&self.me, entry.with_profile(self.config.profile.clone()));
            let cluster = self.me.incarnation;
            return self.enter(now, cluster, view);
        }
        let due = knocking.due(now);
        self.request(due);
    }

    /// While nobody but the one who let it in may know of this node, it asks others too.
    pub(crate) fn knock_again(&mut self, now: Time) {
        if self.my_status() != Some(Status::Joining) || now < self.next_knock {
            return;
        }
        self.next_knock = now + self.config.join_retry * 2;
        let others: Vec<SocketAddr> = self.peers.clone();
        if let Some(one) = others.get(self.knocks % others.len().max(1)) {
            self.knocks += 1;
            self.request(vec![*one]);
        }
    }

    fn request(&mut self, to: Vec<SocketAddr>) {
        for addr in to {
            let request = JoinRequest {
                started: self.config.started,
                settings: self.config.settings.clone(),
                shared: self.shared.clone(),
                profile: self.config.profile.clone(),
            };
            self.send(addr, Message::Request(request));
        }
    }

    fn enter(&mut self, now: Time, cluster: u64, view: View) {
        self.cluster = cluster;
        self.view = view;
        self.phase = Phase::Member;
        self.next_beat = now;
        self.next_knock = now + self.config.join_retry * 2;
        self.unsettled = true;
        self.settle(now);
    }

    /// A member of some cluster has called this node, which is in none.
    pub(crate) fn called(&mut self, now: Time, from: &NodeId) {
        if let Phase::Knocking(knocking) = &mut self.phase {
            knocking.called(now, from.addr);
        }
    }

    pub(crate) fn answer(&mut self, now: Time, from: &NodeId, answer: JoinAnswer) {
        let Phase::Knocking(knocking) = &mut self.phase else {
            return;
        };
        match answer {
            JoinAnswer::NotYet => knocking.put_off(now),
            JoinAnswer::Outside { candidate } => knocking.outside(now, from.addr, candidate),
            JoinAnswer::Refused(refusal) => self.end_with(End::Refused(refusal)),
            JoinAnswer::Accepted(statement) => {
                if statement.is_bounded() && statement.view.is_live(&self.me) {
                    let mut statement = *statement;
                    let view = std::mem::take(&mut statement.view);
                    self.heed(&statement);
                    self.enter(now, statement.cluster, view);
                    if let Some((_, status)) = self.turning_back.take() {
                        self.move_myself(now, status);
                    }
                }
            }
        }
    }

    /// Whether this node may let others in: it has a say, or nobody has, as long as there are too few
    /// members for any to become up.
    fn lets_in(&self) -> bool {
        let mine = self.my_status();
        let nobody_votes = || !self.view.live().any(|(_, status)| status.is_voting());
        let has_say = mine.is_some_and(Status::is_voting)
            || (mine.is_some_and(Status::is_entering) && nobody_votes());
        has_say && self.is_member() && !self.view.is_stopping()
    }

    /// Somebody stands at the door.
    pub(crate) fn asked(&mut self, from: NodeId, request: &JoinRequest) {
        let answer = if let Phase::Knocking(knocking) = &self.phase {
            let candidate = knocking.candidate().filter(|_| !self.held);
            JoinAnswer::Outside { candidate }
        } else if !self.lets_in() {
            JoinAnswer::NotYet
        } else if self.is_out(&from) {
            JoinAnswer::Refused(Refusal::Out)
        } else if let Err(refusal) = compare(&request.settings, &self.config.settings) {
            JoinAnswer::Refused(refusal)
        } else if let Err(refusal) = compare_shared(&request.shared, &self.shared) {
            JoinAnswer::Refused(refusal)
        } else {
            if self.view.get(&from).is_none() {
                let twins = self.view.live_twins(&from).cloned().collect();
                self.put_down(&twins);
                let entry = Entry::joining(request.started);
                self.view
                    .add(&from, entry.with_profile(request.profile.clone()));
                self.unsettled = true;
            }
            self.accepted.push(from);
            return;
        };
        self.send(from.addr, Message::Answer(from.incarnation, answer));
    }
}
