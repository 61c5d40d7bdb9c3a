//! Proves: shards have one home at a time, and planned moves lose nothing and keep order.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod clusters;
mod daemons;
mod delivery;
mod living;
mod nodes;
mod overdue;
mod passivation;
mod past;
mod protocol;
mod queries;
mod remembered;
mod resizing;
mod scenarios;
mod sim;
mod support;
mod waiting;
