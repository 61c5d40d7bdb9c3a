//! Logic: the pure decisions of journals and entities; no file, no clock, no thread.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod exchange_tests;
pub(crate) mod inbox;
pub(crate) mod mark;
pub(crate) mod outbox;
pub(crate) mod sequence;
pub(crate) mod unsent;
