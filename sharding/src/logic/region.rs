//! Region: what one node does with messages for entities, and with the shards it is given.
//! Pure: no clock, no IO.
//!
//! # A message's way
//! A message comes from an entity reference of this node or from a client (`hops` 0), or from
//! another region (`hops` above 0). It goes to the entity if the shard is here, to the shard's home
//! if that is known, and into the buffer otherwise. What the buffer holds goes out in order, before
//! anything newer, as soon as the home is known.
//!
//! # A shard's life here
//! ```text
//!  table: Starting          store: yes         table: Moving            all barriers
//! ----------------> Claiming --------> Active ---------------> HandingOff ----------> Stopping --> gone
//!                      | store: no        |                        |                     ^
//!                      v                  +-- fenced, overtaken ---+---------------------+
//!                    gone
//! ```
//!
//! # Why a planned move loses nothing and keeps order
//! While a shard moves, each other region buffers what is to go there, and sends the home a barrier
//! on the lane of everything it sent before. The home goes on handling what comes until it has the
//! barrier of each; then nothing is on its way, it buffers as well, its entities handle what they
//! have and end. The messages in the buffers are younger than all of that, and they go out when the
//! new home has started.
//!
//! An entity that does not end cannot keep its shard: the host says that all have ended when their time is
//! over, so `Stopping` is always left. What still runs then has no right any more once the next home has
//! claimed the shard.
//!
//! # Coordinators
//! A region obeys the highest term it has heard of, and nobody else. From the moment it has answered
//! a new term's `Gather`, it begins nothing that an older term told it: what it answered stays true
//! until the new coordinator says what shall be.

use crate::logic::buffers::Buffers;
use crate::logic::epoch::Epoch;
pub use crate::logic::exchange::{ClaimAnswer, Delivery, DropReason, Input, Output, RegionConfig};
use crate::logic::hash::{is_valid_shards, shard_at};
use crate::logic::layout::Layout;
use crate::logic::load::Meter;
use crate::logic::pace::Pace;
use crate::logic::view::View;
use crate::wire::{Barrier, Claim, Entry, Phase, ProtocolMessage, Refused, Status, Table};
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How often a message may be passed on between regions whose tables differ.
pub const HOPS_MAX: u8 = 4;
/// How many regions' barriers are kept for one move; far above what a cluster has.
const BARRIERS_MAX: usize = 4_096;

/// A shard that is here.
#[derive(Clone, Copy, Debug)]
struct Local {
    epoch: Epoch,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Active,
    /// Ask the store again at this time, if one is set.
    Claiming(Option<Time>),
    HandingOff(Epoch),
    Stopping,
}

/// The region of one kind on one node.
#[derive(Debug)]
pub struct Region<D> {
    config: RegionConfig,
    view: View,
    /// The highest term heard of, and who holds it.
    term: u32,
    coordinator: Option<NodeId>,
    /// The newest table; it may be of an earlier term. It has the layout by which this region counts.
    table: Option<Arc<Table>>,
    layout: Layout,
    /// A newer table of another layout, until nothing of this one is here any more.
    next: Option<Arc<Table>>,
    /// How many shards somebody on this node wants.
    wish: Option<u32>,
    local: BTreeMap<u32, Local>,
    refused: BTreeMap<u32, Refused>,
    /// Barriers that came, by shard, of the latest move each.
    barriers: BTreeMap<u32, (Epoch, BTreeSet<NodeId>)>,
    /// The moves to whose home this region has sent a barrier.
    barred: BTreeMap<u32, Epoch>,
    buffers: Buffers<Delivery<D>>,
    handing_over: bool,
    /// The last coordinator that was heard of counts other shards.
    differs: bool,
    meter: Meter,
    number: u64,
    status: Pace,
    resend_at: Time,
    outputs: VecDeque<Output<D>>,
}

impl<D> Region<D> {
    /// The region of node `me`, which knows of nobody yet.
    #[must_use]
    pub fn new(me: NodeId, config: RegionConfig) -> Self {
        Self {
            view: View::empty(me),
            term: 0,
            coordinator: None,
            table: None,
            layout: Layout::first(config.shards),
            next: None,
            wish: None,
            local: BTreeMap::new(),
            refused: BTreeMap::new(),
            barriers: BTreeMap::new(),
            barred: BTreeMap::new(),
            buffers: Buffers::new(config.buffers),
            handing_over: false,
            differs: false,
            meter: Meter::new(config.measure_every),
            number: 0,
            status: Pace::new(config.status_pause),
            resend_at: Time::ZERO,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, now: Time, input: Input<D>) {
        match input {
            Input::Claimed {
                shard,
                epoch,
                answer,
            } => {
                self.claimed(now, shard, epoch, answer);
                self.obey(Some(shard));
            }
            Input::Deliver(delivery) => return self.deliver(delivery),
            Input::Ended { shard } => {
                self.ended(shard);
                self.obey(Some(shard));
            }
            Input::Fenced { shard, epoch } => self.fenced(shard, epoch),
            Input::Protocol(message) => self.protocol(now, message),
            Input::Resize { shards } => {
                self.wish = Some(shards)
                    .filter(|shards| is_valid_shards(*shards) && *shards != self.layout.shards);
                self.status.want();
            }
            Input::View(view) => self.change_view(now, view),
        }
        self.advance(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.resend_at {
            self.resend_at = now + self.config.resend;
            if !self.is_settled() {
                self.status.want();
            }
            self.send_barriers(true);
        }
        let active = self.local.iter();
        let active = active.filter(|(_, local)| local.state == State::Active);
        if self.meter.measure(now, active.map(|(shard, _)| *shard)) {
            self.status.want();
        }
        let again = |local: &Local| matches!(local.state, State::Claiming(Some(at)) if now >= at);
        for (shard, local) in self.local.iter_mut().filter(|(_, local)| again(local)) {
            local.state = State::Claiming(None);
            let claim = claim(self.layout, *shard, local.epoch);
            self.outputs.push_back(claim);
        }
        self.advance(now);
    }

    /// The next thing to do; changes with every call of `handle` and `handle_timeout`.
    pub fn poll_output(&mut self) -> Option<Output<D>> {
        self.outputs.pop_front()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let status = self.status.next().unwrap_or(Time::MAX);
        let claims = self.local.values().filter_map(|local| match local.state {
            State::Claiming(at) => at,
            _ => None,
        });
        claims
            .min()
            .unwrap_or(Time::MAX)
            .min(status)
            .min(self.resend_at)
            .min(self.meter.next())
    }

    /// Messages went to entities of a shard that did not come through [`Input::Deliver`].
    pub fn count(&mut self, shard: u32, messages: u64) {
        self.meter.count(shard, messages);
    }

    /// Whether the load is measured by the next [`Region::handle_timeout`]: what was not counted has to
    /// be before that.
    #[must_use]
    pub fn is_measuring(&self, now: Time) -> bool {
        self.meter.is_due(now)
    }

    /// From now on everything that is here leaves as soon as it can.
    pub fn hand_over(&mut self, now: Time) {
        self.handing_over = true;
        self.advance(now);
    }

    /// Whether nothing is here any more and nothing waits to be sent on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.buffers.is_empty()
    }

    /// How many shards are here.
    #[must_use]
    pub fn hosted(&self) -> usize {
        self.local.len()
    }

    /// How many messages wait.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffers.len()
    }

    /// The allocation of a shard that is here and may run entities.
    #[must_use]
    pub fn running(&self, shard: u32) -> Option<Epoch> {
        let local = self.local.get(&shard)?;
        (!matches!(local.state, State::Claiming(_))).then_some(local.epoch)
    }

    /// Whose word this region goes by.
    #[must_use]
    pub fn coordinator(&self) -> Option<&NodeId> {
        self.coordinator.as_ref()
    }

    /// How many shards there are, as this region knows.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where shards are, as far as this region knows.
    #[must_use]
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.table.as_ref()
    }

    // --- messages for entities ---

    fn deliver(&mut self, mut delivery: Delivery<D>) {
        delivery.shard = shard_at(delivery.hash, self.layout.shards);
        match self.route(delivery.shard) {
            Route::Buffer if self.is_hopeless() => {
                let reason = DropReason::NobodyLeft;
                self.outputs.push_back(Output::Drop { delivery, reason });
            }
            Route::Buffer => {
                let shard = delivery.shard;
                if let Err(delivery) = self.buffers.push(shard, delivery) {
                    let reason = DropReason::BufferFull;
                    self.outputs.push_back(Output::Drop { delivery, reason });
                }
            }
            route => self.send_on(route, delivery),
        }
    }

    fn route(&self, shard: u32) -> Route {
        if let Some(Local { epoch, state }) = self.local.get(&shard) {
            return match state {
                State::Active | State::HandingOff(_) => Route::Here(*epoch),
                State::Claiming(_) | State::Stopping => Route::Buffer,
            };
        }
        let Some(table) = &self.table else {
            return Route::Buffer;
        };
        match table.entries[shard as usize] {
            Entry::Hosted { home, .. } => match table.node(home) {
                Some(node) if *node != self.view.me && !self.view.gone.contains(node) => {
                    Route::To(node.clone())
                }
                _ => Route::Buffer,
            },
            _ => Route::Buffer,
        }
    }

    fn send_on(&mut self, route: Route, mut delivery: Delivery<D>) {
        if matches!(route, Route::Here(_)) {
            self.meter.count(delivery.shard, 1);
        }
        self.outputs.push_back(match route {
            Route::Here(epoch) => Output::Deliver { epoch, delivery },
            Route::To(_) if delivery.hops >= HOPS_MAX => Output::Drop {
                delivery,
                reason: DropReason::TooManyHops,
            },
            Route::To(to) => {
                delivery.hops += 1;
                Output::Forward { to, delivery }
            }
            Route::Buffer => return,
        });
    }

    fn flush(&mut self) {
        for shard in self.buffers.shards() {
            let route = self.route(shard);
            if matches!(route, Route::Buffer) {
                continue;
            }
            for delivery in self.buffers.take(shard) {
                self.send_on(route.clone(), delivery);
            }
        }
    }

    // --- the protocol ---

    fn protocol(&mut self, now: Time, message: ProtocolMessage) {
        match message {
            ProtocolMessage::Barrier(barrier) => {
                let shard = barrier.shard;
                self.barrier(barrier);
                self.obey(Some(shard));
            }
            ProtocolMessage::Gather { from, term, shards } => {
                // Who counts other shards hears of what is here by the status that is said again.
                if self.counts_as(shards, &from) && self.hear_of(term, from) {
                    self.status.want();
                }
            }
            ProtocolMessage::Table(table) => self.learn(now, table),
            // For the coordinator beside this region.
            ProtocolMessage::Legacy(_) | ProtocolMessage::Status(_) => {}
        }
    }

    /// Whether the coordinator `from` counts the same shards. If not, an entity would be in another
    /// shard there, and two nodes could run it by two rights: nothing that it says is obeyed.
    fn counts_as(&mut self, shards: u32, from: &NodeId) -> bool {
        let (ours, differs) = (self.config.shards, shards != self.config.shards);
        if differs && !self.differs {
            tracing::error!(
                %from, theirs = shards, ours,
                "the coordinator counts other shards: this node gets none; configure the same number"
            );
        }
        self.differs = differs;
        !differs
    }

    /// Whether `term` is one to listen to.
    fn hear_of(&mut self, term: u32, from: NodeId) -> bool {
        if term < self.term || (term == self.term && self.coordinator.as_ref() != Some(&from)) {
            return false;
        }
        if term > self.term {
            self.term = term;
            self.coordinator = Some(from);
            self.refused.clear();
            self.outputs.push_back(Output::Homes);
        }
        true
    }

    fn learn(&mut self, now: Time, table: Arc<Table>) {
        if !self.counts_as(table.begins_with, &table.from) {
            return;
        }
        if !table.is_sound() {
            tracing::warn!(from = %table.from, "a table of shards names homes that are not in it");
            return;
        }
        if !self.hear_of(table.term, table.from.clone()) {
            return;
        }
        self.status.want();
        let known = self.next.as_ref().or(self.table.as_ref());
        if known.is_some_and(|known| !table.is_newer_than(known)) {
            return;
        }
        if table.layout().shards == self.layout.shards {
            return self.adopt(now, table);
        }
        self.next = Some(table);
        // In a planned change nothing is here any more. What is here was overtaken.
        self.stop_all(false);
        self.change_layout(now);
    }

    /// Counts by the next layout, once nothing of this one is here.
    fn change_layout(&mut self, now: Time) {
        let Some(table) = self.next.take_if(|_| self.local.is_empty()) else {
            return;
        };
        self.layout = table.layout();
        tracing::info!(
            shards = self.layout.shards,
            "the number of shards has changed"
        );
        self.refused.clear();
        self.barriers.clear();
        self.barred.clear();
        self.outputs.push_back(Output::Layout(self.layout));
        let shards = self.buffers.shards();
        let waiting: Vec<_> = shards
            .into_iter()
            .map(|shard| self.buffers.take(shard))
            .collect();
        for mut delivery in waiting.into_iter().flatten() {
            delivery.shard = shard_at(delivery.hash, self.layout.shards);
            if let Err(delivery) = self.buffers.push(delivery.shard, delivery) {
                let reason = DropReason::BufferFull;
                self.outputs.push_back(Output::Drop { delivery, reason });
            }
        }
        self.adopt(now, table);
    }

    fn adopt(&mut self, now: Time, table: Arc<Table>) {
        self.next = None;
        self.layout = table.layout();
        self.wish = self.wish.filter(|shards| *shards != self.layout.shards);
        self.status.want();
        self.table = Some(table);
        self.outputs.push_back(Output::Homes);
        self.resend_at = self.resend_at.min(now + self.config.resend);
        self.obey(None);
        self.send_barriers(false);
    }

    fn barrier(&mut self, barrier: Barrier) {
        if barrier.shard >= self.layout.shards {
            return;
        }
        let (move_no, from) = self.barriers.entry(barrier.shard).or_default();
        if barrier.move_no > *move_no {
            *move_no = barrier.move_no;
            from.clear();
        }
        if barrier.move_no == *move_no && from.len() < BARRIERS_MAX {
            from.insert(barrier.from);
        }
    }

    fn change_view(&mut self, now: Time, view: View) {
        if view.oldest != self.view.oldest {
            self.resend_at = now;
            self.status.want();
        }
        self.view = view;
    }

    /// Does what follows from what has happened, and says so to the coordinator.
    fn advance(&mut self, now: Time) {
        if self.is_out() {
            self.stop_all(!self.view.gone.contains(&self.view.me));
        }
        self.change_layout(now);
        self.flush();
        if self.is_hopeless() {
            for shard in self.buffers.shards() {
                for delivery in self.buffers.take(shard) {
                    let reason = DropReason::NobodyLeft;
                    self.outputs.push_back(Output::Drop { delivery, reason });
                }
            }
        }
        if self.status.take(now) {
            self.send_status();
        }
    }

    /// The table of the term that counts, if it has come.
    fn valid_table(&self) -> Option<Arc<Table>> {
        let table = self.table.as_ref().filter(|_| self.next.is_none())?;
        (table.term == self.term).then(|| table.clone())
    }

    /// Does what the table says, about one shard or all.
    fn obey(&mut self, only: Option<u32>) {
        let Some(table) = self.valid_table() else {
            return;
        };
        let all = 0..self.layout.shards;
        let shards = only.map_or(all, |shard| shard..shard.saturating_add(1));
        for shard in shards {
            let Some(entry) = table.entries.get(shard as usize).copied() else {
                return;
            };
            let home = table.home(entry);
            let mine = home.is_some_and(|(node, _)| *node == self.view.me);
            let epoch = home.map(|(_, epoch)| epoch);
            if let Some(local) = self.local.get(&shard).copied() {
                match epoch {
                    Some(epoch) if epoch > local.epoch => self.give_up(shard, false),
                    Some(epoch) if epoch == local.epoch && mine => {
                        self.obey_about(shard, local, entry, &table);
                    }
                    // The coordinator does not know of this one yet: the status tells it.
                    _ => {}
                }
            }
            self.begin(shard, entry, mine);
        }
    }

    fn obey_about(&mut self, shard: u32, local: Local, entry: Entry, table: &Table) {
        let state = match (entry, local.state) {
            (Entry::Hosted { .. }, State::HandingOff(_)) => State::Active,
            (Entry::Moving { move_no, .. }, State::Active | State::HandingOff(_)) => {
                if self.has_all_barriers(shard, move_no, table) {
                    self.outputs.push_back(Output::Stop {
                        shard,
                        after_queued: true,
                    });
                    State::Stopping
                } else {
                    State::HandingOff(move_no)
                }
            }
            _ => return,
        };
        self.set(shard, local.epoch, state);
    }

    fn has_all_barriers(&self, shard: u32, move_no: Epoch, table: &Table) -> bool {
        let none = BTreeSet::new();
        let came = match self.barriers.get(&shard) {
            Some((of, from)) if *of == move_no => from,
            _ => &none,
        };
        let mut others = table.regions.iter().filter(|node| **node != self.view.me);
        others.all(|node| came.contains(node))
    }

    /// Claims a shard that is to start here, once nothing of it is left here.
    fn begin(&mut self, shard: u32, entry: Entry, mine: bool) {
        let refused = self.refused.get(&shard).map(|refused| refused.epoch);
        let (Entry::Starting { epoch, .. }, true) = (entry, mine) else {
            self.refused.remove(&shard);
            return;
        };
        if refused == Some(epoch) || self.local.contains_key(&shard) || self.is_out() {
            return;
        }
        self.refused.remove(&shard);
        self.set(shard, epoch, State::Claiming(None));
        self.outputs.push_back(claim(self.layout, shard, epoch));
    }

    /// Whether nothing may run here any more: this node is downed, or it leaves and nobody is left
    /// who could take anything over.
    fn is_out(&self) -> bool {
        self.view.gone.contains(&self.view.me) || (self.handing_over && !self.view.has_up())
    }

    /// Whether what has no home now will not get one while this region lives.
    fn is_hopeless(&self) -> bool {
        let nobody_known = self.view.hosts.is_empty() && !self.view.gone.contains(&self.view.me);
        (self.is_out() && !nobody_known) || (self.differs && self.table.is_none())
    }

    fn set(&mut self, shard: u32, epoch: Epoch, state: State) {
        let before = self.local.insert(shard, Local { epoch, state });
        if before.is_none_or(|before| before.state != state) {
            self.status.want();
        }
    }

    /// A later allocation is known, or the store has refused a write: what runs here has to end.
    fn give_up(&mut self, shard: u32, after_queued: bool) {
        let Some(local) = self.local.get(&shard).copied() else {
            return;
        };
        match local.state {
            State::Claiming(_) => {
                self.local.remove(&shard);
                self.status.want();
            }
            State::Active | State::HandingOff(_) => {
                self.outputs.push_back(Output::Stop {
                    shard,
                    after_queued,
                });
                self.set(shard, local.epoch, State::Stopping);
            }
            State::Stopping => {}
        }
    }

    fn stop_all(&mut self, after_queued: bool) {
        let shards: Vec<u32> = self.local.keys().copied().collect();
        for shard in shards {
            self.give_up(shard, after_queued);
        }
    }

    fn claimed(&mut self, now: Time, shard: u32, epoch: Epoch, answer: ClaimAnswer) {
        let waits =
            |local: &&Local| local.epoch == epoch && matches!(local.state, State::Claiming(None));
        if self.local.get(&shard).filter(waits).is_none() {
            return;
        }
        match answer {
            ClaimAnswer::Yes => self.set(shard, epoch, State::Active),
            ClaimAnswer::Unavailable => {
                let again = State::Claiming(Some(now + self.config.resend));
                self.local.insert(
                    shard,
                    Local {
                        epoch,
                        state: again,
                    },
                );
            }
            ClaimAnswer::Refused { current } => {
                self.local.remove(&shard);
                let refused = Refused {
                    shard,
                    epoch,
                    current,
                };
                self.refused.insert(shard, refused);
                self.status.want();
            }
        }
    }

    fn ended(&mut self, shard: u32) {
        let stopping = |local: &&Local| local.state == State::Stopping;
        if self.local.get(&shard).filter(stopping).is_some() {
            self.local.remove(&shard);
            self.barriers.remove(&shard);
            self.status.want();
        }
    }

    fn fenced(&mut self, shard: u32, epoch: Epoch) {
        if self
            .local
            .get(&shard)
            .is_some_and(|local| local.epoch == epoch)
        {
            self.give_up(shard, false);
        }
    }

    // --- what is said ---

    /// Tells the homes of moving shards that nothing follows; again if `all`, else once.
    fn send_barriers(&mut self, all: bool) {
        let Some(table) = self.valid_table() else {
            return;
        };
        for (shard, entry) in (0..).zip(&table.entries) {
            let Entry::Moving { home, move_no, .. } = *entry else {
                self.barred.remove(&shard);
                continue;
            };
            let first = self.barred.insert(shard, move_no) != Some(move_no);
            let Some(to) = table.node(home).filter(|to| **to != self.view.me) else {
                continue;
            };
            if first || all {
                let barrier = Barrier {
                    from: self.view.me.clone(),
                    shard,
                    move_no,
                };
                self.outputs.push_back(Output::Send {
                    to: to.clone(),
                    message: ProtocolMessage::Barrier(barrier),
                });
            }
        }
    }

    /// Whether the coordinator that counts knows everything that there is to know.
    fn is_settled(&self) -> bool {
        let Some(table) = self.valid_table() else {
            return false;
        };
        let known = self.view.oldest.is_none() || self.view.oldest == self.coordinator;
        let agrees = |(shard, entry): (u32, &Entry)| {
            let home = table.home(*entry);
            let mine = home.filter(|(node, _)| **node == self.view.me);
            let local = self.local.get(&shard);
            let phase = local.map(|local| (local.epoch, local.state));
            match (*entry, mine, phase) {
                (_, None, None) => true,
                (Entry::Hosted { .. }, Some((_, epoch)), Some((of, State::Active)))
                | (Entry::Moving { .. }, Some((_, epoch)), Some((of, State::HandingOff(_)))) => {
                    epoch == of
                }
                (Entry::Starting { .. }, Some((_, epoch)), Some((of, State::Claiming(_)))) => {
                    epoch == of
                }
                _ => false,
            }
        };
        known
            && self.wish.is_none()
            && table.regions.contains(&self.view.me)
            && (0..).zip(&table.entries).all(agrees)
    }

    fn send_status(&mut self) {
        self.number += 1;
        let table = self.table.as_ref();
        let revision = table.filter(|table| table.term == self.term && self.next.is_none());
        let claims = self.local.iter().map(|(shard, local)| Claim {
            shard: *shard,
            epoch: local.epoch,
            phase: match local.state {
                State::Active => Phase::Active,
                State::Claiming(_) => Phase::Claiming,
                State::HandingOff(_) => Phase::HandingOff,
                State::Stopping => Phase::Stopping,
            },
        });
        let status = Status {
            from: self.view.me.clone(),
            number: self.number,
            term: self.term,
            revision: revision.map_or(0, |table| table.revision),
            begins_with: self.config.shards,
            shards: self.layout.shards,
            resize: self.wish,
            claims: claims.collect(),
            refused: self.refused.values().copied().collect(),
            loads: self.meter.rates().collect(),
            table: table.filter(|table| table.term < self.term).cloned(),
        };
        let to = self.coordinator.iter().chain(&self.view.oldest);
        let to: BTreeSet<NodeId> = to
            .filter(|node| !self.view.gone.contains(node))
            .cloned()
            .collect();
        for to in to {
            let message = ProtocolMessage::Status(Box::new(status.clone()));
            self.outputs.push_back(Output::Send { to, message });
        }
    }
}

fn claim<D>(layout: Layout, shard: u32, epoch: Epoch) -> Output<D> {
    Output::Claim {
        shard,
        epoch,
        fenced: layout.fenced(shard),
        scope: layout.scope(shard),
    }
}

/// Where a message goes.
#[derive(Clone, Debug)]
enum Route {
    Buffer,
    Here(Epoch),
    To(NodeId),
}
