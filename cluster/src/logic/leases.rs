//! Leases: who holds what until when, and in which term. Pure: the time comes in.

use otava_actor::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// The answer to an attempt to take a lease.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Grant {
    /// The owner that asked holds it, until the time that it asked for is over.
    Held {
        /// Grows with each change of the owner, so that whatever the lease protects can refuse those
        /// who held it before.
        term: u64,
    },
    /// Somebody else holds it.
    Taken {
        /// Who.
        by: String,
    },
}

#[derive(Clone, Debug)]
struct Held {
    owner: String,
    until: Time,
    term: u64,
}

/// Leases by their names.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    held: BTreeMap<String, Held>,
}

impl Leases {
    /// Takes the lease `name` for `owner` until `length` from now, or renews it.
    pub fn acquire(&mut self, now: Time, name: &str, owner: &str, length: Duration) -> Grant {
        let until = now + length;
        match self.held.get_mut(name) {
            Some(held) if held.owner == owner && now < held.until => {
                held.until = until;
                Grant::Held { term: held.term }
            }
            Some(held) if now < held.until => Grant::Taken {
                by: held.owner.clone(),
            },
            before => {
                let term = before.map_or(0, |held| held.term).saturating_add(1);
                let owner = owner.to_owned();
                let held = Held { owner, until, term };
                self.held.insert(name.to_owned(), held);
                Grant::Held { term }
            }
        }
    }

    /// Gives it back, if `owner` holds it. The next one has a later term all the same.
    pub fn release(&mut self, name: &str, owner: &str) {
        if let Some(held) = self.held.get_mut(name)
            && held.owner == owner
        {
            held.until = Time::ZERO;
        }
    }

    /// Who holds the lease `name` now.
    #[must_use]
    pub fn holder(&self, now: Time, name: &str) -> Option<String> {
        let held = self.held.get(name).filter(|held| now < held.until);
        held.map(|held| held.owner.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn one_owner_at_a_time_and_a_term_for_each() {
        let mut leases = Leases::default();
        let ten = Duration::from_secs(10);
        let mut ask = |second, owner: &str| leases.acquire(at(second), "x", owner, ten);
        assert_eq!(ask(1, "a"), Grant::Held { term: 1 });
        assert_eq!(ask(5, "b"), Grant::Taken { by: "a".into() });
        assert_eq!(ask(9, "a"), Grant::Held { term: 1 });
        assert_eq!(ask(18, "b"), Grant::Taken { by: "a".into() });
        assert_eq!(ask(19, "b"), Grant::Held { term: 2 });
        assert_eq!(
            ask(30, "b"),
            Grant::Held { term: 3 },
            "it was free in between"
        );
        leases.release("x", "a");
        assert_eq!(leases.holder(at(31), "x"), Some("b".into()));
        leases.release("x", "b");
        assert_eq!(leases.holder(at(31), "x"), None);
        assert_eq!(
            leases.acquire(at(31), "x", "a", ten),
            Grant::Held { term: 4 }
        );
        assert_eq!(
            leases.acquire(at(31), "y", "a", ten),
            Grant::Held { term: 1 }
        );
    }
}
