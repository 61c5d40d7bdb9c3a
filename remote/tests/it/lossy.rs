//! Proves: over a path that loses, doubles and swaps packets, everything arrives once and in order.

use crate::nodes::{Command, Counter, Number};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorSystem, Ended, Props, Rng};
use otava_remote::{Credentials, QuicConfig, QuicNetwork, Remote};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const WATCHED: u64 = 500;
const NUMBERS: u64 = 3_000;
const WITHIN: Duration = Duration::from_secs(30);

fn start(
    folder: &TempDir,
    name: &str,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
) -> Remote {
    let credentials = Credentials::development(folder.path(), name).unwrap();
    // Loss alone must not look like death.
    let config = QuicConfig::default().idle_timeout(WITHIN);
    let mut network = QuicNetwork::builder(name, listen, credentials).config(config);
    if let Some(addr) = advertise {
        network = network.advertise(addr);
    }
    let network = network.bind().unwrap();
    let system = ActorSystem::new(name);
    let remote = Remote::builder(&system, "test", name, Arc::new(network));
    remote.start().unwrap()
}

/// What becomes of a packet.
enum Fate {
    Lost,
    Doubled,
    /// It comes behind the next one.
    Late,
    Passed,
}

fn fate(rng: &mut Rng) -> Fate {
    match rng.below(100) {
        0..5 => Fate::Lost,
        5..10 => Fate::Doubled,
        10..20 => Fate::Late,
        _ => Fate::Passed,
    }
}

/// Passes packets on between `target` and whoever calls, badly.
fn relay(socket: UdpSocket, target: SocketAddr, seed: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut rng = Rng::seeded(seed);
        let mut caller = None;
        let mut buffer = [0; 2048];
        let mut late: Option<(Vec<u8>, SocketAddr)> = None;
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let packet = &buffer[..length];
            let to = if from == target {
                caller
            } else {
                caller = Some(from);
                Some(target)
            };
            let Some(to) = to else { continue };
            let copies = match fate(&mut rng) {
                Fate::Lost => 0,
                Fate::Doubled => 2,
                Fate::Passed => 1,
                Fate::Late if late.is_none() => {
                    late = Some((packet.to_vec(), to));
                    continue;
                }
                Fate::Late => 1,
            };
            for _ in 0..copies {
                // A full socket loses it, which is no more than what this does anyway.
                let _ = socket.send_to(packet, to).await;
            }
            if let Some((packet, to)) = late.take() {
                let _ = socket.send_to(&packet, to).await;
            }
        }
    })
}

/// R2: 5 % loss, 5 % duplicates and 10 % reordering both ways: every system message once and in
/// order, every message of a user once and in order.
#[tokio::test]
async fn a_bad_path_costs_time_only() {
    let seed = std::env::var("SEED").map_or(2, |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    let folder = TempDir::new().unwrap();
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    let between = socket.local_addr().unwrap();
    // Its own address, which it does not advertise, is the one that its network prints.
    let free = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    let behind = free.local_addr().unwrap();
    drop(free);
    let b = start(&folder, "b", behind, Some(between));
    let relay = relay(socket, behind, seed);
    let a = start(&folder, "a", ANY_PORT, None);

    let mut numbers = TestProbe::<Number>::new(b.system());
    b.publish("numbers", numbers.actor_ref()).unwrap();
    let to_numbers = a.resolve::<Number>(b.id(), "numbers");
    let mut watcher = TestProbe::<Number>::new(a.system());
    let mut watched = Vec::new();
    for n in 0..WATCHED {
        let counter = b.system().spawn_anonymous(Props::once(Counter(n))).unwrap();
        b.publish(&format!("counter-{n}"), &counter).unwrap();
        let reference = a.resolve::<Command>(b.id(), &format!("counter-{n}"));
        watcher.watch(&reference);
        watched.push((counter, reference));
    }
    for n in 0..NUMBERS {
        to_numbers.tell(Number(n)).unwrap();
    }
    for n in 0..NUMBERS {
        assert_eq!(numbers.expect_msg(WITHIN).await.0, n);
    }
    // All watches have arrived when the last one is answered, for they are in order.
    let (_, last) = &watched[watched.len() - 1];
    assert_eq!(last.ask(Command::Get).within(WITHIN).await, Ok(WATCHED - 1));
    for (counter, _) in &watched {
        counter.stop();
    }
    let references = watched.iter().map(|(_, reference)| reference);
    let ended = watcher.expect_terminated_in_any_order(references, WITHIN);
    for news in ended.await {
        assert_eq!(news.reason, Ended::Stopped);
    }
    watcher.expect_no_msg(Duration::from_millis(200)).await;
    assert!(
        a.is_connected(b.id()),
        "it was the same connection all the time"
    );
    relay.abort();
    a.shutdown().await;
    b.shutdown().await;
}
