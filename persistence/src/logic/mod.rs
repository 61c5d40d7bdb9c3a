//! Logic: the pure decisions of the embedded journal; no file, no clock, no thread.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod mark;
pub(crate) mod sequence;
pub(crate) mod tags;
