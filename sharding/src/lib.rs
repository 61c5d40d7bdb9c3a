//! Sharding: entities by id, each an actor on one node of the cluster at a time.
//!
//! An entity is found by its id, wherever it lives. Ids are spread over shards, shards over the
//! nodes; when nodes come, go or fail, shards move. A planned move loses no message and keeps order.
//! Each allocation of a shard has an epoch, claimed in a store before the shard's first entity
//! starts, so that the store can refuse whoever writes by an older one.
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | [`Sharding`] | how a kind begins on a node |
//! | [`Entities`], [`EntityRef`] | reaching entities from a member |
//! | [`EntityClient`] | reaching entities from a process that is no member |
//! | `delivery` | messages to entities that are delivered until they were handled ([`Sharding::start_reliable`]) |
//! | [`EntityContext`], [`FencedHandle`] | what an entity knows of its allocation |
//! | [`Passivation`], [`Remember`] | which entities stop without need, and which live without messages |
//! | [`DaemonProcess`] | a fixed number of workers, spread over the members |
//! | [`RememberStore`] | who is remembered, outside of the nodes |
//! | [`AllocationStore`] | terms and claims: who may write |
//! | [`AllocationStrategy`], [`Placement`] | which region gets which shard |
//! | [`ShardingConfig`] | settings |
//! | `wire` | what regions and coordinators of two nodes say to each other |
//! | `message`, `query` | the message type of a region, and what it answers about what it has |
//! | `refs` | references to entities inside messages |
//! | `logic/` | hash, buffers, region, coordinator, allocation, lives of entities: pure |
//! | `io/` | the region's actor, the entities of this node, the ways to other nodes |

mod client;
mod config;
mod daemon;
mod delivery;
mod entities;
mod entity;
mod entity_ref;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod io;
#[doc(hidden)]
pub mod logic;
mod message;
mod proxy;
mod query;
mod refs;
mod remember;
mod start;
mod store;
#[doc(hidden)]
pub mod wire;

pub use client::{EntityClient, client};
pub use config::ShardingConfig;
pub use daemon::{DaemonProcess, WorkerContext};
pub use entities::{Entities, HomeChanges, LocalStats};
pub use entity::{ENTITY_ID_BYTES_MAX, EntityContext, FencedHandle, Memory, Passivate};
pub use entity_ref::EntityRef;
pub use error::{HandOverError, ResizeError, StartError};
pub use logic::allocation::{
    AllocationStrategy, ConsistentHashing, ExternalAllocation, Hosting, LeastLoad, LeastShards,
    Move, Placement, RoundLimit,
};
pub use logic::passivation::Passivation;
pub use message::RegionMessage;
pub use query::{EntityPage, HomeChange, KindStats, NodeStats, QueryError, ShardStats};
pub use remember::{
    MemoryRememberStore, Remember, RememberError, RememberStore, RememberedPage, RememberedShard,
    entity_hash,
};
pub use start::Sharding;
pub use store::{AllocationStore, ClaimError, MemoryAllocationStore, StoreError};

/// The programs of `docs/book/sharding.md`, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/sharding.md")]
mod book {}

/// The programs of `docs/book/sharding-placement.md`, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/sharding-placement.md")]
mod placement {}
