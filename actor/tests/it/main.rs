//! Proves: what `otava-actor` promises, through its public API. One module a theme.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod ask;
mod blocking;
mod event_stream;
mod fairness;
mod mailbox;
mod pool;
mod receptionist;
mod router;
mod shutdown;
mod stop;
mod supervision;
mod support;
mod system;
mod timers;
mod watch;
