//! Proves: order, watches and asks hold under random traffic and random faults, replayed by `SEED`.

use crate::cuts::{GIVE_UP, Node, addr};
use otava_actor::{Actor, ActorRef, Context, Props, ReplyTo, Rng};
use otava_remote::{NodeId, RemoteMessage, RemoteStats, VirtualWorld};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SEEDS: u64 = 150;
const STEPS: u64 = 80;
const SECOND: Duration = Duration::from_secs(1);
/// Names under which each node publishes an actor.
const NAMES: [&str; 4] = ["one", "two", "three", "four"];

#[derive(Deserialize, Serialize)]
enum Job {
    Item { from: u64, n: u64 },
    Answer(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
    AnswerLate(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
    Forget(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
    Stop,
}

impl RemoteMessage for Job {
    const NAME: &'static str = "test.Job";
}

/// Takes jobs, and sees to it that those of one sender come in order, each once.
struct Worker {
    last: BTreeMap<u64, u64>,
    taken: Arc<AtomicUsize>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Actor for Worker {
    type Msg = Job;
    type Err = Infallible;

    async fn handle(&mut self, job: Job, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match job {
            Job::Item { from, n } => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                let before = self.last.insert(from, n);
                if before.is_some_and(|before| before >= n) {
                    let wrong = format!("{n} came from {from} after {before:?}");
                    self.wrong.lock().unwrap().push(wrong);
                }
            }
            Job::Answer(reply_to) => {
                let _ = reply_to.send(1);
            }
            Job::AnswerLate(reply_to) => {
                tokio::spawn(async move {
                    sleep(SECOND).await;
                    let _ = reply_to.send(2);
                });
            }
            Job::Forget(_) => {}
            Job::Stop => ctx.stop_self(),
        }
        Ok(())
    }
}

struct Watch {
    told: Arc<AtomicUsize>,
    by: NodeId,
    of: String,
}

/// A world in which anything may happen.
struct Chaos {
    world: VirtualWorld,
    rng: Rng,
    nodes: Vec<Node>,
    /// What was counted by runs that are over.
    past: Vec<RemoteStats>,
    next_item: u64,
    next_run: u64,
    taken: Arc<AtomicUsize>,
    wrong: Arc<Mutex<Vec<String>>>,
    asks: Vec<JoinHandle<Result<(), String>>>,
    watches: Vec<Watch>,
    crashed: Vec<NodeId>,
}

fn port(index: usize) -> u16 {
    index as u16 + 1
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut chaos = Self {
            world: VirtualWorld::new(seed),
            rng: Rng::seeded(seed),
            nodes: Vec::new(),
            past: Vec::new(),
            next_item: 0,
            next_run: 1_000 * seed,
            taken: Arc::default(),
            wrong: Arc::default(),
            asks: Vec::new(),
            watches: Vec::new(),
            crashed: Vec::new(),
        };
        for index in 0..chaos.rng.below(3) as usize + 2 {
            let node = chaos.start(index);
            chaos.nodes.push(node);
        }
        chaos
    }

    fn start(&mut self, index: usize) -> Node {
        self.next_run += 1;
        let name = format!("n{index}");
        let node = Node::start_run(&self.world, &name, port(index), self.next_run);
        for name in NAMES {
            let worker = Worker {
                last: BTreeMap::new(),
                taken: self.taken.clone(),
                wrong: self.wrong.clone(),
            };
            let worker = node.system.spawn_anonymous(Props::once(worker)).unwrap();
            node.remote.publish(name, &worker).unwrap();
        }
        node
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    /// Two different nodes.
    fn two(&mut self) -> (usize, usize) {
        let a = self.below(self.nodes.len());
        let b = self.below(self.nodes.len() - 1);
        (a, if b >= a { b + 1 } else { b })
    }

    /// A reference from one node to an actor of another, to its run or to its address.
    fn reference(&mut self) -> (usize, ActorRef<Job>) {
        let (from, to) = self.two();
        let name = NAMES[self.below(NAMES.len())];
        let remote = &self.nodes[from].remote;
        let actor = match self.rng.below(4) {
            0 => remote.resolve_at(addr(port(to)), name),
            _ => remote.resolve(self.nodes[to].remote.id(), name),
        };
        (from, actor)
    }

    async fn step(&mut self) {
        match self.rng.below(20) {
            0..=6 => self.tell(),
            7..=10 => self.ask(),
            11..=13 => self.watch(),
            14 => {
                let (_, actor) = self.reference();
                let _ = actor.tell(Job::Stop);
            }
            15 => {
                let (a, b) = self.two();
                let (a, b) = (addr(port(a)), addr(port(b)));
                match self.rng.below(3) {
                    0 => self.world.cut_one_way(a, b),
                    1 => self.world.cut(a, b),
                    _ => self.world.isolate(a),
                }
            }
            16 | 17 => self.world.heal_all(),
            18 => {
                let longest = Duration::from_millis(1 + self.rng.below(200));
                self.world.set_delay(Duration::ZERO..longest);
                self.world.set_loss(self.rng.below(10) as f64 / 100.0);
            }
            _ => {
                let index = self.below(self.nodes.len());
                self.restart(index).await;
            }
        }
        let pause = Duration::from_millis(self.rng.below(800));
        sleep(pause).await;
    }

    fn tell(&mut self) {
        let (from, actor) = self.reference();
        let from = self.nodes[from].remote.id().incarnation;
        for _ in 0..self.rng.below(50) {
            self.next_item += 1;
            let n = self.next_item;
            let _ = actor.tell(Job::Item { from, n });
        }
    }

    fn ask(&mut self) {
        let (_, actor) = self.reference();
        let within = Duration::from_millis(100 + self.rng.below(4_000));
        let kind = self.rng.below(3);
        self.asks.push(tokio::spawn(async move {
            let begin = Instant::now();
            let answer = match kind {
                0 => actor.ask(Job::Answer),
                1 => actor.ask(Job::AnswerLate),
                _ => actor.ask(Job::Forget),
            };
            let answer = answer.within(within).await;
            let took = begin.elapsed();
            let right = match answer {
                Ok(n) => n == kind + 1,
                Err(_) => true,
            };
            let wrong = || format!("{answer:?} after {took:?} of {within:?}, kind {kind}");
            (right && took <= within + SECOND)
                .then_some(())
                .ok_or_else(wrong)
        }));
    }

    fn watch(&mut self) {
        let (from, actor) = self.reference();
        let told: Arc<AtomicUsize> = Arc::default();
        let counts = told.clone();
        let watching = actor.on_terminated(move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        if self.rng.below(8) > 0 {
            watching.detach();
            self.watches.push(Watch {
                told,
                by: self.nodes[from].remote.id().clone(),
                of: actor.path().to_string(),
            });
        }
    }

    /// A node ends, in order or not, and another run takes its place.
    async fn restart(&mut self, index: usize) {
        let in_order = self.rng.below(2) == 0;
        let node = &self.nodes[index];
        if in_order {
            node.system.shutdown().await;
            node.remote.shutdown().await;
        } else {
            self.world.crash(addr(port(index)));
            self.crashed.push(node.remote.id().clone());
            node.system.shutdown().await;
        }
        self.past.push(self.nodes[index].remote.stats());
        let pause = Duration::from_millis(self.rng.below(3_000));
        sleep(pause).await;
        self.nodes[index] = self.start(index);
    }

    /// Everything heals, everyone stops; then nothing may be left.
    async fn check(mut self, seed: u64) {
        self.world.heal_all();
        self.world.set_loss(0.0);
        for ask in std::mem::take(&mut self.asks) {
            ask.await
                .unwrap()
                .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
        sleep(GIVE_UP * 2).await;
        for node in &self.nodes {
            let stats = node.remote.stats();
            assert_eq!(stats.open_ports, 0, "seed {seed}: {stats:?}");
        }
        for index in 0..self.nodes.len() {
            let (system, remote) = (&self.nodes[index].system, &self.nodes[index].remote);
            system.shutdown().await;
            remote.shutdown().await;
            self.past.push(remote.stats());
        }
        sleep(GIVE_UP * 2).await;
        for watch in &self.watches {
            let told = watch.told.load(Ordering::Relaxed);
            let right = told == 1 || (told == 0 && self.crashed.contains(&watch.by));
            let Watch { by, of, .. } = watch;
            assert!(right, "seed {seed}: {by} was told {told} times of {of}");
        }
        assert_eq!(*self.wrong.lock().unwrap(), [""; 0], "seed {seed}");
        let sum = |of: fn(&RemoteStats) -> u64| self.past.iter().map(of).sum::<u64>();
        // Goodbyes are not counted where they are sent.
        let received = sum(|stats| stats.frames_received);
        let sent = sum(|stats| stats.frames_sent);
        assert!(
            received <= sent + 1_000,
            "seed {seed}: {received} of {sent}"
        );
        let taken = self.taken.load(Ordering::Relaxed) as u64;
        let most = self.next_item / 10..=self.next_item;
        assert!(most.contains(&taken), "seed {seed}: {taken} of {most:?}");
    }
}

async fn run(seed: u64) {
    let mut chaos = Chaos::new(seed);
    for _ in 0..STEPS {
        chaos.step().await;
    }
    chaos.check(seed).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_order_watches_and_asks_hold() {
    if let Ok(seed) = std::env::var("SEED") {
        return run(seed.parse().unwrap()).await;
    }
    for seed in 0..SEEDS {
        run(seed).await;
    }
}
