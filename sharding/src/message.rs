//! RegionMessage: what regions say to each other, on the wire and inside a node.

use crate::entity::Word;
use crate::io::doors::UnderWay;
use crate::io::memory::Recall;
use crate::logic::epoch::Epoch;
use crate::logic::layout::Layout;
use crate::logic::region::ClaimAnswer;
use crate::logic::view::View;
use crate::query::{Query, QueryAnswer};
use crate::wire::{self, ProtocolMessage, Table};
use otava_actor::ReplyTo;
use otava_remote::{NodeId, RemoteMessage, layout};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// The message type of a region of entities that understand `M`. Opaque: it is made by
/// [`crate::EntityRef`] and [`crate::EntityClient`].
///
/// A region is published under a name that holds the name and version of `M`, so peers that differ
/// in `M` do not find each other's.
#[derive(Deserialize, Serialize)]
#[serde(bound(serialize = "M: Serialize", deserialize = "M: Deserialize<'de>"))]
pub struct RegionMessage<M>(pub(crate) Command<M>);

#[derive(Deserialize, Serialize)]
#[serde(bound(serialize = "M: Serialize", deserialize = "M: Deserialize<'de>"))]
pub(crate) enum Command<M> {
    Deliver {
        entity: Arc<str>,
        hops: u8,
        message: M,
        /// While it is on this node.
        #[serde(skip)]
        under_way: Option<UnderWay<M>>,
    },
    Protocol(ProtocolMessage),
    /// A client wants the first table that is newer than this term and revision.
    Follow {
        newer_than: (u32, u64),
        #[serde(with = "otava_remote::wire")]
        reply_to: ReplyTo<Table>,
    },
    /// The entity is to live, without a message for it.
    Wake {
        entity: Arc<str>,
        hops: u8,
    },
    /// What this region has.
    Query {
        query: Query,
        #[serde(with = "otava_remote::wire")]
        reply_to: ReplyTo<QueryAnswer>,
    },
    /// From this region's own tasks; it has no wire form.
    #[serde(skip)]
    Local(Local),
}

pub(crate) enum Local {
    Claimed {
        shard: u32,
        epoch: Epoch,
        answer: ClaimAnswer,
    },
    /// Entities have said this; the rest comes through the receiver.
    Heard(Vec<Word>, mpsc::UnboundedReceiver<Word>),
    /// What waited for room on the way to this node is sent.
    Flushed(NodeId),
    HandOver,
    /// The store has answered to a layout.
    Layout(u64, ClaimAnswer),
    /// The store of remembered entities has answered.
    Recalled(Recall),
    /// Somebody wants this number of shards.
    Resize(u32),
    Term(Option<(u32, Layout)>),
    Tick,
    /// The members have changed; the rest come through the receiver.
    View(View, Option<watch::Receiver<View>>),
}

impl<M: RemoteMessage> RemoteMessage for RegionMessage<M> {
    const NAME: &'static str = "otava.sharding.Region";
    const VERSION: u16 = wire::VERSION;
    const LAYOUT: u64 = layout(Self::NAME, Self::VERSION) ^ M::LAYOUT.rotate_left(1);
    const RIGHTS: &'static str = M::RIGHTS;

    /// What regions say to each other is not for clients.
    fn is_for_clients(&self) -> bool {
        match &self.0 {
            Command::Deliver { message, .. } => message.is_for_clients(),
            Command::Follow { .. } | Command::Wake { .. } => true,
            Command::Local(_) | Command::Protocol(_) | Command::Query { .. } => false,
        }
    }
}

impl<M> RegionMessage<M> {
    /// A message for an entity, as it enters sharding.
    pub(crate) fn deliver(entity: &Arc<str>, message: M, under_way: Option<UnderWay<M>>) -> Self {
        Self(Command::Deliver {
            entity: entity.clone(),
            hops: 0,
            message,
            under_way,
        })
    }

    /// What [`RegionMessage::deliver`] was given.
    pub(crate) fn into_delivered(self) -> M {
        match self.0 {
            Command::Deliver { message, .. } => message,
            Command::Follow { .. }
            | Command::Protocol(_)
            | Command::Query { .. }
            | Command::Local(_)
            | Command::Wake { .. } => {
                unreachable!("only deliveries are made by references to entities")
            }
        }
    }
}

impl<M> fmt::Debug for RegionMessage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegionMessage(..)")
    }
}

/// The name under which the region of `kind` is published.
pub(crate) fn region_name<M: RemoteMessage>(kind: &str) -> String {
    format!("sharding/{kind}/{}.{}", M::NAME, M::VERSION)
}

#[cfg(test)]
mod tests;
