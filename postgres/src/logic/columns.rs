//! Columns: a batch of requests as the arrays that the functions of the schema take. Pure.

use crate::logic::batch::Write;
use crate::logic::limits::to_compare;
use otava_persistence::{
    AppendError, AppendRequest, Appended, EventRecord, Fence, PersistenceId, SaveState, SavedState,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// What every request has: whose it is, what is expected, by which right.
#[derive(Debug, Default)]
pub(crate) struct Heads<'a> {
    pub(crate) fence_scopes: Vec<&'a [u8]>,
    pub(crate) fence_epochs: Vec<i64>,
    pub(crate) ids: Vec<&'a [u8]>,
    pub(crate) expected: Vec<i64>,
    /// From 1 on, as arrays are counted there; 0 for none.
    pub(crate) fences: Vec<i32>,
    known: BTreeMap<(&'a str, u64), i32>,
}

impl<'a> Heads<'a> {
    fn push(&mut self, id: &'a PersistenceId, expected: u64, fence: Option<&'a Fence>) {
        self.ids.push(id.as_str().as_bytes());
        self.expected.push(to_compare(expected));
        let fence = fence.map_or(0, |fence| self.number_of(fence));
        self.fences.push(fence);
    }

    fn number_of(&mut self, fence: &'a Fence) -> i32 {
        let next = i32::try_from(self.known.len()).unwrap_or(i32::MAX) + 1;
        let key = (&*fence.scope, fence.epoch);
        let number = *self.known.entry(key).or_insert(next);
        if number == next {
            self.fence_scopes.push(fence.scope.as_bytes());
            self.fence_epochs.push(to_compare(fence.epoch));
        }
        number
    }
}

/// What every stored record has.
#[derive(Debug, Default)]
pub(crate) struct Records<'a> {
    pub(crate) slices: Vec<i16>,
    pub(crate) kinds: Vec<i32>,
    pub(crate) versions: Vec<i32>,
    pub(crate) names: Vec<Option<&'a [u8]>>,
    pub(crate) tags: Vec<Option<String>>,
    pub(crate) payloads: Vec<Option<&'a [u8]>>,
    pub(crate) any_tags: bool,
}

impl<'a> Records<'a> {
    fn push(&mut self, (slice, kind): (i16, i32), record: Option<&'a EventRecord>) {
        self.slices.push(slice);
        self.kinds.push(kind);
        self.versions
            .push(record.map_or(0, |record| record.version.into()));
        self.names.push(record.map(|record| record.name.as_bytes()));
        let tags = record.and_then(|record| array_literal(&record.tags));
        self.any_tags |= tags.is_some();
        self.tags.push(tags);
        self.payloads.push(record.map(|record| &record.payload[..]));
    }
}

/// The arrays for `append_sure_1` and `append_2`.
#[derive(Debug, Default)]
pub(crate) struct AppendColumns<'a> {
    pub(crate) heads: Heads<'a>,
    /// Whether the id is known to have come to what is expected.
    pub(crate) known: Vec<bool>,
    /// From 1 on.
    pub(crate) event_requests: Vec<i32>,
    pub(crate) event_ids: Vec<&'a [u8]>,
    pub(crate) event_seqs: Vec<i64>,
    pub(crate) records: Records<'a>,
    /// Whether every id is known, and every request has events: whoever has come further is found by
    /// the insert.
    pub(crate) sure: bool,
}

impl<'a> AppendColumns<'a> {
    /// `reached` says for each request up to which number the events of its id are known to be, or to
    /// have been, there. What is known of none is to be looked up.
    pub(crate) fn new(batch: impl Iterator<Item = &'a AppendRequest>, reached: &[u64]) -> Self {
        let mut columns = Self {
            sure: !reached.is_empty(),
            ..Self::default()
        };
        let reached = reached.iter().chain(std::iter::repeat(&0));
        for ((number, request), reached) in (1..).zip(batch).zip(reached) {
            let AppendRequest {
                id,
                expected_seq,
                fence,
                events,
                ..
            } = request;
            columns.heads.push(id, *expected_seq, fence.as_ref());
            let known = reached >= expected_seq;
            columns.known.push(known);
            columns.sure &= known && !events.is_empty();
            let place = place_of(id);
            for (behind, event) in (1..).zip(events) {
                let seq = expected_seq.saturating_add(behind);
                columns.event_requests.push(number);
                columns.event_ids.push(id.as_str().as_bytes());
                columns.event_seqs.push(to_compare(seq));
                columns.records.push(place, Some(event));
            }
        }
        columns
    }
}

/// The arrays for `save_states_1`.
#[derive(Debug, Default)]
pub(crate) struct StateColumns<'a> {
    pub(crate) heads: Heads<'a>,
    pub(crate) records: Records<'a>,
}

impl<'a> StateColumns<'a> {
    pub(crate) fn new(batch: impl Iterator<Item = &'a SaveState>) -> Self {
        let mut columns = Self::default();
        for request in batch {
            let SaveState {
                id,
                expected_revision,
                fence,
                record,
                ..
            } = request;
            columns.heads.push(id, *expected_revision, fence.as_ref());
            columns.records.push(place_of(id), record.as_ref());
        }
        columns
    }
}

/// Slice and hash of the kind, by which queries find an id.
fn place_of(id: &PersistenceId) -> (i16, i32) {
    let slice = i16::try_from(id.slice()).expect("below 1024");
    (slice, kind_hash(id.kind()))
}

/// The number that stands for a kind in an index. Part of the schema: it never changes.
pub(crate) fn kind_hash(kind: &str) -> i32 {
    crc32fast::hash(kind.as_bytes()).cast_signed()
}

/// Tags as the text of a `bytea[]`; `None` for no tags.
fn array_literal(tags: &[Arc<str>]) -> Option<String> {
    if tags.is_empty() {
        return None;
    }
    let mut text = String::from("{");
    for (n, tag) in tags.iter().enumerate() {
        text.push_str(if n == 0 { "\"\\\\x" } else { ",\"\\\\x" });
        for byte in tag.bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('"');
    }
    text.push('}');
    Some(text)
}

/// What the server said to the requests of one batch, in their order.
#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) status: Vec<i16>,
    pub(crate) number: Vec<i64>,
    pub(crate) base: i64,
}

impl Verdicts {
    fn of(&self, at: usize, expected: u64) -> Option<Result<u64, AppendError>> {
        let number = self.number.get(at)?.cast_unsigned();
        match *self.status.get(at)? {
            0 => Some(Ok(number)),
            1 => Some(Err(AppendError::Fenced { current: number })),
            2 => Some(Err(AppendError::WrongSequence {
                expected,
                actual: number,
            })),
            _ => None,
        }
    }

    /// The answers to changes of states; `None` when it is no answer to them.
    pub(crate) fn saved<'a>(
        &self,
        batch: impl Iterator<Item = &'a SaveState>,
    ) -> Option<Vec<Result<SavedState, AppendError>>> {
        let answer = |(at, request): (usize, &SaveState)| {
            let position = self.base.cast_unsigned() + at as u64;
            let verdict = self.of(at, request.expected_revision)?;
            Some(verdict.map(|revision| SavedState::new(revision + 1, position)))
        };
        batch.enumerate().map(answer).collect()
    }
}

/// What the server said to a batch of appends: which are refused, from 1 on, and why.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) refused: Option<Vec<i32>>,
    pub(crate) status: Option<Vec<i16>>,
    pub(crate) number: Option<Vec<i64>>,
    pub(crate) base: i64,
}

impl Refusals {
    /// The answers to the appends; `None` when it is no answer to them.
    pub(crate) fn appended<'a>(
        &self,
        batch: impl Iterator<Item = &'a AppendRequest>,
    ) -> Option<Vec<Result<Appended, AppendError>>> {
        let of = |list: &Option<Vec<i32>>| list.clone().unwrap_or_default();
        let refused = of(&self.refused).into_iter();
        let status = self.status.iter().flatten();
        let number = self.number.iter().flatten();
        let mut why: BTreeMap<i32, (i16, u64)> = refused
            .zip(status.zip(number))
            .map(|(at, (status, number))| (at, (*status, number.cast_unsigned())))
            .collect();
        if why.len() != of(&self.refused).len() {
            return None;
        }
        let mut next = self.base.cast_unsigned();
        let answer = |(at, request): (i32, &AppendRequest)| {
            let (events, expected) = (request.events.len() as u64, request.expected_seq);
            next += events;
            let position = if events == 0 { 0 } else { next - 1 };
            match why.remove(&at) {
                None => Some(Ok(Appended::new(expected + events, position))),
                Some((1, current)) => Some(Err(AppendError::Fenced { current })),
                Some((2, actual)) => Some(Err(AppendError::WrongSequence { expected, actual })),
                Some(_) => None,
            }
        };
        (1..).zip(batch).map(answer).collect()
    }
}

impl Write for AppendRequest {
    fn id(&self) -> &PersistenceId {
        &self.id
    }

    fn bytes(&self) -> usize {
        let of_event = |event: &EventRecord| record_bytes(event) + self.id.as_str().len();
        self.id.as_str().len() + self.events.iter().map(of_event).sum::<usize>()
    }
}

impl Write for SaveState {
    fn id(&self) -> &PersistenceId {
        &self.id
    }

    fn bytes(&self) -> usize {
        self.id.as_str().len() + self.record.as_ref().map_or(0, record_bytes)
    }
}

fn record_bytes(record: &EventRecord) -> usize {
    let tags: usize = record.tags.iter().map(|tag| 2 * tag.len() + 8).sum();
    record.payload.len() + record.name.len() + tags + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_an_array_that_holds_any_text() {
        let literal = |tags: &[&str]| {
            let tags: Vec<Arc<str>> = tags.iter().map(|tag| (*tag).into()).collect();
            array_literal(&tags)
        };
        assert_eq!(literal(&[]), None);
        assert_eq!(literal(&["ab", ""]).unwrap(), r#"{"\\x6162","\\x"}"#);
        assert_eq!(literal(&["\0\"ä"]).unwrap(), r#"{"\\x0022c3a4"}"#);
    }

    #[test]
    fn answers_count_positions_over_all_events_of_a_batch() {
        let request = |entity: &str, expected, events| {
            let event = EventRecord::new("e", 1, vec![]);
            AppendRequest::new(
                PersistenceId::new("k", entity),
                expected,
                vec![event; events],
            )
        };
        let batch = [
            request("a", 3, 2),
            request("b", 7, 1),
            request("c", 0, 0),
            request("d", 0, 3),
        ];
        let refusals = Refusals {
            refused: Some(vec![2]),
            status: Some(vec![2]),
            number: Some(vec![9]),
            base: 100,
        };
        let answers = refusals.appended(batch.iter()).unwrap();
        assert_eq!(*answers[0].as_ref().unwrap(), Appended::new(5, 101));
        assert!(matches!(
            answers[1],
            Err(AppendError::WrongSequence {
                expected: 7,
                actual: 9
            })
        ));
        assert_eq!(*answers[2].as_ref().unwrap(), Appended::new(0, 0));
        assert_eq!(*answers[3].as_ref().unwrap(), Appended::new(3, 105));
        let short = Refusals {
            number: None,
            ..refusals
        };
        assert!(short.appended(batch.iter()).is_none());
    }

    #[test]
    fn a_fence_is_sent_once_for_all_that_carry_it() {
        let (one, other) = (Fence::new("s", 1), Fence::new("s", 2));
        let request = |entity: &str, fence: Option<&Fence>| {
            AppendRequest::new(PersistenceId::new("k", entity), 0, vec![]).fenced(fence.cloned())
        };
        let batch = [
            request("a", Some(&one)),
            request("b", None),
            request("c", Some(&other)),
            request("d", Some(&one)),
        ];
        let columns = AppendColumns::new(batch.iter(), &[]);
        assert_eq!(columns.heads.fences, [1, 0, 2, 1]);
        assert_eq!(columns.heads.fence_epochs, [1, 2]);
    }

    #[test]
    fn sure_is_who_knows_every_id_and_writes_for_it() {
        let request = |entity: &str, expected, events| {
            let event = EventRecord::new("e", 1, vec![]);
            let id = PersistenceId::new("k", entity);
            AppendRequest::new(id, expected, vec![event; events])
        };
        let sure = |batch: &[AppendRequest]| {
            let reached = |request: &AppendRequest| if request.id.entity() == "a" { 5 } else { 0 };
            let reached: Vec<_> = batch.iter().map(reached).collect();
            AppendColumns::new(batch.iter(), &reached).sure
        };
        assert!(sure(&[request("a", 5, 1), request("new", 0, 2)]));
        assert!(!sure(&[request("a", 5, 2), request("a", 5, 0)]));
        assert!(!sure(&[request("a", 6, 1)]));
        assert!(!sure(&[request("a", 5, 1), request("b", 1, 1)]));
    }
}
