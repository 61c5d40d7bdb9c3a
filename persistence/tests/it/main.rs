//! Proves: stores keep what they acknowledged, whatever ends the process or harms the file.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod actors;
mod batches;
mod child;
mod conforms;
mod crash;
mod damage;
mod disk;
mod fixture;
mod fsync;
mod kept;
mod letters;
mod opening;
mod projections;
mod projections_exact;
mod shared;
mod support;
