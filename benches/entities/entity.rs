//! Entity: what the workloads ask: a counter that forgets, and one that keeps its events.

use otava::prelude::*;
use std::convert::Infallible;

#[derive(Deserialize, Serialize)]
pub(crate) enum Command {
    Add(u64, #[serde(with = "otava::wire")] ReplyTo<u64>),
    Get(#[serde(with = "otava::wire")] ReplyTo<u64>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "bench.EntityCommand";
}

/// A counter in memory: an actor, and an entity without a journal.
#[derive(Default)]
pub(crate) struct Plain(u64);

impl Actor for Plain {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(&mut self, command: Command, _: &mut Context<Self>) -> Result<(), Infallible> {
        let to = match command {
            Command::Add(n, to) => {
                self.0 += n;
                to
            }
            Command::Get(to) => to,
        };
        let _ = to.send(self.0);
        Ok(())
    }
}

/// A counter whose additions are events.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) count: u64,
}

/// One addition, and text until it has the 200 bytes of a usual event.
#[derive(Deserialize, Serialize)]
pub(crate) struct Added(u64, String);

impl EventSourced for Kept {
    type Command = Command;
    type Event = Added;
    type Snapshot = ();
    const EVENT_NAME: &'static str = "bench.Added";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Add(n, to) => {
                Effect::persist(Added(n, "x".repeat(190))).reply_with(to, |kept: &Self| kept.count)
            }
            Command::Get(to) => Effect::none().reply(to, self.count),
        }
    }

    fn apply(&mut self, added: &Added) {
        self.count += added.0;
    }
}

impl PersistentEntity for Kept {
    const KIND: &'static str = "kept";

    fn create(_id: &str) -> Self {
        Self::default()
    }
}
