//! Hub: gives what other nodes say about singletons to the ones that are meant.

use crate::io::cluster::Cluster;
use crate::logic::member::Status;
use crate::logic::singleton::Message;
use crate::logic::state::{ClusterEvent, ClusterState};
use crate::singleton::{CHANNEL, Hosts, lock, wire};
use otava_remote::{NodeId, Remote};
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, watch};

/// Messages that wait to be given on; more are dropped, and said again.
const INBOX_MAX: usize = 1_024;

/// Takes the channel of singletons, until the membership ends.
pub(super) fn start(cluster: &Cluster, hosts: Arc<Hosts>) {
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let remote = cluster.remote();
    remote.on_control(CHANNEL, move |from, bytes| match wire::decode(&bytes) {
        Ok((name, message)) => {
            // What is dropped is said again.
            let _ = sender.try_send((from.clone(), name, message));
        }
        Err(error) => tracing::warn!(%from, %error, "a message about a singleton is ignored"),
    });
    let hub = Hub {
        remote: remote.clone(),
        states: cluster.subscribe(),
        events: cluster.events(),
        inbox,
        hosts,
    };
    remote.system().handle().spawn(hub.run());
}

struct Hub {
    remote: Remote,
    states: watch::Receiver<Arc<ClusterState>>,
    events: broadcast::Receiver<ClusterEvent>,
    inbox: mpsc::Receiver<(NodeId, String, Message)>,
    hosts: Arc<Hosts>,
}

impl Hub {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => if event == Err(RecvError::Closed) {
                    return;
                },
                message = self.inbox.recv() => match message {
                    Some((from, name, message)) => self.give(&from, &name, message),
                    None => return,
                },
            }
        }
    }

    fn give(&self, from: &NodeId, name: &str, message: Message) {
        let host = lock(&self.hosts).get(name).cloned();
        // What is not started here while the node parts is not going to be.
        let is_free = match &host {
            Some(host) => host.is_done(),
            None => self.is_parting(),
        };
        if message == Message::Claim && is_free {
            if let Some(bytes) = wire::encode(name, Message::Released) {
                self.remote.send_control(from.addr, CHANNEL, bytes.into());
            }
        } else if let Some(host) = host {
            // What is dropped is said again.
            let _ = host.inbox.try_send((from.clone(), message));
        }
    }

    fn is_parting(&self) -> bool {
        let states = self.states.borrow();
        let own = states.get(self.remote.id());
        own.is_some_and(|own| own.status >= Status::Leaving)
    }
}
