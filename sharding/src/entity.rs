//! Entity: what the factory of an entity is given, and how it says that a write was refused.

use crate::logic::epoch::Epoch;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// The longest id of an entity in bytes.
pub const ENTITY_ID_BYTES_MAX: usize = 512;

/// Which entity is to be made, and by which right it writes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EntityContext {
    /// The kind.
    pub kind: Arc<str>,
    /// The entity's id.
    pub id: Arc<str>,
    /// Its shard.
    pub shard: u32,
    /// The allocation of the shard to this node. Each write carries it.
    pub epoch: u64,
    /// What the epoch was claimed for, `kind/shard`. Each write carries it.
    pub scope: Arc<str>,
    /// To be told when the store refuses a write of this epoch.
    pub fenced: FencedHandle,
}

/// Tells the region that the store refused a write because a later allocation of the shard exists:
/// the region stops all entities of the shard at once and gives it up.
#[derive(Clone)]
pub struct FencedHandle {
    shard: u32,
    epoch: Epoch,
    reported: Arc<AtomicBool>,
    region: mpsc::UnboundedSender<(u32, Epoch)>,
}

impl FencedHandle {
    pub(crate) fn new(
        shard: u32,
        epoch: Epoch,
        region: mpsc::UnboundedSender<(u32, Epoch)>,
    ) -> Self {
        Self {
            shard,
            epoch,
            reported: Arc::default(),
            region,
        }
    }

    /// Reports the refusal. Never waits, cannot be lost; again is the same as once.
    pub fn report(&self) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            // An error means that the region is gone, and the shard with it.
            let _ = self.region.send((self.shard, self.epoch));
        }
    }
}

impl fmt::Debug for FencedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FencedHandle")
            .field("shard", &self.shard)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
