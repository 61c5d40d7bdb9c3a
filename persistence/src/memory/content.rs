//! Memory content: what the memory journal holds, and what each operation does to it.

use crate::error::{AppendError, ClaimError};
use crate::id::PersistenceId;
use crate::journal::{
    AppendRequest, Appended, DeleteRequest, EventPage, EventRecord, Fence, StoredEvent,
};
use crate::query::{EventQuery, FoundEvent, QueryPage};
use crate::snapshot::Snapshot;
use crate::state::{SaveState, SavedState, StoredState};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::ops::Bound;

/// Everything that a memory journal holds.
#[derive(Default)]
pub(super) struct Content {
    /// The position of the newest event.
    pub(super) position: u64,
    streams: BTreeMap<PersistenceId, Stream>,
    /// Whose event lies at each position, and its sequence number.
    log: BTreeMap<u64, (PersistenceId, u64)>,
    snapshots: BTreeMap<(PersistenceId, u64), Snapshot>,
    epochs: BTreeMap<String, u64>,
    terms: BTreeMap<String, u64>,
    states: BTreeMap<PersistenceId, StoredState>,
    /// Whose state changed last at each position.
    changes: BTreeMap<u64, PersistenceId>,
    state_position: u64,
    offsets: BTreeMap<String, u64>,
}

/// The events of one id.
#[derive(Default)]
struct Stream {
    /// Events up to this number were deleted; the first of `events` has the next one.
    deleted_seq: u64,
    events: VecDeque<StoredEvent>,
}

impl Stream {
    fn highest_seq(&self) -> u64 {
        self.deleted_seq + self.events.len() as u64
    }

    fn event(&self, seq: u64) -> Option<&StoredEvent> {
        let index = seq.checked_sub(self.deleted_seq + 1)?;
        self.events.get(usize::try_from(index).ok()?)
    }
}

/// A page of a query ends here even when less was found.
const SCANNED_MAX: usize = 10_000;

impl Content {
    pub(super) fn append(
        &mut self,
        request: AppendRequest,
        now_ms: u64,
    ) -> Result<Appended, AppendError> {
        self.check_fence(request.fence.as_ref())?;
        let actual = self.streams.get(&request.id).map_or(0, Stream::highest_seq);
        if actual != request.expected_seq {
            return Err(AppendError::WrongSequence {
                expected: request.expected_seq,
                actual,
            });
        }
        if request.events.is_empty() {
            return Ok(Appended::new(actual, 0));
        }
        let stream = self.streams.entry(request.id.clone()).or_default();
        for record in request.events {
            self.position += 1;
            let seq = stream.highest_seq() + 1;
            self.log.insert(self.position, (request.id.clone(), seq));
            stream
                .events
                .push_back(StoredEvent::new(seq, self.position, now_ms, record));
        }
        Ok(Appended::new(stream.highest_seq(), self.position))
    }

    fn check_fence(&self, fence: Option<&Fence>) -> Result<(), AppendError> {
        let Some(Fence { scope, epoch }) = fence else {
            return Ok(());
        };
        let current = self.epochs.get(&**scope).copied().unwrap_or_default();
        if current == *epoch {
            Ok(())
        } else {
            Err(AppendError::Fenced { current })
        }
    }

    pub(super) fn read(&self, id: &PersistenceId, from_seq: u64, max: usize) -> EventPage {
        let Some(stream) = self.streams.get(id) else {
            return EventPage::default();
        };
        let skipped = from_seq.saturating_sub(stream.deleted_seq + 1);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let events = stream.events.iter().skip(skipped).take(max).cloned();
        EventPage::new(events.collect(), stream.highest_seq()).deleted(stream.deleted_seq)
    }

    pub(super) fn delete(&mut self, request: &DeleteRequest) -> Result<(), AppendError> {
        self.check_fence(request.fence.as_ref())?;
        let Some(stream) = self.streams.get_mut(&request.id) else {
            return Ok(());
        };
        while stream.deleted_seq < request.seq_max
            && let Some(event) = stream.events.pop_front()
        {
            stream.deleted_seq = event.seq;
            self.log.remove(&event.position);
        }
        Ok(())
    }

    pub(super) fn events(&self, query: &EventQuery, after: u64, max: usize) -> QueryPage {
        let (mut events, mut through, mut scanned) = (Vec::new(), after, 0);
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        for (position, (id, seq)) in self.log.range(behind) {
            if events.len() >= max || scanned >= SCANNED_MAX {
                return QueryPage::new(events, through, true);
            }
            scanned += 1;
            through = *position;
            let stored = self.streams.get(id).and_then(|stream| stream.event(*seq));
            if let Some(event) = stored
                && query.matches(id, &event.record.tags)
            {
                events.push(FoundEvent::new(id.clone(), event.clone()));
            }
        }
        QueryPage::new(events, self.position.max(after), false)
    }

    /// The ids behind `after` that have events.
    pub(super) fn ids(&self, after: Option<&PersistenceId>, max: usize) -> Vec<PersistenceId> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self
            .streams
            .range::<PersistenceId, _>((begin, Bound::Unbounded));
        behind
            .filter(|(_, stream)| !stream.events.is_empty())
            .map(|(id, _)| id.clone())
            .take(max)
            .collect()
    }

    pub(super) fn claim(&mut self, scope: &str, epoch: u64) -> Result<(), ClaimError> {
        let current = self.epochs.entry(scope.to_owned()).or_default();
        if *current > epoch {
            return Err(ClaimError::Fenced { current: *current });
        }
        *current = epoch;
        Ok(())
    }

    pub(super) fn next_term(&mut self, scope: &str) -> u64 {
        let term = self.terms.entry(scope.to_owned()).or_default();
        *term += 1;
        *term
    }

    pub(super) fn save_snapshot(&mut self, snapshot: Snapshot, keep: NonZeroU32) {
        let id = snapshot.id.clone();
        self.snapshots.insert((id.clone(), snapshot.seq), snapshot);
        let keep = usize::try_from(keep.get()).unwrap_or(usize::MAX);
        let kept: Vec<_> = self
            .snapshots_of(&id, u64::MAX)
            .map(|(key, _)| key.clone())
            .collect();
        for key in kept.iter().rev().skip(keep) {
            self.snapshots.remove(key);
        }
    }

    pub(super) fn latest_snapshot(&self, id: &PersistenceId, seq_max: u64) -> Option<Snapshot> {
        let newest = self.snapshots_of(id, seq_max).next_back();
        newest.map(|(_, snapshot)| snapshot.clone())
    }

    pub(super) fn delete_snapshots(&mut self, id: &PersistenceId, seq_max: u64) {
        self.snapshots
            .retain(|(other, seq), _| other != id || *seq > seq_max);
    }

    fn snapshots_of(
        &self,
        id: &PersistenceId,
        seq_max: u64,
    ) -> impl DoubleEndedIterator<Item = (&(PersistenceId, u64), &Snapshot)> {
        self.snapshots
            .range((id.clone(), 0)..=(id.clone(), seq_max))
    }

    pub(super) fn state(&self, id: &PersistenceId) -> Option<StoredState> {
        self.states.get(id).cloned()
    }

    pub(super) fn save_state(
        &mut self,
        request: SaveState,
        now_ms: u64,
    ) -> Result<SavedState, AppendError> {
        self.check_fence(request.fence.as_ref())?;
        let current = self.states.get(&request.id);
        let actual = current.map_or(0, |state| state.revision);
        if actual != request.expected_revision {
            return Err(AppendError::WrongSequence {
                expected: request.expected_revision,
                actual,
            });
        }
        if let Some(state) = current {
            self.changes.remove(&state.position);
        }
        self.state_position += 1;
        let saved = SavedState::new(actual + 1, self.state_position);
        let place = (saved.revision, saved.position);
        self.changes.insert(saved.position, request.id.clone());
        let state = StoredState::new(request.id.clone(), place, now_ms, request.record);
        self.states.insert(request.id, state);
        Ok(saved)
    }

    pub(super) fn changed_states(
        &self,
        query: &EventQuery,
        after: u64,
        max: usize,
    ) -> Vec<StoredState> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let states = self
            .changes
            .range(behind)
            .filter_map(|(_, id)| self.states.get(id));
        states
            .filter(|state| {
                let record: Option<&EventRecord> = state.record.as_ref();
                let tags = record.map_or(&[][..], |record| &record.tags);
                query.matches(&state.id, tags)
            })
            .take(max)
            .cloned()
            .collect()
    }

    pub(super) fn offset(&self, key: &str) -> Option<u64> {
        self.offsets.get(key).copied()
    }

    pub(super) fn save_offset(&mut self, key: &str, offset: u64) {
        self.offsets.insert(key.to_owned(), offset);
    }

    pub(super) fn clear_offset(&mut self, key: &str) {
        self.offsets.remove(key);
    }
}
