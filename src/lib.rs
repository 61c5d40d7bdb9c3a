//! Otava: an actor cluster toolkit: typed actors, QUIC remoting, membership, sharding, event sourcing.
//!
//! A [`Node`] is a member of a cluster. It hosts actors, found by typed references that also work
//! across nodes, and entities: event-sourced state that is found by its id, wherever it lives, and
//! that moves when nodes come, go or fail.
//!
//! ```no_run
//! use otava::prelude::*;
//!
//! #[derive(Default)]
//! struct Account(u64);
//!
//! #[derive(Deserialize, Serialize)]
//! enum Command {
//!     Deposit(u64, #[serde(with = "otava::wire")] ReplyTo<u64>),
//! }
//!
//! impl RemoteMessage for Command {
//!     const NAME: &'static str = "bank.Command";
//! }
//!
//! impl EventSourced for Account {
//!     type Command = Command;
//!     type Event = u64;
//!     type Snapshot = ();
//!     const EVENT_TAG: &'static str = "bank.Deposited";
//!     const EVENT_VERSION: u16 = 1;
//!
//!     fn handle(&self, Command::Deposit(amount, reply_to): Command) -> Effect<Self> {
//!         Effect::persist(amount).reply_with(reply_to, |account: &Self| account.0)
//!     }
//!
//!     fn apply(&mut self, amount: &u64) {
//!         self.0 += amount;
//!     }
//! }
//!
//! impl PersistentEntity for Account {
//!     const KIND: &'static str = "account";
//!
//!     fn create(_id: &str) -> Self {
//!         Self::default()
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let node = Node::builder("bank", "node-1").data("/tmp/bank").start().await?;
//!     let accounts = node.entities::<Account>(EntityOptions::default())?;
//!     node.join().await?;
//!     let balance = accounts.entity("alice").ask(|r| Command::Deposit(5, r)).await?;
//!     println!("durable: {balance}");
//!     node.leave().await;
//!     Ok(())
//! }
//! ```
//!
//! # The map
//! | module or crate | decides or owns |
//! | --- | --- |
//! | [`Node`], `node` | all layers of one member: started in order, ended in the reverse order |
//! | [`Client`], `client` | the way to entities from a process that is no member |
//! | [`PersistentEntity`], `entity` | event-sourced state that sharding places |
//! | [`JournalAllocationStore`], `store` | terms and epochs of shards, kept in the journal |
//! | [`otava_actor`] | actors in one process |
//! | [`otava_remote`] | references and messages between nodes |
//! | [`otava_cluster`] | who is a member |
//! | [`otava_sharding`] | where entities live |
//! | [`otava_persistence`] | what lasts |
//!
//! `docs/architecture.md` draws how they fit together.

mod client;
mod entity;
mod node;
pub mod prelude;
mod store;

pub use client::{Client, ClientError};
pub use entity::{EntityOptions, PersistentEntity};
pub use node::{Ended, Node, NodeBuilder, NodeError};
pub use store::JournalAllocationStore;

pub use otava_actor::{
    Actor, ActorPath, ActorRef, ActorSystem, AskError, Context, DeadLetterReason, Props, ReplyTo,
    SpawnError, Supervision, TellError, Terminated, Time,
};
pub use otava_cluster::{
    Cluster, ClusterConfig, ClusterEvent, ClusterState, Dissemination, JoinError, Member, Status,
};
pub use otava_persistence::{
    Effect, EventSourced, Journal, MemoryJournal, Options, SqliteConfig, SqliteJournal,
};
pub use otava_remote::{
    Credentials, Network, NodeId, QuicNetwork, Remote, RemoteConfig, RemoteMessage, VirtualNetwork,
    VirtualWorld, wire,
};
pub use otava_sharding::{Entities, EntityClient, EntityRef, ShardingConfig};
