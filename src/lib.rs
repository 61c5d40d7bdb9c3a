//! Otava: an actor cluster toolkit: typed actors, QUIC remoting, membership, sharding, event sourcing.
//!
//! A [`Node`] is a member of a cluster. It hosts actors, found by typed references that also work
//! across nodes, and entities: event-sourced state that is found by its id, wherever it lives, and
//! that moves when nodes come, go or fail.
//!
//! ```no_run
//! # use otava::prelude::*;
//! # #[derive(Deserialize, Serialize)]
//! # struct Deposit(u64, #[serde(with = "otava::wire")] ReplyTo<u64>);
//! # impl RemoteMessage for Deposit { const NAME: &'static str = "bank.Deposit"; }
//! # async fn run<Account: PersistentEntity<Command = Deposit>>() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder("bank", "node-1").data("/var/lib/bank").start().await?;
//! let accounts = node.entities::<Account>(EntityOptions::default())?;
//! node.join().await?;
//! let balance = accounts.entity("alice").ask(|reply_to| Deposit(5, reply_to)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Messages are an enum, or a trait that [`protocol`] makes one of. Then references have methods:
//!
//! ```
//! # use otava::prelude::*;
//! #[otava::protocol(id = "bank.account", remote)]
//! pub trait AccountApi {
//!     async fn deposit(&mut self, cents: u64) -> u64;
//!     async fn follow(&mut self, who: ActorRef<NoticeMsg>);
//! }
//!
//! #[otava::protocol(id = "bank.notice", remote)]
//! pub trait NoticeApi {
//!     async fn deposited(&mut self, cents: u64);
//! }
//!
//! async fn save(account: &EntityRef<AccountMsg>) -> Result<u64, AskError> {
//!     account.deposit(5).await
//! }
//!
//! struct Notices(u64);
//!
//! #[otava::actor]
//! impl NoticeApi for Notices {
//!     type Err = std::convert::Infallible;
//!
//!     async fn deposited(&mut self, cents: u64, _: &mut Context<Self>) -> Result<(), Self::Err> {
//!         self.0 += cents;
//!         Ok(())
//!     }
//! }
//! ```
//!
//! The whole program is `examples/account.rs`; everything at work, with processes that are killed, is
//! `examples/flights/`.
//!
//! # The map
//! | module or crate | decides or owns |
//! | --- | --- |
//! | [`Node`], `node` | all layers of one member: started in order, ended in the reverse order |
//! | [`Client`], `client` | the way to entities and actors from a process that is no member |
//! | [`PersistentEntity`], `entity` | event-sourced state that sharding places |
//! | `testkit`, behind the feature of that name | a cluster from a seed, and a checker of histories |
//! | [`Arrived`], `letters` | letters between entities, taken exactly once |
//! | [`ClusterProjection`], `projection` | reports that follow the events, spread over the nodes |
//! | [`JournalAllocationStore`], `store` | terms and epochs of shards and singletons, kept in the journal |
//! | [`JournalDeliveryQueue`], `queue` | what producers of reliable messages could not deliver yet, kept in the journal |
//! | [`JournalRememberStore`], `remember` | which entities live without messages, kept in the journal |
//! | [`otava_actor`], as `otava::actor` | actors in one process |
//! | [`otava_remote`] | references and messages between nodes |
//! | [`otava_cluster`] | who is a member; receptionist, singletons, topics, groups over the cluster |
//! | [`otava_sharding`] | where entities live |
//! | [`otava_persistence`] | what lasts |
//!
//! `docs/architecture.md` draws how they fit together.

mod client;
mod entity;
mod letters;
#[cfg(feature = "testkit")]
mod logic;
mod node;
pub mod prelude;
mod projection;
mod queue;
mod remember;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use client::{Client, ClientBuilder, ClientError, NoContact, Published};
pub use entity::{DurableEntity, DurableStartError, EntityOptions, Keys, PersistentEntity};
pub use letters::{Arrived, NoMessage};
pub use node::{Ended, Node, NodeBuilder, NodeError};
pub use projection::{ClusterProjection, ProjectionError};
pub use queue::JournalDeliveryQueue;
pub use remember::JournalRememberStore;
pub use store::JournalAllocationStore;

/// Actors in one process: everything that is not named here directly.
pub use otava_actor as actor;
#[doc(inline)]
pub use otava_actor::__macros::{otava_actor as actor, otava_protocol as protocol};
pub use otava_actor::protocol::{Protocol, Recipient};
pub use otava_actor::{
    Actor, ActorPath, ActorRef, ActorSystem, AskError, Backoff, BlockingActor, BlockingContext,
    Context, CoordinatedShutdown, DeadLetterReason, EventStream, Fault, Group, Listing, Pool,
    PoolHandle, Props, Receptionist, ReplyTo, RouteeGroup, Router, Routing, ServiceKey, SpawnError,
    Stash, StashFull, StreamEvent, Supervision, TellError, Terminated, Time,
};
#[cfg(feature = "srv")]
pub use otava_cluster::SrvDiscovery;
pub use otava_cluster::singleton::{SingletonConfig, SingletonContext};
pub use otava_cluster::{
    AppVersion, Cluster, ClusterConfig, ClusterEvent, ClusterGroup, ClusterListing,
    ClusterReceptionist, ClusterState, Discovery, Dissemination, DnsDiscovery, FileDiscovery,
    JoinError, Lease, Member, Refusal, SingletonProxy, Status, Strategy, Topic,
};
pub use otava_cluster::{delivery, replicated};
pub use otava_persistence::{
    DurableState, Effect, EventSourced, Journal, KeyStore, Letter, MemoryJournal, Options,
    Projection, ProjectionPlan, ProjectionStatus, SqliteConfig, SqliteJournal, StateEffect,
};
pub use otava_remote::{
    Compression, CredentialFiles, Credentials, Network, NodeId, PeerIdentity, QuicNetwork, Remote,
    RemoteConfig, RemoteMessage, Rights, VirtualNetwork, VirtualWorld, Who, certificates, wire,
};
pub use otava_sharding::{
    DaemonProcess, Entities, EntityClient, EntityRef, Passivation, Remember, ShardingConfig,
    WorkerContext,
};

/// What generated code names, so that a program needs no dependency but this crate.
#[doc(hidden)]
pub mod __private {
    pub use otava_actor as actor;
    pub use otava_remote as remote;
    pub use serde;
}
