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
//! | [`actor`] | the trait that users implement |
//! | [`actor_ref`] | references, and the trait by which other nodes plug in |
//! | [`ask`] | questions with a deadline, reply ports |
//! | `cell` | one actor as others see it: when it may run, its place in the tree |
//! | [`context`] | what an actor can do as itself |
//! | [`dead_letters`] | counting what was not delivered |
//! | [`effects`] | what one actor did, for tests |
//! | [`error`] | what telling, asking and spawning may answer |
//! | `failure` | one form for errors and panics |
//! | `life` | an actor from its first instance to its end: restarts, stop order |
//! | `mailbox` | what is accepted, in which order it is taken, who is woken |
//! | [`observe`] | spans, metrics, and what is in the log |
//! | [`path`] | names |
//! | [`props`] | recipes and supervision strategies |
//! | [`rng`] | the seeded generator |
//! | `scheduler` | which runnable actor runs next, and where |
//! | [`system`] | the root of the tree, its clock, its end |
//! | `testkit` | probes, spies, a runner for one actor (feature `testkit`) |
//! | [`time`] | the clock type |
//! | [`timers`] | keys of timers, and when their messages come |
//! | [`tree`] | a picture of the living actors |
//! | `wait_graph` | who waits for whom in a handler, and circles of such |
//! | [`watch`] | who is told of an actor's end |

pub mod actor;
pub mod actor_ref;
pub mod ask;
mod cell;
pub mod context;
pub mod dead_letters;
pub mod effects;
pub mod error;
mod failure;
mod life;
mod mailbox;
pub mod observe;
pub mod path;
pub mod props;
pub mod rng;
mod scheduler;
mod sync;
pub mod system;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
pub mod timers;
pub mod tree;
mod wait_graph;
pub mod watch;

pub use actor::Actor;
pub use actor_ref::{ActorRef, RemoteTarget};
pub use ask::{Ask, Asking, Reply, ReplyTo};
pub use context::Context;
pub use dead_letters::{DeadLetter, DeadLetterEvent, DeadLetterReason, DeadLetters};
pub use error::{AskError, SpawnError, TellError, Unsendable};
#[doc(hidden)]
pub use failure::describe_panic;
pub use path::ActorPath;
pub use props::{Props, Supervision};
pub use rng::Rng;
pub use system::{ActorSystem, Shutdown, SystemBuilder};
pub use time::Time;
pub use timers::TimerKey;
pub use tree::{ActorState, Tree, TreeActor};
pub use watch::{Ended, Terminated, Watcher, WatcherId, Watching};
