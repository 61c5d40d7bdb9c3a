//! Proves: what one node sends another arrives as promised, and nobody else reaches it.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod associations;
mod authority;
mod cuts;
mod ends;
mod hostile;
mod isolation;
mod lossy;
mod network;
mod nodes;
mod random;
mod references;
mod tls;
mod virtual_net;
mod watches;
