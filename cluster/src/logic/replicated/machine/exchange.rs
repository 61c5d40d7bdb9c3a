//! Exchange: how two replicators find what differs between them, and give it to each other.
//!
//! ```text
//! A                                   B
//! Summary (256 fingerprints)  ──────►   which buckets differ?
//!   which of these are not mine? ◄──  Bucket (keys and fingerprints of a part of one)
//! State of what differs or is missing, Want of the rest  ──────►
//!                              ◄────  State
//! ```
//! Each step is bounded; what does not fit comes in a later round.

use super::Machine;
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::message::{Key, Message};
use std::collections::BTreeMap;

/// Buckets that are compared in one round.
const BUCKETS_AT_ONCE: usize = 32;
/// Keys of a bucket in one message.
const HELD_MAX: usize = 500;

impl Machine {
    /// Compares with a random peer.
    pub(super) fn gossip(&mut self) {
        if self.peers.is_empty() || self.table.is_empty() {
            return;
        }
        let which = self.rng.below(self.peers.len() as u64) as usize;
        let peer = self.peers.keys().nth(which).copied();
        if let Some(peer) = peer {
            let summary = self.table.summary();
            self.push(peer, Message::Summary(summary));
        }
    }

    /// A peer has told its fingerprints.
    pub(super) fn summarised(&mut self, from: Replica, theirs: &[u64]) {
        let ours = self.table.summary();
        if ours.len() != theirs.len() {
            return;
        }
        let differ = (0..ours.len()).filter(|bucket| ours[*bucket] != theirs[*bucket]);
        let mut differ: Vec<usize> = differ.collect();
        // Not always the same ones first.
        self.rng.shuffle(&mut differ);
        for bucket in differ.into_iter().take(BUCKETS_AT_ONCE) {
            // There are fewer buckets than that.
            self.tell_bucket(from, bucket as u16);
        }
    }

    fn tell_bucket(&mut self, to: Replica, bucket: u16) {
        let keys = self.table.part(bucket, None, None);
        let parts = keys.len().div_ceil(HELD_MAX).max(1);
        let mut after: Option<Key> = None;
        for part in 0..parts {
            let chunk = keys.iter().skip(part * HELD_MAX).take(HELD_MAX);
            let held: Vec<(Key, u64)> = chunk
                .map(|key| (key.clone(), self.table.fingerprint(key)))
                .collect();
            let last = held.last().map(|(key, _)| key.clone());
            // The last part goes to the end of all keys.
            let until = last.filter(|_| part + 1 < parts);
            let message = Message::Bucket {
                bucket,
                after: after.clone(),
                until: until.clone(),
                held,
            };
            after = until;
            self.push(to, message);
        }
    }

    /// A peer has told what it holds in a part of a bucket.
    pub(super) fn compare(
        &mut self,
        from: Replica,
        bucket: u16,
        after: Option<&Key>,
        until: Option<&Key>,
        held: Vec<(Key, u64)>,
    ) {
        let mut theirs: BTreeMap<Key, u64> = held.into_iter().collect();
        let mut wanted = Vec::new();
        for key in self.table.part(bucket, after, until) {
            let known = theirs.remove(&key);
            if known == Some(self.table.fingerprint(&key)) {
                continue;
            }
            self.push_state(from, &key);
            if known.is_some() {
                wanted.push(key);
            }
        }
        wanted.extend(theirs.into_keys());
        if !wanted.is_empty() {
            self.push(from, Message::Want(wanted));
        }
    }
}
