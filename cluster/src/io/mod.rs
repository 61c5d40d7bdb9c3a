//! Io: the tasks that drive `logic/` and carry statements; they decide nothing.

pub(crate) mod chitchat;
pub(crate) mod cluster;
mod dissemination;
mod driver;
pub(crate) mod durable_file;
mod finding;
mod roles;
mod seeded;
#[cfg(feature = "srv")]
pub(crate) mod srv;
