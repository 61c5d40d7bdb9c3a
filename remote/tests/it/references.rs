//! Proves: references reach what they name, and the program's own code cannot break a connection.

use crate::cuts::{Node, SOON, addr, pair};
use crate::nodes::{Command, Number};
use otava_actor::testkit::TestProbe;
use otava_actor::{AskError, ReplyTo};
use otava_remote::{Channel, RemoteMessage, VirtualWorld};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// References to whoever is at an address have no number of their own.
#[tokio::test(start_paused = true)]
async fn two_references_to_an_address_stay_apart_in_messages() {
    let world = VirtualWorld::new(1);
    let (a, b) = pair(&world);
    let c = Node::start(&world, "c", 3);
    let _counter = b.counter();
    let mut x = TestProbe::<Number>::new(&c.system);
    let mut y = TestProbe::<Number>::new(&c.system);
    c.remote.publish("x", x.actor_ref()).unwrap();
    c.remote.publish("y", y.actor_ref()).unwrap();
    let counter = a.sees(&b);
    for (name, count) in [("x", 1), ("y", 2)] {
        let to = a.remote.resolve_at::<Number>(addr(3), name);
        counter.tell(Command::Count(count, to)).unwrap();
    }
    assert_eq!(x.expect_msg(SOON).await.0, 0);
    assert_eq!(y.expect_msg(SOON).await.0, 0);
    assert_eq!(y.expect_msg(SOON).await.0, 1);
    x.expect_no_msg(SECOND).await;
}

/// References to one actor that understand the same messages in different ways stay what they are.
#[tokio::test(start_paused = true)]
async fn adapted_references_in_messages_lead_through_their_own_functions() {
    let world = VirtualWorld::new(4);
    let (a, b) = pair(&world);
    let _counter = b.counter();
    let counter = a.sees(&b);
    let mut probe = TestProbe::<u64>::new(&a.system);
    for above in [0, 100, 200] {
        let to = match above {
            0 => probe.actor_ref().adapt(|Number(n)| n),
            _ => probe.actor_ref().adapt(move |Number(n)| n + above),
        };
        counter.tell(Command::Count(2, to)).unwrap();
        assert_eq!(probe.expect_msg(SOON).await, above);
        assert_eq!(probe.expect_msg(SOON).await, above + 1);
    }
    // An actor of the other node behind a function of this one.
    let add = counter.adapt(|Number(n)| Command::Add(n));
    add.tell(Number(5)).unwrap();
    assert_eq!(add.uid(), counter.uid());
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(5));
    counter.tell(Command::Count(4, add)).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(5 + 6));
}

/// The end of an actor takes only its own name back.
#[tokio::test(start_paused = true)]
async fn a_name_that_was_given_on_outlives_the_actor_before() {
    let world = VirtualWorld::new(2);
    let (a, b) = pair(&world);
    let first = b.counter();
    b.remote.withdraw("counter");
    let _second = b.counter();
    first.stop();
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.sees(&b).ask(Command::Get).within(SOON).await, Ok(0));
}

/// What a reference to this node itself leads to may be watched as it may be told.
#[tokio::test(start_paused = true)]
async fn a_name_at_home_is_watched_without_a_network() {
    let world = VirtualWorld::new(3);
    let a = Node::start(&world, "a", 1);
    let early = a.sees(&a);
    let local = a.counter();
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&early);
    probe.expect_no_msg(SECOND).await;
    local.stop();
    let news = probe.expect_terminated(&early, SOON).await;
    assert_eq!(news.reason, otava_actor::Ended::Stopped);
}

/// Its serde forms panic on request, as a program's own may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fuse {
    Fine,
    OnRead,
    OnWrite,
}

impl Serialize for Fuse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fine => serializer.serialize_u8(0),
            Self::OnRead => serializer.serialize_u8(1),
            Self::OnWrite if cfg!(panic = "unwind") => panic!("a fuse on write"),
            Self::OnWrite => Err(S::Error::custom("no unwinding")),
        }
    }
}

impl<'de> Deserialize<'de> for Fuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Fine),
            1 => panic!("a fuse on read"),
            _ => Err(D::Error::custom("no fuse")),
        }
    }
}

#[derive(Deserialize, Serialize)]
enum Spark {
    Plain(Fuse),
    /// Answered with the fuse.
    Ask(#[serde(with = "otava_remote::wire")] ReplyTo<Fuse>, Fuse),
}

impl RemoteMessage for Spark {
    const NAME: &'static str = "test.Spark";
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_programs_own_code_breaks_no_connection() {
    let world = VirtualWorld::new(4);
    let (a, b) = pair(&world);
    let mut probe = TestProbe::<Spark>::new(&b.system);
    b.remote.publish("sparks", probe.actor_ref()).unwrap();
    b.remote.on_control(Channel(16), |_, _| panic!("a handler"));
    let sparks = a.remote.resolve::<Spark>(b.remote.id(), "sparks");
    a.remote.keep_connected(addr(2));
    tokio::time::sleep(SECOND).await;
    let mut events = a.remote.events();

    a.remote.send_control(addr(2), Channel(16), "x".into());
    sparks.tell(Spark::Plain(Fuse::OnRead)).unwrap();
    sparks.tell(Spark::Plain(Fuse::Fine)).unwrap();
    let Spark::Plain(fuse) = probe.expect_msg(SOON).await else {
        panic!("another spark");
    };
    assert_eq!(fuse, Fuse::Fine);
    tokio::time::sleep(SECOND).await;
    assert_eq!(b.remote.stats().undelivered, 2);

    // The answer cannot be read: the asker learns that there is none.
    let asked = sparks.clone();
    let ask = tokio::spawn(async move {
        let question = |reply_to| Spark::Ask(reply_to, Fuse::Fine);
        asked.ask(question).within(SOON).await
    });
    let Spark::Ask(reply_to, _) = probe.expect_msg(SOON).await else {
        panic!("another spark");
    };
    reply_to.send(Fuse::OnRead).unwrap();
    let answer = ask.await.unwrap();
    assert!(
        matches!(answer, Err(AskError::NoReply { .. })),
        "{answer:?}"
    );

    // The question cannot be written: whoever sends it learns so, and its port is closed.
    let asked = sparks.clone();
    let ask = tokio::spawn(async move {
        let (port, _reply) = ReplyTo::channel(None);
        asked.tell(Spark::Ask(port, Fuse::OnWrite)).is_ok()
    });
    assert!(ask.await.is_err());
    assert_eq!(a.remote.stats().open_ports, 0);
    let quiet = tokio::time::timeout(SECOND, events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}
