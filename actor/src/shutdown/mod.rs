//! Coordinated shutdown: ending a program step by step, in phases with names and time limits.
//!
//! Phases run one after the other, the tasks of a phase side by side. The last phase shuts the actor
//! system down. Other layers put their own phases in between (leaving a cluster belongs behind
//! [`SERVICE_STOP`] and before [`BEFORE_ACTOR_SYSTEM_TERMINATE`]).
//!
//! ```
//! use otava_actor::ActorSystem;
//! use otava_actor::shutdown::{CoordinatedShutdown, Phase, SERVICE_STOP, SERVICE_UNBIND, ShutdownReason};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let system = ActorSystem::new("example");
//! let shutdown = CoordinatedShutdown::builder(&system)
//!     .phase(Phase::new("flush-orders").after(SERVICE_STOP).within(Duration::from_secs(20)))
//!     .build()?;
//! shutdown.add_task(SERVICE_UNBIND, "close the door", async || Ok::<(), std::io::Error>(()))?;
//! shutdown.add_task("flush-orders", "write what is left", async || Ok::<(), std::io::Error>(()))?;
//! shutdown.on_signals()?;
//! # shutdown.start(ShutdownReason::Requested);
//! // A real program ends on SIGTERM, or with `shutdown.run(..)`.
//! let report = shutdown.finished().await;
//! assert!(report.is_clean(), "{report:?}");
//! # Ok(())
//! # }
//! ```

mod coordinated;
mod phases;
mod report;
mod signals;

pub use coordinated::{AddTaskError, CoordinatedShutdown, CoordinatedShutdownBuilder, TaskId};
pub use phases::{
    ACTOR_SYSTEM_TERMINATE, BEFORE_ACTOR_SYSTEM_TERMINATE, BEFORE_SERVICE_UNBIND, Phase,
    PhaseError, SERVICE_REQUESTS_DONE, SERVICE_STOP, SERVICE_UNBIND,
};
pub use report::{PhaseReport, ShutdownReason, ShutdownReport, TaskFailure, TaskFailureCause};
