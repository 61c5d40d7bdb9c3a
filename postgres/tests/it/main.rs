//! Proves: the PostgreSQL stores keep what they promise, whatever happens to processes and server.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed test is meant to panic, and one that is skipped says why"
)]

mod batches;
mod child;
mod conforms;
mod crash;
mod fencing;
#[cfg(feature = "lease")]
mod lease;
mod local_server;
mod offsets;
mod opening;
mod projections;
mod readers;
mod support;
