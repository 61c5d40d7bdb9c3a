//! Account: a bank account that survives the death of its node, in about thirty lines.
//!
//! ```text
//! cargo run --example account
//! ```
//!
//! prints `alice has 5`, and 5 more each time it is run: the balance lies in `target/account`.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava::prelude::*;

#[derive(Default)]
struct Account(u64);

#[derive(Deserialize, Serialize)]
struct Deposit(u64, #[serde(with = "otava::wire")] ReplyTo<u64>);

impl RemoteMessage for Deposit {
    const NAME: &'static str = "bank.Deposit";
}

impl EventSourced for Account {
    type Command = Deposit;
    type Event = u64;
    type Snapshot = ();
    const EVENT_NAME: &'static str = "bank.Deposited";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, Deposit(amount, reply_to): Deposit) -> Effect<Self> {
        Effect::persist(amount).reply_with(reply_to, |account: &Self| account.0)
    }

    fn apply(&mut self, amount: &u64) {
        self.0 += amount;
    }
}

impl PersistentEntity for Account {
    const KIND: &'static str = "account";

    fn create(_id: &str) -> Self {
        Self::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("bank", "node-1")
        .data("target/account")
        .start()
        .await?;
    let accounts = node.entities::<Account>(EntityOptions::default())?;
    node.join().await?;
    let alice = accounts.entity("alice");
    let balance = alice.ask(|reply_to| Deposit(5, reply_to)).await?;
    println!("alice has {balance}");
    node.leave().await;
    Ok(())
}
