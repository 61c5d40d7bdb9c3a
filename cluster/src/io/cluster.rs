//! Cluster: the handle of one node's membership: joining, watching, leaving.

use crate::config::{ClusterConfig, StartError};
use crate::io::driver::Driver;
use crate::io::finding::Finder;
use crate::logic::door::Refusal;
use crate::logic::member::Status;
use crate::logic::membership::{End, Input, Membership};
use crate::logic::state::{ClusterEvent, ClusterState};
use crate::wire;
use otava_actor::Time;
use otava_remote::{Channel, NodeId, Remote};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, watch};

/// Inputs that wait for the driver; messages beyond it are dropped, as a network would.
const INPUTS_MAX: usize = 4_096;
/// Events that a subscriber may be behind before it misses some.
const EVENTS_MAX: usize = 1_024;

/// One node's membership in a cluster. A handle, cheap to clone.
///
/// When the last handle is dropped the node falls silent, as if it had crashed: to part in peace,
/// [`Cluster::begin_leave`] and [`Cluster::finish_leave`].
#[derive(Clone)]
pub struct Cluster {
    remote: Remote,
    inputs: mpsc::Sender<Input>,
    state: watch::Receiver<Arc<ClusterState>>,
    events: broadcast::Sender<ClusterEvent>,
    end: watch::Receiver<Option<End>>,
    join_within: Duration,
    leave_within: Duration,
}

impl Cluster {
    /// Starts asking the seeds to be let in, or forms a cluster. Takes the control channels for
    /// gossip, heartbeats and joining of the remote layer.
    ///
    /// # Errors
    /// [`StartError`]: a setting that cannot be used.
    pub fn start(remote: &Remote, config: ClusterConfig) -> Result<Self, StartError> {
        config.check()?;
        let started = wall_clock_millis();
        let membership = Membership::new(
            remote.id().clone(),
            config.membership(started),
            remote.system().now(),
        );
        let (inputs, received) = mpsc::channel(INPUTS_MAX);
        let (state, state_reader) = watch::channel(Arc::new(ClusterState::default()));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (end, end_reader) = watch::channel(None);
        for channel in [Channel::HEARTBEAT, Channel::JOIN] {
            listen(remote, channel, inputs.downgrade());
        }
        let cluster = Self {
            remote: remote.clone(),
            inputs,
            state: state_reader,
            events: events.clone(),
            end: end_reader,
            join_within: config.join_within,
            leave_within: config.leave_within,
        };
        if let Some(discovery) = &config.discovery {
            let finder = Finder {
                remote: remote.clone(),
                discovery: discovery.clone(),
                interval: config.lookup_interval,
                inputs: cluster.inputs.downgrade(),
                state: cluster.state.clone(),
                end: cluster.end.clone(),
            };
            remote.system().handle().spawn(finder.run());
        }
        let driver = Driver {
            remote: remote.clone(),
            config,
            started,
            membership,
            inputs: received,
            answers: cluster.inputs.downgrade(),
            state,
            events,
            end,
            gossip: None,
            silent_at: Time::MAX,
            too_large: false,
        };
        remote.spawn_isolated(driver.run(remote.events()));
        Ok(cluster)
    }

    /// Which run of which node this is.
    #[must_use]
    pub fn me(&self) -> &NodeId {
        self.remote.id()
    }

    /// The remote layer below.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The cluster as this node sees it now.
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        self.state.borrow().clone()
    }

    /// Follows the state; what was passed over while nobody looked is not seen.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.clone()
    }

    /// What happens from now on, step by step. A subscriber that is more than 1,024 events behind
    /// misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.events.subscribe()
    }

    /// Waits until this node is a full member. With [`ClusterConfig::join_when_told`] the node begins to
    /// ask now.
    ///
    /// # Errors
    /// [`JoinError`]. After [`JoinError::TimedOut`] the node goes on asking.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits, and the node goes on asking.
    pub async fn join(&self) -> Result<(), JoinError> {
        self.input(Input::Join).await;
        let me = self.me().clone();
        let mut state = self.state.clone();
        let mut end = self.end.clone();
        let is_up = |state: &Arc<ClusterState>| {
            let status = state.get(&me).map(|member| member.status);
            status.is_some_and(|status| status >= Status::Up && status.is_live())
        };
        let waited = tokio::time::timeout(self.join_within, async {
            tokio::select! {
                biased;
                end = end.wait_for(Option::is_some) => match end.ok().and_then(|end| end.clone()) {
                    Some(End::Refused(refusal)) => Err(JoinError::Refused(refusal)),
                    _ => Err(JoinError::Ended),
                },
                up = state.wait_for(is_up) => up.map(drop).map_err(|_| JoinError::Ended),
            }
        });
        let within = self.join_within;
        waited.await.unwrap_or(Err(JoinError::TimedOut { within }))
    }

    /// Adds a setting that must be the same on all nodes that have it, such as the number of shards. A
    /// node that asks to be let in is refused if it differs from the member that it asks; so call this
    /// before the node asks ([`ClusterConfig::join_when_told`]), as what a member adds later is not
    /// compared with that of other members.
    ///
    /// Returns whether it was taken: not if the membership has ended, or is so busy that 4,096 messages
    /// wait for it.
    pub fn share_setting(&self, name: impl Into<String>, value: impl Into<String>) -> bool {
        let input = Input::Share(name.into(), value.into());
        self.inputs.try_send(input).is_ok()
    }

    /// Tells all members that the whole cluster is about to be stopped: nobody is let in any more, no
    /// joining member becomes up, and nothing should be moved to another member that will stop as well.
    /// It shows as [`ClusterState::preparing_for_shutdown`], and there is no way back: the nodes are
    /// expected to leave now, or to be stopped. Has no effect before this node is a member.
    pub async fn prepare_for_shutdown(&self) {
        self.input(Input::PrepareShutdown).await;
    }

    /// Tells the others that this node is on its way out: it gets no new work, and hands over what
    /// it has.
    pub async fn begin_leave(&self) {
        self.input(Input::Leave).await;
    }

    /// Says that everything is handed over, and waits until the node is removed.
    ///
    /// # Errors
    /// [`LeaveError`]; the others then find the node unreachable once it stops.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits, but the node leaves nevertheless.
    pub async fn finish_leave(&self) -> Result<(), LeaveError> {
        self.input(Input::FinishLeave).await;
        let mut end = self.end.clone();
        let within = self.leave_within;
        let ended = tokio::time::timeout(within, end.wait_for(Option::is_some)).await;
        match ended {
            Err(_) => Err(LeaveError::TimedOut { within }),
            Ok(Ok(end)) if *end == Some(End::Downed) => Err(LeaveError::Downed),
            Ok(_) => Ok(()),
        }
    }

    /// Declares `node` out, for good; it must start anew to come back. For nodes that are known to
    /// be dead, where the configured strategy does not decide or is too slow.
    ///
    /// If the node still runs and can be reached it stops itself; if it cannot be reached it goes on
    /// until it notices, and what it owned may run twice.
    pub async fn down(&self, node: &NodeId) {
        self.input(Input::Down(node.clone())).await;
    }

    /// Waits until this node is declared out. What it does for the cluster must stop at once then.
    /// If the membership ends in another way this waits for ever.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn downed(&self) {
        let mut end = self.end.clone();
        let downed = end.wait_for(|end| *end == Some(End::Downed)).await.is_ok();
        if !downed {
            std::future::pending::<()>().await;
        }
    }

    async fn input(&self, input: Input) {
        // An error means that the membership has ended: there is nothing left to tell.
        let _ = self.inputs.send(input).await;
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(self.me()).finish()
    }
}

/// Why a node did not become a member.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The membership has ended: the node was declared out, or left.
    #[error("the node was declared out of the cluster, or has left it")]
    Ended,
    /// A member has refused it.
    #[error("the cluster refuses this node: {0}")]
    Refused(#[source] Refusal),
    /// No member has answered, or some member is unreachable, which keeps new ones from becoming
    /// up.
    #[error("the node was not let in within {within:?}: is a seed reachable and a full member?")]
    TimedOut {
        /// How long was waited.
        within: Duration,
    },
}

/// Why a node did not leave in peace.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// The node was declared out before it was removed.
    #[error("the node was declared out of the cluster while it left")]
    Downed,
    /// The others did not agree in time.
    #[error("the node was not removed within {within:?}: is some member unreachable?")]
    TimedOut {
        /// How long was waited.
        within: Duration,
    },
}

fn listen(remote: &Remote, channel: Channel, inputs: mpsc::WeakSender<Input>) {
    remote.on_control(channel, move |from, bytes| {
        let Some(inputs) = inputs.upgrade() else {
            return;
        };
        match wire::decode_message(&bytes) {
            Ok(message) => {
                if inputs
                    .try_send(Input::Message(from.clone(), message))
                    .is_err()
                {
                    tracing::debug!(%from, "the membership is busy: a message is dropped");
                }
            }
            Err(error) => tracing::warn!(%from, %error, "a cluster message is ignored"),
        }
    });
}

fn wall_clock_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    u64::try_from(millis).unwrap_or(u64::MAX)
}
