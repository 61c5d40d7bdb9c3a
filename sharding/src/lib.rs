//! Sharding: entities by id, each on one node of the cluster at a time.

#[doc(hidden)]
pub mod logic;
#[doc(hidden)]
pub mod wire;
