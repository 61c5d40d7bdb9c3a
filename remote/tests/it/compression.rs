//! Proves: large messages cross compressed where both nodes can, unchanged, and no bomb goes off.

use crate::cuts::{Node, SOON, addr};
use crate::hostile::{Scene, frame, lane_of, message, tag_of_command, write};
use crate::nodes::Command;
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, ActorSystem, ReplyTo, Rng};
use otava_remote::{
    Compression, Credentials, Network, QuicNetwork, Remote, RemoteConfig, RemoteMessage,
    VirtualWorld,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const MIB: usize = 1 << 20;
const LIMIT: usize = 8 * MIB;
const SECOND: Duration = Duration::from_secs(1);
/// The lane for large messages.
const LARGE: u8 = 9;
const PACKED: u8 = 23;

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Page {
    Text(u64, String),
    Noise(u64, Vec<u8>),
}

impl RemoteMessage for Page {
    const NAME: &'static str = "test.Page";
    const LARGE: bool = true;
}

/// The question is small, the answer is not.
#[derive(Deserialize, Serialize)]
struct Read(#[serde(with = "otava_remote::wire")] ReplyTo<String>);

impl RemoteMessage for Read {
    const NAME: &'static str = "test.Read";
}

fn text(bytes: usize) -> String {
    "a page of a book, and "
        .chars()
        .cycle()
        .take(bytes)
        .collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = Rng::seeded(1);
    (0..bytes).map(|_| rng.next_u64() as u8).collect()
}

fn start(name: &str, network: Arc<dyn Network>, compression: Compression) -> Node {
    let mut config = RemoteConfig::default();
    config.large_bytes_max = LIMIT;
    config.compression = compression;
    let system = ActorSystem::new(name);
    let remote = Remote::builder(&system, "test", name, network)
        .config(config)
        .start()
        .unwrap();
    Node { system, remote }
}

const LZ4: Compression = Compression::Lz4 { above: 4 << 10 };

/// What compresses and what does not, large and small, in both directions: all of it arrives as it
/// was, in order, and is counted.
async fn cross(a: &Node, b: &Node) {
    let mut pages = TestProbe::<Page>::new(&b.system);
    b.remote.publish("pages", pages.actor_ref()).unwrap();
    let mut readers = TestProbe::<Read>::new(&b.system);
    b.remote.publish("readers", readers.actor_ref()).unwrap();
    let to = a.remote.resolve::<Page>(b.remote.id(), "pages");
    let sent = || {
        [
            Page::Text(0, text(3 * MIB)),
            Page::Text(1, text(100)),
            Page::Noise(2, noise(2 * MIB)),
            Page::Text(3, text(10_000)),
            Page::Text(4, text(20_000)),
            Page::Noise(5, noise(10_000)),
            Page::Text(6, text(LIMIT - 100)),
            Page::Text(7, String::new()),
        ]
    };
    let sending = async {
        for page in sent() {
            to.send(page).await.unwrap();
        }
    };
    let taking = async {
        for page in sent() {
            assert!(pages.expect_msg(SOON).await == page);
        }
    };
    tokio::join!(sending, taking);
    let window = a.remote.resolve::<Read>(b.remote.id(), "readers");
    let answering = async {
        let Read(reply_to) = readers.expect_msg(SOON).await;
        let _ = reply_to.send(text(3 * MIB));
    };
    let (answer, ()) = tokio::join!(window.ask(Read).within(SOON), answering);
    assert!(answer.unwrap() == text(3 * MIB));
    let (at_a, at_b) = (a.remote.stats(), b.remote.stats());
    assert_eq!((at_a.compressed_sent, at_b.compressed_received), (4, 4));
    assert_eq!((at_b.compressed_sent, at_a.compressed_received), (1, 1));
    assert!(at_a.bytes_saved > 10 << 20, "{}", at_a.bytes_saved);
    assert!(at_a.bytes_sent < 3 << 20, "{}", at_a.bytes_sent);
}

#[tokio::test(start_paused = true)]
async fn pages_cross_compressed_in_memory() {
    let world = VirtualWorld::new(1);
    let node = |name, port| start(name, Arc::new(world.network(addr(port), name)), LZ4);
    cross(&node("a", 1), &node("b", 2)).await;
}

#[tokio::test]
async fn pages_cross_compressed_over_quic() {
    let folder = TempDir::new().unwrap();
    let node = |name| {
        let credentials = Credentials::development(folder.path(), name).unwrap();
        let network = QuicNetwork::builder(name, ([127, 0, 0, 1], 0).into(), credentials);
        start(name, Arc::new(network.bind().unwrap()), LZ4)
    };
    cross(&node("a"), &node("b")).await;
}

/// Nothing is compressed unless it was asked for; a node that does not do it understands it.
#[tokio::test(start_paused = true)]
async fn compression_is_a_choice_of_the_sender() {
    let world = VirtualWorld::new(1);
    let node = |name, port, how| start(name, Arc::new(world.network(addr(port), name)), how);
    let (a, b) = (node("a", 1, LZ4), node("b", 2, Compression::None));
    let mut at_a = TestProbe::<Page>::new(&a.system);
    let mut at_b = TestProbe::<Page>::new(&b.system);
    a.remote.publish("pages", at_a.actor_ref()).unwrap();
    b.remote.publish("pages", at_b.actor_ref()).unwrap();
    let page = || Page::Text(1, text(MIB));
    let send = |from: &Node, to: &Node| {
        let pages: ActorRef<Page> = from.remote.resolve(to.remote.id(), "pages");
        pages.tell(page()).unwrap();
    };
    send(&a, &b);
    assert!(at_b.expect_msg(SOON).await == page());
    send(&b, &a);
    assert!(at_a.expect_msg(SOON).await == page());
    assert_eq!(a.remote.stats().compressed_sent, 1);
    assert_eq!(b.remote.stats().compressed_sent, 0);
}

/// R10: a peer that says it speaks version 1 only is sent every frame as it is, on lanes of version 1.
#[tokio::test(start_paused = true)]
async fn a_node_of_version_1_is_sent_no_packed_frame() {
    let scene = Scene::with(1, LZ4);
    let raw = scene.welcomed().await;
    let evil = scene.evil_node();
    let pages: ActorRef<Page> = scene.victim.remote.resolve(&evil, "pages");
    pages.tell(Page::Text(1, text(10_000))).unwrap();
    let mut got = Vec::new();
    while got.first_chunk::<8>() != Some(b"OTVA\x01\0\x09\0") || got.len() < 10_000 {
        if got.len() < 13 || got[6] != LARGE {
            got.clear();
        }
        let mut lane = raw.connection.accept_lane().await.unwrap();
        while got.len() < 13 || (got[6] == LARGE && got.len() < 10_000) {
            match timeout(SECOND, lane.read(64 << 10)).await {
                Ok(bytes) => got.extend_from_slice(&bytes.unwrap().unwrap()),
                Err(_) => break,
            }
        }
    }
    assert_eq!(got[12], 16, "a message, not packed");
    assert_eq!(scene.victim.remote.stats().compressed_sent, 0);
}

/// A packed frame with this method and claimed length; `block` is its only one.
fn packed(method: u8, length: usize, block: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_le_bytes();
    let block_length = u32::try_from(block.len()).unwrap().to_le_bytes();
    frame(PACKED, &[&[method], &length, &block_length, block])
}

/// Literals only, as LZ4 writes them.
fn literals(bytes: &[u8]) -> Vec<u8> {
    let mut block = vec![0xf0];
    let mut rest = bytes.len() - 15;
    while rest >= 255 {
        block.push(255);
        rest -= 255;
    }
    block.push(rest as u8);
    block.extend_from_slice(bytes);
    block
}

/// A message that the victim decodes no further than its payload, as it is and packed.
fn order() -> (Vec<u8>, Vec<u8>) {
    let plain = message(b"\x01\x07\0counter", tag_of_command(), b"\x01\x02\0\0")[4..].to_vec();
    let packed = packed(1, plain.len(), &literals(&plain));
    (plain, packed)
}

/// R5: bombs, damage, and packed frames where none may be end the connection and cost nothing.
#[tokio::test(start_paused = true)]
async fn hostile_packed_frames_end_the_connection() {
    let scene = Scene::new(8);
    scene.check("before").await;
    let (honest, good) = order();
    let within = packed(1, good.len() - 4, &literals(&good[4..]));
    let goodbye = packed(1, 30, &literals(&[&[7_u8][..], &[0; 29]].concat()));
    for (what, version, number, bytes) in [
        ("on a lane of version 1", 1, LARGE, good.clone()),
        ("on an ordinary lane", 2, 1, good.clone()),
        (
            "4 GiB claimed",
            2,
            LARGE,
            packed(1, u32::MAX as usize, &[0; 9]),
        ),
        (
            "over the limit",
            2,
            LARGE,
            packed(1, (128 << 20) + 1, &vec![0; MIB]),
        ),
        (
            "more than LZ4 can",
            2,
            LARGE,
            packed(1, 100 * MIB, &[0; 1_000]),
        ),
        (
            "less than claimed",
            2,
            LARGE,
            packed(1, honest.len() + 1, &literals(&honest)),
        ),
        (
            "more than claimed",
            2,
            LARGE,
            packed(1, honest.len() - 1, &literals(&honest)),
        ),
        ("nothing inside", 2, LARGE, packed(1, 0, &[])),
        (
            "another method",
            2,
            LARGE,
            packed(2, honest.len(), &literals(&honest)),
        ),
        ("packed twice", 2, LARGE, within),
        ("a goodbye inside", 2, LARGE, goodbye),
        (
            "a copy from before the beginning",
            2,
            LARGE,
            packed(1, 100, b"\x1f\x10\x09\x00\x50\x00"),
        ),
    ] {
        let faults = scene.faults();
        let raw = scene.welcomed().await;
        let mut lane = lane_of(&raw.connection, number, version).await;
        write(&mut lane, &bytes).await;
        assert!(raw.is_closed().await, "{what}");
        assert_eq!(scene.faults(), faults + 1, "{what}");
        scene.check(what).await;
    }
}

/// Packed frames and others may follow each other closely: all are handled, in order.
#[tokio::test(start_paused = true)]
async fn packed_frames_stand_among_others() {
    let scene = Scene::new(9);
    let (_, good) = order();
    let raw = scene.welcomed().await;
    let mut lane = lane_of(&raw.connection, LARGE, 2).await;
    let before = scene.victim.remote.stats();
    let plain = message(b"\x01\x07\0counter", tag_of_command(), b"\x01\x02\0\0");
    write(&mut lane, &[&good[..], &plain, &good].concat()).await;
    sleep(SECOND).await;
    let stats = scene.victim.remote.stats();
    assert_eq!(stats.compressed_received, before.compressed_received + 2);
    assert_eq!(
        stats.undelivered,
        before.undelivered + 3,
        "the payload means nothing"
    );
    assert!(!raw.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn ordinary_messages_are_never_compressed() {
    let world = VirtualWorld::new(1);
    let node = |name, port| start(name, Arc::new(world.network(addr(port), name)), LZ4);
    let (a, b) = (node("a", 1), node("b", 2));
    let _counter = b.counter();
    a.sees(&b).tell(Command::Blob(vec![0; 100_000])).unwrap();
    let sum = a.sees(&b).ask(Command::Get).within(SOON).await;
    assert_eq!(sum, Ok(100_000));
    assert_eq!(a.remote.stats().compressed_sent, 0);
}
