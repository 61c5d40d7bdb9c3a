//! Unsent: which senders have letters that wait, as told by the records of all of them. Pure.
//!
//! It reads records in the order of their positions and knows at any time from which position on they
//! must be read again after a crash.

use crate::id::PersistenceId;
use otava_actor::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Marks of one sender and target; beyond that the newest one stands for several letters.
const MARKS_MAX: usize = 64;

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Note {
    Confirmed {
        to: PersistenceId,
        up_to: u64,
    },
    /// All that waits of this sender: target and number of the last letter.
    Deleted(Vec<(PersistenceId, u64)>),
    Sent {
        to: PersistenceId,
        number: u64,
    },
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) position: u64,
}

/// Letters that wait, up to a number: no record of them stands before this place, and none behind
/// `last_seq`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    through: u64,
    at: Place,
    last_seq: u64,
}

impl Mark {
    fn one(through: u64, at: Place) -> Self {
        let last_seq = at.seq;
        Self {
            through,
            at,
            last_seq,
        }
    }
}

struct Sender {
    lanes: BTreeMap<PersistenceId, VecDeque<Mark>>,
    due: Time,
}

impl Sender {
    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.lanes.values().flatten()
    }
}

/// All senders with letters that wait.
pub(crate) struct Unsent {
    senders: BTreeMap<PersistenceId, Sender>,
    /// Everything up to this position was read.
    through: u64,
    /// How long a sender has for its letters before it is due.
    grace: Duration,
}

impl Unsent {
    pub(crate) fn new(through: u64, grace: Duration) -> Self {
        Self {
            senders: BTreeMap::new(),
            through,
            grace,
        }
    }

    /// Everything up to this position was read.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// Takes in how far was read.
    pub(crate) fn read_through(&mut self, position: u64) {
        self.through = self.through.max(position);
    }

    /// Takes in a record of `from`.
    pub(crate) fn note(&mut self, now: Time, from: &PersistenceId, at: Place, note: Note) {
        self.read_through(at.position);
        let due = now + self.grace;
        let lanes = BTreeMap::new();
        let sender = self.senders.entry(from.clone());
        let sender = sender.or_insert(Sender { lanes, due });
        match note {
            Note::Confirmed { to, up_to } => {
                if let Some(marks) = sender.lanes.get_mut(&to) {
                    marks.retain(|mark| mark.through > up_to);
                }
                // It is at work.
                sender.due = due;
            }
            Note::Deleted(waiting) => {
                let lane = |(to, through)| (to, VecDeque::from([Mark::one(through, at)]));
                sender.lanes = waiting.into_iter().map(lane).collect();
            }
            Note::Sent { to, number } => {
                let marks = sender.lanes.entry(to).or_default();
                let is_full = marks.len() >= MARKS_MAX;
                match marks.back_mut() {
                    Some(last) if is_full => (last.through, last.last_seq) = (number, at.seq),
                    _ => marks.push_back(Mark::one(number, at)),
                }
            }
        }
        self.forget_idle(from);
    }

    /// Takes in that the records of `from` up to `deleted` are gone: their letters do not wait. True
    /// when others of it do.
    pub(crate) fn deleted(&mut self, from: &PersistenceId, deleted: u64) -> bool {
        if let Some(sender) = self.senders.get_mut(from) {
            for marks in sender.lanes.values_mut() {
                // Of a mark that stands for several letters the first ones may be gone alone.
                marks.retain(|mark| mark.last_seq > deleted);
                for mark in marks {
                    mark.at.seq = mark.at.seq.max(deleted + 1);
                }
            }
        }
        self.forget_idle(from);
        self.senders.contains_key(from)
    }

    fn forget_idle(&mut self, from: &PersistenceId) {
        if let Some(sender) = self.senders.get_mut(from) {
            sender.lanes.retain(|_, marks| !marks.is_empty());
            if sender.lanes.is_empty() {
                self.senders.remove(from);
            }
        }
    }

    /// The senders that should have been done by now, with their oldest record; they are due again
    /// after `again`.
    pub(crate) fn take_due(&mut self, now: Time, again: Duration) -> Vec<(PersistenceId, u64)> {
        let due = self
            .senders
            .iter_mut()
            .filter(|(_, sender)| sender.due <= now);
        due.filter_map(|(from, sender)| {
            sender.due = now + again;
            let oldest = sender.marks().map(|mark| mark.at.seq).min()?;
            Some((from.clone(), oldest))
        })
        .collect()
    }

    /// When the next sender is due.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.senders.values().map(|sender| sender.due).min()
    }

    /// The position behind which records must be read again by who knows nothing of this.
    pub(crate) fn offset(&self) -> u64 {
        let marks = self.senders.values().flat_map(Sender::marks);
        let first = marks.map(|mark| mark.at.position).min();
        first.map_or(self.through, |position| position.saturating_sub(1))
    }

    /// How many senders have letters that wait.
    pub(crate) fn len(&self) -> usize {
        self.senders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn id(name: &str) -> PersistenceId {
        PersistenceId::new("x", name)
    }

    fn at(seq: u64, position: u64) -> Place {
        Place { seq, position }
    }

    fn sent(to: &str, number: u64) -> Note {
        Note::Sent { to: id(to), number }
    }

    fn confirmed(to: &str, up_to: u64) -> Note {
        Note::Confirmed { to: id(to), up_to }
    }

    #[test]
    fn who_confirms_in_time_is_never_due() {
        let mut unsent = Unsent::new(4, GRACE);
        let start = Time::ZERO;
        unsent.note(start, &id("a"), at(1, 5), sent("b", 1));
        unsent.note(start, &id("c"), at(1, 7), sent("b", 1));
        assert_eq!((unsent.offset(), unsent.through(), unsent.len()), (4, 7, 2));
        unsent.note(start, &id("a"), at(2, 9), confirmed("b", 1));
        assert_eq!((unsent.offset(), unsent.through(), unsent.len()), (6, 9, 1));
        assert_eq!(unsent.take_due(start, GRACE), []);
        assert_eq!(unsent.next_due(), Some(start + GRACE));
        assert_eq!(unsent.take_due(start + GRACE, GRACE), [(id("c"), 1)]);
        assert_eq!(
            unsent.take_due(start + GRACE, GRACE),
            [],
            "it has its time again"
        );
        unsent.note(start, &id("c"), at(2, 11), confirmed("b", 1));
        assert_eq!(
            (unsent.offset(), unsent.len(), unsent.next_due()),
            (11, 0, None)
        );
    }

    #[test]
    fn what_is_deleted_does_not_wait_unless_the_end_says_so() {
        let mut unsent = Unsent::new(0, GRACE);
        let now = Time::ZERO;
        unsent.note(now, &id("a"), at(1, 1), sent("b", 1));
        unsent.note(now, &id("a"), at(2, 2), sent("c", 1));
        unsent.deleted(&id("a"), 1);
        assert_eq!(unsent.take_due(now + GRACE, GRACE), [(id("a"), 2)]);
        unsent.note(now, &id("a"), at(5, 6), Note::Deleted(vec![(id("b"), 2)]));
        unsent.deleted(&id("a"), 4);
        assert_eq!((unsent.offset(), unsent.len()), (5, 1));
        unsent.note(now, &id("a"), at(6, 8), confirmed("b", 2));
        assert_eq!(unsent.len(), 0);
    }

    #[test]
    fn many_letters_are_a_bounded_number_of_marks() {
        let mut unsent = Unsent::new(0, GRACE);
        for number in 1..=1_000 {
            unsent.note(Time::ZERO, &id("a"), at(number, number), sent("b", number));
        }
        assert_eq!(unsent.senders[&id("a")].marks().count(), MARKS_MAX);
        unsent.note(Time::ZERO, &id("a"), at(1_001, 1_001), confirmed("b", 999));
        assert_eq!(unsent.offset(), MARKS_MAX as u64 - 1);
        unsent.note(
            Time::ZERO,
            &id("a"),
            at(1_002, 1_002),
            confirmed("b", 1_000),
        );
        assert_eq!(unsent.offset(), 1_002);
    }

    /// A mark that stands for several letters waits until the record of the last one is gone.
    #[test]
    fn what_is_left_of_many_letters_waits() {
        let (mut unsent, now) = (Unsent::new(0, GRACE), Time::ZERO);
        for number in 1..=100 {
            unsent.note(now, &id("a"), at(number, number), sent("b", number));
        }
        unsent.note(now, &id("a"), at(101, 101), confirmed("b", 80));
        assert!(unsent.deleted(&id("a"), 80));
        assert_eq!((unsent.offset(), unsent.len()), (MARKS_MAX as u64 - 1, 1));
        assert_eq!(unsent.take_due(now + GRACE, GRACE), [(id("a"), 81)]);
        assert!(!unsent.deleted(&id("a"), 100));
        assert_eq!((unsent.offset(), unsent.len()), (101, 0));
    }
}
