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
//! **Invariant:** the journal is the only judge of who may write. An actor whose append is refused
//! answers nothing. It stops if its epoch is over. It fails if somebody else wrote, which may be an
//! earlier instance whose append came late: the next one reads that and goes on.
//!
//! **Invariant:** a letter is written in the append of the command that sends it, and "taken" in the
//! append of its effects. So a crash at any point repeats deliveries, never effects (`post.rs`).
//!
//! **Invariant:** nothing is tried again. After an error whose outcome is unknown the actor fails;
//! the next instance reads what happened from the journal.

mod actor;
mod builder;
mod delivering;
mod effect;
pub(crate) mod entity;
mod finder;
mod letter;
mod options;
pub(crate) mod post;
mod recovery;
mod schema;
mod snapshots;

pub use actor::{EventSourcedActor, Persisted};
pub use builder::{EventSourcedBuilder, event_sourced};
pub use effect::Effect;
pub use entity::EntityError;
pub(crate) use entity::Fresh;
pub use finder::OutboxFinder;
pub use letter::{Courier, CourierError, Delivery, Letter, NoLetters, Parcel, Receipt};
pub use options::{Options, Recoveries};
pub use recovery::RecoveryError;
pub use schema::{EventReader, Upcaster, is_own_record};

use crate::format::FormatError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

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
    /// name or version, unless one of the [`Self::upcasters`] knows it.
    const EVENT_VERSION: u16;

    /// The version of the snapshot's layout. Snapshots of another version are passed over, unless
    /// [`Self::upcast_snapshot`] knows them: the events are the truth, and they are replayed instead.
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

    /// How events of older versions and other names become events of today. Default: not at all.
    fn upcasters() -> Vec<Upcaster<Self>> {
        Vec::new()
    }

    /// Tags by which queries find an event ([`crate::EventQuery::tag`]); at most [`crate::TAGS_MAX`].
    /// `self` is the state before the command that led to it. Default: none.
    fn tags(&self, event: &Self::Event) -> Vec<Arc<str>> {
        let _ = event;
        Vec::new()
    }

    /// Whether a snapshot is to be taken after the command that led to this event, beside those of
    /// [`Options::snapshot_every`]. `self` is the state that holds the event. Default: no.
    fn snapshot_when(&self, event: &Self::Event) -> bool {
        let _ = event;
        false
    }

    /// The state as a snapshot; `None`, the default, takes none. Called after commands, as
    /// [`Options::snapshot_every`] and [`Self::snapshot_when`] say.
    fn snapshot(&self) -> Option<Self::Snapshot> {
        None
    }

    /// Reads a snapshot of an older version or another name, from a payload ([`crate::format::decode`]);
    /// `None`, the default, for what is not known.
    ///
    /// # Errors
    /// [`FormatError`]: it is known and cannot be read. It is passed over then.
    fn upcast_snapshot(
        name: &str,
        version: u16,
        payload: &[u8],
    ) -> Option<Result<Self::Snapshot, FormatError>> {
        let _ = (name, version, payload);
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
