//! World: any number of memberships in one thread, on virtual time, with a network that fails.
//!
//! Everything random comes from one seed, so the same seed gives the same run, event by event.

use otava_actor::{Rng, Time};
use otava_cluster::logic::convergence::Minimum;
use otava_cluster::logic::downing::Rule;
use otava_cluster::logic::gossip::{Gossip, GossipMessage, GossipOutput};
use otava_cluster::logic::knocking::Founder;
use otava_cluster::logic::leases::{Grant, Leases};
use otava_cluster::logic::membership::{End, Input, Membership, MembershipConfig, Output};
use otava_cluster::logic::message::Message;
use otava_cluster::logic::phi::PhiConfig;
use otava_cluster::logic::profile::Profile;
use otava_cluster::{AppVersion, ClusterEvent, Strategy};
use otava_remote::NodeId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

/// The wall clocks of nodes that are right show this at the start.
const YEAR_MILLIS: u64 = 365 * 24 * 3_600 * 1_000;
/// How long a node that has ended goes on spreading its last words.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) enum Packet {
    Gossip(GossipMessage),
    Message(Message),
    /// The refusal of a peer that has quarantined this run.
    Quarantined(NodeId),
}

enum Event {
    Leased(NodeId, u64, bool),
    Deliver {
        from: NodeId,
        to: SocketAddr,
        packet: Packet,
    },
    Wake(NodeId),
}

struct Queued {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    gossip: Gossip,
    quarantined: BTreeSet<NodeId>,
    pub(crate) ended: Option<Time>,
    pub(crate) events: Vec<(Time, ClusterEvent)>,
    /// How often what others can see of it has changed.
    pub(crate) changes: u64,
    /// Woken at this time and no earlier one.
    wake: Time,
    paused: bool,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<SocketAddr, Node>,
    pub(crate) log: Vec<String>,
    /// How nodes ended that are no more.
    pub(crate) ends: Vec<(NodeId, End)>,
    pub(crate) handled: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    rng: Rng,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    loss_percent: u64,
    delay_millis: (u64, u64),
    pub(crate) seeds: Vec<SocketAddr>,
    /// Seeds of nodes that have others than the rest.
    pub(crate) seeds_of: BTreeMap<u16, Vec<SocketAddr>>,
    /// The role and the version of nodes that are started from now on, and by how much their wall
    /// clocks are wrong.
    pub(crate) role: Option<String>,
    pub(crate) app_version: AppVersion,
    pub(crate) clock_skew_millis: i64,
    pub(crate) founder: Founder,
    pub(crate) minimum: Minimum,
    pub(crate) weakly_up_after: Option<Duration>,
    pub(crate) rule: Rule,
    pub(crate) down_all_when_unstable: bool,
    /// The store of the lease, and whether it answers.
    pub(crate) leases: Leases,
    pub(crate) leases_answer: bool,
    /// What all nodes have sent, if somebody wants to know.
    #[cfg(feature = "fuzzing")]
    pub(crate) meter: Option<Meter>,
}

/// Messages, and their bytes in the form that they have on the wire.
#[cfg(feature = "fuzzing")]
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

pub(crate) fn addr(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], number).into()
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            log: Vec::new(),
            ends: Vec::new(),
            handled: 0,
            queue: BinaryHeap::new(),
            order: 0,
            rng: Rng::seeded(seed),
            cut: BTreeSet::new(),
            loss_percent: 0,
            delay_millis: (1, 10),
            seeds: vec![addr(1), addr(2), addr(3)],
            seeds_of: BTreeMap::new(),
            role: None,
            app_version: AppVersion::default(),
            clock_skew_millis: 0,
            founder: Founder::FirstSeed {
                form_after: Duration::from_secs(2),
            },
            minimum: Minimum::default(),
            weakly_up_after: Some(Duration::from_secs(7)),
            rule: Strategy::KeepMajority.into(),
            down_all_when_unstable: true,
            leases: Leases::default(),
            leases_answer: true,
            #[cfg(feature = "fuzzing")]
            meter: None,
        }
    }

    fn contacts(&self, number: u16) -> Vec<SocketAddr> {
        let own = self.seeds_of.get(&number);
        own.unwrap_or(&self.seeds).clone()
    }

    fn config(&self, number: u16) -> MembershipConfig {
        MembershipConfig {
            contacts: self.contacts(number),
            founder: self.founder,
            held: false,
            started: (YEAR_MILLIS + self.now.as_nanos() / 1_000_000)
                .saturating_add_signed(self.clock_skew_millis),
            settings: BTreeMap::from([("downing".into(), self.rule.to_string())]),
            shared: BTreeMap::new(),
            profile: Profile {
                roles: self.role.iter().cloned().collect(),
                app_version: self.app_version.clone(),
            }
            .shared(),
            minimum: self.minimum.clone(),
            weakly_up_after: self.weakly_up_after,
            join_retry: Duration::from_millis(500),
            heartbeat_interval: Duration::from_millis(250),
            phi: PhiConfig {
                threshold: 8.0,
                acceptable_pause: Duration::from_millis(2_100),
                first_interval: Duration::from_millis(250),
                deviation_min: Duration::from_millis(50),
                history_max: 200,
            },
            neighbours: 5,
            rule: self.rule.clone(),
            lease_delay: Duration::from_secs(2),
            down_all_when_unstable: self.down_all_when_unstable,
            stable_after: None,
            tombstone_after: Duration::from_secs(20),
            farewell: Duration::from_secs(3),
        }
    }

    /// Starts a new run of the node `number`; one that still runs there is killed.
    pub(crate) fn start(&mut self, number: u16) {
        let addr = addr(number);
        let id = NodeId::new(format!("n{number}"), addr, self.rng.next_u64());
        let membership = Membership::new(id.clone(), self.config(number), self.now);
        let gossip = Gossip::new(self.rng.fork(), Duration::from_millis(200), self.now);
        let node = Node {
            id: id.clone(),
            membership,
            gossip,
            quarantined: BTreeSet::new(),
            ended: None,
            events: Vec::new(),
            changes: 0,
            wake: Time::MAX,
            paused: false,
        };
        self.note(&id, "starts");
        self.nodes.insert(addr, node);
        self.plan(addr);
    }

    pub(crate) fn crash(&mut self, number: u16) {
        if let Some(node) = self.nodes.remove(&addr(number)) {
            self.note(&node.id, "crashes");
        }
    }

    /// Stops the node without its knowing, or lets it run on.
    pub(crate) fn pause(&mut self, number: u16, paused: bool) {
        if let Some(node) = self.nodes.get_mut(&addr(number)) {
            node.paused = paused;
            node.wake = Time::MAX;
            self.plan(addr(number));
        }
    }

    pub(crate) fn input(&mut self, number: u16, input: Input) {
        self.with(addr(number), |node, now| node.membership.handle(now, input));
    }

    /// Cuts the way from one node to another, in this direction.
    pub(crate) fn cut(&mut self, from: u16, to: u16) {
        self.cut.insert((addr(from), addr(to)));
    }

    /// Cuts all ways between different groups.
    pub(crate) fn split(&mut self, groups: &[Vec<u16>]) {
        for (index, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(i, _)| *i != index);
            for (one, other) in others.flat_map(|(_, g)| group.iter().zip(std::iter::repeat(g))) {
                other.iter().for_each(|other| self.cut(*one, *other));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.loss_percent = 0;
        self.delay_millis = (1, 10);
    }

    pub(crate) fn disturb(&mut self, loss_percent: u64, delay_millis: (u64, u64)) {
        self.loss_percent = loss_percent;
        self.delay_millis = delay_millis;
    }

    pub(crate) fn node(&self, number: u16) -> Option<&Node> {
        self.nodes.get(&addr(number))
    }

    /// Nodes that are members and have not ended.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Node> {
        let nodes = self.nodes.values();
        nodes.filter(|node| node.ended.is_none() && node.membership.cluster() != 0)
    }

    /// Lets time pass, calling `check` after each thing that happens.
    pub(crate) fn run_step_by_step(&mut self, length: Duration, mut check: impl FnMut(&Self)) {
        let end = self.now + length;
        while self.queue.peek().is_some_and(|next| next.0.at <= end) {
            if let Some(Reverse(queued)) = self.queue.pop() {
                self.now = self.now.max(queued.at);
                self.happen(queued.event);
                check(self);
            }
        }
        self.now = end;
    }

    /// Lets time pass, calling `check` about once a second.
    pub(crate) fn run(&mut self, length: Duration, mut check: impl FnMut(&Self)) {
        let end = self.now + length;
        let mut next_check = self.now;
        while let Some(Reverse(queued)) = self.queue.peek() {
            if queued.at > end {
                break;
            }
            if queued.at >= next_check {
                check(self);
                next_check = queued.at + Duration::from_secs(1);
            }
            if let Some(Reverse(queued)) = self.queue.pop() {
                self.now = self.now.max(queued.at);
                self.happen(queued.event);
            }
        }
        self.now = end;
        check(self);
    }

    fn happen(&mut self, event: Event) {
        self.handled += 1;
        match event {
            Event::Wake(id) => {
                let due = |node: &Node| node.id == id && node.wake <= self.now && !node.paused;
                if self.nodes.get(&id.addr).is_some_and(due) {
                    self.with(id.addr, |node, now| {
                        node.wake = Time::MAX;
                        node.membership.handle_timeout(now);
                        node.gossip.handle_timeout(now);
                    });
                }
            }
            Event::Deliver { from, to, packet } => self.deliver(from, to, packet),
            Event::Leased(id, number, granted) => {
                let runs = |node: &Node| node.id == id && !node.paused;
                if self.nodes.get(&id.addr).is_some_and(runs) {
                    let input = Input::Leased(number, granted);
                    self.with(id.addr, |node, now| node.membership.handle(now, input));
                }
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: SocketAddr, packet: Packet) {
        let Some(node) = self.nodes.get(&to) else {
            return;
        };
        if node.paused {
            return;
        }
        if node.quarantined.contains(&from) {
            let me = node.id.clone();
            if !matches!(packet, Packet::Quarantined(_)) {
                self.transmit(me, from.addr, Packet::Quarantined(from));
            }
            return;
        }
        self.with(to, |node, now| match packet {
            Packet::Quarantined(whom) => {
                if whom == node.id {
                    node.membership.handle(now, Input::QuarantinedBy(from));
                }
            }
            Packet::Gossip(message) => node.gossip.handle(from.addr, message),
            Packet::Message(message) => {
                node.membership.handle(now, Input::Message(from, message));
            }
        });
    }

    /// Lets a node do something, and does all that it wants done.
    fn with(&mut self, addr: SocketAddr, act: impl FnOnce(&mut Node, Time)) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&addr) else {
            return;
        };
        let before = node.membership.is_converged();
        act(node, now);
        let mut sends = Vec::new();
        let mut notes = Vec::new();
        let mut leases_asked = Vec::new();
        loop {
            if let Some(output) = node.membership.poll_output() {
                match output {
                    Output::AcquireLease(number) => leases_asked.push(number),
                    Output::Send(to, message) => sends.push((to, Packet::Message(message))),
                    Output::Publish(statement) => {
                        node.changes += 1;
                        node.gossip.publish(now, statement);
                    }
                    Output::Quarantine(other) => {
                        node.quarantined.insert(other);
                    }
                    Output::Event(event) => {
                        node.changes += 1;
                        notes.push(format!("{event:?}"));
                        node.events.push((now, event));
                    }
                    Output::Ended(end) => {
                        notes.push(format!("ends: {end:?}"));
                        node.ended = Some(now);
                        self.ends.push((node.id.clone(), end));
                    }
                    _ => unreachable!("all outputs are known here"),
                }
                continue;
            }
            match node.gossip.poll_output() {
                Some(GossipOutput::Learnt(statements)) => {
                    node.membership.handle(now, Input::Statements(statements));
                }
                Some(GossipOutput::Send(to, message)) => sends.push((to, Packet::Gossip(message))),
                Some(_) => unreachable!("all outputs are known here"),
                None => break,
            }
        }
        node.changes += u64::from(node.membership.is_converged() != before);
        node.gossip.set_peers(node.membership.peers());
        if node.ended.is_none() && !notes.is_empty() {
            node.gossip.retain(|author| !node.membership.is_out(author));
        }
        let id = node.id.clone();
        let over = node.ended.is_some_and(|ended| now >= ended + LINGER);
        for note in notes {
            self.note(&id, &note);
        }
        for number in leases_asked {
            self.ask_for_lease(&id, number);
        }
        for (to, packet) in sends {
            self.transmit(id.clone(), to, packet);
        }
        if over {
            self.nodes.remove(&addr);
        } else {
            self.plan(addr);
        }
    }

    /// The store of the lease is reached by all, and answers a little later; or 5 s later, with no.
    fn ask_for_lease(&mut self, id: &NodeId, number: u64) {
        let (granted, after) = if self.leases_answer {
            let length = Duration::from_secs(40);
            let owner = id.to_string();
            let grant = self.leases.acquire(self.now, "downing", &owner, length);
            let granted = matches!(grant, Grant::Held { .. });
            (granted, Duration::from_millis(1 + self.rng.below(100)))
        } else {
            (false, Duration::from_secs(5))
        };
        self.note(
            id,
            if granted {
                "has the lease"
            } else {
                "gets no lease"
            },
        );
        let id = id.clone();
        self.push(self.now + after, Event::Leased(id, number, granted));
    }

    fn transmit(&mut self, from: NodeId, to: SocketAddr, packet: Packet) {
        let lost = self.rng.below(100) < self.loss_percent;
        let receiver = self.nodes.get(&to).map(|node| &node.id);
        let sender = self.nodes.get(&from.addr);
        let broken = |sender: &Node| receiver.is_some_and(|id| sender.quarantined.contains(id));
        if sender.is_some_and(broken) && !matches!(packet, Packet::Quarantined(_)) {
            return;
        }
        if lost || self.cut.contains(&(from.addr, to)) {
            return;
        }
        #[cfg(feature = "fuzzing")]
        if let Some(meter) = &mut self.meter {
            meter.messages += 1;
            meter.bytes += match &packet {
                Packet::Gossip(message) => otava_cluster::fuzzing::gossip_bytes(message),
                Packet::Message(message) => otava_cluster::fuzzing::message_bytes(message),
                Packet::Quarantined(_) => 0,
            };
        }
        let (low, high) = self.delay_millis;
        let micros = low * 1_000 + self.rng.below((high - low) * 1_000 + 1);
        let at = self.now + Duration::from_micros(micros);
        self.push(at, Event::Deliver { from, to, packet });
    }

    fn plan(&mut self, addr: SocketAddr) {
        let Some(node) = self.nodes.get_mut(&addr) else {
            return;
        };
        let timeouts = [node.membership.poll_timeout(), node.gossip.poll_timeout()];
        let next = timeouts.into_iter().flatten().min();
        if let Some(at) = next.map(|at| at.max(self.now))
            && at < node.wake
        {
            node.wake = at;
            let id = node.id.clone();
            self.push(at, Event::Wake(id));
        }
    }

    fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Queued { at, order, event }));
    }

    pub(crate) fn note(&mut self, id: &NodeId, what: &str) {
        self.log.push(format!("{} {id}: {what}", self.now));
    }
}
