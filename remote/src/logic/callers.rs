//! Callers: who is let in while others call, so that nobody fills all places.
//!
//! A caller holds a place from its first packet until its connection is taken. Where a packet says
//! that it comes from costs nothing to forge; so places that are given for that alone are few, and
//! beyond them a caller has to show that it hears the answer. An address that is proved may hold
//! a part of all places, and no more.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// How many places there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Places {
    /// In all.
    pub(crate) all: usize,
    /// Of these, for callers that have not proved where they are.
    pub(crate) unproved: usize,
    /// For one address.
    pub(crate) of_address: usize,
}

impl Places {
    /// For one address whose callers have not proved that they are there.
    fn unproved_of_address(self) -> usize {
        self.unproved.min(self.of_address / 2)
    }
}

/// What becomes of a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Admission {
    /// It has a place, until [`Callers::leaves`].
    Admitted,
    /// It must first prove where it is.
    MustProve,
    /// It has to come back later.
    Refused,
}

/// The callers that have a place.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Callers {
    /// Judges a caller. `may_prove`: it can be asked to, and has not done so yet.
    pub(crate) fn comes(&mut self, from: IpAddr, may_prove: bool, places: Places) -> Admission {
        let address = household(from);
        let of_address = self.by_address.get(&address).copied().unwrap_or(0);
        let crowded = self.all >= places.unproved || of_address >= places.unproved_of_address();
        if self.all >= places.all {
            Admission::Refused
        } else if may_prove && crowded {
            Admission::MustProve
        } else if of_address >= places.of_address {
            Admission::Refused
        } else {
            self.all += 1;
            self.by_address.insert(address, of_address + 1);
            Admission::Admitted
        }
    }

    /// A caller that was admitted needs its place no more.
    pub(crate) fn leaves(&mut self, from: IpAddr) {
        let address = household(from);
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            self.all -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Who has one IPv6 address has the 2^64 beside it.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_actor::Rng;

    const PLACES: Places = Places {
        all: 8,
        unproved: 4,
        of_address: 6,
    };

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    /// X8: past a threshold callers must prove where they are, in all and for each address.
    #[test]
    fn past_a_threshold_callers_must_prove_where_they_are() {
        let mut callers = Callers::default();
        for _ in 0..3 {
            assert_eq!(callers.comes(ip(1), true, PLACES), Admission::Admitted);
        }
        // Forged senders have filled the part of this address; who is really there gets in.
        assert_eq!(callers.comes(ip(1), true, PLACES), Admission::MustProve);
        assert_eq!(callers.comes(ip(1), false, PLACES), Admission::Admitted);
        // And now the part of all addresses.
        assert_eq!(callers.comes(ip(2), true, PLACES), Admission::MustProve);
        assert_eq!(callers.comes(ip(2), false, PLACES), Admission::Admitted);
    }

    /// X8: one address never has all places.
    #[test]
    fn no_address_takes_all_places() {
        let mut callers = Callers::default();
        for n in 0..20 {
            let expected = match n < PLACES.of_address {
                true => Admission::Admitted,
                false => Admission::Refused,
            };
            assert_eq!(callers.comes(ip(1), false, PLACES), expected);
        }
        for _ in 0..2 {
            assert_eq!(callers.comes(ip(2), false, PLACES), Admission::Admitted);
        }
        assert_eq!(callers.comes(ip(3), false, PLACES), Admission::Refused);
        callers.leaves(ip(1));
        assert_eq!(callers.comes(ip(3), false, PLACES), Admission::Admitted);
        callers.leaves(ip(77));
        assert_eq!(callers.all, 8);
        let near: IpAddr = "2001:db8::1".parse().unwrap();
        let nearby: IpAddr = "2001:db8::2:0:0:9".parse().unwrap();
        assert_eq!(household(near), household(nearby));
        assert_eq!(household("::ffff:10.0.0.1".parse().unwrap()), ip(1));
    }

    #[test]
    fn places_are_given_back() {
        let (mut callers, mut rng) = (Callers::default(), Rng::seeded(1));
        let mut inside = Vec::new();
        for _ in 0..10_000 {
            let from = ip(rng.below(4) as u8);
            if rng.below(2) == 0 {
                let admission = callers.comes(from, rng.below(2) == 0, PLACES);
                inside.extend((admission == Admission::Admitted).then_some(from));
            } else if !inside.is_empty() {
                let place = rng.below(inside.len() as u64) as usize;
                callers.leaves(inside.swap_remove(place));
            }
            assert_eq!(callers.all, inside.len());
            assert!(callers.all <= PLACES.all);
        }
        inside.drain(..).for_each(|from| callers.leaves(from));
        assert!(callers.all == 0 && callers.by_address.is_empty());
    }
}
