//! Logic: the pure decisions of the PostgreSQL stores; no connection, no clock, no task.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod batch;
pub(crate) mod columns;
pub(crate) mod limits;
pub(crate) mod migrations;
pub(crate) mod pace;
