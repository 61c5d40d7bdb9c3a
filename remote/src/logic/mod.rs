//! Logic: the decisions between two nodes, without tasks, sockets or clocks.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod callers;
pub(crate) mod handshake;
pub(crate) mod large_window;
pub(crate) mod lines;
pub(crate) mod runs;
pub(crate) mod slots;
pub(crate) mod system_lane;
