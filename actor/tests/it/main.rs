//! Proves: what `otava-actor` promises, through its public API. One module a theme.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod adapter;
mod ask;
mod ask_then;
mod fairness;
mod links;
mod mailbox;
mod receive_timeout;
mod stash;
mod stop;
mod stream;
mod supervision;
mod support;
mod system;
mod timers;
mod watch;
