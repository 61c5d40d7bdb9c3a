//! Fuzzing: each decoder of bytes from a peer, behind a function of bytes. Only with the feature `fuzzing`.
//!
//! Each answers whether the bytes were accepted, and panics where a promise is broken: what was
//! accepted must be written and read again as the same.

use crate::core::Core;
use crate::exports::tag_of;
use crate::identity::PeerIdentity;
use crate::io::inbound::Inbound;
use crate::logic::handshake::{Introduction, Known, Verdict, judge_caller};
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::remote::Remote;
use crate::remote_ref::Address;
use crate::rights::Permit;
use crate::wire::{self, in_scope};
use crate::wire_format::{
    DecodeError, Frame, FrameError, FrameSplitter, LanePreamble, Packing, Target, Unpacking,
    decode, encode, encode_into, encode_message, is_packed,
};
use crate::{Channel, RemoteMessage, VirtualWorld};
use bytes::Bytes;
use otava_actor::{Actor, ActorRef, ActorSystem, Context, ReplyTo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The first bytes of a lane.
pub fn preamble(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first_chunk() else {
        return false;
    };
    let read = LanePreamble::decode(*first);
    read.inspect(|preamble| assert_eq!(&preamble.encode(), first))
        .is_ok()
}

/// A frame without its length.
pub fn frame(bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    let mut written = Vec::new();
    frame.encode_into(&mut written);
    let again = Frame::decode(Bytes::from(written).slice(4..));
    assert_eq!(again.as_ref(), Ok(&frame));
    true
}

/// The longest frame that [`packed`] takes out of a packed one.
const UNPACKED_MAX: usize = 1 << 20;

/// A packed frame, without its length: what is inside can be packed again.
pub fn packed(bytes: &[u8]) -> bool {
    if !is_packed(bytes) {
        return false;
    }
    let unpack = |bytes: &[u8]| {
        let mut unpacking = Unpacking::begin(Bytes::copy_from_slice(bytes), UNPACKED_MAX).ok()?;
        loop {
            match unpacking.step() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    };
    let Some(frame) = unpack(bytes) else {
        return false;
    };
    let mut packing = Packing::begin(&frame).expect("it was packed");
    while packing.step() {}
    if let Some(again) = packing.end() {
        assert_eq!(unpack(&again).as_deref(), Some(&*frame));
    }
    true
}

/// The longest frame of [`lane`].
const LANE_FRAME_MAX: usize = 4096;

/// The bytes of a lane behind its preamble; the first says how they are cut. Every cut must give the
/// same frames, and the same error.
pub fn lane(bytes: &[u8]) -> bool {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return false;
    };
    let split = |size: usize| {
        let mut splitter = FrameSplitter::new(LANE_FRAME_MAX);
        let mut frames = Vec::new();
        for chunk in bytes.chunks(size) {
            splitter.push(Bytes::copy_from_slice(chunk));
            loop {
                match splitter.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None::<FrameError>)
    };
    let whole = split(bytes.len().max(1));
    assert_eq!(split(usize::from(cut) + 1), whole);
    !whole.0.is_empty() && whole.1.is_none()
}

/// One of everything that a message can hold, within itself.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Tree {
    Leaf,
    Numbers(u8, i16, u32, i64, u128),
    Other {
        real: f64,
        letter: char,
        yes: bool,
        unit: (),
    },
    Text(String, Option<Box<str>>, Arc<str>),
    Boxed(Box<Tree>),
    Pair(Box<(Tree, Tree)>),
    Many(Vec<Tree>),
    Units(Vec<()>),
    Row(VecDeque<[u16; 3]>),
    Map(BTreeMap<String, Tree>),
    ByNumber(BTreeMap<u64, Vec<Option<Tree>>>),
    Result(Result<Box<Tree>, Duration>),
}

/// What `T` has been read from must be what it is written as, and read the same.
fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let value = decode::<T>(bytes)?;
    let written = encode(&value).unwrap_or_else(|error| panic!("cannot be written: {error}"));
    let read = decode::<T>(&written).unwrap_or_else(|error| panic!("cannot be read: {error}"));
    // By their bytes: a number that is none is not equal to itself.
    assert_eq!(encode(&read).as_ref(), Ok(&written));
    Ok(value)
}

/// A payload with a message that lies in itself, and collections.
pub fn payload(bytes: &[u8]) -> bool {
    again::<Tree>(bytes).is_ok()
}

/// A payload with collections whose order is not that of the bytes.
pub fn unordered(bytes: &[u8]) -> bool {
    decode::<HashMap<String, Vec<HashMap<u8, Tree>>>>(bytes).is_ok()
}

/// A node that introduces itself.
pub fn handshake(bytes: &[u8]) -> bool {
    let Ok(Frame::Hello(hello) | Frame::Welcome(hello)) =
        Frame::decode(Bytes::copy_from_slice(bytes))
    else {
        return false;
    };
    let them = Introduction {
        cluster: hello.cluster,
        node: hello.node,
        version_min: hello.version_min,
        version_max: hello.version_max,
    };
    let us = Introduction {
        cluster: "märkte".to_owned(),
        node: NodeId::new("a", at(1), 1),
        version_min: 1,
        version_max: 1,
    };
    let known = Known {
        name_proven: true,
        address_proven: true,
        ..Known::default()
    };
    judge_caller(&us, &them, known) == Verdict::Accept
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// What [`Receiver`] is sent.
#[derive(Deserialize, Serialize)]
enum Order {
    Nothing,
    Told {
        tree: Tree,
        #[serde(with = "crate::wire")]
        followers: Vec<(u32, ActorRef<Order>)>,
    },
    Asked(#[serde(with = "crate::wire")] Vec<Option<ReplyTo<Tree>>>),
    Found(#[serde(with = "crate::wire::answer")] ReplyTo<BTreeMap<String, ActorRef<Order>>>),
    Far(#[serde(with = "crate::wire")] Result<ActorRef<Order>, String>),
}

impl wire::Plain for Tree {}

impl RemoteMessage for Order {
    const NAME: &'static str = "fuzz.Order";
}

/// Drops what it is sent, and with it the ports inside.
struct Sink;

impl Actor for Sink {
    type Msg = Order;
    type Err = Infallible;

    async fn handle(&mut self, _: Order, _: &mut Context<Self>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A whole node that is sent frames by a peer that it has welcomed.
pub struct Receiver {
    runtime: tokio::runtime::Runtime,
    inbound: Inbound,
    remote: Remote,
}

impl Receiver {
    /// A node on a network in memory, with an actor called `sink`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts a runtime")]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let (inbound, remote) = runtime.block_on(async {
            let system = ActorSystem::new("a");
            let network = VirtualWorld::new(1).network(at(1), "a");
            let remote = Remote::builder(&system, "fuzz", "a", Arc::new(network))
                .seeded(1)
                .start()
                .expect("a node");
            let sink = system.spawn("sink", Sink).expect("an actor");
            remote.publish("sink", &sink).expect("a free name");
            remote.on_control(Channel(17), |_, _| {});
            let core: Arc<Core> = remote.core().clone();
            let peer: Arc<Peer> = core.peer(at(2)).expect("a peer");
            let node = NodeId::new("b", at(2), 2);
            let identity = Arc::new(PeerIdentity::member("b"));
            let connected = peer.connected(&core, &node, &identity);
            assert!(connected, "it was never met before");
            let inbound = Inbound {
                permit: Permit::new(&core.rights, identity),
                core,
                peer,
                node,
            };
            (inbound, remote)
        });
        Self {
            runtime,
            inbound,
            remote,
        }
    }

    /// Takes a frame without its length: on an ordinary lane, or on the control lane if the first
    /// byte is odd.
    pub fn take(&self, bytes: &[u8]) -> bool {
        let Some((&lane, bytes)) = bytes.split_first() else {
            return false;
        };
        let bytes = Bytes::copy_from_slice(bytes);
        let before = self.remote.stats().undelivered;
        let taken = self.runtime.block_on(async {
            let taken = match lane % 2 {
                0 => self.inbound.take_ordinary(bytes).is_ok(),
                _ => self.inbound.take_control(bytes).is_ok(),
            };
            // The actors and the driver have their turn.
            tokio::task::yield_now().await;
            taken
        });
        // What nobody writes would pile up.
        for outbox in self.inbound.peer.outboxes() {
            drop(outbox.clear());
        }
        taken && self.remote.stats().undelivered == before
    }
}

/// Frames that [`Receiver::take`] delivers, to begin with.
///
/// # Panics
/// If they cannot be written.
#[must_use]
pub fn orders() -> Vec<(&'static str, Vec<u8>)> {
    let receiver = Receiver::new();
    let (core, node) = (&receiver.inbound.core, &receiver.inbound.node);
    let sink: ActorRef<Order> = receiver.remote.resolve(&core.id, "sink");
    let (port, _reply) = ReplyTo::channel(None);
    let (found, _found) = ReplyTo::channel(None);
    let texts = (Tree::Leaf, Tree::Text("x".into(), None, "y".into()));
    let tree = Tree::Pair(Box::new(texts));
    let followers = vec![(7, sink.clone())];
    let orders = [
        ("nothing", Order::Nothing),
        ("told", Order::Told { tree, followers }),
        ("asked", Order::Asked(vec![None, Some(port)])),
        ("found", Order::Found(found)),
        ("far", Order::Far(Ok(sink))),
    ];
    let frame = |order: &Order| {
        let (mut frame, target) = (Vec::new(), Target::Name("sink".into()));
        let write = |out: &mut Vec<u8>| {
            let to = Address::Exactly(node.clone());
            in_scope(core, to, || encode_into(order, out, usize::MAX))
        };
        let (written, _) =
            encode_message(&mut frame, &target, tag_of::<Order>(), usize::MAX, write);
        written.expect("it has a wire form");
        // The lane takes the place of the length.
        [&[0], &frame[4..]].concat()
    };
    orders.map(|(name, order)| (name, frame(&order))).into()
}

/// Payloads that [`payload`] takes, to begin with.
///
/// # Panics
/// If they cannot be written.
#[must_use]
pub fn payloads() -> Vec<(&'static str, Vec<u8>)> {
    let leaf = || Box::new(Tree::Leaf);
    let map = [("k".to_owned(), Tree::Units(vec![(); 3]))];
    let numbers = [(300, vec![None, Some(Tree::Boxed(leaf()))])];
    let trees = [
        ("leaf", Tree::Leaf),
        ("numbers", Tree::Numbers(1, -2, 70_000, i64::MIN, u128::MAX)),
        (
            "other",
            Tree::Other {
                real: 0.5,
                letter: 'ä',
                yes: true,
                unit: (),
            },
        ),
        (
            "text",
            Tree::Text("häuser".into(), Some("b".into()), "c".into()),
        ),
        ("pair", Tree::Pair(Box::new((Tree::Leaf, *leaf())))),
        ("many", Tree::Many(vec![Tree::Leaf, Tree::Many(vec![])])),
        ("row", Tree::Row([[1, 2, 3]].into())),
        ("map", Tree::Map(map.into())),
        ("by_number", Tree::ByNumber(numbers.into())),
        ("result", Tree::Result(Err(Duration::from_millis(1)))),
    ];
    let bytes = |tree: &Tree| encode(tree).expect("it has a wire form");
    trees.map(|(name, tree)| (name, bytes(&tree))).into()
}

/// Payloads that [`unordered`] takes, to begin with.
///
/// # Panics
/// If they cannot be written.
#[must_use]
pub fn unordered_payloads() -> Vec<(&'static str, Vec<u8>)> {
    let inner = HashMap::from([(7_u8, Tree::Text("x".into(), None, "y".into()))]);
    let maps = HashMap::from([("k".to_owned(), vec![inner])]);
    vec![("maps", encode(&maps).expect("it has a wire form"))]
}
