//! Singleton: when a node may run the one actor of a name, and when it must stop. Pure.
//!
//! The actor belongs to the oldest member that is up. Ages only grow, so whoever comes next is
//! younger than all who ran it before; and whoever became up had heard of all that are older. So it is
//! enough that a node which becomes the oldest hears from each older one, or of its end:
//!
//! | an older member is | what the next one waits for |
//! | --- | --- |
//! | leaving or exiting | its word that the actor has ended there, or never ran; that holds for good |
//! | removed after it was exiting | nothing: a node says that it is exiting when it has handed over |
//! | down, or gone in any other way | a margin, in which the lost node learns that it is out and stops |
//!
//! ```text
//!            oldest        all released       term          leaves        ended
//!   Idle ------------> Claiming ------> Acquiring --> Running ----> Stopping ----> Done
//!                          ^                             | ended
//!                          +---------- Resting <---------+
//! ```
//!
//! What it takes to get a term is the host's business: a store of terms, a lease that one node holds at
//! a time. From then on until the actor has ended the attempt that got it is the node's *tenure*
//! ([`Singleton::tenure`]); when the lease is lost in it, the actor is stopped at once.
//!
//! **What is not promised:** a node that is paused, or cut off on both sides of a decision, may run the
//! actor longer than the margin. The term tells the two apart: the later one is greater.

use crate::logic::member::{Member, Status};
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Settings of the pure part.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SingletonSettings {
    /// How long after the loss of an older member the actor is started.
    pub margin: Duration,
    /// Between two claims to a node that has not answered.
    pub claim_every: Duration,
    /// The pause before the actor is started again here.
    pub restart_after: Duration,
    /// The first pause after no term was got; it doubles.
    pub retry_min: Duration,
    /// The longest pause after no term was got.
    pub retry_max: Duration,
}

impl Default for SingletonSettings {
    fn default() -> Self {
        Self {
            margin: Duration::from_secs(3),
            claim_every: Duration::from_millis(200),
            restart_after: Duration::from_secs(1),
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// What two nodes say to each other about one singleton.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// The sender is the oldest now: say when the actor has ended at yours.
    Claim,
    /// The actor does not run at the sender, and never will in this run of the node.
    Released,
}

/// What a singleton wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Get a term, and answer with [`Singleton::acquired`] of the same number.
    Acquire {
        /// Tells attempts apart.
        attempt: u64,
        /// The term that follows from the membership alone.
        by_age: u64,
    },
    /// Send a message; it may be lost.
    Send(NodeId, Message),
    /// Start the actor; its end is reported with [`Singleton::ended`].
    Start {
        /// The term to give it.
        term: u64,
    },
    /// Stop the actor.
    Stop {
        /// Nobody else starts it meanwhile, so what waits for it can be handled first.
        in_peace: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Idle,
    Claiming,
    Acquiring,
    Running,
    Stopping,
    Resting(Time),
    Done,
}

/// One node's part in one singleton.
#[derive(Debug)]
pub struct Singleton {
    me: NodeId,
    settings: SingletonSettings,
    members: BTreeMap<NodeId, Member>,
    phase: Phase,
    /// This node is leaving, or out: the actor will not run here any more.
    parting: bool,
    out: bool,
    /// Who has said that it is done with it.
    released: BTreeSet<NodeId>,
    /// Who wants to hear when this node is done with it.
    claimants: BTreeSet<NodeId>,
    /// Until when a lost node may not know yet that it is.
    lost_until: Time,
    claim_at: Time,
    attempt: u64,
    /// Attempts in a row that got no term.
    failures: u32,
    outputs: VecDeque<Output>,
}

impl Singleton {
    /// Knows no member yet.
    #[must_use]
    pub fn new(me: NodeId, settings: SingletonSettings) -> Self {
        Self {
            me,
            settings,
            members: BTreeMap::new(),
            phase: Phase::Idle,
            parting: false,
            out: false,
            released: BTreeSet::new(),
            claimants: BTreeSet::new(),
            lost_until: Time::ZERO,
            claim_at: Time::ZERO,
            attempt: 0,
            failures: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The members among whom the oldest is the one, whatever their state.
    pub fn set_members(&mut self, now: Time, members: BTreeMap<NodeId, Member>) {
        let before = std::mem::replace(&mut self.members, members);
        let lost = before.values().any(|was| self.is_lost(was));
        // Somebody may be out from before this node began to look.
        let found_out = self.members.values().any(|member| {
            let news = !before.contains_key(&member.id);
            news && member.status == Status::Down && member.age.is_some()
        });
        if lost || found_out {
            self.lost_until = now + self.settings.margin;
        }
        let members = &self.members;
        self.released.retain(|node| members.contains_key(node));
        self.claimants.retain(|node| members.contains_key(node));
        let own = self.members.get(&self.me);
        self.parting |= own.is_some_and(|own| own.status >= Status::Leaving);
        self.out |= own.is_some_and(|own| !own.status.is_live());
        self.decide(now);
    }

    /// Whether a member that could have run the actor has gone without saying that it does not.
    fn is_lost(&self, was: &Member) -> bool {
        if was.id == self.me || was.age.is_none() || !was.status.is_live() {
            return false;
        }
        let own = self.members.get(&self.me);
        let is_younger = own.is_some_and(|own| own.seniority() < was.seniority());
        let still_there = self.members.get(&was.id);
        let is_there = still_there.is_some_and(|member| member.status.is_live());
        let was_downed = still_there.is_some_and(|member| member.status == Status::Down);
        let in_peace = was.status == Status::Exiting && !was_downed;
        !is_there && !is_younger && !in_peace && !self.released.contains(&was.id)
    }

    /// This node is about to leave: the actor is handed over.
    pub fn hand_over(&mut self, now: Time) {
        self.parting = true;
        self.decide(now);
    }

    /// This node is out: the actor must stop at once.
    pub fn out(&mut self, now: Time) {
        (self.parting, self.out) = (true, true);
        self.decide(now);
    }

    /// A message of `from`, who is really the sender.
    pub fn handle(&mut self, now: Time, from: &NodeId, message: Message) {
        if !self.members.contains_key(from) {
            return;
        }
        match message {
            Message::Claim if self.phase == Phase::Done => self.say(from, Message::Released),
            Message::Claim => {
                self.claimants.insert(from.clone());
            }
            Message::Released => {
                self.released.insert(from.clone());
                self.decide(now);
            }
        }
    }

    /// The answer to [`Output::Acquire`]; without a term it is tried again.
    pub fn acquired(&mut self, now: Time, attempt: u64, term: Option<u64>) {
        if self.phase != Phase::Acquiring || attempt != self.attempt {
            return;
        }
        match term {
            Some(term) => {
                self.failures = 0;
                self.phase = Phase::Running;
                self.outputs.push_back(Output::Start { term });
            }
            None => {
                let SingletonSettings {
                    retry_min,
                    retry_max,
                    ..
                } = self.settings;
                let pause = retry_min.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                self.phase = Phase::Resting(now + pause.min(retry_max));
            }
        }
    }

    /// What the attempt had got is not this node's any more: the actor must stop at once.
    pub fn lost(&mut self, attempt: u64) {
        if self.is_running() && attempt == self.attempt {
            self.phase = Phase::Stopping;
            let in_peace = false;
            self.outputs.push_back(Output::Stop { in_peace });
        }
    }

    /// The attempt whose lease is to be held: it is being got, or the actor that it was got for has
    /// not ended.
    #[must_use]
    pub fn tenure(&self) -> Option<u64> {
        let needed = self.phase == Phase::Acquiring || self.is_running();
        needed.then_some(self.attempt)
    }

    /// The actor has ended, or could not be started.
    pub fn ended(&mut self, now: Time) {
        match self.phase {
            Phase::Running => self.rest(now),
            Phase::Stopping => self.phase = Phase::Idle,
            _ => {}
        }
        self.decide(now);
    }

    fn rest(&mut self, now: Time) {
        self.phase = Phase::Resting(now + self.settings.restart_after);
    }

    /// Goes on, if it is time.
    pub fn handle_timeout(&mut self, now: Time) {
        self.decide(now);
    }

    /// Whether the actor is handed over for good.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether the actor runs here, as far as this knows.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Stopping)
    }

    fn decide(&mut self, now: Time) {
        let mine = !self.parting && self.is_mine();
        match self.phase {
            Phase::Running if !mine => {
                let in_peace = !self.out;
                self.phase = Phase::Stopping;
                self.outputs.push_back(Output::Stop { in_peace });
            }
            Phase::Stopping | Phase::Running | Phase::Done => {}
            _ if self.parting => self.done(),
            _ if !mine => self.phase = Phase::Idle,
            Phase::Resting(until) if now < until => {}
            Phase::Acquiring => {}
            Phase::Idle | Phase::Claiming | Phase::Resting(_) => {
                self.phase = Phase::Claiming;
                self.claim(now);
            }
        }
    }

    /// Whether this is the oldest member that is up.
    fn is_mine(&self) -> bool {
        let up = self.members.values().filter(|m| m.status == Status::Up);
        let oldest = up.min_by_key(|member| member.seniority());
        oldest.is_some_and(|oldest| oldest.id == self.me && oldest.age.is_some())
    }

    /// Asks those who may still have the actor, and goes on when there is none.
    fn claim(&mut self, now: Time) {
        let open: Vec<NodeId> = self.open().cloned().collect();
        if open.is_empty() && now >= self.lost_until {
            self.phase = Phase::Acquiring;
            self.attempt += 1;
            let age = self.members.get(&self.me).and_then(|own| own.age);
            let attempt = self.attempt;
            let by_age = age.unwrap_or(0) << 32 | attempt & 0xFFFF_FFFF;
            self.outputs.push_back(Output::Acquire { attempt, by_age });
        } else if now >= self.claim_at {
            self.claim_at = now + self.settings.claim_every;
            for node in open {
                self.say(&node, Message::Claim);
            }
        }
    }

    /// The older members that live and have not said that they are done.
    fn open(&self) -> impl Iterator<Item = &NodeId> {
        let own = self.members.get(&self.me);
        let older = self.members.values().filter(move |member| {
            let is_older = own.is_some_and(|own| member.seniority() < own.seniority());
            is_older && member.status.is_live() && !self.released.contains(&member.id)
        });
        older.map(|member| &member.id)
    }

    /// The actor will not run here any more: those who may be next are told.
    fn done(&mut self) {
        self.phase = Phase::Done;
        let up = self.members.values().filter(|m| m.status == Status::Up);
        let next = up.min_by_key(|member| member.seniority());
        let next = next.map(|member| member.id.clone());
        self.claimants.extend(next.filter(|next| *next != self.me));
        for node in std::mem::take(&mut self.claimants) {
            self.say(&node, Message::Released);
        }
    }

    fn say(&mut self, to: &NodeId, message: Message) {
        self.outputs.push_back(Output::Send(to.clone(), message));
    }

    /// The next thing that is to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Singleton::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Resting(until) => Some(until),
            Phase::Claiming if self.open().next().is_some() => Some(self.claim_at),
            Phase::Claiming => Some(self.lost_until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
