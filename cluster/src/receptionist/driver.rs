//! Receptionist driver: brings a directory the members, the messages and the time; decides nothing.

use super::Inner;
use crate::io::cluster::Cluster;
use crate::logic::member::Status;
use crate::logic::receptionist::{Message, Presence};
use crate::logic::state::{ClusterEvent, ClusterState};
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, watch};

/// Runs until the membership ends. Holds no handle of it, so that a node whose last handle is dropped
/// falls silent.
pub(super) fn start(
    inner: Arc<Inner>,
    cluster: &Cluster,
    inbox: mpsc::Receiver<(NodeId, Message)>,
) {
    let driver = Driver {
        inner,
        events: cluster.events(),
        states: cluster.subscribe(),
        inbox,
    };
    let handle = cluster.remote().system().handle();
    handle.spawn(driver.run());
}

struct Driver {
    inner: Arc<Inner>,
    /// A step in the cluster is heard here, and looked up in the state.
    events: broadcast::Receiver<ClusterEvent>,
    states: watch::Receiver<Arc<ClusterState>>,
    inbox: mpsc::Receiver<(NodeId, Message)>,
}

impl Driver {
    async fn run(mut self) {
        let system = self.inner.remote.system().clone();
        self.look();
        loop {
            let at = self.inner.lock().directory.poll_timeout();
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Ok(_) | Err(RecvError::Lagged(_)) => self.look(),
                    // Without a membership there is only this node.
                    Err(RecvError::Closed) => return self.members(BTreeMap::new()),
                },
                message = self.inbox.recv() => match message {
                    Some((from, message)) => self.take(&from, message),
                    None => return self.members(BTreeMap::new()),
                },
                () = system.sleep_until(at) => {
                    let now = system.now();
                    self.inner.drive(|directory| directory.handle_timeout(now));
                }
                () = self.inner.wake.notified() => {}
            }
        }
    }

    fn take(&self, from: &NodeId, message: Message) {
        let acknowledged = matches!(message, Message::Have { .. });
        self.inner
            .drive(|directory| directory.handle(from, message));
        if acknowledged {
            self.inner.settled.send_replace(());
        }
    }

    fn look(&self) {
        let members = presences(&self.states.borrow());
        self.members(members);
    }

    fn members(&self, members: BTreeMap<NodeId, Presence>) {
        let now = self.inner.remote.system().now();
        self.inner
            .drive(|directory| directory.set_members(now, members));
    }
}

fn presences(state: &ClusterState) -> BTreeMap<NodeId, Presence> {
    let live = state.members.values().filter(|m| m.status.is_live());
    let presence = live.map(|member| {
        let presence = Presence {
            listed: member.status != Status::Joining,
            reachable: !state.is_unreachable(&member.id),
        };
        (member.id.clone(), presence)
    });
    presence.collect()
}
