//! Remembering: what one shard has to say to the store of remembered entities, and when it says it
//! again. Pure: no clock, no IO.
//!
//! First it loads who is remembered, page by page. Then it tells who is to be remembered or forgotten,
//! many at once while the store is slow. One request is under way at a time; one that fails is made
//! again after a wait that grows. What a page has brought is not asked for again.
//!
//! An entity is either to be remembered or to be forgotten, never both: its life sees to that
//! ([`crate::logic::lives`]).

use otava_actor::{Rng, Time};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Ids in one request.
pub const IDS_MAX: usize = 500;

/// How long to wait after a failure.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// After the first one; each further one doubles it.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// What to ask the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Remember these.
    Add(Vec<Arc<str>>),
    /// Who is remembered, from behind this one on, at most [`IDS_MAX`].
    Load(Option<Arc<str>>),
    /// Forget these.
    Remove(Vec<Arc<str>>),
}

/// What the store said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Nothing, or that it could not.
    Failed,
    /// It has loaded these, and there are more if so said.
    Page(Vec<Arc<str>>, bool),
    /// It has changed what it was told to change.
    Written,
}

/// What follows from an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// These are remembered now.
    Added(Vec<Arc<str>>),
    /// These were remembered before.
    Loaded(Vec<Arc<str>>),
    /// It is said again later, or it was not the answer that is awaited.
    Nothing,
    /// These are forgotten now.
    Removed(Vec<Arc<str>>),
}

/// The memory of one shard.
#[derive(Debug)]
pub struct Remembering {
    retry: Retry,
    /// Whether all pages have come, and behind whom the next one begins.
    loaded: bool,
    behind: Option<Arc<str>>,
    adds: BTreeSet<Arc<str>>,
    removes: BTreeSet<Arc<str>>,
    flight: Option<(u64, Request)>,
    number: u64,
    failures: u32,
    not_before: Time,
    /// The shard leaves: what is to be forgotten is tried once more, nothing else.
    closing: bool,
    rng: Rng,
}

impl Remembering {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(retry: Retry, rng: Rng) -> Self {
        Self {
            retry,
            loaded: false,
            behind: None,
            adds: BTreeSet::new(),
            removes: BTreeSet::new(),
            flight: None,
            number: 0,
            failures: 0,
            not_before: Time::ZERO,
            closing: false,
            rng,
        }
    }

    /// This one is to be remembered.
    pub fn add(&mut self, id: Arc<str>) {
        self.removes.remove(&id);
        self.adds.insert(id);
    }

    /// This one is to be forgotten.
    pub fn remove(&mut self, id: Arc<str>) {
        self.adds.remove(&id);
        self.removes.insert(id);
    }

    /// The shard leaves: only what is to be forgotten still counts.
    pub fn close(&mut self) {
        self.closing = true;
        self.adds.clear();
        self.not_before = Time::ZERO;
        self.flight
            .take_if(|(_, request)| !matches!(request, Request::Remove(_)));
    }

    /// Whether nothing is under way and nothing is to be said.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flight.is_none() && self.adds.is_empty() && self.removes.is_empty()
    }

    /// Whether everybody who is remembered is known.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// What to ask now, and the number with which the answer has to come.
    pub fn poll_request(&mut self, now: Time) -> Option<(u64, Request)> {
        if self.flight.is_some() || now < self.not_before {
            return None;
        }
        let request = if self.closing && self.removes.is_empty() {
            return None;
        } else if self.closing {
            Request::Remove(take(&mut self.removes))
        } else if !self.loaded {
            Request::Load(self.behind.clone())
        } else if !self.adds.is_empty() {
            // First: messages wait for these.
            Request::Add(take(&mut self.adds))
        } else if self.removes.is_empty() {
            return None;
        } else {
            Request::Remove(take(&mut self.removes))
        };
        self.number += 1;
        self.flight = Some((self.number, request.clone()));
        Some((self.number, request))
    }

    /// When to ask next, if nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let wants =
            !self.closing && !self.loaded || !self.adds.is_empty() || !self.removes.is_empty();
        (self.flight.is_none() && wants).then_some(self.not_before)
    }

    /// The store has answered request `number`, or let its time pass.
    pub fn answered(&mut self, now: Time, number: u64, answer: Answer) -> Outcome {
        let awaited = |(of, _): &mut (u64, Request)| *of == number;
        let Some((_, request)) = self.flight.take_if(awaited) else {
            return Outcome::Nothing;
        };
        match (request, answer) {
            (Request::Load(_), Answer::Page(ids, more)) => {
                self.failures = 0;
                // A store that says that there is more, and gives nothing, would be asked for ever.
                self.loaded = !more || ids.is_empty();
                self.behind = ids.last().cloned();
                // These need not be told.
                ids.iter().for_each(|id| {
                    self.adds.remove(id);
                });
                Outcome::Loaded(ids)
            }
            (Request::Add(ids), Answer::Written) => {
                self.failures = 0;
                Outcome::Added(ids)
            }
            (Request::Remove(ids), Answer::Written) => {
                self.failures = 0;
                Outcome::Removed(ids)
            }
            (request, _) => {
                self.wait(now, request);
                Outcome::Nothing
            }
        }
    }

    /// Puts the request back, for later.
    fn wait(&mut self, now: Time, request: Request) {
        if self.closing {
            // It was tried: whoever has the shard next may not wait for this store.
            self.removes.clear();
            return;
        }
        match request {
            Request::Load(_) => {}
            Request::Add(ids) => self.adds.extend(ids),
            Request::Remove(ids) => self.removes.extend(ids),
        }
        let doublings = self.failures.min(30);
        self.failures = self.failures.saturating_add(1);
        let wait = self.retry.min.saturating_mul(1 << doublings);
        let wait = wait.min(self.retry.max);
        let fifth = u64::try_from(wait.as_nanos() / 5).unwrap_or(u64::MAX - 1);
        self.not_before = now + wait + Duration::from_nanos(self.rng.below(fifth + 1));
    }
}

/// The first ones.
fn take(ids: &mut BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
    let mut taken = Vec::new();
    while taken.len() < IDS_MAX
        && let Some(id) = ids.pop_first()
    {
        taken.push(id);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn new() -> Remembering {
        let retry = Retry {
            min: Duration::from_nanos(100),
            max: Duration::from_nanos(1_000),
        };
        Remembering::new(retry, Rng::seeded(1))
    }

    /// Lets the next request fail some times; the last one is not answered.
    fn fail(memory: &mut Remembering, now: &mut Time, times: u32) -> (u64, Request) {
        let mut asked = memory.poll_request(*now).unwrap();
        for _ in 0..times {
            let outcome = memory.answered(*now, asked.0, Answer::Failed);
            assert_eq!(outcome, Outcome::Nothing);
            assert_eq!(memory.poll_request(*now), None, "not at once");
            *now = memory.poll_timeout().unwrap();
            let again = memory.poll_request(*now).unwrap();
            assert_eq!(again.1, asked.1, "the same again");
            asked = again;
        }
        asked
    }

    /// S6: the store fails at each of the five points: the first page, a later one, to remember, to forget,
    /// and to remember one again that was forgotten.
    #[test]
    fn each_point_of_failure_is_tried_again() {
        let (mut memory, mut now) = (new(), Time::ZERO);
        memory.add("c".into());
        memory.add("x".into());
        let (number, request) = fail(&mut memory, &mut now, 3);
        assert_eq!(request, Request::Load(None));
        let page = memory.answered(now, number, Answer::Page(ids(&["a", "c"]), true));
        assert_eq!(page, Outcome::Loaded(ids(&["a", "c"])));
        let (number, request) = fail(&mut memory, &mut now, 3);
        assert_eq!(request, Request::Load(Some("c".into())));
        memory.answered(now, number, Answer::Page(ids(&["d"]), false));
        assert!(memory.is_loaded());
        let (number, request) = fail(&mut memory, &mut now, 3);
        assert_eq!(request, Request::Add(ids(&["x"])), "the others are known");
        let added = memory.answered(now, number, Answer::Written);
        assert_eq!(added, Outcome::Added(ids(&["x"])));
        memory.remove("x".into());
        let (number, request) = fail(&mut memory, &mut now, 3);
        assert_eq!(request, Request::Remove(ids(&["x"])));
        memory.answered(now, number, Answer::Written);
        memory.add("x".into());
        let (number, _) = fail(&mut memory, &mut now, 3);
        memory.answered(now, number, Answer::Written);
        assert!(memory.is_idle() && memory.poll_timeout().is_none());
        // An answer that comes late is none.
        let late = memory.answered(now, number, Answer::Written);
        assert_eq!(late, Outcome::Nothing);
    }

    #[test]
    fn waits_grow_to_their_limit() {
        let (mut memory, mut now) = (new(), Time::ZERO);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let (number, _) = memory.poll_request(now).unwrap();
            memory.answered(now, number, Answer::Failed);
            let next = memory.poll_timeout().unwrap();
            waits.push(next.saturating_since(now).as_nanos());
            now = next;
        }
        for (wait, least) in waits.iter().zip([100, 200, 400, 800, 1_000, 1_000, 1_000]) {
            assert!((least..=least * 6 / 5).contains(wait), "{waits:?}");
        }
    }

    #[test]
    fn what_comes_meanwhile_goes_in_one_request() {
        let mut memory = new();
        let (number, _) = memory.poll_request(Time::ZERO).unwrap();
        memory.answered(Time::ZERO, number, Answer::Page(Vec::new(), false));
        memory.add("a".into());
        let (first, _) = memory.poll_request(Time::ZERO).unwrap();
        for n in 0..IDS_MAX + 1 {
            memory.add(format!("{n:04}").into());
        }
        assert_eq!(memory.poll_request(Time::ZERO), None);
        memory.answered(Time::ZERO, first, Answer::Written);
        let (second, request) = memory.poll_request(Time::ZERO).unwrap();
        assert!(matches!(request, Request::Add(ids) if ids.len() == IDS_MAX));
        memory.answered(Time::ZERO, second, Answer::Written);
        let (_, request) = memory.poll_request(Time::ZERO).unwrap();
        assert_eq!(request, Request::Add(ids(&["0500"])));
    }

    #[test]
    fn a_shard_that_leaves_tries_once_to_forget() {
        let mut memory = new();
        memory.add("a".into());
        memory.remove("b".into());
        memory.close();
        let (number, request) = memory.poll_request(Time::ZERO).unwrap();
        assert_eq!(request, Request::Remove(ids(&["b"])));
        assert!(!memory.is_idle());
        memory.answered(Time::ZERO, number, Answer::Failed);
        assert!(memory.is_idle());
        assert_eq!(memory.poll_request(Time::ZERO), None);
    }

    #[test]
    fn a_store_that_never_ends_is_not_asked_for_ever() {
        let mut memory = new();
        let (number, _) = memory.poll_request(Time::ZERO).unwrap();
        memory.answered(Time::ZERO, number, Answer::Page(Vec::new(), true));
        assert!(memory.is_loaded());
    }
}
