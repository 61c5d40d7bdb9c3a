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
//! A newcomer begins with the book, `docs/book/actors.md`; what is promised, each promise with its
//! test, is in `docs/semantics.md`.
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | [`mod@actor`] | the trait that users implement |
//! | [`actor_ref`] | references, and the trait by which other nodes plug in |
//! | [`adapter`] | references that understand something else than their actor |
//! | [`ask`] | questions with a deadline, reply ports |
//! | [`blocking`] | actors that block, on threads of their own |
//! | `body` | an actor in the form in which it is now |
//! | `cell` | one actor as others see it: when it may run, its place in the tree |
//! | [`context`] | what an actor can do as itself |
//! | [`dead_letters`] | counting what was not delivered |
//! | [`effects`] | what one actor did, for tests |
//! | [`error`] | what telling, asking and spawning may answer |
//! | [`event_stream`] | publish and subscribe by type of event |
//! | `extensions` | what a system carries beside its actors |
//! | `failure` | one form for errors and panics |
//! | `family` | the living children of one parent |
//! | `life` | an actor from its first instance to its end: restarts, stop order |
//! | `mailbox` | what is accepted, in which order it is taken, who is woken |
//! | [`observe`] | spans, metrics, and what is in the log |
//! | [`path`] | names |
//! | `pool` | memory for activations and messages |
//! | [`props`] | recipes |
//! | [`mod@protocol`] | descriptions of messages, and what they can be sent to |
//! | [`receptionist`] | who offers which service |
//! | [`rng`] | the seeded generator |
//! | [`router`] | pools and groups, and who of them gets a message |
//! | `scheduler` | which runnable actor runs next, and where |
//! | `serving` | the short way of a message to its handler |
//! | [`shutdown`] | ending a program in phases |
//! | `slot` | the actor that a worker runs next |
//! | [`stash`] | messages put aside, and the line of those that come back |
//! | [`stream`] | streams whose items an actor handles |
//! | [`supervision`] | what happens to an actor that failed, alone or with its group |
//! | [`system`] | the root of the tree, its clock, its end |
//! | `testkit` | probes, spies, a runner for one actor (feature `testkit`) |
//! | [`time`] | the clock type |
//! | [`timers`] | keys of timers, and when their messages come |
//! | [`tree`] | a picture of the living actors |
//! | `wait_graph` | who waits for whom in a handler, and circles of such |
//! | [`watch`] | who is told of an actor's end |
//! | [`watchdog`] | actors that hold their threads are named, and others helped |

pub mod actor;
pub mod actor_ref;
pub mod adapter;
pub mod ask;
pub mod blocking;
mod body;
mod cell;
pub mod context;
pub mod dead_letters;
pub mod effects;
pub mod error;
pub mod event_stream;
mod extensions;
mod failure;
mod family;
mod late;
mod life;
mod mailbox;
#[cfg(all(test, otava_loom))]
mod models;
pub mod observe;
pub mod path;
mod pool;
pub mod props;
pub mod protocol;
pub mod receptionist;
pub mod rng;
pub mod router;
mod scheduler;
mod serving;
pub mod shutdown;
mod slot;
pub mod stash;
pub mod stream;
pub mod supervision;
mod sync;
pub mod system;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
pub mod timers;
mod top;
pub mod tree;
mod wait_graph;
pub mod watch;
pub mod watchdog;

pub use actor::Actor;
pub use actor_ref::{ActorRef, RemoteTarget};
pub use ask::{Ask, Asking, Reply, ReplyTo};
#[doc(hidden)]
pub use ask::{Asked, Went};
pub use blocking::{BlockingActor, BlockingContext};
pub use context::{Context, Pipe};
pub use dead_letters::{DeadLetter, DeadLetterEvent, DeadLetterReason, DeadLetters};
pub use error::{AskError, Refusal, SpawnError, TellError, Unsendable};
pub use event_stream::EventStream;
#[doc(hidden)]
pub use failure::describe_panic;
#[doc(hidden)]
pub use observe::mark::Question;
#[doc(hidden)]
pub use otava_actor_macros as __macros;
pub use otava_actor_macros::{actor, protocol};
pub use path::ActorPath;
pub use props::Props;
pub use receptionist::{Listing, Receptionist, ServiceKey};
pub use rng::Rng;
pub use router::{
    Pool, PoolHandle, Resizer, RouteeEnded, RouteeGroup, RouteeGroupHandle, Router, Routing,
};
pub use shutdown::CoordinatedShutdown;
pub use stash::{Stash, StashFull};
pub use stream::{StreamEvent, StreamId};
pub use supervision::{
    Backoff, Fault, Group, GroupBuilder, GroupFailure, GroupSignal, GroupStrategy, Supervision,
};
pub use system::{ActorSystem, Shutdown, SystemBuilder};
pub use time::Time;
pub use timers::TimerKey;
pub use tree::{ActorState, Tree, TreeActor};
pub use watch::{Ended, Terminated, Watcher, WatcherId, Watching};
pub use watchdog::Watchdog;

/// The book's chapter on actors: its programs compile, and run where they can.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/actors.md")]
mod book {}
