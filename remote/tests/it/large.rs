//! Proves: large messages keep their order and their limit, and hold up nobody else.

use crate::cuts::{Node, SOON, addr};
use crate::nodes::{Command, Number};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, ActorSystem, ReplyTo, TellError, Unsendable};
use otava_remote::{Remote, RemoteConfig, RemoteMessage, VirtualWorld};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const MIB: usize = 1 << 20;
const LIMIT: usize = 8 * MIB;
const ONE_WAY: Duration = Duration::from_millis(50);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Picture {
    number: usize,
    pixels: String,
}

impl RemoteMessage for Picture {
    const NAME: &'static str = "test.Picture";
    const LARGE: bool = true;
}

impl Picture {
    fn new(number: usize, bytes: usize) -> Self {
        let pixels = "x".repeat(bytes);
        Self { number, pixels }
    }
}

/// The question is small, the answer is not.
#[derive(Deserialize, Serialize)]
struct Look(#[serde(with = "otava_remote::wire")] ReplyTo<String>);

impl RemoteMessage for Look {
    const NAME: &'static str = "test.Look";
}

fn node(world: &VirtualWorld, name: &str, port: u16) -> Node {
    let mut config = RemoteConfig::default();
    config.large_bytes_max = LIMIT;
    let system = ActorSystem::new(name);
    let network = Arc::new(world.network(addr(port), name));
    let remote = Remote::builder(&system, "test", name, network)
        .config(config)
        .seeded(u64::from(port))
        .start()
        .unwrap();
    Node { system, remote }
}

/// Two nodes that are connected, and who takes pictures at the second one.
async fn gallery() -> (Node, Node, TestProbe<Picture>, ActorRef<Picture>) {
    let world = VirtualWorld::new(1);
    world.set_delay(ONE_WAY..ONE_WAY + Duration::from_millis(1));
    let (a, b) = (node(&world, "a", 1), node(&world, "b", 2));
    let probe = TestProbe::<Picture>::new(&b.system);
    b.remote.publish("gallery", probe.actor_ref()).unwrap();
    let gallery = a.remote.resolve::<Picture>(b.remote.id(), "gallery");
    let _counter = b.counter();
    assert!(a.sees(&b).ask(Command::Get).within(SOON).await.is_ok());
    (a, b, probe, gallery)
}

/// R6: all messages of a large protocol keep their order, whatever their sizes.
#[tokio::test(start_paused = true)]
async fn large_messages_arrive_whole_and_in_order() {
    let (_a, _b, mut probe, gallery) = gallery().await;
    let sizes = [3 * MIB, 10, 2 * MIB, MIB, 0, 5 * MIB, 1_000];
    let sending = async {
        for (number, &bytes) in sizes.iter().enumerate() {
            gallery.send(Picture::new(number, bytes)).await.unwrap();
        }
    };
    let taking = async {
        for (number, &bytes) in sizes.iter().enumerate() {
            let picture = probe.expect_msg(SOON).await;
            assert_eq!((picture.number, picture.pixels.len()), (number, bytes));
        }
    };
    tokio::join!(sending, taking);
}

/// R6: a message over the limit, and one without room, come back to the sender, and the lane goes on.
#[tokio::test(start_paused = true)]
async fn a_large_message_over_the_limit_comes_back() {
    let (_a, _b, mut probe, gallery) = gallery().await;
    let Err(TellError::Unsendable(back, why)) = gallery.tell(Picture::new(1, LIMIT)) else {
        panic!("it was taken");
    };
    assert_eq!(back, Picture::new(1, LIMIT));
    assert_eq!(why, Unsendable::TooLarge { bytes_max: LIMIT });
    gallery.tell(Picture::new(2, LIMIT * 3 / 4)).unwrap();
    let full = gallery.tell(Picture::new(3, LIMIT * 3 / 4));
    assert_eq!(full, Err(TellError::Full(Picture::new(3, LIMIT * 3 / 4))));
    assert_eq!(probe.expect_msg(SOON).await.number, 2);
    gallery.tell(Picture::new(4, LIMIT * 3 / 4)).unwrap();
    assert_eq!(probe.expect_msg(SOON).await.number, 4);
}

/// R5: who asks meanwhile waits for one way and back, not for the large message.
#[tokio::test(start_paused = true)]
async fn an_ordinary_message_does_not_wait_for_a_large_one() {
    let (a, b, mut probe, gallery) = gallery().await;
    let since = Instant::now();
    gallery.tell(Picture::new(1, 7 * MIB)).unwrap();
    for _ in 0..3 {
        let asked = Instant::now();
        let ask = a.sees(&b).ask(Command::Get).within(SOON);
        assert_eq!(ask.await, Ok(0));
        assert!(asked.elapsed() < ONE_WAY * 3, "{:?}", asked.elapsed());
    }
    assert!(probe.received().is_empty(), "it was still on its way");
    assert_eq!(probe.expect_msg(SOON).await.number, 1);
    assert!(since.elapsed() > ONE_WAY * 7, "{:?}", since.elapsed());
}

/// R6: an answer may be large where its question is not, up to the same limit.
#[tokio::test(start_paused = true)]
async fn an_answer_may_be_large() {
    let (a, b, _pictures, _gallery) = gallery().await;
    let mut probe = TestProbe::<Look>::new(&b.system);
    b.remote.publish("window", probe.actor_ref()).unwrap();
    let window = a.remote.resolve::<Look>(b.remote.id(), "window");
    for (bytes, fits) in [(4 * MIB, true), (LIMIT, false), (10, true)] {
        let answering = async {
            let Look(reply_to) = probe.expect_msg(SOON).await;
            let _ = reply_to.send("y".repeat(bytes));
        };
        let (answer, ()) = tokio::join!(window.ask(Look).within(SOON), answering);
        assert_eq!(answer.map(|view| view.len()).ok(), fits.then_some(bytes));
    }
    assert_eq!(a.remote.stats().open_ports, 0);
}

/// A watcher hears of an end after the last large message of who ended.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_actor_comes_after_its_large_messages() {
    let (a, b, _pictures, _gallery) = gallery().await;
    let mut at_a = TestProbe::<Picture>::new(&a.system);
    a.remote.publish("home", at_a.actor_ref()).unwrap();
    let painter = TestProbe::<Number>::new(&b.system);
    b.remote.publish("painter", painter.actor_ref()).unwrap();
    let seen = a.remote.resolve::<Number>(b.remote.id(), "painter");
    at_a.watch(&seen);
    tokio::time::sleep(SOON).await;
    let home = b.remote.resolve::<Picture>(a.remote.id(), "home");
    home.tell(Picture::new(9, 6 * MIB)).unwrap();
    painter.actor_ref().stop();
    assert_eq!(at_a.expect_msg(SOON).await.number, 9);
    at_a.expect_terminated(&seen, SOON).await;
}
