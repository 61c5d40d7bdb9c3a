//! Proves: a weakly up member is told of services, topics and data, but runs and decides nothing.

use crate::ontop::{MS, Node, Note, SECOND, World};
use otava_actor::{Actor, Context, Props, ServiceKey};
use otava_cluster::replicated::{
    GCounter, Key, Level, Replicator, ReplicatorConfig, Update, UpdateError,
};
use otava_cluster::singleton::{SingletonConfig, SingletonProxy};
use otava_cluster::topic::Topic;
use otava_cluster::{Status, Strategy, Topics};
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

static DESKS: ServiceKey<Note> = ServiceKey::new("desks");
const COUNT: &str = "count";

/// Where a singleton ran, and what it was told there.
type Ledger = Arc<Mutex<Vec<(NodeId, Option<Note>)>>>;

struct Only(NodeId, Ledger);

impl Actor for Only {
    type Msg = Note;
    type Err = Infallible;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.1.lock().unwrap().push((self.0.clone(), None));
        Ok(())
    }

    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.1.lock().unwrap().push((self.0.clone(), Some(note)));
        Ok(())
    }
}

fn host(node: &Node, name: &str, config: SingletonConfig, ledger: &Ledger) -> SingletonProxy<Note> {
    let (id, ledger) = (node.id().clone(), ledger.clone());
    let make = move |_| Props::once(Only(id.clone(), ledger.clone()));
    node.singletons.host(name, config, make).unwrap()
}

/// A counter that is added to, with so much time to answer.
fn add(replicator: &Replicator, level: Level) -> Update<GCounter, ()> {
    let key = Key::<GCounter>::new(COUNT);
    let update = replicator.update(&key, |count| count.add(1));
    update.level(level).within(SECOND * 2)
}

async fn counted(replicator: &Replicator, count: u128) {
    let begin = Instant::now();
    loop {
        let read = replicator.get(&Key::<GCounter>::new(COUNT)).await;
        if read.as_ref().is_ok_and(|read| read.value() == count) {
            return;
        }
        assert!(begin.elapsed() < SECOND * 10, "{read:?} instead of {count}");
        sleep(MS * 50).await;
    }
}

/// What one node has on top of its membership.
struct Top {
    everywhere: SingletonProxy<Note>,
    of_even: SingletonProxy<Note>,
    topic: Topic<Note>,
    replicator: Replicator,
}

async fn top(node: &Node, everywhere: &Ledger, of_even: &Ledger) -> Top {
    let even = SingletonConfig::default().role("even");
    Top {
        everywhere: host(node, "everywhere", SingletonConfig::default(), everywhere),
        of_even: host(node, "of-even", even, of_even),
        topic: Topics::start(&node.receptionist).topic("notes").unwrap(),
        replicator: Replicator::start(&node.cluster, ReplicatorConfig::default())
            .await
            .unwrap(),
    }
}

/// Services of each node are found at all, and news cross both ways between 1 and 2.
async fn services_and_news_cross(world: &World, tops: &BTreeMap<u16, Top>) {
    let mut inboxes = BTreeMap::new();
    for (n, node) in &world.nodes {
        let (desk, inbox) = node.spawn::<Note>("desk");
        node.receptionist.register(&DESKS, &desk).unwrap();
        tops[n].topic.subscribe(&desk).unwrap();
        inboxes.insert(*n, inbox);
    }
    sleep(SECOND).await;
    for node in world.nodes.values() {
        let listing = node.receptionist.find(&DESKS).unwrap();
        assert_eq!(listing.reachable().count(), 3, "{listing:?}");
    }
    for from in [1, 2] {
        assert_eq!(tops[&from].topic.publish(Note { from, number: 0 }).nodes, 3);
    }
    sleep(SECOND).await;
    for (n, inbox) in &mut inboxes {
        let mut got = Vec::new();
        while let Ok(note) = inbox.try_recv() {
            got.push(note.from);
        }
        // Between two publishers there is no order.
        got.sort_unstable();
        assert_eq!(got, [1, 2], "node {n}");
    }
}

/// C5: while 5 cannot be reached and nobody decides, 2 is weakly up: it finds and is found, has the data,
/// and neither runs the singleton of its role nor counts for a majority, until it is a full member.
#[tokio::test(start_paused = true)]
async fn a_weakly_up_member_is_told_and_decides_nothing() {
    let mut world = World::new(31);
    world.downing = Strategy::Manual;
    world.form([1, 3, 5]).await;
    let (everywhere, of_even) = (Ledger::default(), Ledger::default());
    let mut tops = BTreeMap::new();
    for n in [1, 3] {
        tops.insert(n, top(&world.nodes[&n], &everywhere, &of_even).await);
    }
    let lost = world.crash(5).await;
    world.nodes[&1]
        .sees("5 unreachable", |state| state.is_unreachable(&lost))
        .await;
    let two = world.start(2).id().clone();
    tops.insert(2, top(&world.nodes[&2], &everywhere, &of_even).await);
    for node in world.nodes.values() {
        let is_weak = |status| status == Some(Status::WeaklyUp);
        node.sees("2 weakly up", |state| {
            is_weak(state.get(&two).map(|member| member.status))
        })
        .await;
    }

    services_and_news_cross(&world, &tops).await;

    // It has the data and gives its own, but is nobody to count on: 5 is still one of three.
    add(&tops[&1].replicator, Level::majority()).await.unwrap();
    counted(&tops[&2].replicator, 1).await;
    add(&tops[&2].replicator, Level::Local).await.unwrap();
    counted(&tops[&3].replicator, 2).await;
    for n in [1, 2] {
        let all = add(&tops[&n].replicator, Level::All).await;
        let expected = UpdateError::Timeout {
            key: COUNT.to_owned(),
            answered: 2,
            needed: 3,
        };
        assert_eq!(all, Err(expected), "node {n}");
    }

    // It reaches the singleton, and does not run the one that only it may.
    let note = |number| Note { from: 2, number };
    tops[&2].everywhere.tell(note(1)).unwrap();
    tops[&2].of_even.tell(note(2)).unwrap();
    tops[&1].of_even.tell(note(3)).unwrap();
    sleep(SECOND * 30).await;
    let one = world.nodes[&1].id().clone();
    assert_eq!(
        *everywhere.lock().unwrap(),
        [(one.clone(), None), (one, Some(note(1)))]
    );
    assert_eq!(*of_even.lock().unwrap(), []);

    world.nodes[&1].cluster.down(&lost).await;
    world.settled().await;
    sleep(Duration::from_secs(5)).await;
    let ran = of_even.lock().unwrap().clone();
    assert_eq!(ran.len(), 3, "{ran:?}");
    assert!(ran.iter().all(|(node, _)| *node == two), "{ran:?}");
    add(&tops[&2].replicator, Level::All).await.unwrap();
    counted(&tops[&1].replicator, 5).await;
}
