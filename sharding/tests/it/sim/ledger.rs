//! Ledger: the checker outside the cluster. Every message is sent once, and ends in one way.

use otava_remote::NodeId;
use otava_sharding::logic::epoch::Epoch;
use std::collections::{BTreeMap, BTreeSet};

/// A message: who sent it, for which entity (one for each shard), and its place in that sequence.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Msg {
    pub(crate) sender: u16,
    pub(crate) shard: u32,
    pub(crate) seq: u64,
}

/// Where a message is, or how it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Accepted,
    /// It went down with a node, or was refused with a fenced shard.
    Excused,
    /// On this node, or on its way to it.
    On(u16),
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: BTreeMap<Msg, Fate>,
    /// The last accepted message of a sender for an entity.
    last: BTreeMap<(u16, u32), u64>,
    /// Who wrote by which epoch, and the last epoch of each shard.
    writers: BTreeMap<(u32, Epoch), NodeId>,
    epochs: BTreeMap<u32, Epoch>,
    /// Whether messages of one sender may overtake each other: shards are lost to fences.
    pub(crate) any_order: bool,
    /// When something of a shard was last accepted, in nanoseconds.
    pub(crate) answered: BTreeMap<u32, u64>,
    pub(crate) complaints: Vec<String>,
}

impl Ledger {
    pub(crate) fn sent(&mut self, msg: Msg, on: u16) {
        let before = self.fates.insert(msg, Fate::On(on));
        assert_eq!(before, None, "sent once: {msg:?}");
    }

    pub(crate) fn moved(&mut self, msg: Msg, to: u16) {
        match self.fates.get_mut(&msg) {
            Some(fate @ Fate::On(_)) => *fate = Fate::On(to),
            fate => self
                .complaints
                .push(format!("{msg:?} moves again after {fate:?}")),
        }
    }

    pub(crate) fn excused(&mut self, msg: Msg) {
        if let Some(fate @ Fate::On(_)) = self.fates.get_mut(&msg) {
            *fate = Fate::Excused;
        }
    }

    pub(crate) fn dropped(&mut self, msg: Msg, why: &str) {
        self.complaints.push(format!("{msg:?} is dropped: {why}"));
    }

    pub(crate) fn crashed(&mut self, node: u16) {
        for fate in self.fates.values_mut() {
            if *fate == Fate::On(node) {
                *fate = Fate::Excused;
            }
        }
    }

    /// The store took the write of this message.
    pub(crate) fn accepted(&mut self, msg: Msg, by: &NodeId, epoch: Epoch, now: u64) {
        match self.fates.insert(msg, Fate::Accepted) {
            Some(Fate::On(_)) => {}
            fate => self
                .complaints
                .push(format!("{msg:?} is accepted after {fate:?}")),
        }
        let last = self.last.entry((msg.sender, msg.shard)).or_default();
        if msg.seq <= *last && !self.any_order {
            self.complaints
                .push(format!("{msg:?} is accepted after number {last}"));
        }
        *last = msg.seq;
        let writer = self.writers.entry((msg.shard, epoch)).or_insert(by.clone());
        if writer != by {
            self.complaints.push(format!(
                "{writer} and {by} write shard {} by {epoch}",
                msg.shard
            ));
        }
        let latest = self.epochs.entry(msg.shard).or_default();
        if epoch < *latest {
            self.complaints.push(format!(
                "shard {}: {epoch} writes after {latest}",
                msg.shard
            ));
        }
        *latest = epoch.max(*latest);
        self.answered.insert(msg.shard, now);
    }

    /// How many messages ended well.
    pub(crate) fn accepted_count(&self) -> usize {
        self.fates
            .values()
            .filter(|fate| **fate == Fate::Accepted)
            .count()
    }

    /// What is wrong: at the end no message may be under way.
    pub(crate) fn settle(&self, excuses: bool) -> Vec<String> {
        let mut complaints = self.complaints.clone();
        let wrong = |fate: &Fate| match fate {
            Fate::Accepted => false,
            Fate::Excused => !excuses,
            Fate::On(_) => true,
        };
        let lost: BTreeSet<_> = self
            .fates
            .iter()
            .filter(|(_, fate)| wrong(fate))
            .collect_keys();
        if !lost.is_empty() {
            let some: Vec<_> = lost.iter().take(5).collect();
            complaints.push(format!("{} messages are lost: {some:?}", lost.len()));
        }
        complaints
    }
}

trait CollectKeys {
    fn collect_keys(self) -> BTreeSet<String>;
}

impl<'a, I: Iterator<Item = (&'a Msg, &'a Fate)>> CollectKeys for I {
    fn collect_keys(self) -> BTreeSet<String> {
        self.map(|(msg, fate)| format!("{msg:?} {fate:?}"))
            .collect()
    }
}

/// The canary: each rule of the ledger finds what breaks it.
#[test]
fn the_ledger_finds_what_is_wrong() {
    let node = |n| NodeId::new("n", std::net::SocketAddr::from(([127, 0, 0, 1], n)), 1);
    let msg = |seq| Msg {
        sender: 1,
        shard: 0,
        seq,
    };
    let epoch = |counter| Epoch { term: 1, counter };
    let mut ledger = Ledger::default();
    for seq in 1..=6 {
        ledger.sent(msg(seq), 1);
    }
    ledger.accepted(msg(2), &node(1), epoch(1), 0);
    assert_eq!(ledger.complaints.len(), 0);
    ledger.accepted(msg(1), &node(1), epoch(1), 0);
    assert_eq!(ledger.complaints.len(), 1, "order");
    ledger.accepted(msg(3), &node(2), epoch(1), 0);
    assert_eq!(ledger.complaints.len(), 2, "two writers");
    ledger.accepted(msg(4), &node(2), epoch(2), 0);
    ledger.accepted(msg(5), &node(1), epoch(1), 0);
    assert_eq!(ledger.complaints.len(), 3, "an old epoch");
    ledger.complaints.clear();
    ledger.accepted(msg(5), &node(2), epoch(2), 0);
    assert_eq!(ledger.complaints.len(), 2, "twice, and so out of order");
    ledger.complaints.clear();
    assert_eq!(ledger.settle(true).len(), 1, "message 6 is lost");
    ledger.crashed(1);
    assert_eq!(ledger.settle(true).len(), 0);
    assert_eq!(ledger.settle(false).len(), 1);
}
