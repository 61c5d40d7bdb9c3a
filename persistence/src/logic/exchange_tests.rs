//! Exchange: outboxes and inboxes of several accounts under loss, repetition, reordering and crashes.
//!
//! Every account is a log of records, and a memory that is rebuilt from it after a crash. A crash may
//! come before or after an append, of both sides. Money moves by letters; none may be made or lost.

use super::inbox::{Inbox, Verdict};
use super::outbox::{Outbox, Waiting};
use crate::id::PersistenceId;
use otava_actor::Rng;

const ACCOUNTS: u64 = 4;
const START: i64 = 100;

#[derive(Clone)]
enum Record {
    Changed(i64),
    Sent { to: u64, number: u64, amount: u8 },
    Confirmed { to: u64, up_to: u64 },
    Taken { from: u64, number: u64 },
}

#[derive(Default)]
struct Account {
    log: Vec<Record>,
    balance: i64,
    outbox: Outbox,
    inbox: Inbox,
    /// The order in which letters had their effects, for each sender.
    effects: Vec<(u64, u64)>,
}

fn id(account: u64) -> PersistenceId {
    PersistenceId::new("account", &account.to_string())
}

impl Account {
    /// What a program does after an append, and again at each recovery.
    fn apply(&mut self, record: Record) {
        let seq = self.log.len() as u64 + 1;
        match record.clone() {
            Record::Changed(amount) => self.balance += amount,
            Record::Sent { to, number, amount } => {
                let letter = Waiting {
                    name: "test.Transfer".into(),
                    version: 1,
                    payload: vec![amount],
                    seq,
                };
                self.outbox.sent(&id(to), number, letter).unwrap();
            }
            Record::Confirmed { to, up_to } => self.outbox.confirmed(&id(to), up_to).unwrap(),
            Record::Taken { from, number } => {
                self.inbox.take(&id(from), number).unwrap();
                self.effects.push((from, number));
            }
        }
        self.log.push(record);
    }

    fn recover(&mut self) {
        let log = std::mem::take(&mut self.log);
        *self = Self::default();
        log.into_iter().for_each(|record| self.apply(record));
    }
}

#[derive(Clone, Copy)]
enum Wire {
    Letter {
        from: u64,
        to: u64,
        number: u64,
        amount: u8,
    },
    Answer {
        from: u64,
        to: u64,
        up_to: u64,
    },
}

struct World {
    rng: Rng,
    accounts: Vec<Account>,
    wire: Vec<Wire>,
    /// Percent of messages that are lost.
    loss: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let loss = rng.below(60);
        let accounts = (0..ACCOUNTS).map(|_| {
            let mut account = Account::default();
            account.apply(Record::Changed(START));
            account
        });
        Self {
            accounts: accounts.collect(),
            rng,
            wire: Vec::new(),
            loss,
        }
    }

    /// Appends all records of one command, or crashes before or after it. Tells whether the program
    /// lived on to answer.
    fn append(&mut self, at: u64, records: Vec<Record>) -> bool {
        let (crash, account) = (self.rng.below(10), &mut self.accounts[at as usize]);
        if crash == 0 {
            account.recover();
            return false;
        }
        records.into_iter().for_each(|record| account.apply(record));
        if crash == 1 {
            account.recover();
        }
        crash > 1
    }

    fn put(&mut self, message: Wire) {
        for _ in 0..=self.rng.below(2) {
            if self.rng.below(100) >= self.loss {
                self.wire.push(message);
            }
        }
    }

    fn transfer(&mut self) {
        let (from, to) = (self.rng.below(ACCOUNTS), self.rng.below(ACCOUNTS));
        let amount = self.rng.below(9) as u8 + 1;
        let number = self.accounts[from as usize].outbox.next_number(&id(to));
        let sent = Record::Sent { to, number, amount };
        self.append(from, vec![Record::Changed(-i64::from(amount)), sent]);
    }

    fn send(&mut self, from: u64) {
        for to in 0..ACCOUNTS {
            let target = id(to);
            let waiting = self.accounts[from as usize].outbox.waiting(&target, 5);
            let letters: Vec<_> = waiting
                .map(|(number, letter)| (number, letter.payload[0]))
                .collect();
            for (number, amount) in letters {
                self.put(Wire::Letter {
                    from,
                    to,
                    number,
                    amount,
                });
            }
        }
    }

    /// Hands over any message that is under way: that is reordering.
    fn deliver(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let at = self.rng.below(self.wire.len() as u64) as usize;
        match self.wire.swap_remove(at) {
            Wire::Letter {
                from,
                to,
                number,
                amount,
            } => {
                let up_to = match self.accounts[to as usize].inbox.judge(&id(from), number) {
                    Verdict::Gap { .. } => return,
                    Verdict::Taken { up_to } => up_to,
                    Verdict::New => {
                        let taken = Record::Taken { from, number };
                        let records = vec![Record::Changed(i64::from(amount)), taken];
                        if !self.append(to, records) {
                            return;
                        }
                        number
                    }
                };
                self.put(Wire::Answer { from, to, up_to });
            }
            Wire::Answer { from, to, up_to } => {
                if self.accounts[from as usize].outbox.is_news(&id(to), up_to) {
                    self.append(from, vec![Record::Confirmed { to, up_to }]);
                }
            }
        }
    }

    /// All balances. Letters that wait are not in it, so it is right when none does.
    fn sum(&self) -> i64 {
        self.accounts.iter().map(|account| account.balance).sum()
    }
}

/// Each letter has its effects once and in order, whatever is lost, repeated, reordered or crashed;
/// in the end all are delivered, and the sum is what it was.
#[test]
fn money_is_neither_made_nor_lost() {
    for seed in 0..500 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            match world.rng.below(6) {
                0 => world.transfer(),
                1 => {
                    let from = world.rng.below(ACCOUNTS);
                    world.send(from);
                }
                2 if world.rng.below(20) == 0 => {
                    world.accounts.iter_mut().for_each(Account::recover)
                }
                _ => world.deliver(),
            }
        }
        world.loss = 0;
        let mut rounds = 0;
        while world
            .accounts
            .iter()
            .any(|account| !account.outbox.is_empty())
        {
            rounds += 1;
            assert!(rounds < 1_000, "seed {seed}: letters stay undelivered");
            (0..ACCOUNTS).for_each(|from| world.send(from));
            while !world.wire.is_empty() {
                world.deliver();
            }
        }
        assert_eq!(world.sum(), START * ACCOUNTS as i64, "seed {seed}");
        for (to, account) in world.accounts.iter().enumerate() {
            for from in 0..ACCOUNTS {
                let of = account.effects.iter().filter(|(sender, _)| *sender == from);
                let numbers: Vec<_> = of.map(|(_, number)| *number).collect();
                let sent = world.accounts[from as usize]
                    .outbox
                    .next_number(&id(to as u64))
                    - 1;
                assert_eq!(
                    numbers,
                    (1..=sent).collect::<Vec<_>>(),
                    "seed {seed}: {from} to {to}"
                );
            }
        }
    }
}
