//! Counter: the entity of the simulations: it takes each number once, in any order.

use otava::prelude::*;
use std::collections::BTreeSet;

#[derive(Deserialize, Serialize)]
pub(crate) enum Command {
    Take(u64, #[serde(with = "otava::wire")] ReplyTo<()>),
    Get(#[serde(with = "otava::wire")] ReplyTo<Vec<u64>>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "sim.Counter";
}

#[derive(Default)]
pub(crate) struct Counter {
    /// In the order in which they came.
    taken: Vec<u64>,
    known: BTreeSet<u64>,
}

impl EventSourced for Counter {
    type Command = Command;
    type Event = u64;
    type Snapshot = Vec<u64>;
    const EVENT_NAME: &'static str = "sim.Taken";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Take(n, reply_to) if self.known.contains(&n) => {
                Effect::none().reply(reply_to, ())
            }
            Command::Take(n, reply_to) => Effect::persist(n).reply(reply_to, ()),
            Command::Get(reply_to) => Effect::none().confirm().reply(reply_to, self.taken.clone()),
        }
    }

    /// Counts what is there twice as twice: the journal must not hold it.
    fn apply(&mut self, n: &u64) {
        self.taken.push(*n);
        self.known.insert(*n);
    }

    fn snapshot(&self) -> Option<Vec<u64>> {
        Some(self.taken.clone())
    }

    fn restore(&mut self, taken: Vec<u64>) {
        self.known = taken.iter().copied().collect();
        self.taken = taken;
    }
}

impl PersistentEntity for Counter {
    const KIND: &'static str = "counter";

    fn create(_id: &str) -> Self {
        Self::default()
    }
}
