//! Proves: the PostgreSQL stores keep what they promise, whatever happens to processes and server.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod conforms;
mod local_server;
mod support;
