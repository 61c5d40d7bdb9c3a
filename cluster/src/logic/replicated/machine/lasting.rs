//! Lasting: which entries are to be stored, and who waits until they are.

use super::{Machine, Moment};
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::message::{Key, Message, State};
use crate::logic::replicated::table::Table;
use otava_actor::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long after a failed attempt to store it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Entries that are stored at once.
const BATCH_MAX: usize = 500;

/// Whether one of the `patterns` names `key`: whole keys, or beginnings that end with `*`.
#[must_use]
pub fn is_durable(patterns: &[String], key: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => pattern == key,
        })
}

/// What is to be stored.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    /// Keys whose newest version is not stored, nor being stored.
    dirty: BTreeSet<Key>,
    /// What is being stored, in which version.
    storing: Option<BTreeMap<Key, u64>>,
    /// No new attempt before this.
    pause_until: Option<Time>,
    /// Peers that are told when a version of a key is stored: up to which of their deltas that is.
    waiting: BTreeMap<Key, Vec<(u64, Replica, u64)>>,
}

impl Lasting {
    pub(super) fn changed(&mut self, key: &Key) {
        self.dirty.insert(key.clone());
    }

    /// What to store next, if nothing is being stored.
    pub(super) fn batch(&mut self, table: &Table) -> Option<Vec<State>> {
        if self.storing.is_some() || self.pause_until.is_some() || self.dirty.is_empty() {
            return None;
        }
        let keys: Vec<Key> = self.dirty.iter().take(BATCH_MAX).cloned().collect();
        let mut versions = BTreeMap::new();
        let mut states = Vec::new();
        for key in keys {
            self.dirty.remove(&key);
            if let Some(entry) = table.get(&key) {
                versions.insert(key, entry.version());
                states.push(entry.state().clone());
            }
        }
        self.storing = Some(versions);
        Some(states)
    }

    pub(super) fn next(&self) -> Time {
        self.pause_until.unwrap_or(Time::MAX)
    }
}

impl Machine {
    /// What was given to be stored is stored, or not. What was not is stored again after a while;
    /// writes that wait for it fail.
    pub fn stored(&mut self, now: Moment, is_stored: bool) {
        let Some(versions) = self.lasting.storing.take() else {
            return;
        };
        if !is_stored {
            self.lasting.pause_until = Some(now.time + RETRY);
        }
        for (key, version) in versions {
            if is_stored {
                if let Some(entry) = self.table.get_mut(&key) {
                    entry.stored = entry.stored.max(version);
                }
                self.tell_stored(&key);
                self.resume(&key);
            } else {
                self.lasting.waiting.remove(&key);
                self.fail_unstored(&key);
                self.lasting.dirty.insert(key);
            }
        }
        self.flush();
    }

    pub(super) fn lasting_timeout(&mut self, now: Moment) {
        if self.lasting.next() <= now.time {
            self.lasting.pause_until = None;
        }
    }

    /// Acknowledges the deltas of a peer, once they are stored if they must be.
    pub(super) fn acknowledge(&mut self, to: Replica, key: &Key, last: u64) {
        let Some(entry) = self.table.get(key) else {
            return;
        };
        let version = entry.version();
        if entry.is_stored(version) {
            let key = key.clone();
            self.push(to, Message::Ack { key, last });
        } else {
            let waiting = self.lasting.waiting.entry(key.clone()).or_default();
            // A later one says all that an earlier one would.
            waiting.retain(|(_, peer, _)| *peer != to);
            waiting.push((version, to, last));
        }
    }

    fn tell_stored(&mut self, key: &Key) {
        let Some(waiting) = self.lasting.waiting.remove(key) else {
            return;
        };
        let stored = self.table.get(key).map_or(0, |entry| entry.stored);
        let (due, later): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(version, ..)| *version <= stored);
        if !later.is_empty() {
            self.lasting.waiting.insert(key.clone(), later);
        }
        for (_, to, last) in due {
            let key = key.clone();
            self.push(to, Message::Ack { key, last });
        }
    }

    /// Takes an entry that was stored by an earlier run.
    pub(super) fn load(&mut self, now: Moment, state: &State) {
        if self.join(now, state)
            && let Some(entry) = self.table.get_mut(&state.key)
        {
            entry.stored = entry.version();
            self.lasting.dirty.remove(&state.key);
        }
    }
}
