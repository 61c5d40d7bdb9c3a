//! Proves: what `otava-actor` promises, through its public API. One module a theme.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod ask;
mod fairness;
mod locks;
mod mailbox;
mod protocol;
mod stop;
mod supervision;
mod supervision_backoff;
mod supervision_escalation;
mod supervision_group;
mod supervision_strategy;
mod supervision_support;
mod support;
mod system;
mod timers;
mod watch;
