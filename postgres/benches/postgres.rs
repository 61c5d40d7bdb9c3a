//! Postgres bench: durable appends beside a plain INSERT, and reads, one JSON object a line.
//!
//! ```text
//! cargo bench -p otava-postgres --bench postgres -- --json [seconds a round] [workload]
//! ```
//! Runs on a server of its own (settings as initdb makes them, so `fsync` is on), or on that of
//! `OTAVA_POSTGRES_URL`. Closed loop: each writer has one append of one event of 200 B under way.
//! `plain` is one task that writes as many events a statement, `INSERT ... SELECT FROM UNNEST`, by the
//! same client library over one connection, into a table with the same columns and indexes; `lean`
//! is the same with a primary key as its only index and no columns but id, number and payload. Ours and
//! theirs take turns, so that what else happens on the machine meets all of them.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its result and stops when it cannot go on"
)]

#[path = "../tests/it/local_server.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod local_server;

use futures_util::TryStreamExt as _;
use otava_persistence::{
    AppendRequest, EventQuery, EventRecord, Fence, Journal, PersistenceId, current_events,
};
use otava_postgres::{PostgresConfig, PostgresJournal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// Half text, half random, as long as a small event.
const EVENT_BYTES: usize = 200;
const ROUNDS: usize = 3;
const PLAIN: &str = "CREATE TABLE plain (
    position bigint GENERATED ALWAYS AS IDENTITY, seq bigint NOT NULL, written_at_ms bigint NOT NULL,
    version integer NOT NULL, kind integer NOT NULL, slice smallint NOT NULL, id bytea NOT NULL,
    name bytea NOT NULL, tags bytea[], payload bytea NOT NULL,
    PRIMARY KEY (position, slice, kind));
    CREATE UNIQUE INDEX ON plain (id, seq);
    CREATE TABLE lean (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, seq bigint NOT NULL, id bytea NOT NULL,
    payload bytea NOT NULL)";

fn main() {
    let words: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let seconds = words
        .first()
        .and_then(|word| word.parse().ok())
        .unwrap_or(5);
    let only = words.get(1).map_or("", String::as_str);
    let own;
    let url = match std::env::var("OTAVA_POSTGRES_URL") {
        Ok(url) => url,
        Err(_) => match local_server::own(&["fsync=on"]) {
            Some(server) => {
                own = server;
                own.url()
            }
            None => return,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for writers in [1, 64, 1000] {
            if format!("append-{writers}").contains(only) {
                append(&url, writers, Duration::from_secs(seconds)).await;
            }
        }
        if "read".contains(only) {
            read(&url).await;
        }
    });
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

async fn journal(url: &str, name: &str) -> PostgresJournal {
    let schema = format!("bench_{}_{name}", std::process::id());
    let config = PostgresConfig::parse(url).unwrap().schema(schema);
    PostgresJournal::open(config).await.unwrap()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn append(url: &str, writers: u64, length: Duration) {
    let journal = journal(url, &format!("append_{writers}")).await;
    journal.claim("bench", 7).await.unwrap();
    let client = connect(url).await;
    let tables = format!("DROP TABLE IF EXISTS plain, lean; {PLAIN}");
    client.batch_execute(&tables).await.unwrap();
    let (mut ours, mut plain, mut lean) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        plain.push(plain_inserts(&client, true, (writers, round), length).await);
        ours.push(write(&journal, round, writers, length).await);
        lean.push(plain_inserts(&client, false, (writers, round), length).await);
    }
    let name = format!("append-{writers}");
    let plain = report("plain", &name, plain, None);
    let lean = report("lean", &name, lean, None);
    report("otava", &name, ours, Some((plain, lean)));
    journal.close().await;
}

/// Runs writers for some time; gives the latency of each append and the time in all.
async fn write(
    journal: &PostgresJournal,
    round: usize,
    writers: u64,
    length: Duration,
) -> (Duration, Vec<Duration>) {
    let fence = Fence::new("bench", 7);
    let begin = Instant::now();
    let end = begin + length;
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (journal, fence) = (journal.clone(), fence.clone());
            let id = PersistenceId::new("bench", &format!("{round}/{writer}"));
            tokio::spawn(async move {
                let (mut latencies, mut seq) = (Vec::new(), 0);
                while Instant::now() < end {
                    let request = AppendRequest::new(id.clone(), seq, vec![event(seq + writer)]);
                    let begin = Instant::now();
                    let appended = journal.append(request.fenced(Some(fence.clone()))).await;
                    seq = appended.unwrap().seq;
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
    (begin.elapsed(), latencies)
}

/// One statement after the other, each with as many events as there are writers.
async fn plain_inserts(
    client: &Client,
    whole: bool,
    (batch, round): (u64, usize),
    length: Duration,
) -> (Duration, Vec<Duration>) {
    let sql = if whole {
        "INSERT INTO plain (seq, written_at_ms, version, kind, slice, id, name, tags, payload)
         SELECT seq, 0, version, kind, slice, id, name, NULL, payload
         FROM UNNEST($1::bigint[], $2::integer[], $3::integer[], $4::smallint[], $5::bytea[], \
             $6::bytea[], $7::bytea[]) AS e(seq, version, kind, slice, id, name, payload)"
    } else {
        "INSERT INTO lean (seq, id, payload)
         SELECT * FROM UNNEST($1::bigint[], $2::bytea[], $3::bytea[])"
    };
    let insert = client.prepare(sql).await.unwrap();
    let ids: Vec<_> = (0..batch)
        .map(|writer| PersistenceId::new("bench", &format!("{round}/{writer}")))
        .collect();
    let texts: Vec<_> = ids.iter().map(|id| id.as_str().as_bytes()).collect();
    let slices: Vec<_> = ids.iter().map(|id| id.slice().cast_signed()).collect();
    let count = texts.len();
    let (begin, mut latencies, mut seq) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < length {
        let events: Vec<_> = (0..batch).map(|writer| event(seq + writer)).collect();
        seq += 1;
        let seqs = vec![seq.cast_signed(); count];
        let payloads: Vec<_> = events.iter().map(|event| &event.payload[..]).collect();
        let names: Vec<_> = events.iter().map(|event| event.name.as_bytes()).collect();
        let (versions, kinds) = (vec![1; count], vec![77; count]);
        let commit = Instant::now();
        let inserted = if whole {
            client
                .execute(
                    &insert,
                    &[&seqs, &versions, &kinds, &slices, &texts, &names, &payloads],
                )
                .await
        } else {
            client.execute(&insert, &[&seqs, &texts, &payloads]).await
        };
        assert_eq!(inserted.unwrap(), batch);
        latencies.extend((0..batch).map(|_| commit.elapsed()));
    }
    (begin.elapsed(), latencies)
}

/// Prints all rounds of one workload and gives the events a second of the median round.
fn report(
    peer: &str,
    name: &str,
    rounds: Vec<(Duration, Vec<Duration>)>,
    beside: Option<(f64, f64)>,
) -> f64 {
    let rate =
        |(took, latencies): &(Duration, Vec<Duration>)| latencies.len() as f64 / took.as_secs_f64();
    let mut rates: Vec<_> = rounds.iter().map(rate).collect();
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let mut latencies: Vec<_> = rounds.into_iter().flat_map(|(_, all)| all).collect();
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = ((latencies.len() as f64 * part) as usize).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e3
    };
    let beside = beside.map_or(String::new(), |(plain, lean)| {
        let (plain, lean) = (median / plain, median / lean);
        format!(r#","of_plain":{plain:.2},"of_lean":{lean:.2}"#)
    });
    println!(
        r#"{{"peer":"{peer}","workload":"{name}","n":{},"per_sec":{median:.0},"per_sec_min":{:.0},"per_sec_max":{:.0},"p50_ms":{:.3},"p99_ms":{:.3},"max_ms":{:.3}{beside}}}"#,
        latencies.len(),
        rates[0],
        rates[rates.len() - 1],
        at(0.5),
        at(0.99),
        at(1.0),
    );
    median
}

/// 200,000 events of 100 ids, read by queries and by id.
async fn read(url: &str) {
    const EVENTS: u64 = 200_000;
    const IDS: u64 = 100;
    let journal = Arc::new(journal(url, "read").await);
    let ids: Vec<_> = (0..IDS)
        .map(|n| PersistenceId::new("bench", &n.to_string()))
        .collect();
    for seq in (0..EVENTS / IDS).step_by(200) {
        let appends = ids.iter().map(|id| {
            let events = (seq..seq + 200).map(|n| event(n).tagged(tags(n))).collect();
            journal.append(AppendRequest::new(id.clone(), seq, events))
        });
        futures_util::future::try_join_all(appends).await.unwrap();
    }
    let queries = [
        ("query-all", EventQuery::all()),
        ("query-slices-of-8", EventQuery::all().slices(0..=127)),
        ("query-tag-of-10", EventQuery::all().tag("tenth")),
    ];
    for (name, query) in queries {
        let begin = Instant::now();
        let stream = current_events(journal.queries().unwrap(), query, 0);
        let found = stream
            .try_fold(0_u64, async |n, _| Ok(n + 1))
            .await
            .unwrap();
        let took = begin.elapsed().as_secs_f64();
        let per_sec = found as f64 / took;
        println!(
            r#"{{"peer":"otava","workload":"{name}","n":{found},"per_sec":{per_sec:.0},"scanned_per_sec":{:.0}}}"#,
            EVENTS as f64 / took
        );
    }
    let begin = Instant::now();
    for id in &ids {
        let mut seq = 0;
        while seq < EVENTS / IDS {
            seq += journal.read(id, seq + 1, 500).await.unwrap().events.len() as u64;
        }
    }
    let per_sec = EVENTS as f64 / begin.elapsed().as_secs_f64();
    println!(r#"{{"peer":"otava","workload":"replay-by-id","n":{EVENTS},"per_sec":{per_sec:.0}}}"#);
    journal.close().await;
}

fn tags(n: u64) -> Vec<Arc<str>> {
    if n.is_multiple_of(10) {
        vec!["tenth".into()]
    } else {
        vec![]
    }
}
