//! Proves: bytes of a peer that is broken or hostile harm nobody but its own connection.

use crate::cuts::{Node, SOON, addr};
use crate::nodes::{Command, Number};
use bytes::Bytes;
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, Rng};
use otava_remote::{
    Compression, Connection, LaneReader, LaneWriter, Network as _, NodeId, PeerIdentity,
    RemoteConfig, RemoteEvent, VirtualNetwork, VirtualWorld,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
/// The port of the one who does not behave, and of an honest node.
const EVIL: u16 = 66;
const HONEST: u16 = 2;

const WELCOME: u8 = 2;
const REFUSE: u8 = 3;
const COUNTER: &[u8] = b"\x01\x07\0counter";

/// A node that is attacked, an honest one that uses it, and an end point of which anything may come.
pub(crate) struct Scene {
    world: VirtualWorld,
    pub(crate) victim: Node,
    honest: Node,
    evil: VirtualNetwork,
    counter: ActorRef<Command>,
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, Compression::None)
    }

    pub(crate) fn with(seed: u64, compression: Compression) -> Self {
        let world = VirtualWorld::new(seed);
        let mut config = RemoteConfig::default();
        config.compression = compression;
        let victim = Node::start_with(&world, "a", 1, 1, config);
        let counter = victim.counter();
        let honest = Node::start(&world, "b", HONEST);
        let evil = world.network(addr(EVIL), "evil");
        Self {
            world,
            victim,
            honest,
            evil,
            counter,
        }
    }

    /// The honest node is served, soon and over the same connection as before.
    pub(crate) async fn check(&self, what: &str) {
        let from = Instant::now();
        let answer = self.honest.sees(&self.victim).ask(Command::Get);
        let answer = answer.within(SOON).await;
        assert_eq!(answer, Ok(0), "{what}");
        assert!(from.elapsed() < SECOND, "{what}: {:?}", from.elapsed());
        assert!(!self.counter.is_stopped(), "{what}");
    }

    async fn connect(&self) -> Arc<dyn Connection> {
        self.evil.connect(addr(1)).await.unwrap()
    }

    /// A connection that the victim has welcomed.
    pub(crate) async fn welcomed(&self) -> Raw {
        self.welcomed_as(1).await
    }

    /// As one that speaks all wire versions up to this.
    pub(crate) async fn welcomed_as(&self, version: u8) -> Raw {
        let connection = self.connect().await;
        let mut control = lane(&connection, 0).await;
        let mut hello = hello("evil", addr(EVIL), "test");
        let at = hello.len() - 7;
        hello[at] = version;
        write(&mut control, &hello).await;
        let mut reader = connection.accept_lane().await.unwrap();
        let kind = kind_of_first(&mut reader).await;
        assert_eq!(kind, WELCOME);
        Raw {
            connection,
            control,
            reader,
        }
    }

    /// Who the end point says it is.
    pub(crate) fn evil_node(&self) -> NodeId {
        NodeId::new("evil", addr(EVIL), 7)
    }

    pub(crate) fn faults(&self) -> u64 {
        self.victim.remote.stats().peer_faults
    }

    fn undelivered(&self) -> u64 {
        self.victim.remote.stats().undelivered
    }
}

pub(crate) struct Raw {
    pub(crate) connection: Arc<dyn Connection>,
    control: Box<dyn LaneWriter>,
    reader: Box<dyn LaneReader>,
}

impl Raw {
    async fn say(&mut self, bytes: &[u8]) {
        write(&mut self.control, bytes).await;
    }

    pub(crate) async fn is_closed(&self) -> bool {
        timeout(2 * SECOND, self.connection.closed()).await.is_ok()
    }
}

pub(crate) async fn write(lane: &mut Box<dyn LaneWriter>, bytes: &[u8]) {
    // The other end may have closed it already.
    let _ = lane.write(Bytes::copy_from_slice(bytes)).await;
}

/// Opens a lane and writes an honest beginning.
async fn lane(connection: &Arc<dyn Connection>, number: u8) -> Box<dyn LaneWriter> {
    lane_of(connection, number, 1).await
}

/// A lane of this wire version.
pub(crate) async fn lane_of(
    connection: &Arc<dyn Connection>,
    number: u8,
    version: u8,
) -> Box<dyn LaneWriter> {
    let mut lane = connection.open_lane().await.unwrap();
    write(&mut lane, &[b'O', b'T', b'V', b'A', version, 0, number, 0]).await;
    lane
}

pub(crate) fn frame(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_le_bytes()[..], &[kind], &body].concat()
}

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_le_bytes()[..], text.as_bytes()].concat()
}

fn hello(name: &str, addr: SocketAddr, cluster: &str) -> Vec<u8> {
    let SocketAddr::V4(addr) = addr else {
        panic!("tests use IPv4");
    };
    let body: [&[u8]; 8] = [
        &string(name),
        &[4],
        &addr.ip().octets(),
        &addr.port().to_le_bytes(),
        &7_u64.to_le_bytes(),
        &string(cluster),
        &[1, 0, 1, 0, 2],
        &(1_u32 << 20).to_le_bytes(),
    ];
    frame(1, &body)
}

fn system(seq: u64, code: u8, watch: u64, rest: &[u8]) -> Vec<u8> {
    frame(
        5,
        &[&seq.to_le_bytes(), &[code], &watch.to_le_bytes(), rest],
    )
}

pub(crate) fn message(target: &[u8], tag: u64, payload: &[u8]) -> Vec<u8> {
    frame(16, &[target, &tag.to_le_bytes(), payload])
}

/// The kind of the first frame on a lane.
async fn kind_of_first(reader: &mut Box<dyn LaneReader>) -> u8 {
    let mut got = Vec::new();
    while got.len() < 13 {
        got.extend_from_slice(&reader.read(1_000).await.unwrap().unwrap());
    }
    got[12]
}

/// The tag of the messages of the counter, as it stands in frames.
pub(crate) fn tag_of_command() -> u64 {
    let name = b"test.Command".iter().chain(&[1, 0]);
    name.fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// R5, before the handshake: whatever comes instead of a hello, the connection ends.
#[tokio::test(start_paused = true)]
async fn what_is_no_hello_ends_the_connection() {
    let scene = Scene::new(1);
    scene.check("before").await;
    let honest = hello("evil", addr(EVIL), "test");
    let mut first: Vec<(&str, Vec<u8>)> = vec![
        ("wrong magic", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("another version", b"OTVA\x09\0\0\0".to_vec()),
        ("a lane of its own first", b"OTVA\x01\0\x01\0".to_vec()),
        ("lane 200", b"OTVA\x01\0\xc8\0".to_vec()),
        ("nothing", Vec::new()),
    ];
    for (what, frame) in [
        ("a length of 2^32-1", vec![255, 255, 255, 255, 1]),
        ("a length of zero", vec![0, 0, 0, 0]),
        ("an unknown kind", frame(99, &[b"x"])),
        ("a message", message(COUNTER, tag_of_command(), b"\x01")),
        ("a goodbye", frame(7, &[])),
        ("a welcome", {
            let mut welcome = honest.clone();
            welcome[4] = WELCOME;
            welcome
        }),
        ("a hello with a tail", {
            let mut long = honest.clone();
            long.push(0);
            long[0] += 1;
            long
        }),
        ("a bad name", hello("evil/../a", addr(EVIL), "test")),
    ] {
        first.push((what, [b"OTVA\x01\0\0\0", &frame[..]].concat()));
    }
    let mut whole = b"OTVA\x01\0\0\0".to_vec();
    whole.extend_from_slice(&honest);
    for length in 0..whole.len() {
        first.push(("cut short", whole[..length].to_vec()));
    }
    let mut rng = Rng::seeded(1);
    for _ in 0..200 {
        let length = rng.below(200);
        let mut noise: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        if rng.below(2) == 0 {
            noise.splice(..0, *b"OTVA\x01\0\0\0");
        }
        first.push(("noise", noise));
    }
    for (what, bytes) in &first {
        let faults = scene.faults();
        let connection = scene.connect().await;
        let mut lane = connection.open_lane().await.unwrap();
        write(&mut lane, bytes).await;
        let ended = async {
            lane.finish().await;
            connection.closed().await;
        };
        timeout(6 * SECOND, ended).await.expect(what);
        assert_eq!(scene.faults(), faults + 1, "{what}");
        scene.check(what).await;
    }
}

/// X4: who is refused learns why, and nothing is remembered of what it claimed.
#[tokio::test(start_paused = true)]
async fn who_claims_to_be_another_is_refused() {
    let scene = Scene::new(2);
    scene.check("before").await;
    for (what, hello) in [
        ("another's name", hello("b", addr(EVIL), "test")),
        (
            "another's name and address",
            hello("b", addr(HONEST), "test"),
        ),
        ("another's address", hello("evil", addr(HONEST), "test")),
        ("the victim's address", hello("evil", addr(1), "test")),
        ("another cluster", hello("evil", addr(EVIL), "other")),
    ] {
        let refused = scene.victim.remote.stats().refused_calls;
        let connection = scene.connect().await;
        let mut control = lane(&connection, 0).await;
        write(&mut control, &hello).await;
        let mut reader = connection.accept_lane().await.unwrap();
        assert_eq!(kind_of_first(&mut reader).await, REFUSE, "{what}");
        connection.closed().await;
        let stats = scene.victim.remote.stats();
        assert_eq!(stats.refused_calls, refused + 1, "{what}");
        scene.check(what).await;
    }
    // A caller that does not even read why holds up nobody.
    let mut deaf = Vec::new();
    for _ in 0..50 {
        let connection = scene.connect().await;
        let mut control = lane(&connection, 0).await;
        write(&mut control, &hello("evil", addr(HONEST), "test")).await;
        deaf.push((connection, control));
    }
    scene.check("deaf callers").await;
}

/// X4: that a member broke with this node is believed of that member only, for a node that is broken with
/// stops. Whoever comes up at its address while it is away may say so in vain.
#[tokio::test(start_paused = true)]
async fn who_is_no_member_breaks_with_nobody() {
    let scene = Scene::new(5);
    scene.check("before").await;
    let Scene {
        world,
        victim,
        honest,
        ..
    } = scene;
    world.crash(addr(HONEST));
    drop(honest);
    let mut events = victim.remote.events();
    let refusal = frame(REFUSE, &[&[4], &string("broken with")]);
    for (identity, believed) in [
        (PeerIdentity::client("b"), false),
        (PeerIdentity::member("thief"), false),
        (PeerIdentity::member("b").address(addr(9)), false),
        (PeerIdentity::member("b"), true),
    ] {
        let there = world.network_as(addr(HONEST), identity.clone());
        // What the victim hears when it calls.
        let call = timeout(SOON, async {
            victim.remote.keep_connected(addr(HONEST));
            let connection = there.accept().await.unwrap();
            let mut control = lane(&connection, 0).await;
            write(&mut control, &refusal).await;
            connection.closed().await;
        });
        call.await.unwrap();
        sleep(SECOND).await;
        let mut broken = false;
        while let Ok(Some(event)) = timeout(SECOND, events.recv()).await {
            broken |= matches!(event, RemoteEvent::QuarantinedBy(_));
        }
        assert_eq!(broken, believed, "{identity:?}");
        world.crash(addr(HONEST));
    }
}

/// R5, after the handshake: what breaks the protocol ends the connection.
#[tokio::test(start_paused = true)]
async fn what_breaks_the_protocol_ends_the_connection() {
    let scene = Scene::new(3);
    scene.check("before").await;
    let message = message(COUNTER, tag_of_command(), b"\x01\x02\0\0");
    for (what, bytes) in [
        ("hello twice", hello("evil", addr(EVIL), "test")),
        ("a message on the control lane", message.clone()),
        ("a length of 2^32-1", vec![255, 255, 255, 255, 4]),
        ("a length of zero", vec![0, 0, 0, 0]),
        ("an unknown kind", frame(99, &[b"x"])),
        ("a control message over the limit", {
            frame(4, &[&[16], &vec![0; (256 << 10) + 1]])
        }),
        ("an unknown system message", system(1, 9, 1, &[])),
        ("a watch without target", system(1, 1, 1, &[])),
    ] {
        let faults = scene.faults();
        let mut raw = scene.welcomed().await;
        raw.say(&bytes).await;
        assert!(raw.is_closed().await, "{what}");
        assert_eq!(scene.faults(), faults + 1, "{what}");
        scene.check(what).await;
    }
    let twice = vec![(1, vec![]), (1, vec![])];
    let many = (1..=11).map(|lane| (lane, vec![])).collect();
    for (what, lanes) in [
        ("a second control lane", vec![(0, vec![])]),
        ("lane 200", vec![(200, vec![])]),
        ("a lane twice", twice),
        ("more lanes than there are", many),
        (
            "a system message on a lane",
            vec![(1, system(1, 2, 1, &[]))],
        ),
        ("a goodbye on a lane", vec![(2, frame(7, &[]))]),
        ("a frame cut short", vec![(1, message[..9].to_vec())]),
    ] {
        let faults = scene.faults();
        let raw = scene.welcomed().await;
        for (number, bytes) in lanes {
            let mut lane = lane(&raw.connection, number).await;
            write(&mut lane, &bytes).await;
            let _ = timeout(SECOND, lane.finish()).await;
        }
        assert!(raw.is_closed().await, "{what}");
        assert_eq!(scene.faults(), faults + 1, "{what}");
        scene.check(what).await;
    }
    let mut rng = Rng::seeded(3);
    for _ in 0..200 {
        let raw = scene.welcomed().await;
        let mut lane = lane(&raw.connection, 1 + rng.below(2) as u8).await;
        let noise: Vec<u8> = (0..500).map(|_| rng.next_u64() as u8).collect();
        write(&mut lane, &noise).await;
        let _ = timeout(SECOND, lane.finish()).await;
        scene.check("noise").await;
    }
}

/// X7, X9: frames in good order that reach nobody are counted, and the connection goes on.
#[tokio::test(start_paused = true)]
async fn what_reaches_nobody_is_counted() {
    let scene = Scene::new(4);
    scene.check("before").await;
    let mut raw = scene.welcomed().await;
    let mut lane = lane(&raw.connection, 1).await;
    let tag = tag_of_command();
    let deep = [&[1_u8][..], &[3; 10_000]].concat();
    let mut guess = vec![0];
    guess.extend_from_slice(&u128::MAX.to_le_bytes());
    let messages = [
        message(&guess, tag, b"\x01\0\0"),
        message(b"\x01\x02\0no", tag, b"\x01\0\0"),
        message(COUNTER, tag + 1, b"\x01\0\0"),
        message(COUNTER, tag, b""),
        message(COUNTER, tag, b"\x07\0\0"),
        message(COUNTER, tag, b"\x01\xc8"),
        message(COUNTER, tag, b"\x01\0\0\0\0\0"),
        // Bytes that claim to be 2^60 of them.
        message(COUNTER, tag, b"\x01\x06\xfd\0\0\0\0\0\0\0\x10"),
        message(COUNTER, tag, &deep),
    ];
    for (n, message) in messages.iter().enumerate() {
        let before = scene.undelivered();
        write(&mut lane, message).await;
        sleep(SECOND).await;
        assert_eq!(scene.undelivered(), before + 1, "message {n}");
    }
    scene.check("messages").await;

    // Somebody else's ports, and ends, marks and numbers that mean nothing.
    let asked = scene.honest.sees(&scene.victim);
    let mut probe = TestProbe::<Number>::new(&scene.victim.system);
    let honest = scene.honest.counter();
    let watched = scene.victim.sees(&scene.honest);
    probe.watch(&watched);
    let wait = tokio::spawn(async move { asked.ask(Command::Wait).within(SOON).await });
    sleep(SECOND).await;
    for port in [0, 1, u128::MAX] {
        write(&mut lane, &frame(17, &[&port.to_le_bytes(), b"\x01\0"])).await;
        write(&mut lane, &frame(18, &[&port.to_le_bytes()])).await;
    }
    write(&mut lane, &frame(19, &[&9_u64.to_le_bytes()])).await;
    for number in [0, 1, 2, u64::MAX] {
        raw.say(&frame(20, &[&number.to_le_bytes()])).await;
        raw.say(&frame(6, &[&number.to_le_bytes()])).await;
        raw.say(&system(number, 3, number, &[1])).await;
        raw.say(&system(number, 2, number, &[])).await;
    }
    raw.say(&frame(4, &[&[77], b"nobody listens"])).await;
    assert_eq!(wait.await.unwrap(), Ok(0));
    probe.expect_no_msg(SECOND).await;
    assert!(!raw.is_closed().await);
    scene.check("system messages").await;
    honest.stop();
    probe.expect_terminated(&watched, SOON).await;
}

/// X9: watching is all that a peer can do to an actor that it only knows; it gets no news twice, and
/// cannot make the victim remember one actor over and over.
#[tokio::test(start_paused = true)]
async fn watching_is_bounded() {
    let scene = Scene::new(5);
    scene.check("before").await;
    let faults = scene.faults();
    let mut raw = scene.welcomed().await;
    // It never reads what it is answered.
    let mut seq = 0;
    'flood: for _ in 0..2_000 {
        let mut batch = Vec::new();
        for _ in 0..1_000 {
            seq += 1;
            batch.extend_from_slice(&system(seq, 1, seq, COUNTER));
        }
        let written = raw.control.write(batch.into());
        if !matches!(timeout(SECOND, written).await, Ok(Ok(()))) {
            break 'flood;
        }
    }
    assert!(raw.is_closed().await);
    assert_eq!(scene.faults(), faults + 1);
    scene.check("watches").await;

    // The same number again and again is one watch.
    let mut raw = scene.welcomed().await;
    sleep(SECOND).await;
    for again in 1..100 {
        raw.say(&system(seq + again, 1, 5, COUNTER)).await;
    }
    scene.check("one watch").await;
    drop(raw.reader);
}

/// X8: two hundred that connect and never say who they are hold up no honest node.
#[tokio::test(start_paused = true)]
async fn half_open_handshakes_hold_up_nobody() {
    let scene = Scene::new(6);
    let mut silent = Vec::new();
    for n in 0..200 {
        let connection = scene.connect().await;
        // Some say half of it.
        let begun = match n % 2 {
            0 => Some(lane(&connection, 0).await),
            _ => None,
        };
        silent.push((connection, begun));
    }
    scene.check("half open").await;
    let faults = scene.faults();
    sleep(10 * SECOND).await;
    assert_eq!(scene.faults(), faults + 200);
    let left = timeout(SECOND, silent[0].0.closed()).await;
    assert!(left.is_ok());
    scene.world.heal_all();
    scene.check("after").await;
}

/// X9: a question names nobody but its sender as the one who waits: else this node would call
/// whomever a peer names.
#[tokio::test(start_paused = true)]
async fn an_answer_goes_to_nobody_but_the_asker() {
    let scene = Scene::new(7);
    scene.check("before").await;
    let third = scene.world.network(addr(99), "third");
    let raw = scene.welcomed().await;
    let mut lane = lane(&raw.connection, 1).await;
    let asker = NodeId::new("third", addr(99), 7);
    let get = otava_remote::encode(&(1_u32, Some(asker), 5_u128, None::<Duration>)).unwrap();
    let before = scene.undelivered();
    write(&mut lane, &message(COUNTER, tag_of_command(), &get)).await;
    assert!(timeout(SECOND, third.accept()).await.is_err());
    assert_eq!(scene.undelivered(), before + 1);
    // The same without a name is answered.
    let get = otava_remote::encode(&(1_u32, None::<NodeId>, 5_u128, None::<Duration>)).unwrap();
    write(&mut lane, &message(COUNTER, tag_of_command(), &get)).await;
    let mut answers = raw.connection.accept_lane().await.unwrap();
    let mut got = Vec::new();
    while got.len() < 8 {
        got.extend_from_slice(&answers.read(1_000).await.unwrap().unwrap());
    }
    scene.check("after").await;
}
