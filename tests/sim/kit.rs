//! Proves: the test kit finds nothing in entities that keep their word, and names what breaks it.

use otava::prelude::*;
use otava::testkit::{History, Model, SimCluster, Simulation, Violation, check_order, seeds};
use otava::{Entities, Journal, ShardingConfig};
use otava_persistence::{PersistenceId, format};
use otava_sharding::{MemoryAllocationStore, Sharding};
use std::sync::Arc;
use std::time::Duration;

/// Adds a number, unless it was added before; answers with how many were added.
#[derive(Deserialize, Serialize)]
enum Command {
    Add(u64, #[serde(with = "otava::wire")] ReplyTo<usize>),
    Count(#[serde(with = "otava::wire")] ReplyTo<usize>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "kit.Command";
}

/// What a client does, for the model.
#[derive(Clone, Debug)]
enum Do {
    Add,
    Count,
}

struct Counting;

impl Model for Counting {
    type Command = Do;
    type Answer = usize;
    type State = usize;

    fn initial(&self, _: &str) -> usize {
        0
    }

    fn apply(&self, count: &mut usize, command: &Do) -> usize {
        *count += usize::from(matches!(command, Do::Add));
        *count
    }

    fn is_read(&self, command: &Do) -> bool {
        matches!(command, Do::Count)
    }
}

#[derive(Default)]
struct Kept(Vec<u64>);

impl EventSourced for Kept {
    type Command = Command;
    type Event = u64;
    type Snapshot = ();
    const EVENT_NAME: &'static str = "kit.Added";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Add(n, to) => Effect::persist(n).reply_with(to, |kept: &Self| kept.0.len()),
            Command::Count(to) => Effect::none().confirm().reply(to, self.0.len()),
        }
    }

    fn apply(&mut self, n: &u64) {
        self.0.push(*n);
    }
}

impl PersistentEntity for Kept {
    const KIND: &'static str = "kept";

    fn create(_id: &str) -> Self {
        Self::default()
    }
}

/// The same without a journal: what it knows ends with it.
#[derive(Default)]
struct Forgetful(usize);

impl Actor for Forgetful {
    type Msg = Command;
    type Err = std::convert::Infallible;

    async fn handle(&mut self, command: Command, _: &mut Context<Self>) -> Result<(), Self::Err> {
        let to = match command {
            Command::Add(_, to) => {
                self.0 += 1;
                to
            }
            Command::Count(to) => to,
        };
        let _ = to.send(self.0);
        Ok(())
    }
}

const IDS: u64 = 6;

/// Four clients add and count, while faults come, until the story is over.
async fn story(cluster: SimCluster<Entities<Command>>, lasting: Duration) -> History<Counting> {
    let history = History::new(Counting);
    let seen = history.clone();
    let load = cluster.load(4, async move |entities, n| {
        let id = format!("k-{}", n % IDS);
        let entity = entities.entity(&id);
        if n % 3 == 2 {
            let asked = seen.begin(&id, Do::Count);
            if let Ok(count) = entity.ask(Command::Count).await {
                asked.answered(count);
            }
        } else {
            let asked = seen.begin(&id, Do::Add);
            if let Ok(count) = entity.ask(|to| Command::Add(n, to)).await {
                asked.answered(count);
            }
        }
    });
    cluster.random_faults(lasting).await;
    load.stop().await;
    history
}

fn options() -> EntityOptions {
    EntityOptions::default().sharding(ShardingConfig::default().shards(16))
}

/// S1, S2, S3: every answer of event-sourced entities is explained by one order, whatever happens.
#[test]
fn entities_that_keep_their_events_are_linear() {
    for seed in seeds(3) {
        let host = |node: &Node| node.entities::<Kept>(options()).unwrap();
        let simulation = Simulation::seeded(seed).nodes(4);
        simulation.run(host, async |cluster| {
            let history = story(cluster.clone(), Duration::from_secs(60)).await;
            let (_, answered) = history.counts();
            assert!(answered > 500, "{history:?}");
            history
                .check()
                .unwrap_or_else(|violation| panic!("{violation}"));
            for id in (0..IDS).map(|n| format!("k-{n}")) {
                let id = PersistenceId::new(Kept::KIND, &id);
                let page = cluster.journal().read(&id, 1, usize::MAX).await.unwrap();
                let taken = page.events.iter();
                let mut taken: Vec<u64> = taken
                    .map(|event| format::decode(&event.record.payload).unwrap())
                    .collect();
                let all = taken.len();
                taken.sort_unstable();
                taken.dedup();
                assert_eq!(taken.len(), all, "nothing is sent twice");
            }
        });
    }
}

/// The canary: entities that keep nothing lose what they acknowledged, and the checker says so.
#[test]
fn entities_that_forget_are_found() {
    let store = Arc::new(MemoryAllocationStore::new());
    let host = move |node: &Node| {
        let config = ShardingConfig::default().shards(16);
        let factory = |_| Props::new(Forgetful::default);
        Sharding::start(node.cluster(), "forgetful", store.clone(), config, factory).unwrap()
    };
    let violation = Simulation::seeded(1).run(host, async |cluster| {
        let history = story(cluster, Duration::from_secs(60)).await;
        history.check().expect_err("they were moved and forgot")
    });
    assert!(
        matches!(
            violation,
            Violation::LostAcknowledgement { .. }
                | Violation::Unexplained { .. }
                | Violation::NonLinearRead { .. }
        ),
        "{violation}"
    );
}

/// The same seed gives the same history.
#[test]
fn a_simulation_replays_from_its_seed() {
    let run = || {
        let host = |node: &Node| node.entities::<Kept>(options()).unwrap();
        Simulation::seeded(11).run(host, async |cluster| {
            let history = story(cluster.clone(), Duration::from_secs(30)).await;
            let id = PersistenceId::new(Kept::KIND, "k-1");
            let highest = cluster.journal().highest_seq(&id).await.unwrap();
            (history.counts(), highest)
        })
    };
    assert_eq!(run(), run());
}

#[test]
fn what_overtakes_is_named() {
    assert_eq!(check_order("k", [(1, 1), (2, 1), (1, 2)]), Ok(()));
    for wrong in [[(1, 2), (1, 1)], [(1, 1), (1, 1)]] {
        let found = check_order("k", wrong);
        assert!(matches!(found, Err(Violation::Reordered { sender: 1, .. })));
    }
}

/// Two instances at a time are seen at once.
#[test]
fn two_lives_at_a_time_are_named() {
    let history = History::new(Counting);
    drop(history.starts("k"));
    let first = history.starts("k");
    assert_eq!(history.check(), Ok(()));
    let second = history.starts("k");
    drop((first, second));
    assert!(matches!(history.check(), Err(Violation::TwoLive { key }) if key == "k"));
}
