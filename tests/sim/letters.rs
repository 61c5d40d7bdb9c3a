//! Proves: money that moves by letters between sharded accounts is neither made nor lost when a node is.

use crate::world::{World, seed, settled};
use otava::prelude::*;
use otava::{Arrived, Ended, Entities, Letter, ShardingConfig, SingletonConfig};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

const ACCOUNTS: u64 = 12;
const START: i64 = 1_000;
const TRY: Duration = Duration::from_secs(2);

/// What moved, for each other account, in order.
type Moved = BTreeMap<u64, Vec<u64>>;

#[derive(Deserialize, Serialize)]
enum Command {
    /// Counts once for each key, so that it can be asked again.
    Pay {
        key: u64,
        to: u64,
        cents: u64,
        #[serde(with = "otava::wire")]
        reply_to: ReplyTo<()>,
    },
    Look(#[serde(with = "otava::wire")] ReplyTo<(i64, Moved, Moved)>),
    Arrived(Arrived),
}

impl From<Arrived> for Command {
    fn from(arrived: Arrived) -> Self {
        Self::Arrived(arrived)
    }
}

impl RemoteMessage for Command {
    const NAME: &'static str = "sim.Account";
}

#[derive(Deserialize, Serialize)]
struct Credit {
    from: u64,
    cents: u64,
}

impl Letter for Credit {
    const KIND: &'static str = "account";
    const NAME: &'static str = "sim.Credit";
    const VERSION: u16 = 1;
}

#[derive(Deserialize, Serialize)]
enum Event {
    Paid { key: u64, to: u64, cents: u64 },
    Credited { from: u64, cents: u64 },
}

#[derive(Default)]
struct Account {
    balance: i64,
    keys: Vec<u64>,
    paid: Moved,
    credited: Moved,
}

impl EventSourced for Account {
    type Command = Command;
    type Event = Event;
    type Snapshot = ();
    const EVENT_NAME: &'static str = "sim.AccountEvent";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Pay { key, reply_to, .. } if self.keys.contains(&key) => {
                Effect::none().reply(reply_to, ())
            }
            Command::Pay {
                key,
                to,
                cents,
                reply_to,
            } => {
                let from = key % ACCOUNTS;
                Effect::persist(Event::Paid { key, to, cents })
                    .send(&to.to_string(), Credit { from, cents })
                    .reply(reply_to, ())
            }
            Command::Look(reply_to) => {
                let look = (self.balance, self.paid.clone(), self.credited.clone());
                Effect::none().confirm().reply(reply_to, look)
            }
            Command::Arrived(arrived) => {
                Effect::receive(arrived, |_: &Self, _, Credit { from, cents }| {
                    Effect::persist(Event::Credited { from, cents })
                })
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Paid { key, to, cents } => {
                self.balance -= cents as i64;
                self.keys.push(key);
                self.paid.entry(to).or_default().push(cents);
            }
            Event::Credited { from, cents } => {
                self.balance += cents as i64;
                self.credited.entry(from).or_default().push(cents);
            }
        }
    }
}

impl PersistentEntity for Account {
    const KIND: &'static str = "account";

    fn create(_id: &str) -> Self {
        let balance = START;
        Self {
            balance,
            ..Self::default()
        }
    }
}

async fn start(world: &mut World, number: u16) -> (Node, Entities<Command>) {
    let node = world.start(number).await;
    let sharding = ShardingConfig::default().shards(16);
    let options = EntityOptions::default().sharding(sharding);
    let accounts = node.entities_with_letters::<Account>(options).unwrap();
    node.deliver_waiting_letters(SingletonConfig::default())
        .unwrap();
    (node, accounts)
}

async fn look(accounts: &Entities<Command>, n: u64) -> (i64, Moved, Moved) {
    loop {
        let asked = accounts.entity(n.to_string()).ask(Command::Look);
        match asked.within(TRY).await {
            Ok(look) => return look,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Every payment was credited once and in order, and the sum is what it was.
async fn is_settled(accounts: &Entities<Command>) -> bool {
    let mut sum = 0;
    let (mut paid, mut credited) = (BTreeMap::new(), BTreeMap::new());
    for n in 0..ACCOUNTS {
        let (balance, to, from) = look(accounts, n).await;
        sum += balance;
        paid.extend(to.into_iter().map(|(to, cents)| ((n, to), cents)));
        credited.extend(from.into_iter().map(|(from, cents)| ((from, n), cents)));
    }
    for (pair, cents) in &credited {
        let sent: &Vec<u64> = &paid[pair];
        assert!(
            sent.starts_with(cents),
            "{pair:?}: {sent:?} became {cents:?}"
        );
    }
    paid == credited && sum == START * ACCOUNTS as i64
}

/// S3: a node is cut off while money moves; what it was delivering goes on elsewhere, without anybody
/// touching the senders.
#[tokio::test(start_paused = true)]
async fn money_is_neither_made_nor_lost_when_a_node_is() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut world = World::new(seed(), 3);
            let mut nodes = Vec::new();
            for number in 1..=3 {
                nodes.push(start(&mut world, number).await);
            }
            for (node, _) in &nodes {
                node.join().await.unwrap();
            }
            for (_, accounts) in &nodes {
                accounts.all_hosted().await;
            }
            let accounts = nodes[0].1.clone();
            let pays = tokio::task::spawn_local(async move {
                for key in 0..400 {
                    let (from, to, cents) = (key % ACCOUNTS, (key * 7 + 3) % ACCOUNTS, key % 9 + 1);
                    let from = accounts.entity(from.to_string());
                    let pay = |reply_to| Command::Pay {
                        key,
                        to,
                        cents,
                        reply_to,
                    };
                    while from.ask(pay).within(TRY).await.is_err() {
                        sleep(Duration::from_millis(100)).await;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
            sleep(Duration::from_secs(3)).await;
            world.split(&[3], &[1, 2]);
            assert_eq!(nodes[2].0.ended().await, Ended::Downed);
            settled(&nodes[0].0, 2).await;
            pays.await.unwrap();
            let all = async {
                while !is_settled(&nodes[0].1).await {
                    sleep(Duration::from_secs(1)).await;
                }
            };
            let settled = timeout(Duration::from_secs(300), all).await;
            settled.expect("letters are not delivered");
        })
        .await;
}
