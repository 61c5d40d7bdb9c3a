//! RemoteRef: an actor on another node, as it plugs into `ActorRef`.

use crate::core::{Core, NotSent};
use crate::exports::Exports;
use crate::message::RemoteMessage;
use crate::node_id::NodeId;
use crate::peer::Peer;
use crate::wire_format::Target;
use otava_actor::{
    ActorPath, DeadLetterReason, Ended, RemoteTarget, TellError, Terminated, Time, Watcher,
    WatcherId,
};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// Which node is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Address {
    /// Whatever runs there.
    At(SocketAddr),
    /// This run of a node and no other.
    Exactly(NodeId),
}

impl Address {
    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::At(addr) => *addr,
            Self::Exactly(node) => node.addr,
        }
    }

    pub(crate) fn incarnation(&self) -> Option<u64> {
        self.node().map(|node| node.incarnation)
    }

    pub(crate) fn node(&self) -> Option<&NodeId> {
        match self {
            Self::At(_) => None,
            Self::Exactly(node) => Some(node),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(addr) => fmt::Display::fmt(addr, f),
            Self::Exactly(node) => fmt::Display::fmt(node, f),
        }
    }
}

pub(crate) struct RemoteRef<M> {
    core: Arc<Core>,
    address: Address,
    target: Target,
    path: ActorPath,
    uid: u64,
    /// Found at the first use, so that a reference which is only passed on costs no association.
    peer: OnceLock<Arc<Peer>>,
    messages: PhantomData<fn(M)>,
}

impl<M: RemoteMessage> RemoteRef<M> {
    pub(crate) fn new(
        core: Arc<Core>,
        address: Address,
        target: Target,
        path: ActorPath,
        uid: u64,
    ) -> Self {
        Self {
            core,
            address,
            target,
            path,
            uid,
            peer: OnceLock::new(),
            messages: PhantomData,
        }
    }

    /// The run of the node that is meant, unless any is.
    pub(crate) fn node(&self) -> Option<&NodeId> {
        self.address.node()
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// `None` if there can be no association: the layer is closed, or has too many peers.
    fn peer(&self) -> Option<&Arc<Peer>> {
        if let Some(peer) = self.peer.get() {
            return Some(peer);
        }
        let peer = self.core.peer(self.address.addr())?;
        Some(self.peer.get_or_init(|| peer))
    }

    /// Of the system that this reference lives in: no network is needed.
    fn is_here(&self) -> bool {
        self.address.addr() == self.core.id.addr
            && self
                .address
                .incarnation()
                .is_none_or(|incarnation| incarnation == self.core.id.incarnation)
    }

    fn tell_here(&self, exports: &Arc<Exports>, message: M) -> Result<(), TellError<M>> {
        match exports.find_as::<M>(&self.target) {
            Some(actor) => actor.tell(message),
            None => Err(self.refused(NotSent::Gone, message)),
        }
    }

    fn try_send(&self, message: M) -> Result<(), TellError<M>> {
        if self.is_here() {
            return self.tell_here(&self.core.exports, message);
        }
        let sent = match self.peer() {
            Some(peer) => self
                .core
                .send_message(peer, &self.address, &self.target, &message),
            None => Err(NotSent::Gone),
        };
        sent.map_err(|why| self.refused(why, message))
    }

    fn refused(&self, why: NotSent, message: M) -> TellError<M> {
        let (error, reason) = match why {
            NotSent::Full => (TellError::Full(message), DeadLetterReason::RefusedFull),
            NotSent::Gone => (
                TellError::Stopped(message),
                DeadLetterReason::RefusedStopped,
            ),
            NotSent::Unsendable(why) => (
                TellError::Unsendable(message, why),
                DeadLetterReason::Unreachable,
            ),
        };
        let letters = self.core.system.dead_letters();
        letters.report(&self.path, reason, std::any::type_name::<M>());
        error
    }
}

impl<M: RemoteMessage> RemoteTarget<M> for RemoteRef<M> {
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        self.try_send(message)
    }

    fn send(
        &self,
        message: M,
    ) -> Pin<Box<dyn Future<Output = Result<(), TellError<M>>> + Send + '_>> {
        Box::pin(async move {
            let Some(peer) = self.peer().filter(|_| !self.is_here()) else {
                return self.try_send(message);
            };
            let lane = peer.lane_for::<M>(&self.target);
            loop {
                // Before the try, so that room which comes in between is not missed.
                let mut room = std::pin::pin!(lane.room());
                room.as_mut().enable();
                let sent = self
                    .core
                    .send_message(peer, &self.address, &self.target, &message);
                match sent {
                    Err(NotSent::Full) => room.await,
                    other => return other.map_err(|why| self.refused(why, message)),
                }
            }
        })
    }

    fn path(&self) -> &ActorPath {
        &self.path
    }

    fn uid(&self) -> u64 {
        self.uid
    }

    fn watch(&self, watcher: Watcher) {
        if self.is_here()
            && let Some(actor) = self.core.exports.find(&self.target)
        {
            let (path, uid) = (self.path.clone(), self.uid);
            // The watcher itself forgets what it took back.
            let told = move |news: Terminated| {
                watcher.notify(Terminated::new(path, uid, news.reason));
            };
            return actor.on_terminated(Box::new(told)).detach();
        }
        let Some(peer) = self.peer() else {
            let news = Terminated::new(self.path.clone(), self.uid, Ended::NodeLost);
            return watcher.notify(news);
        };
        peer.watch(
            &self.core,
            &self.address,
            &self.target,
            &self.path,
            self.uid,
            watcher,
        );
    }

    fn unwatch(&self, watcher: WatcherId) {
        if let Some(peer) = self.peer.get() {
            peer.unwatch(&self.core, &self.address, &self.target, watcher);
        }
    }

    fn is_stopped(&self) -> bool {
        if self.is_here() {
            return self.core.exports.find(&self.target).is_none();
        }
        match (self.peer(), self.address.incarnation()) {
            (None, _) => true,
            (Some(peer), Some(incarnation)) => peer.is_gone(incarnation),
            (Some(_), None) => false,
        }
    }

    fn stop(&self) {
        tracing::warn!(actor = %self.path, "an actor of another node cannot be stopped from here");
    }

    fn now(&self) -> Option<Time> {
        Some(self.core.system.now())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
