//! Handle: how a running projection is seen, paused, begun again and ended.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// What one instance of a projection is doing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[non_exhaustive]
pub enum ProjectionState {
    /// It waits before it tries again what has failed.
    BackingOff,
    /// It has ended, by its rules, after a failure: [`ProjectionStatus::last_error`].
    Failed,
    /// It has ended since another run has its slices.
    Fenced,
    /// Its handler is at work, or its offset is being saved.
    Handling,
    /// It was paused.
    Paused,
    /// It reads events.
    Reading,
    /// It finds out where to go on.
    #[default]
    Starting,
    /// It was ended.
    Stopped,
    /// There is nothing to handle: it waits for the next event.
    Waiting,
}

impl ProjectionState {
    /// Whether it is over.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Failed | Self::Fenced | Self::Stopped)
    }
}

/// How far one instance of a projection is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its first and last slice.
    pub slices: RangeInclusive<u16>,
    /// What it is doing.
    pub state: ProjectionState,
    /// Everything up to this position is handled, or was passed over.
    pub offset: u64,
    /// The offset that is saved: where it would go on after a crash.
    pub saved: u64,
    /// The newest position of the store that it has heard of.
    pub newest: u64,
    /// Events that were handled since it was started.
    pub handled: u64,
    /// Events that were passed over since they could not be handled ([`crate::OnPoison::Skip`]).
    pub skipped: u64,
    /// Failures of the handler and of stores since it was started.
    pub failures: u64,
    /// When the event that was handled last was written: milliseconds since 1970.
    pub last_event_at_ms: Option<u64>,
    /// What went wrong last, also if it went well since then.
    pub last_error: Option<Arc<str>>,
}

impl ProjectionStatus {
    pub(super) fn new((first, last): (u16, u16)) -> Self {
        Self {
            slices: first..=last,
            state: ProjectionState::Starting,
            offset: 0,
            saved: 0,
            newest: 0,
            handled: 0,
            skipped: 0,
            failures: 0,
            last_event_at_ms: None,
            last_error: None,
        }
    }

    /// How many positions it is behind; many of them may be events that it does not want.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.newest.saturating_sub(self.offset)
    }

    /// How old the event is that was handled last, in milliseconds.
    #[must_use]
    pub fn last_event_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.last_event_at_ms.map(|at| now_ms.saturating_sub(at))
    }
}

/// The projection has ended, or does so before it has done what was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the projection has ended")]
pub struct ProjectionEnded;

pub(super) enum Command {
    Pause(oneshot::Sender<()>),
    RestartFrom(u64, oneshot::Sender<()>),
    Resume,
    Stop,
}

pub(super) struct Instance {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) task: AbortHandle,
}

/// A projection that runs in this process: all its instances, or one. Clones are the same.
///
/// When the last clone is dropped, the projection stops as by [`Self::stop`], unawaited.
#[derive(Clone)]
#[must_use = "the projection stops when its handle is dropped"]
pub struct ProjectionHandle {
    pub(super) name: Arc<str>,
    pub(super) instances: Arc<[Instance]>,
    pub(super) statuses: watch::Receiver<Vec<ProjectionStatus>>,
}

impl fmt::Debug for ProjectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ProjectionHandle");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}

impl ProjectionHandle {
    /// The name of the projection.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What each instance is doing, in the order of their slices.
    #[must_use]
    pub fn statuses(&self) -> Vec<ProjectionStatus> {
        self.statuses.borrow().clone()
    }

    /// The same, to be followed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<ProjectionStatus>> {
        self.statuses.clone()
    }

    /// Waits until every event up to `position` is handled, for example the one of
    /// [`crate::Appended::position`]: what was written can then be read in the results.
    ///
    /// # Errors
    /// [`ProjectionEnded`] when an instance has ended before.
    ///
    /// # Cancel safety
    /// It only waits.
    pub async fn caught_up_with(&self, position: u64) -> Result<(), ProjectionEnded> {
        let mut statuses = self.statuses.clone();
        let there = |status: &ProjectionStatus| status.offset >= position;
        let known =
            |all: &Vec<ProjectionStatus>| all.iter().all(|one| there(one) || one.state.has_ended());
        let all = statuses
            .wait_for(known)
            .await
            .map_err(|_| ProjectionEnded)?;
        if all.iter().all(there) {
            Ok(())
        } else {
            Err(ProjectionEnded)
        }
    }

    /// Pauses it. When this returns, no event is being handled, and none will be.
    ///
    /// Pause and back again hold for this handle's instances, and until the process ends.
    ///
    /// # Errors
    /// [`ProjectionEnded`] when an instance has ended.
    ///
    /// # Cancel safety
    /// What was asked for is done all the same.
    pub async fn pause(&self) -> Result<(), ProjectionEnded> {
        self.ask_all(Command::Pause).await
    }

    /// Lets it go on after a pause; one that backs off tries again at once.
    ///
    /// # Errors
    /// [`ProjectionEnded`] when an instance has ended.
    ///
    /// # Cancel safety
    /// If it is dropped before it returns, some instances may not have been told.
    pub async fn resume(&self) -> Result<(), ProjectionEnded> {
        for instance in self.instances.iter() {
            let told = instance.commands.send(Command::Resume).await;
            told.map_err(|_| ProjectionEnded)?;
        }
        Ok(())
    }

    /// Begins again behind `offset`; 0 means from the first event on. When this returns, the offset
    /// is saved. A projection that is paused stays so.
    ///
    /// The results are the user's matter: where events must not count twice, pause, clear the
    /// results, restart, resume.
    ///
    /// # Errors
    /// [`ProjectionEnded`] when an instance has ended.
    ///
    /// # Cancel safety
    /// As [`Self::resume`].
    pub async fn restart_from(&self, offset: u64) -> Result<(), ProjectionEnded> {
        self.ask_all(|done| Command::RestartFrom(offset, done))
            .await
    }

    /// Ends it, and waits for that: a handler that is at work is let finish, the offset is saved.
    ///
    /// # Cancel safety
    /// If it is dropped, the projection ends all the same once all clones of the handle are gone.
    pub async fn stop(&self) {
        for instance in self.instances.iter() {
            // One that has ended is not there to hear it.
            drop(instance.commands.send(Command::Stop).await);
        }
        self.ended().await;
    }

    /// Waits until all instances have ended, for whatever reason: [`ProjectionStatus::state`].
    ///
    /// # Cancel safety
    /// It only waits.
    pub async fn ended(&self) {
        let mut statuses = self.statuses.clone();
        let over = |all: &Vec<ProjectionStatus>| all.iter().all(|one| one.state.has_ended());
        // An error means that all are gone.
        drop(statuses.wait_for(over).await);
    }

    /// Ends it at once, wherever it is, as a crash would: what was handled since the offset was saved
    /// is handled again by the next run.
    pub fn abort(&self) {
        for instance in self.instances.iter() {
            instance.task.abort();
        }
    }

    async fn ask_all(
        &self,
        command: impl Fn(oneshot::Sender<()>) -> Command,
    ) -> Result<(), ProjectionEnded> {
        let mut answers = Vec::with_capacity(self.instances.len());
        for instance in self.instances.iter() {
            let (done, answer) = oneshot::channel();
            let told = instance.commands.send(command(done)).await;
            told.map_err(|_| ProjectionEnded)?;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(|_| ProjectionEnded)?;
        }
        Ok(())
    }
}
