//! Proves: shards have one home at a time, and planned moves lose nothing and keep order.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod clusters;
mod delivery;
mod nodes;
mod protocol;
mod scenarios;
mod sim;
mod support;
