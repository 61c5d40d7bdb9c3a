//! Supervision: what happens to an actor that failed, alone or with its group.
//!
//! # One event, one decision
//! An `Err` and a panic are the same event, a [`Fault`]: in the factory, in a hook, in a handler, in
//! the function of a timer. What follows is decided where the actor was spawned: one [`Supervision`]
//! for all ([`crate::Props::on_failure`]), or one for each fault ([`crate::Props::decide`]).
//!
//! ```text
//!                                  +-- Resume ---> next message, same instance
//!                                  |
//!  fault --> decider --> history --+-- Restart --> restarting --> children end --> drop
//!                                  |                                                |
//!                                  |               factory --> started <-- (wait) --+
//!                                  |
//!                                  +-- Escalate -> the actor ends, its parent fails
//!                                  |               (in a group: it waits for the group)
//!                                  +-- Stop -----> the actor ends
//! ```
//!
//! # Parts
//! - [`strategy`]: what can be chosen, and what a decider sees.
//! - `history`: whether a limit is reached, and how long a back-off waits. Pure.
//! - `plan`: what one actor carries for all this; nothing at all if it was given by value and stops.
//! - [`group`]: actors that restart together. `member`: how a group tells them to.

pub mod group;
mod history;
mod member;
mod plan;
pub mod strategy;

pub use group::{Group, GroupBuilder, GroupFailure, GroupSignal, GroupStrategy};
pub use strategy::{Backoff, Fault, Supervision};

pub(crate) use history::Verdict;
pub(crate) use member::{Membership, Request};
pub(crate) use plan::{Factory, Plan, Strategy};
