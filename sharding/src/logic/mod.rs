//! Logic: where shards live and how they move, as state machines. Pure: no clock, no IO.
//!
//! Not an API: it is public so that simulations can drive it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod allocation;
pub mod buffers;
pub mod coordinator;
pub mod epoch;
pub mod exchange;
pub mod hash;
pub mod layout;
pub mod lives;
pub mod load;
pub mod name;
pub mod pace;
pub mod passivation;
pub mod region;
pub mod reign;
pub mod remembering;
pub mod view;
