//! Support: actors and helpers that several test modules use.

use otava_actor::{Actor, ActorRef, ActorSystem, Context, Props, ReplyTo, Terminated};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Long enough for anything that shall happen; with a paused clock it costs nothing.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn system() -> ActorSystem {
    ActorSystem::new("test")
}

/// Adds numbers up and answers with the sum.
pub(crate) struct Adder(pub(crate) u64);

pub(crate) enum Sums {
    Add(u64),
    Get(ReplyTo<u64>),
    /// Drops the port.
    Ignore(ReplyTo<u64>),
    /// Keeps the port for this long before it answers.
    Late(ReplyTo<u64>, Duration),
}

impl Actor for Adder {
    type Msg = Sums;
    type Err = Infallible;

    async fn handle(&mut self, msg: Sums, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Sums::Add(n) => self.0 += n,
            Sums::Get(reply_to) => {
                let _ = reply_to.send(self.0);
            }
            Sums::Ignore(reply_to) => drop(reply_to),
            Sums::Late(reply_to, after) => {
                tokio::time::sleep(after).await;
                let _ = reply_to.send(self.0);
            }
        }
        Ok(())
    }
}

/// What happened, in order; shared by a test and its actors.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// Takes all lines out.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// An actor that does what the function in each message says, and logs its hooks.
pub(crate) struct Puppet {
    pub(crate) name: &'static str,
    pub(crate) log: Log,
    pub(crate) on_started: fn(&Log, &mut Context<Puppet>) -> Result<(), String>,
    pub(crate) on_stopped: fn(&mut Context<Puppet>),
}

type Act = Box<dyn FnOnce(&mut Puppet, &mut Context<Puppet>) -> Result<(), String> + Send>;

pub(crate) enum Order {
    Act(Act),
    /// Sleeps inside the handler.
    Sleep(Duration),
    Say(String),
    /// Answers when everything before it is done.
    Sync(ReplyTo<()>),
}

/// An order to do `act`.
pub(crate) fn act(
    act: impl FnOnce(&mut Puppet, &mut Context<Puppet>) -> Result<(), String> + Send + 'static,
) -> Order {
    Order::Act(Box::new(act))
}

pub(crate) fn say(text: impl Into<String>) -> Order {
    Order::Say(text.into())
}

impl Puppet {
    pub(crate) fn new(name: &'static str, log: &Log) -> Self {
        Self {
            name,
            log: log.clone(),
            on_started: |_, _| Ok(()),
            on_stopped: |_| {},
        }
    }

    pub(crate) fn props(name: &'static str, log: &Log) -> Props<Self> {
        let log = log.clone();
        Props::new(move || Self::new(name, &log))
    }
}

impl Actor for Puppet {
    type Msg = Order;
    type Err = String;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        self.log.add(format!("{}: started", self.name));
        (self.on_started)(&self.log, ctx)
    }

    async fn handle(&mut self, msg: Order, ctx: &mut Context<Self>) -> Result<(), String> {
        match msg {
            Order::Act(act) => return act(self, ctx),
            Order::Sleep(time) => tokio::time::sleep(time).await,
            Order::Say(text) => self.log.add(format!("{}: {text}", self.name)),
            Order::Sync(reply_to) => {
                let _ = reply_to.send(());
            }
        }
        Ok(())
    }

    async fn terminated(&mut self, who: Terminated, _: &mut Context<Self>) -> Result<(), String> {
        self.log.add(format!(
            "{}: {} ended, {:?}",
            self.name,
            who.path.name(),
            who.reason
        ));
        Ok(())
    }

    async fn stopped(&mut self, ctx: &mut Context<Self>) {
        self.log.add(format!("{}: stopped", self.name));
        (self.on_stopped)(ctx);
    }
}

/// Lets `actor` do `act` with its context.
pub(crate) fn with(
    actor: &ActorRef<Order>,
    with: impl FnOnce(&mut Context<Puppet>) + Send + 'static,
) {
    let order = act(move |_, ctx| {
        with(ctx);
        Ok(())
    });
    actor.tell(order).unwrap();
}
