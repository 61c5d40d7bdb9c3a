//! Proves: references, asks, watches and quarantine hold between two nodes, over QUIC.

use otava_actor::testkit::TestProbe;
use otava_actor::{Actor, ActorRef, ActorSystem, AskError, Context, Ended, ReplyTo};
use otava_remote::{Channel, Credentials, QuicNetwork, Remote, RemoteMessage};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

#[derive(Deserialize, Serialize)]
pub(crate) enum Command {
    Add(u64),
    Get(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
    /// Ask that is never answered.
    Drop(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
    /// Tells `to` every number below.
    Count(u64, #[serde(with = "otava_remote::wire")] ActorRef<Number>),
    /// Gives its own reference.
    Me(#[serde(with = "otava_remote::wire")] ReplyTo<Reference>),
    Stop,
    Blob(Vec<u8>),
    /// Ask that is answered after three seconds.
    Wait(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Reference(#[serde(with = "otava_remote::wire")] pub(crate) ActorRef<Command>);

#[derive(Deserialize, Serialize)]
pub(crate) struct Number(pub(crate) u64);

impl RemoteMessage for Command {
    const NAME: &'static str = "test.Command";
}

impl RemoteMessage for Reference {
    const NAME: &'static str = "test.Reference";
}

impl RemoteMessage for Number {
    const NAME: &'static str = "test.Number";
}

pub(crate) struct Counter(pub(crate) u64);

impl Actor for Counter {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(
        &mut self,
        command: Command,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match command {
            Command::Add(n) => self.0 += n,
            Command::Get(reply_to) => drop(reply_to.send(self.0)),
            Command::Drop(_) => {}
            Command::Count(to, counter) => {
                for n in 0..to {
                    counter.send(Number(n)).await.unwrap();
                }
            }
            Command::Me(reply_to) => drop(reply_to.send(Reference(ctx.me().clone()))),
            Command::Stop => ctx.stop_self(),
            Command::Blob(bytes) => self.0 += bytes.len() as u64,
            Command::Wait(reply_to) => {
                ctx.timer_once("wait", Duration::from_secs(3), Command::Get(reply_to));
            }
        }
        Ok(())
    }
}

struct TestNode {
    system: ActorSystem,
    remote: Remote,
}

impl TestNode {
    fn start(folder: &TempDir, name: &str) -> Self {
        Self::start_at(folder, name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn start_at(folder: &TempDir, name: &str, addr: SocketAddr) -> Self {
        let credentials = Credentials::development(folder.path(), name).unwrap();
        let network = QuicNetwork::builder(name, addr, credentials)
            .bind()
            .unwrap();
        let system = ActorSystem::new(name);
        let remote = Remote::builder(&system, "test", name, Arc::new(network))
            .start()
            .unwrap();
        Self { system, remote }
    }

    fn counter(&self) -> ActorRef<Command> {
        let counter = self
            .system
            .spawn_anonymous(otava_actor::Props::once(Counter(0)))
            .unwrap();
        self.remote.publish("counter", &counter).unwrap();
        counter
    }

    fn sees(&self, other: &Self) -> ActorRef<Command> {
        self.remote.resolve(other.remote.id(), "counter")
    }

    async fn shutdown(self) {
        self.system.shutdown().await;
        self.remote.shutdown().await;
    }
}

async fn pair() -> (TempDir, TestNode, TestNode) {
    let folder = TempDir::new().unwrap();
    let (a, b) = (TestNode::start(&folder, "a"), TestNode::start(&folder, "b"));
    (folder, a, b)
}

#[tokio::test]
async fn an_ask_crosses_and_its_answer_comes_back() {
    let (_folder, a, b) = pair().await;
    let _counter = b.counter();
    let counter = a.sees(&b);
    counter.tell(Command::Add(40)).unwrap();
    counter.tell(Command::Add(2)).unwrap();
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(42));
    assert_eq!(a.remote.stats().open_ports, 0);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn a_question_that_is_dropped_over_there_ends_at_once() {
    let (_folder, a, b) = pair().await;
    let _counter = b.counter();
    let counter = a.sees(&b);
    let answer = counter
        .ask(Command::Drop)
        .within(Duration::from_secs(60))
        .await;
    assert!(
        matches!(answer, Err(AskError::NoReply { .. })),
        "{answer:?}"
    );
    assert_eq!(a.remote.stats().open_ports, 0);
}

/// R1 without a cut: order and completeness over 10,000 numbered messages.
#[tokio::test]
async fn a_reference_inside_a_message_leads_back_and_order_is_kept() {
    let (_folder, a, b) = pair().await;
    let _counter = b.counter();
    let mut probe = TestProbe::<Number>::new(&a.system);
    let me = probe.actor_ref().clone();
    a.sees(&b).tell(Command::Count(10_000, me)).unwrap();
    for n in 0..10_000 {
        assert_eq!(probe.expect_msg(SOON).await.0, n);
    }
}

#[tokio::test]
async fn a_reference_that_comes_home_is_the_local_one() {
    let (_folder, a, b) = pair().await;
    let counter = b.counter();
    let Reference(seen) = a.sees(&b).ask(Command::Me).within(SOON).await.unwrap();
    assert!(seen.remote_target().is_some());
    assert_eq!(seen.uid(), counter.uid());
    seen.tell(Command::Add(1)).unwrap();
    assert_eq!(seen.ask(Command::Get).within(SOON).await, Ok(1));
    // From a third node, by a reference that a got from b.
    let Reference(home) = b.sees(&b).ask(Command::Me).within(SOON).await.unwrap();
    assert!(home.remote_target().is_none() && home == counter);
}

#[tokio::test]
async fn the_end_of_a_watched_actor_crosses() {
    let (_folder, a, b) = pair().await;
    let _counter = b.counter();
    let Reference(counter) = a.sees(&b).ask(Command::Me).within(SOON).await.unwrap();
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&counter);
    counter.tell(Command::Stop).unwrap();
    let news = probe.expect_terminated(&counter, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);
    // Watching what has ended answers too.
    let mut late = TestProbe::<Number>::new(&a.system);
    late.watch(&counter);
    assert_eq!(
        late.expect_terminated(&counter, SOON).await.reason,
        Ended::Unknown
    );
}

/// R4: a new run at the same address is met; the old run's references never reach it.
#[tokio::test]
async fn a_new_run_at_the_same_address_is_another_node() {
    let (folder, a, b) = pair().await;
    let _counter = b.counter();
    let old = a.sees(&b);
    assert_eq!(old.ask(Command::Get).within(SOON).await, Ok(0));
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&old);
    let addr = b.remote.id().addr;
    b.remote.shutdown().await;
    assert_eq!(
        probe.expect_terminated(&old, SOON).await.reason,
        Ended::NodeLost
    );

    let b = TestNode::start_at(&folder, "b", addr);
    let _counter = b.counter();
    let anyone = a.remote.resolve_at::<Command>(addr, "counter");
    let mut answer = anyone.ask(Command::Get).within(SOON).await;
    while answer.is_err() {
        answer = anyone.ask(Command::Get).within(SOON).await;
    }
    let refused = old.ask(Command::Get).within(SOON).await;
    assert!(
        matches!(refused, Err(AskError::Stopped { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_quarantined_run_hears_and_says_nothing() {
    let (_folder, a, b) = pair().await;
    let _counter = b.counter();
    let counter = a.sees(&b);
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&counter);
    a.remote.quarantine(b.remote.id(), "the test says so");
    assert_eq!(
        probe.expect_terminated(&counter, SOON).await.reason,
        Ended::NodeLost
    );
    let answer = counter.ask(Command::Get).within(SOON).await;
    assert!(
        matches!(answer, Err(AskError::Stopped { .. })),
        "{answer:?}"
    );
    // And the other way: b is refused, so that its ask ends.
    let _mine = a.counter();
    let answer = b
        .sees(&a)
        .ask(Command::Get)
        .within(Duration::from_secs(1))
        .await;
    assert!(answer.is_err(), "{answer:?}");
}

/// R6: too large is an error for the sender, and the lane goes on.
#[tokio::test]
async fn a_message_over_the_limit_comes_back() {
    let (_folder, a, b) = pair().await;
    let _counter = b.counter();
    let counter = a.sees(&b);
    let refused = counter.tell(Command::Blob(vec![1; 2 << 20])).unwrap_err();
    assert!(
        matches!(refused, otava_actor::TellError::Unsendable(..)),
        "{refused:?}"
    );
    counter.tell(Command::Blob(vec![1; 1000])).unwrap();
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(1000));
}

#[tokio::test]
async fn both_nodes_may_call_at_the_same_time() {
    for _ in 0..10 {
        let (_folder, a, b) = pair().await;
        let (_on_a, _on_b) = (a.counter(), b.counter());
        let (to_b, to_a) = (a.sees(&b), b.sees(&a));
        let asks = tokio::join!(
            to_b.ask(Command::Get).within(SOON),
            to_a.ask(Command::Get).within(SOON)
        );
        assert_eq!(asks, (Ok(0), Ok(0)));
        a.shutdown().await;
        b.shutdown().await;
    }
}

#[tokio::test]
async fn control_messages_say_who_sent_them() {
    let (_folder, a, b) = pair().await;
    let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
    b.remote
        .on_control(Channel::FIRST_FREE, move |from, payload| {
            sender.send((from.clone(), payload)).unwrap();
        });
    a.remote
        .send_control(b.remote.id().addr, Channel::FIRST_FREE, "hello".into());
    let (from, payload) = got.recv().await.unwrap();
    assert_eq!((&from, &*payload), (a.remote.id(), &b"hello"[..]));
}

/// X4: another cluster is refused, and its messages become dead letters.
#[tokio::test]
async fn another_cluster_is_refused() {
    let folder = TempDir::new().unwrap();
    let a = TestNode::start(&folder, "a");
    let _counter = a.counter();
    let credentials = Credentials::development(folder.path(), "x").unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let network = QuicNetwork::builder("x", listen, credentials)
        .bind()
        .unwrap();
    let system = ActorSystem::new("x");
    let other = Remote::builder(&system, "other", "x", Arc::new(network))
        .start()
        .unwrap();
    let counter = other.resolve::<Command>(a.remote.id(), "counter");
    let answer = counter
        .ask(Command::Get)
        .within(Duration::from_secs(60))
        .await;
    assert!(
        matches!(answer, Err(AskError::NoReply { .. })),
        "{answer:?}"
    );
}
