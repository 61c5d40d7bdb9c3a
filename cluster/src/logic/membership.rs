//! Membership: one node's part in the cluster, from asking to be let in to its end. Pure.
//!
//! The parts stand in their own files: the lattice of facts ([`crate::logic::view`]), who watches
//! whom ([`crate::logic::monitor`]), when all agree and what is done then
//! ([`crate::logic::convergence`]), who is put down ([`crate::logic::downing`]), how one gets in
//! ([`crate::logic::door`]). This machine ties them together:
//!
//! ```text
//! requests, answers, heartbeats, statements, wishes ──► handle ──► facts, observations
//!                                                                       │ settle
//! messages, statement to publish, events, quarantine, end ◄── outputs ◄─┘
//! ```
//!
//! Everything a node knows is one view, a set of facts that only grows, and the observations of who
//! cannot reach whom. Every node publishes both as its statement; somebody else carries statements
//! around. Each change is followed by the same steps (`settle`): follow the ring, publish, act as
//! the leader if all agree, tell what changed. What a node does depends only on what it knows, not
//! on the order in which it learnt it.
//!
//! **Invariants.** The tests in `tests/it/simulation` hold them over random faults.
//!
//! - *Facts only grow.* Nothing revives what is out: neither late news (states only go up), nor
//!   news from before a tombstone was forgotten (the graveyard answers it with the tombstone).
//! - *Only members are heard.* A statement counts if its author is live in the view of the reader
//!   and speaks of the same cluster. Statements of strangers wait until a member has let them in; so
//!   two clusters that meet, or the sides of a split that healed too late, never mix.
//! - *One step at a time.* The leader moves members only when all that have a say hold its digest
//!   and nobody is unreachable. Two sides of a split are at most one step apart.
//! - *Out means out.* A node that learns that it is down or removed ends, whoever said so. Ending
//!   is always safe; going on may not be.
//! - *No two at an address.* Whoever lets a new run in puts down the old one first. If two members
//!   let in two runs without knowing of each other, all who see both put down the earlier one.
//! - *A held-up process blames nobody.* If this machine is driven late by more than a heartbeat, the
//!   time is taken from no peer's account, and decisions wait anew: what it knows is old.
//!
//! Tempting and wrong: merging whatever arrives (a healed minority would drag the majority down, or
//! be revived by it); letting everybody decide about others on partial knowledge (only the leader
//! of the reachable decides, and all others only give up); trusting an address (a new run at the
//! address of an old one answers heartbeats in its own name, so the old one is found dead).

use crate::logic::door::{JoinAnswer, JoinRequest, Knocking, Refusal, compare};
use crate::logic::downing::{Decision, Situation, Strategy};
use crate::logic::graveyard::Graveyard;
use crate::logic::member::Status;
use crate::logic::monitor::Monitor;
use crate::logic::phi::PhiConfig;
use crate::logic::reachability::Reachability;
use crate::logic::stability::{Stability, stable_after};
use crate::logic::state::{ClusterEvent, ClusterState};
use crate::logic::statement::Statement;
use crate::logic::view::{Entry, View};
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Statements of unknown authors that are kept until a member lets the author in.
const STRANGERS_MAX: usize = 64;

/// What a membership is built from.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// The addresses that are asked to be let in.
    pub seeds: Vec<SocketAddr>,
    /// When this node was started, in milliseconds of its wall clock.
    pub started: u64,
    /// Settings that must be the same on all nodes.
    pub settings: BTreeMap<String, String>,
    /// Between two attempts to be let in.
    pub join_retry: Duration,
    /// How long the first seed asks the others before it forms a cluster.
    pub form_after: Duration,
    /// Between two heartbeats to the same node.
    pub heartbeat_interval: Duration,
    /// When silence becomes suspicion.
    pub phi: PhiConfig,
    /// How many nodes are watched.
    pub neighbours: usize,
    /// Who goes on after a split.
    pub strategy: Strategy,
    /// How long the picture must hold still before a decision; by the number of members if `None`.
    pub stable_after: Option<Duration>,
    /// For how long tombstones are published.
    pub tombstone_after: Duration,
    /// How long after its removal a member that left is still talked to, so that it learns of it.
    pub farewell: Duration,
}

/// A sign of life, or the news that it came from one who is out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Beat {
    /// The cluster it is about.
    pub cluster: u64,
    /// What it says.
    pub kind: BeatKind,
}

/// What a [`Beat`] says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BeatKind {
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// The run with this incarnation, at the address to which this is sent, is out.
    Verdict {
        /// Its incarnation; another run may have the address by now.
        incarnation: u64,
        /// Down or removed.
        status: Status,
    },
}

/// What passes from node to node besides statements.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// An answer at the door, to the run with this incarnation.
    Answer(u64, JoinAnswer),
    /// A sign of life.
    Beat(Beat),
    /// A request at the door.
    Request(JoinRequest),
}

/// What happens to a membership.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// Somebody decided that a member is out.
    Down(NodeId),
    /// What this node had is handed over.
    FinishLeave,
    /// This node shall leave; its hand-over begins.
    Leave,
    /// A peer sent a message.
    Message(NodeId, Message),
    /// A peer refuses to talk to this run of this node.
    QuarantinedBy(NodeId),
    /// A statement arrived, by whatever way.
    Statement(Arc<Statement>),
}

/// What a membership wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// It is over. Nothing follows.
    Ended(End),
    /// Tell whoever listens.
    Event(ClusterEvent),
    /// Make this statement known to all, in place of the one before.
    Publish(Arc<Statement>),
    /// Exchange nothing with this run of a node any more.
    Quarantine(NodeId),
    /// Send a message; it may be lost.
    Send(SocketAddr, Message),
}

/// How a membership ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum End {
    /// This node was declared out.
    Downed,
    /// It left, and was removed.
    Left,
    /// It was not let in.
    Refused(Refusal),
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Knocking(Knocking),
    Member,
    Ended(End),
}

/// What was heard last from a member.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) version: u64,
    pub(crate) digest: u64,
}

/// What the outside was told last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) statuses: BTreeMap<NodeId, Status>,
    pub(crate) unreachable: BTreeSet<NodeId>,
    pub(crate) leader: Option<NodeId>,
}

/// The membership of one node.
#[derive(Debug)]
pub struct Membership {
    pub(crate) me: NodeId,
    pub(crate) config: MembershipConfig,
    pub(crate) phase: Phase,
    pub(crate) cluster: u64,
    pub(crate) view: View,
    pub(crate) monitor: Monitor,
    /// What members say, this node included; see [`Membership::reachability`] for what counts.
    pub(crate) said: Reachability,
    pub(crate) heard: BTreeMap<NodeId, Heard>,
    strangers: BTreeMap<NodeId, Arc<Statement>>,
    pub(crate) published: Arc<Statement>,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) leader: Option<NodeId>,
    pub(crate) converged: bool,
    pub(crate) reachability: Reachability,
    pub(crate) unreachable: BTreeSet<NodeId>,
    pub(crate) stability: Stability,
    quarantined_by: BTreeSet<NodeId>,
    pub(crate) graveyard: Graveyard,
    /// When the tombstones were put up.
    pub(crate) removed: BTreeMap<NodeId, Time>,
    /// Whom to quarantine when.
    pub(crate) farewells: BTreeMap<NodeId, Time>,
    pub(crate) told: Told,
    /// Who waits for the answer that it is in.
    pub(crate) accepted: Vec<NodeId>,
    pub(crate) wished_to_leave: bool,
    next_beat: Time,
    next_knock: Time,
    knocks: usize,
    expected: Time,
    /// Facts or observations have changed since everything was settled.
    pub(crate) unsettled: bool,
    /// Somebody has published another digest: maybe all agree now.
    pub(crate) digests_changed: bool,
    pub(crate) outputs: VecDeque<Output>,
}

impl Membership {
    /// Starts asking to be let in, or forms a cluster if there is nobody to ask.
    #[must_use]
    pub fn new(me: NodeId, config: MembershipConfig, now: Time) -> Self {
        let (retry, form) = (config.join_retry, config.form_after);
        let knocking = Knocking::start(&me, &config.seeds, now, retry, form);
        let empty = Statement {
            author: me.clone(),
            cluster: 0,
            version: 0,
            digest: 0,
            view: View::new(),
            unreachable: BTreeSet::new(),
        };
        Self {
            monitor: Monitor::new(me.clone(), config.phi.clone(), config.neighbours),
            me,
            config,
            phase: Phase::Knocking(knocking),
            cluster: 0,
            view: View::new(),
            said: Reachability::default(),
            heard: BTreeMap::new(),
            strangers: BTreeMap::new(),
            published: Arc::new(empty),
            peers: Vec::new(),
            leader: None,
            converged: false,
            reachability: Reachability::default(),
            unreachable: BTreeSet::new(),
            stability: Stability::default(),
            quarantined_by: BTreeSet::new(),
            graveyard: Graveyard::default(),
            removed: BTreeMap::new(),
            farewells: BTreeMap::new(),
            told: Told::default(),
            accepted: Vec::new(),
            wished_to_leave: false,
            next_beat: now,
            next_knock: now,
            knocks: 0,
            expected: now,
            unsettled: false,
            digests_changed: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.excuse_own_delay(now);
        match input {
            Input::Message(from, message) => self.message(now, from, message),
            Input::Statement(statement) => self.statement(statement),
            Input::Leave => self.move_myself(Status::Leaving),
            Input::FinishLeave => self.move_myself(Status::Exiting),
            Input::Down(node) => {
                if self.is_member() && self.view.is_live(&node) {
                    self.put_down(&BTreeSet::from([node]));
                }
            }
            Input::QuarantinedBy(node) => self.quarantined_by(node),
        }
        self.settle(now);
        self.expected = self.next_timeout();
    }

    /// Does what is due. Early and repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        self.excuse_own_delay(now);
        if matches!(self.phase, Phase::Knocking(_)) {
            self.knock(now);
        }
        if self.is_member() {
            self.knock_again(now);
            self.beat(now);
            self.bury(now);
            self.settle(now);
            self.decide(now);
            self.settle(now);
        }
        self.expected = self.next_timeout();
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Membership::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        (self.expected < Time::MAX).then_some(self.expected)
    }

    /// The cluster as this node sees it.
    #[must_use]
    pub fn state(&self) -> ClusterState {
        ClusterState {
            members: self.view.members(),
            unreachable: self.unreachable.clone(),
            leader: self.leader.clone(),
            converged: self.converged,
        }
    }

    /// As [`Membership::state`], if `wanted` says so when told whether all agree.
    pub(crate) fn state_if(&self, wanted: impl FnOnce(bool) -> bool) -> Option<ClusterState> {
        wanted(self.converged).then(|| self.state())
    }

    /// With whom statements are exchanged: the other live members; once this node has ended, those
    /// of its last moment, so that its last words get around.
    #[must_use]
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// Whether nothing that `author` says counts any more.
    #[must_use]
    pub fn is_out(&self, author: &NodeId) -> bool {
        let known = self.view.status(author);
        self.graveyard.holds(author) || known.is_some_and(|status| !status.is_live())
    }

    /// How many entries the view holds, tombstones included.
    #[must_use]
    pub fn view_len(&self) -> usize {
        self.view.len()
    }

    /// The number of the cluster that this node is in, zero while it is in none.
    #[must_use]
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// How this node ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Knocking(_) | Phase::Member => None,
        }
    }

    pub(crate) fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Member)
    }

    pub(crate) fn my_status(&self) -> Option<Status> {
        self.view.status(&self.me)
    }

    pub(crate) fn send(&mut self, to: SocketAddr, message: Message) {
        self.outputs.push_back(Output::Send(to, message));
    }

    /// How long the picture must hold still at the present size.
    fn stable_after(&self) -> Duration {
        let by_size = || stable_after(self.view.live().count());
        self.config.stable_after.unwrap_or_else(by_size)
    }

    // --- getting in ---

    fn knock(&mut self, now: Time) {
        let Phase::Knocking(knocking) = &mut self.phase else {
            return;
        };
        if knocking.forms(now) {
            let mut view = View::new();
            view.add(&self.me, Entry::joining(self.config.started));
            let cluster = self.me.incarnation;
            return self.enter(now, cluster, view);
        }
        let due = knocking.due(now);
        self.request(due);
    }

    /// While nobody but the one who let it in may know of this node, it asks others too.
    fn knock_again(&mut self, now: Time) {
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

    fn answer(&mut self, now: Time, answer: JoinAnswer) {
        if !matches!(self.phase, Phase::Knocking(_)) {
            return;
        }
        match answer {
            JoinAnswer::NotYet => {}
            JoinAnswer::Refused(refusal) => self.end_with(End::Refused(refusal)),
            JoinAnswer::Accepted(statement) => {
                if statement.is_bounded() && statement.view.is_live(&self.me) {
                    let mut statement = *statement;
                    let view = std::mem::take(&mut statement.view);
                    self.heed(&statement);
                    self.enter(now, statement.cluster, view);
                }
            }
        }
    }

    /// Somebody stands at the door.
    fn asked(&mut self, from: NodeId, request: &JoinRequest) {
        let votes = self.my_status().is_some_and(Status::is_voting);
        let answer = if !self.is_member() || !votes {
            JoinAnswer::NotYet
        } else if self.is_out(&from) {
            JoinAnswer::Refused(Refusal::Out)
        } else if let Err(refusal) = compare(&request.settings, &self.config.settings) {
            JoinAnswer::Refused(refusal)
        } else {
            if self.view.get(&from).is_none() {
                let twins = self.view.live_twins(&from).cloned().collect();
                self.put_down(&twins);
                self.view.add(&from, Entry::joining(request.started));
                self.unsettled = true;
            }
            self.accepted.push(from);
            return;
        };
        self.send(from.addr, Message::Answer(from.incarnation, answer));
    }

    // --- hearing ---

    fn message(&mut self, now: Time, from: NodeId, message: Message) {
        match message {
            _ if self.end().is_some() || from == self.me => {}
            Message::Answer(to, answer) => {
                if to == self.me.incarnation {
                    self.answer(now, answer);
                }
            }
            Message::Request(request) => self.asked(from, &request),
            Message::Beat(beat) => {
                if self.is_member() && beat.cluster == self.cluster {
                    self.beaten(now, &from, beat.kind);
                }
            }
        }
    }

    fn beaten(&mut self, now: Time, from: &NodeId, kind: BeatKind) {
        match kind {
            BeatKind::Ping => {
                let buried = || self.graveyard.holds(from).then_some(Status::Removed);
                let kind = match self.view.status(from).or_else(buried) {
                    Some(status) if !status.is_live() => BeatKind::Verdict {
                        incarnation: from.incarnation,
                        status,
                    },
                    _ => BeatKind::Pong,
                };
                let cluster = self.cluster;
                self.send(from.addr, Message::Beat(Beat { cluster, kind }));
            }
            BeatKind::Pong => self.unsettled |= self.monitor.answered(now, from),
            BeatKind::Verdict {
                incarnation,
                status,
            } => {
                let mine = incarnation == self.me.incarnation;
                if mine && self.view.is_live(from) && !status.is_live() {
                    self.unsettled |= self.view.advance(&self.me, status);
                }
            }
        }
    }

    fn statement(&mut self, statement: Arc<Statement>) {
        let sound = statement.is_bounded() && statement.cluster == self.cluster;
        if !self.is_member() || !sound || statement.author == self.me {
            return;
        }
        match self.view.status(&statement.author) {
            Some(status) if status.is_live() => self.take_in(&statement),
            Some(_) => {}
            None if self.graveyard.holds(&statement.author) => {}
            None => {
                let known = self.strangers.contains_key(&statement.author);
                if known || self.strangers.len() < STRANGERS_MAX {
                    self.strangers.insert(statement.author.clone(), statement);
                }
            }
        }
    }

    fn take_in(&mut self, statement: &Statement) {
        let author = &statement.author;
        let known = self.heard.get(author).map(|heard| heard.version);
        if known.is_some_and(|version| version >= statement.version) {
            return;
        }
        let same = statement.view == self.view;
        for (node, entry) in statement.view.iter().filter(|_| !same) {
            if !self.graveyard.holds(node) {
                self.unsettled |= self.view.add(node, *entry);
            } else if entry.status < Status::Removed {
                // Its author has slept through the removal, so the tombstone is put up again.
                self.unsettled |= self.view.add(node, Entry::removed());
            }
        }
        self.heed(statement);
    }

    /// Notes what a member says, its view apart.
    fn heed(&mut self, statement: &Statement) {
        self.unsettled |= self.said.set(&statement.author, &statement.unreachable);
        let heard = Heard {
            version: statement.version,
            digest: statement.digest,
        };
        self.heard.insert(statement.author.clone(), heard);
        self.digests_changed = true;
    }

    /// Listens to strangers that have been let in meanwhile. Returns whether there were any.
    pub(crate) fn hear_strangers(&mut self) -> bool {
        let let_in: Vec<NodeId> = self
            .strangers
            .keys()
            .filter(|author| self.view.get(author).is_some())
            .cloned()
            .collect();
        for author in &let_in {
            if let Some(statement) = self.strangers.remove(author)
                && self.view.is_live(author)
            {
                self.take_in(&statement);
            }
        }
        !let_in.is_empty()
    }

    fn quarantined_by(&mut self, node: NodeId) {
        if !self.is_member() || !self.view.is_live(&node) {
            return;
        }
        self.quarantined_by.insert(node);
        let against = self.quarantined_by.iter();
        let against = against.filter(|node| self.view.is_live(node)).count();
        let others = self.view.live().filter(|(other, _)| **other != self.me);
        if against * 2 > others.count() {
            self.put_down(&BTreeSet::from([self.me.clone()]));
        }
    }

    // --- wishes and deadlines ---

    fn move_myself(&mut self, status: Status) {
        if self.is_member() {
            self.wished_to_leave = true;
            self.unsettled |= self.view.advance(&self.me, status);
        } else if matches!(self.phase, Phase::Knocking(_)) {
            self.end_with(End::Left);
        }
    }

    pub(crate) fn put_down(&mut self, nodes: &BTreeSet<NodeId>) {
        for node in nodes {
            self.unsettled |= self.view.advance(node, Status::Down);
        }
    }

    pub(crate) fn end_with(&mut self, end: End) {
        if self.end().is_none() {
            if end == End::Downed {
                let told = Output::Event(ClusterEvent::SelfDowned);
                self.outputs.push_back(told);
            }
            self.phase = Phase::Ended(end.clone());
            self.outputs.push_back(Output::Ended(end));
        }
    }

    /// If this call comes later than it should by more than a heartbeat, the process stood still.
    fn excuse_own_delay(&mut self, now: Time) {
        let late = now.saturating_since(self.expected);
        if late > self.config.heartbeat_interval {
            self.monitor.excuse(late);
            self.stability.excuse(now, late);
        }
    }

    fn beat(&mut self, now: Time) {
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
    fn decide(&mut self, now: Time) {
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
    fn bury(&mut self, now: Time) {
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

    fn next_timeout(&self) -> Time {
        match &self.phase {
            Phase::Ended(_) => Time::MAX,
            Phase::Knocking(knocking) => knocking.timeout(),
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
