//! Proves: order, redelivery and quarantine hold when the network between two nodes is cut.

use crate::nodes::{Command, Counter, Number};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, ActorSystem, AskError, Ended, Props};
use otava_remote::{Remote, RemoteConfig, VirtualWorld};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const GIVE_UP: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) system: ActorSystem,
    pub(crate) remote: Remote,
}

impl Node {
    pub(crate) fn start(world: &VirtualWorld, name: &str, port: u16) -> Self {
        Self::start_run(world, name, port, u64::from(port))
    }

    /// Starts a run of its own; what still runs at the address crashes.
    pub(crate) fn start_run(world: &VirtualWorld, name: &str, port: u16, seed: u64) -> Self {
        Self::start_with(world, name, port, seed, RemoteConfig::default())
    }

    pub(crate) fn start_with(
        world: &VirtualWorld,
        name: &str,
        port: u16,
        seed: u64,
        mut config: RemoteConfig,
    ) -> Self {
        config.system_give_up = GIVE_UP;
        let system = ActorSystem::new(name);
        let network = Arc::new(world.network(addr(port), name));
        let remote = Remote::builder(&system, "test", name, network)
            .config(config)
            .seeded(seed)
            .start()
            .unwrap();
        Self { system, remote }
    }

    pub(crate) fn counter(&self) -> ActorRef<Command> {
        let counter = self
            .system
            .spawn_anonymous(Props::once(Counter(0)))
            .unwrap();
        self.remote.publish("counter", &counter).unwrap();
        counter
    }

    pub(crate) fn sees(&self, other: &Self) -> ActorRef<Command> {
        self.remote.resolve(other.remote.id(), "counter")
    }
}

pub(crate) fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

pub(crate) fn pair(world: &VirtualWorld) -> (Node, Node) {
    (Node::start(world, "a", 1), Node::start(world, "b", 2))
}

/// R1: what arrives over a cut of 5 s is in order, and traffic passes within 2 s of the heal.
#[tokio::test(start_paused = true)]
async fn after_a_cut_traffic_goes_on_in_order() {
    let world = VirtualWorld::new(1);
    let (a, b) = pair(&world);
    let mut probe = TestProbe::<Number>::new(&b.system);
    b.remote.publish("numbers", probe.actor_ref()).unwrap();
    let numbers = a.remote.resolve::<Number>(b.remote.id(), "numbers");
    let mut next = 0;
    let mut send = |count: u64| {
        for _ in 0..count {
            numbers.tell(Number(next)).unwrap();
            next += 1;
        }
    };
    send(1_000);
    for n in 0..1_000 {
        assert_eq!(probe.expect_msg(SOON).await.0, n);
    }
    world.cut(addr(1), addr(2));
    send(1_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.heal(addr(1), addr(2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    send(1_000);
    let mut got = Vec::new();
    while let Some(Number(n)) = probe.recv(Duration::from_secs(1)).await {
        got.push(n);
    }
    assert!(got.is_sorted() && got.windows(2).all(|pair| pair[0] < pair[1]));
    let after: Vec<u64> = (2_000..3_000).collect();
    assert!(got.ends_with(&after), "{} arrived", got.len());
}

/// R3: a cut shorter than the give-up time changes nothing for a watch; a longer one loses the node.
#[tokio::test(start_paused = true)]
async fn a_watch_survives_a_short_cut_and_a_long_one_ends_it() {
    let world = VirtualWorld::new(2);
    let (a, b) = pair(&world);
    let counter_of_b = b.counter();
    let counter = a.sees(&b);
    let mut probe = TestProbe::<Number>::new(&a.system);
    world.cut(addr(1), addr(2));
    probe.watch(&counter);
    tokio::time::sleep(GIVE_UP / 2).await;
    world.heal(addr(1), addr(2));
    probe.expect_no_msg(Duration::from_secs(5)).await;
    counter_of_b.stop();
    let news = probe.expect_terminated(&counter, SOON).await;
    assert_eq!(news.reason, Ended::Stopped);

    let _next = b.counter();
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&counter);
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    world.cut(addr(1), addr(2));
    let news = probe.expect_terminated(&counter, GIVE_UP * 2).await;
    assert_eq!(news.reason, Ended::NodeLost);
    world.heal_all();
    let answer = counter.ask(Command::Get).within(SOON).await;
    assert!(
        matches!(answer, Err(AskError::Stopped { .. })),
        "{answer:?}"
    );
}

/// R4: the node is killed and started again at its address while it is watched and asked.
#[tokio::test(start_paused = true)]
async fn a_killed_node_that_comes_back_is_another_one() {
    let world = VirtualWorld::new(3);
    let (a, b) = pair(&world);
    let _counter = b.counter();
    let old = a.sees(&b);
    let mut probe = TestProbe::<Number>::new(&a.system);
    probe.watch(&old);
    assert_eq!(old.ask(Command::Get).within(SOON).await, Ok(0));
    world.crash(addr(2));
    drop(b);
    let b = Node::start_run(&world, "b", 2, 99);
    let _counter = b.counter();
    let anyone = a.remote.resolve_at::<Command>(addr(2), "counter");
    let from = tokio::time::Instant::now();
    while anyone
        .ask(Command::Get)
        .within(Duration::from_secs(1))
        .await
        .is_err()
    {}
    assert!(
        from.elapsed() < Duration::from_secs(5),
        "{:?}",
        from.elapsed()
    );
    assert_eq!(
        probe.expect_terminated(&old, SOON).await.reason,
        Ended::NodeLost
    );
    let answer = old.ask(Command::Get).within(SOON).await;
    assert!(
        matches!(answer, Err(AskError::Stopped { .. })),
        "{answer:?}"
    );
}

/// R7: a peer that takes nothing makes the queue full, and not the memory; `send` waits.
#[tokio::test(start_paused = true)]
async fn a_queue_to_a_peer_that_is_cut_off_is_bounded() {
    let world = VirtualWorld::new(4);
    let (a, b) = pair(&world);
    let _counter = b.counter();
    let counter = a.sees(&b);
    assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    world.cut(addr(1), addr(2));
    let mut accepted = 0_usize;
    while counter.tell(Command::Blob(vec![0; 100_000])).is_ok() {
        accepted += 100_000;
        tokio::task::yield_now().await;
    }
    assert!(accepted < 16 << 20, "{accepted} bytes were taken");
    world.heal_all();
    counter.send(Command::Add(1)).await.unwrap();
    assert!(counter.ask(Command::Get).within(SOON).await.unwrap() > 0);
}

/// L5 over a network: the news of an end comes after everything that the actor sent.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_actor_comes_behind_its_last_messages() {
    let world = VirtualWorld::new(5);
    world.set_delay(Duration::from_millis(1)..Duration::from_millis(50));
    let (a, b) = pair(&world);
    for _ in 0..20 {
        let counter_of_b = b.counter();
        let counter = a.sees(&b);
        let mut probe = TestProbe::<Number>::new(&a.system);
        probe.watch(&counter);
        assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
        let me = probe.actor_ref().clone();
        counter.tell(Command::Count(100, me)).unwrap();
        counter.tell(Command::Stop).unwrap();
        for n in 0..100 {
            assert_eq!(probe.expect_msg(SOON).await.0, n);
        }
        probe.expect_terminated(&counter, SOON).await;
        drop(counter_of_b);
        b.remote.withdraw("counter");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_is_made_again_whenever_it_is_lost() {
    let world = VirtualWorld::new(6);
    let (a, b) = pair(&world);
    assert!(!a.remote.is_connected_at(addr(2)));
    a.remote.keep_connected(addr(2));
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(a.remote.is_connected_at(addr(2)) && a.remote.is_connected(b.remote.id()));
        world.cut(addr(1), addr(2));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!a.remote.is_connected_at(addr(2)));
        world.heal_all();
    }
}
