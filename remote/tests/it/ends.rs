//! Proves: a layer ends in order, whatever its peers do, and leaves nothing behind.

use crate::cuts::{Node, SOON, addr, pair};
use crate::nodes::{Command, Counter, Number};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorSystem, Props};
use otava_remote::{
    ConnectError, Connection, Credentials, LaneError, LaneReader, LaneWriter, Network, QuicNetwork,
    Remote, VirtualNetwork, VirtualWorld,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

/// A network on which nobody who calls lets this node open a lane.
struct Mute(VirtualNetwork);

struct MuteConnection(Arc<dyn Connection>);

impl Network for Mute {
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, Result<Arc<dyn Connection>, ConnectError>> {
        self.0.connect(to)
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        let mute = |connection| Arc::new(MuteConnection(connection)) as Arc<dyn Connection>;
        self.0
            .accept()
            .map(move |accepted| accepted.map(mute))
            .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}

impl Connection for MuteConnection {
    fn peer_addr(&self) -> SocketAddr {
        self.0.peer_addr()
    }

    fn proves_name(&self, name: &str) -> bool {
        self.0.proves_name(name)
    }

    fn open_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneWriter>, LaneError>> {
        pending().boxed()
    }

    fn accept_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneReader>, LaneError>> {
        self.0.accept_lane()
    }

    fn close(&self, reason: &str) {
        self.0.close(reason);
    }

    fn closed(&self) -> BoxFuture<'_, String> {
        self.0.closed()
    }
}

/// X8: a peer that calls and takes no answer holds up neither this node's own call nor its end.
#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_no_answer_holds_nothing_up() {
    let world = VirtualWorld::new(1);
    let a = ActorSystem::new("a");
    let network = Arc::new(Mute(world.network(addr(1), "a")));
    let remote = Remote::builder(&a, "test", "a", network).start().unwrap();
    let b = Node::start(&world, "b", 2);
    let _counter = b.counter();
    let counter_of_b = remote.resolve::<Command>(b.remote.id(), "counter");
    // b calls again and again, and a can never welcome it.
    b.remote.keep_connected(addr(1));
    tokio::time::sleep(SECOND).await;
    let ask = counter_of_b
        .ask(Command::Get)
        .within(Duration::from_secs(30));
    assert_eq!(ask.await, Ok(0));
    b.remote.shutdown().await;

    let c = Node::start(&world, "c", 3);
    c.remote.keep_connected(addr(1));
    tokio::time::sleep(SECOND).await;
    tokio::time::timeout(3 * SECOND, remote.shutdown())
        .await
        .unwrap();
}

/// What was accepted before the end is sent, and read by the peer, although the goodbye takes
/// another lane.
#[tokio::test(start_paused = true)]
async fn the_last_messages_before_the_end_arrive() {
    for seed in 0..20 {
        let world = VirtualWorld::new(seed);
        world.set_delay(Duration::from_millis(1)..Duration::from_millis(50));
        let (a, b) = pair(&world);
        let mut probe = TestProbe::<Number>::new(&b.system);
        b.remote.publish("numbers", probe.actor_ref()).unwrap();
        let numbers = a.remote.resolve::<Number>(b.remote.id(), "numbers");
        numbers.tell(Number(0)).unwrap();
        if seed % 2 == 0 {
            probe.expect_msg(SOON).await;
        } else {
            tokio::time::sleep(SECOND).await;
        }
        for n in 1..3_000 {
            numbers.tell(Number(n)).unwrap();
        }
        a.remote.shutdown().await;
        for n in (1 - seed % 2)..3_000 {
            assert_eq!(probe.expect_msg(SOON).await.0, n, "seed {seed}");
        }
        b.remote.shutdown().await;
    }
}

/// Who ends what is ended already waits until it is, and cuts nothing short.
#[tokio::test(start_paused = true)]
async fn two_may_end_a_layer_at_once() {
    let world = VirtualWorld::new(2);
    let (a, b) = pair(&world);
    let mut probe = TestProbe::<Number>::new(&b.system);
    b.remote.publish("numbers", probe.actor_ref()).unwrap();
    let numbers = a.remote.resolve::<Number>(b.remote.id(), "numbers");
    numbers.tell(Number(0)).unwrap();
    probe.expect_msg(SOON).await;
    numbers.tell(Number(1)).unwrap();
    // One of them does not even wait for the end.
    let first = tokio::time::timeout(Duration::from_micros(10), a.remote.shutdown());
    assert!(first.await.is_err());
    tokio::join!(a.remote.shutdown(), a.remote.shutdown());
    assert_eq!(probe.expect_msg(SOON).await.0, 1);
    tokio::time::sleep(SECOND).await;
    assert!(!b.remote.is_connected(a.remote.id()));
}

/// A layer that is dropped and not shut down gives its port back, once nobody refers to it.
#[tokio::test]
async fn a_dropped_layer_frees_its_port() {
    let folder = TempDir::new().unwrap();
    let start = |name: &str, addr| {
        let credentials = Credentials::development(folder.path(), name).unwrap();
        let network = QuicNetwork::builder(name, addr, credentials).bind()?;
        let system = ActorSystem::new(name);
        let remote = Remote::builder(&system, "test", name, Arc::new(network)).start();
        Ok::<_, otava_remote::BindError>((system, remote.unwrap()))
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (system, a) = start("a", any).unwrap();
    let (_system_of_b, b) = start("b", any).unwrap();
    let counter = system.spawn_anonymous(Props::once(Counter(0))).unwrap();
    a.publish("counter", &counter).unwrap();
    let seen = b.resolve::<Command>(a.id(), "counter");
    assert_eq!(seen.ask(Command::Get).within(SOON).await, Ok(0));
    let addr = a.id().addr;
    drop(a);
    let again = async {
        while start("a", addr).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.unwrap();
}
