//! Proves: members agree on who belongs to the cluster, and no two parts of it ever both go on.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod checkers;
mod clusters;
mod defaults;
mod delivery;
mod isolation;
mod life;
mod ontop;
mod receptionist;
mod replicated;
mod roles;
mod routers;
mod scale;
mod scenarios;
mod script;
mod simulation;
mod singleton;
mod singleton_lease;
mod soak;
mod splits;
mod topic;
mod weakly_up;
mod world;
