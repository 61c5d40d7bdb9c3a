//! Projections: what is made of the events of many entities, kept up to date as they come: a report, a
//! search index, messages to another system.
//!
//! ```text
//!  journal --events of its slices--> instance --> handler --> results
//!                                       |                        |
//!                                       +--> offset              +--> results and offset, one
//!                                            (at least once)          transaction (exactly once)
//! ```
//!
//! A projection has a name, a query and a handler. Its 1,024 slices are divided among instances, which
//! may run on several nodes; an instance handles its events in order, remembers how far it is, backs
//! off when something fails, and shows what it is doing. How it decides is in `logic/projection.rs`.
//!
//! **Invariant:** an offset is saved when everything up to it was handled, never before.
//!
//! **Invariant:** with results in a transaction ([`TransactionalHandler`]) two runs never both commit an
//! event: a run takes its slices with a number that only grows, and what the store has counts, not what
//! the run believes.

mod builder;
mod driver;
mod handle;
mod handler;
pub mod metrics;
mod offsets;
mod options;
mod sink;

pub use builder::{Projection, ProjectionPlan, ProjectionStartError};
pub use handle::{ProjectionEnded, ProjectionHandle, ProjectionState, ProjectionStatus};
pub use handler::{
    BatchHandler, Envelope, Handler, ProjectionCommit, ProjectionRun, TransactionError,
    TransactionalHandler,
};
pub use offsets::{RunFenced, SliceOffsets};
pub use options::{OnPoison, ProjectionOptions};
