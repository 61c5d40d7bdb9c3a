//! Bench: what passes between two processes over QUIC with mutual TLS, a line for each workload.
//!
//! `cargo bench --bench remote -- [--json] [--scale x] [--rounds n] [workload..]`. Names and sizes
//! are those that the programs for other actor libraries use; `scripts/bench-remote-peers.sh` puts
//! the lines side by side. `floor_*` are the same bytes over bare quinn: what no layer above it can
//! beat. Everything is as shipped: default limits, default lanes, the default deadline of an ask.
//!
//! Each workload has two processes of its own, client and server, two workers each.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for people"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[path = "remote/floor.rs"]
mod floor;
#[path = "remote/node.rs"]
mod node;

const WORKLOADS: [&str; 6] = [
    "floor_tell100",
    "floor_rtt",
    "remote_tell100",
    "remote_rtt",
    "remote_ask_1000",
    "remote_large_beside_ping",
];
const USAGE: &str = "usage: remote [--json] [--scale x] [--rounds n] [workload..]";
const WORKERS: usize = 2;
/// Bytes of a message.
const SIZE: usize = 100;
/// A workload that takes longer has lost a message.
const STALLED_AFTER: Duration = Duration::from_secs(120);

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

    /// Adds the middle and the tail of what was waited for.
    fn with_waits(mut self, mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        self.more.push(("p50_us", micros(&waits, 50)));
        self.more.push(("p99_us", micros(&waits, 99)));
        self
    }

    /// Adds the memory of the other process: now, and at its peak.
    fn with_server(mut self, (rss, peak): (u64, u64)) -> Self {
        self.more.push(("server_rss_kb", rss as f64));
        self.more.push(("server_peak_kb", peak as f64));
        self
    }
}

/// The wait that this part, in percent, of all sorted ones does not exceed.
fn micros(waits: &[Duration], part: usize) -> f64 {
    let at = (waits.len() * part / 100).min(waits.len() - 1);
    waits[at].as_nanos() as f64 / 1e3
}

/// How large a workload is.
fn sized(full: u64, scale: f64) -> u64 {
    ((full as f64 * scale) as u64).max(1_000)
}

/// Resident memory of this process, now and at its peak, in KiB; 0 where the system does not say.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|rest| rest.split_whitespace().nth(1));
        number.and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    (number("VmRSS"), number("VmHWM"))
}

/// The process on the other side; it ends with this value.
struct Server {
    child: Child,
    /// What it said when it was ready: where it listens.
    ready: String,
}

impl Server {
    fn start(workload: &str, folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--server", workload]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        let ready = ready.trim().to_owned();
        assert!(!ready.is_empty(), "the server did not start");
        Self { child, ready }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It reads its input until that ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn on_runtime<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(WORKERS).enable_all().build();
    // On a worker, not beside them.
    runtime
        .unwrap()
        .block_on(async move { tokio::spawn(work).await.unwrap() })
}

/// The server's process: says where it listens, and ends with its input.
fn serve(workload: String, folder: String) {
    on_runtime(async move {
        let folder = Path::new(&folder);
        let (ready, _serving) = if workload.starts_with("floor") {
            floor::serve(folder)
        } else {
            node::serve(folder)
        };
        println!("{ready}");
        let input = || std::io::stdin().read_line(&mut String::new());
        let _ = tokio::task::spawn_blocking(input).await;
    });
}

/// The client's process: runs a workload against a server of its own.
fn run_here(workload: &str, scale: f64, json: bool) {
    let folder = tempfile::TempDir::new().unwrap();
    let server = Server::start(workload, folder.path());
    let (name, to) = (workload.to_owned(), server.ready.clone());
    let folder_path = folder.path().to_owned();
    on_runtime(async move {
        let work = async {
            if name.starts_with("floor") {
                floor::run(&name, &folder_path, &to, scale).await
            } else {
                node::run(&name, &folder_path, &to, scale).await
            }
        };
        let found = tokio::time::timeout(STALLED_AFTER, work).await;
        print(&name, &found.expect("the workload stalled"), json);
    });
}

fn print(workload: &str, found: &Found, json: bool) {
    let Found { n, took, more } = found;
    let seconds = took.as_secs_f64();
    let per_sec = *n as f64 / seconds;
    let (rss, peak) = memory();
    // The floor has the names of what it is the floor of.
    let (peer, workload) = match workload.strip_prefix("floor") {
        Some(rest) => ("quinn-floor", format!("remote{rest}")),
        None => ("otava", workload.to_owned()),
    };
    if json {
        let more: String = more.iter().map(|(k, v)| format!(",\"{k}\":{v}")).collect();
        println!(
            "{{\"peer\":\"{peer}\",\"workload\":\"{workload}\",\"n\":{n},\"seconds\":{seconds:.4},\
             \"per_sec\":{per_sec:.0},\"rss_kb\":{rss},\"peak_kb\":{peak}{more}}}"
        );
    } else {
        let more: String = more.iter().map(|(k, v)| format!("  {k} {v}")).collect();
        let peak = peak / 1_024;
        println!("{peer:<12} {workload:<25} {seconds:>8.3} {per_sec:>11.0} {peak:>9}{more}");
    }
}

/// What the command line asks for.
enum Order {
    Bench(Arguments),
    Serve { workload: String, folder: String },
}

struct Arguments {
    json: bool,
    /// This is the process of one run; somebody else has printed the head of the table.
    alone: bool,
    scale: f64,
    rounds: u32,
    workloads: Vec<String>,
}

impl Order {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        let mut parsed = Arguments {
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
                "--server" => {
                    let (workload, folder) = (words.next(), words.next());
                    let both = workload.zip(folder).ok_or("--server is for this program")?;
                    let (workload, folder) = both;
                    return Ok(Self::Serve { workload, folder });
                }
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
        Ok(Self::Bench(parsed))
    }
}

fn main() -> ExitCode {
    let arguments = match Order::parse(std::env::args().skip(1)) {
        Ok(Order::Bench(arguments)) => arguments,
        Ok(Order::Serve { workload, folder }) => {
            serve(workload, folder);
            return ExitCode::SUCCESS;
        }
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
    if !json {
        println!("who          workload                   seconds  per second  peak MiB");
    }
    let mut code = ExitCode::SUCCESS;
    for _ in 0..arguments.rounds {
        for workload in &arguments.workloads {
            let mut run = Command::new(std::env::current_exe().unwrap());
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
