//! Proves: the whole stack holds with real processes, on loopback and between hosts of their own.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod cluster;
#[cfg(feature = "cli")]
mod command;
mod example;
mod flights_parts;
#[cfg(target_os = "linux")]
mod namespaces;
mod security;
