//! Source: what a producer has to deliver to one consumer, sent as far as that one grants, and again where
//! it was lost. Pure.

use super::{Chunk, Probe, Report, Session};
use otava_actor::Time;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a source.
#[derive(Clone, Copy, Debug)]
pub struct SourceSettings {
    /// The most bytes of a chunk.
    pub chunk_bytes: usize,
    /// The shortest and longest time without news after which the sink is asked where it is. In
    /// between it is four round trips.
    pub resend_min: Duration,
    /// See [`SourceSettings::resend_min`].
    pub resend_max: Duration,
}

/// Until a round trip was measured.
const RESEND_FIRST: Duration = Duration::from_secs(1);

/// A message that is not confirmed. `T` is what its owner wants back then.
#[derive(Debug)]
pub struct Outgoing<T> {
    /// The number of its last chunk, which is the number of the message.
    pub number: u64,
    /// How many chunks it has.
    pub chunks: u64,
    /// What is delivered.
    pub bytes: Arc<[u8]>,
    /// Whatever belongs to it.
    pub token: T,
}

impl<T> Outgoing<T> {
    fn first(&self) -> u64 {
        self.number - (self.chunks - 1)
    }

    /// The bytes of one chunk. Follows from the length and the number of chunks alone, so that a run with
    /// another chunk size cuts what is stored as the one before.
    fn cut(&self, seq: u64) -> &[u8] {
        let at = |index: u64| {
            let cut = self.bytes.len() as u128 * u128::from(index) / u128::from(self.chunks);
            cut as usize
        };
        let index = seq - self.first();
        &self.bytes[at(index)..at(index + 1)]
    }
}

/// What a source wants done.
#[derive(Debug)]
pub enum Output<T> {
    /// A message was handled.
    Confirmed {
        /// Its number.
        number: u64,
        /// What belongs to it.
        token: T,
    },
    /// Send it to the sink; it may be lost.
    Chunk(Chunk),
    /// Send it to the sink; it may be lost.
    Probe(Probe),
}

/// A report that cannot be true.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it has received {received} and confirmed {confirmed}, but only {sent} was sent")]
pub struct BadReport {
    received: u64,
    confirmed: u64,
    sent: u64,
}

/// One end of a delivery: the one that sends.
#[derive(Debug)]
pub struct Source<T> {
    settings: SourceSettings,
    series: u64,
    claim: u64,
    /// All up to here were handled.
    confirmed: u64,
    /// The number of the next chunk.
    next: u64,
    /// May be sent up to here.
    stored: u64,
    messages: VecDeque<Outgoing<T>>,
    sessions: u64,
    session: Option<Open>,
    outputs: VecDeque<Output<T>>,
}

/// The session that is open.
#[derive(Debug)]
struct Open {
    id: Session,
    /// Known since its first report.
    consumer: Option<u64>,
    granted: u64,
    received: u64,
    sent: u64,
    /// The place of the last gap that was filled without having been asked for.
    gap: Option<u64>,
    nonce: u64,
    /// When the newest probe was sent, if it was not answered.
    probed: Option<Time>,
    probe_at: Time,
    pause: Duration,
    round_trip: Option<Duration>,
}

impl Open {
    fn new(id: Session, confirmed: u64) -> Self {
        Self {
            id,
            consumer: None,
            granted: 0,
            received: confirmed,
            sent: confirmed,
            gap: None,
            nonce: 0,
            probed: None,
            probe_at: Time::MAX,
            pause: Duration::ZERO,
            round_trip: None,
        }
    }

    /// The time without news after which to ask.
    fn patience(&self, settings: &SourceSettings) -> Duration {
        let wanted = self.round_trip.map_or(RESEND_FIRST, |trip| trip * 4);
        let longest = settings.resend_max.max(settings.resend_min);
        wanted.clamp(settings.resend_min, longest)
    }

    fn relax(&mut self, now: Time, settings: &SourceSettings) {
        self.pause = self.patience(settings);
        self.probe_at = now + self.pause;
    }
}

impl<T> Source<T> {
    /// A source whose messages have the numbers after `confirmed`.
    #[must_use]
    pub fn new(settings: SourceSettings, series: u64, claim: u64, confirmed: u64) -> Self {
        Self {
            settings,
            series,
            claim,
            confirmed,
            next: confirmed.saturating_add(1),
            stored: u64::MAX,
            messages: VecDeque::new(),
            sessions: 0,
            session: None,
            outputs: VecDeque::new(),
        }
    }

    /// Sends nothing that [`Source::stored`] was not called for.
    pub fn store_first(&mut self) {
        self.stored = self.next - 1;
    }

    /// Takes back a message that an earlier run has stored. `false` if it does not follow the one before.
    #[must_use]
    pub fn restore(&mut self, message: Outgoing<T>) -> bool {
        let chunks = message.chunks;
        let fits = (1..=message.bytes.len() as u64).contains(&chunks);
        if !fits || message.number.checked_sub(chunks) != Some(self.next - 1) {
            return false;
        }
        self.next = message.number.saturating_add(1);
        self.messages.push_back(message);
        true
    }

    /// Takes a message, which gets the number that is returned, and how many chunks it has. Empty ones
    /// cannot be sent: they have no chunk.
    ///
    /// # Panics
    /// If `bytes` is empty.
    pub fn push(&mut self, now: Time, bytes: Arc<[u8]>, token: T) -> (u64, u64) {
        assert!(!bytes.is_empty(), "a message has bytes");
        let chunks = bytes.len().div_ceil(self.settings.chunk_bytes.max(1)) as u64;
        let number = self.next.saturating_add(chunks - 1);
        self.next = number.saturating_add(1);
        self.messages.push_back(Outgoing {
            number,
            chunks,
            bytes,
            token,
        });
        self.pump(now);
        (number, chunks)
    }

    /// Everything up to this message is stored.
    pub fn stored(&mut self, now: Time, number: u64) {
        self.stored = self.stored.max(number);
        self.pump(now);
    }

    /// A consumer is there: a new session begins.
    pub fn open(&mut self, now: Time) {
        self.sessions += 1;
        let id = Session {
            series: self.series,
            claim: self.claim,
            number: self.sessions,
        };
        let mut open = Open::new(id, self.confirmed);
        open.pause = open.patience(&self.settings);
        self.session = Some(open);
        self.probe(now);
    }

    /// Asks the sink where it is.
    pub fn ask(&mut self, now: Time) {
        self.probe(now);
    }

    /// There is no consumer any more.
    pub fn close(&mut self) {
        self.session = None;
    }

    /// What a sink says. Reports of other sessions count for what they confirm.
    ///
    /// # Errors
    /// [`BadReport`]; it changes nothing.
    pub fn handle(&mut self, now: Time, report: &Report) -> Result<(), BadReport> {
        if report.session.series != self.series {
            return Ok(());
        }
        let last = self.stored.min(self.next - 1);
        if report.confirmed > report.received || report.received > last {
            return Err(BadReport {
                received: report.received,
                confirmed: report.confirmed,
                sent: last,
            });
        }
        let news = self.confirm(report.confirmed);
        let Some(open) = self.session.as_mut().filter(|s| s.id == report.session) else {
            return Ok(());
        };
        if open.consumer.is_some_and(|known| known != report.consumer) {
            // It was made anew behind the same reference.
            self.open(now);
            return Ok(());
        }
        let news = news
            || open.consumer.is_none()
            || report.received > open.received
            || report.granted > open.granted;
        open.consumer = Some(report.consumer);
        let answered = report.nonce == open.nonce && open.probed.is_some();
        if answered {
            let trip = open.probed.take().map(|at| now.saturating_since(at));
            open.round_trip = match (open.round_trip, trip) {
                (Some(known), Some(trip)) => Some((known * 7 + trip) / 8),
                (known, trip) => trip.or(known),
            };
        }
        if news {
            open.relax(now, &self.settings);
        }
        let is_newest = report.received >= open.received;
        let fills = is_newest && (answered || open.gap != Some(report.received));
        open.received = open.received.max(report.received);
        open.granted = open.granted.max(report.granted);
        open.sent = open.sent.max(report.received);
        let missing_to = report.missing_to.min(open.sent);
        if fills && report.received < missing_to {
            open.gap = Some(report.received);
            for seq in report.received + 1..=missing_to {
                self.send(seq);
            }
        }
        self.pump(now);
        Ok(())
    }

    /// Asks the sink where it is, if it is time to.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.session.as_ref().is_some_and(|s| s.probe_at <= now) {
            self.probe(now);
        }
    }

    /// When [`Source::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let at = self.session.as_ref().map(|session| session.probe_at);
        at.filter(|at| *at < Time::MAX)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        self.outputs.pop_front()
    }

    /// The messages that are not confirmed.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Outgoing<T>> {
        self.messages.iter()
    }

    /// How many are not confirmed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether all are confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a message that is pushed now would be sent at once, at least its beginning.
    #[must_use]
    pub fn has_demand(&self) -> bool {
        let open = self.session.as_ref();
        open.is_some_and(|open| self.next <= open.granted)
    }

    /// Gives up all messages that are not confirmed.
    pub fn into_unconfirmed(self) -> impl Iterator<Item = Outgoing<T>> {
        self.messages.into_iter()
    }

    /// Whether that is news.
    fn confirm(&mut self, confirmed: u64) -> bool {
        let before = self.confirmed;
        while let Some(message) = self.messages.front()
            && message.number <= confirmed
            && let Some(Outgoing { number, token, .. }) = self.messages.pop_front()
        {
            self.confirmed = number;
            let output = Output::Confirmed { number, token };
            self.outputs.push_back(output);
        }
        self.confirmed > before
    }

    /// Sends what may be sent, and sees to the timer.
    fn pump(&mut self, now: Time) {
        let last = self.stored.min(self.next - 1);
        let Some(open) = &mut self.session else {
            return;
        };
        open.sent = open.sent.max(self.confirmed);
        let fresh = open.sent + 1..=open.granted.min(last);
        if !fresh.is_empty() {
            open.sent = *fresh.end();
            let patience = open.patience(&self.settings);
            open.pause = open.pause.min(patience);
            open.probe_at = open.probe_at.min(now + open.pause);
            for seq in fresh {
                self.send(seq);
            }
        }
        let is_idle = self.messages.is_empty();
        let Some(open) = &mut self.session else {
            return;
        };
        if is_idle && open.consumer.is_some() {
            open.probe_at = Time::MAX;
        } else if open.probe_at == Time::MAX {
            open.relax(now, &self.settings);
        }
    }

    fn send(&mut self, seq: u64) {
        let Some(open) = &self.session else {
            return;
        };
        let at = self.messages.partition_point(|m| m.number < seq);
        // What was confirmed meanwhile is not there any more.
        let Some(message) = self.messages.get(at).filter(|m| m.first() <= seq) else {
            return;
        };
        let chunk = Chunk {
            session: open.id,
            seq,
            begins: seq == message.first(),
            ends: seq == message.number,
            bytes: message.cut(seq).to_vec(),
        };
        self.outputs.push_back(Output::Chunk(chunk));
    }

    fn probe(&mut self, now: Time) {
        let Some(open) = &mut self.session else {
            return;
        };
        open.nonce += 1;
        open.probed = Some(now);
        open.probe_at = now + open.pause;
        open.pause = (open.pause * 2).min(self.settings.resend_max.max(self.settings.resend_min));
        let probe = Probe {
            session: open.id,
            start: self.confirmed.saturating_add(1),
            sent: open.sent.max(self.confirmed),
            nonce: open.nonce,
        };
        self.outputs.push_back(Output::Probe(probe));
    }
}
