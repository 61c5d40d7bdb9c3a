//! Typed actors in one process: mailboxes, supervision, watching, timers, asking.
//!
//! An actor is a value that handles one message at a time. Others hold an [`ActorRef`] to it, typed
//! by the messages it understands, and never see the value.
//!
//! ```
//! use otava_actor::{Actor, ActorSystem, Context, ReplyTo};
//!
//! struct Greeter;
//! struct Greet(&'static str, ReplyTo<String>);
//!
//! impl Actor for Greeter {
//!     type Msg = Greet;
//!     type Err = std::convert::Infallible;
//!     async fn handle(&mut self, Greet(who, reply_to): Greet, _: &mut Context<Self>) -> Result<(), Self::Err> {
//!         let _ = reply_to.send(format!("hello {who}"));
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let greeter = ActorSystem::new("hello").spawn("greeter", Greeter).unwrap();
//! # let _ = greeter;
//! # }
//! ```
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | [`mod@actor`] | the trait that users implement |
//! | [`actor_ref`] | references, and the trait by which other nodes plug in |
//! | [`ask`] | questions with a deadline, reply ports |
//! | `body` | an actor in the form in which it is now |
//! | `cell` | one actor as others see it: when it may run, its place in the tree |
//! | [`context`] | what an actor can do as itself |
//! | [`dead_letters`] | counting what was not delivered |
//! | [`error`] | what telling, asking and spawning may answer |
//! | `failure` | one form for errors and panics |
//! | `family` | the living children of one parent |
//! | `life` | an actor from its first instance to its end: restarts, stop order |
//! | `mailbox` | what is accepted, in which order it is taken, who is woken |
//! | [`path`] | names |
//! | `pool` | memory for activations and messages |
//! | [`props`] | recipes and supervision strategies |
//! | [`mod@protocol`] | descriptions of messages, and what they can be sent to |
//! | [`rng`] | the seeded generator |
//! | `scheduler` | which runnable actor runs next, and where |
//! | `serving` | the short way of a message to its handler |
//! | [`props`] | recipes |
//! | [`rng`] | the seeded generator |
//! | `scheduler` | which runnable actor runs next, and where |
//! | [`supervision`] | what happens to an actor that failed, alone or with its group |
//! | [`system`] | the root of the tree, its clock, its end |
//! | [`testkit`] | probes |
//! | [`time`] | the clock type |
//! | [`timers`] | keys of timers, and when their messages come |
//! | [`watch`] | who is told of an actor's end |

pub mod actor;
pub mod actor_ref;
pub mod ask;
mod body;
mod cell;
pub mod context;
pub mod dead_letters;
pub mod error;
mod failure;
mod family;
mod life;
mod mailbox;
#[cfg(all(test, otava_loom))]
mod models;
pub mod path;
mod pool;
pub mod props;
pub mod protocol;
pub mod rng;
mod scheduler;
mod serving;
pub mod supervision;
mod sync;
pub mod system;
pub mod testkit;
pub mod time;
pub mod timers;
pub mod watch;

pub use actor::Actor;
pub use actor_ref::{ActorRef, RemoteTarget};
pub use ask::{Ask, Asking, Reply, ReplyTo};
pub use context::Context;
pub use dead_letters::{DeadLetter, DeadLetterEvent, DeadLetterReason, DeadLetters};
pub use error::{AskError, SpawnError, TellError, Unsendable};
#[doc(hidden)]
pub use failure::describe_panic;
#[doc(hidden)]
pub use otava_actor_macros as __macros;
pub use otava_actor_macros::{actor, protocol};
pub use path::ActorPath;
pub use props::Props;
pub use rng::Rng;
pub use supervision::{
    Backoff, Fault, Group, GroupBuilder, GroupFailure, GroupSignal, GroupStrategy, Supervision,
};
pub use system::{ActorSystem, Shutdown, SystemBuilder};
pub use time::Time;
pub use timers::TimerKey;
pub use watch::{Ended, Terminated, Watcher, WatcherId, Watching};
