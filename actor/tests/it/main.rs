//! Proves: what `otava-actor` promises, through its public API. One module a theme.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod adapter;
mod ask;
mod ask_cycle;
mod ask_then;
mod blocking;
mod event_stream;
mod examples;
mod fairness;
mod links;
mod locks;
mod mailbox;
mod observe;
mod pool;
mod protocol;
mod receive_timeout;
mod receptionist;
mod router;
mod shutdown;
mod stash;
mod stop;
mod stream;
mod supervision;
mod supervision_backoff;
mod supervision_escalation;
mod supervision_group;
mod supervision_strategy;
mod supervision_support;
mod support;
mod system;
mod testkit;
mod timers;
mod watch;
mod watchdog;
