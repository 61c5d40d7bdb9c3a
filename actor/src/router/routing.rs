//! Routing: which routee is asked first.

use super::hash::key_hash;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// How a router chooses.
pub struct Routing<M>(pub(super) Kind<M>);

pub(super) enum Kind<M> {
    Broadcast(fn(&M) -> M),
    Hashed(Arc<dyn Fn(&M) -> u64 + Send + Sync>),
    LeastLoaded,
    Random,
    RoundRobin,
}

impl<M> Routing<M> {
    /// Every routee gets a copy of each message.
    pub fn broadcast() -> Self
    where
        M: Clone,
    {
        Self(Kind::Broadcast(M::clone))
    }

    /// Messages of the same key go to the same routee, for as long as it is there. `key` runs where
    /// the sender runs; a panic in it is the sender's. The hash is the same in every run
    /// ([`key_hash`]).
    pub fn consistent_hash<K: Hash>(key: impl Fn(&M) -> K + Send + Sync + 'static) -> Self {
        Self::hashed_by(move |message| key_hash(&key(message)))
    }

    /// As [`Routing::consistent_hash`], with a hash of your own; for example one that does not take
    /// a copy of a text: `Routing::hashed_by(|job: &Job| key_hash(job.name.as_str()))`.
    pub fn hashed_by(hash: impl Fn(&M) -> u64 + Send + Sync + 'static) -> Self {
        Self(Kind::Hashed(Arc::new(hash)))
    }

    /// The routee with the fewest waiting messages; among equals they take turns. The message in
    /// work is not seen, and neither is the load of routees on other nodes, which count as idle.
    /// Looks at every routee until it finds one for whom nothing waits.
    pub fn least_loaded() -> Self {
        Self(Kind::LeastLoaded)
    }

    /// Any routee, as the system's seed has it.
    pub fn random() -> Self {
        Self(Kind::Random)
    }

    /// One after the other.
    pub fn round_robin() -> Self {
        Self(Kind::RoundRobin)
    }
}

impl<M> Default for Routing<M> {
    /// Round robin.
    fn default() -> Self {
        Self::round_robin()
    }
}

impl<M> fmt::Debug for Routing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Broadcast(_) => "Broadcast",
            Kind::Hashed(_) => "Hashed",
            Kind::LeastLoaded => "LeastLoaded",
            Kind::Random => "Random",
            Kind::RoundRobin => "RoundRobin",
        })
    }
}

/// All of `0..n`, once round, beginning with `first`.
pub(super) fn round(first: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |step| (first + step) % n)
}

/// The first of the least loaded in the round that begins with `first`. Nobody has less than
/// nothing, so the search ends there.
pub(super) fn least(first: usize, n: usize, load: impl Fn(usize) -> usize) -> usize {
    let mut best = (usize::MAX, first);
    for index in round(first, n) {
        let load = load(index);
        if load < best.0 {
            best = (load, index);
        }
        if load == 0 {
            break;
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_round_names_each_once() {
        assert_eq!(round(2, 4).collect::<Vec<_>>(), [2, 3, 0, 1]);
        assert_eq!(round(0, 0).next(), None);
    }

    #[test]
    fn the_least_loaded_is_found_and_equals_take_turns() {
        let loads = [3, 1, 2, 1];
        let found = [0, 1, 2, 3].map(|first| least(first, 4, |i| loads[i]));
        assert_eq!(found, [1, 1, 3, 3]);
        assert_eq!(least(2, 3, |_| usize::MAX), 2);
    }

    #[test]
    fn the_search_ends_at_the_first_idle_one() {
        let looks = Cell::new(0);
        let load = |index| {
            looks.set(looks.get() + 1);
            [5, 0, 0, 0][index]
        };
        assert_eq!((least(0, 4, load), looks.get()), (1, 2));
    }
}
