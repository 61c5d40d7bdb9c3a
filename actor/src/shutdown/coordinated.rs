//! CoordinatedShutdown: holds the tasks of each phase and runs them, once.

use super::phases::{ACTOR_SYSTEM_TERMINATE, Phase, PhaseError, default_phases, in_order};
use super::report::{PhaseReport, ShutdownReason, ShutdownReport, TaskFailure, TaskFailureCause};
use crate::failure::{Failure, drop_guarded, guarded, guarded_call, in_words};
use crate::sync::lock;
use crate::system::ActorSystem;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Ends a program in phases, once. A handle, cheap to clone; see [`crate::shutdown`].
///
/// It counts as a handle on its system: as long as one exists the system does not end by itself.
#[derive(Clone)]
pub struct CoordinatedShutdown {
    inner: Arc<Inner>,
}

/// What all handles share.
struct Inner {
    system: ActorSystem,
    /// In the order in which they run.
    phases: Vec<Phase>,
    state: Mutex<State>,
    /// Set once, by the end of the run.
    report: watch::Sender<Option<ShutdownReport>>,
}

#[derive(Default)]
struct State {
    started: bool,
    /// How many phases have begun.
    begun: usize,
    tasks: BTreeMap<TaskId, Task>,
}

struct Task {
    /// The place of its phase in the order.
    phase: usize,
    name: String,
    work: Work,
}

type Work =
    Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), Failure<String>>> + Send>> + Send>;

/// Names a task, to take it back ([`CoordinatedShutdown::remove_task`]).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TaskId(u64);

/// Why a task was not added.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AddTaskError {
    /// The phase has begun, or is over, or the run was aborted before it.
    #[error("the task {task:?} comes too late for the phase {phase:?}")]
    TooLate {
        /// The phase.
        phase: String,
        /// The task.
        task: String,
    },
    /// There is no such phase.
    #[error("there is no phase {phase:?} for the task {task:?}")]
    UnknownPhase {
        /// The phase.
        phase: String,
        /// The task.
        task: String,
    },
}

impl CoordinatedShutdown {
    /// A shutdown of `system` with the default phases.
    pub fn new(system: &ActorSystem) -> Self {
        let builder = Self::builder(system);
        builder.build().expect("the default phases are in order")
    }

    /// Sets up a shutdown of `system` with phases of your own among the default ones.
    pub fn builder(system: &ActorSystem) -> CoordinatedShutdownBuilder {
        CoordinatedShutdownBuilder {
            system: system.clone(),
            phases: default_phases(),
            unknown: None,
        }
    }

    /// Adds a task to a phase. It runs beside the other tasks of that phase, on the runtime of the
    /// system, if there is a shutdown. Also while one runs, as long as the phase has not begun.
    ///
    /// # Errors
    /// [`AddTaskError::UnknownPhase`], [`AddTaskError::TooLate`]; the task is dropped.
    pub fn add_task<F, E>(
        &self,
        phase: &str,
        name: impl Into<String>,
        task: impl FnOnce() -> F + Send + 'static,
    ) -> Result<TaskId, AddTaskError>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let (phase, name) = (phase.to_owned(), name.into());
        let phases = &self.inner.phases;
        let Some(place) = phases.iter().position(|known| known.name == phase) else {
            return Err(AddTaskError::UnknownPhase { phase, task: name });
        };
        let work: Work = Box::new(|| {
            let task = guarded(task());
            Box::pin(async { in_words(task.await) })
        });
        let mut state = lock(&self.inner.state);
        if state.begun > place {
            drop(state);
            drop_guarded(work);
            return Err(AddTaskError::TooLate { phase, task: name });
        }
        let id = TaskId(self.inner.system.core().next_number());
        let task = Task {
            phase: place,
            name,
            work,
        };
        state.tasks.insert(id, task);
        Ok(id)
    }

    /// Takes a task back; `false` if its phase has begun, or it was taken back before.
    pub fn remove_task(&self, task: TaskId) -> bool {
        let removed = lock(&self.inner.state).tasks.remove(&task);
        let found = removed.is_some();
        drop_guarded(removed);
        found
    }

    /// The names of the phases, in the order in which they run.
    pub fn phases(&self) -> impl Iterator<Item = &str> {
        self.inner.phases.iter().map(|phase| phase.name.as_ref())
    }

    /// Begins the shutdown, unless it has begun; says whether it was this call. It runs on the
    /// runtime of the system, whatever becomes of the caller.
    pub fn start(&self, reason: ShutdownReason) -> bool {
        if std::mem::replace(&mut lock(&self.inner.state).started, true) {
            return false;
        }
        tracing::info!(system = self.inner.system.name(), %reason, "a coordinated shutdown begins");
        let run = Run {
            inner: self.inner.clone(),
            report: ShutdownReport::new(reason),
        };
        drop(self.inner.system.handle().spawn(run.drive()));
        true
    }

    /// Begins the shutdown, unless it has begun, and waits until it is over. Everyone who calls this
    /// gets the same report.
    ///
    /// Not to be awaited in a handler of the same system: it would wait for itself. There
    /// [`CoordinatedShutdown::start`] is right.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits, but the shutdown goes on.
    pub async fn run(&self, reason: ShutdownReason) -> ShutdownReport {
        self.start(reason);
        self.finished().await
    }

    /// Waits until a shutdown that anyone began is over.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn finished(&self) -> ShutdownReport {
        let mut report = self.inner.report.subscribe();
        let over = report.wait_for(Option::is_some).await;
        let report = over.ok().and_then(|report| report.clone());
        report.expect("this handle keeps the report alive, and it is waited for")
    }

    pub(super) fn system(&self) -> &ActorSystem {
        &self.inner.system
    }
}

impl fmt::Debug for CoordinatedShutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatedShutdown")
            .field("system", &self.inner.system)
            .field("started", &lock(&self.inner.state).started)
            .finish_non_exhaustive()
    }
}

/// Phases of a shutdown that is about to be set up ([`CoordinatedShutdown::builder`]).
#[derive(Debug)]
#[must_use]
pub struct CoordinatedShutdownBuilder {
    system: ActorSystem,
    phases: Vec<Phase>,
    unknown: Option<String>,
}

impl CoordinatedShutdownBuilder {
    /// Adds a phase.
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phases.push(phase);
        self
    }

    /// Changes a phase that is there, for example its limit:
    /// `.configure(SERVICE_STOP, |phase| phase.within(Duration::from_secs(30)))`.
    pub fn configure(mut self, name: &str, change: impl FnOnce(Phase) -> Phase) -> Self {
        match self.phases.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => *phase = change(phase.clone()),
            None => self.unknown = Some(name.to_owned()),
        }
        self
    }

    /// Puts the phases in order.
    ///
    /// # Errors
    /// [`PhaseError`] says which wishes cannot be kept.
    pub fn build(self) -> Result<CoordinatedShutdown, PhaseError> {
        if let Some(phase) = self.unknown {
            return Err(PhaseError::Unknown { phase });
        }
        let inner = Inner {
            system: self.system,
            phases: in_order(self.phases)?,
            state: Mutex::default(),
            report: watch::Sender::new(None),
        };
        Ok(CoordinatedShutdown {
            inner: Arc::new(inner),
        })
    }
}

/// One run. Its end publishes the report, also if that end is the runtime's.
struct Run {
    inner: Arc<Inner>,
    report: ShutdownReport,
}

impl Run {
    async fn drive(mut self) {
        let inner = self.inner.clone();
        let mut aborted = false;
        for (place, phase) in inner.phases.iter().enumerate() {
            let tasks = inner.begin(place);
            let mut report = PhaseReport {
                name: phase.name.clone().into_owned(),
                failures: Vec::new(),
                skipped: aborted,
                took: Duration::ZERO,
            };
            if aborted {
                tasks.into_iter().for_each(drop_guarded);
                self.report.phases.push(report);
                continue;
            }
            let begun = Instant::now();
            report.failures = run_tasks(&inner.system, phase, tasks).await;
            aborted = phase.aborts && !report.failures.is_empty();
            if !aborted && phase.name == ACTOR_SYSTEM_TERMINATE {
                self.report.blocked = inner.system.shutdown().await.blocked;
            }
            report.took = begun.elapsed();
            tracing::info!(phase = %phase.name, took = ?report.took, "a shutdown phase is over");
            if aborted {
                tracing::error!(phase = %phase.name, "the coordinated shutdown is aborted");
            }
            self.report.phases.push(report);
        }
        self.report.finished = true;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let reason = ShutdownReason::Requested;
        let report = std::mem::replace(&mut self.report, ShutdownReport::new(reason));
        self.inner.report.send_replace(Some(report));
    }
}

impl Inner {
    /// Takes the tasks of the phase at `place`, in the order in which they were added. It takes no
    /// more from now on.
    fn begin(&self, place: usize) -> Vec<Task> {
        let mut state = lock(&self.state);
        state.begun = place + 1;
        let own: Vec<TaskId> = state
            .tasks
            .iter()
            .filter(|(_, task)| task.phase == place)
            .map(|(&id, _)| id)
            .collect();
        let tasks = own.iter().filter_map(|id| state.tasks.remove(id));
        tasks.collect()
    }
}

/// Runs the tasks of one phase side by side, and returns what went wrong.
async fn run_tasks(system: &ActorSystem, phase: &Phase, tasks: Vec<Task>) -> Vec<TaskFailure> {
    let mut running = JoinSet::new();
    let mut pending = BTreeMap::new();
    let deadline = Instant::now().checked_add(phase.within);
    let deadline = deadline.unwrap_or_else(crate::time::far_away);
    for (place, task) in tasks.into_iter().enumerate() {
        pending.insert(place, task.name);
        let work = task.work;
        let run = async move {
            let result = match guarded_call(work) {
                Ok(future) => future.await,
                Err(failure) => Err(failure.widen()),
            };
            (place, result)
        };
        running.spawn_on(run, system.handle());
    }
    let mut failures = BTreeMap::new();
    let mut fail = |place: usize, task: String, cause: TaskFailureCause| {
        tracing::warn!(phase = %phase.name, task, %cause, "a shutdown task failed");
        failures.insert(place, TaskFailure { task, cause });
    };
    let timed_out = loop {
        match tokio::time::timeout_at(deadline, running.join_next()).await {
            Ok(Some(Ok((place, result)))) => {
                let name = pending.remove(&place).unwrap_or_default();
                match result {
                    Ok(()) => {}
                    Err(Failure::Error(error)) => {
                        fail(place, name, TaskFailureCause::Failed(error));
                    }
                    Err(Failure::Panic(panic)) => {
                        fail(place, name, TaskFailureCause::Panicked(panic));
                    }
                    // Of actors only.
                    Err(Failure::Child { .. } | Failure::Linked { .. }) => {}
                }
            }
            // The task panicked where it is not guarded: it is still pending, see below.
            Ok(Some(Err(_))) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    for (place, name) in pending {
        let cause = match timed_out {
            true => TaskFailureCause::TimedOut(phase.within),
            false => TaskFailureCause::Panicked("while the future was dropped".to_owned()),
        };
        fail(place, name, cause);
    }
    // Nobody waits for those that are given up: one may block its thread.
    running.abort_all();
    running.detach_all();
    failures.into_values().collect()
}
