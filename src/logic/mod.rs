//! Logic: what the test kit concludes from what was seen. Pure: no clock, no IO.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod diagnosis;
pub(crate) mod linear;
