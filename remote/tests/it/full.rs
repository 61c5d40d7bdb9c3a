//! Proves: what comes faster than its actor waits for room in the mailbox, and holds up nobody for long.

use crate::cuts::{Node, SOON};
use crate::nodes::{Command, Counter, Number};
use otava_actor::{Actor, ActorRef, Context, Props};
use otava_remote::{RemoteConfig, VirtualWorld};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

const MAILBOX: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// Takes numbers in their order, some a millisecond, while its gate lets it.
struct Taker {
    taken: Arc<AtomicU64>,
    /// A permit for each that it may take.
    gate: Arc<Semaphore>,
    a_millisecond: u64,
}

impl Actor for Taker {
    type Msg = Number;
    type Err = Infallible;

    async fn handle(&mut self, number: Number, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.gate.acquire().await.unwrap().forget();
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        // Some may be missing, none is out of order.
        assert!(number.0 >= before);
        if number.0.is_multiple_of(self.a_millisecond) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Two nodes with one lane between them, a taker and a counter on the second one.
struct Scene {
    a: Node,
    b: Node,
    taken: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
    taker: ActorRef<Number>,
    counter: ActorRef<Command>,
}

impl Scene {
    fn new(seed: u64, a_millisecond: u64) -> Self {
        let world = VirtualWorld::new(seed);
        let mut config = RemoteConfig::default();
        config.lanes = 1;
        let node =
            |name, port: u16| Node::start_with(&world, name, port, u64::from(port), config.clone());
        let (a, b) = (node("a", 1), node("b", 2));
        let (taken, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let taker = Taker {
            taken: Arc::clone(&taken),
            gate: Arc::clone(&gate),
            a_millisecond,
        };
        let recipe = Props::once(taker).mailbox_capacity(MAILBOX);
        let taker = b.system.spawn_with("taker", recipe).unwrap();
        b.remote.publish("taker", &taker).unwrap();
        let counter = b.system.spawn("counter", Counter(7)).unwrap();
        b.remote.publish("counter", &counter).unwrap();
        let taker = a.remote.resolve::<Number>(b.remote.id(), "taker");
        let counter = a.remote.resolve::<Command>(b.remote.id(), "counter");
        Self {
            a,
            b,
            taken,
            gate,
            taker,
            counter,
        }
    }

    async fn send(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.taker.send(Number(number)).await.unwrap();
        }
    }

    fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    fn undelivered(&self) -> u64 {
        self.b.remote.stats().undelivered
    }

    /// How long an ask of the counter waits, which goes on the same lane.
    async fn ask(&self) -> Duration {
        let begin = tokio::time::Instant::now();
        let answer = self.counter.ask(Command::Get).within(SOON).await;
        assert_eq!(answer, Ok(7));
        begin.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_faster_than_its_actor_waits_for_it() {
    let scene = Scene::new(31, 100);
    scene.open();
    scene.send(0..30_000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.taken(), scene.undelivered()), (30_000, 0));
    assert_eq!(scene.a.remote.stats().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_stands_still_holds_up_the_others_once() {
    let scene = Scene::new(32, 1_000);
    let full = MAILBOX.get() as u64 + 1;
    scene.send(0..full + 5_000).await;
    let waited = scene.ask().await;
    assert!(
        waited > Duration::from_millis(50) && waited < Duration::from_millis(150),
        "{waited:?}"
    );
    assert_eq!(scene.undelivered(), 5_000);
    scene.send(6_025..11_025).await;
    let waited = scene.ask().await;
    assert!(waited < Duration::from_millis(10), "{waited:?}");
    assert_eq!(scene.undelivered(), 10_000);
    // One place at a time is no sign that it keeps up.
    for number in 11_025..11_125 {
        scene.gate.add_permits(1);
        scene.send(number..number + 1).await;
        let waited = scene.ask().await;
        assert!(waited < Duration::from_millis(10), "{waited:?}");
    }
    // It catches up, and is waited for again.
    scene.open();
    tokio::time::sleep(SOON).await;
    let (before, lost) = (scene.taken(), scene.undelivered());
    scene.send(20_000..40_000).await;
    tokio::time::sleep(SOON).await;
    assert_eq!(
        (scene.taken() - before, scene.undelivered()),
        (20_000, lost)
    );
}
