//! Test kit tests: what it shows of an entity, and which mistakes it finds.

use super::*;
use crate::event_sourced::{Effect, Upcaster};
use serde::Deserialize;

/// An account with mistakes that can be switched on.
#[derive(Default)]
struct Account {
    balance: u64,
    forgets: bool,
}

enum Command {
    Deposit(u64, ReplyTo<u64>),
    Forget(u64),
    Odd,
    Pay(&'static str, u64),
    Arrived(Delivery),
    Close(ReplyTo<u64>),
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Event {
    Deposited(u64),
    Paid(u64),
    /// Applied to the living state only.
    Forgotten(u64),
    Odd(Skipping),
}

/// What a binary codec cannot bring back.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<u64>,
    and: u64,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Credit(u64);

impl Letter for Credit {
    const KIND: &'static str = "test";
    const NAME: &'static str = "test.Credit";
    const VERSION: u16 = 1;
}

#[derive(Deserialize, Serialize)]
struct Other;

impl Letter for Other {
    const KIND: &'static str = "test";
    const NAME: &'static str = "test.Other";
    const VERSION: u16 = 1;
}

impl EventSourced for Account {
    type Command = Command;
    type Event = Event;
    type Snapshot = u64;
    const EVENT_NAME: &'static str = "test.Event";
    const EVENT_VERSION: u16 = 2;

    fn upcasters() -> Vec<Upcaster<Self>> {
        vec![Upcaster::from_old("test.Event", 1, |old: u64| {
            vec![Event::Deposited(old)]
        })]
    }

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Deposit(n, reply_to) => Effect::persist(Event::Deposited(n))
                .reply_with(reply_to, |account: &Self| account.balance),
            Command::Forget(n) => Effect::persist(Event::Forgotten(n)),
            Command::Odd => Effect::persist(Event::Odd(Skipping { of: None, and: 1 })),
            Command::Pay(to, n) => Effect::persist(Event::Paid(n)).send(to, Credit(n)),
            Command::Arrived(delivery) => Effect::receive(delivery, |_: &Self, _, Credit(n)| {
                Effect::persist(Event::Deposited(n))
            }),
            Command::Close(reply_to) => Effect::none()
                .delete()
                .stop()
                .reply_with(reply_to, |account: &Self| account.balance),
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Deposited(n) => self.balance += n,
            Event::Paid(n) => self.balance -= n,
            // Not pure: it depends on what is not in the events.
            Event::Forgotten(n) if !self.forgets => self.balance += n,
            Event::Forgotten(_) | Event::Odd(_) => {}
        }
    }

    fn snapshot(&self) -> Option<u64> {
        Some(self.balance)
    }

    fn restore(&mut self, balance: u64) {
        self.balance = balance;
    }
}

#[test]
fn it_shows_events_letters_replies_and_state() {
    let mut account = EntityTest::new(Account::default);
    account.given([Event::Deposited(10)]);
    let outcome = account.ask(|reply_to| Command::Deposit(5, reply_to));
    assert_eq!(outcome.events, [Event::Deposited(5)]);
    assert_eq!(
        (outcome.reply, outcome.stopped, outcome.deleted),
        (Some(15), false, false)
    );
    let outcome = account.tell(Command::Pay("bob", 4));
    let [letter] = &outcome.letters[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!((letter.to.as_str(), letter.number), ("test|bob", 1));
    assert_eq!(letter.open::<Credit>(), Credit(4));
    let bob = PersistenceId::new("test", "bob");
    let outcome = account
        .restart()
        .receive(&bob, &Credit(7), Command::Arrived);
    assert_eq!(outcome.events, [Event::Deposited(7)]);
    assert_eq!(outcome.reply, Some(Receipt::Taken { up_to: 1 }));
    let outcome = account.receive(&bob, &Credit(1), Command::Arrived);
    assert_eq!(outcome.reply, Some(Receipt::Taken { up_to: 2 }));
    assert_eq!((account.state().balance, account.seq()), (19, 8));
    let outcome = account.ask(Command::Close);
    assert!(outcome.deleted && outcome.stopped && outcome.events.is_empty());
    assert_eq!(outcome.reply, Some(0));
    assert_eq!(account.restart().state().balance, 0);
}

#[test]
fn it_takes_events_as_older_versions_wrote_them() {
    let mut account = EntityTest::new(Account::default);
    account.given_records(vec![EventRecord::new("test.Event", 1, vec![1, 9])]);
    assert_eq!(account.state().balance, 9);
}

#[test]
#[should_panic(expected = "event 1 of test.Event: ")]
fn it_finds_an_event_that_does_not_come_back() {
    EntityTest::new(Account::default).tell(Command::Odd);
}

#[test]
#[should_panic(expected = "a recovered state gives another snapshot than the one that lived")]
fn it_finds_a_state_that_does_not_come_from_its_events() {
    let mut forgets = false;
    let mut account = EntityTest::new(move || {
        let account = Account {
            forgets,
            ..Account::default()
        };
        forgets = true;
        account
    });
    account.tell(Command::Forget(1));
}

#[test]
#[should_panic(expected = "test.Credit is no test.Other")]
fn it_opens_no_letter_as_another() {
    let outcome = EntityTest::new(Account::default)
        .given([Event::Deposited(1)])
        .tell(Command::Pay("bob", 1));
    let _: Other = outcome.letters[0].open();
}
