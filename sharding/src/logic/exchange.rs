//! Exchange: what a region learns, and what is to be done for it.

use crate::logic::buffers::BufferLimits;
use crate::logic::epoch::Epoch;
use crate::logic::layout::Layout;
use crate::logic::view::View;
use crate::wire::ProtocolMessage;
use otava_remote::NodeId;
use std::time::Duration;

/// Settings of a region.
#[derive(Clone, Copy, Debug)]
pub struct RegionConfig {
    /// With how many shards the kind begins.
    pub shards: u32,
    /// How much may wait.
    pub buffers: BufferLimits,
    /// What is not confirmed is said again after this time.
    pub resend: Duration,
    /// At most one status is sent in this time.
    pub status_pause: Duration,
    /// How often the load of shards is measured, if it is.
    pub measure_every: Option<Duration>,
}

/// A message on its way to an entity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery<D> {
    /// The hash of its entity.
    pub hash: u64,
    /// The shard of its entity, as the region knows it.
    pub shard: u32,
    /// How many regions have passed it on.
    pub hops: u8,
    /// The entity and the message.
    pub what: D,
}

impl<D> Delivery<D> {
    /// A message that `hops` regions have passed on. The region sees to its shard.
    pub fn new(hash: u64, hops: u8, what: D) -> Self {
        Self {
            hash,
            shard: 0,
            hops,
            what,
        }
    }
}

/// What a region learns.
#[derive(Debug)]
pub enum Input<D> {
    /// The store's answer to [`Output::Claim`].
    Claimed {
        /// The shard.
        shard: u32,
        /// The allocation that was claimed.
        epoch: Epoch,
        /// What the store said.
        answer: ClaimAnswer,
    },
    /// A message for an entity.
    Deliver(Delivery<D>),
    /// All entities of the shard have ended.
    Ended {
        /// The shard.
        shard: u32,
    },
    /// The store refused a write of this allocation.
    Fenced {
        /// The shard.
        shard: u32,
        /// The allocation.
        epoch: Epoch,
    },
    /// From another region or a coordinator.
    Protocol(ProtocolMessage),
    /// Somebody wants this number of shards.
    Resize {
        /// A valid number of shards.
        shards: u32,
    },
    /// The members have changed.
    View(View),
}

/// What the store says to a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClaimAnswer {
    /// A later allocation was there.
    Refused {
        /// That one.
        current: Epoch,
    },
    /// It could not be asked: ask again.
    Unavailable,
    /// Claimed.
    Yes,
}

/// What is to be done for a region.
#[derive(Debug)]
pub enum Output<D> {
    /// Claim this allocation in the store, then say [`Input::Claimed`].
    Claim {
        /// The shard.
        shard: u32,
        /// The allocation.
        epoch: Epoch,
        /// What to claim first, whether that is refused or not: overlapping scopes of the layout before.
        fenced: Vec<u32>,
        /// What to claim then.
        scope: u32,
    },
    /// Give the message to its entity here.
    Deliver {
        /// The allocation under which the entity runs.
        epoch: Epoch,
        /// The message.
        delivery: Delivery<D>,
    },
    /// The message has nowhere to go.
    Drop {
        /// The message.
        delivery: Delivery<D>,
        /// Why.
        reason: DropReason,
    },
    /// Pass the message on to the region of another node.
    Forward {
        /// Where to.
        to: NodeId,
        /// The message.
        delivery: Delivery<D>,
    },
    /// Say this to a node, on the lane of what was forwarded to it.
    Send {
        /// Where to.
        to: NodeId,
        /// What to say.
        message: ProtocolMessage,
    },
    /// End the entities of the shard, then say [`Input::Ended`], also if there are none.
    Stop {
        /// The shard.
        shard: u32,
        /// Whether they handle what they have first.
        after_queued: bool,
    },
    /// The homes have changed: show them.
    Homes,
    /// From now on shards are counted by this layout. None of the one before is here any more.
    Layout(Layout),
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// As much waits as may.
    BufferFull,
    /// It would wait for a home that nobody is left to give it.
    NobodyLeft,
    /// It was passed on too often.
    TooManyHops,
}
