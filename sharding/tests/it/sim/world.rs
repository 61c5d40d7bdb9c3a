//! World: nodes with their regions, coordinators and entities, the faults, and the checks.

use crate::sim::ledger::{Ledger, Msg};
use crate::sim::net::Net;
use crate::sim::store::Store;
use otava_actor::{Rng, Time};
use otava_remote::NodeId;
use otava_sharding::logic::allocation::LeastShards;
use otava_sharding::logic::buffers::BufferLimits;
use otava_sharding::logic::coordinator::{self, Coordinator, CoordinatorConfig};
use otava_sharding::logic::epoch::Epoch;
use otava_sharding::logic::hash::shard_at;
use otava_sharding::logic::layout::Layout;
use otava_sharding::logic::region::{ClaimAnswer, Delivery, Input, Output, Region, RegionConfig};
use otava_sharding::logic::view::{Host, View};
use otava_sharding::wire::{Entry, ProtocolMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const SHARDS: u32 = 32;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    net: Net<Event>,
    nodes: BTreeMap<u16, Node>,
    pub(crate) truth: Truth,
    store: Store,
    pub(crate) ledger: Ledger,
    /// Protocol messages lost, of a thousand.
    pub(crate) loss: u64,
    /// How long the store takes to answer, at most, in microseconds.
    pub(crate) store_delay: u64,
    /// No fault that could make two homes: then two homes at one time are a complaint.
    pub(crate) calm: bool,
    cut: BTreeSet<(u16, u16)>,
    sending: bool,
    seqs: BTreeMap<(u16, u32), u64>,
    /// Called after each step; a crash at a step of a hand-over hangs here.
    pub(crate) trap: Option<Trap>,
}

/// Crashes a node when something happens for the n-th time.
pub(crate) struct Trap {
    pub(crate) on: Step,
    pub(crate) skip: u64,
    pub(crate) victim: Victim,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    BarrierSent,
    Claimed,
    Ended,
    LayoutSet,
    LegacySent,
    MovingSeen,
    Stopping,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Victim {
    Coordinator,
    Actor,
}

/// The members as they really are; nodes see it a little later. One for each side of a split.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) up: Vec<u16>,
    pub(crate) leaving: Vec<u16>,
    pub(crate) gone: Vec<u16>,
}

struct Node {
    id: NodeId,
    region: Region<Msg>,
    coordinator: Coordinator,
    hosts: BTreeMap<u32, Running>,
    alive: bool,
    leaving: bool,
    view_version: u64,
    timer: Time,
}

/// How far taking over is, each step a call of the store: see `otava_sharding::logic::layout`.
enum TakeOver {
    Draw,
    Claim(u32),
    Read(u32),
    Write(u32, Layout),
}

#[derive(Default)]
struct Running {
    epoch: Epoch,
    scope: u32,
    queue: VecDeque<Msg>,
    stopping: bool,
    at_work: bool,
}

enum Event {
    /// The shard, its allocation, and the scopes to claim, the own one last.
    Claimed(u16, u32, Epoch, VecDeque<u32>),
    Deliver(u16, Delivery<Msg>),
    Process(u16, u32),
    Protocol(u16, ProtocolMessage),
    Send(u16),
    /// A layout is to be set, or has been and the term is to be claimed.
    Layout(u16, u32, u64, bool),
    /// A term is to be drawn, or has been: the next step of taking over.
    Term(u16, TakeOver),
    View(u16, u64, Truth),
}

pub(crate) fn id(n: u16) -> NodeId {
    NodeId::new(
        format!("n{n}"),
        ([127, 0, 0, 1], 7_000 + n).into(),
        u64::from(n),
    )
}

/// The hash of the one entity that each shard has; twice as many shards have one or none.
pub(crate) fn hash(entity: u32) -> u64 {
    let low = u64::from(entity).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 5;
    u64::from(entity) << 59 | low
}

fn number(id: &NodeId) -> u16 {
    id.addr.port() - 7_000
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            rng: Rng::seeded(seed),
            net: Net::new(),
            nodes: BTreeMap::new(),
            truth: Truth::default(),
            store: Store::default(),
            ledger: Ledger::default(),
            loss: 20,
            store_delay: 5_000,
            calm: true,
            cut: BTreeSet::new(),
            sending: true,
            seqs: BTreeMap::new(),
            trap: None,
        }
    }

    // --- what a scenario does ---

    pub(crate) fn join(&mut self, n: u16) {
        let config = RegionConfig {
            shards: SHARDS,
            buffers: BufferLimits {
                per_shard: 10_000,
                in_all: 100_000,
            },
            resend: Duration::from_millis(500),
            status_pause: Duration::from_millis(5),
            measure_every: None,
        };
        let coordination = CoordinatorConfig {
            shards: SHARDS,
            strategy: Arc::new(LeastShards::default()),
            gather_limit: Duration::from_secs(5),
            drain_shards_max: 32,
            rebalance_interval: Duration::from_secs(1),
            resend: Duration::from_millis(500),
            table_pause: Duration::from_millis(5),
            superseded_pause: Duration::from_secs(5),
        };
        let node = Node {
            id: id(n),
            region: Region::new(id(n), config),
            coordinator: Coordinator::new(id(n), coordination),
            hosts: BTreeMap::new(),
            alive: true,
            leaving: false,
            view_version: 0,
            timer: Time::ZERO,
        };
        self.nodes.insert(n, node);
        self.truth.up.push(n);
        self.net.at(self.now, Event::Send(n));
        self.tell_members();
    }

    pub(crate) fn leave(&mut self, n: u16) {
        self.truth.up.retain(|other| *other != n);
        self.truth.leaving.push(n);
        self.tell_members();
        let now = self.now;
        let node = self.nodes.get_mut(&n).unwrap();
        node.leaving = true;
        node.region.hand_over(now);
        self.pump(n);
    }

    /// The process is gone at once; the others learn of it when `down` is called.
    pub(crate) fn crash(&mut self, n: u16) {
        self.calm = false;
        let node = self.nodes.get_mut(&n).unwrap();
        node.alive = false;
        node.hosts.clear();
        self.ledger.crashed(n);
    }

    pub(crate) fn down(&mut self, n: u16) {
        self.truth.up.retain(|other| *other != n);
        self.truth.leaving.retain(|other| *other != n);
        self.truth.gone.push(n);
        self.tell_members();
    }

    /// Nothing passes between the two groups any more.
    pub(crate) fn cut(&mut self, a: &[u16], b: &[u16]) {
        self.calm = false;
        for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b))) {
            self.cut.extend([(a, b), (b, a)]);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Tells one side of a split its own truth.
    pub(crate) fn tell_side(&mut self, side: &[u16], truth: &Truth) {
        for n in side {
            let delay = Duration::from_micros(self.rng.below(1_000_000));
            let version = self.bump(*n);
            self.net
                .at(self.now + delay, Event::View(*n, version, truth.clone()));
        }
    }

    /// Somebody on a node wants another number of shards.
    pub(crate) fn resize(&mut self, n: u16, shards: u32) {
        self.input(n, Input::Resize { shards });
    }

    /// How many shards there are, as each living node knows.
    pub(crate) fn layouts(&self) -> BTreeSet<u32> {
        let alive = self.nodes.values().filter(|node| node.alive);
        alive.map(|node| node.region.layout().shards).collect()
    }

    pub(crate) fn coordinator(&self) -> Option<u16> {
        self.truth.up.first().copied()
    }

    pub(crate) fn alive(&self) -> Vec<u16> {
        let alive = self.nodes.iter().filter(|(_, node)| node.alive);
        alive.map(|(n, _)| *n).collect()
    }

    /// Nodes that died by a trap and of which nobody was told.
    pub(crate) fn undetected(&self) -> Vec<u16> {
        let dead = self.nodes.iter().filter(|(_, node)| !node.alive);
        let dead = dead.map(|(n, _)| *n);
        dead.filter(|n| self.truth.up.contains(n) || self.truth.leaving.contains(n))
            .collect()
    }

    pub(crate) fn stop_sending(&mut self) {
        self.sending = false;
    }

    /// Each living member sends one message to each shard.
    pub(crate) fn send_to_all(&mut self) {
        for n in self.alive() {
            for shard in 0..SHARDS {
                self.send(n, shard);
            }
        }
    }

    pub(crate) fn run_for(&mut self, length: Duration) {
        let until = self.now + length;
        self.run_until(until, |_| false);
    }

    /// Runs until `done`, or until `until`; whether it was done.
    pub(crate) fn run_until(&mut self, until: Time, done: impl Fn(&Self) -> bool) -> bool {
        let mut look_at = self.now;
        loop {
            if self.now >= look_at {
                if done(self) {
                    return true;
                }
                look_at = self.now + Duration::from_millis(20);
            }
            let timers = self.nodes.iter().filter(|(_, node)| node.alive);
            let timer = timers.map(|(n, node)| (node.timer, *n)).min();
            let (timer, n) = timer.unwrap_or((Time::MAX, 0));
            let next = self.net.next_time().min(timer);
            if next > until {
                self.now = until;
                return done(self);
            }
            self.now = self.now.max(next);
            if timer <= self.net.next_time() {
                let now = self.now;
                let node = self.nodes.get_mut(&n).unwrap();
                node.region.handle_timeout(now);
                node.coordinator.handle_timeout(now);
                self.pump(n);
            } else if let Some((_, event)) = self.net.pop() {
                self.happen(event);
            }
        }
    }

    /// How many shards each living node runs, and whether everyone agrees that all are hosted.
    pub(crate) fn hosted(&self) -> BTreeMap<u16, usize> {
        let alive = self.nodes.iter().filter(|(_, node)| node.alive);
        alive.map(|(n, node)| (*n, node.region.hosted())).collect()
    }

    pub(crate) fn homes(&self, n: u16) -> BTreeMap<u32, (u16, Epoch)> {
        let table = self.nodes[&n].region.table().cloned();
        let entries = table.iter().flat_map(|table| (0..).zip(&table.entries));
        let hosted = entries.filter_map(|(shard, entry)| match entry {
            Entry::Hosted { .. } => {
                let (node, epoch) = table.as_ref()?.home(*entry)?;
                Some((shard, (number(node), epoch)))
            }
            _ => None,
        });
        hosted.collect()
    }

    /// Whether all shards are hosted by living nodes, as each living node knows.
    pub(crate) fn is_whole(&self) -> bool {
        let alive = self.alive();
        let whole = |n: &u16| {
            let homes = self.homes(*n);
            let table = self.nodes[n].region.table();
            let all = table.map_or(usize::MAX, |table| table.entries.len());
            homes.len() == all && homes.values().all(|(at, _)| alive.contains(at))
        };
        let settled = |n: &u16| self.nodes[n].region.buffered() == 0;
        self.layouts().len() <= 1 && alive.iter().all(|n| whole(n) && settled(n))
    }

    pub(crate) fn is_balanced(&self) -> bool {
        let sizes: Vec<usize> = self.hosted().into_values().collect();
        let (most, least) = (sizes.iter().max(), sizes.iter().min());
        self.is_whole() && most.unwrap_or(&0) - least.unwrap_or(&0) <= 1
    }

    pub(crate) fn has_left(&self, n: u16) -> bool {
        let node = &self.nodes[&n];
        node.region.is_empty() && node.coordinator.term().is_none()
    }

    // --- what happens ---

    fn bump(&mut self, n: u16) -> u64 {
        let node = self.nodes.get_mut(&n).unwrap();
        // Versions count up over all views that are on their way to the node.
        node.view_version += 1 << 20;
        node.view_version >> 20
    }

    fn tell_members(&mut self) {
        let truth = self.truth.clone();
        let all: Vec<u16> = self.nodes.keys().copied().collect();
        self.tell_side(&all, &truth);
    }

    fn send(&mut self, n: u16, shard: u32) {
        let seq = self.seqs.entry((n, shard)).or_default();
        *seq += 1;
        let what = Msg {
            sender: n,
            shard,
            seq: *seq,
        };
        self.ledger.sent(what, n);
        let delivery = Delivery::new(hash(shard), 0, what);
        self.input(n, Input::Deliver(delivery));
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Claimed(n, shard, epoch, scopes) => self.claim(n, shard, epoch, scopes),
            Event::Deliver(n, delivery) => {
                if self.nodes[&n].alive {
                    self.input(n, Input::Deliver(delivery));
                } else {
                    self.ledger.excused(delivery.what);
                }
            }
            Event::Process(n, shard) => self.process(n, shard),
            Event::Protocol(n, message) => {
                let node = self.nodes.get_mut(&n).unwrap();
                if node.alive {
                    if let Some(message) = node.coordinator.handle(now, message) {
                        node.region.handle(now, Input::Protocol(message));
                    }
                    self.pump(n);
                }
            }
            Event::Send(n) => {
                if !self.sending || !self.nodes[&n].alive || self.nodes[&n].leaving {
                    return;
                }
                let shard = self.rng.below(u64::from(SHARDS)) as u32;
                self.send(n, shard);
                let pause = Duration::from_micros(2_000 + self.rng.below(30_000));
                self.net.at(now + pause, Event::Send(n));
            }
            Event::Layout(n, term, register, set) => self.set_layout(n, term, register, set),
            Event::Term(n, step) => self.take_over(n, step),
            Event::View(n, version, truth) => self.change_view(n, version, &truth),
        }
    }

    fn change_view(&mut self, n: u16, version: u64, truth: &Truth) {
        let now = self.now;
        let node = self.nodes.get_mut(&n).unwrap();
        let mask = (1 << 20) - 1;
        if !node.alive || version <= node.view_version & mask {
            return;
        }
        node.view_version = node.view_version & !mask | version;
        let up = truth.up.iter().map(|n| (id(*n), Host::Up));
        let leaving = truth.leaving.iter().map(|n| (id(*n), Host::Leaving));
        let view = View {
            me: node.id.clone(),
            oldest: truth.up.first().map(|n| id(*n)),
            hosts: up.chain(leaving).collect(),
            gone: truth.gone.iter().map(|n| id(*n)).collect(),
            ..View::empty(node.id.clone())
        };
        node.coordinator.change_view(now, view.clone());
        self.input(n, Input::View(view));
    }

    fn process(&mut self, n: u16, shard: u32) {
        let node = self.nodes.get_mut(&n).unwrap();
        let Some(running) = node.hosts.get_mut(&shard).filter(|_| node.alive) else {
            return;
        };
        running.at_work = false;
        let (epoch, scope) = (running.epoch, running.scope);
        let mut fenced = false;
        if let Some(msg) = running.queue.pop_front() {
            if self.store.may_write(scope, epoch) {
                self.ledger
                    .accepted(msg, &node.id, epoch, self.now.as_nanos());
            } else {
                self.ledger.excused(msg);
                fenced = true;
            }
        }
        self.go_on(n, shard);
        if fenced {
            self.input(n, Input::Fenced { shard, epoch });
        }
    }

    /// Lets the entity of a shard handle its next message, or end.
    fn go_on(&mut self, n: u16, shard: u32) {
        let node = self.nodes.get_mut(&n).unwrap();
        let Some(running) = node.hosts.get_mut(&shard) else {
            return;
        };
        if running.at_work {
            return;
        }
        if !running.queue.is_empty() {
            running.at_work = true;
            let work = Duration::from_micros(self.rng.below(3_000));
            self.net.at(self.now + work, Event::Process(n, shard));
        } else if running.stopping {
            node.hosts.remove(&shard);
            if !self.spring(Step::Ended, n) {
                self.input(n, Input::Ended { shard });
            }
        }
    }

    fn input(&mut self, n: u16, input: Input<Msg>) {
        let now = self.now;
        let node = self.nodes.get_mut(&n).unwrap();
        if node.alive {
            node.region.handle(now, input);
            self.pump(n);
        }
    }

    fn pump(&mut self, n: u16) {
        while self.nodes[&n].alive {
            let node = self.nodes.get_mut(&n).unwrap();
            if let Some(output) = node.region.poll_output() {
                self.act(n, output);
            } else if let Some(output) = node.coordinator.poll_output() {
                match output {
                    coordinator::Output::Layout { term, register } => {
                        self.in_store(Event::Layout(n, term, register, false));
                    }
                    coordinator::Output::NextTerm => {
                        self.in_store(Event::Term(n, TakeOver::Draw));
                    }
                    coordinator::Output::Send { to, message } => self.say(n, &to, message),
                }
            } else {
                let coordinator = node.coordinator.poll_timeout().unwrap_or(Time::MAX);
                node.timer = node.region.poll_timeout().min(coordinator);
                return;
            }
        }
    }

    fn act(&mut self, n: u16, output: Output<Msg>) {
        match output {
            Output::Claim {
                shard,
                epoch,
                fenced,
                scope,
            } => {
                let scopes = fenced.into_iter().chain([scope]).collect();
                self.in_store(Event::Claimed(n, shard, epoch, scopes));
            }
            Output::Deliver { epoch, delivery } => {
                let shard = delivery.shard;
                let node = self.nodes.get_mut(&n).unwrap();
                let scope = node.region.layout().scope(shard);
                let running = node.hosts.entry(shard).or_default();
                (running.epoch, running.scope) = (epoch, scope);
                running.queue.push_back(delivery.what);
                self.go_on(n, shard);
            }
            Output::Drop { delivery, reason } => {
                self.ledger.dropped(delivery.what, &format!("{reason:?}"));
            }
            Output::Forward { to, delivery } => {
                let to = number(&to);
                let msg = delivery.what;
                if self.cut.contains(&(n, to)) {
                    self.ledger.excused(msg);
                    return;
                }
                self.ledger.moved(msg, to);
                if !self.nodes[&to].alive {
                    self.ledger.excused(msg);
                }
                let event = Event::Deliver(to, delivery);
                self.net.send(self.now, &mut self.rng, n, to, event);
            }
            Output::Send { to, message } => self.say(n, &to, message),
            Output::Stop {
                shard,
                after_queued,
            } => {
                if self.spring(Step::Stopping, n) {
                    return;
                }
                let node = self.nodes.get_mut(&n).unwrap();
                let running = node.hosts.entry(shard).or_default();
                running.stopping = true;
                if !after_queued {
                    for msg in std::mem::take(&mut running.queue) {
                        self.ledger.excused(msg);
                    }
                }
                self.go_on(n, shard);
            }
            Output::Homes | Output::Layout(_) => {}
        }
    }

    fn say(&mut self, from: u16, to: &NodeId, message: ProtocolMessage) {
        let to = number(to);
        let moving = |table: &otava_sharding::wire::Table| {
            let moves = |entry: &Entry| matches!(entry, Entry::Moving { .. });
            table.entries.iter().any(moves)
        };
        let step = match &message {
            ProtocolMessage::Barrier(_) => Some(Step::BarrierSent),
            ProtocolMessage::Legacy(_) => Some(Step::LegacySent),
            ProtocolMessage::Table(table) if moving(table) => Some(Step::MovingSeen),
            _ => None,
        };
        if step.is_some_and(|step| self.spring(step, from)) {
            return;
        }
        if from == to {
            self.net.at(self.now, Event::Protocol(to, message));
        } else if self.rng.below(1_000) >= self.loss && !self.cut.contains(&(from, to)) {
            let event = Event::Protocol(to, message);
            self.net.send(self.now, &mut self.rng, from, to, event);
        }
    }

    /// Happens in the store, which takes its time.
    fn in_store(&mut self, event: Event) {
        let delay = Duration::from_micros(100 + self.rng.below(self.store_delay));
        self.net.at(self.now + delay, event);
    }

    /// The store may have done what it was asked and not get to say so.
    fn is_unavailable(&mut self) -> bool {
        self.rng.below(100) == 0
    }

    fn claim(&mut self, n: u16, shard: u32, epoch: Epoch, mut scopes: VecDeque<u32>) {
        let Some(scope) = scopes.pop_front() else {
            return;
        };
        let mut answer = self.store.claim(scope, epoch);
        if scopes.is_empty() && self.spring(Step::Claimed, n) {
            return;
        }
        if self.is_unavailable() {
            answer = ClaimAnswer::Unavailable;
        } else if !scopes.is_empty() {
            if self.nodes[&n].alive {
                self.in_store(Event::Claimed(n, shard, epoch, scopes));
            }
            return;
        }
        let claimed = Input::Claimed {
            shard,
            epoch,
            answer,
        };
        self.input(n, claimed);
        self.check_single();
    }

    fn set_layout(&mut self, n: u16, term: u32, register: u64, set: bool) {
        let current = |term| ClaimAnswer::Refused {
            current: Epoch { term, counter: 0 },
        };
        let answer = if set {
            match self.store.claim_layout(term) {
                true => ClaimAnswer::Yes,
                false => current(term + 1),
            }
        } else if self.store.set_layout(register) {
            if self.spring(Step::LayoutSet, n) || !self.nodes[&n].alive {
                return;
            }
            if !self.is_unavailable() {
                return self.in_store(Event::Layout(n, term, register, true));
            }
            ClaimAnswer::Unavailable
        } else {
            current(term + 1)
        };
        let now = self.now;
        let node = self.nodes.get_mut(&n).unwrap();
        if node.alive {
            node.coordinator.layout_set(now, register, answer);
            self.pump(n);
        }
    }

    fn take_over(&mut self, n: u16, step: TakeOver) {
        let store = &mut self.store;
        let next = match step {
            TakeOver::Draw => Ok(TakeOver::Claim(store.next_term())),
            TakeOver::Claim(term) if store.claim_layout(term) => Ok(TakeOver::Read(term)),
            TakeOver::Read(term) => {
                let layout = match store.layout() {
                    0 => Layout::first(SHARDS),
                    kept => Layout::from_register(kept).unwrap(),
                };
                Ok(TakeOver::Write(term, layout))
            }
            TakeOver::Write(term, layout) if store.set_layout(layout.to_register(term, 0)) => {
                Err(Some((term, layout)))
            }
            TakeOver::Claim(_) | TakeOver::Write(..) => Err(None),
        };
        let now = self.now;
        let node = self.nodes.get_mut(&n).unwrap();
        match next {
            _ if !node.alive => {}
            Ok(step) => self.in_store(Event::Term(n, step)),
            Err(claimed) => {
                node.coordinator.term_claimed(now, claimed);
                self.pump(n);
            }
        }
    }

    /// Whether the trap at this step has killed the node that took it.
    fn spring(&mut self, step: Step, actor: u16) -> bool {
        let Some(trap) = self.trap.as_mut().filter(|trap| trap.on == step) else {
            return false;
        };
        if trap.skip > 0 {
            trap.skip -= 1;
            return false;
        }
        let victim = match trap.victim {
            Victim::Actor => Some(actor),
            Victim::Coordinator => self.coordinator(),
        };
        self.trap = None;
        if let Some(victim) = victim {
            self.crash(victim);
        }
        victim == Some(actor)
    }

    /// Without faults no two nodes run an entity at any time.
    fn check_single(&mut self) {
        if !self.calm {
            return;
        }
        for entity in 0..SHARDS {
            let runs = |node: &&Node| {
                let shard = shard_at(hash(entity), node.region.layout().shards);
                node.alive && node.region.running(shard).is_some()
            };
            let homes: Vec<_> = self.nodes.values().filter(runs).map(|n| &n.id).collect();
            if homes.len() > 1 {
                let complaint = format!("entity {entity} runs on {homes:?} at once");
                self.ledger.complaints.push(complaint);
            }
        }
    }
}
