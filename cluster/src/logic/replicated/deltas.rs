//! Deltas: which of this node's writes to one key which peer has, and what to send it next.
//!
//! The deltas of a node are numbered for each key. A peer applies a group of them only if it has all
//! that came before, so it always has an unbroken beginning of this node's writes; if some are
//! missing, or are kept no longer, it gets the whole state, which holds them all. (The causal
//! delta-merging condition of Almeida, Shoker, Baquero, 2018, section 6.)

use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::dots::Replica;
use otava_actor::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Deltas that are kept for those who do not have them, at most.
const KEPT_MAX: usize = 1_024;
/// About how many bytes they may have; beyond it, states are sent.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// The writes of this node to one key.
#[derive(Clone, Debug, Default)]
pub struct DeltaLog {
    /// The number of the newest; 0 if there is none.
    last: u64,
    /// The newest ones, the last of which has the number `last`.
    kept: VecDeque<Causal>,
    kept_bytes: usize,
    peers: BTreeMap<Replica, Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    acked: u64,
    /// It misses something: only a state helps.
    behind: bool,
    sent: u64,
    resend_at: Time,
}

/// What a peer needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Needed {
    /// These deltas, gathered.
    Deltas {
        /// It has all up to this one.
        base: u64,
        /// It has all up to this one then.
        last: u64,
        /// The changes.
        delta: Causal,
    },
    /// The state, which has all deltas up to this number.
    State(u64),
}

impl DeltaLog {
    /// The number of the newest delta; 0 if there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Adds a delta; its number is [`DeltaLog::last`] then.
    pub fn push(&mut self, delta: Causal) {
        self.last += 1;
        self.kept_bytes += delta.weight();
        self.kept.push_back(delta);
        while self.kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Everybody needs the state: a change cannot be told by a delta.
    pub fn reset(&mut self) {
        self.last += 1;
        self.drop_kept();
    }

    /// What is kept is of no use any more: whoever misses some of it needs the state.
    pub fn drop_kept(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
    }

    /// What to send `peer` now, if something; `resend` later it is sent again unless it is acknowledged.
    pub fn next_for(&mut self, peer: Replica, now: Time, resend: Duration) -> Option<Needed> {
        let progress = self.peers.entry(peer).or_default();
        let waits = progress.sent == self.last && now < progress.resend_at;
        if progress.acked >= self.last || waits {
            return None;
        }
        progress.sent = self.last;
        progress.resend_at = now + resend;
        let (base, last) = (progress.acked, self.last);
        let missing = usize::try_from(last - base).unwrap_or(usize::MAX);
        if progress.behind || missing > self.kept.len() {
            return Some(Needed::State(last));
        }
        let mut deltas = self.kept.iter().skip(self.kept.len() - missing);
        let mut delta = deltas.next()?.clone();
        deltas.for_each(|later| delta.join_deltas(later));
        Some(Needed::Deltas { base, last, delta })
    }

    /// `peer` has all deltas up to `last`.
    pub fn ack(&mut self, peer: Replica, last: u64) {
        let last = last.min(self.last);
        let progress = self.peers.entry(peer).or_default();
        progress.acked = progress.acked.max(last);
        progress.behind = false;
        self.trim();
    }

    /// `peer` misses a delta. Returns whether there is anything for it.
    pub fn behind(&mut self, peer: Replica) -> bool {
        let last = self.last;
        let progress = self.peers.entry(peer).or_default();
        if progress.acked >= last {
            // It says that it misses what it has acknowledged: it lost its copy.
            progress.acked = 0;
        }
        progress.behind = true;
        progress.resend_at = Time::ZERO;
        last > 0
    }

    /// Whether `peer` has all deltas up to `number`.
    #[must_use]
    pub fn has(&self, peer: Replica, number: u64) -> bool {
        let acked = self.peers.get(&peer).map_or(0, |progress| progress.acked);
        acked >= number
    }

    /// Whether all of these peers have everything.
    pub fn is_everywhere(&self, peers: impl IntoIterator<Item = Replica>) -> bool {
        peers.into_iter().all(|peer| self.has(peer, self.last))
    }

    /// Nothing is sent to others than these any more.
    pub fn retain(&mut self, is_peer: impl Fn(Replica) -> bool) {
        self.peers.retain(|peer, _| is_peer(*peer));
        self.trim();
    }

    /// Drops what all who were sent something have. A peer that is new gets the state.
    fn trim(&mut self) {
        let acked = self.peers.values().map(|progress| progress.acked).min();
        let needed = self.last - acked.unwrap_or(0).min(self.last);
        while self.kept.len() as u64 > needed {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.kept_bytes -= oldest.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::replicated::draft::Draft;
    use crate::logic::replicated::store::{Dots, Store};
    use std::sync::Arc;

    const P: Replica = Replica(2);
    const RESEND: Duration = Duration::from_millis(500);

    fn log(writes: u64) -> (DeltaLog, Arc<Causal>) {
        let mut log = DeltaLog::default();
        let mut value = Arc::new(Causal::empty(&Store::Counter(Dots::new())));
        for _ in 0..writes {
            let mut draft = Draft::new(value, Replica(1), 0);
            draft.count(1, 0);
            let done = draft.finish();
            value = done.value;
            log.push(done.delta.unwrap());
        }
        (log, value)
    }

    fn group(needed: Option<Needed>) -> (u64, u64, Causal) {
        match needed {
            Some(Needed::Deltas { base, last, delta }) => (base, last, delta),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_holds_what_is_not_acknowledged() {
        let (mut log, value) = log(5);
        let now = Time::ZERO;
        let (base, last, delta) = group(log.next_for(P, now, RESEND));
        assert_eq!((base, last), (0, 5));
        let mut copy = Causal::empty(&value.store);
        copy.join_delta(&delta);
        assert_eq!(copy, *value);
        assert_eq!(log.next_for(P, now, RESEND), None, "it is under way");
        let (base, ..) = group(log.next_for(P, now + RESEND, RESEND));
        assert_eq!(base, 0, "it was lost");
        log.ack(P, 3);
        let (base, last, _) = group(log.next_for(P, now + RESEND * 2, RESEND));
        assert_eq!((base, last), (3, 5));
        log.ack(P, 5);
        assert!(log.is_everywhere([P]));
        assert_eq!(log.next_for(P, now + RESEND * 9, RESEND), None);
        assert!(log.kept.is_empty());
    }

    #[test]
    fn who_misses_something_gets_the_state() {
        let (mut log, _) = log(5);
        log.ack(P, 5);
        // All that is kept is nothing, and a new peer has nothing.
        let new = log.next_for(Replica(3), Time::ZERO, RESEND);
        assert_eq!(new, Some(Needed::State(5)));
        assert!(log.behind(P));
        let again = log.next_for(P, Time::ZERO, RESEND);
        assert_eq!(again, Some(Needed::State(5)));
        log.ack(P, 5);
        log.reset();
        let after = log.next_for(P, Time::ZERO, RESEND);
        assert_eq!(after, Some(Needed::State(6)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (log, _) = log(3_000);
        assert!(log.kept.len() <= KEPT_MAX && log.kept_bytes <= KEPT_BYTES_MAX);
        let bytes: usize = log.kept.iter().map(Causal::weight).sum();
        assert_eq!(log.kept_bytes, bytes);
    }
}
