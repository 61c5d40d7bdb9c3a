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
//! - *One cluster for life.* A run is a member of one cluster only. Who let it in as well is told so and
//!   puts it down.
//! - *No two at an address.* Whoever lets a new run in puts down the old one first. If two members
//!   let in two runs without knowing of each other, all who see both put down the earlier one.
//! - *A held-up process blames nobody.* If this machine is driven late by more than two heartbeats, the
//!   time is taken from no peer's account, and decisions wait anew: what it knows is old.
//!
//! Tempting and wrong: merging whatever arrives (a healed minority would drag the majority down, or
//! be revived by it); letting everybody decide about others on partial knowledge (only the leader
//! of the reachable decides, and all others only give up); trusting an address (a new run at the
//! address of an old one answers heartbeats in its own name, so the old one is found dead).

use crate::logic::convergence::Minimum;
use crate::logic::door::Refusal;
use crate::logic::downing::Rule;
use crate::logic::graveyard::Graveyard;
use crate::logic::knocking::{Founder, Knocking};
use crate::logic::member::Status;
use crate::logic::message::{Beat, BeatKind, Message};
use crate::logic::monitor::Monitor;
use crate::logic::phi::PhiConfig;
use crate::logic::profile::Profile;
use crate::logic::reachability::Reachability;
use crate::logic::stability::Stability;
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

/// Other clusters that are told about.
const OTHER_CLUSTERS_MAX: usize = 16;

/// What a membership is built from.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// The addresses that are asked to be let in, as far as they are known at the start.
    pub contacts: Vec<SocketAddr>,
    /// Who forms a cluster if none lives.
    pub founder: Founder,
    /// Nobody is asked before [`Input::Join`].
    pub held: bool,
    /// When this node was started, in milliseconds of its wall clock.
    pub started: u64,
    /// Settings that must be the same on all nodes.
    pub settings: BTreeMap<String, String>,
    /// Settings that must be the same on all nodes that have them.
    pub shared: BTreeMap<String, String>,
    /// What this node says of itself.
    pub profile: Option<Arc<Profile>>,
    /// How many members there must be before any becomes up.
    pub minimum: Minimum,
    /// How long somebody must be unreachable before joining members become weakly up; never if
    /// `None`.
    pub weakly_up_after: Option<Duration>,
    /// Between two attempts to be let in.
    pub join_retry: Duration,
    /// Between two heartbeats to the same node.
    pub heartbeat_interval: Duration,
    /// When silence becomes suspicion.
    pub phi: PhiConfig,
    /// How many nodes are watched.
    pub neighbours: usize,
    /// Who goes on after a split.
    pub rule: Rule,
    /// How long the smaller side waits before it asks for the lease.
    pub lease_delay: Duration,
    /// Whether all go down if the picture does not hold still.
    pub down_all_when_unstable: bool,
    /// How long the picture must hold still before a decision; by the number of members if `None`.
    pub stable_after: Option<Duration>,
    /// For how long tombstones are published.
    pub tombstone_after: Duration,
    /// How long after its removal a member that left is still talked to, so that it learns of it.
    pub farewell: Duration,
}

/// What happens to a membership.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// Somebody decided that a member is out.
    Down(NodeId),
    /// These addresses may be asked to be let in.
    Found(Vec<SocketAddr>),
    /// What this node had is handed over.
    FinishLeave,
    /// This node shall ask to be let in, if it was held back until now.
    Join,
    /// This node shall leave; its hand-over begins.
    Leave,
    /// The lease that was asked for, by its number, was granted or not.
    Leased(u64, bool),
    /// A peer sent a message.
    Message(NodeId, Message),
    /// The whole cluster prepares for its end.
    PrepareShutdown,
    /// A peer refuses to talk to this run of this node.
    QuarantinedBy(NodeId),
    /// A setting, by its name, that must be the same on all nodes that have it.
    Share(String, String),
    /// Statements arrived, by whatever way.
    Statements(Vec<Arc<Statement>>),
}

/// What a membership wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Try to get the lease that decides who goes on, and answer with [`Input::Leased`] and this number.
    AcquireLease(u64),
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
    pub(crate) stopping: bool,
}

/// Where this node stands with the lease that its decision needs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Leasing {
    /// It was asked for, under this number.
    Asked(u64),
    #[default]
    Idle,
    /// It is asked for at this time.
    Waiting(Time),
}

/// The membership of one node.
#[derive(Debug)]
pub struct Membership {
    pub(crate) me: NodeId,
    pub(crate) config: MembershipConfig,
    pub(crate) phase: Phase,
    /// Nobody is asked to be let in yet.
    pub(crate) held: bool,
    /// Settings that must be the same on all nodes that have them.
    pub(crate) shared: BTreeMap<String, String>,
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
    /// Since when not all agree.
    pub(crate) disputed: Option<Time>,
    pub(crate) reachability: Reachability,
    pub(crate) unreachable: BTreeSet<NodeId>,
    pub(crate) stability: Stability,
    pub(crate) leasing: Leasing,
    pub(crate) leases_asked: u64,
    pub(crate) graveyard: Graveyard,
    /// When the tombstones were put up.
    pub(crate) removed: BTreeMap<NodeId, Time>,
    /// Whom to quarantine when.
    pub(crate) farewells: BTreeMap<NodeId, Time>,
    pub(crate) told: Told,
    /// Who waits for the answer that it is in.
    pub(crate) accepted: Vec<NodeId>,
    pub(crate) wished_to_leave: bool,
    /// This node left while it asked to be let in: until when an answer that is on its way is
    /// awaited, and what it makes itself then. Or a member would remain that nobody is.
    pub(crate) turning_back: Option<(Time, Status)>,
    pub(crate) next_beat: Time,
    /// When seeds that are no members are called next.
    pub(crate) next_call: Time,
    /// Other clusters that this node has met; each is told once.
    other_clusters: BTreeSet<u64>,
    pub(crate) next_knock: Time,
    pub(crate) knocks: usize,
    pub(crate) expected: Time,
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
        let (retry, contacts) = (config.join_retry, &config.contacts);
        let knocking = Knocking::start(&me, config.founder, contacts, now, retry);
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
            phase: Phase::Knocking(knocking),
            held: config.held,
            shared: config.shared.clone(),
            config,
            cluster: 0,
            view: View::new(),
            said: Reachability::default(),
            heard: BTreeMap::new(),
            strangers: BTreeMap::new(),
            published: Arc::new(empty),
            peers: Vec::new(),
            leader: None,
            converged: false,
            disputed: None,
            reachability: Reachability::default(),
            unreachable: BTreeSet::new(),
            stability: Stability::default(),
            leasing: Leasing::Idle,
            leases_asked: 0,
            graveyard: Graveyard::default(),
            removed: BTreeMap::new(),
            farewells: BTreeMap::new(),
            told: Told::default(),
            accepted: Vec::new(),
            wished_to_leave: false,
            turning_back: None,
            next_beat: now,
            next_call: now,
            other_clusters: BTreeSet::new(),
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
            Input::Statements(statements) => self.statements(statements),
            Input::Leave => self.move_myself(now, Status::Leaving),
            Input::FinishLeave => self.move_myself(now, Status::Exiting),
            Input::Down(node) => {
                if self.is_member() && self.view.is_live(&node) {
                    self.put_down(&BTreeSet::from([node]));
                }
            }
            Input::Found(addrs) => {
                if let Phase::Knocking(knocking) = &mut self.phase {
                    knocking.found(now, &addrs);
                }
            }
            Input::Join => self.knock_now(now),
            Input::PrepareShutdown => self.unsettled |= self.is_member() && self.view.stop(),
            Input::Leased(number, granted) => self.leased(now, number, granted),
            Input::QuarantinedBy(node) => self.quarantined_by(&node),
            Input::Share(name, value) => {
                // Nobody has compared what a member adds later, so it must not keep others out.
                if matches!(self.phase, Phase::Knocking(_)) {
                    self.shared.insert(name, value);
                }
            }
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
            self.call_seeds(now);
            self.bury(now);
            self.settle(now);
            self.weaken(now);
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
            cannot_reach: self.reachability.by_observer().clone(),
            leader: self.leader.clone(),
            converged: self.converged,
            preparing_for_shutdown: self.view.is_stopping(),
        }
    }

    /// As [`Membership::state`], if `wanted` says so when told whether all agree.
    pub(crate) fn state_if(&self, wanted: impl FnOnce(bool) -> bool) -> Option<ClusterState> {
        wanted(self.converged).then(|| self.state())
    }

    /// By how many members the cluster is larger than its static quorum allows.
    #[must_use]
    pub fn too_many(&self) -> usize {
        self.config.rule.too_many(&self.view)
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

    /// Whether all members that have a say have published what this node holds.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.converged
    }

    /// Who leads, as this node sees it.
    #[must_use]
    pub fn leader(&self) -> Option<&NodeId> {
        self.leader.as_ref()
    }

    /// What this node holds to be the members.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whom some member cannot reach.
    #[must_use]
    pub fn unreachable(&self) -> &BTreeSet<NodeId> {
        &self.unreachable
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

    fn message(&mut self, now: Time, from: NodeId, message: Message) {
        match message {
            _ if self.end().is_some() || from == self.me => {}
            Message::Answer(to, answer) => {
                if to == self.me.incarnation {
                    self.answer(now, &from, answer);
                }
            }
            Message::Request(request) => self.asked(from, &request),
            Message::Beat(beat) if !self.is_member() => {
                if beat.kind == BeatKind::Ping {
                    self.called(now, &from);
                }
            }
            Message::Beat(beat) => {
                if beat.cluster == self.cluster {
                    self.beaten(now, &from, beat.kind);
                } else if beat.kind == BeatKind::Ping {
                    let kind = BeatKind::Elsewhere;
                    self.send(from.addr, Message::Beat(Beat { kind, ..beat }));
                    self.met(beat.cluster, from);
                }
            }
        }
    }

    /// A member of another cluster was met. It is told once a cluster, and for a few only.
    fn met(&mut self, cluster: u64, member: NodeId) {
        if self.other_clusters.len() < OTHER_CLUSTERS_MAX && self.other_clusters.insert(cluster) {
            let event = ClusterEvent::OtherClusterMet(member);
            self.outputs.push_back(Output::Event(event));
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
            // It was let in here and somewhere else, and went there.
            BeatKind::Elsewhere => self.put_down(&BTreeSet::from([from.clone()])),
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

    fn statements(&mut self, statements: Vec<Arc<Statement>>) {
        // Those that came together often share one view, which is joined once.
        let mut joined = None;
        for statement in statements {
            self.statement(statement, &mut joined);
        }
    }

    fn statement(&mut self, statement: Arc<Statement>, joined: &mut Option<View>) {
        let sound = statement.is_bounded() && statement.cluster == self.cluster;
        if !self.is_member() || !sound || statement.author == self.me {
            return;
        }
        match self.view.status(&statement.author) {
            Some(status) if status.is_live() => self.take_in(&statement, joined),
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

    fn take_in(&mut self, statement: &Statement, joined: &mut Option<View>) {
        let author = &statement.author;
        let known = self.heard.get(author).map(|heard| heard.version);
        if known.is_some_and(|version| version >= statement.version) {
            return;
        }
        let copy_of = |view: &View| statement.view.is_copy_of(view);
        let same = joined.as_ref().is_some_and(copy_of) || statement.view == self.view;
        self.unsettled |= statement.view.is_stopping() && self.view.stop();
        for (node, entry) in statement.view.iter().filter(|_| !same) {
            if !self.graveyard.holds(node) {
                self.unsettled |= self.view.add(node, entry.clone());
            } else if entry.status < Status::Removed {
                // Its author has slept through the removal, so the tombstone is put up again.
                self.unsettled |= self.view.add(node, Entry::removed());
            }
        }
        *joined = Some(statement.view.clone());
        self.heed(statement);
    }

    /// Notes what a member says, its view apart.
    pub(crate) fn heed(&mut self, statement: &Statement) {
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
                self.take_in(&statement, &mut None);
            }
        }
        !let_in.is_empty()
    }

    /// A member broke with this run for good. Members break with nobody but who is out, so this
    /// node is, whether or not the news has come yet; going on could make two of everything.
    fn quarantined_by(&mut self, node: &NodeId) {
        if self.is_member() && self.view.is_live(node) {
            self.put_down(&BTreeSet::from([self.me.clone()]));
        }
    }

    pub(crate) fn move_myself(&mut self, now: Time, status: Status) {
        if self.is_member() {
            self.wished_to_leave = true;
            self.unsettled |= self.view.advance(&self.me, status);
        } else if let Phase::Knocking(knocking) = &self.phase {
            if !knocking.has_asked() {
                return self.end_with(End::Left);
            }
            let (until, _) = self
                .turning_back
                .unwrap_or((now + self.config.join_retry, status));
            self.turning_back = Some((until, status));
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
}
