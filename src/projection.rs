//! Projection: a projection whose instances are workers of the cluster, each on one node at a time.

use crate::store::JournalAllocationStore;
use futures_util::future::join_all;
use otava_actor::ask::ASK_WITHIN_DEFAULT;
use otava_actor::{Actor, AskError, Context, Props, ReplyTo};
use otava_cluster::Cluster;
use otava_persistence::{
    Fence, Journal, ProjectionEnded, ProjectionHandle, ProjectionPlan, ProjectionStartError,
    ProjectionState, ProjectionStatus,
};
use otava_remote::{NodeId, RemoteMessage, wire};
use otava_sharding::{DaemonProcess, HandOverError, ShardingConfig, StartError, WorkerContext};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long an instance may take to end when it goes elsewhere, before it is cut off.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long whoever asks an instance for something waits for it.
const ASKED_FOR: Duration = ASK_WITHIN_DEFAULT;

/// A projection that runs in the whole cluster: its instances are spread over the members, each on one
/// of them, and go on elsewhere when that one leaves or fails. Made by [`crate::Node::projection`].
/// Cheap to clone.
///
/// An instance begins with a fence: its allocation, of which the journal knows the newest. Where results
/// are stored with their offset ([`otava_persistence::TransactionalHandler`]), one that was given to
/// another node commits nothing any more, also if its node does not know it yet.
#[derive(Clone)]
pub struct ClusterProjection {
    name: Arc<str>,
    workers: DaemonProcess<InstanceCommand>,
}

impl fmt::Debug for ClusterProjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClusterProjection");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why something could not be asked of all instances of a projection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// An instance has ended, after a failure: see its status.
    #[error("instance {index}: {source}")]
    Ended {
        /// Which one, from 0 on.
        index: u32,
        /// That it has ended.
        source: ProjectionEnded,
    },
    /// An instance did not answer; it may be on its way to another node.
    #[error("instance {index} did not answer: {source}")]
    NoAnswer {
        /// Which one, from 0 on.
        index: u32,
        /// Why.
        source: AskError,
    },
}

impl ClusterProjection {
    /// The name of the projection.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// On which node each instance is, as this node knows; `None` for one that is on its way.
    #[must_use]
    pub fn homes(&self) -> Vec<Option<NodeId>> {
        self.workers.homes()
    }

    /// What each instance is doing, in the order of their slices, or why it cannot be told.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn statuses(&self) -> Vec<Result<ProjectionStatus, ProjectionError>> {
        self.ask_all(InstanceCommand::Status).await
    }

    /// Waits until every event up to `position` is handled: what was written can then be read in the
    /// results.
    ///
    /// # Errors
    /// [`ProjectionError`] of the first instance that cannot say so, since it has ended, moved, or needs
    /// longer than an answer may take (5 seconds). It can be asked again.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn caught_up_with(&self, position: u64) -> Result<(), ProjectionError> {
        self.do_all(|reply_to| InstanceCommand::CaughtUp(position, reply_to))
            .await
    }

    /// Pauses all instances. A pause is forgotten by an instance that goes to another node.
    ///
    /// # Errors
    /// [`ProjectionError`] of the first instance that could not do it; the others were asked too.
    ///
    /// # Cancel safety
    /// Some may have been asked.
    pub async fn pause(&self) -> Result<(), ProjectionError> {
        self.do_all(InstanceCommand::Pause).await
    }

    /// Lets all instances go on after a pause; those that have ended after a failure begin again.
    ///
    /// # Errors
    /// As [`Self::pause`].
    ///
    /// # Cancel safety
    /// As [`Self::pause`].
    pub async fn resume(&self) -> Result<(), ProjectionError> {
        self.do_all(InstanceCommand::Resume).await
    }

    /// Begins again behind `offset`: see [`ProjectionHandle::restart_from`].
    ///
    /// # Errors
    /// As [`Self::pause`].
    ///
    /// # Cancel safety
    /// As [`Self::pause`].
    pub async fn restart_from(&self, offset: u64) -> Result<(), ProjectionError> {
        self.do_all(|reply_to| InstanceCommand::RestartFrom(offset, reply_to))
            .await
    }

    pub(crate) async fn hand_over(&self, within: Duration) -> Result<(), HandOverError> {
        self.workers.hand_over(within).await
    }

    async fn do_all(
        &self,
        command: impl Fn(ReplyTo<bool>) -> InstanceCommand,
    ) -> Result<(), ProjectionError> {
        for (index, done) in (0..).zip(self.ask_all(command).await) {
            if !done? {
                let source = ProjectionEnded;
                return Err(ProjectionError::Ended { index, source });
            }
        }
        Ok(())
    }

    async fn ask_all<R: Send + 'static>(
        &self,
        command: impl Fn(ReplyTo<R>) -> InstanceCommand,
    ) -> Vec<Result<R, ProjectionError>>
    where
        ReplyTo<R>: wire::Portable,
    {
        let workers = (0..).map_while(|index| Some((index, self.workers.worker(index)?)));
        let answers = workers.map(|(index, worker)| {
            let command = &command;
            async move {
                let answer = worker.ask(command).await;
                answer.map_err(|source| ProjectionError::NoAnswer { index, source })
            }
        });
        join_all(answers).await
    }
}

/// What the worker of an instance is asked for.
#[derive(Deserialize, Serialize)]
pub(crate) enum InstanceCommand {
    CaughtUp(u64, #[serde(with = "wire")] ReplyTo<bool>),
    Pause(#[serde(with = "wire")] ReplyTo<bool>),
    RestartFrom(u64, #[serde(with = "wire")] ReplyTo<bool>),
    Resume(#[serde(with = "wire")] ReplyTo<bool>),
    Status(#[serde(with = "wire")] ReplyTo<ProjectionStatus>),
    /// The instance has ended. From the worker to itself, never between nodes.
    #[serde(skip)]
    Ended,
}

impl RemoteMessage for InstanceCommand {
    const NAME: &'static str = "otava.ProjectionInstance";
}

/// Why a worker failed; it is started again after a while.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("another run has the slices of this instance")]
    Fenced,
    #[error(transparent)]
    Start(#[from] ProjectionStartError),
}

/// The actor around one instance.
struct Worker {
    plan: ProjectionPlan,
    index: u16,
    fence: Fence,
    running: Option<ProjectionHandle>,
}

impl Worker {
    fn begin(&mut self, ctx: &mut Context<Self>) -> Result<(), WorkerError> {
        let fence = Some(self.fence.clone());
        let running = self.plan.start_instance(self.index, fence)?;
        let watched = running.watch();
        let ended = async move {
            let mut watched = watched;
            let over = |all: &Vec<ProjectionStatus>| all.iter().all(|one| one.state.has_ended());
            drop(watched.wait_for(over).await);
        };
        ctx.pipe_to_self(ended, |()| InstanceCommand::Ended);
        self.running = Some(running);
        Ok(())
    }

    fn status(&self) -> Option<ProjectionStatus> {
        self.running.as_ref()?.statuses().pop()
    }

    fn state(&self) -> ProjectionState {
        self.status()
            .map_or(ProjectionState::Starting, |status| status.state)
    }
}

impl Actor for Worker {
    type Msg = InstanceCommand;
    type Err = WorkerError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), WorkerError> {
        self.begin(ctx)
    }

    async fn handle(
        &mut self,
        command: InstanceCommand,
        ctx: &mut Context<Self>,
    ) -> Result<(), WorkerError> {
        let running = self.running.clone();
        // Of an answer that cannot be sent nobody is waiting for it any more.
        match command {
            // One that was fenced tries again: if it lost its place, its node will soon know. One
            // that has failed by its rules stays so until somebody resumes it.
            InstanceCommand::Ended if self.state() == ProjectionState::Fenced => {
                return Err(WorkerError::Fenced);
            }
            InstanceCommand::Ended => {}
            InstanceCommand::Status(reply_to) => {
                if let Some(status) = self.status() {
                    let _ = reply_to.send(status);
                }
            }
            InstanceCommand::Resume(reply_to) => {
                if self.state().has_ended() {
                    self.begin(ctx)?;
                } else if let Some(running) = running {
                    let _ = running.resume().await;
                }
                let _ = reply_to.send(true);
            }
            // These wait for the handler that is at work, beside the actor.
            InstanceCommand::CaughtUp(position, reply_to) => {
                beside(running, reply_to, move |running| async move {
                    running.caught_up_with(position).await
                });
            }
            InstanceCommand::Pause(reply_to) => {
                beside(
                    running,
                    reply_to,
                    |running| async move { running.pause().await },
                );
            }
            InstanceCommand::RestartFrom(offset, reply_to) => {
                beside(running, reply_to, move |running| async move {
                    running.restart_from(offset).await
                });
            }
        }
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Context<Self>) {
        let Some(running) = self.running.take() else {
            return;
        };
        if timeout(ENDS_WITHIN, running.stop()).await.is_err() {
            tracing::warn!(
                projection = running.name(),
                index = self.index,
                "the handler is cut off"
            );
            running.abort();
            running.ended().await;
        }
    }
}

/// Does something that takes a while without its worker, which can then be asked other things. It must
/// not take longer than somebody waits for it, since it keeps the instance from ending with the worker.
fn beside<F>(
    running: Option<ProjectionHandle>,
    reply_to: ReplyTo<bool>,
    work: impl FnOnce(ProjectionHandle) -> F + Send + 'static,
) where
    F: Future<Output = Result<(), ProjectionEnded>> + Send,
{
    let Some(running) = running else {
        return;
    };
    tokio::spawn(async move {
        if let Ok(done) = timeout(ASKED_FOR, work(running)).await {
            // An error means that nobody waits for it any more.
            let _ = reply_to.send(done.is_ok());
        }
    });
}

pub(crate) fn start_projection(
    cluster: &Cluster,
    journal: Arc<dyn Journal>,
    plan: ProjectionPlan,
    config: ShardingConfig,
) -> Result<ClusterProjection, StartError> {
    let store = Arc::new(JournalAllocationStore::new(journal));
    let (kind, workers) = (format!("projection.{}", plan.name()), plan.instances());
    let name = plan.name().into();
    let make = move |worker: WorkerContext| {
        let fence = Fence::new(worker.entity.scope, worker.entity.epoch);
        let (plan, index) = (
            plan.clone(),
            u16::try_from(worker.index).unwrap_or(u16::MAX),
        );
        Props::new(move || Worker {
            plan: plan.clone(),
            index,
            fence: fence.clone(),
            running: None,
        })
    };
    let workers = DaemonProcess::start(cluster, &kind, store, workers.into(), config, make)?;
    Ok(ClusterProjection { name, workers })
}
