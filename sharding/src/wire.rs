//! Wire: what regions and coordinators of two nodes say to each other. Version 1.
//!
//! All state is told whole and can be told again: a coordinator pushes its [`Table`] until a region
//! has answered with the table's revision, a region sends its [`Status`] until the table agrees with
//! it. So a lost message costs time and nothing else, and one that comes twice changes nothing.

use crate::logic::epoch::Epoch;
use crate::logic::layout::Layout;
use otava_remote::NodeId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The version of everything in this file.
pub const VERSION: u16 = 1;

/// What is said about shards.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ProtocolMessage {
    /// Region to the home of a shard that moves: nothing follows for this shard.
    Barrier(Barrier),
    /// Coordinator to region: a new term begins, say what you have.
    Gather {
        /// The coordinator.
        from: NodeId,
        /// Its term.
        term: u32,
        /// With how many shards the kind begins, as it was told.
        shards: u32,
    },
    /// Coordinator that gives way to the one of the next term: what it had decided.
    Legacy(Box<Legacy>),
    /// Region to coordinator: what it has.
    Status(Box<Status>),
    /// Coordinator to region: where everything is.
    Table(Arc<Table>),
}

/// The end of what one region sends for a shard before the shard moves. It takes the same lane as
/// the messages for the shard, so whatever it follows has arrived.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Barrier {
    /// The region that stops sending.
    pub from: NodeId,
    /// For which shard.
    pub shard: u32,
    /// The number of the move.
    pub move_no: Epoch,
}

/// Where all shards of a kind are, as the coordinator decided it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Table {
    /// The coordinator.
    pub from: NodeId,
    /// Its term.
    pub term: u32,
    /// Counts from 1 in each term.
    pub revision: u64,
    /// With how many shards the kind begins, as the coordinator was told.
    pub begins_with: u32,
    /// How many shards there were before, half or twice as many as now, until all have been claimed anew.
    pub previous: Option<u32>,
    /// The regions that answer, all of which must send barriers.
    pub regions: Vec<NodeId>,
    /// Homes whose regions do not answer at the moment.
    pub silent: Vec<NodeId>,
    /// One for each shard.
    pub entries: Vec<Entry>,
}

/// Where one shard is. A home is a place in `regions` followed by `silent`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Entry {
    /// Send there.
    Hosted {
        /// Where it is.
        home: u32,
        /// The allocation.
        epoch: Epoch,
    },
    /// It leaves its home: stop sending and say so with a barrier.
    Moving {
        /// Where it is still.
        home: u32,
        /// The allocation.
        epoch: Epoch,
        /// The number of the move.
        move_no: Epoch,
    },
    /// Its home is claiming it. Wait.
    Starting {
        /// Where it will be.
        home: u32,
        /// The allocation.
        epoch: Epoch,
    },
    /// It has no home. Wait.
    Unallocated,
}

impl Table {
    /// The node at a place.
    #[must_use]
    pub fn node(&self, home: u32) -> Option<&NodeId> {
        let home = usize::try_from(home).ok()?;
        let silent = || self.silent.get(home.checked_sub(self.regions.len())?);
        self.regions.get(home).or_else(silent)
    }

    /// The home of a shard and its allocation, in whatever state.
    #[must_use]
    pub fn home(&self, entry: Entry) -> Option<(&NodeId, Epoch)> {
        match entry {
            Entry::Hosted { home, epoch }
            | Entry::Moving { home, epoch, .. }
            | Entry::Starting { home, epoch } => Some((self.node(home)?, epoch)),
            Entry::Unallocated => None,
        }
    }

    /// The home of a shard that is hosted.
    #[must_use]
    pub fn hosted_at(&self, shard: u32) -> Option<&NodeId> {
        match self.entries.get(usize::try_from(shard).ok()?)? {
            Entry::Hosted { home, .. } => self.node(*home),
            _ => None,
        }
    }

    /// Whether every shard is hosted.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let hosted = |entry: &Entry| matches!(entry, Entry::Hosted { .. });
        self.entries.iter().all(hosted)
    }

    /// How many shards there are. Valid if the table is sound.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout {
            shards: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
            previous: self.previous,
        }
    }

    /// Whether there can be so many shards, and every home is named.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let named = |entry: &Entry| *entry == Entry::Unallocated || self.home(*entry).is_some();
        self.layout().is_valid() && self.entries.iter().all(named)
    }

    /// Terms first: whether this is newer than `other`.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.term, self.revision) > (other.term, other.revision)
    }
}

/// The last word of a coordinator: it decides nothing any more, and the next one goes on from here
/// without asking anybody.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Legacy {
    /// The term for which it is; the next one after that of the table.
    pub term: u32,
    /// Where everything is. Regions may not have seen it.
    pub table: Arc<Table>,
    /// Where moving shards go, by shard.
    pub targets: Vec<(u32, NodeId)>,
}

/// What one region has.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// The region.
    pub from: NodeId,
    /// Counts up in each region; older ones are ignored.
    pub number: u64,
    /// The highest term the region has heard of. It obeys no other.
    pub term: u32,
    /// The revision of the table it goes by, 0 if it has none of this term.
    pub revision: u64,
    /// With how many shards the kind begins, as it was told.
    pub begins_with: u32,
    /// How many shards there are, as it knows. What follows counts by it.
    pub shards: u32,
    /// How many shards there should be, if somebody wants that to change.
    pub resize: Option<u32>,
    /// What it has.
    pub claims: Vec<Claim>,
    /// What the store refused it.
    pub refused: Vec<Refused>,
    /// Messages a second that its shards handle, by shard, of those that were measured.
    pub loads: Vec<(u32, u32)>,
    /// The table of an earlier term that it goes by, for the coordinator of a new one.
    pub table: Option<Arc<Table>>,
}

/// A shard that a region has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claim {
    /// Which.
    pub shard: u32,
    /// By which allocation.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: Phase,
}

/// How far a region is with a shard.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Phase {
    /// Its entities are running.
    Active,
    /// The store has not answered yet.
    Claiming,
    /// Its entities are running, barriers are awaited.
    HandingOff,
    /// Its entities are ending.
    Stopping,
}

/// An allocation that the store refused, because a later one was there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refused {
    /// Of which shard.
    pub shard: u32,
    /// What was refused.
    pub epoch: Epoch,
    /// What was there.
    pub current: Epoch,
}
