//! Journal bench: appends, replay, scans and recovery of the embedded journal beside bare SQLite, one
//! JSON object a line.
//!
//! ```text
//! cargo bench --bench journal -- --json [seconds] [workload]
//! ```
//! About 80 s; `seconds` is for each half of an append workload, 3 by default, and a workload is
//! named by a part of its name. Closed loop: each writer has one append of one event under way.
//! Latencies are of single appends, or of pages.
//!
//! `bare_per_sec` is what the engine does here by itself in the same run: a table of the same columns with
//! an index of SQLite and the same settings, one thread, no queue, no fence, no mark, no checksum; as
//! many events a commit as there are writers. Both take turns, so that a noisy machine is noisy for
//! both. `ratio` is ours to that.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its result and stops when it cannot go on"
)]

use futures_util::StreamExt as _;
use otava_persistence::{
    AppendRequest, EventQueries as _, EventQuery, EventRecord, Fence, Journal, MarkSync,
    PersistenceId, SqliteConfig, SqliteJournal,
};
use rusqlite::{Connection, params};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Half text, half random, as long as a small event.
const EVENT_BYTES: usize = 200;

fn main() {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["child", path, seconds, writers] => {
            return child(
                path.as_ref(),
                seconds.parse().unwrap(),
                writers.parse().unwrap(),
            );
        }
        ["bare-child", path, seconds, batch] => {
            let length = Duration::from_secs(seconds.parse().unwrap());
            let db = bare_open(path.as_ref());
            let first = i64::from(std::process::id()) << 20;
            return say(&bare_append(
                &db,
                first,
                batch.parse().unwrap(),
                length,
                &mut 0,
            ));
        }
        ["recover", path] => return recover_child(path.as_ref()),
        _ => {}
    }
    let seconds: u64 = words.first().map_or(3, |word| word.parse().unwrap());
    let only = words.get(1).copied().unwrap_or_default();
    let wanted = |name: &str| name.contains(only);
    for writers in [1, 64, 1000] {
        for (what, mark_sync) in [
            ("", MarkSync::Background),
            ("-mark-each", MarkSync::EveryCommit),
        ] {
            let name = format!("append-{writers}{what}");
            // The second setting is measured when it is asked for.
            if wanted(&name) && (what.is_empty() || only.contains("mark")) {
                append(&name, writers, Duration::from_secs(seconds), mark_sync);
            }
        }
    }
    if wanted("append-3-processes-64") {
        three_processes("append-3-processes-64", 64, seconds);
    }
    if wanted("replay-one") || wanted("scan-all") {
        read();
    }
    if wanted("recover-1m") {
        recover();
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

/// What one side of a workload did.
#[derive(Default)]
struct Took {
    time: Duration,
    events: u64,
    latencies: Vec<Duration>,
}

impl Took {
    fn add(&mut self, other: Self) {
        self.time += other.time;
        self.events += other.events;
        self.latencies.extend(other.latencies);
    }

    fn per_sec(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }
}

fn report(name: &str, mut took: Took, bare: Option<&Took>, more: &str) {
    took.latencies.sort_unstable();
    let n = took.latencies.len();
    let at = |part: f64| {
        let index = ((n as f64 * part) as usize).min(n.saturating_sub(1));
        let latency = took.latencies.get(index).copied().unwrap_or_default();
        latency.as_secs_f64() * 1e3
    };
    let beside = bare.map_or(String::new(), |bare| {
        format!(
            r#","bare_per_sec":{:.0},"ratio":{:.3}"#,
            bare.per_sec(),
            took.per_sec() / bare.per_sec()
        )
    });
    println!(
        r#"{{"peer":"otava","workload":"{name}","n":{},"seconds":{:.3},"per_sec":{:.0},"p50_ms":{:.3},"p99_ms":{:.3},"max_ms":{:.3}{beside}{more}}}"#,
        took.events,
        took.time.as_secs_f64(),
        took.per_sec(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

/// Runs writers for some time. They go on where they were.
async fn write(journal: &SqliteJournal, who: &str, highest: &mut [u64], length: Duration) -> Took {
    let scope = format!("bench/{who}");
    journal.claim(&scope, 7).await.unwrap();
    let fence = Fence::new(scope, 7);
    let begin = Instant::now();
    let tasks: Vec<_> = (0..)
        .zip(&*highest)
        .map(|(writer, highest): (u64, _)| {
            let (journal, fence) = (journal.clone(), fence.clone());
            let id = PersistenceId::new("bench", &format!("{who}/{writer}"));
            let mut seq = *highest;
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while begin.elapsed() < length {
                    let request = AppendRequest::new(id.clone(), seq, vec![event(seq + writer)]);
                    let sent = Instant::now();
                    let appended = journal.append(request.fenced(Some(fence.clone()))).await;
                    seq = appended.unwrap().seq;
                    latencies.push(sent.elapsed());
                }
                (seq, latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for (task, highest) in tasks.into_iter().zip(highest) {
        let (seq, of_one) = task.await.unwrap();
        *highest = seq;
        latencies.extend(of_one);
    }
    Took {
        time: begin.elapsed(),
        events: latencies.len() as u64,
        latencies,
    }
}

fn append(name: &str, writers: u64, length: Duration, mark_sync: MarkSync) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let config = SqliteConfig::default().mark_sync(mark_sync);
    let db = bare_open(&folder.path().join("bare.db"));
    let (mut ours, mut bare, mut seq) = (Took::default(), Took::default(), 0);
    let mut highest = vec![0; usize::try_from(writers).unwrap()];
    runtime().block_on(async {
        let path = folder.path().join("journal.db");
        let journal = SqliteJournal::open(&path, config).await.unwrap();
        for _ in 0..2 {
            let bare_took =
                tokio::task::block_in_place(|| bare_append(&db, 0, writers, length / 2, &mut seq));
            bare.add(bare_took);
            ours.add(write(&journal, "one", &mut highest, length / 2).await);
        }
        journal.close().await;
    });
    report(name, ours, Some(&bare), "");
}

fn bare_open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
         CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, stream INTEGER NOT NULL,
            seq INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
            written_at_ms INTEGER NOT NULL, payload BLOB NOT NULL, crc INTEGER NOT NULL, tags BLOB)
            STRICT;
         CREATE UNIQUE INDEX IF NOT EXISTS events_of_stream ON events (stream, seq);",
    )
    .unwrap();
    db
}

/// One commit of events: the stream, the number and what [`event`] each is.
fn bare_commit(db: &Connection, events: impl Iterator<Item = (i64, u64, u64)>) {
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (stream, seq, n) in events {
        let record = event(n);
        db.prepare_cached("INSERT INTO events VALUES (NULL, ?1, ?2, ?3, 1, 0, ?4, 0, NULL)")
            .unwrap()
            .execute(params![
                stream,
                seq.cast_signed(),
                record.name,
                &record.payload[..]
            ])
            .unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
}

/// The engine alone, with `batch` events a commit, of as many streams from `first` on.
fn bare_append(db: &Connection, first: i64, batch: u64, length: Duration, seq: &mut u64) -> Took {
    let (begin, mut took) = (Instant::now(), Took::default());
    while begin.elapsed() < length {
        *seq += 1;
        let commit = Instant::now();
        bare_commit(
            db,
            (0..batch).map(|n| (first + n.cast_signed(), *seq, *seq + n)),
        );
        took.events += batch;
        took.latencies.push(commit.elapsed());
    }
    took.time = begin.elapsed();
    took
}

/// What a child tells: its time, and each latency in microseconds.
fn say(took: &Took) {
    let latencies = took
        .latencies
        .iter()
        .map(|time| time.as_micros().to_string());
    let latencies: Vec<_> = latencies.collect();
    println!(
        "{} {} {}",
        took.time.as_micros(),
        took.events,
        latencies.join(" ")
    );
}

fn child(path: &Path, seconds: u64, writers: usize) {
    let took = runtime().block_on(async {
        let journal = SqliteJournal::open(path, SqliteConfig::default()).await;
        let journal = journal.unwrap();
        let who = std::process::id().to_string();
        let mut highest = vec![0; writers];
        let length = Duration::from_secs(seconds);
        let took = write(&journal, &who, &mut highest, length).await;
        journal.close().await;
        took
    });
    say(&took);
}

fn three_processes(name: &str, writers: u64, seconds: u64) {
    let folder = tempfile::tempdir_in(".").unwrap();
    drop(bare_open(&folder.path().join("bare.db")));
    let run = |mode: &str, file: &str| {
        let children: Vec<_> = (0..3)
            .map(|_| {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args([mode, folder.path().join(file).to_str().unwrap()]);
                command.args([seconds.to_string(), writers.to_string()]);
                command.stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let mut all = Took::default();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            let mut numbers = text
                .split_whitespace()
                .map(|word| word.parse::<u64>().unwrap());
            let time = Duration::from_micros(numbers.next().unwrap());
            all.time = all.time.max(time);
            all.events += numbers.next().unwrap();
            all.latencies.extend(numbers.map(Duration::from_micros));
        }
        all
    };
    let bare = run("bare-child", "bare.db");
    let ours = run("child", "journal.db");
    report(name, ours, Some(&bare), r#","processes":3"#);
}

const EVENTS: u64 = 300_000;

/// One id with many events, read page by page, and all events by position.
fn read() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("journal.db");
    runtime().block_on(async {
        let journal = SqliteJournal::open(&path, SqliteConfig::default()).await;
        let journal = journal.unwrap();
        let id = PersistenceId::new("bench", "long");
        for seq in (0..EVENTS).step_by(1000) {
            let events = (seq..seq + 1000).map(event).collect();
            let request = AppendRequest::new(id.clone(), seq, events);
            journal.append(request).await.unwrap();
        }
        let db = bare_open(&folder.path().join("bare.db"));
        bare_fill(&db);
        let (mut replay, mut bare_replay) = (Took::default(), Took::default());
        let (mut scan, mut bare_scan) = (Took::default(), Took::default());
        for _ in 0..3 {
            tokio::task::block_in_place(|| {
                bare_replay.add(bare_read(&db, "WHERE stream = 1 ORDER BY seq"));
                bare_scan.add(bare_read(&db, "ORDER BY position"));
            });
            replay.add(replay_one(&journal, &id).await);
            scan.add(scan_all(&journal).await);
        }
        report("replay-one", replay, Some(&bare_replay), r#","page":1000"#);
        report("scan-all", scan, Some(&bare_scan), r#","page":1000"#);
        journal.close().await;
    });
}

/// As many events of one stream, 1,000 a commit.
fn bare_fill(db: &Connection) {
    for first in (0..EVENTS).step_by(1000) {
        bare_commit(db, (first..first + 1000).map(|n| (1, n + 1, n)));
    }
}

fn bare_read(db: &Connection, which: &str) -> Took {
    let columns = "position, seq, name, version, written_at_ms, payload, crc";
    let begin = Instant::now();
    let mut select = db
        .prepare(&format!("SELECT {columns} FROM events {which}"))
        .unwrap();
    let mut rows = select.query([]).unwrap();
    let (mut events, mut bytes) = (0, 0);
    while let Some(row) = rows.next().unwrap() {
        events += 1;
        bytes += row.get_ref(5).unwrap().as_blob().unwrap().len();
        std::hint::black_box(row.get_ref(0).unwrap());
    }
    assert_eq!((events, bytes), (EVENTS, EVENTS as usize * EVENT_BYTES));
    Took {
        time: begin.elapsed(),
        events,
        latencies: Vec::new(),
    }
}

async fn replay_one(journal: &SqliteJournal, id: &PersistenceId) -> Took {
    let (begin, mut took) = (Instant::now(), Took::default());
    while took.events < EVENTS {
        let sent = Instant::now();
        let page = journal.read(id, took.events + 1, 1000).await.unwrap();
        took.events += page.events.len() as u64;
        took.latencies.push(sent.elapsed());
    }
    took.time = begin.elapsed();
    took
}

async fn scan_all(journal: &SqliteJournal) -> Took {
    let (begin, mut took, mut after) = (Instant::now(), Took::default(), 0);
    loop {
        let sent = Instant::now();
        let page = journal.events(&EventQuery::all(), after, 1000).await;
        let page = page.unwrap();
        took.events += page.events.len() as u64;
        took.latencies.push(sent.elapsed());
        after = page.through;
        if !page.more {
            break;
        }
    }
    took.time = begin.elapsed();
    assert_eq!(took.events, EVENTS);
    took
}

const ENTITIES: u64 = 1_000_000;

/// A million entities with an event each, read by another process that goes through all ids.
fn recover() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("journal.db");
    let took = runtime().block_on(async {
        let journal = SqliteJournal::open(&path, SqliteConfig::default()).await;
        let journal = journal.unwrap();
        let begin = Instant::now();
        let append = |n: u64| {
            let id = PersistenceId::new("bench", &n.to_string());
            journal.append(AppendRequest::new(id, 0, vec![event(n)]))
        };
        let mut appends =
            futures_util::stream::iter((0..ENTITIES).map(append)).buffer_unordered(4000);
        while let Some(appended) = appends.next().await {
            appended.unwrap();
        }
        drop(appends);
        journal.close().await;
        Took {
            time: begin.elapsed(),
            events: ENTITIES,
            latencies: Vec::new(),
        }
    });
    report("append-1m-new-entities", took, None, "");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let status = command.args(["recover", path.to_str().unwrap()]).status();
    assert!(status.unwrap().success());
}

fn recover_child(path: &Path) {
    let took = runtime().block_on(async {
        let journal = SqliteJournal::open(path, SqliteConfig::default()).await;
        let journal = journal.unwrap();
        let (begin, mut took) = (Instant::now(), Took::default());
        let mut last = None;
        loop {
            let ids = journal.ids(last.as_ref(), 1000).await.unwrap();
            let Some(newest) = ids.last().cloned() else {
                break;
            };
            last = Some(newest);
            let journal = &journal;
            let mut reads = futures_util::stream::iter(ids)
                .map(|id| async move {
                    let sent = Instant::now();
                    let page = journal.read(&id, 1, 500).await.unwrap();
                    (page.events.len() as u64, sent.elapsed())
                })
                .buffer_unordered(64);
            while let Some((events, latency)) = reads.next().await {
                took.events += events;
                took.latencies.push(latency);
            }
        }
        took.time = begin.elapsed();
        assert_eq!(took.events, ENTITIES);
        journal.close().await;
        took
    });
    let peak = peak_mib().map_or(String::new(), |mib| format!(r#","peak_rss_mib":{mib}"#));
    report("recover-1m-entities", took, None, &peak);
}

/// The most memory that this process ever had, where the system tells it.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}
