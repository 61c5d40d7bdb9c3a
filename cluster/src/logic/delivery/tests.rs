//! Proves: over a way that loses, repeats and reorders, each message is handled, in order, once for each
//! run of a consumer, and nothing counts as handled that was not.

use super::ledger::{Ledger, Operation};
use super::sink::{self, Breach, Sink, SinkSettings};
use super::source::{self, Outgoing, Source, SourceSettings};
use super::{Chunk, Probe, Report, Session};
use otava_actor::{Rng, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn source_settings() -> SourceSettings {
    SourceSettings {
        chunk_bytes: 10,
        resend_min: MS * 50,
        resend_max: MS * 1_000,
    }
}

fn sink_settings() -> SinkSettings {
    SinkSettings {
        window: 8,
        message_bytes_max: 1_000,
        buffer_bytes_max: 2_000,
        retry_after: MS * 100,
    }
}

#[derive(Clone, Debug)]
enum Wire {
    Chunk(Chunk),
    Probe(Probe),
    Report(Report),
}

#[derive(Debug)]
enum Event {
    Arrives(Wire),
    /// The handler of this run of the consumer is done with a message.
    Handled {
        consumer: u64,
        number: u64,
        well: bool,
    },
    ConsumerCrashes,
    ProducerCrashes,
    Pushes,
}

/// What a run has: two ends, a bad way between them, a handler, and what is checked.
struct Run {
    seed: u64,
    rng: Rng,
    now: Time,
    agenda: BTreeMap<(Time, u64), Event>,
    events: u64,
    loss: f64,
    source: Source<u64>,
    sink: Option<Sink>,
    consumer: u64,
    /// Messages by number: what was pushed, and which it was.
    pushed: BTreeMap<u64, Arc<[u8]>>,
    to_push: u64,
    /// What a durable queue would hold.
    kept: BTreeMap<u64, (u64, Arc<[u8]>)>,
    claim: u64,
    last_number: u64,
    handled: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
    /// By the living run of the consumer.
    handed_last: u64,
    open_hand: Option<u64>,
    given_back: Option<u64>,
    handed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let loss = 0.1 + 0.2 * rng.f64();
        let mut source = Source::new(source_settings(), 7, 1, 0);
        source.store_first();
        Self {
            seed,
            rng,
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            events: 0,
            loss,
            source,
            sink: None,
            consumer: 100,
            pushed: BTreeMap::new(),
            to_push: 0,
            kept: BTreeMap::new(),
            claim: 1,
            last_number: 0,
            handled: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            handed_last: 0,
            open_hand: None,
            given_back: None,
            handed: 0,
        }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.events += 1;
        self.agenda.insert((self.now + after, self.events), event);
    }

    /// Puts something on the bad way.
    fn send(&mut self, wire: &Wire) {
        for _ in 0..=u64::from(self.rng.f64() < 0.1) {
            if self.rng.f64() < self.loss {
                continue;
            }
            let mut delay = MS * (1 + self.rng.below(15) as u32);
            if self.rng.f64() < 0.02 {
                // Long after all that came later.
                delay += MS * self.rng.below(2_000) as u32;
            }
            self.plan(delay, Event::Arrives(wire.clone()));
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrives(Wire::Report(report)) => {
                self.source.handle(self.now, &report).unwrap();
            }
            Event::Arrives(Wire::Probe(probe)) => match &mut self.sink {
                Some(sink) => drop(sink.probe(&probe)),
                None => self.sink = Some(Sink::new(sink_settings(), self.consumer, &probe)),
            },
            Event::Arrives(Wire::Chunk(chunk)) => {
                if let Some(sink) = &mut self.sink {
                    sink.chunk(chunk);
                }
            }
            Event::Handled {
                consumer,
                number,
                well,
            } => self.handled(consumer, number, well),
            Event::ConsumerCrashes => {
                self.sink = None;
                self.consumer += 1;
                self.handed_last = 0;
                self.open_hand = None;
                self.given_back = None;
                if self.rng.f64() < 0.5 {
                    // It is seen; otherwise another one stands behind the same reference.
                    self.source.close();
                    self.source.open(self.now);
                }
            }
            Event::ProducerCrashes => self.restart_source(),
            Event::Pushes => self.push(),
        }
    }

    fn handled(&mut self, consumer: u64, number: u64, well: bool) {
        if consumer != self.consumer {
            return;
        }
        assert_eq!(self.open_hand.take(), Some(number));
        let sink = self.sink.as_mut().unwrap();
        if well {
            self.handled.insert(number);
            sink.confirm(number);
        } else {
            self.given_back = Some(number);
            sink.give_back(self.now, number);
        }
    }

    fn push(&mut self) {
        let length = match self.rng.below(10) {
            0 => 1 + self.rng.below(300),
            _ => 1 + self.rng.below(20),
        };
        let bytes: Arc<[u8]> = (0..length).map(|_| self.rng.next_u64() as u8).collect();
        let (number, chunks) = self.source.push(self.now, bytes.clone(), self.to_push);
        assert_eq!(number, self.last_number + chunks);
        self.last_number = number;
        self.pushed.insert(number, bytes.clone());
        self.kept.insert(number, (chunks, bytes));
        // At once in this run; the ledger has tests of its own.
        self.source.stored(self.now, number);
        self.to_push -= 1;
        if self.to_push > 0 {
            let pause = MS * self.rng.below(20) as u32;
            self.plan(pause, Event::Pushes);
        }
    }

    /// A new run of the producer, with what the queue holds and another size of chunks.
    fn restart_source(&mut self) {
        self.claim += 1;
        let first = self.kept.first_key_value();
        let before = first.map_or(self.last_number, |(number, (chunks, _))| number - chunks);
        let settings = SourceSettings {
            chunk_bytes: 1 + self.rng.below(20) as usize,
            ..source_settings()
        };
        self.source = Source::new(settings, 7, self.claim, before);
        for (number, (chunks, bytes)) in &self.kept {
            let (number, chunks) = (*number, *chunks);
            let bytes = bytes.clone();
            assert!(self.source.restore(Outgoing {
                number,
                chunks,
                bytes,
                token: 0
            }));
        }
        self.source.store_first();
        self.source.open(self.now);
    }

    /// Does what both ends want.
    fn drain(&mut self) {
        while let Some(output) = self.source.poll_output() {
            match output {
                source::Output::Chunk(chunk) => self.send(&Wire::Chunk(chunk)),
                source::Output::Probe(probe) => self.send(&Wire::Probe(probe)),
                source::Output::Confirmed { number, .. } => {
                    // Nothing is acknowledged that was not handled.
                    assert!(self.handled.contains(&number), "seed {}", self.seed);
                    assert!(self.kept.remove(&number).is_some());
                    self.confirmed.insert(number);
                }
            }
        }
        while let Some(output) = self.sink.as_mut().and_then(Sink::poll_output) {
            match output {
                sink::Output::Report(report) => self.send(&Wire::Report(report)),
                sink::Output::Broken(breach) => panic!("seed {}: {breach}", self.seed),
                sink::Output::Hand { number, bytes } => self.take(number, &bytes),
            }
        }
    }

    fn take(&mut self, number: u64, bytes: &[u8]) {
        let seed = self.seed;
        assert_eq!(&*self.pushed[&number], bytes, "seed {seed}");
        assert_eq!(self.open_hand, None, "seed {seed}: one at a time");
        if self.given_back.take() != Some(number) {
            // In order, and once for each run of the consumer.
            assert!(number > self.handed_last, "seed {seed}: {number} again");
            let mut between = self.pushed.range(self.handed_last + 1..number);
            let is_gap = between.any(|(skipped, _)| !self.handled.contains(skipped));
            assert!(!is_gap, "seed {seed}: one before {number} was left out");
        }
        self.handed_last = number;
        self.open_hand = Some(number);
        self.handed += 1;
        let well = self.rng.f64() < 0.97;
        let pause = MS * self.rng.below(8) as u32;
        let consumer = self.consumer;
        self.plan(
            pause,
            Event::Handled {
                consumer,
                number,
                well,
            },
        );
    }

    /// Goes on to the next thing that happens.
    fn advance(&mut self) -> bool {
        let timers = [
            self.source.poll_timeout(),
            self.sink.as_ref().and_then(Sink::poll_timeout),
        ];
        let timer = timers.into_iter().flatten().min();
        let event = self.agenda.first_key_value().map(|(key, _)| key.0);
        let Some(next) = timer.into_iter().chain(event).min() else {
            return false;
        };
        self.now = self.now.max(next);
        if event == Some(next)
            && let Some((_, event)) = self.agenda.pop_first()
        {
            self.step(event);
        } else {
            self.source.handle_timeout(self.now);
            if let Some(sink) = &mut self.sink {
                sink.handle_timeout(self.now);
            }
        }
        self.drain();
        true
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let var = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
    };
    match var("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..var("SEEDS").unwrap_or(default),
    }
}

/// R2, ReliableDeliveryRandom: 10 to 30 % are lost, a tenth comes twice, all are reordered, and both ends
/// crash now and then. `SEED=7` replays one run.
#[test]
fn all_is_handled_in_order_whatever_the_way_does() {
    let (mut handed, mut pushed) = (0, 0);
    for seed in seeds(300) {
        println_seed(seed);
        let mut run = Run::new(seed);
        run.to_push = 60;
        run.plan(Duration::ZERO, Event::Pushes);
        for _ in 0..run.rng.below(4) {
            let when = MS * run.rng.below(3_000) as u32;
            run.plan(when, Event::ConsumerCrashes);
        }
        if seed % 3 == 0 {
            let when = MS * run.rng.below(2_000) as u32;
            run.plan(when, Event::ProducerCrashes);
        }
        run.source.open(run.now);
        run.drain();
        while run.now < at(600_000) && run.advance() {}
        // Nothing was left over, and both ends are silent.
        assert_eq!(run.to_push, 0, "seed {seed}");
        assert_eq!(
            run.confirmed.len(),
            run.pushed.len(),
            "seed {seed}: at {}",
            run.now
        );
        assert!(run.source.is_empty() && run.source.poll_timeout().is_none());
        handed += run.handed;
        pushed += run.pushed.len() as u64;
    }
    // What was handed more than once: after crashes, and what was given back.
    assert!(handed < pushed + pushed / 5, "{handed} for {pushed}");
}

/// The output of a test is shown when it fails; then the last seed is the one.
#[allow(clippy::print_stdout, reason = "the seed of a run that fails")]
fn println_seed(seed: u64) {
    println!("seed {seed}");
}

fn session(number: u64) -> Session {
    Session {
        series: 7,
        claim: 1,
        number,
    }
}

fn bytes(length: usize) -> Arc<[u8]> {
    vec![1; length].into()
}

/// A sink that has answered its first probe.
fn opened(settings: SinkSettings) -> Sink {
    let probe = Probe {
        session: session(1),
        start: 1,
        sent: 0,
        nonce: 1,
    };
    let mut sink = Sink::new(settings, 5, &probe);
    assert!(matches!(sink.poll_output(), Some(sink::Output::Report(r)) if r.granted == 8));
    sink
}

fn part(seq: u64, begins: bool, ends: bool, length: usize) -> Chunk {
    Chunk {
        session: session(1),
        seq,
        begins,
        ends,
        bytes: vec![1; length],
    }
}

fn outputs(sink: &mut Sink) -> Vec<sink::Output> {
    std::iter::from_fn(|| sink.poll_output()).collect()
}

/// What a source that means harm can send is refused, and costs no more than the limits say.
#[test]
fn a_sink_keeps_its_limits() {
    for (chunks, breach) in [
        (vec![part(1, false, true, 1)], Breach::OutOfPlace(1)),
        (
            vec![part(1, true, false, 1), part(2, true, true, 1)],
            Breach::OutOfPlace(2),
        ),
        (vec![part(1, true, true, 0)], Breach::Empty(1)),
        (
            vec![part(1, true, false, 600), part(2, false, true, 600)],
            Breach::TooLarge {
                seq: 2,
                bytes_max: 1_000,
            },
        ),
    ] {
        let mut sink = opened(sink_settings());
        for chunk in chunks {
            sink.chunk(chunk);
        }
        let last = outputs(&mut sink).pop();
        assert_eq!(last, Some(sink::Output::Broken(breach)));
        // Nothing more is taken until there is another session.
        sink.chunk(part(1, true, true, 1));
        sink.probe(&Probe {
            session: session(1),
            start: 1,
            sent: 9,
            nonce: 2,
        });
        assert_eq!(outputs(&mut sink), []);
    }
    // Beyond what was granted, of another session, or at the end of numbers.
    let mut sink = opened(sink_settings());
    sink.chunk(part(9, true, true, 1));
    sink.chunk(Chunk {
        session: session(2),
        ..part(1, true, true, 1)
    });
    assert!(sink.is_idle());
    sink.probe(&Probe {
        session: session(u64::MAX),
        start: u64::MAX,
        sent: u64::MAX,
        nonce: u64::MAX,
    });
    assert!(matches!(outputs(&mut sink)[..], [sink::Output::Report(r)] if r.granted == u64::MAX));
    // Early ones take no more room than there is.
    let mut sink = opened(sink_settings());
    for seq in 2..=8 {
        sink.chunk(part(seq, true, true, 900));
    }
    sink.chunk(part(1, true, true, 1));
    let handed = |output: &sink::Output| matches!(output, sink::Output::Hand { .. });
    assert_eq!(outputs(&mut sink).iter().filter(|o| handed(o)).count(), 1);
    for number in 1..=3 {
        sink.confirm(number);
    }
    assert_eq!(outputs(&mut sink).iter().filter(|o| handed(o)).count(), 2);
    assert!(sink.is_idle());
}

/// A report that claims what was never sent is an error, and changes nothing.
#[test]
fn a_source_believes_no_report_about_what_it_never_sent() {
    let mut source = Source::new(source_settings(), 7, 1, 0);
    source.push(at(0), bytes(35), "a");
    source.open(at(0));
    let report = |confirmed, received, granted| Report {
        session: session(1),
        consumer: 5,
        nonce: 1,
        confirmed,
        received,
        missing_to: u64::MAX,
        granted,
    };
    for (confirmed, received) in [(5, 5), (0, 5), (2, 1), (u64::MAX, u64::MAX)] {
        assert!(
            source
                .handle(at(1), &report(confirmed, received, 8))
                .is_err()
        );
    }
    assert_eq!(source.len(), 1);
    source.handle(at(1), &report(0, 0, u64::MAX)).unwrap();
    let sent = std::iter::from_fn(|| source.poll_output());
    let chunks = sent.filter(|output| matches!(output, source::Output::Chunk(_)));
    assert_eq!(chunks.count(), 4);
    // In the middle of a message nothing is confirmed.
    source.handle(at(2), &report(3, 3, 8)).unwrap();
    assert_eq!(source.len(), 1);
    source.handle(at(3), &report(4, 4, 8)).unwrap();
    assert!(source.is_empty());
    assert_eq!(source.poll_timeout(), None);
}

/// Nothing is said while nothing is under way, and a silent sink is asked ever less often.
#[test]
fn probes_become_rare() {
    let mut source = Source::new(source_settings(), 7, 1, 0);
    source.open(at(0));
    let mut asked = 0;
    while let Some(next) = source.poll_timeout().filter(|next| *next < at(60_000)) {
        source.handle_timeout(next);
        asked += 1;
    }
    assert!((55..=65).contains(&asked), "{asked}");
    let answer = Report {
        session: session(1),
        consumer: 5,
        nonce: 0,
        confirmed: 0,
        received: 0,
        missing_to: 0,
        granted: 8,
    };
    source.handle(at(60_000), &answer).unwrap();
    assert_eq!(source.poll_timeout(), None);
    source.push(at(60_000), bytes(1), ());
    assert!(source.poll_timeout().is_some());
    source.close();
    assert_eq!(source.poll_timeout(), None);
}

/// A message of more chunks than the window comes through.
#[test]
fn a_message_may_be_larger_than_the_window() {
    let mut source = Source::new(source_settings(), 7, 1, 0);
    source.push(at(0), bytes(1_000), ());
    source.push(at(0), bytes(990), ());
    source.open(at(0));
    let mut sink = None;
    let mut handed = Vec::new();
    while !source.is_empty() {
        while let Some(output) = source.poll_output() {
            match (output, &mut sink) {
                (source::Output::Probe(probe), sink) => {
                    *sink = Some(Sink::new(sink_settings(), 5, &probe));
                }
                (source::Output::Chunk(chunk), Some(sink)) => sink.chunk(chunk),
                _ => {}
            }
        }
        match sink.as_mut().and_then(Sink::poll_output) {
            Some(sink::Output::Hand { number, bytes }) => {
                handed.push((number, bytes.len()));
                sink.as_mut().unwrap().confirm(number);
            }
            Some(sink::Output::Report(report)) => source.handle(at(1), &report).unwrap(),
            output => panic!("{output:?}"),
        }
    }
    assert_eq!(handed, [(100, 1_000), (199, 990)]);
}

/// What an earlier run has stored must follow without a gap.
#[test]
fn what_was_stored_is_checked() {
    let stored = |number, chunks, length| Outgoing {
        number,
        chunks,
        bytes: bytes(length),
        token: (),
    };
    let mut source = Source::new(source_settings(), 7, 2, 10);
    assert!(source.restore(stored(13, 3, 5)));
    for (number, chunks, length) in [
        (13, 1, 5),
        (15, 1, 5),
        (14, 0, 5),
        (14, 2, 5),
        (20, 7, 5),
        (14, 1, 0),
    ] {
        assert!(!source.restore(stored(number, chunks, length)), "{number}");
    }
    assert!(source.restore(stored(14, 1, 5)));
}

#[test]
fn a_ledger_tells_one_thing_after_the_other() {
    use super::ledger::StoredMessage;
    let message = |number| StoredMessage {
        number,
        chunks: 1,
        bytes: bytes(1),
    };
    let mut ledger = Ledger::default();
    assert_eq!(ledger.begin(), None);
    ledger.confirm(1);
    assert_eq!(ledger.begin(), Some(Operation::Confirm(vec![1])));
    ledger.store(message(2));
    ledger.confirm(3);
    ledger.store(message(4));
    assert_eq!(ledger.begin(), None);
    assert_eq!(ledger.done(), []);
    let batch = Operation::Store(vec![message(2), message(4)]);
    assert_eq!(ledger.begin(), Some(batch.clone()));
    ledger.failed(at(0));
    assert_eq!(
        (ledger.begin(), ledger.handle_timeout(at(99))),
        (None, None)
    );
    assert_eq!(ledger.handle_timeout(at(100)), Some(batch));
    assert_eq!(ledger.poll_timeout(), None);
    assert_eq!(ledger.done(), [2, 4]);
    assert_eq!(ledger.begin(), Some(Operation::Confirm(vec![3])));
}
