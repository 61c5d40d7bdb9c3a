//! Proves: what `otava-actor` promises, through its public API. One module a theme.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod ask;
mod ask_cycle;
mod fairness;
mod mailbox;
mod observe;
mod stop;
mod supervision;
mod support;
mod system;
mod testkit;
mod timers;
mod watch;
