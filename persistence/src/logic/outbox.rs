//! Outbox: the letters of one entity that are not confirmed yet, numbered for each target. Pure.
//!
//! A target's letters are numbered from 1 on without gaps. What is confirmed is always a beginning
//! of them, so a target's lane is one number and the letters behind it.

use crate::id::PersistenceId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A letter as it waits: what it is called, its bytes, and where it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) name: Arc<str>,
    pub(crate) version: u16,
    pub(crate) payload: Vec<u8>,
    /// The sequence number of its record in the sender's own events.
    pub(crate) seq: u64,
}

/// The letters to one target.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lane {
    /// All letters up to this number are with the target.
    pub(crate) confirmed: u64,
    /// Those that follow, in order.
    pub(crate) waiting: VecDeque<Waiting>,
}

impl Lane {
    /// The number of the newest letter.
    pub(crate) fn last(&self) -> u64 {
        self.confirmed + self.waiting.len() as u64
    }
}

/// A record that does not follow from those before it: the journal holds what no version wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OutOfOrder {
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

/// All letters that one entity has sent and that are not confirmed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outbox {
    lanes: BTreeMap<PersistenceId, Lane>,
    /// The targets that letters wait for: most lanes are idle.
    busy: BTreeSet<PersistenceId>,
    waiting: usize,
}

impl Outbox {
    /// The number that the next letter to `target` gets.
    pub(crate) fn next_number(&self, target: &PersistenceId) -> u64 {
        self.lanes.get(target).map_or(0, Lane::last) + 1
    }

    /// Takes in a letter whose record is durable.
    ///
    /// # Errors
    /// It is not the next one of its target. Nothing has changed.
    pub(crate) fn sent(
        &mut self,
        target: &PersistenceId,
        number: u64,
        letter: Waiting,
    ) -> Result<(), OutOfOrder> {
        let expected = self.next_number(target);
        if number != expected {
            let found = number;
            return Err(OutOfOrder { expected, found });
        }
        let lane = self.lanes.entry(target.clone()).or_default();
        lane.waiting.push_back(letter);
        self.waiting += 1;
        if lane.waiting.len() == 1 {
            self.busy.insert(target.clone());
        }
        Ok(())
    }

    /// Takes in that all letters up to `up_to` are with `target`. An older confirmation changes nothing.
    ///
    /// # Errors
    /// No letter of this number was sent. Nothing has changed.
    pub(crate) fn confirmed(
        &mut self,
        target: &PersistenceId,
        up_to: u64,
    ) -> Result<(), OutOfOrder> {
        let last = self.next_number(target) - 1;
        if up_to > last {
            let (expected, found) = (last, up_to);
            return Err(OutOfOrder { expected, found });
        }
        if let Some(lane) = self.lanes.get_mut(target) {
            while lane.confirmed < up_to && lane.waiting.pop_front().is_some() {
                lane.confirmed += 1;
                self.waiting -= 1;
            }
            if lane.waiting.is_empty() {
                self.busy.remove(target);
            }
        }
        Ok(())
    }

    /// Whether a confirmation up to this number says something new.
    pub(crate) fn is_news(&self, target: &PersistenceId, up_to: u64) -> bool {
        let lane = self.lanes.get(target);
        lane.is_some_and(|lane| lane.confirmed < up_to && up_to <= lane.last())
    }

    /// The targets that letters wait for, those behind `last` first.
    pub(crate) fn targets(
        &self,
        last: Option<&PersistenceId>,
    ) -> impl Iterator<Item = &PersistenceId> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        let to_last = last.map(|last| (Bound::Unbounded, Bound::Included(last)));
        let before = to_last.map(|range| self.busy.range::<PersistenceId, _>(range));
        let behind = self
            .busy
            .range::<PersistenceId, _>((behind, Bound::Unbounded));
        behind.chain(before.into_iter().flatten())
    }

    /// The first letters that wait for a target, at most `max`, with their numbers.
    pub(crate) fn waiting(
        &self,
        target: &PersistenceId,
        max: usize,
    ) -> impl Iterator<Item = (u64, &Waiting)> {
        let lane = self.lanes.get(target);
        let from = lane.map_or(0, |lane| lane.confirmed) + 1;
        let waiting = lane.into_iter().flat_map(|lane| &lane.waiting);
        (from..).zip(waiting.take(max))
    }

    /// The oldest record of a letter that waits: it must not be removed.
    pub(crate) fn oldest_seq(&self) -> Option<u64> {
        let busy = self.busy.iter().filter_map(|target| self.lanes.get(target));
        let firsts = busy.filter_map(|lane| lane.waiting.front());
        firsts.map(|letter| letter.seq).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many letters wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&PersistenceId, &Lane)> {
        self.lanes.iter()
    }

    pub(crate) fn from_lanes(lanes: impl IntoIterator<Item = (PersistenceId, Lane)>) -> Self {
        let lanes: BTreeMap<_, _> = lanes.into_iter().collect();
        let busy = lanes.iter().filter(|(_, lane)| !lane.waiting.is_empty());
        Self {
            busy: busy.map(|(target, _)| target.clone()).collect(),
            waiting: lanes.values().map(|lane| lane.waiting.len()).sum(),
            lanes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(seq: u64) -> Waiting {
        Waiting {
            name: "test.Letter".into(),
            version: 1,
            payload: vec![],
            seq,
        }
    }

    fn numbers(outbox: &Outbox, target: &PersistenceId) -> Vec<u64> {
        outbox
            .waiting(target, 99)
            .map(|(number, _)| number)
            .collect()
    }

    #[test]
    fn numbers_count_for_each_target() {
        let (a, b) = (PersistenceId::new("x", "a"), PersistenceId::new("x", "b"));
        let mut outbox = Outbox::default();
        for (target, number, seq) in [(&a, 1, 3), (&b, 1, 4), (&a, 2, 5)] {
            assert_eq!(outbox.next_number(target), number);
            outbox.sent(target, number, letter(seq)).unwrap();
        }
        assert_eq!((outbox.len(), outbox.oldest_seq()), (3, Some(3)));
        assert!(outbox.is_news(&a, 1) && !outbox.is_news(&a, 3) && !outbox.is_news(&b, 0));
        outbox.confirmed(&a, 1).unwrap();
        outbox.confirmed(&a, 1).unwrap();
        assert_eq!(
            (numbers(&outbox, &a), numbers(&outbox, &b)),
            (vec![2], vec![1])
        );
        assert_eq!(outbox.oldest_seq(), Some(4));
        outbox.confirmed(&a, 2).unwrap();
        assert_eq!(outbox.targets(None).collect::<Vec<_>>(), [&b]);
        assert_eq!(outbox.next_number(&a), 3, "numbers go on");
        let lanes = outbox.lanes().map(|(to, lane)| (to.clone(), lane.clone()));
        assert_eq!(Outbox::from_lanes(lanes.collect::<Vec<_>>()), outbox);
        outbox.confirmed(&b, 1).unwrap();
        assert!(outbox.is_empty() && outbox.oldest_seq().is_none());
    }

    #[test]
    fn each_target_has_its_turn() {
        let ids = ["a", "b", "c"].map(|name| PersistenceId::new("x", name));
        let mut outbox = Outbox::default();
        for id in &ids {
            outbox.sent(id, 1, letter(1)).unwrap();
        }
        let [a, b, c] = &ids;
        let after = |last| outbox.targets(last).collect::<Vec<_>>();
        assert_eq!(after(None), [a, b, c]);
        assert_eq!(after(Some(a)), [b, c, a]);
        assert_eq!(after(Some(c)), [a, b, c]);
    }

    #[test]
    fn what_does_not_follow_is_named() {
        let a = PersistenceId::new("x", "a");
        let mut outbox = Outbox::default();
        let wrong = |expected, found| Err(OutOfOrder { expected, found });
        assert_eq!(outbox.sent(&a, 2, letter(1)), wrong(1, 2));
        assert_eq!(outbox.confirmed(&a, 1), wrong(0, 1));
        assert_eq!(outbox, Outbox::default());
    }
}
