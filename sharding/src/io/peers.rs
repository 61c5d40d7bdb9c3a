//! Peers: the ways to the regions of other nodes, each in order, none holding up another.
//!
//! What finds no room on its lane waits here, and so does everything for the same node that comes
//! after it, while a task beside the region sends it.

use crate::message::{Local, RegionMessage};
use otava_actor::{Actor, ActorRef, Context, DeadLetterReason, Refusal, TellError};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::any::type_name;
use std::collections::{BTreeSet, HashMap, VecDeque};

pub(crate) struct Peers<M> {
    remote: Remote,
    /// The published name of the regions.
    name: String,
    waiting_max: usize,
    peers: HashMap<NodeId, Peer<M>>,
}

struct Peer<M> {
    region: ActorRef<RegionMessage<M>>,
    /// What comes after that which the task sends.
    waiting: VecDeque<RegionMessage<M>>,
    /// How much the task has to send; nothing goes past it.
    sending: usize,
}

impl<M: RemoteMessage> Peers<M> {
    pub(crate) fn new(remote: Remote, name: String, waiting_max: usize) -> Self {
        Self {
            remote,
            name,
            waiting_max,
            peers: HashMap::new(),
        }
    }

    /// Sends to the region of `node`, in order.
    pub(crate) fn send<R>(&mut self, ctx: &mut Context<R>, node: &NodeId, message: RegionMessage<M>)
    where
        R: Actor<Msg = RegionMessage<M>>,
    {
        if !self.peers.contains_key(node) {
            let peer = Peer {
                region: self.remote.resolve(node, &self.name),
                waiting: VecDeque::new(),
                sending: 0,
            };
            self.peers.insert(node.clone(), peer);
        }
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        if peer.sending == 0 {
            match peer.region.tell(message) {
                Err(TellError::Full(message)) => peer.waiting.push_back(message),
                // What else is refused was counted by the reference.
                Err(refused) => return Refusal::Unreachable.refuse(refused.into_message()),
                Ok(()) => return,
            }
            peer.flush(ctx, node);
        } else if peer.waiting.len() + peer.sending < self.waiting_max {
            peer.waiting.push_back(message);
        } else {
            let kind = type_name::<M>();
            let system = ctx.system();
            let reason = DeadLetterReason::Unreachable;
            system
                .dead_letters()
                .report(peer.region.path(), reason, kind);
            Refusal::Full.refuse(message);
        }
    }

    /// The task of `node` has sent what it had.
    pub(crate) fn flushed<R>(&mut self, ctx: &mut Context<R>, node: &NodeId)
    where
        R: Actor<Msg = RegionMessage<M>>,
    {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.sending = 0;
            if !peer.waiting.is_empty() {
                peer.flush(ctx, node);
            }
        }
    }

    /// Whether nothing waits for room.
    pub(crate) fn is_idle(&self) -> bool {
        self.peers.values().all(|peer| peer.sending == 0)
    }

    /// Nothing is sent to these any more.
    pub(crate) fn forget(&mut self, gone: &BTreeSet<NodeId>) {
        self.peers
            .retain(|node, peer| peer.sending > 0 || !gone.contains(node));
    }
}

impl<M: RemoteMessage> Peer<M> {
    fn flush<R>(&mut self, ctx: &mut Context<R>, node: &NodeId)
    where
        R: Actor<Msg = RegionMessage<M>>,
    {
        let batch = std::mem::take(&mut self.waiting);
        self.sending = batch.len();
        let (region, node) = (self.region.clone(), node.clone());
        let send = async move {
            for message in batch {
                if let Err(refused) = region.send(message).await {
                    // Counted by the reference.
                    Refusal::Unreachable.refuse(refused.into_message());
                }
            }
        };
        ctx.pipe_to_self(send, move |()| {
            RegionMessage(crate::message::Command::Local(Local::Flushed(node)))
        });
    }
}
