//! Proves: the whole stack holds with real processes on loopback.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod cluster;
#[cfg(feature = "cli")]
mod command;
mod example;
mod flights_parts;
mod security;
