//! Test kit: runs one entity without actors, and checks of a user's own events and states.
//!
//! ```
//! use otava_actor::ReplyTo;
//! use otava_persistence::testkit::EntityTest;
//! # use otava_persistence::{Effect, EventSourced};
//! #
//! # #[derive(Default)]
//! # struct Account { balance: u64 }
//! # enum Command { Withdraw(u64, ReplyTo<bool>) }
//! # #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
//! # enum Event { Deposited(u64), Withdrawn(u64) }
//! # impl EventSourced for Account {
//! #     type Command = Command;
//! #     type Event = Event;
//! #     type Snapshot = u64;
//! #     const EVENT_NAME: &'static str = "bank.Event";
//! #     const EVENT_VERSION: u16 = 1;
//! #     fn handle(&self, command: Command) -> Effect<Self> {
//! #         match command {
//! #             Command::Withdraw(n, reply_to) if n <= self.balance => {
//! #                 Effect::persist(Event::Withdrawn(n)).reply(reply_to, true)
//! #             }
//! #             Command::Withdraw(_, reply_to) => Effect::none().reply(reply_to, false),
//! #         }
//! #     }
//! #     fn apply(&mut self, event: &Event) {
//! #         match event {
//! #             Event::Deposited(n) => self.balance += n,
//! #             Event::Withdrawn(n) => self.balance -= n,
//! #         }
//! #     }
//! #     fn snapshot(&self) -> Option<u64> { Some(self.balance) }
//! #     fn restore(&mut self, balance: u64) { self.balance = balance; }
//! # }
//! let mut account = EntityTest::new(Account::default);
//! account.given([Event::Deposited(10)]);
//! let outcome = account.ask(|reply_to| Command::Withdraw(4, reply_to));
//! assert_eq!(outcome.events, [Event::Withdrawn(4)]);
//! assert_eq!(outcome.reply, Some(true));
//! account.restart();
//! let outcome = account.ask(|reply_to| Command::Withdraw(7, reply_to));
//! assert_eq!((outcome.events, outcome.reply), (vec![], Some(false)));
//! assert_eq!(account.state().balance, 6);
//! ```

use crate::event_sourced::entity::{Entity, Next, Place};
use crate::event_sourced::post::Change;
use crate::event_sourced::{
    Courier, CourierError, Delivery, EventSourced, Fresh, Letter, Options, Parcel, Receipt,
    is_own_record,
};
use crate::format::{decode, encode};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, EventRecord, Journal as _, StoredEvent};
use crate::memory::MemoryJournal;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_actor::ReplyTo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Runs one event-sourced entity on the thread of the test: given events, when a command, then events,
/// reply and state.
///
/// Everything goes through the codec and a journal in memory, as in earnest. After each command it
/// is checked that every event and the snapshot come back from the codec as they were, and that a
/// state that is recovered from all events gives the same snapshot as the one that lived through them.
///
/// # Panics
/// Every method panics when one of these checks fails, and when the entity fails; the message says why.
pub struct EntityTest<E: EventSourced> {
    entity: Entity<E>,
    fresh: Fresh<E>,
    journal: MemoryJournal,
}

/// What a command led to.
#[non_exhaustive]
pub struct Outcome<E: EventSourced, R> {
    /// The events, as they came back from the journal.
    pub events: Vec<E::Event>,
    /// The letters that were sent.
    pub letters: Vec<SentLetter>,
    /// The first answer, if there was one.
    pub reply: Option<R>,
    /// Whether the entity was deleted.
    pub deleted: bool,
    /// Whether the entity wants to stop.
    pub stopped: bool,
}

/// A letter that an entity sent in a test.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SentLetter {
    /// Whom it is for.
    pub to: PersistenceId,
    /// Its number among the letters to this target.
    pub number: u64,
    /// What kind of letter it is ([`Letter::NAME`]).
    pub name: Arc<str>,
    /// The version of its layout.
    pub version: u16,
    payload: Vec<u8>,
}

impl SentLetter {
    /// The letter.
    ///
    /// # Panics
    /// When it is of another type.
    #[must_use]
    pub fn open<L: Letter>(&self) -> L {
        let is_one = *self.name == *L::NAME && self.version == L::VERSION;
        assert!(is_one, "{} is no {}", self.name, L::NAME);
        decode(&self.payload).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

impl<E: EventSourced> EntityTest<E> {
    /// An entity without events, with the id `test|1`.
    pub fn new(create: impl FnMut() -> E + Send + 'static) -> Self {
        Self::with_id(PersistenceId::new("test", "1"), create)
    }

    /// The same with an id.
    pub fn with_id(id: PersistenceId, create: impl FnMut() -> E + Send + 'static) -> Self {
        let (fresh, journal) = (Fresh::new(create), MemoryJournal::new());
        let place = Place {
            id,
            journal: Arc::new(journal.clone()),
            snapshots: None,
            fence: None,
            courier: Some(Arc::new(Nowhere)),
            keys: None,
            options: Options::default(),
        };
        Self {
            entity: Entity::new(place, fresh.clone()),
            fresh,
            journal,
        }
    }

    /// Lets events have happened, after those that are there.
    pub fn given(&mut self, events: impl IntoIterator<Item = E::Event>) -> &mut Self {
        let events = round_trip_events::<E>(events);
        let record = |event: &E::Event| {
            let payload = encode(event).unwrap_or_else(|error| panic!("{error}"));
            EventRecord::new(E::EVENT_NAME, E::EVENT_VERSION, payload)
        };
        self.given_records(events.iter().map(record).collect())
    }

    /// Lets stored events have happened as they are, for example those of an older version.
    pub fn given_records(&mut self, records: Vec<EventRecord>) -> &mut Self {
        let request = AppendRequest::new(self.entity.place.id.clone(), self.entity.seq, records);
        let appended = at_once(self.journal.append(request));
        appended.unwrap_or_else(|error| panic!("{error}"));
        self.restart()
    }

    /// Handles a command that is not answered.
    pub fn tell(&mut self, command: E::Command) -> Outcome<E, ()> {
        self.run(command, || None)
    }

    /// Handles a command that is answered.
    pub fn ask<R: Send + 'static>(
        &mut self,
        question: impl FnOnce(ReplyTo<R>) -> E::Command,
    ) -> Outcome<E, R> {
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        let put = move |reply| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
        let command = question(ReplyTo::from_fn(put, None));
        self.run(command, || {
            answer.lock().unwrap_or_else(PoisonError::into_inner).take()
        })
    }

    /// Lets the next letter of another entity arrive, as the command that `arrive` makes of it.
    pub fn receive<L: Letter>(
        &mut self,
        from: &PersistenceId,
        letter: &L,
        arrive: impl FnOnce(Delivery) -> E::Command,
    ) -> Outcome<E, Receipt> {
        let payload = encode(letter).unwrap_or_else(|error| panic!("{}: {error}", L::NAME));
        let parcel = Parcel {
            from: from.as_str().into(),
            to: self.entity.place.id.as_str().into(),
            number: self.entity.post.inbox.last(from) + 1,
            name: L::NAME.into(),
            version: L::VERSION,
            payload,
        };
        self.ask(|reply_to| arrive(Delivery::new(parcel, reply_to)))
    }

    /// Ends the entity and starts it again, from its events.
    pub fn restart(&mut self) -> &mut Self {
        self.entity = self.recovered();
        self
    }

    /// The state now.
    pub fn state(&self) -> &E {
        &self.entity.state
    }

    /// The sequence number of the last event, letters and the like included.
    pub fn seq(&self) -> u64 {
        self.entity.seq
    }

    fn recovered(&self) -> Entity<E> {
        let mut entity = Entity::new(self.entity.place.clone(), self.fresh.clone());
        at_once(entity.recover()).unwrap_or_else(|error| panic!("{error}"));
        entity
    }

    fn run<R>(&mut self, command: E::Command, reply: impl FnOnce() -> Option<R>) -> Outcome<E, R> {
        let before = self.entity.seq;
        let handled = at_once(self.entity.handle(command));
        let next = handled.unwrap_or_else(|error| panic!("{error}"));
        let mut outcome = Outcome {
            events: Vec::new(),
            letters: Vec::new(),
            reply: reply(),
            deleted: false,
            stopped: next == Next::Stop,
        };
        let count = usize::try_from(self.entity.seq - before).unwrap_or(usize::MAX);
        let page = at_once(self.journal.read(&self.entity.place.id, before + 1, count));
        let page = page.unwrap_or_else(|error| panic!("{error}"));
        for stored in page.events {
            self.sort(&stored, &mut outcome);
        }
        self.check();
        outcome
    }

    fn sort<R>(&self, stored: &StoredEvent, outcome: &mut Outcome<E, R>) {
        if !is_own_record(&stored.record.name) {
            let what = format!("event {} of {}", stored.seq, E::EVENT_NAME);
            let event: E::Event = come_back(&what, &stored.record.payload);
            outcome.events.push(event);
            return;
        }
        let change = Change::of(stored, &self.entity.codec);
        match change.unwrap_or_else(|error| panic!("{error}")) {
            Change::Deleted(_) => outcome.deleted = true,
            Change::Sent { to, number, letter } => outcome.letters.push(SentLetter {
                to,
                number,
                name: letter.name,
                version: letter.version,
                payload: letter.payload,
            }),
            Change::Confirmed { .. } | Change::Received { .. } => {}
        }
    }

    /// What must hold after each command.
    fn check(&self) {
        let _ = round_trip_snapshot(&self.entity.state, self.fresh.make());
        let bytes = |state: &E| state.snapshot().map(|snapshot| encode(&snapshot));
        let recovered = self.recovered();
        assert_eq!(
            bytes(&recovered.state),
            bytes(&self.entity.state),
            "{}: a recovered state gives another snapshot than the one that lived",
            E::EVENT_NAME
        );
        assert_eq!(recovered.post, self.entity.post, "letters after recovery");
    }
}

impl<E: EventSourced> fmt::Debug for EntityTest<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityTest")
            .field("id", &self.entity.place.id)
            .field("seq", &self.entity.seq)
            .finish_non_exhaustive()
    }
}

impl<E: EventSourced<Event: fmt::Debug>, R: fmt::Debug> fmt::Debug for Outcome<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("events", &self.events)
            .field("letters", &self.letters)
            .field("reply", &self.reply)
            .field("deleted", &self.deleted)
            .field("stopped", &self.stopped)
            .finish()
    }
}

/// The way of letters in a test: they stay where they are.
struct Nowhere;

impl Courier for Nowhere {
    fn deliver(&self, _: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>> {
        async { Err(CourierError::new("this is a test")) }.boxed()
    }
}

/// Nothing of a journal in memory waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("an entity on a journal in memory waits for nothing")
}

/// Sends each event through the codec, as the journal does, and back.
///
/// Returns what came back, in order, to be compared or applied. Types that look fine can fail here:
/// serde's `untagged`, `flatten` and `skip_serializing_if` do not work with a binary codec.
///
/// # Panics
/// When an event cannot be encoded or decoded, or comes back as something else; the message says
/// which.
pub fn round_trip_events<E: EventSourced>(
    events: impl IntoIterator<Item = E::Event>,
) -> Vec<E::Event> {
    let events = events.into_iter().enumerate();
    events
        .map(|(n, event)| round_trip(&format!("event {n} of {}", E::EVENT_NAME), &event))
        .collect()
}

/// Sends the snapshot of a state through the codec and back, and restores it into `empty`.
/// Returns `None` when the state takes no snapshot.
///
/// # Panics
/// As [`round_trip_events`]; and when the restored state gives another snapshot.
pub fn round_trip_snapshot<E: EventSourced>(state: &E, mut empty: E) -> Option<E> {
    let what = format!("the snapshot of {}", E::EVENT_NAME);
    let snapshot = state.snapshot()?;
    let bytes = encode(&snapshot).unwrap_or_else(|error| panic!("{what}: {error}"));
    empty.restore(round_trip(&what, &snapshot));
    let again = empty.snapshot().map(|again| encode(&again));
    assert_eq!(
        again,
        Some(Ok(bytes)),
        "{what}: a restored state gives another one"
    );
    Some(empty)
}

fn round_trip<T: Serialize + DeserializeOwned>(what: &str, value: &T) -> T {
    let bytes = encode(value).unwrap_or_else(|error| panic!("{what}: {error}"));
    come_back(what, &bytes)
}

fn come_back<T: Serialize + DeserializeOwned>(what: &str, bytes: &[u8]) -> T {
    let back: T = decode(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(
        encode(&back).as_deref(),
        Ok(bytes),
        "{what}: it comes back as something else"
    );
    back
}

#[cfg(test)]
mod tests;
