//! Machine: one node's replicator: what it holds, what it tells its peers, who waits for an answer.
//!
//! Three ways lead from a write to the other nodes:
//! - **deltas**: the writer sends its new writes to all peers, at once if somebody waits for them,
//!   else within [`MachineConfig::delta_interval`]. They are numbered and acknowledged (`deltas`);
//! - **states**, to a peer that misses deltas;
//! - **gossip**: every [`MachineConfig::gossip_interval`] a random peer is told the fingerprints of
//!   all buckets of keys, and the two exchange what differs. This heals everything else: lost messages,
//!   partitions, writers that died halfway.
//!
//! A write is done when enough members have acknowledged its delta, a read when enough have said what
//! they have. Nothing waits for a lock, and no order of messages is needed for copies to agree.

mod exchange;
mod lasting;
mod ops;
mod upkeep;

pub use lasting::is_durable;
pub use ops::{Failure, Request};

use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::deltas::Needed;
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::entry::{Applied, Entry, Scene};
use crate::logic::replicated::message::{Content, Delta, Key, Message, State};
use crate::logic::replicated::table::Table;
use lasting::Lasting;
use ops::Ops;
use otava_actor::{Rng, Time};
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use upkeep::Upkeep;

/// The longest key, and the longest name of a type, in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// The settings of a replicator.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// How long writes that nobody waits for are gathered before they are sent.
    pub delta_interval: Duration,
    /// Keys that are stored: whole ones, or beginnings that end with `*`.
    pub durable: Vec<String>,
    /// As [`MachineConfig::mark_ttl`], for entries that are stored: a node may come back with them.
    pub durable_mark_ttl: Duration,
    /// How many entries there may be, deleted ones included.
    pub entries_max: usize,
    /// How often a peer is compared with.
    pub gossip_interval: Duration,
    /// How long the marks of pruned replicas are kept.
    pub mark_ttl: Duration,
    /// About how large messages may be.
    pub message_bytes_max: usize,
    /// How often subscribers are told at most.
    pub notify_interval: Duration,
    /// For how long a replica must be gone before its writes are taken over.
    pub pruning_after: Duration,
    /// How often that is looked at.
    pub pruning_interval: Duration,
    /// How long an answer is waited for before a message is sent again.
    pub resend: Duration,
    /// About how large a value may be.
    pub value_bytes_max: usize,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the clock that only runs forward.
    pub time: Time,
    /// Microseconds since 1970 on the wall clock.
    pub wall: u64,
}

/// Who is a member.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members {
    /// Whether this node counts.
    pub me_counts: bool,
    /// Those with whom data is exchanged, and whether each counts.
    pub peers: BTreeMap<NodeId, bool>,
    /// All members that are not out, this node included if it is one.
    pub all: BTreeSet<Replica>,
    /// Whether this node leads.
    pub leads: bool,
    /// Whether all members can be reached.
    pub all_reachable: bool,
}

/// What a replicator wants done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// What subscribers of a key are to be told.
    Changed(Key, Content),
    /// An operation has ended; a read with the value.
    Done(u64, Result<Option<Arc<Causal>>, Failure>),
    /// These are to be sent, in this order.
    Send(NodeId, Vec<Message>),
    /// These are to be stored; [`Machine::stored`] says how it went.
    Store(Vec<State>),
}

/// One node's replicator.
pub struct Machine {
    me: NodeId,
    replica: Replica,
    config: MachineConfig,
    rng: Rng,
    members: Members,
    peers: BTreeMap<Replica, Peer>,
    table: Table,
    /// Keys with writes of this node that some peer has not acknowledged.
    unsynced: BTreeSet<Key>,
    ops: Ops,
    lasting: Lasting,
    upkeep: Upkeep,
    /// Entries of others that were not taken: of another type, or too many.
    refused: u64,
    outputs: VecDeque<Output>,
}

struct Peer {
    node: NodeId,
    counts: bool,
    /// What is to be sent to it.
    outbox: Vec<Message>,
    outbox_bytes: usize,
    /// How much may still be sent to it before the next tick.
    budget: usize,
}

/// How many messages' worth a peer is sent between two ticks without having asked.
const BUDGET_MESSAGES: usize = 8;

impl Machine {
    /// A replicator that holds what was stored before.
    #[must_use]
    pub fn new(
        me: NodeId,
        config: MachineConfig,
        rng: Rng,
        now: Moment,
        stored: Vec<State>,
    ) -> Self {
        let mut config = config;
        // What was taken once is not refused now.
        config.entries_max = config.entries_max.max(stored.len());
        let mut machine = Self {
            replica: Replica(me.incarnation),
            me,
            upkeep: Upkeep::new(&config, now.time),
            config,
            rng,
            members: Members::default(),
            peers: BTreeMap::new(),
            table: Table::default(),
            unsynced: BTreeSet::new(),
            ops: Ops::default(),
            lasting: Lasting::default(),
            refused: 0,
            outputs: VecDeque::new(),
        };
        for state in stored {
            machine.load(now, &state);
        }
        machine
    }

    /// The members have changed.
    pub fn set_members(&mut self, now: Moment, members: Members) {
        let budget = self.budget();
        let mut before = std::mem::take(&mut self.peers);
        let mut new = Vec::new();
        for (node, counts) in &members.peers {
            let replica = Replica(node.incarnation);
            if *node == self.me {
                continue;
            }
            let mut peer = before.remove(&replica).unwrap_or_else(|| {
                new.push(replica);
                Peer {
                    node: node.clone(),
                    counts: false,
                    outbox: Vec::new(),
                    outbox_bytes: 0,
                    budget,
                }
            });
            peer.counts = *counts;
            self.peers.insert(replica, peer);
        }
        self.members = members;
        if !before.is_empty() {
            self.forget_others();
        }
        if !new.is_empty() && !self.table.is_empty() {
            let summary = self.table.summary();
            for peer in new {
                self.push(peer, Message::Summary(summary.clone()));
            }
        }
        self.resume_all(now);
        self.flush();
    }

    /// A peer says something. What others say than peers is ignored.
    pub fn message(&mut self, now: Moment, from: &NodeId, message: Message) {
        let replica = Replica(from.incarnation);
        if self.peers.get(&replica).map(|peer| &peer.node) != Some(from) {
            return;
        }
        match message {
            Message::Ack { key, last } => self.acked(replica, &key, last),
            Message::Behind { key } => {
                let entry = self.table.get_mut(&key);
                if entry.is_some_and(|entry| entry.log.behind(replica)) {
                    self.unsynced.insert(key.clone());
                    self.spread(now, &key);
                }
            }
            Message::Bucket {
                bucket,
                after,
                until,
                held,
            } => self.compare(replica, bucket, after.as_ref(), until.as_ref(), held),
            Message::Delta(delta) => self.delta(now, replica, &delta),
            Message::Read { id, key, known } => self.asked(replica, id, &key, known),
            Message::ReadAnswer { id, answer } => self.answered(now, replica, id, answer),
            Message::State { last, state } => {
                if self.join(now, &state)
                    && let Some(last) = last
                {
                    if let Some(entry) = self.table.get_mut(&state.key) {
                        entry.has_applied(replica, last);
                    }
                    self.acknowledge(replica, &state.key, last);
                }
            }
            Message::Summary(theirs) => self.summarised(replica, &theirs),
            Message::Want(keys) => keys.iter().for_each(|key| self.push_state(replica, key)),
        }
        self.flush();
    }

    /// When [`Machine::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let ops = self.ops.next();
        let upkeep = self.upkeep.next(!self.unsynced.is_empty());
        ops.min(upkeep).min(self.lasting.next())
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.upkeep(now);
        self.ops_timeout(now);
        self.lasting_timeout(now);
        self.flush();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many entries there are, deleted ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether this can be a key: 1 to 512 bytes.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        (1..=NAME_BYTES_MAX).contains(&name.len())
    }

    /// How many entries of others were not taken: of another type than here, or beyond the limit.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What there is under a key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.table.get(key)
    }

    /// Joins an entry of another node; whether it could be.
    fn join(&mut self, now: Moment, state: &State) -> bool {
        if !self.accepts(&state.key, &state.type_name) {
            return false;
        }
        let mut changed = self.make_entry(state);
        let scene = Scene {
            me: self.replica,
            wall: now.wall / 1_000,
            members: &self.members.all,
        };
        if let Some(entry) = self.table.get_mut(&state.key) {
            changed |= entry.join(state, scene);
        }
        if changed {
            self.has_changed(&state.key);
        }
        true
    }

    /// Makes the entry if there is none; whether that was so.
    fn make_entry(&mut self, state: &State) -> bool {
        let (key, type_name) = (&state.key, &state.type_name);
        if self.table.get(key).is_some() {
            return false;
        }
        let durable = is_durable(&self.config.durable, key);
        let (key, type_name) = (key.clone(), type_name.clone());
        self.table.insert(match &state.content {
            Content::Deleted => Entry::deleted(key, type_name, durable),
            Content::Live(value) => Entry::blank(key, type_name, &value.store, durable),
        });
        true
    }

    fn delta(&mut self, now: Moment, from: Replica, delta: &Delta) {
        let Delta { key, type_name, .. } = delta;
        if !self.accepts(key, type_name) {
            return;
        }
        let is_new = self.table.get(key).is_none();
        if is_new && delta.base > 0 {
            return self.push(from, Message::Behind { key: key.clone() });
        }
        if is_new {
            let durable = is_durable(&self.config.durable, key);
            let shape = &delta.delta.store;
            let entry = Entry::blank(key.clone(), type_name.clone(), shape, durable);
            self.table.insert(entry);
        }
        let scene = Scene {
            me: self.replica,
            wall: now.wall / 1_000,
            members: &self.members.all,
        };
        let Some(entry) = self.table.get_mut(key) else {
            return;
        };
        match entry.join_delta(from, delta, scene) {
            Applied::Behind => self.push(from, Message::Behind { key: key.clone() }),
            Applied::Joined(changed) => {
                if changed || is_new {
                    self.has_changed(key);
                }
                self.acknowledge(from, key, delta.last);
            }
        }
    }

    /// Whether an entry of this type may be under this key.
    fn accepts(&mut self, key: &Key, type_name: &str) -> bool {
        let accepts = match self.table.get(key) {
            Some(entry) => *entry.state().type_name == *type_name,
            None => {
                let room = self.table.len() < self.config.entries_max;
                room && Self::is_name(key) && Self::is_name(type_name)
            }
        };
        self.refused += u64::from(!accepts);
        accepts
    }

    /// What has to follow when an entry has changed.
    fn has_changed(&mut self, key: &Key) {
        self.table.touch(key);
        self.upkeep.changed(key);
        if self.table.get(key).is_some_and(|entry| entry.durable) {
            self.lasting.changed(key);
        }
    }

    /// Sends each peer what it misses of this node's writes to `key`.
    fn spread(&mut self, now: Moment, key: &Key) {
        let peers: Vec<Replica> = self.peers.keys().copied().collect();
        for peer in &peers {
            self.spread_to(now, key, *peer);
        }
        let entry = self.table.get(key);
        if entry.is_none_or(|entry| entry.log.is_everywhere(peers)) {
            self.unsynced.remove(key);
        }
    }

    fn spread_to(&mut self, now: Moment, key: &Key, peer: Replica) {
        let resend = self.config.resend;
        let Some(entry) = self.table.get_mut(key) else {
            return;
        };
        let message = match entry.log.next_for(peer, now.time, resend) {
            None => return,
            Some(Needed::State(last)) => Message::State {
                last: Some(last),
                state: entry.state().clone(),
            },
            Some(Needed::Deltas { base, last, delta }) => {
                // Signatures may travel only with the state of who has signed.
                let state = entry.state();
                let marks = state.marks.iter();
                let performed = marks.filter(|(_, mark)| mark.is_performed());
                Message::Delta(Delta {
                    key: key.clone(),
                    type_name: state.type_name.clone(),
                    base,
                    last,
                    delta: Arc::new(delta),
                    marks: performed
                        .map(|(gone, mark)| (*gone, mark.clone()))
                        .collect(),
                })
            }
        };
        self.push(peer, message);
    }

    /// Sends a peer the entry of `key`, if it may still get something.
    fn push_state(&mut self, to: Replica, key: &Key) {
        let has_budget = self.peers.get(&to).is_some_and(|peer| peer.budget > 0);
        if let Some(entry) = self.table.get(key).filter(|_| has_budget) {
            let last = Some(entry.log.last()).filter(|last| *last > 0);
            let state = entry.state().clone();
            self.push(to, Message::State { last, state });
        }
    }

    /// Queues a message; what comes in one go is sent together.
    fn push(&mut self, to: Replica, message: Message) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let weight = message.weight();
        if peer.outbox_bytes > 0 && peer.outbox_bytes + weight > self.config.message_bytes_max {
            peer.send(&mut self.outputs);
        }
        peer.outbox_bytes += weight;
        peer.budget = peer.budget.saturating_sub(weight);
        peer.outbox.push(message);
    }

    fn flush(&mut self) {
        if let Some(batch) = self.lasting.batch(&self.table) {
            self.outputs.push_back(Output::Store(batch));
        }
        for peer in self.peers.values_mut() {
            peer.send(&mut self.outputs);
        }
    }

    fn budget(&self) -> usize {
        self.config.message_bytes_max * BUDGET_MESSAGES
    }
}

impl Peer {
    fn send(&mut self, outputs: &mut VecDeque<Output>) {
        if !self.outbox.is_empty() {
            let messages = std::mem::take(&mut self.outbox);
            self.outbox_bytes = 0;
            outputs.push_back(Output::Send(self.node.clone(), messages));
        }
    }
}

#[cfg(test)]
mod tests;
