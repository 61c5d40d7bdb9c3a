//! Fleet: several processes on one journal: what they do together, and what follows when one is killed.

use crate::entity::{Command, Kept};
use crate::{Found, millis, on_runtime, sized};
use otava::prelude::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const ASKERS: u64 = 256;
/// Ids that hit every shard, with near certainty.
const PROBES: u64 = 1_000;

/// A process with one node. It says a line when it is up, and does what each line says.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    addr: String,
}

impl Process {
    fn start(folder: &Path, name: &str, seed: Option<&str>) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.arg("--node").arg(folder).arg(name).args(seed);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let addr = String::new();
        let mut process = Self {
            child,
            input,
            output,
            addr,
        };
        process.addr = process.line();
        process
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let line = line.trim().to_owned();
        assert!(!line.is_empty(), "a process has ended");
        line
    }

    fn say(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
        self.input.flush().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn processes(folder: &Path, count: usize) -> Vec<Process> {
    let first = Process::start(folder, "node-1", None);
    let seed = first.addr.clone();
    let others = (2..=count).map(|n| Process::start(folder, &format!("node-{n}"), Some(&seed)));
    std::iter::once(first).chain(others).collect()
}

/// Durable commands a second of three processes together.
pub(crate) fn durable(scale: f64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let mut fleet = processes(folder.path(), 3);
    std::thread::sleep(Duration::from_secs(5));
    let lasting = sized(8_000, scale);
    for process in &mut fleet {
        process.say(&format!("load {lasting}"));
    }
    let commands: Vec<f64> = fleet
        .iter_mut()
        .map(|process| process.line().parse().unwrap())
        .collect();
    let all: f64 = commands.iter().sum();
    vec![
        ("processes", 3.0),
        ("commands_per_s", all * 1e3 / lasting as f64),
    ]
}

/// Four processes; one that is no coordinator is killed, then the coordinator.
pub(crate) fn kill() -> Found {
    let mut found = Found::new();
    for (victim, name) in [(2, "node_s"), (0, "coordinator_s")] {
        let folder = tempfile::tempdir().unwrap();
        let mut fleet = processes(folder.path(), 4);
        std::thread::sleep(Duration::from_secs(5));
        fleet[1].say("probe");
        fleet[1].line();
        drop(fleet.remove(victim));
        let begin = Instant::now();
        let asked = usize::from(victim != 0);
        fleet[asked].say("probe");
        fleet[asked].line();
        found.push((name, begin.elapsed().as_secs_f64()));
    }
    found
}

/// The other side: one node, which does what it is told.
pub(crate) fn node(arguments: Vec<String>) {
    on_runtime(async move {
        let (folder, name) = (&arguments[0], &arguments[1]);
        let seed = arguments
            .get(2)
            .map(|addr| addr.parse::<SocketAddr>().unwrap());
        let mut node = Node::builder("bench", name).data(folder);
        if let Some(seed) = seed {
            node = node.seeds([seed]);
        }
        let node = node.start().await.unwrap();
        let entities = node.entities::<Kept>(EntityOptions::default()).unwrap();
        node.join().await.unwrap();
        entities.all_hosted().await;
        println!("{}", node.id().addr);
        let mut lines =
            tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tokio::io::stdin()));
        while let Ok(Some(line)) = lines.next_line().await {
            match line.split_once(' ') {
                Some(("load", lasting)) => {
                    let lasting = Duration::from_millis(lasting.parse().unwrap());
                    println!("{}", load(&entities, name, lasting).await);
                }
                _ => {
                    let mut waits = probe(&entities).await;
                    println!("{}", millis(&mut waits, 100));
                }
            }
        }
    });
}

/// How many commands were acknowledged in this time.
async fn load(entities: &otava::Entities<Command>, name: &str, lasting: Duration) -> u64 {
    let end = Instant::now() + lasting;
    let askers = (0..ASKERS).map(|asker| {
        let entity = entities.entity(format!("{name}-{asker}"));
        tokio::spawn(async move {
            let mut acknowledged = 0;
            while Instant::now() < end {
                entity.ask(|to| Command::Add(1, to)).await.unwrap();
                acknowledged += 1;
            }
            acknowledged
        })
    });
    let mut all = 0;
    for asker in askers.collect::<Vec<_>>() {
        all += asker.await.unwrap();
    }
    all
}

/// Asks entities of all shards, each again until it answers. A question that was lost with the node is
/// asked again after 200 ms, which is how exact the longest wait is.
async fn probe(entities: &otava::Entities<Command>) -> Vec<Duration> {
    let probes = (0..PROBES).map(|n| {
        let entity = entities.entity(format!("probe-{n}"));
        tokio::spawn(async move {
            let begin = Instant::now();
            while entity
                .ask(Command::Get)
                .within(Duration::from_millis(200))
                .await
                .is_err()
            {}
            begin.elapsed()
        })
    });
    let mut waits = Vec::new();
    for asked in probes.collect::<Vec<_>>() {
        waits.push(asked.await.unwrap());
    }
    waits
}
