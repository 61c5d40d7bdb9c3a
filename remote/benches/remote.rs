//! Bench: asks and one-way messages between two nodes over QUIC on loopback, one JSON line each.
//!
//! `cargo bench -p otava-remote --bench remote`. Both nodes live in this process, so one machine does
//! the work of two: compare ratios within one run only.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people"
)]

use futures_util::stream::{FuturesUnordered, StreamExt};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, ReplyTo};
use otava_remote::{Credentials, QuicNetwork, Remote, RemoteMessage};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Deserialize, Serialize)]
enum Command {
    Take([u64; 12]),
    Get(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "bench.Command";
}

struct Counter(u64);

impl Actor for Counter {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(&mut self, command: Command, _: &mut Context<Self>) -> Result<(), Infallible> {
        match command {
            Command::Take(_) => self.0 += 1,
            Command::Get(reply_to) => drop(reply_to.send(self.0)),
        }
        Ok(())
    }
}

fn node(folder: &tempfile::TempDir, name: &str) -> Remote {
    let credentials = Credentials::development(folder.path(), name).unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let network = QuicNetwork::builder(name, listen, credentials)
        .bind()
        .unwrap();
    let system = ActorSystem::new(name);
    Remote::builder(&system, "bench", name, Arc::new(network))
        .start()
        .unwrap()
}

fn report(workload: &str, n: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    let per_sec = (n as f64 / seconds) as u64;
    println!(
        "{{\"peer\":\"otava\",\"workload\":\"{workload}\",\"n\":{n},\"seconds\":{seconds:.3},\"per_sec\":{per_sec}}}"
    );
}

async fn asks(counter: &ActorRef<Command>, in_flight: usize, n: u64) -> Duration {
    let from = Instant::now();
    let mut waiting = FuturesUnordered::new();
    let mut sent = 0;
    while sent < n || !waiting.is_empty() {
        while sent < n && waiting.len() < in_flight {
            waiting.push(counter.ask(Command::Get).into_future());
            sent += 1;
        }
        waiting.next().await.unwrap().unwrap();
    }
    from.elapsed()
}

#[tokio::main]
async fn main() {
    let folder = tempfile::TempDir::new().unwrap();
    let (a, b) = (node(&folder, "a"), node(&folder, "b"));
    let counter = b.system().spawn("counter", Counter(0)).unwrap();
    b.publish("counter", &counter).unwrap();
    let counter = a.resolve::<Command>(b.id(), "counter");
    asks(&counter, 1, 100).await;
    for _ in 0..3 {
        report("remote-ask-1", 5_000, asks(&counter, 1, 5_000).await);
        report(
            "remote-ask-256",
            200_000,
            asks(&counter, 256, 200_000).await,
        );
        let n = 1_000_000;
        let from = Instant::now();
        let before = counter.ask(Command::Get).await.unwrap();
        for _ in 0..n {
            counter.send(Command::Take([7; 12])).await.unwrap();
        }
        while counter.ask(Command::Get).await.unwrap() < before + n {}
        report("remote-one-way-100B", n, from.elapsed());
    }
    println!("{:?}", a.stats());
}
