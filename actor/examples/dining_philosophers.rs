//! Dining philosophers: five actors that share five forks, without a lock and without a deadlock.
//!
//! ```text
//! $ cargo run -p otava-actor --example dining_philosophers
//! Confucius has eaten 3 times
//! Hypatia has eaten 3 times
//! Kant has eaten 3 times
//! Plato has eaten 3 times
//! Weil has eaten 3 times
//! nobody starved, and neighbours never ate together
//! ```
//!
//! A fork is an actor: whoever asks for it gets the answer when it is free. A philosopher never waits in a
//! handler. It asks (`ask_then`), goes on, and the answer comes as a message of its own. Everybody takes
//! the fork with the lower number first, so they cannot all hold one and wait for the other.
#![allow(clippy::print_stdout, reason = "a program for people")]

use otava_actor::{Actor, ActorRef, ActorSystem, AskError, Context, Props, ReplyTo};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

const NAMES: [&str; 5] = ["Confucius", "Hypatia", "Kant", "Plato", "Weil"];
const MEALS: u32 = 3;
const BITE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A fork, and who waits for it.
#[derive(Default)]
struct Fork {
    is_taken: bool,
    waiting: VecDeque<ReplyTo<()>>,
}

enum ForkMsg {
    Take(ReplyTo<()>),
    Put,
}

impl Actor for Fork {
    type Msg = ForkMsg;
    type Err = Infallible;

    async fn handle(&mut self, msg: ForkMsg, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            ForkMsg::Take(reply_to) => self.waiting.push_back(reply_to),
            ForkMsg::Put => self.is_taken = false,
        }
        while !self.is_taken
            && let Some(next) = self.waiting.pop_front()
        {
            // Whoever has gone away meanwhile does not get it.
            self.is_taken = next.send(()).is_ok();
        }
        Ok(())
    }
}

struct Philosopher {
    /// The lower number first.
    forks: [ActorRef<ForkMsg>; 2],
    meals: u32,
    /// Who eats at the moment: oneself, and the neighbours.
    eats: Arc<AtomicBool>,
    neighbours: [Arc<AtomicBool>; 2],
    over: Option<ReplyTo<u32>>,
}

enum Turn {
    Dine(ReplyTo<u32>),
    GotFirst(Result<(), AskError>),
    GotSecond(Result<(), AskError>),
    IsFull,
}

impl Philosopher {
    fn is_hungry(&self, ctx: &mut Context<Self>) {
        ctx.ask_then(&self.forks[0], ForkMsg::Take, PATIENCE, Turn::GotFirst);
    }
}

impl Actor for Philosopher {
    type Msg = Turn;
    type Err = Box<dyn Error + Send + Sync>;

    async fn handle(&mut self, turn: Turn, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        match turn {
            Turn::Dine(over) => {
                self.over = Some(over);
                self.is_hungry(ctx);
            }
            Turn::GotFirst(fork) => {
                fork?;
                ctx.ask_then(&self.forks[1], ForkMsg::Take, PATIENCE, Turn::GotSecond);
            }
            Turn::GotSecond(fork) => {
                fork?;
                self.eats.store(true, SeqCst);
                if self.neighbours.iter().any(|other| other.load(SeqCst)) {
                    return Err("two neighbours eat together".into());
                }
                ctx.timer_once("meal", BITE, Turn::IsFull);
            }
            Turn::IsFull => {
                self.eats.store(false, SeqCst);
                self.meals += 1;
                for fork in &self.forks {
                    fork.tell(ForkMsg::Put)?;
                }
                if self.meals < MEALS {
                    self.is_hungry(ctx);
                } else if let Some(over) = self.over.take() {
                    let _ = over.send(self.meals);
                    ctx.stop_self();
                }
            }
        }
        Ok(())
    }
}

/// The lines that the program prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let system = ActorSystem::new("table");
    let mut forks = Vec::new();
    for n in 0..NAMES.len() {
        forks.push(system.spawn(&format!("fork-{n}"), Fork::default())?);
    }
    let eats: Vec<Arc<AtomicBool>> = NAMES.iter().map(|_| Arc::default()).collect();
    let mut dinners = Vec::new();
    for (n, name) in NAMES.into_iter().enumerate() {
        let (next, before) = ((n + 1) % NAMES.len(), (n + NAMES.len() - 1) % NAMES.len());
        let philosopher = Props::once(Philosopher {
            forks: [forks[n.min(next)].clone(), forks[n.max(next)].clone()],
            meals: 0,
            eats: eats[n].clone(),
            neighbours: [eats[next].clone(), eats[before].clone()],
            over: None,
        });
        let philosopher = system.spawn_with(name, philosopher)?;
        let dinner = philosopher.ask(Turn::Dine).within(PATIENCE);
        dinners.push((name, tokio::spawn(dinner.into_future())));
    }
    let mut lines = Vec::new();
    for (name, dinner) in dinners {
        lines.push(format!("{name} has eaten {} times", dinner.await??));
    }
    lines.push("nobody starved, and neighbours never ate together".to_owned());
    Ok(lines)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
