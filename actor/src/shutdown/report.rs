//! Report: why a coordinated shutdown ran, and how each of its phases went.

use crate::path::ActorPath;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a program ends.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// Something else, in words; for other layers and for programs.
    Other(Cow<'static, str>),
    /// The program asked for it.
    Requested,
    /// A signal came, for example `SIGTERM`.
    Signal(&'static str),
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(why) => f.write_str(why),
            Self::Requested => f.write_str("requested"),
            Self::Signal(name) => f.write_str(name),
        }
    }
}

/// How a coordinated shutdown went. All who asked for it get the same.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The reason given by the one who came first.
    pub reason: ShutdownReason,
    /// The phases in the order in which they ran.
    pub phases: Vec<PhaseReport>,
    /// The actors that did not end within the limit of their system.
    pub blocked: Vec<ActorPath>,
    /// The run came to its end. If not, the runtime went away under it.
    pub finished: bool,
}

impl ShutdownReport {
    pub(super) fn new(reason: ShutdownReason) -> Self {
        Self {
            reason,
            phases: Vec::new(),
            blocked: Vec::new(),
            finished: false,
        }
    }

    /// Whether every phase ran, no task failed, and all actors ended in time.
    pub fn is_clean(&self) -> bool {
        let clean = |phase: &PhaseReport| !phase.skipped && phase.failures.is_empty();
        self.finished && self.blocked.is_empty() && self.phases.iter().all(clean)
    }

    /// All failures, with the phase of each.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &TaskFailure)> {
        self.phases.iter().flat_map(|phase| {
            let name = phase.name.as_str();
            phase.failures.iter().map(move |failure| (name, failure))
        })
    }
}

/// How one phase went.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PhaseReport {
    /// The phase.
    pub name: String,
    /// What went wrong, in the order in which the tasks were added.
    pub failures: Vec<TaskFailure>,
    /// An earlier phase aborted the run: nothing of this one was done.
    pub skipped: bool,
    /// How long it took.
    pub took: Duration,
}

/// A task that did not do what it should.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TaskFailure {
    /// The name under which the task was added.
    pub task: String,
    /// What happened to it.
    pub cause: TaskFailureCause,
}

/// What happened to a task.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TaskFailureCause {
    /// It returned this error.
    Failed(String),
    /// It panicked with this text.
    Panicked(String),
    /// It was not done within the limit of its phase, and was given up.
    TimedOut(Duration),
}

impl fmt::Display for TaskFailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.write_str(error),
            Self::Panicked(panic) => write!(f, "panic: {panic}"),
            Self::TimedOut(limit) => write!(f, "not done within {limit:?}"),
        }
    }
}
