//! Proves: a whole cluster, in one process on virtual time, keeps its promises and replays from a seed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed test is meant to panic, and prints its seed"
)]

mod checks;
mod client;
mod counter;
mod delivery;
mod durable;
mod endings;
mod entities;
mod fencing;
mod fleet;
mod halting;
mod kit;
mod letters;
mod membership;
mod ontop;
mod projections;
mod random;
mod remember;
mod world;
