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
//! | [`AllocationStore`] | terms and claims: who may write |
//! | [`AllocationStrategy`] | which region gets which shard |
//! | [`ShardingConfig`] | settings |
//! | `wire` | what regions and coordinators of two nodes say to each other |
//! | `message` | the message type of a region |
//! | `logic/` | hash, buffers, region, coordinator, allocation: pure |
//! | `io/` | the region's actor, the entities of this node, the ways to other nodes |

mod client;
mod config;
mod delivery;
mod entities;
mod entity;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod io;
#[doc(hidden)]
pub mod logic;
mod message;
mod start;
mod store;
#[doc(hidden)]
pub mod wire;

pub use client::{EntityClient, client};
pub use config::ShardingConfig;
pub use entities::{Entities, EntityRef, LocalStats};
pub use entity::{ENTITY_ID_BYTES_MAX, EntityContext, FencedHandle};
pub use error::{HandOverError, StartError};
pub use logic::allocation::{AllocationStrategy, Hosting, LeastShards, Move};
pub use message::RegionMessage;
pub use start::Sharding;
pub use store::{AllocationStore, ClaimError, MemoryAllocationStore, StoreError};
