//! Bank: money moves between accounts on three nodes, two of which are killed meanwhile; none is made or lost.
//!
//! ```text
//! $ cargo run --example bank
//! 30 accounts with 1000.00 each on 3 nodes
//! 1500 payments are asked for; node-2 and node-3 are killed with SIGKILL, and started again
//! every payment was answered
//! there are 30000.00, as before
//! ```
//!
//! This process is one node; it starts the others as processes of their own. All share one journal. A
//! payment is one event of the account that pays and a letter to the other, in one append: what follows
//! from it follows once, whoever ends when (`account.rs`).
#![allow(clippy::print_stdout, reason = "a program for people")]

mod account;

use account::{Account, CENTS, Command, Paid};
use otava::prelude::*;
use otava::{Entities, NodeId, SingletonConfig};
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, stdin};
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;

const ACCOUNTS: u64 = 30;
const PAYMENTS: u64 = 50;

fn id(account: u64) -> String {
    format!("DE-{account}")
}

async fn member(
    folder: &Path,
    name: &str,
    seed: Option<SocketAddr>,
) -> Result<(Node, Entities<Command>), Box<dyn Error>> {
    let mut node = Node::builder("bank", name).data(folder);
    if let Some(seed) = seed {
        node = node.seeds([seed]);
    }
    let node = node.start().await?;
    let accounts = node.entities_with_letters::<Account>(EntityOptions::default())?;
    node.deliver_waiting_letters(SingletonConfig::default())?;
    node.join().await?;
    Ok((node, accounts))
}

/// Another node, as a process. It ends when it is dropped, or with this one.
struct Process(Child);

impl Process {
    fn start(folder: &Path, name: &str, seed: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg(folder).arg(name).arg(seed.to_string());
        Ok(Self(command.stdin(Stdio::piped()).spawn()?))
    }

    fn kill(&mut self) -> Result<(), Box<dyn Error>> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

/// Pays from one account to all others in turn, each payment asked again until it is answered.
async fn pay(accounts: Entities<Command>, from: u64, answered: Arc<AtomicU64>) {
    let account = accounts.entity(id(from));
    let mut number = 0;
    for turn in 0..PAYMENTS {
        let to = (from + 1 + turn % (ACCOUNTS - 1)) % ACCOUNTS;
        let cents = 1 + (from * 7_919 + turn * 104_729) % 5_000;
        loop {
            let asked = account.ask(|reply_to| Command::Pay {
                number: number + 1,
                to: id(to),
                cents,
                reply_to,
            });
            match asked.within(Duration::from_secs(2)).await {
                Ok(Paid::Done) => break number += 1,
                Ok(Paid::TooLittle) => break,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until all money has arrived: as much as there was, and no more.
async fn counted(accounts: &Entities<Command>) -> Result<u64, Box<dyn Error>> {
    let before = ACCOUNTS * CENTS;
    for _ in 0..600 {
        let mut all = 0;
        for account in 0..ACCOUNTS {
            let account = accounts.entity(id(account));
            let balance = account.ask(Command::Balance);
            all += balance.within(Duration::from_secs(20)).await?;
        }
        if all >= before {
            return Ok(all);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err("money does not arrive".into())
}

/// Waits until there are three members, all up, and none of these.
async fn joined(node: &Node, without: &[NodeId]) -> Result<(), Box<dyn Error>> {
    let mut states = node.cluster().subscribe();
    let three = states.wait_for(|state| {
        let members = &state.members;
        let gone = without.iter().all(|id| !members.contains_key(id));
        gone && members.len() == 3 && state.up().count() == 3
    });
    three.await?;
    Ok(())
}

async fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (node, accounts) = member(folder, "node-1", None).await?;
    let seed = node.id().addr;
    let mut others = Vec::new();
    for name in ["node-2", "node-3"] {
        others.push((name, Process::start(folder, name, seed)?));
    }
    joined(&node, &[]).await?;
    println!("{ACCOUNTS} accounts with {} each on 3 nodes", euros(CENTS));
    let all = ACCOUNTS * PAYMENTS;
    println!(
        "{all} payments are asked for; node-2 and node-3 are killed with SIGKILL, and started again"
    );
    let answered = Arc::new(AtomicU64::new(0));
    let payers =
        (0..ACCOUNTS).map(|from| tokio::spawn(pay(accounts.clone(), from, answered.clone())));
    let payers: Vec<_> = payers.collect();
    for (place, (name, process)) in others.iter_mut().enumerate() {
        while answered.load(Ordering::Relaxed) < all / 3 * (place as u64 + 1) {
            sleep(Duration::from_millis(5)).await;
        }
        let before: Vec<_> = node.state().members.keys().cloned().collect();
        process.kill()?;
        *process = Process::start(folder, name, seed)?;
        // Two of three that are gone at a time are a majority: then this node would end.
        let others = before.into_iter().filter(|id| &*id.name == *name);
        joined(&node, &others.collect::<Vec<_>>()).await?;
    }
    for payer in payers {
        payer.await?;
    }
    println!("every payment was answered");
    let (before, now) = (ACCOUNTS * CENTS, counted(&accounts).await?);
    if before != now {
        return Err(format!("there were {}, and now {}", euros(before), euros(now)).into());
    }
    println!("there are {}, as before", euros(now));
    drop(others);
    Ok(())
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [folder, name, seed] = words.as_slice() else {
        let folder = tempfile::tempdir()?;
        return run(folder.path()).await;
    };
    let member = member(Path::new(folder), name, Some(seed.parse()?)).await?;
    // Its input ends with the process that started it.
    let _ = stdin().read(&mut [0]).await;
    drop(member);
    Ok(())
}
