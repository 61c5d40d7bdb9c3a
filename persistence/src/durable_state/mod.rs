//! Durable state: entities that keep their newest value only, each change durable before anybody hears of it.
//!
//! ```text
//! command --handle--> effect --save--> store      revision and fence hold, or nothing happened
//!                        |               |
//!                        |            the state is replaced
//!                        +---------> replies, then side effects
//! ```
//!
//! **Invariant:** a reply never goes out before the change of its command is durable, and the state in
//! memory is never one that is not stored.
//!
//! **Invariant:** nothing is tried again. After an error whose outcome is unknown the actor fails; the
//! next instance reads what is stored. So it is when somebody else has written; an actor whose epoch is
//! over stops.

mod actor;
mod builder;
mod effect;

pub use actor::{DurableStateActor, StateError};
pub use builder::{DurableStateBuilder, durable_state};
pub use effect::StateEffect;

use crate::format::FormatError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// State that is kept as its newest value.
///
/// The value is the state, and is stored as a whole with each change. It is made empty by the factory
/// that [`durable_state`] is given; what is stored replaces that. Fields that are not to be stored have
/// `#[serde(skip)]`.
///
/// There is no history: choose [`crate::EventSourced`] where it matters how the state came about, or
/// where others follow what happens.
///
/// # Examples
/// ```
/// use otava_actor::ReplyTo;
/// use otava_persistence::{DurableState, StateEffect};
///
/// #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// struct Settings {
///     language: String,
/// }
///
/// enum Command {
///     SetLanguage(String, ReplyTo<()>),
///     Language(ReplyTo<String>),
///     Forget,
/// }
///
/// impl DurableState for Settings {
///     type Command = Command;
///     const STATE_NAME: &'static str = "user.Settings";
///     const STATE_VERSION: u16 = 1;
///
///     fn handle(&self, command: Command) -> StateEffect<Self> {
///         match command {
///             Command::SetLanguage(language, reply_to) => {
///                 StateEffect::set(Self { language }).reply(reply_to, ())
///             }
///             Command::Language(reply_to) => StateEffect::none().reply(reply_to, self.language.clone()),
///             Command::Forget => StateEffect::delete().stop(),
///         }
///     }
/// }
/// ```
pub trait DurableState: Serialize + DeserializeOwned + Send + 'static {
    /// What it can be told; the message type of its actor.
    type Command: Send + 'static;

    /// The name of the state type in the store. A contract, as [`crate::EventSourced::EVENT_NAME`].
    const STATE_NAME: &'static str;

    /// The version of the state's layout. Raise it with every change of the layout, and read the older
    /// ones by [`Self::upcast`]: an entity whose state cannot be read does not start.
    const STATE_VERSION: u16;

    /// Decides what a command leads to. It changes nothing itself: the new state is in the effect.
    ///
    /// # Panics
    /// A panic is a failure of the actor; nothing of the command is stored.
    fn handle(&self, command: Self::Command) -> StateEffect<Self>;

    /// Reads a state of an older version or another name, from a payload ([`crate::format::decode`]);
    /// `None`, the default, for what is not known.
    ///
    /// # Errors
    /// [`FormatError`]: it is known and cannot be read.
    fn upcast(name: &str, version: u16, payload: &[u8]) -> Option<Result<Self, FormatError>> {
        let _ = (name, version, payload);
        None
    }

    /// Tags by which queries find the state; at most [`crate::TAGS_MAX`]. Default: none.
    fn tags(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// Takes in what the factory made, when a stored state replaces it: for fields that are not stored.
    /// Default: nothing.
    fn recovered(&mut self, empty: Self) {
        let _ = empty;
    }
}

#[cfg(test)]
mod tests;
