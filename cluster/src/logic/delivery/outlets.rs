//! Outlets: messages for many consumers, each known by a key, in order for each key. Pure.
//!
//! Each key has a source of its own as long as something is under way for it, and a while longer: a
//! source that is idle is given up when its place is needed for another key. What finds no place
//! waits, and messages of a key that waits wait behind it.

use super::source::{self, BadReport, Source, SourceSettings};
use super::{Chunk, Probe, Report};
use otava_actor::{Rng, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Settings of outlets.
#[derive(Clone, Copy, Debug)]
pub struct OutletsSettings {
    /// Those of the sources.
    pub source: SourceSettings,
    /// How many keys may have a source.
    pub keys_max: usize,
}

/// A message for the consumer of a key.
#[derive(Debug)]
pub struct Letter<T> {
    /// The key.
    pub key: Arc<str>,
    /// Its number among all.
    pub number: u64,
    /// What is delivered.
    pub bytes: Arc<[u8]>,
    /// Whatever belongs to it.
    pub token: T,
}

/// What outlets want done.
#[derive(Debug)]
pub enum Output<T> {
    /// Send it to the consumer of the key; it may be lost.
    Chunk(Arc<str>, Chunk),
    /// A message was handled.
    Confirmed(u64, T),
    /// Send it to the consumer of the key; it may be lost.
    Probe(Arc<str>, Probe),
}

impl<T> Output<T> {
    fn of(key: Arc<str>, output: source::Output<(u64, T)>) -> Self {
        match output {
            source::Output::Chunk(chunk) => Self::Chunk(key, chunk),
            source::Output::Probe(probe) => Self::Probe(key, probe),
            source::Output::Confirmed { token, .. } => Self::Confirmed(token.0, token.1),
        }
    }
}

/// The sources by key.
#[derive(Debug)]
pub struct Outlets<T> {
    settings: OutletsSettings,
    /// Draws the series.
    rng: Rng,
    series: BTreeMap<Arc<str>, u64>,
    outlets: BTreeMap<u64, Outlet<T>>,
    waiting: VecDeque<Letter<T>>,
    /// How many wait of each key.
    waiting_of: BTreeMap<Arc<str>, usize>,
    /// What those that were given up had still to say.
    left: VecDeque<Output<T>>,
    /// Series that have something to say.
    touched: BTreeSet<u64>,
    timers: BTreeSet<(Time, u64)>,
    /// Series without messages, those that were used least lately first.
    idle: BTreeSet<(u64, u64)>,
    uses: u64,
}

#[derive(Debug)]
struct Outlet<T> {
    key: Arc<str>,
    /// Beside each message its number among all.
    source: Source<(u64, T)>,
    timer: Option<Time>,
    /// Its place among those that are idle.
    idle_since: Option<u64>,
}

impl<T> Outlets<T> {
    /// Nothing is under way.
    #[must_use]
    pub fn new(settings: OutletsSettings, rng: Rng) -> Self {
        Self {
            settings,
            rng,
            series: BTreeMap::new(),
            outlets: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_of: BTreeMap::new(),
            left: VecDeque::new(),
            touched: BTreeSet::new(),
            timers: BTreeSet::new(),
            idle: BTreeSet::new(),
            uses: 0,
        }
    }

    /// A message is to be delivered.
    pub fn push(&mut self, now: Time, letter: Letter<T>) {
        let queues = self.waiting_of.contains_key(&letter.key);
        let letter = if queues {
            letter
        } else {
            match self.take(now, letter) {
                Ok(()) => return,
                Err(letter) => letter,
            }
        };
        *self.waiting_of.entry(letter.key.clone()).or_default() += 1;
        self.waiting.push_back(letter);
    }

    /// What a consumer says.
    ///
    /// # Errors
    /// [`BadReport`]; it changes nothing.
    pub fn handle(&mut self, now: Time, report: &Report) -> Result<(), BadReport> {
        let series = report.session.series;
        if let Some(outlet) = self.outlets.get_mut(&series) {
            outlet.source.handle(now, report)?;
            self.touch(series);
            self.admit(now);
        }
        Ok(())
    }

    /// Asks consumers where they are, if it is time to.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((at, series)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, series));
            if let Some(outlet) = self.outlets.get_mut(&series) {
                outlet.timer = None;
                outlet.source.handle_timeout(now);
                self.touch(series);
            }
        }
    }

    /// When [`Outlets::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        if let Some(output) = self.left.pop_front() {
            return Some(output);
        }
        while let Some(series) = self.touched.first().copied() {
            let outlet = self.outlets.get_mut(&series);
            let key = outlet.as_ref().map(|outlet| outlet.key.clone());
            let output = outlet.and_then(|outlet| outlet.source.poll_output());
            let (Some(key), Some(output)) = (key, output) else {
                self.touched.remove(&series);
                continue;
            };
            return Some(Output::of(key, output));
        }
        None
    }

    /// How many keys have a source.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outlets.len()
    }

    /// Whether no key has a source.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outlets.is_empty()
    }

    /// Lets those that wait in, in their order, as far as there are places.
    fn admit(&mut self, now: Time) {
        while let Some(letter) = self.waiting.pop_front() {
            let key = letter.key.clone();
            if let Err(letter) = self.take(now, letter) {
                self.waiting.push_front(letter);
                return;
            }
            if let Some(left) = self.waiting_of.get_mut(&key) {
                *left -= 1;
                if *left == 0 {
                    self.waiting_of.remove(&key);
                }
            }
        }
    }

    /// Gives a message to the source of its key, or back if there is no place for one.
    fn take(&mut self, now: Time, letter: Letter<T>) -> Result<(), Letter<T>> {
        let series = match self.series.get(&letter.key).copied() {
            Some(series) => series,
            None if self.has_place() => self.begin(now, letter.key.clone()),
            None => return Err(letter),
        };
        if let Some(outlet) = self.outlets.get_mut(&series) {
            let Letter {
                number,
                bytes,
                token,
                ..
            } = letter;
            outlet.source.push(now, bytes, (number, token));
            self.touch(series);
        }
        Ok(())
    }

    /// Whether one more key can have a source; gives an idle one up for it.
    fn has_place(&mut self) -> bool {
        if self.outlets.len() < self.settings.keys_max.max(1) {
            return true;
        }
        let Some((_, series)) = self.idle.pop_first() else {
            return false;
        };
        if let Some(mut outlet) = self.outlets.remove(&series) {
            self.series.remove(&outlet.key);
            // Its last confirmations may not have been taken yet.
            while let Some(output) = outlet.source.poll_output() {
                self.left.push_back(Output::of(outlet.key.clone(), output));
            }
            if let Some(at) = outlet.timer {
                self.timers.remove(&(at, series));
            }
        }
        true
    }

    fn begin(&mut self, now: Time, key: Arc<str>) -> u64 {
        let mut series = self.rng.next_u64();
        while self.outlets.contains_key(&series) {
            series = self.rng.next_u64();
        }
        let mut source = Source::new(self.settings.source, series, 1, 0);
        source.open(now);
        self.series.insert(key.clone(), series);
        let outlet = Outlet {
            key,
            source,
            timer: None,
            idle_since: None,
        };
        self.outlets.insert(series, outlet);
        series
    }

    /// Keeps what is said of a source true after it was changed.
    fn touch(&mut self, series: u64) {
        let Some(outlet) = self.outlets.get_mut(&series) else {
            return;
        };
        self.touched.insert(series);
        let timer = outlet.source.poll_timeout();
        if timer != outlet.timer {
            if let Some(before) = outlet.timer {
                self.timers.remove(&(before, series));
            }
            self.timers.extend(timer.map(|at| (at, series)));
            outlet.timer = timer;
        }
        match (outlet.source.is_empty(), outlet.idle_since) {
            (true, None) => {
                self.uses += 1;
                outlet.idle_since = Some(self.uses);
                self.idle.insert((self.uses, series));
            }
            (false, Some(since)) => {
                outlet.idle_since = None;
                self.idle.remove(&(since, series));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::delivery::Session;
    use std::time::Duration;

    fn outlets(keys_max: usize) -> Outlets<()> {
        let source = SourceSettings {
            chunk_bytes: 10,
            resend_min: Duration::from_millis(100),
            resend_max: Duration::from_secs(1),
        };
        Outlets::new(OutletsSettings { source, keys_max }, Rng::seeded(1))
    }

    fn letter(key: &str, number: u64) -> Letter<()> {
        Letter {
            key: key.into(),
            number,
            bytes: vec![1].into(),
            token: (),
        }
    }

    /// Who is asked, who is sent what, and what is done.
    fn said(outlets: &mut Outlets<()>) -> Vec<String> {
        let outputs = std::iter::from_fn(|| outlets.poll_output());
        let mut said: Vec<_> = outputs
            .map(|output| match output {
                Output::Chunk(key, chunk) => format!("{key} {}", chunk.seq),
                Output::Confirmed(number, ()) => format!("done {number}"),
                Output::Probe(key, _) => format!("{key}?"),
            })
            .collect();
        said.sort();
        said
    }

    fn report(outlets: &mut Outlets<()>, key: &str, confirmed: u64) {
        let report = Report {
            session: Session {
                series: outlets.series[key],
                claim: 1,
                number: 1,
            },
            consumer: 1,
            nonce: 0,
            confirmed,
            received: confirmed,
            missing_to: 0,
            granted: confirmed + 5,
        };
        outlets.handle(Time::ZERO, &report).unwrap();
    }

    #[test]
    fn keys_take_turns_when_there_are_many() {
        let mut all = outlets(2);
        for (key, number) in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("c", 5), ("d", 6)] {
            all.push(Time::ZERO, letter(key, number));
        }
        assert_eq!(said(&mut all), ["a?", "b?"]);
        report(&mut all, "a", 0);
        assert_eq!(said(&mut all), ["a 1", "a 2"]);
        // Of `a` there is one more under way.
        report(&mut all, "a", 1);
        assert_eq!(said(&mut all), ["done 1"]);
        // Its place is for who waits longest.
        report(&mut all, "a", 2);
        assert_eq!(said(&mut all), ["c?", "done 4"]);
        all.push(Time::ZERO, letter("a", 7));
        assert_eq!((said(&mut all), all.len()), (Vec::new(), 2));
        report(&mut all, "c", 0);
        assert_eq!(said(&mut all), ["c 1", "c 2"]);
        report(&mut all, "c", 2);
        assert_eq!(said(&mut all), ["d?", "done 3", "done 5"]);
        report(&mut all, "b", 0);
        report(&mut all, "b", 1);
        assert_eq!(said(&mut all), ["a?", "b 1", "done 2"]);
        report(&mut all, "a", 0);
        report(&mut all, "d", 0);
        report(&mut all, "a", 1);
        report(&mut all, "d", 1);
        assert_eq!(said(&mut all), ["a 1", "d 1", "done 6", "done 7"]);
        assert!(all.waiting.is_empty() && all.waiting_of.is_empty());
        assert_eq!(
            (all.poll_timeout(), all.idle.len(), all.len()),
            (None, 2, 2)
        );
    }

    #[test]
    fn who_is_silent_is_asked() {
        let mut all = outlets(10);
        all.push(Time::ZERO, letter("a", 1));
        all.push(Time::ZERO, letter("b", 2));
        assert_eq!(said(&mut all), ["a?", "b?"]);
        report(&mut all, "a", 0);
        report(&mut all, "a", 1);
        assert_eq!(said(&mut all), ["a 1", "done 1"]);
        let next = all.poll_timeout().unwrap();
        all.handle_timeout(next);
        assert_eq!(said(&mut all), ["b?"]);
        assert!(all.poll_timeout().unwrap() > next);
    }
}
