//! Cart: what is in it, until it is checked out.

use otava::prelude::*;
use std::collections::BTreeMap;

/// Some pieces of one item, at a price each.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Line {
    pub(crate) item: String,
    pub(crate) pieces: u32,
    pub(crate) cents: u32,
}

#[derive(Deserialize, Serialize)]
pub(crate) enum Command {
    /// Answers with the number of lines; 0 when the cart was checked out already.
    Add(Line, #[serde(with = "otava::wire")] ReplyTo<usize>),
    /// Answers with what was bought, also when it is asked again.
    CheckOut(#[serde(with = "otava::wire")] ReplyTo<Vec<Line>>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "shop.Cart";
}

#[derive(Deserialize, Serialize)]
pub(crate) enum Event {
    Added(Line),
    /// Everything that was bought: whoever reads it needs no other event.
    CheckedOut(Vec<Line>),
}

#[derive(Default)]
pub(crate) struct Cart {
    lines: BTreeMap<String, Line>,
    checked_out: bool,
}

impl Cart {
    fn bought(&self) -> Vec<Line> {
        self.lines.values().cloned().collect()
    }
}

impl EventSourced for Cart {
    type Command = Command;
    type Event = Event;
    type Snapshot = ();
    const EVENT_NAME: &'static str = "shop.CartChanged";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Add(_, reply_to) if self.checked_out => Effect::none().reply(reply_to, 0),
            Command::Add(line, reply_to) => Effect::persist(Event::Added(line))
                .reply_with(reply_to, |cart: &Self| cart.lines.len()),
            Command::CheckOut(reply_to) if self.checked_out => {
                Effect::none().reply(reply_to, self.bought())
            }
            Command::CheckOut(reply_to) => {
                Effect::persist(Event::CheckedOut(self.bought())).reply_with(reply_to, Self::bought)
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Added(line) => {
                let known = self.lines.entry(line.item.clone()).or_insert(Line {
                    pieces: 0,
                    ..line.clone()
                });
                known.pieces = known.pieces.saturating_add(line.pieces);
            }
            Event::CheckedOut(_) => self.checked_out = true,
        }
    }
}

impl PersistentEntity for Cart {
    const KIND: &'static str = "cart";

    fn create(_id: &str) -> Self {
        Self::default()
    }
}
