//! Reign: one term of a coordinator, from asking the regions what they have to its end.
//! Pure: no clock, no IO.
//!
//! # Taking over
//! Nothing is kept between terms but what the regions know. A new coordinator asks the region of each
//! member what it has and by which table it goes, and allocates nothing before all have answered, or
//! a limit has passed. After the limit a silent member is left out: it gets nothing, and what the
//! newest table places there **stays there** until it answers or is down, because it may well run
//! there. Other shards are allocated. (A silent member may have begun something that no table told
//! anyone yet. Then two regions have one shard, and the store decides: the later epoch.)
//!
//! # Another number of shards
//! Somebody wants twice or half as many. When every shard is at home and everybody answers, all shards
//! are **closed**: they move, to nowhere. When nothing runs any more the new layout is set in the store,
//! and from then on it is the one of every coordinator ([`crate::logic::layout`]); then all shards start by
//! it, where their entities were. If closing takes too long it is given up, and they start as they were. A
//! coordinator that dies in between is followed by one that finds the one layout or the other.
//!
//! # A shard
//! ```text
//!  Unallocated --> Starting --> Hosted --> Moving --+
//!       ^  ^          |           |                 |  gone from its region's status
//!       |  +----------+-----------+                 |
//!       +-------------------------------------------+
//! ```
//! A region's status counts for a shard only if the region had seen the revision in which the
//! coordinator last changed it; an older one speaks of a time before.
//!
//! A new coordinator that is given a [`Legacy`] by the one before needs none of that: it goes on with what
//! that one knew and had decided, moves included. Otherwise:
//! a move that a new coordinator finds under way is taken back, if the region still waits for
//! barriers: it goes on as the home. If its entities are ending already, the end is awaited.

use crate::logic::allocation::{Hosting, Placement};
use crate::logic::coordinator::CoordinatorConfig;
use crate::logic::epoch::Epoch;
use crate::logic::hash::is_valid_shards;
use crate::logic::layout::Layout;
use crate::logic::pace::Pace;
use crate::logic::view::{Host, View};
use crate::wire::{Claim, Entry, Legacy, Phase, ProtocolMessage, Status, Table};
use change::Change;
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod change;

/// A later term exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Superseded {
    /// That one.
    pub term: u32,
}

/// One term.
#[derive(Debug)]
pub struct Reign {
    config: CoordinatorConfig,
    me: NodeId,
    term: u32,
    revision: u64,
    counter: u32,
    /// While regions are asked what they have: until when.
    gathering: Option<Time>,
    ask_at: Time,
    layout: Layout,
    change: Change,
    /// How many shards somebody wants.
    wish: Option<u32>,
    /// How often the layout was set in this term.
    layouts: u16,
    shards: Vec<Shard>,
    /// Regions that have answered in this term.
    regions: BTreeMap<NodeId, Known>,
    /// Regions that earlier tables name, and that have not answered in this term.
    missing: BTreeSet<NodeId>,
    /// The newest table of an earlier term.
    earlier: Option<Arc<Table>>,
    table: Option<Arc<Table>>,
    /// What shards carry, as it was measured last, here or where they were before.
    loads: BTreeMap<u32, u32>,
    push: Pace,
    rebalance_at: Time,
    outputs: VecDeque<(NodeId, ProtocolMessage)>,
}

/// What is known of a region that answers.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The number of its last status.
    number: u64,
    /// The revision it goes by.
    revision: u64,
    /// When the table is pushed again if it has not been confirmed.
    resend_at: Time,
}

/// What was decided about a shard.
#[derive(Clone, Debug)]
struct Shard {
    state: State,
    /// The revision that tells of it first.
    since: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Hosted {
        at: NodeId,
        epoch: Epoch,
    },
    Moving {
        at: NodeId,
        epoch: Epoch,
        move_no: Epoch,
        to: Option<NodeId>,
    },
    Starting {
        at: NodeId,
        epoch: Epoch,
    },
    Unallocated,
}

impl State {
    /// Which region has it, by which allocation.
    fn place(&self) -> Option<(&NodeId, Epoch)> {
        match self {
            Self::Hosted { at, epoch }
            | Self::Moving { at, epoch, .. }
            | Self::Starting { at, epoch } => Some((at, *epoch)),
            Self::Unallocated => None,
        }
    }
}

impl Reign {
    /// Begins the term.
    #[must_use]
    pub fn new(
        now: Time,
        (term, layout): (u32, Layout),
        view: &View,
        config: CoordinatorConfig,
    ) -> Self {
        let shard = Shard {
            state: State::Unallocated,
            since: 1,
        };
        Self {
            me: view.me.clone(),
            term,
            revision: 0,
            counter: 0,
            gathering: Some(now + config.gather_limit),
            ask_at: now,
            layout,
            change: Change::None(Time::ZERO),
            wish: None,
            layouts: 0,
            shards: vec![shard; layout.shards as usize],
            regions: BTreeMap::new(),
            missing: BTreeSet::new(),
            earlier: None,
            table: None,
            loads: BTreeMap::new(),
            push: Pace::new(config.table_pause),
            rebalance_at: now,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Its number.
    #[must_use]
    pub fn term(&self) -> u32 {
        self.term
    }

    /// Whether nothing is allocated yet.
    #[must_use]
    pub fn is_gathering(&self) -> bool {
        self.gathering.is_some()
    }

    /// The next thing to say, and to whom.
    pub fn poll_output(&mut self) -> Option<(NodeId, ProtocolMessage)> {
        self.outputs.pop_front()
    }

    /// When to call [`Reign::advance`].
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let Some(until) = self.gathering else {
            let pushes = self.regions.values().filter_map(|known| {
                let behind = known.revision < self.revision;
                behind.then_some(known.resend_at)
            });
            let push = self.push.next().into_iter();
            let next = pushes.chain(push).min().unwrap_or(Time::MAX);
            let ask = if self.missing.is_empty() {
                Time::MAX
            } else {
                self.ask_at
            };
            let balance = if self.is_closed() {
                Time::MAX
            } else {
                self.rebalance_at
            };
            return next.min(balance).min(ask).min(self.change_due());
        };
        until.min(self.ask_at)
    }

    /// The members have changed: what was on those who are out for good is free.
    pub fn change_view(&mut self, now: Time, view: &View) {
        let is_host = |node: &NodeId| view.hosts.contains_key(node);
        let regions = self.regions.len();
        self.regions.retain(|node, _| is_host(node));
        self.missing.retain(is_host);
        if self.regions.len() != regions {
            self.push.want();
        }
        for shard in 0..self.shards.len() {
            match &mut self.shards[shard].state {
                State::Hosted { at, .. }
                | State::Moving { at, .. }
                | State::Starting { at, .. }
                    if !is_host(at) =>
                {
                    self.set(shard, State::Unallocated);
                }
                State::Moving { to, .. } if to.as_ref().is_some_and(|to| !view.is_up(to)) => {
                    *to = None;
                }
                _ => {}
            }
        }
        self.ask_at = now;
        self.rebalance_at = now;
    }

    /// A region says what it has.
    ///
    /// # Errors
    /// [`Superseded`]: the region obeys a later term, or the store has one.
    pub fn status(&mut self, now: Time, view: &View, status: Status) -> Result<(), Superseded> {
        if !view.hosts.contains_key(&status.from) {
            // It is not known as a member yet, or no longer. It says it again.
            return Ok(());
        }
        let latest = status.refused.iter().map(|refused| refused.current.term);
        let latest = latest.max().unwrap_or(0).max(status.term);
        if latest > self.term {
            return Err(Superseded { term: latest });
        }
        if status.term < self.term {
            // Not the table: a region that has it must send barriers, so it has to be known first.
            self.send_gather(&status.from);
            return Ok(());
        }
        let known = self.regions.get(&status.from);
        if known.is_some_and(|known| known.number >= status.number) {
            return Ok(());
        }
        if known.is_none() {
            self.register(now, &status);
        }
        if let Some(shards) = status.resize.filter(|shards| is_valid_shards(*shards)) {
            self.wish = Some(shards);
        }
        let counts_alike = status.shards == self.layout.shards;
        let known = Known {
            number: status.number,
            revision: if counts_alike { status.revision } else { 0 },
            resend_at: now + self.config.resend,
        };
        let before = self.regions.insert(status.from.clone(), known);
        if let Some(before) = before.filter(|_| known.revision < self.revision) {
            // Still behind: do not put the next push off.
            let resend_at = before.resend_at;
            self.regions
                .entry(status.from.clone())
                .and_modify(|known| known.resend_at = resend_at);
        }
        for refused in &status.refused {
            if refused.current.term == self.term {
                self.counter = self.counter.max(refused.current.counter);
            }
        }
        if !counts_alike {
            // It has the old layout still, or nothing that counts: the table tells it to end it.
            return Ok(());
        }
        let known = |(shard, _): &(u32, u32)| *shard < self.layout.shards;
        self.loads
            .extend(status.loads.iter().copied().filter(known));
        self.compare(&status);
        Ok(())
    }

    /// What the coordinator of `term`, the next one, needs in order to go on; nothing while this one
    /// does not know it itself.
    #[must_use]
    pub fn legacy(&self, term: u32) -> Option<Legacy> {
        if self.is_gathering() || term != self.term.saturating_add(1) {
            return None;
        }
        let targets = (0..).zip(&self.shards);
        let targets = targets.filter_map(|(number, shard)| match &shard.state {
            State::Moving { to: Some(to), .. } => Some((number, to.clone())),
            _ => None,
        });
        Some(Legacy {
            term,
            table: Arc::new(self.write_table()),
            targets: targets.collect(),
        })
    }

    /// Goes on from where the coordinator of the term before stopped.
    pub fn inherit(&mut self, now: Time, view: &View, legacy: &Legacy) {
        let table = &legacy.table;
        let next = legacy.term == self.term && table.term.checked_add(1) == Some(self.term);
        let fits = next && table.layout().shards == self.layout.shards;
        if !self.is_gathering() || !fits || !table.is_sound() {
            return;
        }
        tracing::info!(term = self.term, from = %table.from, "the table is inherited");
        self.gathering = None;
        self.earlier = None;
        let is_host = |node: &&NodeId| view.hosts.contains_key(*node);
        // Whoever goes by a table of that term has to send barriers, so it stays in the next one.
        for region in table.regions.iter().filter(is_host) {
            self.regions.entry(region.clone()).or_insert(Known {
                number: 0,
                revision: 0,
                resend_at: now,
            });
        }
        let silent = table.silent.iter().filter(is_host);
        let silent = silent.filter(|node| !self.regions.contains_key(*node));
        self.missing = silent.cloned().collect();
        let targets: BTreeMap<u32, &NodeId> = legacy
            .targets
            .iter()
            .map(|(shard, to)| (*shard, to))
            .collect();
        for (shard, entry) in table.entries.iter().enumerate() {
            let to = targets.get(&(shard as u32)).copied();
            let to = to.filter(|to| view.is_up(to)).cloned();
            let state = match (*entry, table.home(*entry)) {
                (_, Some((at, _))) if !view.hosts.contains_key(at) => State::Unallocated,
                (Entry::Hosted { .. }, Some((at, epoch))) => {
                    let at = at.clone();
                    State::Hosted { at, epoch }
                }
                (Entry::Moving { move_no, .. }, Some((at, epoch))) => State::Moving {
                    at: at.clone(),
                    epoch,
                    move_no,
                    to,
                },
                (Entry::Starting { .. }, Some((at, epoch))) => {
                    let at = at.clone();
                    State::Starting { at, epoch }
                }
                (_, None) | (Entry::Unallocated, _) => State::Unallocated,
            };
            let known = |state: &State| state.place().map(|(_, epoch)| epoch);
            if known(&self.shards[shard].state) <= known(&state) {
                self.set(shard, state);
            }
        }
        self.push.want();
        self.rebalance_at = now + self.config.rebalance_interval;
    }

    /// Does what is due.
    pub fn advance(&mut self, now: Time, view: &View) {
        if let Some(until) = self.gathering {
            let answered = |node: &NodeId| self.regions.contains_key(node);
            // A proxy has nothing, and need not have been started.
            let hosts = || view.hosts.keys().filter(|node| view.may_have(node));
            if now < until && !hosts().all(answered) {
                if now >= self.ask_at {
                    self.ask_at = now + self.config.resend;
                    let silent = hosts().filter(|node| !answered(node));
                    let silent: Vec<NodeId> = silent.cloned().collect();
                    for node in silent {
                        self.send_gather(&node);
                    }
                }
                return;
            }
            self.settle(view);
        }
        if now >= self.ask_at {
            self.ask_at = now + self.config.resend;
            for node in self.missing.clone() {
                self.send_gather(&node);
            }
        }
        self.change_layout(now, view);
        if !self.is_closed() {
            self.allocate(view);
            self.drain(view);
            self.rebalance(now, view);
        }
        self.send_tables(now);
    }

    // --- who has what ---

    fn register(&mut self, now: Time, status: &Status) {
        self.missing.remove(&status.from);
        if let Some(table) = &status.table
            && table.is_sound()
            && table.layout().shards == self.layout.shards
        {
            let earlier = self.earlier.as_ref();
            if earlier.is_none_or(|earlier| table.is_newer_than(earlier)) {
                self.earlier = Some(table.clone());
            }
        }
        self.push.want();
        self.rebalance_at = now;
    }

    /// Compares what a region says with what was decided.
    fn compare(&mut self, status: &Status) {
        let claims: BTreeMap<u32, Claim> = status
            .claims
            .iter()
            .filter(|claim| claim.shard < self.layout.shards)
            .map(|claim| (claim.shard, *claim))
            .collect();
        for shard in 0..self.shards.len() {
            let claim = claims.get(&(shard as u32));
            let Shard { state, since } = &self.shards[shard];
            let (place, knows) = (state.place(), status.revision >= *since);
            let next = match (place, claim) {
                // It has something newer than what is known here.
                (place, Some(claim)) if place.is_none_or(|(_, epoch)| epoch < claim.epoch) => {
                    self.adopt(&status.from, *claim)
                }
                (Some((at, epoch)), Some(claim)) if *at == status.from && epoch == claim.epoch => {
                    self.follow(shard, claim.phase, knows)
                }
                // What it has is older; the table tells it to end it. Then it starts the newer one.
                (Some(_), Some(_)) => continue,
                (Some((at, _)), None) if *at == status.from && knows => {
                    let to = match state {
                        State::Moving { to: Some(to), .. } => Some(to.clone()),
                        _ => None,
                    };
                    to.map_or(State::Unallocated, |at| self.start(at))
                }
                _ => continue,
            };
            if matches!(next, State::Hosted { .. }) && next != self.shards[shard].state {
                // A round may be done.
                self.rebalance_at = Time::ZERO;
            }
            self.set(shard, next);
        }
    }

    /// The state of a shard of which a region tells for the first time.
    fn adopt(&mut self, at: &NodeId, claim: Claim) -> State {
        let (at, epoch) = (at.clone(), claim.epoch);
        match claim.phase {
            Phase::Active | Phase::HandingOff => State::Hosted { at, epoch },
            Phase::Claiming => State::Starting { at, epoch },
            Phase::Stopping => State::Moving {
                at,
                epoch,
                move_no: self.next_epoch(),
                to: None,
            },
        }
    }

    /// The state of a shard after its region has said how far it is.
    fn follow(&mut self, shard: usize, phase: Phase, knows: bool) -> State {
        let state = self.shards[shard].state.clone();
        match (state, phase) {
            (State::Starting { at, epoch }, Phase::Active | Phase::HandingOff) => {
                State::Hosted { at, epoch }
            }
            // It gives it up on its own: a write was refused, or it is about to end.
            (State::Starting { at, epoch } | State::Hosted { at, epoch }, Phase::Stopping)
                if knows =>
            {
                State::Moving {
                    at,
                    epoch,
                    move_no: self.next_epoch(),
                    to: None,
                }
            }
            (state, _) => state,
        }
    }

    /// The gathering is over: what nobody has is free, but for what silent members may have.
    fn settle(&mut self, view: &View) {
        self.gathering = None;
        self.push.want();
        let Some(earlier) = self.earlier.take() else {
            return;
        };
        let silent =
            |node: &NodeId| view.hosts.contains_key(node) && !self.regions.contains_key(node);
        let missing = earlier.regions.iter().chain(&earlier.silent);
        self.missing = missing.filter(|node| silent(node)).cloned().collect();
        for (shard, entry) in earlier.entries.iter().enumerate() {
            let Some((at, epoch)) = earlier.home(*entry) else {
                continue;
            };
            if self.shards[shard].state == State::Unallocated && self.missing.contains(at) {
                let at = at.clone();
                self.set(shard, State::Hosted { at, epoch });
            }
        }
    }

    // --- decisions ---

    fn set(&mut self, shard: usize, state: State) {
        if self.shards[shard].state != state {
            let since = self.revision + 1;
            self.shards[shard] = Shard { state, since };
            self.push.want();
        }
    }

    fn next_epoch(&mut self) -> Epoch {
        self.counter = self.counter.saturating_add(1);
        Epoch {
            term: self.term,
            counter: self.counter,
        }
    }

    fn start(&mut self, at: NodeId) -> State {
        let epoch = self.next_epoch();
        State::Starting { at, epoch }
    }

    /// What each region that may get shards has or is about to get. While a new version of the program
    /// is rolled out, what needs a home goes to nodes that have it, so that it moves once.
    fn placement(&self, view: &View) -> Placement {
        let up = || self.regions.keys().filter(|node| view.is_up(node));
        let updated = |node: &&NodeId| !view.outdated.contains(*node);
        let all = !up().any(|node| updated(&node));
        let regions = up().filter(|node| all || updated(node));
        let mut hosting: Hosting = regions.map(|node| (node.clone(), Vec::new())).collect();
        for (shard, Shard { state, .. }) in (0..).zip(&self.shards) {
            let at = match state {
                State::Moving { to, .. } => to.as_ref(),
                state => state.place().map(|(at, _)| at),
            };
            if let Some(shards) = at.and_then(|at| hosting.get_mut(at)) {
                shards.push(shard);
            }
        }
        Placement::new(hosting).with_loads(self.loads.clone())
    }

    fn allocate(&mut self, view: &View) {
        let free = |shard: &Shard| shard.state == State::Unallocated;
        if !self.shards.iter().any(free) {
            return;
        }
        let mut placement = self.placement(view);
        for shard in 0..self.shards.len() {
            if self.shards[shard].state != State::Unallocated {
                continue;
            }
            let number = shard as u32;
            let Some(at) = self.config.strategy.allocate(number, &placement) else {
                continue;
            };
            let Some(shards) = placement.hosting.get_mut(&at) else {
                continue;
            };
            shards.push(number);
            let next = self.start(at);
            self.set(shard, next);
        }
    }

    /// Whether a move can be carried out now: it needs a barrier of every region.
    fn may_move(&self, view: &View) -> bool {
        view.unreachable.is_empty() && self.missing.is_empty()
    }

    /// Moves what leaving members have.
    fn drain(&mut self, view: &View) {
        let leaving = |node: &NodeId| view.hosts.get(node) == Some(&Host::Leaving);
        if !self.may_move(view) || !view.hosts.keys().any(leaving) {
            return;
        }
        let moving = |shard: &&Shard| matches!(shard.state, State::Moving { .. });
        let under_way = self.shards.iter().filter(moving).count();
        let mut room = self.config.drain_shards_max.saturating_sub(under_way);
        let mut placement = self.placement(view);
        for shard in 0..self.shards.len() {
            let State::Hosted { at, epoch } = self.shards[shard].state.clone() else {
                continue;
            };
            if room == 0 || !leaving(&at) || !self.regions.contains_key(&at) {
                continue;
            }
            let number = shard as u32;
            let to = self.config.strategy.allocate(number, &placement);
            let Some((to, shards)) =
                to.and_then(|to| Some((to.clone(), placement.hosting.get_mut(&to)?)))
            else {
                return;
            };
            shards.push(number);
            room -= 1;
            self.begin_move(shard, at, epoch, Some(to));
        }
    }

    fn rebalance(&mut self, now: Time, view: &View) {
        if now < self.rebalance_at {
            return;
        }
        self.rebalance_at = now + self.config.rebalance_interval;
        let at_rest = |shard: &Shard| matches!(shard.state, State::Hosted { .. });
        let may = self.may_move(view) && view.may_rebalance();
        if !may || !self.shards.iter().all(at_rest) {
            return;
        }
        let placement = self.placement(view);
        let hosting = &placement.hosting;
        for step in self.config.strategy.rebalance(&placement) {
            let shard = step.shard as usize;
            let Some(Shard { state, .. }) = self.shards.get(shard) else {
                continue;
            };
            if let State::Hosted { at, epoch } = state.clone()
                && at != step.to
                && hosting.contains_key(&at)
                && hosting.contains_key(&step.to)
            {
                self.begin_move(shard, at, epoch, Some(step.to));
            }
        }
    }

    fn begin_move(&mut self, shard: usize, at: NodeId, epoch: Epoch, to: Option<NodeId>) {
        let move_no = self.next_epoch();
        tracing::debug!(shard, from = %at, ?to, %move_no, "a shard moves");
        let next = State::Moving {
            at,
            epoch,
            move_no,
            to,
        };
        self.set(shard, next);
    }

    // --- what is said ---

    pub(crate) fn send_gather(&mut self, node: &NodeId) {
        let message = ProtocolMessage::Gather {
            from: self.me.clone(),
            term: self.term,
            shards: self.config.shards,
        };
        self.outputs.push_back((node.clone(), message));
    }

    /// Pushes the table: to all regions if it has changed, else to those that are behind.
    fn send_tables(&mut self, now: Time) {
        let changed = self.push.take(now);
        if changed {
            self.revision += 1;
            self.table = Some(Arc::new(self.write_table()));
        }
        let Some(table) = self.table.clone() else {
            return;
        };
        for (node, known) in &mut self.regions {
            let due = known.revision < self.revision && now >= known.resend_at;
            if changed || due {
                known.resend_at = now + self.config.resend;
                let message = ProtocolMessage::Table(table.clone());
                self.outputs.push_back((node.clone(), message));
            }
        }
    }

    fn write_table(&self) -> Table {
        let regions: Vec<NodeId> = self.regions.keys().cloned().collect();
        let homes = self.shards.iter().filter_map(|shard| shard.state.place());
        let silent: BTreeSet<&NodeId> = homes
            .map(|(at, _)| at)
            .filter(|at| !self.regions.contains_key(at))
            .collect();
        let silent: Vec<NodeId> = silent.into_iter().cloned().collect();
        let places: BTreeMap<&NodeId, u32> = regions.iter().chain(&silent).zip(0..).collect();
        let entry = |shard: &Shard| match &shard.state {
            State::Hosted { at, epoch } => Entry::Hosted {
                home: places[at],
                epoch: *epoch,
            },
            State::Moving {
                at, epoch, move_no, ..
            } => Entry::Moving {
                home: places[at],
                epoch: *epoch,
                move_no: *move_no,
            },
            State::Starting { at, epoch } => Entry::Starting {
                home: places[at],
                epoch: *epoch,
            },
            State::Unallocated => Entry::Unallocated,
        };
        let entries = self.shards.iter().map(entry).collect();
        Table {
            from: self.me.clone(),
            term: self.term,
            revision: self.revision,
            begins_with: self.config.shards,
            previous: self.layout.previous,
            regions,
            silent,
            entries,
        }
    }
}
