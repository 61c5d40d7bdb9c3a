//! Bank: a tree of actors that fail, and what is made anew for which failure.
//!
//! ```text
//! $ cargo run -p otava-actor --example supervised_bank
//! alice has 100
//! alice has 150: the ledger failed, was opened 4 times, and nothing is lost
//! alice's account broke and was made anew: it has 150
//! it broke again: the whole bank was made anew, and alice has 150
//! ```
//!
//! The bank has children: a ledger, and an account for each customer. Nobody mends anything in a
//! handler: an actor that cannot go on returns an error, and its strategy, chosen where it was spawned,
//! says what comes next. The ledger waits longer and longer for its disk. An account starts again from
//! what the ledger says; if that does not help, the failure is the bank's, which starts again as a whole.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{
    Actor, ActorRef, ActorSystem, AskError, Backoff, Context, Props, ReplyTo, SpawnError,
    Supervision,
};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// What outlives all actors.
#[derive(Default)]
struct Disk {
    entries: Vec<(String, i64)>,
    opened: u32,
    /// How many of the next accesses fail.
    failures: u32,
}

impl Disk {
    fn access(&mut self) -> Result<&mut Self, &'static str> {
        if self.failures == 0 {
            return Ok(self);
        }
        self.failures -= 1;
        Err("the disk does not answer")
    }
}

type SharedDisk = Arc<Mutex<Disk>>;

struct Ledger(SharedDisk);

/// Writes a change of an account down; the answer is the new balance.
struct Entry(String, i64, ReplyTo<i64>);

impl Ledger {
    fn open(shared: &SharedDisk) -> Result<Self, &'static str> {
        let mut disk = shared.lock().map_err(|_| "the disk is broken")?;
        disk.opened += 1;
        disk.access().map(|_| Self(shared.clone()))
    }
}

impl Actor for Ledger {
    type Msg = Entry;
    type Err = &'static str;

    async fn handle(&mut self, entry: Entry, _: &mut Context<Self>) -> Result<(), Self::Err> {
        let Entry(account, cents, balance) = entry;
        let mut disk = self.0.lock().map_err(|_| "the disk is broken")?;
        let entries = &mut disk.access()?.entries;
        entries.push((account.clone(), cents));
        let own = entries.iter().filter(|(of, _)| *of == account);
        // Whether the asker still waits does not matter here.
        let _ = balance.send(own.map(|(_, cents)| cents).sum());
        Ok(())
    }
}

struct Account {
    ledger: ActorRef<Entry>,
}

enum Order {
    Deposit(i64, ReplyTo<i64>),
    Break,
}

impl Account {
    async fn book(&self, cents: i64, ctx: &Context<Self>) -> Result<i64, AskError> {
        loop {
            let entry = |balance| Entry(ctx.path().name().to_owned(), cents, balance);
            match self.ledger.ask(entry).await {
                // The ledger failed on it. The next one waits in its mailbox until it is back.
                Err(AskError::NoReply { .. }) => {}
                answer => return answer,
            }
        }
    }
}

impl Actor for Account {
    type Msg = Order;
    type Err = String;

    async fn handle(&mut self, order: Order, ctx: &mut Context<Self>) -> Result<(), String> {
        let Order::Deposit(cents, reply_to) = order else {
            return Err("the account makes no sense".into());
        };
        let balance = self.book(cents, ctx).await;
        let _ = reply_to.send(balance.map_err(|error| error.to_string())?);
        Ok(())
    }
}

struct Bank(SharedDisk);

/// Finds the account of a customer, or opens it.
struct Find(&'static str, ReplyTo<ActorRef<Order>>);

impl Actor for Bank {
    type Msg = Find;
    type Err = SpawnError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), SpawnError> {
        let disk = self.0.clone();
        let slowly = Backoff::new(Duration::from_millis(10), Duration::from_secs(1)).limit(20);
        let ledger = Props::try_new(move || Ledger::open(&disk)).on_failure(slowly);
        ctx.spawn_with("ledger", ledger)?;
        Ok(())
    }

    async fn handle(&mut self, msg: Find, ctx: &mut Context<Self>) -> Result<(), SpawnError> {
        let Find(customer, reply_to) = msg;
        let account = match (ctx.child(customer), ctx.child::<Entry>("ledger")) {
            (Some(known), _) => known,
            (None, Some(ledger)) => {
                let account = Props::new(move || Account {
                    ledger: ledger.clone(),
                });
                let account = account.on_failure(restart(1)).escalate_at_limit();
                ctx.spawn_with(customer, account)?
            }
            // Without an answer the customer learns that there is no bank at the moment.
            (None, None) => return Ok(()),
        };
        let _ = reply_to.send(account);
        Ok(())
    }
}

fn restart(limit: u32) -> Supervision {
    let within = MINUTE;
    Supervision::Restart { limit, within }
}

/// The lines that the program prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let (system, disk) = (ActorSystem::new("town"), SharedDisk::default());
    let own = disk.clone();
    let bank = Props::new(move || Bank(own.clone())).on_failure(restart(3));
    let bank = system.spawn_with("bank", bank)?;
    let find_alice = |reply_to| Find("alice", reply_to);
    let deposit = |cents| move |reply_to| Order::Deposit(cents, reply_to);

    let alice = bank.ask(find_alice).await?;
    let mut lines = vec![format!("alice has {}", alice.ask(deposit(100)).await?)];
    disk.lock().map_err(|_| "broken")?.failures = 3;
    let balance = alice.ask(deposit(50)).await?;
    let opened = disk.lock().map_err(|_| "broken")?.opened;
    lines.push(format!(
        "alice has {balance}: the ledger failed, was opened {opened} times, and nothing is lost"
    ));
    // The same account goes on, behind the same reference.
    alice.tell(Order::Break)?;
    let balance = alice.ask(deposit(0)).await?;
    lines.push(format!(
        "alice's account broke and was made anew: it has {balance}"
    ));
    // Now it ends, and so does everything that the bank started.
    let (over, ended) = tokio::sync::oneshot::channel::<()>();
    let _watching = alice.on_terminated(|_| drop(over));
    alice.tell(Order::Break)?;
    let _ = ended.await;
    let alice = bank.ask(find_alice).await?;
    let balance = alice.ask(deposit(0)).await?;
    lines.push(format!(
        "it broke again: the whole bank was made anew, and alice has {balance}"
    ));
    Ok(lines)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
