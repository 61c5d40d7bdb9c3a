//! Proves: nodes reach each other, and nobody else reaches them.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod authority;
mod network;
mod tls;
mod virtual_net;
