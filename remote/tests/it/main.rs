//! Proves: what one node sends another arrives as promised, and nobody else reaches it.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod associations;
mod attacks;
mod authority;
mod compression;
mod credits;
mod cuts;
mod ends;
mod evolution;
mod full;
mod hostile;
mod isolation;
mod large;
mod lossy;
mod network;
mod nodes;
mod passing;
mod random;
mod references;
mod revocation;
mod rights;
mod rotation;
mod tls;
mod virtual_net;
mod watches;
