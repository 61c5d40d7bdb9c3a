//! Event-sourced actors: state as the sum of its events, each durable before anybody hears of it.
//!
//! ```text
//! command --handle--> effect --append--> journal     durable, or nothing happened
//!                        |                  |
//!                        |               apply        each event, once
//!                        |                  |
//!                        +------------> replies, then side effects, then a snapshot now and then
//! ```
//!
//! **Invariant:** a reply never goes out before the events of its command are durable, and the state
//! never holds an event that is not.
//!
//! **Invariant:** one command at a time: the next one is handled when the events of this one are
//! applied. What arrives in between waits in the mailbox.
//!
//! **Invariant:** the journal is the only judge of who may write. An actor whose append is refused,
//! since its epoch is over or since somebody else wrote, answers nothing and stops.
//!
//! **Invariant:** nothing is tried again. After an error whose outcome is unknown the actor fails;
//! the next instance reads what happened from the journal.

mod actor;
mod builder;
mod effect;
mod entity;
mod options;

pub use actor::EventSourcedActor;
pub use builder::{EventSourcedBuilder, event_sourced};
pub use effect::Effect;
pub use entity::{EntityError, RecoveryError};
pub use options::{Options, Recoveries};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// State that is kept as a sequence of events.
///
/// The value is the state. It is made empty by the factory that [`event_sourced`] is given, then
/// recovered: the newest snapshot, if there is one, then every event after it. Only then does the
/// first command arrive.
///
/// # Examples
/// ```
/// use otava_actor::ReplyTo;
/// use otava_persistence::{Effect, EventSourced};
///
/// #[derive(Default)]
/// struct Account {
///     balance: u64,
/// }
///
/// enum Command {
///     Deposit(u64, ReplyTo<u64>),
///     Balance(ReplyTo<u64>),
/// }
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Deposited(u64);
///
/// impl EventSourced for Account {
///     type Command = Command;
///     type Event = Deposited;
///     type Snapshot = ();
///     const EVENT_NAME: &'static str = "bank.Deposited";
///     const EVENT_VERSION: u16 = 1;
///
///     fn handle(&self, command: Command) -> Effect<Self> {
///         match command {
///             Command::Deposit(amount, reply_to) => Effect::persist(Deposited(amount))
///                 .reply_with(reply_to, |account: &Self| account.balance),
///             Command::Balance(reply_to) => Effect::none().reply(reply_to, self.balance),
///         }
///     }
///
///     fn apply(&mut self, event: &Deposited) {
///         self.balance += event.0;
///     }
/// }
/// ```
pub trait EventSourced: Sized + Send + 'static {
    /// What it can be told; the message type of its actor.
    type Command: Send + 'static;

    /// What can happen to it. It is stored for good: see [`Self::EVENT_NAME`].
    type Event: Serialize + DeserializeOwned + Send + 'static;

    /// What a snapshot holds; `()` for those that take none.
    type Snapshot: Serialize + DeserializeOwned + Send + 'static;

    /// The name of the event type in the journal. A contract, like a name on the wire: renaming the
    /// Rust type is free, changing this is not.
    const EVENT_NAME: &'static str;

    /// The version of the event type's layout. Raise it with every change of the layout; adding a
    /// variant at the end of an enum is none. Recovery stops, with names, at an event of another
    /// name or version.
    const EVENT_VERSION: u16;

    /// The version of the snapshot's layout. Snapshots of another version are passed over: the
    /// events are the truth, and they are replayed instead.
    const SNAPSHOT_VERSION: u16 = 1;

    /// Decides what a command leads to. It looks at the state and changes nothing: changes are
    /// events, and happen in [`Self::apply`].
    ///
    /// # Panics
    /// A panic is a failure of the actor; nothing of the command is persisted.
    fn handle(&self, command: Self::Command) -> Effect<Self>;

    /// Takes in an event. Called once for each event while the actor lives, when it is durable, and
    /// again at each recovery: it must be pure, so no clock, no randomness, no message.
    fn apply(&mut self, event: &Self::Event);

    /// The state as a snapshot; `None`, the default, takes none. Called after commands, as
    /// [`Options::snapshot_every`] says.
    fn snapshot(&self) -> Option<Self::Snapshot> {
        None
    }

    /// Takes in a snapshot. Called at most once, on the value that the factory made, before any
    /// event.
    fn restore(&mut self, snapshot: Self::Snapshot) {
        let _ = snapshot;
    }
}

#[cfg(test)]
mod tests;
