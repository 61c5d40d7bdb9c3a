//! Entity: what the factory of an entity is given, and what the entity can say to its region.

use crate::logic::epoch::Epoch;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// To be told when the entity has nothing to do for a while.
    pub passivate: Passivate,
    /// To be told how much memory the entity holds.
    pub memory: Memory,
}

/// What the entities of a node say to their region.
#[derive(Debug)]
pub(crate) enum Word {
    /// Something about itself: look at the line.
    Entity(Arc<EntityLine>),
    /// A write of this allocation was refused.
    Fenced(u32, Epoch),
}

/// What one instance has to say about itself. At most one word of it is on its way, so that a busy
/// entity does not fill the way to its region.
#[derive(Debug)]
pub(crate) struct EntityLine {
    pub(crate) place: u32,
    pub(crate) instance: u32,
    on_its_way: AtomicBool,
    passivate: AtomicBool,
    bytes: AtomicU64,
    /// What the region knows of `bytes`.
    bytes_known: AtomicU64,
    region: mpsc::UnboundedSender<Word>,
}

impl EntityLine {
    pub(crate) fn new(place: u32, instance: u32, region: mpsc::UnboundedSender<Word>) -> Arc<Self> {
        Arc::new(Self {
            place,
            instance,
            on_its_way: AtomicBool::new(false),
            passivate: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            bytes_known: AtomicU64::new(0),
            region,
        })
    }

    fn say(self: &Arc<Self>) {
        if !self.on_its_way.swap(true, Ordering::AcqRel) {
            // An error means that the region is gone, and the entity soon too.
            let _ = self.region.send(Word::Entity(self.clone()));
        }
    }

    /// For the region: the bytes, and whether it wants to be passivated.
    pub(crate) fn take(&self) -> (u64, bool) {
        self.on_its_way.store(false, Ordering::Release);
        let bytes = self.bytes.load(Ordering::Acquire);
        self.bytes_known.store(bytes, Ordering::Relaxed);
        (bytes, self.passivate.swap(false, Ordering::AcqRel))
    }
}

/// Asks for the end of this instance ([`EntityContext::passivate`]): it handles what it has and stops,
/// and whatever comes from then on waits for the next instance. Unlike an entity that stops itself
/// at once, it loses nothing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Passivate(Arc<EntityLine>);

impl Passivate {
    pub(crate) fn new(line: Arc<EntityLine>) -> Self {
        Self(line)
    }

    /// Asks. Never waits; again is the same as once. An entity that is kept alive by
    /// [`crate::Remember::Fixed`] stays.
    pub fn request(&self) {
        self.0.passivate.store(true, Ordering::Release);
        self.0.say();
    }
}

/// Says how much memory an entity holds ([`EntityContext::memory`]), for
/// [`crate::Passivation::memory`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<EntityLine>);

impl Memory {
    pub(crate) fn new(line: Arc<EntityLine>) -> Self {
        Self(line)
    }

    /// The entity holds so many bytes now. A change by less than an eighth is not passed on, so it may be
    /// called after every message.
    pub fn set(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Release);
        let known = self.0.bytes_known.load(Ordering::Relaxed);
        if bytes.abs_diff(known) > known / 8 {
            self.0.say();
        }
    }
}

/// Tells the region that the store refused a write because a later allocation of the shard exists:
/// the region stops all entities of the shard at once and gives it up.
#[derive(Clone)]
pub struct FencedHandle {
    shard: u32,
    epoch: Epoch,
    reported: Arc<AtomicBool>,
    region: mpsc::UnboundedSender<Word>,
}

impl FencedHandle {
    pub(crate) fn new(shard: u32, epoch: Epoch, region: mpsc::UnboundedSender<Word>) -> Self {
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
            let _ = self.region.send(Word::Fenced(self.shard, self.epoch));
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
