//! Order: mailboxes that do not take messages in the order in which they came, or not all of them.

use crate::observe::mark::Extra;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The rank of a message: higher ones are taken first.
pub(crate) type Rank<M> = Arc<dyn Fn(&M) -> i64 + Send + Sync>;

/// Where a diverted mailbox keeps its messages. Used under a lock: runs no code of users.
pub(crate) struct Order<M> {
    kept: Kept<M>,
    capacity: usize,
    /// How many were ever kept.
    pushed: u64,
}

enum Kept<M> {
    /// In the order of arrival; the oldest is given up when there is no room.
    DropOldest(VecDeque<(M, Extra)>),
    /// The highest rank first; among equals the one that came first.
    Priority(Rank<M>, BTreeMap<(Reverse<i64>, u64), (M, Extra)>),
}

impl<M> Order<M> {
    pub(crate) fn drop_oldest(capacity: usize) -> Self {
        Self::new(Kept::DropOldest(VecDeque::new()), capacity)
    }

    pub(crate) fn priority(rank: Rank<M>, capacity: usize) -> Self {
        Self::new(Kept::Priority(rank, BTreeMap::new()), capacity)
    }

    fn new(kept: Kept<M>, capacity: usize) -> Self {
        Self {
            kept,
            capacity,
            pushed: 0,
        }
    }

    /// What ranks the messages, to be called without the lock.
    pub(super) fn rank(&self) -> Option<Rank<M>> {
        match &self.kept {
            Kept::DropOldest(_) => None,
            Kept::Priority(rank, _) => Some(rank.clone()),
        }
    }

    /// Keeps a message. `Err`: there is no room. `Ok(Some)`: another one was given up for it.
    pub(super) fn push(&mut self, message: M, extra: Extra, rank: i64) -> Result<Option<M>, M> {
        let full = self.len() >= self.capacity as u64;
        let mut dropped = None;
        match &mut self.kept {
            Kept::DropOldest(queue) => {
                if full {
                    dropped = queue.pop_front().map(|(oldest, _)| oldest);
                }
                queue.push_back((message, extra));
            }
            Kept::Priority(..) if full => return Err(message),
            Kept::Priority(_, queue) => {
                queue.insert((Reverse(rank), self.pushed), (message, extra));
            }
        }
        self.pushed += 1;
        Ok(dropped)
    }

    pub(super) fn pop(&mut self) -> Option<(M, Extra)> {
        match &mut self.kept {
            Kept::DropOldest(queue) => queue.pop_front(),
            Kept::Priority(_, queue) => queue.pop_first().map(|(_, entry)| entry),
        }
    }

    pub(super) fn len(&self) -> u64 {
        match &self.kept {
            Kept::DropOldest(queue) => queue.len() as u64,
            Kept::Priority(_, queue) => queue.len() as u64,
        }
    }

    pub(super) fn room(&self) -> u64 {
        match &self.kept {
            Kept::DropOldest(_) => u64::MAX,
            Kept::Priority(..) => (self.capacity as u64).saturating_sub(self.len()),
        }
    }

    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// How many were taken or given up.
    pub(super) fn taken(&self) -> u64 {
        self.pushed - self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_given_up_when_there_is_no_room() {
        let mut order = Order::drop_oldest(2);
        assert_eq!(
            [1, 2, 3].map(|n| order.push(n, Extra::None, 0)),
            [Ok(None), Ok(None), Ok(Some(1))]
        );
        assert_eq!(order.taken(), 1);
        let left: Vec<u8> = std::iter::from_fn(|| order.pop()).map(|(n, _)| n).collect();
        assert_eq!(left, [2, 3]);
    }

    #[test]
    fn higher_ranks_come_first_and_equals_in_their_order() {
        let mut order = Order::priority(Arc::new(|_: &u8| 0), 4);
        for (message, rank) in [(1, 0), (2, 5), (3, 0), (4, 5)] {
            assert_eq!(order.push(message, Extra::None, rank), Ok(None));
        }
        assert_eq!(order.push(5, Extra::None, 9), Err(5));
        let taken: Vec<u8> = std::iter::from_fn(|| order.pop())
            .map(|(message, _)| message)
            .collect();
        assert_eq!(taken, [2, 4, 1, 3]);
    }
}
