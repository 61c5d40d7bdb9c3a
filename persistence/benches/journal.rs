//! Journal bench: durable appends and replay of the embedded journal, one JSON object a line.
//!
//! ```text
//! cargo bench -p otava-persistence --bench journal -- --json [seconds] [workload]
//! ```
//! Closed loop: each writer has one append of one event under way. Latencies are of single appends.
//! `append-*-bare` is the same number of events a transaction on bare SQLite (same tables, same
//! settings, one thread, no queue, no fence, no mark): what the engine itself can do here.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its result and stops when it cannot go on"
)]

use otava_persistence::{
    AppendRequest, EventRecord, Fence, Journal, MarkSync, PersistenceId, SqliteConfig,
    SqliteJournal,
};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Half text, half random, as long as a small event.
const EVENT_BYTES: usize = 200;

fn main() {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let number = |at: usize| arguments.get(at).and_then(|word| word.parse().ok());
    if arguments.first().is_some_and(|word| word == "child") {
        return child(
            Path::new(&arguments[1]),
            number(2).unwrap(),
            number(3).unwrap(),
        );
    }
    let seconds: u64 = number(0).unwrap_or(5);
    let only = arguments.get(1).map_or("", String::as_str);
    let length = Duration::from_secs(seconds);
    let wanted = |name: &str| name.contains(only);
    for writers in [1, 64, 1000] {
        let name = format!("append-{writers}");
        if wanted(&name) {
            append(&name, writers, length, MarkSync::Background);
        }
        let name = format!("append-{writers}-mark-each");
        if wanted(&name) {
            append(&name, writers, length, MarkSync::EveryCommit);
        }
        let name = format!("append-{writers}-bare");
        if wanted(&name) {
            bare(&name, writers, length);
        }
    }
    for writers in [16, 256] {
        let name = format!("append-3-processes-{writers}");
        if wanted(&name) {
            three_processes(&name, writers, seconds);
        }
    }
    if wanted("replay") {
        replay();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn event(n: u64) -> EventRecord {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut payload = vec![b'x'; EVENT_BYTES];
    for byte in &mut payload[EVENT_BYTES / 2..] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    EventRecord::new("bench.Event", 1, payload)
}

/// Runs writers for some time and returns the latency of each append.
async fn write(
    journal: &SqliteJournal,
    who: &str,
    writers: u64,
    length: Duration,
) -> Vec<Duration> {
    let scope = format!("bench/{who}");
    journal.claim(&scope, 7).await.unwrap();
    let fence = Fence::new(scope, 7);
    let end = Instant::now() + length;
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (journal, fence) = (journal.clone(), fence.clone());
            let id = PersistenceId::new("bench", &format!("{who}/{writer}"));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut seq = 0;
                while Instant::now() < end {
                    let request = AppendRequest::new(id.clone(), seq, vec![event(seq + writer)]);
                    let begin = Instant::now();
                    seq = journal
                        .append(request.fenced(Some(fence.clone())))
                        .await
                        .unwrap()
                        .seq;
                    latencies.push(begin.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies
}

fn append(name: &str, writers: u64, length: Duration, mark_sync: MarkSync) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let config = SqliteConfig::default().mark_sync(mark_sync);
    runtime().block_on(async {
        let path = folder.path().join("journal.db");
        let journal = SqliteJournal::open(&path, config).await.unwrap();
        let begin = Instant::now();
        let latencies = write(&journal, "one", writers, length).await;
        report(name, begin.elapsed(), latencies, "");
        journal.close().await;
    });
}

fn report(name: &str, took: Duration, mut latencies: Vec<Duration>, more: &str) {
    latencies.sort_unstable();
    let n = latencies.len();
    let at = |part: f64| {
        let index = ((n as f64 * part) as usize).min(n.saturating_sub(1));
        latencies
            .get(index)
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
            * 1e3
    };
    let seconds = took.as_secs_f64();
    println!(
        r#"{{"peer":"otava","workload":"{name}","n":{n},"seconds":{seconds:.3},"per_sec":{:.0},"p50_ms":{:.3},"p99_ms":{:.3},"max_ms":{:.3}{more}}}"#,
        n as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

/// The engine alone, with as many events a commit as there are writers.
fn bare(name: &str, batch: u64, length: Duration) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let db = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE events (position INTEGER PRIMARY KEY, stream INTEGER, seq INTEGER, tag TEXT,
            version INTEGER, written_at_ms INTEGER, payload BLOB, crc INTEGER) STRICT;
         CREATE UNIQUE INDEX events_of_stream ON events (stream, seq);",
    )
    .unwrap();
    let (begin, mut latencies, mut seq) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < length {
        seq += 1;
        let commit = Instant::now();
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        for stream in 0..batch {
            let record = event(seq + stream);
            db.prepare_cached("INSERT INTO events VALUES (NULL, ?1, ?2, ?3, 1, 0, ?4, 0)")
                .unwrap()
                .execute(rusqlite::params![
                    stream.cast_signed(),
                    seq.cast_signed(),
                    record.name,
                    record.payload
                ])
                .unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        latencies.extend((0..batch).map(|_| commit.elapsed()));
    }
    report(name, begin.elapsed(), latencies, "");
}

fn three_processes(name: &str, writers: u64, seconds: u64) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("journal.db");
    let begin = Instant::now();
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["child", path.to_str().unwrap(), &seconds.to_string()]);
            command
                .arg(writers.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut latencies = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        latencies.extend(
            text.split_whitespace()
                .map(|us| Duration::from_micros(us.parse().unwrap())),
        );
    }
    report(name, begin.elapsed(), latencies, r#","processes":3"#);
}

fn child(path: &Path, seconds: u64, writers: u64) {
    let latencies = runtime().block_on(async {
        let journal = SqliteJournal::open(path, SqliteConfig::default())
            .await
            .unwrap();
        let who = std::process::id().to_string();
        let latencies = write(&journal, &who, writers, Duration::from_secs(seconds)).await;
        journal.close().await;
        latencies
    });
    let text: Vec<_> = latencies
        .iter()
        .map(|time| time.as_micros().to_string())
        .collect();
    println!("{}", text.join(" "));
}

/// One id with 200,000 events, read page by page.
fn replay() {
    const EVENTS: u64 = 200_000;
    let folder = tempfile::tempdir_in(".").unwrap();
    runtime().block_on(async {
        let path = folder.path().join("journal.db");
        let journal = Arc::new(
            SqliteJournal::open(&path, SqliteConfig::default())
                .await
                .unwrap(),
        );
        let id = PersistenceId::new("bench", "long");
        for seq in (0..EVENTS).step_by(1000) {
            let events = (seq..seq + 1000).map(event).collect();
            journal
                .append(AppendRequest::new(id.clone(), seq, events))
                .await
                .unwrap();
        }
        let (begin, mut seq, mut pages) = (Instant::now(), 0, Vec::new());
        while seq < EVENTS {
            let page = Instant::now();
            seq += journal.read(&id, seq + 1, 500).await.unwrap().events.len() as u64;
            pages.push(page.elapsed());
        }
        let took = begin.elapsed();
        let per_sec = EVENTS as f64 / took.as_secs_f64();
        report(
            "replay-pages-of-500",
            took,
            pages,
            &format!(r#","events_per_sec":{per_sec:.0}"#),
        );
        journal.close().await;
    });
}
