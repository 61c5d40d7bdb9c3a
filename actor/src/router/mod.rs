//! Routers: one name for many actors, and the choice of who gets which message.
//!
//! A **pool** ([`Pool`]) makes its routees and keeps their number; a **group** ([`RouteeGroup`]) is given
//! references to actors that others made, and drops those that end. Both are reached through a
//! [`Router`], which chooses a routee where the sender runs: a message goes straight into the mailbox
//! of its routee, without a hop through an actor in between. [`Router::actor_ref`] is the same as an
//! ordinary [`crate::ActorRef`].
//!
//! ```
//! use otava_actor::{Actor, ActorSystem, Context, Pool, Props, ReplyTo, Routing};
//!
//! struct Squarer;
//! struct Square(u64, ReplyTo<u64>);
//!
//! impl Actor for Squarer {
//!     type Msg = Square;
//!     type Err = std::convert::Infallible;
//!     async fn handle(&mut self, Square(n, reply_to): Square, _: &mut Context<Self>) -> Result<(), Self::Err> {
//!         let _ = reply_to.send(n * n);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let system = ActorSystem::new("example");
//! let pool = Pool::new(4, || Props::new(|| Squarer)).routing(Routing::least_loaded());
//! let squarers = system.spawn_pool("squarers", pool)?;
//! assert_eq!(squarers.ask(|reply_to| Square(9, reply_to)).await?, 81);
//! squarers.resize(8).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A routee that cannot take the message
//! | routing | it is full | it has stopped |
//! | --- | --- | --- |
//! | round robin, random, least loaded | the next one is tried; `Full` if all are | the next one is tried |
//! | consistent hashing | `Full`: the messages of a key stay in order | the next one on the ring is tried, who is also the heir of the key |
//! | broadcast | it misses the message; `Full` if all do | it is left out |
//!
//! With [`Router::send`] the sender waits, where the table says `Full`, for room at the routee that
//! was chosen first. A router that has no living routee at the moment answers as a full one; one that
//! has ended answers `Stopped`. A routee that refuses counts that as a dead letter of its own, also
//! if the message then finds another one.
//!
//! A key that moves to another routee, because one came or went, may be handled there while earlier
//! messages of it still wait at the old one.

mod group;
mod handle;
mod hash;
mod owner;
mod pool;
mod resizer;
mod ring;
mod routing;
mod slots;

pub use group::{RouteeGroup, RouteeGroupHandle};
pub use handle::Router;
pub use hash::key_hash;
pub use pool::{Pool, PoolHandle};
pub use resizer::Resizer;
pub use routing::Routing;
pub use slots::RouteeEnded;
