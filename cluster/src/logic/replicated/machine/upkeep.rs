//! Upkeep: what is done from time to time: spreading, gossip, telling subscribers, pruning.

use super::{Machine, MachineConfig, Moment, Output};
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::entry::Scene;
use crate::logic::replicated::message::Key;
use otava_actor::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// When what is due, and what for.
#[derive(Debug)]
pub(super) struct Upkeep {
    deltas: Time,
    gossip: Time,
    notify: Time,
    pruning: Time,
    /// Keys with subscribers.
    watched: BTreeSet<Key>,
    /// Of these, those that have changed since the subscribers were told.
    changed: BTreeSet<Key>,
    /// Since when those who are no members, but have written something, are known to be none.
    gone: BTreeMap<Replica, Time>,
    /// Where spreading stopped because there was too much.
    cursor: Option<Key>,
}

impl Upkeep {
    pub(super) fn new(config: &MachineConfig, now: Time) -> Self {
        Self {
            deltas: now,
            gossip: now + config.gossip_interval,
            notify: now,
            pruning: now + config.pruning_interval,
            watched: BTreeSet::new(),
            changed: BTreeSet::new(),
            gone: BTreeMap::new(),
            cursor: None,
        }
    }

    pub(super) fn changed(&mut self, key: &Key) {
        if self.watched.contains(key) {
            self.changed.insert(key.clone());
        }
    }

    pub(super) fn next(&self, spreads: bool) -> Time {
        let mut next = self.gossip.min(self.pruning);
        if spreads {
            next = next.min(self.deltas);
        }
        if !self.changed.is_empty() {
            next = next.min(self.notify);
        }
        next
    }
}

impl Machine {
    /// Tells of changes of `key` from now on, first of all what there is.
    pub fn watch(&mut self, key: &Key) {
        self.upkeep.watched.insert(key.clone());
        if self.table.get(key).is_some() {
            self.upkeep.changed.insert(key.clone());
        }
    }

    /// Tells no more of changes of `key`.
    pub fn unwatch(&mut self, key: &Key) {
        self.upkeep.watched.remove(key);
        self.upkeep.changed.remove(key);
    }

    pub(super) fn upkeep(&mut self, now: Moment) {
        let time = now.time;
        if !self.unsynced.is_empty() && self.upkeep.deltas <= time {
            self.upkeep.deltas = time + self.config.delta_interval;
            self.spread_all(now);
        }
        if self.upkeep.gossip <= time {
            self.upkeep.gossip = time + self.config.gossip_interval;
            let budget = self.budget();
            self.peers
                .values_mut()
                .for_each(|peer| peer.budget = budget);
            self.gossip();
        }
        if !self.upkeep.changed.is_empty() && self.upkeep.notify <= time {
            self.upkeep.notify = time + self.config.notify_interval;
            for key in std::mem::take(&mut self.upkeep.changed) {
                if let Some(entry) = self.table.get(&key) {
                    let content = entry.state().content.clone();
                    self.outputs.push_back(Output::Changed(key, content));
                }
            }
        }
        if self.upkeep.pruning <= time {
            self.upkeep.pruning = time + self.config.pruning_interval;
            self.prune(now);
        }
    }

    /// Sends all peers what they miss, up to a limit; the next time it goes on from there.
    fn spread_all(&mut self, now: Moment) {
        let budget = self.budget();
        self.peers
            .values_mut()
            .for_each(|peer| peer.budget = budget);
        let cursor = self.upkeep.cursor.take();
        let after = |key: &&Key| cursor.as_ref().is_some_and(|cursor| *key > cursor);
        let rest = self.unsynced.iter().filter(after).cloned();
        let first = self.unsynced.iter().filter(|key| !after(key)).cloned();
        let keys: Vec<Key> = rest.chain(first).collect();
        for key in keys {
            if self.peers.values().any(|peer| peer.budget == 0) {
                self.upkeep.cursor = Some(key);
                return;
            }
            self.spread(now, &key);
        }
    }

    /// Takes over the writes of those who are gone, and forgets that it was done (see `pruning`).
    fn prune(&mut self, now: Moment) {
        let gone = self.gone(now);
        let wall = now.wall / 1_000;
        let after =
            |ttl: Duration| wall.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let expires = after(self.config.mark_ttl);
        let durable_expires = after(self.config.durable_mark_ttl);
        let members = self.members.all.clone();
        let scene = Scene {
            me: self.replica,
            wall,
            members: &members,
        };
        let keys: Vec<Key> = self.table.keys().cloned().collect();
        for key in keys {
            let Some(entry) = self.table.get_mut(&key) else {
                continue;
            };
            let mut changed = entry.tidy(scene);
            for replica in &gone {
                changed |= entry.start_pruning(*replica, scene);
            }
            let expires = if entry.durable {
                durable_expires
            } else {
                expires
            };
            if members.contains(&self.replica) && entry.perform_pruning(scene, expires) {
                changed = true;
                if let Some(value) = entry.take() {
                    let mut draft = Draft::new(value, self.replica, now.wall);
                    draft.fold();
                    let folded = draft.finish();
                    if entry.changed(folded.value, folded.delta) {
                        self.unsynced.insert(key.clone());
                    }
                }
            }
            if changed {
                self.has_changed(&key);
            }
        }
    }

    /// Who has written something, is no member for long enough, and is to be pruned by this node.
    fn gone(&mut self, now: Moment) -> Vec<Replica> {
        if !(self.members.leads && self.members.all_reachable) {
            self.upkeep.gone.clear();
            return Vec::new();
        }
        let keys = self.table.keys();
        let values = keys.filter_map(|key| self.table.get(key)?.value());
        let writers: BTreeSet<Replica> =
            values.flat_map(|value| value.context.replicas()).collect();
        let absent: BTreeSet<Replica> = writers
            .into_iter()
            .filter(|replica| !self.members.all.contains(replica))
            .collect();
        let gone = &mut self.upkeep.gone;
        gone.retain(|replica, _| absent.contains(replica));
        for replica in absent {
            gone.entry(replica).or_insert(now.time);
        }
        let long = |since: &Time| now.time.saturating_since(*since) >= self.config.pruning_after;
        let gone = gone.iter().filter(|(_, since)| long(since));
        gone.map(|(replica, _)| *replica).collect()
    }

    /// Forgets what is known of those who are no peers any more.
    pub(super) fn forget_others(&mut self) {
        let keys: Vec<Key> = self.table.keys().cloned().collect();
        for key in keys {
            if let Some(entry) = self.table.get_mut(&key) {
                entry.retain_peers(|replica| self.peers.contains_key(&replica));
            }
        }
    }
}
