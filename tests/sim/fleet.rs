//! Fleet: whole nodes with counters under load, which a random story starts, breaks and ends.

use crate::counter::{Command, Counter};
use crate::world::{World, addr};
use otava::prelude::*;
use otava::{Client, Ended, Entities, EntityRef, NodeId, PeerIdentity, ShardingConfig};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const ENTITIES: u64 = 24;
pub(crate) const SHARDS: u32 = 16;
/// How long a sender waits for one answer.
const TRY: Duration = Duration::from_secs(2);
/// The numbers of one sender begin this far apart.
const SENDER_SPAN: u64 = 1_000_000;

pub(crate) fn options() -> EntityOptions {
    EntityOptions::default().sharding(ShardingConfig::default().shards(SHARDS))
}

pub(crate) fn entity_of(n: u64) -> String {
    format!("c-{}", n % ENTITIES)
}

/// One node and its way to the counters.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) counters: Entities<Command>,
}

/// Starts a node that hosts counters; it is no member yet.
pub(crate) async fn start(world: &mut World, number: u16) -> Member {
    let node = world.start(number).await;
    let counters = node.entities::<Counter>(options()).unwrap();
    Member { node, counters }
}

/// What all senders share.
#[derive(Default)]
struct Load {
    /// The members through which is sent, by number.
    ways: RefCell<BTreeMap<u16, Entities<Command>>>,
    acknowledged: RefCell<BTreeSet<u64>>,
    /// Asks that failed, by the number of the member that was asked; 0 is the client.
    failed: RefCell<BTreeMap<u16, u64>>,
    is_over: Cell<bool>,
}

/// The nodes of one story.
pub(crate) struct Fleet {
    pub(crate) world: World,
    pub(crate) live: BTreeMap<u16, Member>,
    /// Runs of nodes that a fault explains, should they be put down.
    pub(crate) excused: BTreeSet<NodeId>,
    load: Rc<Load>,
    senders: Vec<JoinHandle<()>>,
    client: Option<Client>,
}

impl Fleet {
    /// Starts the nodes 1 to `size`, waits until all shards have homes, and lets commands flow: some
    /// through each of the first three nodes, some from a client.
    pub(crate) async fn start(seed: u64, size: u16, seeds: u16, with_client: bool) -> Self {
        let mut fleet = Self {
            world: World::new(seed, seeds),
            live: BTreeMap::new(),
            excused: BTreeSet::new(),
            load: Rc::default(),
            senders: Vec::new(),
            client: None,
        };
        for number in 1..=size {
            let member = start(&mut fleet.world, number).await;
            fleet.live.insert(number, member);
        }
        for number in 1..=size {
            fleet.join(number).await;
        }
        for member in fleet.live.values() {
            member.counters.all_hosted().await;
        }
        for sender in 1..=3 {
            let load = fleet.load.clone();
            let sends = send(load, sender, None);
            fleet.senders.push(tokio::task::spawn_local(sends));
        }
        if !with_client {
            return fleet;
        }
        let identity = PeerIdentity::client("client");
        let network = Arc::new(fleet.world.net.network_as(addr(99), identity));
        let client = Client::builder("sim", "client", (1..=seeds).map(addr))
            .network(network)
            .seed(seed)
            .start()
            .unwrap();
        let counters = client.entities::<Command>(Counter::KIND, SHARDS).unwrap();
        let way = move |n: u64| counters.entity(entity_of(n));
        let sends = send(fleet.load.clone(), 0, Some(Box::new(way)));
        fleet.senders.push(tokio::task::spawn_local(sends));
        fleet.client = Some(client);
        fleet
    }

    /// Starts a node that is to join.
    pub(crate) async fn add(&mut self, number: u16) {
        let member = start(&mut self.world, number).await;
        self.live.insert(number, member);
    }

    pub(crate) async fn join(&mut self, number: u16) {
        let member = self.live[&number].clone();
        let joined = timeout(Duration::from_secs(60), async {
            // Others may be unreachable for a while, which keeps new ones out.
            while let Err(error) = member.node.join().await {
                assert!(
                    matches!(error, otava::JoinError::TimedOut { .. }),
                    "{error}"
                );
            }
        });
        joined
            .await
            .unwrap_or_else(|_| panic!("{number} was not let in"));
        self.load.ways.borrow_mut().insert(number, member.counters);
    }

    /// No commands go through this node any more, and it is not waited for.
    pub(crate) fn forget(&mut self, number: u16) -> Member {
        self.load.ways.borrow_mut().remove(&number);
        self.live.remove(&number).unwrap()
    }

    /// How many asks have failed on the way through members other than `but`.
    pub(crate) fn failed(&self, but: &[u16]) -> u64 {
        let failed = self.load.failed.borrow();
        let others = failed
            .iter()
            .filter(|(number, _)| **number > 0 && !but.contains(number));
        others.map(|(_, count)| count).sum()
    }

    /// Each entity answers through `number` before `deadline`.
    pub(crate) async fn answers(&self, number: u16, deadline: Instant) {
        for e in 0..ENTITIES {
            let entity = self.live[&number].counters.entity(entity_of(e));
            while let Err(error) = entity.ask(Command::Get).within(TRY).await {
                assert!(
                    Instant::now() < deadline,
                    "entity {e} (shard {}) does not answer node {number}: {error}; {:?}",
                    self.live[&number].counters.shard_of(&entity_of(e)),
                    self.live[&number].counters.homes(),
                );
                sleep(Duration::from_millis(50)).await;
            }
        }
        assert!(Instant::now() < deadline, "the answers came too late");
    }

    /// All live members agree on themselves.
    pub(crate) async fn settled(&self) {
        for member in self.live.values() {
            crate::world::settled(&member.node, self.live.len()).await;
        }
    }

    /// Ends the load; all that was sent is acknowledged in the end. Returns it.
    pub(crate) async fn quiet(&mut self) -> BTreeSet<u64> {
        self.load.is_over.set(true);
        for sender in self.senders.drain(..) {
            let ended = timeout(Duration::from_secs(60), sender).await;
            ended.expect("a sender is never answered").unwrap();
        }
        if let Some(client) = self.client.take() {
            client.shutdown().await;
        }
        self.load.acknowledged.borrow().clone()
    }
}

/// A node that was put down ends by itself.
pub(crate) async fn ends_downed(member: &Member) {
    let ended = timeout(Duration::from_secs(60), member.node.ended()).await;
    let how = ended.unwrap_or_else(|_| panic!("{:?} does not end", member.node));
    assert_eq!(how, Ended::Downed, "{:?}", member.node);
}

type Way = Box<dyn Fn(u64) -> EntityRef<Command>>;

/// Sends numbers, each again until it is acknowledged: through the member `sender`, or the next one
/// while that is none, or by another way.
async fn send(load: Rc<Load>, sender: u16, way: Option<Way>) {
    let from = u64::from(sender) * SENDER_SPAN;
    for n in from.. {
        if load.is_over.get() {
            return;
        }
        let mut skip = 0;
        loop {
            let (through, entity) = match &way {
                Some(way) => (0, way(n)),
                None => {
                    let ways = load.ways.borrow();
                    let own = ways.range(sender..).chain(ways.range(..sender));
                    let (number, counters) = own.cycle().nth(skip).expect("somebody lives");
                    (*number, counters.entity(entity_of(n)))
                }
            };
            let asked = entity.ask(|reply_to| Command::Take(n, reply_to));
            match asked.within(TRY).await {
                Ok(()) => break,
                Err(_) => *load.failed.borrow_mut().entry(through).or_default() += 1,
            }
            skip += 1;
            sleep(Duration::from_millis(100)).await;
        }
        load.acknowledged.borrow_mut().insert(n);
        sleep(Duration::from_millis(40)).await;
    }
}
