//! Logic: the protocols of membership as pure state machines; time, randomness and messages come in.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod convergence;
pub mod deadlines;
pub mod delivery;
pub mod digest;
pub mod door;
pub mod downing;
pub mod entering;
pub mod gossip;
pub mod graveyard;
pub mod knocking;
pub mod leases;
pub mod member;
pub mod membership;
pub mod message;
pub mod monitor;
pub mod phi;
pub mod profile;
pub mod reachability;
pub mod receptionist;
pub mod replicated;
pub mod ring;
pub mod rounds;
pub mod settling;
pub mod singleton;
pub mod stability;
pub mod state;
pub mod statement;
pub mod topic;
pub mod view;
