//! Bench: what actors in one process cost, a line for each workload.
//!
//! `cargo bench --bench actors -- [--json] [--scale x] [--rounds n] [workload..]`. Names and sizes
//! of the workloads are those that the programs for other actor libraries use, so that lines can
//! stand side by side; `scripts/bench-peers.sh` puts them there. Everything is as shipped: bounded
//! mailboxes, supervision, the default deadline of an ask. Two workers, whatever the machine has.
//!
//! Each run of a workload is a process of its own, because peaks of memory never go down again.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for people"
)]

use otava_actor::{ActorSystem, Props};
use player::{Countdown, Message, Player, Ref, put, wait};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "actors/player.rs"]
mod player;

const WORKLOADS: [&str; 11] = [
    "pingpong", "tell", "fanin8", "counting", "ring", "forkjoin", "big", "ask_seq", "ask_100",
    "idle", "flood",
];
const USAGE: &str = "usage: actors [--json] [--scale x] [--rounds n] [workload..]";
const WORKERS: usize = 2;
const MAILBOX: &str = "bounded 65536";
/// A workload that takes longer has lost a message.
const STALLED_AFTER: Duration = Duration::from_secs(120);
/// Lets new actors come to rest before the clock starts.
const REST: Duration = Duration::from_millis(50);
/// Lets memory come to rest before it is read.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a flood is measured, at scale 1.
const FLOOD: Duration = Duration::from_secs(3);
/// Between two questions during a flood.
const PAUSE: Duration = Duration::from_millis(1);
const FLOODERS: usize = 4;
const RING: usize = 1_000;
const CROWD: u32 = 100;
const ASKERS: u64 = 100;

/// What a workload found.
struct Found {
    n: u64,
    took: Duration,
    more: Vec<(&'static str, f64)>,
}

impl Found {
    fn new(n: u64, since: Instant) -> Self {
        let (took, more) = (since.elapsed(), Vec::new());
        Self { n, took, more }
    }
}

/// Where the workloads run: a system, and how large they are.
struct Field {
    system: ActorSystem,
    scale: f64,
}

impl Field {
    fn spawn(&self, player: Player) -> Ref {
        self.system.spawn_anonymous(Props::once(player)).unwrap()
    }

    fn size(&self, full: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(100)
    }

    async fn run(&self, workload: &str) -> Found {
        match workload {
            "pingpong" => self.pingpong().await,
            "tell" => self.senders(1).await,
            "fanin8" => self.senders(8).await,
            "counting" => self.counting().await,
            "ring" => self.ring().await,
            "forkjoin" => self.forkjoin().await,
            "big" => self.big().await,
            "ask_seq" => self.asks(1, self.size(500_000)).await,
            "ask_100" => self.asks(ASKERS, self.size(1_000_000)).await,
            "idle" => self.idle().await,
            "flood" => self.flood().await,
            _ => unreachable!("the names were checked"),
        }
    }

    async fn pingpong(&self) -> Found {
        let n = self.size(1_000_000);
        let done = Countdown::new(1);
        let server = self.spawn(Player::Server {
            partner: None,
            rounds: 0,
            done: done.clone(),
        });
        let returner = self.spawn(Player::Returner { partner: None });
        put(&server, Message::Next(returner.clone())).await;
        put(&returner, Message::Next(server.clone())).await;
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        put(&server, Message::Begin(n)).await;
        done.zero().await;
        Found::new(n, since)
    }

    async fn senders(&self, senders: u64) -> Found {
        let each = self.size(5_000_000) / senders;
        let n = each * senders;
        let done = Countdown::new(1);
        let counter = self.spawn(Player::Counter {
            left: n,
            done: done.clone(),
        });
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        for _ in 0..senders {
            let counter = counter.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    if let Err(refused) = counter.tell(Message::Tick) {
                        wait(&counter, refused).await;
                    }
                }
            });
        }
        done.zero().await;
        Found::new(n, since)
    }

    async fn counting(&self) -> Found {
        let n = self.size(5_000_000);
        let done = Countdown::new(1);
        let consumer = self.spawn(Player::Counter {
            left: n,
            done: done.clone(),
        });
        let producer = self.spawn(Player::Producer { consumer });
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        put(&producer, Message::Begin(n)).await;
        done.zero().await;
        Found::new(n, since)
    }

    async fn ring(&self) -> Found {
        let n = self.size(2_000_000);
        let done = Countdown::new(1);
        let link = |_| {
            self.spawn(Player::Link {
                next: None,
                done: done.clone(),
            })
        };
        let links: Vec<Ref> = (0..RING).map(link).collect();
        for (index, link) in links.iter().enumerate() {
            let next = links[(index + 1) % RING].clone();
            put(link, Message::Next(next)).await;
        }
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        put(&links[0], Message::Token(n)).await;
        done.zero().await;
        Found::new(n, since)
    }

    async fn forkjoin(&self) -> Found {
        let n = self.size(1_000_000);
        let done = Countdown::new(n);
        let (system, for_all) = (self.system.clone(), done.clone());
        let since = Instant::now();
        let parent = tokio::spawn(async move {
            for _ in 0..n {
                let done = for_all.clone();
                let mayfly = Props::once(Player::Mayfly { done });
                let mayfly = system.spawn_anonymous(mayfly).unwrap();
                put(&mayfly, Message::Tick).await;
            }
        });
        done.zero().await;
        let found = Found::new(n, since);
        parent.await.unwrap();
        found
    }

    async fn big(&self) -> Found {
        let each = self.size(20_000);
        let done = Countdown::new(u64::from(CROWD));
        let member = |me: u32| {
            self.spawn(Player::Member {
                crowd: None,
                me,
                random: 0x9E37_79B9_u32.wrapping_mul(me + 1) | 1,
                left: 0,
                done: done.clone(),
            })
        };
        let crowd: Arc<Vec<Ref>> = Arc::new((0..CROWD).map(member).collect());
        for member in crowd.iter() {
            put(member, Message::Crowd(crowd.clone())).await;
        }
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        for member in crowd.iter() {
            put(member, Message::Begin(each)).await;
        }
        done.zero().await;
        // A ping and a pong each.
        Found::new(2 * each * u64::from(CROWD), since)
    }

    async fn asks(&self, askers: u64, n: u64) -> Found {
        let each = n / askers;
        let answerer = self.spawn(Player::Answerer);
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        let ask = |_| {
            let answerer = answerer.clone();
            tokio::spawn(async move {
                for i in 0..each {
                    let answer = answerer.ask(|reply_to| Message::Ask(i, reply_to));
                    assert_eq!(answer.await.unwrap(), i + 1);
                }
            })
        };
        let askers: Vec<_> = (0..askers).map(ask).collect();
        let all = each * askers.len() as u64;
        for asker in askers {
            asker.await.unwrap();
        }
        Found::new(all, since)
    }

    async fn idle(&self) -> Found {
        let n = self.size(1_000_000);
        let done = Countdown::new(n);
        let for_all = done.clone();
        let idler = move || {
            Props::once(Player::Idler {
                done: for_all.clone(),
            })
        };
        // Filled beforehand, so that the list itself does not count.
        let first = self.spawn(Player::Answerer);
        let mut idlers = vec![first; usize::try_from(n).unwrap()];
        tokio::time::sleep(REST).await;
        let before = memory("VmRSS");
        let system = self.system.clone();
        let work = tokio::spawn(async move {
            let since = Instant::now();
            for place in &mut idlers {
                *place = system.spawn_anonymous(idler()).unwrap();
            }
            let found = Found::new(n, since);
            let since = Instant::now();
            for idler in &idlers {
                put(idler, Message::Tick).await;
            }
            done.zero().await;
            (found, since.elapsed(), idlers)
        });
        let (mut found, first_messages, _idlers) = work.await.unwrap();
        tokio::time::sleep(SETTLE).await;
        let grown = memory("VmRSS").saturating_sub(before);
        let first_per_sec = n as f64 / first_messages.as_secs_f64();
        found.more = vec![
            ("bytes_per_actor", (grown * 1_024 / n) as f64),
            ("first_msg_per_sec", first_per_sec.round()),
            ("node_bytes", size_of::<Player>() as f64),
            ("ref_bytes", size_of::<Ref>() as f64),
        ];
        found
    }

    /// Asks one actor now and then, while tasks send another all that it takes.
    async fn flood(&self) -> Found {
        let flooded = self.spawn(Player::Counter {
            left: u64::MAX,
            done: Countdown::new(1),
        });
        let answerer = self.spawn(Player::Answerer);
        let enough = Arc::new(AtomicBool::new(false));
        let flooder = |_| {
            let (flooded, enough) = (flooded.clone(), enough.clone());
            tokio::spawn(async move {
                let mut sent = 0_u64;
                while !enough.load(Ordering::Relaxed) {
                    put(&flooded, Message::Tick).await;
                    sent += 1;
                }
                sent
            })
        };
        let flooders: Vec<_> = (0..FLOODERS).map(flooder).collect();
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        let mut waited = Vec::new();
        while since.elapsed() < FLOOD.mul_f64(self.scale) {
            // Not at once: else most questions would fall into the moments that suit them.
            tokio::time::sleep(PAUSE).await;
            let asked = Instant::now();
            let ask = answerer.ask(|reply_to| Message::Ask(0, reply_to));
            ask.await.unwrap();
            waited.push(asked.elapsed());
        }
        let mut found = Found::new(waited.len() as u64, since);
        enough.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for flooder in flooders {
            sent += flooder.await.unwrap();
        }
        waited.sort_unstable();
        let last = waited.len() - 1;
        let micros =
            |part: usize| waited[(waited.len() * part / 100).min(last)].as_nanos() as f64 / 1e3;
        let flood_per_sec = sent as f64 / found.took.as_secs_f64();
        found.more = vec![
            ("p50_us", micros(50)),
            ("p99_us", micros(99)),
            ("max_us", micros(100)),
            ("flood_per_sec", flood_per_sec.round()),
        ];
        found
    }
}

/// A line of this process's status, in KiB; 0 where the system has no such thing.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().nth(1));
    number.and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

struct Arguments {
    json: bool,
    /// This is the process of one run; somebody else has printed the head of the table.
    alone: bool,
    scale: f64,
    rounds: u32,
    workloads: Vec<String>,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        let mut parsed = Self {
            json: false,
            alone: false,
            scale: 1.0,
            rounds: 1,
            workloads: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse::<f64>().ok());
            match word.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--json" => parsed.json = true,
                "--alone" => parsed.alone = true,
                "--scale" => match number() {
                    Some(scale) if scale > 0.0 => parsed.scale = scale,
                    _ => return Err("--scale needs a number above 0".to_owned()),
                },
                "--rounds" => match number() {
                    Some(rounds) if rounds >= 1.0 => parsed.rounds = rounds as u32,
                    _ => return Err("--rounds needs a number from 1".to_owned()),
                },
                name if WORKLOADS.contains(&name) => parsed.workloads.push(word),
                other => {
                    let known = WORKLOADS.join(", ");
                    return Err(format!(
                        "{other}: no such workload or option; there are {known}"
                    ));
                }
            }
        }
        if parsed.workloads.is_empty() {
            parsed.workloads = WORKLOADS.map(str::to_owned).to_vec();
        }
        Ok(parsed)
    }
}

fn print(workload: &str, found: &Found, json: bool) {
    let Found { n, took, more } = found;
    let seconds = took.as_secs_f64();
    let per_sec = *n as f64 / seconds;
    let (rss, peak) = (memory("VmRSS"), memory("VmHWM"));
    if json {
        let more: String = more.iter().map(|(k, v)| format!(",\"{k}\":{v}")).collect();
        println!(
            "{{\"peer\":\"otava\",\"workload\":\"{workload}\",\"n\":{n},\"seconds\":{seconds:.4},\
             \"per_sec\":{per_sec:.0},\"rss_kb\":{rss},\"peak_kb\":{peak},\
             \"mailbox\":\"{MAILBOX}\"{more}}}"
        );
    } else {
        let more: String = more.iter().map(|(k, v)| format!("  {k} {v}")).collect();
        let peak = peak / 1_024;
        println!("{workload:<9} {n:>9} {seconds:>9.4} {per_sec:>12.0} {peak:>9}{more}");
    }
}

/// Runs a workload in a fresh runtime and prints what it found while its memory is still held.
fn run_here(workload: &str, scale: f64, json: bool) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(WORKERS).enable_all().build();
    let name = workload.to_owned();
    let stalled = runtime.unwrap().block_on(async move {
        // On a worker, not beside them.
        let work = tokio::spawn(async move {
            let system = ActorSystem::new("bench");
            let field = Field { system, scale };
            print(&name, &field.run(&name).await, json);
        });
        tokio::time::timeout(STALLED_AFTER, work).await
    });
    stalled.expect("the workload stalled").unwrap();
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Arguments { json, scale, .. } = arguments;
    if arguments.alone {
        for workload in &arguments.workloads {
            run_here(workload, scale, json);
        }
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().unwrap();
    let mut code = ExitCode::SUCCESS;
    if !json {
        println!("workload          n   seconds   per second  peak MiB");
    }
    for _ in 0..arguments.rounds {
        for workload in &arguments.workloads {
            let mut run = Command::new(&program);
            run.args(["--alone", workload, "--scale", &scale.to_string()]);
            run.args(json.then_some("--json"));
            if !run.status().unwrap().success() {
                eprintln!("{workload}: failed");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
