//! Finding: the task that looks at a discovery until the node is in.

use crate::discovery::{Discovery, DiscoveryError};
use crate::logic::knocking::CONTACTS_MAX;
use crate::logic::membership::{End, Input};
use crate::logic::state::ClusterState;
use otava_remote::Remote;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long one look may last.
const LOOKUP_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct Finder {
    pub(crate) remote: Remote,
    pub(crate) discovery: Arc<dyn Discovery>,
    pub(crate) interval: Duration,
    /// Weak, so that the membership ends when the last handle is dropped.
    pub(crate) inputs: mpsc::WeakSender<Input>,
    pub(crate) state: watch::Receiver<Arc<ClusterState>>,
    pub(crate) end: watch::Receiver<Option<End>>,
}

impl Finder {
    pub(crate) async fn run(mut self) {
        let mut failed: Option<DiscoveryError> = None;
        loop {
            match self.look().await {
                Ok(addrs) => {
                    failed = None;
                    let Some(inputs) = self.inputs.upgrade() else {
                        return;
                    };
                    if inputs.send(Input::Found(addrs)).await.is_err() {
                        return;
                    }
                }
                // Said again only if it is another failure: a look is taken each second.
                Err(error) if failed.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "the discovery finds nothing");
                    failed = Some(error);
                }
            }
            let next = self.remote.system().now() + self.interval;
            tokio::select! {
                biased;
                _ = self.end.wait_for(Option::is_some) => return,
                _ = self.state.wait_for(|state| !state.members.is_empty()) => return,
                () = self.remote.system().sleep_until(next) => {}
            }
        }
    }

    async fn look(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let looked = tokio::time::timeout(LOOKUP_WITHIN, self.discovery.lookup()).await;
        let late = |_| {
            let place = format!("{:?}", self.discovery);
            DiscoveryError::new(place, format!("no answer within {LOOKUP_WITHIN:?}"))
        };
        let addrs = looked.map_err(late)??;
        Ok(addrs.into_iter().take(CONTACTS_MAX).collect())
    }
}
