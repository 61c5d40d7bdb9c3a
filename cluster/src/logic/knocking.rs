//! Knocking: whom a node asks to be let in, and when it forms a cluster itself. Pure.
//!
//! A node that starts asks some addresses. Whoever is a member there lets it in, or refuses with the
//! reason. The danger is the other case: nobody lets it in. If two nodes then form a cluster each,
//! there are two, and they never merge. So *who* may form one must be settled before anybody asks,
//! and *when* must not be before it is sure that none lives. Two rules, by where addresses come from:
//!
//! 1. **A list that is the same everywhere.** The node whose own address is the first on it forms a
//!    cluster, after having asked all others for a while. A first seed that was restarted must not:
//!    either another seed lets it in, or the leader of the cluster that lives calls it, since
//!    leaders ping all seeds that are no members. Where nothing is heard for `form_after` though a
//!    cluster lives (the node is cut off from all of it), a second one is formed: no rule without a
//!    quorum can tell that from the first start of all.
//! 2. **Addresses that are found** (DNS, a file). Nobody knows whether the others find the same, or
//!    will a second later. The node with the lowest address forms a cluster once it has found the
//!    same for `stable_for`, at least `contacts_min` with its own, and *all* others have answered
//!    lately that they are in no cluster and take the same address for the lowest. Two nodes that
//!    both form one have then found sets that share nobody who answered.
//!
//! Tempting and wrong: forming after a longer silence (a slow start of the network makes two);
//! taking the silence of an address as "nobody is there" in the second rule.

use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Members that have called and are asked besides those on the list.
const CALLERS_MAX: usize = 16;
/// Addresses that are asked at most.
pub const CONTACTS_MAX: usize = 1_000;

/// Who forms a cluster if none lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Founder {
    /// The first of the seeds, after having asked the others for so long.
    FirstSeed {
        /// How long.
        form_after: Duration,
    },
    /// The lowest of the addresses that were found.
    Lowest {
        /// How many there must be, this node included.
        contacts_min: usize,
        /// For how long the same must have been found.
        stable_for: Duration,
    },
}

/// Asks around until the node is in.
#[derive(Clone, Debug)]
pub struct Knocking {
    me: SocketAddr,
    founder: Founder,
    retry: Duration,
    /// Who may form a cluster: the first seed, or the lowest that was found.
    candidate: Option<SocketAddr>,
    /// Whom to ask, this node not included.
    contacts: Vec<SocketAddr>,
    /// Members that called.
    callers: BTreeSet<SocketAddr>,
    /// Who said that it is in no cluster, when, and whom it holds for the candidate.
    outside: BTreeMap<SocketAddr, (Time, Option<SocketAddr>)>,
    /// Since when the contacts are these.
    since: Time,
    /// Before this no cluster is formed, since one was heard of.
    not_before: Time,
    next: Time,
    asked: bool,
    /// There are no seeds.
    alone: bool,
}

impl Knocking {
    /// Starts asking at `now`. With [`Founder::FirstSeed`] `contacts` are the seeds, and without
    /// any a cluster is formed at once: nobody else can know of this node then. A node that is the
    /// only seed may be known to others, and waits whether one calls.
    #[must_use]
    pub fn start(
        me: &NodeId,
        founder: Founder,
        contacts: &[SocketAddr],
        now: Time,
        retry: Duration,
    ) -> Self {
        let mut knocking = Self {
            me: me.addr,
            founder,
            retry,
            candidate: None,
            contacts: Vec::new(),
            callers: BTreeSet::new(),
            outside: BTreeMap::new(),
            since: now,
            not_before: now,
            next: now,
            asked: false,
            alone: contacts.is_empty(),
        };
        match founder {
            Founder::FirstSeed { .. } => {
                knocking.candidate = Some(contacts.first().copied().unwrap_or(me.addr));
                knocking.ask_these(contacts.iter().copied());
            }
            Founder::Lowest { .. } => knocking.found(now, contacts),
        }
        knocking.begin(now);
        knocking
    }

    /// Begins to ask at `now`: nothing that would have been due before counts.
    pub fn begin(&mut self, now: Time) {
        self.next = now;
        if let Founder::FirstSeed { form_after } = self.founder {
            let wait = if self.alone {
                Duration::ZERO
            } else {
                form_after
            };
            self.not_before = now + wait;
        }
    }

    /// These addresses were found now, this node's own among them or not.
    pub fn found(&mut self, now: Time, addrs: &[SocketAddr]) {
        if matches!(self.founder, Founder::FirstSeed { .. }) {
            return;
        }
        let sorted: BTreeSet<SocketAddr> = addrs.iter().copied().take(CONTACTS_MAX).collect();
        let candidate = sorted.first().copied();
        let before = (self.candidate, self.contacts.clone());
        self.candidate = candidate;
        self.ask_these(sorted.into_iter());
        if before != (self.candidate, self.contacts.clone()) {
            self.since = now;
            let contacts = &self.contacts;
            self.outside.retain(|addr, _| contacts.contains(addr));
        }
    }

    fn ask_these(&mut self, addrs: impl Iterator<Item = SocketAddr>) {
        self.contacts.clear();
        for addr in addrs {
            if addr != self.me && !self.contacts.contains(&addr) {
                self.contacts.push(addr);
            }
        }
    }

    /// The node at `from` is in no cluster either, and holds `candidate` for the one to form it.
    pub fn outside(&mut self, now: Time, from: SocketAddr, candidate: Option<SocketAddr>) {
        if self.contacts.contains(&from) {
            self.outside.insert(from, (now, candidate));
        }
    }

    /// A member at `from` was heard of: there is a cluster, so none is formed for a while, and that
    /// member is asked too.
    pub fn called(&mut self, now: Time, from: SocketAddr) {
        if self.callers.len() < CALLERS_MAX && !self.contacts.contains(&from) {
            self.callers.insert(from);
        }
        self.put_off(now);
    }

    /// Somebody who is in a cluster cannot let this node in at present.
    pub fn put_off(&mut self, now: Time) {
        let wait = match self.founder {
            Founder::FirstSeed { form_after } => form_after,
            Founder::Lowest { stable_for, .. } => stable_for,
        };
        self.not_before = self.not_before.max(now + wait);
    }

    /// Whom this node holds for the one that may form a cluster.
    #[must_use]
    pub fn candidate(&self) -> Option<SocketAddr> {
        self.candidate
    }

    /// Whom to ask, if it is time to ask (again).
    pub fn due(&mut self, now: Time) -> Vec<SocketAddr> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + self.retry;
        let contacts = self.contacts.iter().chain(&self.callers);
        let contacts: Vec<SocketAddr> = contacts.copied().collect();
        self.asked |= !contacts.is_empty();
        contacts
    }

    /// Whether somebody was asked, who may answer yet.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.asked
    }

    /// Whether it is time to form a cluster.
    #[must_use]
    pub fn forms(&self, now: Time) -> bool {
        if self.candidate != Some(self.me) || now < self.not_before {
            return false;
        }
        match self.founder {
            Founder::FirstSeed { .. } => true,
            Founder::Lowest {
                contacts_min,
                stable_for,
            } => {
                let lately = |at: Time| now.saturating_since(at) <= self.retry * 3;
                let agrees = |addr: &SocketAddr| {
                    let said = self.outside.get(addr);
                    said.is_some_and(|(at, candidate)| lately(*at) && *candidate == Some(self.me))
                };
                self.contacts.len() + 1 >= contacts_min
                    && now >= self.since + stable_for
                    && self.contacts.iter().all(agrees)
            }
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn timeout(&self) -> Time {
        let mine = self.candidate == Some(self.me);
        match self.founder {
            Founder::FirstSeed { .. } if self.contacts.is_empty() && self.callers.is_empty() => {
                if mine {
                    self.not_before
                } else {
                    Time::MAX
                }
            }
            Founder::FirstSeed { .. } if mine => self.not_before.min(self.next),
            _ => self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(500);
    const FORM: Duration = Duration::from_secs(2);
    const STABLE: Duration = Duration::from_secs(5);

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn start(port: u16, founder: Founder, contacts: &[u16]) -> Knocking {
        let contacts: Vec<_> = contacts.iter().map(|port| addr(*port)).collect();
        let me = NodeId::new("n", addr(port), 1);
        Knocking::start(&me, founder, &contacts, Time::ZERO, RETRY)
    }

    fn seeds(port: u16, seeds: &[u16]) -> Knocking {
        start(port, Founder::FirstSeed { form_after: FORM }, seeds)
    }

    fn finding(port: u16, contacts_min: usize, found: &[u16]) -> Knocking {
        let founder = Founder::Lowest {
            contacts_min,
            stable_for: STABLE,
        };
        start(port, founder, found)
    }

    /// C1: only the first on the list forms a cluster, after having asked the others.
    #[test]
    fn the_first_seed_asks_before_it_forms() {
        let mut first = seeds(1, &[1, 2, 3]);
        assert_eq!(first.due(Time::ZERO), [addr(2), addr(3)]);
        assert!(first.due(Time::ZERO).is_empty());
        assert_eq!(first.timeout(), Time::ZERO + RETRY);
        assert!(!first.forms(Time::ZERO + RETRY) && first.forms(Time::ZERO + FORM));
        let mut second = seeds(2, &[1, 2, 1]);
        assert_eq!(second.due(Time::ZERO), [addr(1)]);
        assert!(!second.forms(Time::MAX));
    }

    #[test]
    fn a_node_without_seeds_forms_at_once_and_an_only_seed_waits() {
        assert!(seeds(1, &[]).forms(Time::ZERO));
        assert_eq!(seeds(1, &[]).timeout(), Time::ZERO);
        assert!(!seeds(1, &[1]).forms(Time::ZERO) && seeds(1, &[1]).forms(Time::ZERO + FORM));
        assert_eq!(seeds(1, &[1]).timeout(), Time::ZERO + FORM);
    }

    /// C1: a first seed that is started again is called by the cluster, asks the caller and waits.
    #[test]
    fn a_first_seed_that_is_called_does_not_form() {
        let mut first = seeds(1, &[1, 2]);
        first.called(at(1_900), addr(7));
        assert!(!first.forms(at(2_000)) && first.forms(at(3_900)));
        assert_eq!(first.due(at(2_000)), [addr(2), addr(7)]);
        first.put_off(at(3_000));
        assert!(!first.forms(at(3_900)));
        for port in 10..99 {
            first.called(at(3_000), addr(port));
        }
        assert_eq!(first.due(at(3_000)).len(), 1 + CALLERS_MAX);
    }

    /// C1: without a fixed first seed the lowest forms, when all others have said the same.
    #[test]
    fn the_lowest_forms_when_all_agree() {
        let mut lowest = finding(1, 3, &[3, 1, 2]);
        for millis in (0..=5_000).step_by(500) {
            lowest.outside(at(millis), addr(2), Some(addr(1)));
        }
        assert!(!lowest.forms(at(5_000)), "3 has not answered");
        lowest.outside(at(5_000), addr(3), Some(addr(2)));
        assert!(!lowest.forms(at(5_000)), "3 takes 2 for the lowest");
        lowest.outside(at(5_000), addr(3), Some(addr(1)));
        assert!(lowest.forms(at(5_000)) && !lowest.forms(at(4_999)));
        assert!(!lowest.forms(at(7_000)), "nobody has answered lately");
        let mut other = finding(2, 3, &[1, 2, 3]);
        other.outside(at(5_000), addr(1), Some(addr(1)));
        assert!(!other.forms(Time::MAX));
        assert_eq!(other.candidate(), Some(addr(1)));
    }

    #[test]
    fn what_is_found_must_be_enough_and_stable() {
        let mut alone = finding(1, 2, &[1]);
        assert!(!alone.forms(Time::MAX), "one is not enough");
        alone.found(at(9_000), &[addr(1), addr(2)]);
        alone.outside(at(13_900), addr(2), Some(addr(1)));
        assert!(!alone.forms(at(13_900)) && alone.forms(at(14_000)));
        alone.found(at(14_000), &[addr(2), addr(1)]);
        assert!(alone.forms(at(14_000)), "the same again");
        alone.found(at(14_000), &[addr(2), addr(1), addr(3)]);
        assert!(!alone.forms(at(15_000)), "another picture");
        assert!(finding(1, 1, &[1]).forms(at(5_000)));
        assert!(!finding(1, 1, &[2]).forms(Time::MAX), "not found itself");
        assert!(!finding(1, 1, &[]).forms(Time::MAX));
    }
}
