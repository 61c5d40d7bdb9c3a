//! Logic: the pure decisions of journals, entities and projections; no file, no clock, no thread.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod exchange_tests;
pub(crate) mod inbox;
pub(crate) mod mark;
pub(crate) mod outbox;
pub(crate) mod projection;
pub(crate) mod sequence;
pub(crate) mod slices;
pub(crate) mod tags;
pub(crate) mod unsent;
