//! Inbox: which letters of each sender an entity has taken, so that each has its effects once. Pure.

use crate::id::PersistenceId;
use std::collections::BTreeMap;

/// What is to be done with a letter that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Letters before it are missing: refuse it.
    Gap { expected: u64 },
    /// It is the next one: its effects and the record that it was taken go into one append.
    New,
    /// It was taken before: say so, do nothing.
    Taken { up_to: u64 },
}

/// For each sender the number of the last letter that was taken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Inbox {
    taken: BTreeMap<PersistenceId, u64>,
}

impl Inbox {
    pub(crate) fn judge(&self, from: &PersistenceId, number: u64) -> Verdict {
        let up_to = self.last(from);
        if number <= up_to {
            Verdict::Taken { up_to }
        } else if number - 1 == up_to {
            Verdict::New
        } else {
            let expected = up_to + 1;
            Verdict::Gap { expected }
        }
    }

    /// The last letter of `from` that was taken; 0 if none was.
    pub(crate) fn last(&self, from: &PersistenceId) -> u64 {
        self.taken.get(from).copied().unwrap_or(0)
    }

    /// Takes in that a letter was taken, when that is durable.
    ///
    /// # Errors
    /// The number that would have followed. Nothing has changed.
    pub(crate) fn take(&mut self, from: &PersistenceId, number: u64) -> Result<(), u64> {
        match self.judge(from, number) {
            Verdict::New => {
                self.taken.insert(from.clone(), number);
                Ok(())
            }
            Verdict::Gap { .. } | Verdict::Taken { .. } => Err(self.last(from) + 1),
        }
    }

    pub(crate) fn senders(&self) -> impl Iterator<Item = (&PersistenceId, u64)> {
        self.taken.iter().map(|(from, &number)| (from, number))
    }

    pub(crate) fn from_senders(taken: impl IntoIterator<Item = (PersistenceId, u64)>) -> Self {
        Self {
            taken: taken.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once_and_in_order() {
        let (a, b) = (PersistenceId::new("x", "a"), PersistenceId::new("x", "b"));
        let mut inbox = Inbox::default();
        assert_eq!(inbox.judge(&a, 1), Verdict::New);
        assert_eq!(inbox.judge(&a, 2), Verdict::Gap { expected: 1 });
        assert_eq!(inbox.take(&a, 2), Err(1));
        inbox.take(&a, 1).unwrap();
        assert_eq!(inbox.judge(&a, 1), Verdict::Taken { up_to: 1 });
        assert_eq!(inbox.judge(&b, 1), Verdict::New);
        assert_eq!(inbox.judge(&a, u64::MAX), Verdict::Gap { expected: 2 });
        assert_eq!(inbox.take(&a, 1), Err(2));
    }
}
