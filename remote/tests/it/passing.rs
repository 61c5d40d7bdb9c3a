//! Proves: references and reply ports travel at any depth, in collections, and on to a third node.
#![allow(
    clippy::mutable_key_type,
    reason = "what tells references apart never changes"
)]

use crate::cuts::{Node, SOON, addr, pair};
use crate::nodes::{Command, Number};
use otava_actor::testkit::{DeadLetterSpy, TestProbe};
use otava_actor::{Actor, ActorRef, AskError, Context, DeadLetterReason, Props, ReplyTo};
use otava_remote::{RemoteMessage, VirtualWorld, wire};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type To = ActorRef<Number>;

/// References wherever a message can hold them. `numbers` of the receiver are what each is told.
#[derive(Deserialize, Serialize)]
enum Parcel {
    /// A structure in a structure in a list.
    Nested(Vec<Outer>),
    Collections {
        #[serde(with = "otava_remote::wire")]
        by_name: BTreeMap<String, Vec<Option<To>>>,
        #[serde(with = "otava_remote::wire")]
        by_number: HashMap<u32, (Rank, [To; 2], Duration)>,
        #[serde(with = "otava_remote::wire")]
        once: HashSet<To>,
        #[serde(with = "otava_remote::wire")]
        row: VecDeque<Result<To, String>>,
    },
    /// Two questions in one message.
    Ports(#[serde(with = "otava_remote::wire")] Vec<(u64, Option<ReplyTo<u64>>)>),
    /// An answer that is references.
    Find(#[serde(with = "otava_remote::wire::answer")] ReplyTo<Option<Vec<(String, To)>>>),
    /// To be asked in the place of the receiver.
    Forward(
        #[serde(with = "otava_remote::wire")] ActorRef<Command>,
        #[serde(with = "otava_remote::wire")] ReplyTo<u64>,
    ),
    /// To be told from here.
    Tell(#[serde(with = "otava_remote::wire")] ActorRef<Command>, u64),
}

#[derive(Deserialize, Serialize)]
struct Outer {
    title: String,
    inner: Option<Box<Inner>>,
}

#[derive(Deserialize, Serialize)]
enum Inner {
    One(#[serde(with = "otava_remote::wire")] To),
    Two {
        #[serde(with = "otava_remote::wire")]
        both: (To, To),
    },
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Rank {
    High(u8),
}

impl wire::Plain for Rank {}

impl RemoteMessage for Parcel {
    const NAME: &'static str = "test.Parcel";
}

/// Tells each reference a number, in the order of the message.
#[derive(Default)]
struct Depot {
    told: u64,
    known: Vec<(String, To)>,
}

impl Depot {
    fn tell(&mut self, to: &To) {
        to.tell(Number(self.told)).unwrap();
        self.told += 1;
    }
}

impl Actor for Depot {
    type Msg = Parcel;
    type Err = Infallible;

    async fn handle(&mut self, parcel: Parcel, _: &mut Context<Self>) -> Result<(), Infallible> {
        match parcel {
            Parcel::Nested(outers) => {
                for outer in outers {
                    match *outer.inner.unwrap() {
                        Inner::One(to) => {
                            self.tell(&to);
                            self.known.push((outer.title, to));
                        }
                        Inner::Two { both } => {
                            self.tell(&both.0);
                            self.tell(&both.1);
                        }
                    }
                }
            }
            Parcel::Collections {
                by_name,
                by_number,
                once,
                row,
            } => {
                for to in by_name.values().flatten().flatten() {
                    self.tell(to);
                }
                for (rank, two, duration) in by_number.values() {
                    assert_eq!((rank, *duration), (&Rank::High(3), SECOND));
                    for to in two {
                        self.tell(to);
                    }
                }
                for to in &once {
                    self.tell(to);
                }
                for to in row.into_iter().flatten() {
                    self.tell(&to);
                }
            }
            Parcel::Ports(ports) => {
                for (number, port) in ports {
                    if let Some(port) = port {
                        port.send(number + 1).unwrap();
                    }
                }
            }
            Parcel::Find(reply_to) => {
                let known = self.known.clone();
                drop(reply_to.send(Some(known).filter(|known| !known.is_empty())));
            }
            Parcel::Forward(to, reply_to) => drop(to.tell(Command::Get(reply_to))),
            Parcel::Tell(to, number) => drop(to.tell(Command::Add(number))),
        }
        Ok(())
    }
}

/// A depot on `there`, as `here` sees it.
fn depot(here: &Node, there: &Node) -> ActorRef<Parcel> {
    let props = Props::once(Depot::default());
    let depot = there.system.spawn_anonymous(props).unwrap();
    there.remote.publish("depot", &depot).unwrap();
    here.remote.resolve(there.remote.id(), "depot")
}

async fn hears<const N: usize>(probe: &mut TestProbe<Number>, numbers: [u64; N]) {
    for number in numbers {
        assert_eq!(probe.expect_msg(SOON).await.0, number);
    }
}

#[tokio::test(start_paused = true)]
async fn references_travel_at_any_depth_and_in_collections() {
    let world = VirtualWorld::new(11);
    let (a, b) = pair(&world);
    let depot = depot(&a, &b);
    let mut x = TestProbe::<Number>::new(&a.system);
    let mut y = TestProbe::<Number>::new(&a.system);
    let (to_x, to_y) = (x.actor_ref().clone(), y.actor_ref().clone());
    let outer = |inner| Outer {
        title: "x".into(),
        inner: Some(Box::new(inner)),
    };
    let both = (to_y.clone(), to_x.clone());
    let nested = vec![outer(Inner::One(to_x.clone())), outer(Inner::Two { both })];
    depot.tell(Parcel::Nested(nested)).unwrap();
    hears(&mut x, [0, 2]).await;
    hears(&mut y, [1]).await;

    let two = [to_x.clone(), to_y.clone()];
    let collections = Parcel::Collections {
        by_name: BTreeMap::from([
            ("a".into(), vec![Some(to_y.clone()), None]),
            ("b".into(), vec![Some(to_x.clone())]),
        ]),
        by_number: HashMap::from([(7, (Rank::High(3), two, SECOND))]),
        once: HashSet::from([to_y.clone()]),
        row: VecDeque::from([Err("nobody".into()), Ok(to_x.clone())]),
    };
    depot.tell(collections).unwrap();
    hears(&mut y, [3, 6, 7]).await;
    hears(&mut x, [4, 5, 8]).await;

    // And back, in an answer; what comes home is the local actor.
    let found = depot.ask(Parcel::Find).within(SOON).await.unwrap().unwrap();
    let [(title, home)] = &found[..] else {
        panic!("one was kept");
    };
    assert!(title == "x" && *home == to_x && home.remote_target().is_none());
}

#[tokio::test(start_paused = true)]
async fn several_questions_fit_into_one_message() {
    let world = VirtualWorld::new(12);
    let (a, b) = pair(&world);
    let depot = depot(&a, &b);
    let (ports, replies): (Vec<_>, Vec<_>) = (0..3).map(|_| ReplyTo::channel(None)).unzip();
    let mut numbered: Vec<_> = (0..).zip(ports.into_iter().map(Some)).collect();
    numbered.push((9, None));
    depot.tell(Parcel::Ports(numbered)).unwrap();
    for (n, reply) in (0..).zip(replies) {
        assert_eq!(reply.await, Ok(n + 1));
    }
    assert_eq!(a.remote.stats().open_ports, 0);
}

/// A gives B a reference to an actor of C: what B sends takes no way over A. C is started again: the
/// old reference reaches nothing there, also not the actor that has the old one's name.
#[tokio::test(start_paused = true)]
async fn a_reference_that_is_passed_on_leads_straight_to_its_node() {
    let world = VirtualWorld::new(13);
    let (a, b) = pair(&world);
    let c = Node::start(&world, "c", 3);
    let counter = c.counter();
    let depot = depot(&a, &b);
    let of_c = a.sees(&c);
    depot.tell(Parcel::Tell(of_c.clone(), 1)).unwrap();
    // With A cut off from C, B is told once more.
    tokio::time::sleep(SECOND).await;
    world.cut(addr(1), addr(3));
    depot.tell(Parcel::Tell(of_c.clone(), 2)).unwrap();
    let forward = |reply_to| Parcel::Forward(of_c.clone(), reply_to);
    assert_eq!(depot.ask(forward).within(SOON).await, Ok(3));
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(3));

    let c = Node::start_run(&world, "c", 3, 33);
    let counter = c.counter();
    world.heal(addr(1), addr(3));
    for node in [&a, &b] {
        let newcomer = node.remote.resolve_at::<Command>(addr(3), "counter");
        while newcomer.ask(Command::Get).within(SECOND).await.is_err() {}
    }
    let mut letters = DeadLetterSpy::new(&b.system);
    depot.tell(Parcel::Tell(of_c.clone(), 4)).unwrap();
    let refused = DeadLetterReason::RefusedStopped;
    letters.expect(refused, of_c.path(), SOON).await;
    let forward = |reply_to| Parcel::Forward(of_c.clone(), reply_to);
    let answer = depot.ask(forward).within(SOON).await;
    assert!(
        matches!(answer, Err(AskError::NoReply { .. })),
        "{answer:?}"
    );
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    // A never met the old run, so it is the new one that shows it to be over.
    let answer = of_c.ask(Command::Get).within(Duration::from_secs(60)).await;
    assert!(
        matches!(answer, Err(AskError::NoReply { .. })),
        "{answer:?}"
    );
}

/// The port in a question that is passed on leads back the way it came.
#[tokio::test(start_paused = true)]
async fn an_answer_from_a_third_node_comes_back() {
    let world = VirtualWorld::new(14);
    let (a, b) = pair(&world);
    let c = Node::start(&world, "c", 3);
    let counter = c.counter();
    let depot = depot(&a, &b);
    let of_c = a.sees(&c);
    of_c.tell(Command::Add(5)).unwrap();
    let forward = |reply_to| Parcel::Forward(of_c.clone(), reply_to);
    assert_eq!(depot.ask(forward).within(SOON).await, Ok(5));
    // Why there is none comes back too.
    counter.stop();
    tokio::time::sleep(SECOND).await;
    let forward = |reply_to| Parcel::Forward(of_c.clone(), reply_to);
    let answer = depot.ask(forward).within(Duration::from_secs(60)).await;
    assert!(
        matches!(answer, Err(AskError::Stopped { .. })),
        "{answer:?}"
    );
    for node in [&a, &b] {
        assert_eq!(node.remote.stats().open_ports, 0);
    }
}

/// What is asked of an actor that is gone, or full, is answered at once.
#[tokio::test(start_paused = true)]
async fn a_question_to_nobody_ends_at_once() {
    let world = VirtualWorld::new(15);
    let (a, b) = pair(&world);
    let hour = Duration::from_secs(3_600);
    let nobody = a.remote.resolve::<Command>(b.remote.id(), "nobody");
    let answer = nobody.ask(Command::Get).within(hour).await;
    assert!(
        matches!(answer, Err(AskError::Stopped { .. })),
        "{answer:?}"
    );
    let counter = b.counter();
    let seen = a.sees(&b);
    assert_eq!(seen.ask(Command::Get).within(SOON).await, Ok(0));
    counter.stop();
    tokio::time::sleep(SECOND).await;
    let answer = seen.ask(Command::Get).within(hour).await;
    assert!(
        matches!(answer, Err(AskError::Stopped { .. })),
        "{answer:?}"
    );

    // An actor of another type, as a mistaken program takes it.
    let probe = TestProbe::<Number>::new(&b.system);
    b.remote.publish("number", probe.actor_ref()).unwrap();
    let mistaken = a.remote.resolve::<Command>(b.remote.id(), "number");
    let answer = mistaken.ask(Command::Get).within(hour).await;
    assert!(
        matches!(answer, Err(AskError::NotUnderstood { .. })),
        "{answer:?}"
    );

    let one = std::num::NonZeroUsize::new(1).unwrap();
    let busy = Props::once(Busy).mailbox_capacity(one);
    let busy = b.system.spawn_with("busy", busy).unwrap();
    b.remote.publish("busy", &busy).unwrap();
    let full = a.remote.resolve::<Command>(b.remote.id(), "busy");
    // One is in work, one waits.
    for _ in 0..2 {
        full.tell(Command::Add(1)).unwrap();
        tokio::time::sleep(SECOND).await;
    }
    let answer = full.ask(Command::Get).within(hour).await;
    assert!(matches!(answer, Err(AskError::Full { .. })), "{answer:?}");
    assert_eq!(a.remote.stats().open_ports, 0);
}

/// Never done with its first message.
struct Busy;

impl Actor for Busy {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(&mut self, _: Command, _: &mut Context<Self>) -> Result<(), Infallible> {
        std::future::pending().await
    }
}

/// Takes its time for one question, and none for others.
struct Slow;

impl Actor for Slow {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(&mut self, msg: Command, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Command::Wait(reply_to) => {
                tokio::time::sleep(3 * SECOND).await;
                reply_to.send(3).unwrap();
            }
            Command::Get(reply_to) => reply_to.send(0).unwrap(),
            _ => unreachable!("it is asked only"),
        }
        Ok(())
    }
}

/// L8 between nodes: a question whose asker has stopped waiting is not handled when its turn comes; one
/// behind it whose asker still waits is.
#[tokio::test(start_paused = true)]
async fn a_question_from_another_node_that_nobody_waits_for_is_skipped() {
    let world = VirtualWorld::new(1);
    let (a, b) = pair(&world);
    let slow = b.system.spawn("slow", Slow).unwrap();
    b.remote.publish("counter", &slow).unwrap();
    let slow = a.sees(&b);
    let busy = tokio::spawn(slow.ask(Command::Wait).into_future());
    tokio::time::sleep(SECOND).await;
    let expires = slow.ask(Command::Get).within(SECOND).into_future();
    let waits = slow.ask(Command::Get).within(5 * SECOND).into_future();
    let (expired, answered) = tokio::join!(expires, waits);
    assert!(
        matches!(expired, Err(AskError::Timeout { .. })),
        "{expired:?}"
    );
    assert_eq!((answered, busy.await.unwrap()), (Ok(0), Ok(3)));
    let letters = b.system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::Expired), 1);
    // It was not handled, so no answer came late.
    assert_eq!(a.system.dead_letters().total(), 0);
}
