//! Causal: a store together with the writes that its copy has seen: what is replicated.
//!
//! **Invariant:** every dot in the store is in the context; a piece whose dot is only in the context
//! was overwritten. Copies that have seen the same writes are equal.

use crate::logic::digest::Digest;
use crate::logic::replicated::dots::{Context, Dot, Replica};
use crate::logic::replicated::store::{Joining, Store};

/// One copy of a value, or a delta of one. Joining is commutative, associative and idempotent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Causal {
    /// What stands.
    pub store: Store,
    /// What was seen, standing or not.
    pub context: Context,
}

/// The writes of a replica that is gone, as writes of another one: `from`'s number `n` is `to`'s
/// number `offset + n`. Those beyond `count` no living node has ever seen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Renaming {
    /// Whose writes.
    pub from: Replica,
    /// Whose they become.
    pub to: Replica,
    /// The number before the first one they get.
    pub offset: u64,
    /// How many there are.
    pub count: u64,
}

impl Renaming {
    fn rename(&self, number: u64) -> Option<Dot> {
        let fits = (1..=self.count).contains(&number);
        let renamed = self.offset.checked_add(number).filter(|_| fits)?;
        Some(Dot::new(self.to, renamed))
    }
}

impl Causal {
    /// A value of the shape of `store` that nobody has written.
    #[must_use]
    pub fn empty(store: &Store) -> Self {
        Self {
            store: store.empty(),
            context: Context::new(),
        }
    }

    /// Joins another copy into this one; whether that changed it.
    pub fn join(&mut self, other: &Self) -> bool {
        self.join_as(other, Joining::State)
    }

    /// Joins a delta into this copy; whether that changed it. The same as [`Causal::join`], but it
    /// costs as much as the delta is large, not as this is.
    pub fn join_delta(&mut self, delta: &Self) -> bool {
        self.join_as(delta, Joining::Delta)
    }

    /// Joins a later delta into this one.
    pub fn join_deltas(&mut self, later: &Self) {
        self.join_as(later, Joining::Deltas);
    }

    fn join_as(&mut self, other: &Self, joining: Joining) -> bool {
        let changed = self
            .store
            .join(&self.context, &other.store, &other.context, joining);
        // Not `||`: both must happen.
        self.context.merge(&other.context) | changed
    }

    /// Gives the writes of a replica that is gone their new names; whether there were any.
    ///
    /// All copies do the same, in whatever order this and joins come, so it needs no agreement beyond
    /// the renaming itself. A write that is here under both names is one write: if its new name was
    /// seen and does not stand, it was overwritten.
    pub fn rename(&mut self, renaming: &Renaming) -> bool {
        let seen = &self.context;
        let new_name = |dot: Dot| {
            let new = renaming.rename(dot.number);
            new.filter(|new| !seen.contains(*new))
        };
        let stood = self.store.rename(renaming.from, &new_name);
        let ranges = self.context.remove(renaming.from);
        let seen = !ranges.is_empty();
        for (first, last) in ranges {
            let last = last.min(renaming.count);
            if let (Some(first), Some(last)) = (renaming.rename(first), renaming.rename(last)) {
                self.context
                    .insert_range(renaming.to, first.number, last.number);
            }
        }
        stood | seen
    }

    /// About how many bytes this takes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        const RANGE: usize = 20;
        self.store.weight() + RANGE * self.context.ranges().count()
    }

    /// Adds all of this to a fingerprint.
    pub fn digest(&self, digest: &mut Digest) {
        self.store.digest(digest);
        for (replica, first, last) in self.context.ranges() {
            digest.number(replica.0).number(first).number(last);
        }
    }

    /// Whether every dot that stands was seen. False only for what another program has made up.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut sound = true;
        self.store
            .each_dot(&mut |dot| sound &= self.context.contains(dot));
        sound
    }
}
