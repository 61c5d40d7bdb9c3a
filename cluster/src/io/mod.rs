//! Io: the tasks that drive `logic/` and carry statements; they decide nothing.

mod chitchat;
pub(crate) mod cluster;
mod dissemination;
mod driver;
mod finding;
mod seeded;
