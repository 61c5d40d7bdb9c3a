//! Proves: a large message has little under way, whatever the peer says of what it took, and arrives whole.

use crate::cuts::{Node, SOON, addr};
use crate::hostile::{Raw, Scene, frame, lane_of, write};
use crate::nodes::Command;
use otava_actor::ActorSystem;
use otava_actor::testkit::TestProbe;
use otava_remote::{
    Credentials, LaneReader, Network, QuicNetwork, Remote, RemoteMessage, VirtualWorld,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

const KIB: usize = 1 << 10;
/// The lanes for large messages and for credits.
const LARGE: u8 = 9;
const CREDITS: u8 = 10;
/// The first version with credits.
const VERSION: u8 = 3;
/// What may be under way at first; the lane's own beginning comes before it.
const WINDOW: usize = 48 * KIB;
const BEGINNING: usize = 8;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Page(String);

impl RemoteMessage for Page {
    const NAME: &'static str = "test.Credited";
    const LARGE: bool = true;
}

impl Page {
    fn of(bytes: usize) -> Self {
        Self("p".repeat(bytes))
    }
}

/// The lane for large messages that the victim opens.
async fn large_lane(raw: &Raw) -> Box<dyn LaneReader> {
    loop {
        let mut lane = raw.connection.accept_lane().await.unwrap();
        let mut begin = Vec::new();
        while begin.len() < BEGINNING {
            begin.extend_from_slice(&lane.read(BEGINNING - begin.len()).await.unwrap().unwrap());
        }
        if begin[6] == LARGE {
            return lane;
        }
    }
}

/// All that comes until nothing more does.
async fn all_of(lane: &mut Box<dyn LaneReader>) -> usize {
    let mut bytes = 0;
    while let Ok(read) = timeout(SECOND, lane.read(64 * KIB)).await {
        bytes += read.unwrap().unwrap().len();
    }
    bytes
}

fn credit(taken: usize) -> Vec<u8> {
    frame(24, &[&(taken as u64).to_le_bytes()])
}

/// A victim that has begun to send a page of 256 KiB to a peer that speaks up to this version.
async fn sending(version: u8) -> (Scene, Raw, Box<dyn LaneReader>) {
    let scene = Scene::new(1);
    let raw = scene.welcomed_as(version).await;
    let pages = scene
        .victim
        .remote
        .resolve::<Page>(&scene.evil_node(), "pages");
    pages.tell(Page::of(256 * KIB)).unwrap();
    let lane = large_lane(&raw).await;
    (scene, raw, lane)
}

/// R5: without credits a window of it comes, with each credit more, and in the end all.
#[tokio::test(start_paused = true)]
async fn a_large_message_waits_for_credits() {
    let (scene, raw, mut lane) = sending(VERSION).await;
    let mut credits = lane_of(&raw.connection, CREDITS, VERSION).await;
    let mut taken = 0;
    while taken < 256 * KIB {
        let more = all_of(&mut lane).await;
        assert!((1..=2 * WINDOW).contains(&more), "{more} after {taken}");
        taken += more;
        write(&mut credits, &credit(taken)).await;
    }
    assert!(taken < 257 * KIB, "{taken}");
    assert_eq!(scene.faults(), 0);
}

/// R10: a peer of a version without credits gets all of it.
#[tokio::test(start_paused = true)]
async fn a_node_of_version_2_sends_no_credits_and_gets_everything() {
    let (scene, _raw, mut lane) = sending(VERSION - 1).await;
    assert!(all_of(&mut lane).await > 256 * KIB);
    assert_eq!(scene.faults(), 0);
}

/// Whoever ends the lane of credits leaves the rest to the network.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_credits_lets_the_rest_go() {
    let (scene, raw, mut lane) = sending(VERSION).await;
    let first = all_of(&mut lane).await;
    assert!(first <= WINDOW, "{first}");
    lane_of(&raw.connection, CREDITS, VERSION)
        .await
        .finish()
        .await;
    assert!(first + all_of(&mut lane).await > 256 * KIB);
    assert_eq!(scene.faults(), 0);
}

/// X: credits for what was never sent, other frames and a second lane of them end the connection.
#[tokio::test(start_paused = true)]
async fn false_credits_end_the_connection() {
    for (what, lanes, bytes) in [
        ("more than was sent", 1, credit(WINDOW + 1)),
        ("more than there is", 1, credit(usize::MAX)),
        ("another frame", 1, frame(6, &[&7_u64.to_le_bytes()])),
        ("half a credit", 1, frame(24, &[&[1, 2, 3]])),
        ("too long a frame", 1, vec![0, 0, 1, 0, 24]),
        ("twice", 2, Vec::new()),
    ] {
        let (scene, raw, mut large) = sending(VERSION).await;
        assert!(all_of(&mut large).await > 0);
        let mut opened = Vec::new();
        for _ in 0..lanes {
            let mut lane = lane_of(&raw.connection, CREDITS, VERSION).await;
            write(&mut lane, &bytes).await;
            opened.push(lane);
        }
        assert!(raw.is_closed().await, "{what}");
        assert_eq!(scene.faults(), 1, "{what}");
        scene.check(what).await;
    }
}

/// R5: on any other lane than its own a credit is a fault.
#[tokio::test(start_paused = true)]
async fn a_credit_elsewhere_ends_the_connection() {
    for number in [1, LARGE] {
        let scene = Scene::new(1);
        let raw = scene.welcomed_as(VERSION).await;
        let mut lane = lane_of(&raw.connection, number, VERSION).await;
        write(&mut lane, &credit(1)).await;
        assert!(raw.is_closed().await, "{number}");
        assert_eq!(scene.faults(), 1, "{number}");
    }
}

/// The first large message of a connection, and the end of its node right behind it: it arrives, for the
/// lane of credits is taken in at the end too.
async fn a_page_and_the_end(a: Node, b: Node) {
    let mut pages = TestProbe::<Page>::new(&b.system);
    b.remote.publish("pages", pages.actor_ref()).unwrap();
    let page = || Page::of(2 << 20);
    let to = a.remote.resolve::<Page>(b.remote.id(), "pages");
    // Connected, but no large message yet.
    let gone = a.remote.resolve::<Command>(b.remote.id(), "nobody");
    let _ = gone.ask(Command::Get).within(SOON).await;
    to.tell(page()).unwrap();
    tokio::join!(a.remote.shutdown(), async {
        assert!(pages.expect_msg(SOON).await == page());
    });
}

fn node(name: &str, network: Arc<dyn Network>) -> Node {
    let system = ActorSystem::new(name);
    let remote = Remote::builder(&system, "test", name, network).start();
    let remote = remote.unwrap();
    Node { system, remote }
}

#[tokio::test(start_paused = true)]
async fn a_large_message_arrives_before_the_goodbye_in_memory() {
    let world = VirtualWorld::new(1);
    let (one_way, a_bit) = (Duration::from_millis(1), Duration::from_micros(10));
    world.set_delay(one_way..one_way + a_bit);
    let node = |name, port| node(name, Arc::new(world.network(addr(port), name)));
    a_page_and_the_end(node("a", 1), node("b", 2)).await;
}

#[tokio::test]
async fn a_large_message_arrives_before_the_goodbye_over_quic() {
    let folder = TempDir::new().unwrap();
    let node = |name| {
        let credentials = Credentials::development(folder.path(), name).unwrap();
        let network = QuicNetwork::builder(name, ([127, 0, 0, 1], 0).into(), credentials);
        node(name, Arc::new(network.bind().unwrap()))
    };
    a_page_and_the_end(node("a"), node("b")).await;
}
