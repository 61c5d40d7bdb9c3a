//! Proves: all work is done whoever crashes, by those who have the least to do, and nothing is taken for done
//! that was not.

use super::*;
use crate::logic::delivery::Session;
use crate::logic::delivery::sink::{self, Sink, SinkSettings};
use otava_actor::Rng;
use std::collections::BTreeSet;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn settings() -> DealerSettings {
    DealerSettings {
        source: SourceSettings {
            chunk_bytes: 10,
            resend_min: MS * 50,
            resend_max: MS * 1_000,
        },
        per_worker_max: 3,
    }
}

fn job(number: u64) -> Job<()> {
    let length = 1 + number as usize % 40;
    Job {
        number,
        bytes: vec![number as u8; length].into(),
        token: (),
    }
}

fn drain(dealer: &mut Dealer<()>) -> Vec<Output<()>> {
    std::iter::from_fn(|| dealer.poll_output()).collect()
}

/// A worker grants so much.
fn grant(dealer: &mut Dealer<()>, series: u64, confirmed: u64, granted: u64) {
    let report = Report {
        session: Session {
            series,
            claim: 1,
            number: 1,
        },
        consumer: 1,
        nonce: 0,
        confirmed,
        received: confirmed,
        missing_to: 0,
        granted,
    };
    dealer.handle(Time::ZERO, &report).unwrap();
}

#[test]
fn work_goes_to_who_has_the_least_and_comes_back_in_order() {
    let mut dealer = Dealer::new(settings());
    for number in 1..=9 {
        dealer.push(
            Time::ZERO,
            Job {
                bytes: vec![1].into(),
                ..job(number)
            },
        );
    }
    assert_eq!(dealer.waiting(), 9);
    for series in [10, 20] {
        dealer.add(Time::ZERO, series);
        grant(&mut dealer, series, 0, 8);
    }
    // The limit of each holds, though both have granted more.
    assert_eq!(
        (dealer.at_work(10), dealer.at_work(20), dealer.waiting()),
        (3, 3, 3)
    );
    grant(&mut dealer, 20, 2, 10);
    assert_eq!((dealer.at_work(20), dealer.waiting()), (3, 1));
    let done = drain(&mut dealer);
    let done = done.iter().filter(|o| matches!(o, Output::Confirmed(..)));
    assert_eq!(done.count(), 2);
    // Who cannot be reached gets nothing more, and keeps what it has.
    dealer.set_reachable(Time::ZERO, 20, false);
    grant(&mut dealer, 20, 3, 11);
    assert_eq!((dealer.at_work(20), dealer.waiting()), (2, 1));
    // What the first one had is before what nobody had; what it had done is done.
    grant(&mut dealer, 10, 1, 1);
    dealer.remove(Time::ZERO, 10);
    assert!(matches!(
        drain(&mut dealer)[..],
        [Output::Confirmed(1, ()), ..]
    ));
    let waiting: Vec<u64> = dealer.waiting.iter().map(|job| job.number).collect();
    assert_eq!(waiting, [2, 3, 9]);
    dealer.set_reachable(Time::ZERO, 20, true);
    assert_eq!((dealer.at_work(20), dealer.waiting()), (3, 2));
}

enum Event {
    ToDealer(Report),
    Chunk(u64, Chunk),
    Probe(u64, Probe),
    Done(u64, u64),
    Crash,
    Join,
    Seen(u64),
}

struct Run {
    rng: Rng,
    now: Time,
    agenda: BTreeMap<(Time, u64), Event>,
    events: u64,
    dealer: Dealer<()>,
    sinks: BTreeMap<u64, Option<Sink>>,
    next_series: u64,
    done: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
    times: u64,
}

impl Run {
    fn plan(&mut self, after: Duration, event: Event) {
        self.events += 1;
        self.agenda.insert((self.now + after, self.events), event);
    }

    fn way(&mut self) -> Option<Duration> {
        let arrives = self.rng.f64() > 0.2;
        arrives.then(|| MS * (1 + self.rng.below(15) as u32))
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::ToDealer(report) => self.dealer.handle(self.now, &report).unwrap(),
            Event::Chunk(series, chunk) => {
                if let Some(Some(sink)) = self.sinks.get_mut(&series) {
                    sink.chunk(chunk);
                }
            }
            Event::Probe(series, probe) => {
                let settings = SinkSettings {
                    window: 5,
                    message_bytes_max: 100,
                    buffer_bytes_max: 1_000,
                    retry_after: MS,
                };
                match self.sinks.get_mut(&series) {
                    Some(Some(sink)) => drop(sink.probe(&probe)),
                    Some(none) => *none = Some(Sink::new(settings, series, &probe)),
                    None => {}
                }
            }
            Event::Done(series, number) => {
                if let Some(Some(sink)) = self.sinks.get_mut(&series) {
                    sink.confirm(number);
                }
            }
            Event::Crash => {
                let alive: Vec<u64> = self.sinks.keys().copied().collect();
                if alive.len() > 1 {
                    let series = alive[self.rng.below(alive.len() as u64) as usize];
                    self.sinks.remove(&series);
                    self.plan(MS * 300, Event::Seen(series));
                }
            }
            Event::Join => {
                self.next_series += 1;
                self.sinks.insert(self.next_series, None);
                self.dealer.add(self.now, self.next_series);
            }
            Event::Seen(series) => self.dealer.remove(self.now, series),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.dealer.poll_output() {
            match output {
                Output::Confirmed(number, ()) => {
                    assert!(self.done.contains(&number));
                    assert!(self.confirmed.insert(number));
                }
                Output::Chunk(series, chunk) => {
                    if let Some(delay) = self.way() {
                        self.plan(delay, Event::Chunk(series, chunk));
                    }
                }
                Output::Probe(series, probe) => {
                    if let Some(delay) = self.way() {
                        self.plan(delay, Event::Probe(series, probe));
                    }
                }
            }
        }
        let mut outputs = Vec::new();
        for (series, sink) in &mut self.sinks {
            while let Some(output) = sink.as_mut().and_then(Sink::poll_output) {
                outputs.push((*series, output));
            }
        }
        for (series, output) in outputs {
            match output {
                sink::Output::Report(report) => {
                    if let Some(delay) = self.way() {
                        self.plan(delay, Event::ToDealer(report));
                    }
                }
                sink::Output::Hand { number, bytes } => {
                    // The first byte says which it is.
                    self.done.insert(u64::from(bytes[0]));
                    self.times += 1;
                    let takes = MS * self.rng.below(20) as u32;
                    self.plan(takes, Event::Done(series, number));
                }
                sink::Output::Broken(breach) => panic!("{breach}"),
            }
        }
    }

    fn advance(&mut self) -> bool {
        let event = self.agenda.first_key_value().map(|(key, _)| key.0);
        let Some(next) = self.dealer.poll_timeout().into_iter().chain(event).min() else {
            return false;
        };
        self.now = self.now.max(next);
        if event == Some(next)
            && let Some((_, event)) = self.agenda.pop_first()
        {
            self.step(event);
        } else {
            self.dealer.handle_timeout(self.now);
        }
        self.drain();
        true
    }
}

/// Workers come and crash, and a fifth of what is said is lost: all is done, most of it once.
#[test]
fn all_work_is_done_whoever_crashes() {
    let (mut times, mut jobs) = (0, 0);
    for seed in 0..100 {
        println_seed(seed);
        let mut run = Run {
            rng: Rng::seeded(seed),
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            events: 0,
            dealer: Dealer::new(settings()),
            sinks: BTreeMap::new(),
            next_series: 0,
            done: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            times: 0,
        };
        for _ in 0..3 {
            run.step(Event::Join);
        }
        for number in 1..=100 {
            run.dealer.push(run.now, job(number));
        }
        for _ in 0..6 {
            let when = MS * run.rng.below(1_500) as u32;
            let event = if run.rng.below(2) == 0 {
                Event::Crash
            } else {
                Event::Join
            };
            run.plan(when, event);
        }
        run.drain();
        while run.now < Time::ZERO + MS * 300_000 && run.advance() {}
        assert_eq!(run.confirmed.len(), 100, "seed {seed}, at {}", run.now);
        times += run.times;
        jobs += 100;
    }
    assert!(times < jobs + jobs / 5, "{times} for {jobs}");
}

/// The output of a test is shown when it fails; then the last seed is the one.
#[allow(clippy::print_stdout, reason = "the seed of a run that fails")]
fn println_seed(seed: u64) {
    println!("seed {seed}");
}
