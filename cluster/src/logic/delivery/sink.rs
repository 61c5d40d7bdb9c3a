//! Sink: what a consumer has received of one series, put together and handed over one message at a time,
//! in order. Pure.

use super::{Chunk, Probe, Report, Session};
use otava_actor::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Settings of a sink.
#[derive(Clone, Copy, Debug)]
pub struct SinkSettings {
    /// How many chunks may be under way or wait, beside those of a message that is being put together.
    pub window: u64,
    /// The largest message.
    pub message_bytes_max: usize,
    /// How many bytes may wait; what would be more is taken for lost.
    pub buffer_bytes_max: usize,
    /// The pause before a message that was not handled is handed again.
    pub retry_after: Duration,
}

/// What a sink wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Nothing of this session is taken any more.
    Broken(Breach),
    /// Give it to the handler, and answer with [`Sink::confirm`] or [`Sink::give_back`].
    Hand {
        /// The number of the message.
        number: u64,
        /// What was delivered.
        bytes: Arc<[u8]>,
    },
    /// Send it to the source; it may be lost.
    Report(Report),
}

/// What a source has done that it must not do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Breach {
    /// A chunk without bytes.
    #[error("chunk {0} is empty")]
    Empty(u64),
    /// A message that begins before the one before has ended, or that goes on without a beginning.
    #[error("chunk {0} does not fit to the one before")]
    OutOfPlace(u64),
    /// A message that is larger than this sink takes.
    #[error("the message with chunk {seq} has more than {bytes_max} bytes")]
    TooLarge {
        /// One of its chunks.
        seq: u64,
        /// The limit.
        bytes_max: usize,
    },
}

/// One end of a delivery: the one that receives.
#[derive(Debug)]
pub struct Sink {
    settings: SinkSettings,
    consumer: u64,
    session: Session,
    /// All up to here were handled, by this consumer or another.
    confirmed: u64,
    /// All up to here have arrived.
    received: u64,
    granted: u64,
    early: BTreeMap<u64, Chunk>,
    /// The beginning of a message.
    partial: Option<Vec<u8>>,
    /// Whole messages, the first of which the handler may have.
    ready: VecDeque<Whole>,
    handed: Handed,
    broken: bool,
    /// What the source was told last that was confirmed.
    told: u64,
    /// The place of the last gap that was reported.
    gap: Option<u64>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Whole {
    number: u64,
    chunks: u64,
    bytes: Arc<[u8]>,
}

/// What the handler has of the first message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Handed {
    No,
    Again(Time),
    Yes,
}

impl Sink {
    /// A sink of `consumer` that takes up the session of `probe`, and answers it.
    #[must_use]
    pub fn new(settings: SinkSettings, consumer: u64, probe: &Probe) -> Self {
        let before = probe.start.saturating_sub(1);
        let mut sink = Self {
            settings,
            consumer,
            session: probe.session,
            confirmed: before,
            received: before,
            granted: before,
            early: BTreeMap::new(),
            partial: None,
            ready: VecDeque::new(),
            handed: Handed::No,
            broken: false,
            told: before,
            gap: None,
            outputs: VecDeque::new(),
        };
        sink.probe(probe);
        sink
    }

    /// The source asks; `false` if it is one from before.
    pub fn probe(&mut self, probe: &Probe) -> bool {
        if probe.session.series != self.session.series || probe.session < self.session {
            return false;
        }
        if probe.session > self.session {
            self.session = probe.session;
            self.broken = false;
            self.gap = None;
        }
        if self.broken {
            return true;
        }
        self.skip_to(probe.start);
        let missing_to = if probe.sent > self.received {
            let up_to = self.early.keys().next().map(|seq| seq - 1);
            up_to.unwrap_or(probe.sent).min(probe.sent)
        } else {
            0
        };
        self.report(probe.nonce, missing_to);
        self.hand();
        true
    }

    /// A part of a message has come.
    pub fn chunk(&mut self, chunk: Chunk) {
        let seq = chunk.seq;
        let is_wanted = chunk.session == self.session && !self.broken;
        if !is_wanted || seq <= self.received || seq > self.granted {
            return;
        }
        if chunk.bytes.is_empty() {
            return self.breach(Breach::Empty(seq));
        }
        if seq > self.received + 1 {
            let early: usize = self.early.values().map(|chunk| chunk.bytes.len()).sum();
            if self.held_bytes() + early + chunk.bytes.len() <= self.settings.buffer_bytes_max {
                self.early.insert(seq, chunk);
            }
            if self.gap != Some(self.received) {
                self.gap = Some(self.received);
                let first = self.early.keys().next();
                self.report(0, first.map_or(seq, |first| *first) - 1);
            }
            return;
        }
        if self.accept(chunk) {
            self.accept_early();
        }
        self.hand();
        self.tell();
    }

    /// The handler has handled this message.
    pub fn confirm(&mut self, number: u64) {
        if !self.has_handed(number) {
            return;
        }
        self.handed = Handed::No;
        self.ready.pop_front();
        self.confirmed = self.confirmed.max(number);
        self.hand();
        self.tell();
    }

    /// The handler has not handled this message, and gets it again.
    pub fn give_back(&mut self, now: Time, number: u64) {
        if self.has_handed(number) {
            self.handed = Handed::Again(now + self.settings.retry_after);
        }
    }

    /// Hands a message again, if it is time to.
    pub fn handle_timeout(&mut self, now: Time) {
        if matches!(self.handed, Handed::Again(at) if at <= now) {
            self.handed = Handed::No;
            self.hand();
        }
    }

    /// The end is near: says what was handled and not said yet.
    pub fn say_last(&mut self) {
        if self.confirmed > self.told && !self.broken {
            self.report(0, 0);
        }
    }

    /// When [`Sink::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.handed {
            Handed::Again(at) => Some(at),
            Handed::No | Handed::Yes => None,
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether nothing waits, and the handler has nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.partial.is_none() && self.early.is_empty()
    }

    fn has_handed(&self, number: u64) -> bool {
        let first = self.ready.front();
        self.handed == Handed::Yes && first.is_some_and(|first| first.number == number)
    }

    /// What was confirmed elsewhere is not handed here any more.
    fn skip_to(&mut self, start: u64) {
        let before = start.saturating_sub(1);
        if before <= self.confirmed {
            return;
        }
        let kept = usize::from(self.handed == Handed::Yes);
        let mut at = 0;
        self.ready.retain(|whole| {
            at += 1;
            at <= kept || whole.number > before
        });
        if self.handed != Handed::Yes {
            self.handed = Handed::No;
        }
        if before > self.received {
            self.received = before;
            self.partial = None;
            self.early = self.early.split_off(&start);
        }
        self.confirmed = before;
        self.accept_early();
    }

    fn accept_early(&mut self) {
        while let Some(chunk) = self.early.remove(&self.received.saturating_add(1)) {
            if !self.accept(chunk) {
                break;
            }
        }
    }

    /// Takes the next chunk; `false` if there is no room for it, or it is one that cannot be.
    fn accept(&mut self, chunk: Chunk) -> bool {
        let Chunk {
            seq,
            begins,
            ends,
            bytes,
            ..
        } = chunk;
        let has_room = self.held_bytes() + bytes.len() <= self.settings.buffer_bytes_max;
        if !has_room && !self.ready.is_empty() {
            return false;
        }
        if begins != self.partial.is_none() {
            self.breach(Breach::OutOfPlace(seq));
            return false;
        }
        let mut whole = self.partial.take().unwrap_or_default();
        if whole.len() + bytes.len() > self.settings.message_bytes_max {
            self.breach(Breach::TooLarge {
                seq,
                bytes_max: self.settings.message_bytes_max,
            });
            return false;
        }
        if whole.is_empty() {
            whole = bytes;
        } else {
            whole.extend_from_slice(&bytes);
        }
        let before = self.ready.back().map(|whole| whole.number);
        self.received = seq;
        if ends {
            let before = before.unwrap_or(self.confirmed).max(self.confirmed);
            self.ready.push_back(Whole {
                number: seq,
                chunks: seq - before,
                bytes: whole.into(),
            });
        } else {
            self.partial = Some(whole);
        }
        true
    }

    fn held_bytes(&self) -> usize {
        let ready: usize = self.ready.iter().map(|whole| whole.bytes.len()).sum();
        ready + self.partial.as_ref().map_or(0, Vec::len)
    }

    fn breach(&mut self, breach: Breach) {
        self.broken = true;
        self.early.clear();
        self.outputs.push_back(Output::Broken(breach));
    }

    fn hand(&mut self) {
        if self.handed == Handed::No
            && let Some(first) = self.ready.front()
        {
            self.handed = Handed::Yes;
            self.outputs.push_back(Output::Hand {
                number: first.number,
                bytes: first.bytes.clone(),
            });
        }
    }

    /// Says what has changed, if the source waits for it or half the window is used.
    fn tell(&mut self) {
        let has_news = self.confirmed > self.told;
        let is_used = self.grant() - self.granted >= (self.settings.window / 2).max(1);
        if (has_news && self.ready.is_empty()) || is_used {
            self.report(0, 0);
        }
    }

    /// How far the source may send. Those that wait for the handler count, those that are being put
    /// together do not: a message may have more chunks than the window.
    fn grant(&self) -> u64 {
        let waiting: u64 = self.ready.iter().map(|whole| whole.chunks).sum();
        let free_from = self.received.saturating_sub(waiting);
        let grant = free_from.saturating_add(self.settings.window.max(1));
        grant.max(self.granted)
    }

    fn report(&mut self, nonce: u64, missing_to: u64) {
        self.granted = self.grant();
        self.told = self.confirmed;
        self.outputs.push_back(Output::Report(Report {
            session: self.session,
            consumer: self.consumer,
            nonce,
            confirmed: self.confirmed,
            received: self.received,
            missing_to,
            granted: self.granted,
        }));
    }
}
