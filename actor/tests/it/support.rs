//! Support: actors and helpers that several test modules use.

use otava_actor::{Actor, ActorSystem, Context, ReplyTo};
use std::convert::Infallible;
use std::time::Duration;

/// Long enough for anything that shall happen; with a paused clock it costs nothing.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn system() -> ActorSystem {
    ActorSystem::new("test")
}

/// Adds numbers up and answers with the sum.
pub(crate) struct Adder(pub(crate) u64);

pub(crate) enum Add {
    Add(u64),
    Sum(ReplyTo<u64>),
    /// Drops the port.
    Ignore(ReplyTo<u64>),
    /// Keeps the port for this long before it answers.
    Late(ReplyTo<u64>, Duration),
}

impl Actor for Adder {
    type Msg = Add;
    type Err = Infallible;

    async fn handle(&mut self, msg: Add, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Add::Add(n) => self.0 += n,
            Add::Sum(reply_to) => {
                let _ = reply_to.send(self.0);
            }
            Add::Ignore(reply_to) => drop(reply_to),
            Add::Late(reply_to, after) => {
                tokio::time::sleep(after).await;
                let _ = reply_to.send(self.0);
            }
        }
        Ok(())
    }
}
