//! Account: takes what is paid in, once, and pays others by letter.

use otava::prelude::*;
use otava::{Arrived, Letter};

/// What each account has at first.
pub(crate) const CENTS: u64 = 100_000;

#[derive(Deserialize, Serialize)]
pub(crate) enum Command {
    /// The `number`th payment of this account: asked again, it counts once.
    Pay {
        number: u64,
        to: String,
        cents: u64,
        #[serde(with = "otava::wire")]
        reply_to: ReplyTo<Paid>,
    },
    Balance(#[serde(with = "otava::wire")] ReplyTo<u64>),
    Arrived(Arrived),
}

impl From<Arrived> for Command {
    fn from(arrived: Arrived) -> Self {
        Self::Arrived(arrived)
    }
}

impl RemoteMessage for Command {
    const NAME: &'static str = "bank.Command";

    fn is_for_clients(&self) -> bool {
        !matches!(self, Self::Arrived(_))
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Paid {
    Done,
    TooLittle,
}

/// Money on its way. It is written with the payment, in one append, and taken once.
#[derive(Deserialize, Serialize)]
struct Credit {
    cents: u64,
}

impl Letter for Credit {
    const KIND: &'static str = Account::KIND;
    const NAME: &'static str = "bank.Credit";
    const VERSION: u16 = 1;
}

#[derive(Deserialize, Serialize)]
pub(crate) enum Event {
    Credited { cents: u64 },
    Paid { number: u64, cents: u64 },
}

pub(crate) struct Account {
    cents: u64,
    /// The last payment.
    number: u64,
}

impl EventSourced for Account {
    type Command = Command;
    type Event = Event;
    type Snapshot = ();
    const EVENT_NAME: &'static str = "bank.Event";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Pay {
                number, reply_to, ..
            } if number <= self.number => Effect::none().reply(reply_to, Paid::Done),
            Command::Pay {
                cents, reply_to, ..
            } if cents > self.cents => Effect::none().reply(reply_to, Paid::TooLittle),
            Command::Pay {
                number,
                to,
                cents,
                reply_to,
            } => Effect::persist(Event::Paid { number, cents })
                .send(&to, Credit { cents })
                .reply(reply_to, Paid::Done),
            Command::Balance(reply_to) => Effect::none().confirm().reply(reply_to, self.cents),
            Command::Arrived(letter) => Effect::receive(letter, |_, _, Credit { cents }| {
                Effect::persist(Event::Credited { cents })
            }),
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Credited { cents } => self.cents += cents,
            Event::Paid { number, cents } => {
                self.cents -= cents;
                self.number = number;
            }
        }
    }
}

impl PersistentEntity for Account {
    const KIND: &'static str = "account";

    fn create(_id: &str) -> Self {
        let (cents, number) = (CENTS, 0);
        Self { cents, number }
    }
}
