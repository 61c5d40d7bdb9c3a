//! Aircraft: the event-sourced entity, one for each tail number.

use otava::prelude::*;

use super::flight::Flight;
use super::tally::{FlightKeys, Tally};

/// The number of shards, the same in every node and in the parent.
pub(crate) const SHARDS: u32 = 128;

/// What an aircraft can be told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Add a flight. A flight that it has already is acknowledged again and changes nothing.
    Record {
        flight: Flight,
        #[serde(with = "otava::wire")]
        reply_to: ReplyTo<Recorded>,
    },
    /// Say what you know.
    Get {
        #[serde(with = "otava::wire")]
        reply_to: ReplyTo<Tally>,
    },
}

impl RemoteMessage for Command {
    const NAME: &'static str = "flights.Aircraft";
}

/// The acknowledgement of a flight: it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Recorded {
    Now,
    Before,
}

/// The state: sums, and the keys of the flights in them.
#[derive(Debug, Default)]
pub(crate) struct Aircraft {
    tally: Tally,
    keys: FlightKeys,
}

impl EventSourced for Aircraft {
    type Command = Command;
    type Event = Flight;
    type Snapshot = (Tally, FlightKeys);
    const EVENT_NAME: &'static str = "flights.Flight";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Record { flight, reply_to } if self.keys.contains(flight.key) => {
                Effect::none().reply(reply_to, Recorded::Before)
            }
            Command::Record { flight, reply_to } => {
                Effect::persist(flight).reply(reply_to, Recorded::Now)
            }
            // Confirmed, so that no answer comes from the memory of an owner that was replaced.
            Command::Get { reply_to } => Effect::none().confirm().reply(reply_to, self.tally),
        }
    }

    fn apply(&mut self, flight: &Flight) {
        if self.keys.insert(flight.key) {
            self.tally.add(flight);
        }
    }

    fn snapshot(&self) -> Option<Self::Snapshot> {
        Some((self.tally, self.keys.clone()))
    }

    fn restore(&mut self, (tally, keys): Self::Snapshot) {
        (self.tally, self.keys) = (tally, keys);
    }
}

impl PersistentEntity for Aircraft {
    const KIND: &'static str = "aircraft";

    fn create(_tail: &str) -> Self {
        Self::default()
    }
}
