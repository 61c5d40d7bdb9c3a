//! Seeded: drives the gossip of `logic/` over the control lane, so that a run replays from a seed.

use crate::io::dissemination::{Broken, Dissemination};
use crate::logic::gossip::{Gossip, GossipMessage, GossipOutput};
use crate::logic::statement::Statement;
use crate::wire;
use futures_util::future::BoxFuture;
use otava_actor::Rng;
use otava_remote::{Channel, NodeId, Remote};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages that wait to be worked on; more are dropped, as a network would.
const INBOX_MAX: usize = 1_024;

pub(crate) struct Seeded {
    gossip: Gossip,
    remote: Remote,
    inbox: mpsc::Receiver<(SocketAddr, GossipMessage)>,
}

impl Seeded {
    pub(crate) fn start(remote: &Remote, seed: u64, interval: Duration) -> Self {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        remote.on_control(
            Channel::GOSSIP,
            move |from, bytes| match wire::decode_gossip(&bytes) {
                Ok(message) => {
                    let _ = sender.try_send((from.addr, message));
                }
                Err(error) => tracing::warn!(%from, %error, "gossip is ignored"),
            },
        );
        // Nodes with the same seed must not choose the same peers all the time.
        let port = u64::from(remote.id().addr.port());
        let rng = Rng::seeded(seed ^ port.rotate_left(32));
        Self {
            gossip: Gossip::new(rng, interval, remote.system().now()),
            remote: remote.clone(),
            inbox,
        }
    }

    /// Sends what is to be sent, up to the next statements that came in.
    fn drain(&mut self) -> Option<Vec<Arc<Statement>>> {
        while let Some(output) = self.gossip.poll_output() {
            match output {
                GossipOutput::Learnt(statements) => return Some(statements),
                GossipOutput::Send(to, message) => {
                    if let Some(bytes) = wire::encode_gossip(&message) {
                        self.remote.send_control(to, Channel::GOSSIP, bytes.into());
                    }
                }
            }
        }
        None
    }

    async fn wait(&mut self) -> Result<Vec<Arc<Statement>>, Broken> {
        loop {
            if let Some(statements) = self.drain() {
                return Ok(statements);
            }
            let at = self.gossip.poll_timeout();
            let system = self.remote.system();
            tokio::select! {
                biased;
                message = self.inbox.recv() => match message {
                    Some((from, message)) => self.gossip.handle(from, message),
                    None => return Err(Broken("the remote layer has ended".into())),
                },
                () = self.remote.sleep_until(at.unwrap_or(otava_actor::Time::MAX)) => {
                    self.gossip.handle_timeout(system.now());
                }
            }
        }
    }
}

impl Dissemination for Seeded {
    fn publish(&mut self, statement: Arc<Statement>) {
        self.gossip.publish(self.remote.system().now(), statement);
    }

    fn set_peers(&mut self, peers: &[SocketAddr]) {
        self.gossip.set_peers(peers);
    }

    fn forget(&mut self, is_out: &dyn Fn(&NodeId) -> bool) {
        self.gossip.retain(|author| !is_out(author));
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<Statement>>, Broken>> {
        Box::pin(self.wait())
    }
}
