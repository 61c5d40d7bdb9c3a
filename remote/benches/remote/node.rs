//! Node: the workloads between two nodes, on both sides.

use crate::{Found, SIZE, STALLED_AFTER, memory, micros, sized};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Props, ReplyTo, TellError};
use otava_remote::{Credentials, QuicNetwork, Remote, RemoteMessage};
use serde::{Deserialize, Serialize, de};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes of one message in the stream of large ones.
const LARGE: usize = 64 << 20;
const CROWD: u64 = 1_000;

#[derive(Deserialize, Serialize)]
enum Command {
    /// Whoever asks waits until this many were taken.
    Await(u64, #[serde(with = "otava_remote::wire")] ReplyTo<()>),
    Take(Payload),
    Echo(
        Payload,
        #[serde(with = "otava_remote::wire")] ReplyTo<Payload>,
    ),
    /// Makes more actors like this one.
    Multiply(u64, #[serde(with = "otava_remote::wire")] ReplyTo<Copies>),
    Memory(#[serde(with = "otava_remote::wire")] ReplyTo<(u64, u64)>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "bench.Command";
}

/// A large message, and whom to tell that it was taken.
#[derive(Deserialize, Serialize)]
struct Bulk(Payload, #[serde(with = "otava_remote::wire")] ReplyTo<u64>);

impl RemoteMessage for Bulk {
    const NAME: &'static str = "bench.Bulk";
    const LARGE: bool = true;
}

#[derive(Deserialize, Serialize)]
struct Copies(#[serde(with = "otava_remote::wire")] Vec<ActorRef<Command>>);

/// Bytes that are written as bytes, not as a list of numbers.
struct Payload(Box<[u8]>);

impl Payload {
    fn of(bytes: usize) -> Self {
        Self(vec![7; bytes].into())
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Payload;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload(bytes.into()))
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Payload, E> {
                Ok(Payload(bytes.into()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[derive(Default)]
struct Server {
    taken: u64,
    awaited: Option<(u64, ReplyTo<()>)>,
}

impl Server {
    fn tell_if_all(&mut self) {
        if self.awaited.as_ref().is_some_and(|(n, _)| *n <= self.taken)
            && let Some((_, reply_to)) = self.awaited.take()
        {
            let _ = reply_to.send(());
        }
    }
}

impl Actor for Server {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(
        &mut self,
        command: Command,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match command {
            Command::Await(n, reply_to) => {
                self.awaited = Some((self.taken + n, reply_to));
                self.tell_if_all();
            }
            Command::Take(_) => {
                self.taken += 1;
                self.tell_if_all();
            }
            Command::Echo(payload, reply_to) => drop(reply_to.send(payload)),
            Command::Multiply(n, reply_to) => {
                let copy = |_| {
                    ctx.system()
                        .spawn_anonymous(Props::once(Self::default()))
                        .unwrap()
                };
                let _ = reply_to.send(Copies((0..n).map(copy).collect()));
            }
            Command::Memory(reply_to) => drop(reply_to.send(memory())),
        }
        Ok(())
    }
}

/// Takes large messages.
struct Sink;

impl Actor for Sink {
    type Msg = Bulk;
    type Err = Infallible;

    async fn handle(&mut self, bulk: Bulk, _: &mut Context<Self>) -> Result<(), Infallible> {
        let Bulk(payload, reply_to) = bulk;
        let _ = reply_to.send(payload.0.len() as u64);
        Ok(())
    }
}

/// Asks its partner again and again when it is told to.
struct Asker {
    partner: ActorRef<Command>,
    done: mpsc::UnboundedSender<()>,
}

impl Actor for Asker {
    /// How often.
    type Msg = u64;
    type Err = Infallible;

    async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        for _ in 0..n {
            let ask = self.partner.ask(|to| Command::Echo(Payload::of(SIZE), to));
            ask.await.unwrap();
        }
        self.done.send(()).unwrap();
        Ok(())
    }
}

fn node(folder: &Path, name: &str) -> Remote {
    let credentials = Credentials::development(folder, name).unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let network = QuicNetwork::builder(name, listen, credentials);
    let network = network.bind().unwrap();
    let system = ActorSystem::new(name);
    let remote = Remote::builder(&system, "bench", name, Arc::new(network));
    remote.start().unwrap()
}

/// Starts the server, until what is returned is dropped; with it, where it listens.
pub(crate) fn serve(folder: &Path) -> (String, Box<dyn Send>) {
    let server = node(folder, "server");
    let actor = server.system().spawn("server", Server::default()).unwrap();
    server.publish("server", &actor).unwrap();
    let sink = server.system().spawn("sink", Sink).unwrap();
    server.publish("sink", &sink).unwrap();
    (server.id().addr.to_string(), Box::new(server))
}

pub(crate) async fn run(workload: &str, folder: &Path, to: &str, scale: f64) -> Found {
    let client = node(folder, "client");
    let to = to.parse().unwrap();
    let server = client.resolve_at::<Command>(to, "server");
    let sink = client.resolve_at::<Bulk>(to, "sink");
    // Warm: connected, and past the first small windows.
    pings(&server, sized(2_000, scale)).await;
    let found = match workload {
        "remote_tell100" => tell100(&server, sized(5_000_000, scale)).await,
        "remote_rtt" => {
            let n = sized(50_000, scale);
            pings(&server, n).await;
            let since = Instant::now();
            let waits = pings(&server, n).await;
            Found::new(n, since).with_waits(waits)
        }
        "remote_ask_1000" => ask_1000(&client, &server, sized(2_000_000, scale)).await,
        "remote_large_beside_ping" => large_beside_ping(&server, sink, scale).await,
        _ => unreachable!("the names were checked"),
    };
    let memory = server.ask(Command::Memory).await.unwrap();
    let found = found.with_server(memory);
    client.shutdown().await;
    found
}

/// Sends, and waits for room only when there is none.
async fn put(to: &ActorRef<Command>, message: Command) {
    match to.tell(message) {
        Ok(()) => {}
        Err(TellError::Full(message)) => to.send(message).await.unwrap(),
        Err(refused) => panic!("{refused:?}"),
    }
}

async fn pings(server: &ActorRef<Command>, n: u64) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(usize::try_from(n).unwrap());
    for _ in 0..n {
        let since = Instant::now();
        let ask = server.ask(|to| Command::Echo(Payload::of(SIZE), to));
        ask.await.unwrap();
        waits.push(since.elapsed());
    }
    waits
}

async fn tell100(server: &ActorRef<Command>, n: u64) -> Found {
    let since = Instant::now();
    let (reply_to, all) = ReplyTo::channel(None);
    put(server, Command::Await(n, reply_to)).await;
    for _ in 0..n {
        put(server, Command::Take(Payload::of(SIZE))).await;
    }
    all.await.unwrap();
    Found::new(n, since)
}

async fn ask_1000(client: &Remote, server: &ActorRef<Command>, n: u64) -> Found {
    let Copies(partners) = server.ask(|to| Command::Multiply(CROWD, to)).await.unwrap();
    let (done, mut all_done) = mpsc::unbounded_channel();
    let asker = |partner| {
        let done = done.clone();
        let asker = Asker { partner, done };
        client.system().spawn_anonymous(Props::once(asker)).unwrap()
    };
    let askers: Vec<_> = partners.into_iter().map(asker).collect();
    let each = n / CROWD;
    // The first round connects everything to everything.
    for round in [1, each] {
        let since = Instant::now();
        for asker in &askers {
            asker.tell(round).unwrap();
        }
        for _ in &askers {
            all_done.recv().await.unwrap();
        }
        if round == each {
            return Found::new(each * CROWD, since);
        }
    }
    unreachable!("the last round returns")
}

async fn large_beside_ping(server: &ActorRef<Command>, sink: ActorRef<Bulk>, scale: f64) -> Found {
    let n = sized(20_000, scale);
    let mut quiet = pings(server, n).await;
    let (enough, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let flood = tokio::spawn({
        let (enough, sent) = (enough.clone(), sent.clone());
        async move {
            while !enough.load(Ordering::Relaxed) {
                let ask = sink.ask(|to| Bulk(Payload::of(LARGE), to));
                let taken = ask.within(STALLED_AFTER).await.unwrap();
                sent.fetch_add(taken, Ordering::Relaxed);
            }
        }
    });
    let before = sent.load(Ordering::Relaxed);
    let since = Instant::now();
    let beside = pings(server, n).await;
    let mut found = Found::new(n, since);
    let bytes = sent.load(Ordering::Relaxed) - before;
    enough.store(true, Ordering::Relaxed);
    flood.await.unwrap();
    quiet.sort_unstable();
    let mib_per_sec = bytes as f64 / found.took.as_secs_f64() / f64::from(1 << 20);
    found.more = vec![
        ("quiet_p50_us", micros(&quiet, 50)),
        ("quiet_p99_us", micros(&quiet, 99)),
        ("large_mib_per_sec", mib_per_sec.round()),
    ];
    found.with_waits(beside)
}
