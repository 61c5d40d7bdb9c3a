//! Proves: singletons, listings and topics of whole nodes follow a leave and a crash, old terms are refused
//! by the journal, and replicated data outlives the nodes that wrote it.

use crate::world::{World, addr, seed, settled};
use otava::prelude::*;
use otava::replicated::{GCounter, Key, Level, Replicator, ReplicatorConfig, StartError};
use otava::{
    ActorPath, ClusterGroup, Ended, Journal, SingletonConfig, SingletonContext, SingletonProxy,
};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

static DESKS: ServiceKey<Call> = ServiceKey::new("desks");

#[derive(Clone, Deserialize, Serialize)]
struct News(u64);

impl RemoteMessage for News {
    const NAME: &'static str = "sim.News";
}

/// Who are you, and by which term?
#[derive(Deserialize, Serialize)]
struct Call(#[serde(with = "otava::wire")] ReplyTo<(String, u64)>);

impl RemoteMessage for Call {
    const NAME: &'static str = "sim.Call";
}

struct Answerer {
    node: String,
    term: u64,
}

impl Actor for Answerer {
    type Msg = Call;
    type Err = Infallible;

    async fn handle(
        &mut self,
        Call(reply_to): Call,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let _ = reply_to.send((self.node.clone(), self.term));
        Ok(())
    }
}

/// Writes down what it hears, and where it is.
struct Reader(Arc<Mutex<Vec<(ActorPath, u64)>>>);

impl Actor for Reader {
    type Msg = News;
    type Err = Infallible;

    async fn handle(&mut self, News(n): News, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        self.0.lock().unwrap().push((ctx.path().clone(), n));
        Ok(())
    }
}

fn host(node: &Node) -> SingletonProxy<Call> {
    let name = node.id().name.to_string();
    let make = move |context: SingletonContext| {
        Props::once(Answerer {
            node: name.clone(),
            term: context.term,
        })
    };
    let config = SingletonConfig::default();
    node.singleton::<Answerer>("answerer", config, make)
        .unwrap()
}

async fn answer(proxy: &ActorRef<Call>) -> (String, u64) {
    proxy.ask(Call).within(SECOND * 20).await.unwrap()
}

/// Four nodes with all of it.
struct Stage {
    world: World,
    nodes: Vec<Node>,
    proxies: Vec<SingletonProxy<Call>>,
    heard: Arc<Mutex<Vec<(ActorPath, u64)>>>,
}

impl Stage {
    async fn set() -> Self {
        let mut world = World::new(seed(), 3);
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        let heard = Arc::new(Mutex::new(Vec::new()));
        for number in 1..=4 {
            let node = world.start(number).await;
            proxies.push(host(&node));
            let name = node.id().name.to_string();
            let desk = Answerer {
                node: name,
                term: 0,
            };
            let desk = node.system().spawn("desk", desk).unwrap();
            node.receptionist().register(&DESKS, &desk).unwrap();
            let reader = Reader(heard.clone());
            let reader = node.system().spawn("reader", reader).unwrap();
            let news = node.topic::<News>("news").unwrap();
            news.subscribe(&reader).unwrap();
            node.join().await.unwrap();
            nodes.push(node);
        }
        for node in &nodes {
            settled(node, 4).await;
        }
        Self {
            world,
            nodes,
            proxies,
            heard,
        }
    }

    /// The first node leaves while the fourth asks and asks: no ask fails.
    async fn the_oldest_leaves(&self) {
        let leaving = self.nodes[0].clone();
        let leave = tokio::spawn(async move { leaving.leave().await });
        let begin = Instant::now();
        let mut answers = Vec::new();
        while !leave.is_finished() {
            answers.push(answer(&self.proxies[3]).await);
            sleep(Duration::from_millis(7)).await;
        }
        assert_eq!(leave.await.unwrap(), Ended::Left);
        assert!(begin.elapsed() < SECOND * 3, "{:?}", begin.elapsed());
        assert_eq!(answer(&self.proxies[3]).await, ("node-2".to_owned(), 2));
        answers.dedup();
        assert!(answers.len() <= 2, "{answers:?}");
    }

    /// The second node crashes, and the third has the singleton in 15 seconds.
    async fn the_next_one_crashes(&self) {
        self.world.net.crash(addr(2));
        let begin = Instant::now();
        let ask = || self.proxies[3].ask(Call).within(SECOND);
        while ask().await.ok() != Some(("node-3".to_owned(), 3)) {
            assert!(begin.elapsed() < SECOND * 15, "it is not taken over");
        }
        settled(&self.nodes[3], 2).await;
    }

    /// What is published on the third node comes to both that are left, in order.
    async fn news_come_to_the_living(&self) {
        self.heard.lock().unwrap().clear();
        let news = self.nodes[2].topic::<News>("news").unwrap();
        for n in 0..10 {
            assert_eq!(news.publish(News(n)).nodes, 2);
        }
        sleep(SECOND).await;
        let heard = self.heard.lock().unwrap();
        for reader in ["node-3/reader", "node-4/reader"] {
            let of_it = heard.iter().filter(|(path, _)| path.as_str() == reader);
            let got: Vec<u64> = of_it.map(|(_, n)| *n).collect();
            assert_eq!(got, (0..10).collect::<Vec<_>>(), "{reader}");
        }
    }
}

/// C2, C3: the oldest of four leaves and its singleton answers from the next one, without an ask that
/// fails; the next one crashes, and the third has it in 15 seconds. Each start has a greater term, and
/// the journal refuses the older ones. Listings, groups and topics name the living.
#[tokio::test(start_paused = true)]
async fn what_stands_on_the_cluster_follows_its_members() {
    let stage = Stage::set().await;
    let group = ClusterGroup::of(&DESKS);
    let receptionist = stage.nodes[3].receptionist();
    let desks = receptionist.spawn_routee_group("desks", group).await;
    let desks = desks.unwrap();
    for proxy in &stage.proxies {
        assert_eq!(answer(proxy).await, ("node-1".to_owned(), 1));
    }

    stage.the_oldest_leaves().await;
    let (journal, scope) = (&stage.world.journal, "singleton/answerer");
    let old = journal.claim(scope, 1).await;
    assert!(old.is_err(), "an old term is refused");
    assert!(journal.claim(scope, 2).await.is_ok());

    stage.the_next_one_crashes().await;
    let listing = receptionist.find(&DESKS).unwrap();
    let names = listing.all().iter().map(|s| s.node.name.to_string());
    let listed: Vec<_> = names.collect();
    assert_eq!(listed, ["node-3", "node-4"]);
    for _ in 0..10 {
        let (node, _) = answer(desks.actor_ref()).await;
        assert!(listed.contains(&node), "{node} answers");
    }
    stage.news_come_to_the_living().await;
}

/// What was set up and asked before a node joins waits until it is a member.
#[tokio::test(start_paused = true)]
async fn what_is_asked_before_a_node_joins_waits() {
    let mut world = World::new(seed(), 1);
    let first = world.start(1).await;
    let _singleton = host(&first);
    first.join().await.unwrap();

    let second = world.start(2).await;
    let proxy = host(&second);
    let desk = Answerer {
        node: "node-2".to_owned(),
        term: 0,
    };
    let desk = second.system().spawn("desk", desk).unwrap();
    second.receptionist().register(&DESKS, &desk).unwrap();
    let asked = tokio::spawn(async move { answer(&proxy).await });
    sleep(SECOND * 10).await;
    assert!(!asked.is_finished() && second.state().members.is_empty());
    assert!(first.receptionist().find(&DESKS).unwrap().all().is_empty());

    second.join().await.unwrap();
    assert_eq!(asked.await.unwrap(), ("node-1".to_owned(), 1));
    settled(&first, 2).await;
    sleep(SECOND).await;
    assert_eq!(first.receptionist().find(&DESKS).unwrap().all().len(), 1);
}

fn visits() -> Key<GCounter> {
    Key::new("visits")
}

/// Waits until all of these have counted so many visits.
async fn all_count(replicators: &[Replicator], count: u128) {
    for replicator in replicators {
        let begin = Instant::now();
        loop {
            let read = replicator.get(&visits()).await;
            if read.as_ref().is_ok_and(|read| read.value() == count) {
                break;
            }
            assert!(begin.elapsed() < SECOND * 20, "{read:?} instead of {count}");
            sleep(SECOND / 20).await;
        }
    }
}

/// ddata: what was written before a node joined, right before one left, and at one that crashed is at all
/// others, and at who comes later.
#[tokio::test(start_paused = true)]
async fn replicated_data_outlives_the_nodes_that_wrote_it() {
    let mut world = World::new(seed(), 3);
    let (mut nodes, mut replicators) = (Vec::new(), Vec::new());
    for number in 1..=4 {
        let node = world.start(number).await;
        let replicator = node.replicator(ReplicatorConfig::default()).await.unwrap();
        let add = replicator.update(&visits(), |visits| visits.add(1));
        add.await.unwrap();
        node.join().await.unwrap();
        nodes.push(node);
        replicators.push(replicator);
    }
    for node in &nodes {
        settled(node, 4).await;
    }
    let again = nodes[0].replicator(ReplicatorConfig::default()).await;
    assert!(matches!(again, Err(StartError::NotStarted(_))), "{again:?}");
    all_count(&replicators, 4).await;

    // Nobody has waited for anybody when it leaves.
    let add = replicators[0].update(&visits(), |visits| visits.add(10));
    add.await.unwrap();
    assert_eq!(nodes[0].leave().await, Ended::Left);
    all_count(&replicators[1..], 14).await;

    let add = replicators[1].update(&visits(), |visits| visits.add(100));
    add.level(Level::majority()).await.unwrap();
    world.net.crash(addr(2));
    for node in &nodes[2..] {
        settled(node, 2).await;
    }
    all_count(&replicators[2..], 114).await;
    let late = world.start(5).await;
    replicators.push(late.replicator(ReplicatorConfig::default()).await.unwrap());
    late.join().await.unwrap();
    all_count(&replicators[2..], 114).await;
}
