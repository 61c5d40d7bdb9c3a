//! Bench: entities: what it costs to reach one, to keep its events, to move it, and to hold many, a line
//! for each workload.
//!
//! `cargo bench --bench entities -- [--json] [--scale x] [workload..]`
//!
//! | workload | what is compared |
//! | --- | --- |
//! | `ask_local` | an ask of an entity of this node, and an ask of an actor beside it |
//! | `ask_other_node` | an ask of an entity of another node, and an ask of an actor there |
//! | `durable` | commands with one event, one node, embedded journal; and bare appends of the same |
//! | `durable_three` | the same, three processes on one file |
//! | `move` | how long asks wait while shards move to a node that came, and from one that leaves |
//! | `kill` | a process is killed: until every shard answers again |
//! | `passivated` | what an entity keeps that was passivated, beside others that live |
//! | `idle` | memory of a live entity that is idle, and how long one takes to start |
//!
//! Everything is as shipped, mutual TLS on. A workload has a process of its own.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for people"
)]

mod cost;
mod entity;
mod fleet;
mod idle;
mod moves;

use std::process::{Command, ExitCode};
use std::time::Duration;

const WORKLOADS: [&str; 8] = [
    "ask_local",
    "ask_other_node",
    "durable",
    "durable_three",
    "move",
    "kill",
    "passivated",
    "idle",
];
const USAGE: &str = "usage: entities [--json] [--scale x] [workload..]";

/// What a workload found: names and numbers.
type Found = Vec<(&'static str, f64)>;

struct Arguments {
    alone: bool,
    json: bool,
    scale: f64,
    workloads: Vec<String>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        alone: false,
        json: false,
        scale: 1.0,
        workloads: Vec::new(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo says so.
            "--bench" => {}
            "--alone" => arguments.alone = true,
            "--json" => arguments.json = true,
            "--scale" => arguments.scale = words.next()?.parse().ok()?,
            word if WORKLOADS.contains(&word) => arguments.workloads.push(word.to_owned()),
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "--node") {
        fleet::node(words.skip(1).collect());
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = arguments(words) else {
        eprintln!("{USAGE}\nworkloads: {}", WORKLOADS.join(" "));
        return ExitCode::FAILURE;
    };
    if arguments.alone {
        for workload in &arguments.workloads {
            tell(workload, &run(workload, arguments.scale), arguments.json);
        }
        return ExitCode::SUCCESS;
    }
    let all = arguments.workloads.is_empty();
    let wanted = |name: &&&str| all || arguments.workloads.iter().any(|word| word == **name);
    let mut code = ExitCode::SUCCESS;
    for workload in WORKLOADS.iter().filter(wanted) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--alone", "--scale", &arguments.scale.to_string(), workload]);
        if arguments.json {
            command.arg("--json");
        }
        if !command.status().unwrap().success() {
            eprintln!("{workload} failed");
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn run(workload: &str, scale: f64) -> Found {
    match workload {
        "ask_local" => on_runtime(cost::ask_local(scale)),
        "ask_other_node" => on_runtime(cost::ask_other_node(scale)),
        "durable" => on_runtime(cost::durable(scale)),
        "durable_three" => fleet::durable(scale),
        "move" => on_runtime(moves::planned(scale)),
        "kill" => fleet::kill(),
        "passivated" => on_runtime(idle::passivated(scale)),
        "idle" => on_runtime(idle::many(scale)),
        unknown => unreachable!("{unknown} is no workload"),
    }
}

fn tell(workload: &str, found: &Found, json: bool) {
    if json {
        let mut line = serde_json::Map::new();
        line.insert("workload".to_owned(), workload.into());
        for (name, number) in found {
            line.insert((*name).to_owned(), (*number).into());
        }
        println!("{}", serde_json::Value::Object(line));
    } else {
        let numbers = found.iter().map(|(name, n)| format!("{name} {n:.2}"));
        println!("{workload:15} {}", numbers.collect::<Vec<_>>().join("  "));
    }
}

fn on_runtime<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().unwrap();
    // On a worker, not beside them.
    runtime.block_on(async move { tokio::spawn(work).await.unwrap() })
}

/// How large a workload is.
fn sized(full: u64, scale: f64) -> u64 {
    ((full as f64 * scale) as u64).max(100)
}

/// The wait in milliseconds that this part, in percent, of all waits does not exceed.
fn millis(waits: &mut [Duration], part: usize) -> f64 {
    waits.sort_unstable();
    let at = (waits.len() * part / 100).min(waits.len().saturating_sub(1));
    waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
}

/// Resident memory of this process in bytes; 0 where the system does not say.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    number.unwrap_or(0.0) * 1024.0
}
