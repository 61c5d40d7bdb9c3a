//! Doors: the way past the region, straight to an entity that lives on this node: from a reference, or from
//! where the messages of another node arrive.
//!
//! # The problem
//! A message through the region's mailbox takes two hops where a message to an actor takes one. A message
//! that goes past the region must still be handled after everything its sender sent before, must not be
//! lost when the entity stops, and has to count for passivation and load.
//!
//! # A door
//! ```text
//!             started, has got what waited            has ended
//!   (none) ---------------------------------> door ---------------> (none)
//!                 open while nothing for its hall is under way and its mailbox accepts
//! ```
//! A sender looks into the **hall** of the entity, a range of the hash, under one lock: if the door is
//! open it gets the entity's actor, else an [`UnderWay`], which counts its message as under way through the
//! region. An [`UnderWay`] travels in the message through mailbox, logic and buffers of the region; it goes
//! when the message was given to the entity's mailbox, waits for the next instance, has left the node, or
//! is dropped: no path can forget it.
//!
//! What another node sends arrives on one lane, is read by one task, and goes one message after the other:
//! that task is a sender like any other, and the order of all who send through that node is the order of
//! its lane. For the region of a shard that moves the barrier of that node comes last on the same lane,
//! through the region: when it is there, each message before it is in the mailbox of its entity or was in
//! that of the region before it. So "nothing is on its way" means the same as without doors
//! (`logic/region.rs`), and what the entities have is handled before they end. Which shards run here by
//! which right is no question of the door: an instance is the door, and a fence or a move stops it.
//!
//! # Invariants
//! **Order.** Who finds the door open has nothing before this message that is still in the region, since
//! that would be under way. What it sent through the region is in the mailbox of this instance or of
//! one before, or lies with [`crate::logic::lives::Lives`] for the next one; and there nothing lies while
//! an instance accepts messages: a message begins to wait only after the mailbox was closed, and a new
//! instance gets what waited before its door is there.
//!
//! **Nothing behind a stop.** The mailbox is the gate, not the door: whoever holds an actor that was
//! told to stop meanwhile gets its message back and sends it through the region, where it waits for
//! the next instance or goes where the shard goes. What was accepted before is handled, as in the slow
//! way (`stop_after_queued`). So a move, a passivation, a fence or a failure has nothing to
//! close first, and a door that is still there afterwards leads nowhere.
//!
//! **One refusal.** What an entity refuses, because it stops or is full, goes through the region: there
//! alone it is counted, kept or dropped.
//!
//! **Use.** Each use is noted in the door. The region collects that before it decides who is idle or
//! superfluous, before it measures, and when a door goes ([`Doors::collect`], [`Doors::shut`]).

use crate::logic::hash::HASH_BITS;
use crate::logic::passivation::Use;
use otava_actor::{ActorRef, Time};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A message to an entity whose shard has no home shuts the doors of its hall, and its thread may
/// meet others there.
const HALLS_BITS: u32 = 9;

/// The doors of one kind on this node.
pub(crate) struct Doors<M> {
    halls: Box<[Hall<M>]>,
    /// It matters when an entity was used.
    timed: bool,
}

/// On cache lines of its own.
#[repr(align(128))]
struct Hall<M>(Mutex<Inside<M>>);

struct Inside<M> {
    /// Messages in the region.
    under_way: u32,
    /// By the hash of the id. Of two entities with one hash only the first has a door.
    doors: HashMap<u64, Door<M>, BuildHasherDefault<Mixed>>,
    /// Which doors were used since the last look.
    used: Vec<u64>,
}

struct Door<M> {
    id: Arc<str>,
    actor: ActorRef<M>,
    /// That of its life.
    place: u32,
    /// Since the last look.
    uses: u64,
    /// The last one.
    at: Time,
}

impl<M> Door<M> {
    fn take_use(&mut self) -> Option<Use> {
        let count = std::mem::take(&mut self.uses);
        let (at, place) = (self.at, self.place);
        (count > 0).then_some(Use { at, place, count })
    }
}

/// Which way a message goes.
pub(crate) enum Way<M> {
    /// Past the region, to this actor.
    Past(ActorRef<M>),
    Through(UnderWay<M>),
}

/// A message that is under way through the region.
pub(crate) struct UnderWay<M> {
    doors: Arc<Doors<M>>,
    hash: u64,
}

impl<M> Drop for UnderWay<M> {
    fn drop(&mut self) {
        self.doors.inside(self.hash).under_way -= 1;
    }
}

impl<M> Doors<M> {
    /// No entity lives. `timed` if it matters when one was used.
    pub(crate) fn new(timed: bool) -> Self {
        let hall = |_| {
            Hall(Mutex::new(Inside {
                under_way: 0,
                doors: HashMap::default(),
                used: Vec::new(),
            }))
        };
        Self {
            halls: (0..1 << HALLS_BITS).map(hall).collect(),
            timed,
        }
    }

    fn inside(&self, hash: u64) -> MutexGuard<'_, Inside<M>> {
        // A shard's messages meet only few other shards' doors: by the same bits as shards.
        self.halls[(hash >> (HASH_BITS - HALLS_BITS)) as usize].lock()
    }

    /// A message to an entity is sent through the region.
    pub(crate) fn under_way(self: &Arc<Self>, hash: u64) -> UnderWay<M> {
        self.inside(hash).under_way += 1;
        UnderWay {
            doors: self.clone(),
            hash,
        }
    }
}

impl<M: Send + 'static> Doors<M> {
    /// Which way a message for the entity `id` goes that is sent `now`.
    pub(crate) fn way_to(
        self: &Arc<Self>,
        (hash, id): (u64, &str),
        now: impl FnOnce() -> Time,
    ) -> Way<M> {
        let at = if self.timed { now() } else { Time::ZERO };
        let mut inside = self.inside(hash);
        let inside = &mut *inside;
        if inside.under_way == 0
            && let Some(door) = inside.doors.get_mut(&hash)
            && *door.id == *id
            && !door.actor.is_stopped()
        {
            if door.uses == 0 {
                inside.used.push(hash);
            }
            door.uses += 1;
            door.at = door.at.max(at);
            return Way::Past(door.actor.clone());
        }
        inside.under_way += 1;
        Way::Through(UnderWay {
            doors: self.clone(),
            hash,
        })
    }

    /// The entity has started and got what waited for it.
    pub(crate) fn open(&self, (hash, id): (u64, &Arc<str>), place: u32, actor: ActorRef<M>) {
        let door = Door {
            id: id.clone(),
            actor,
            place,
            uses: 0,
            at: Time::ZERO,
        };
        let mut inside = self.inside(hash);
        inside.doors.entry(hash).or_insert(door);
    }

    /// The entity has ended. What it was used since the last look.
    pub(crate) fn shut(&self, hash: u64, place: u32) -> Option<Use> {
        let mut inside = self.inside(hash);
        let door = inside.doors.get(&hash);
        door.filter(|door| door.place == place)?;
        let door = inside.doors.remove(&hash);
        drop(inside);
        // What its actor holds is not dropped under the lock.
        door?.take_use()
    }

    /// What all entities were used since the last look.
    pub(crate) fn collect(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for hall in &self.halls {
            let mut inside = hall.lock();
            let inside = &mut *inside;
            for hash in inside.used.drain(..) {
                let door = inside.doors.get_mut(&hash);
                uses.extend(door.and_then(Door::take_use));
            }
        }
        uses
    }

    /// All have ended.
    pub(crate) fn shut_all(&self) {
        for hall in &self.halls {
            let doors = std::mem::take(&mut hall.lock().doors);
            drop(doors);
        }
    }
}

impl<M> Hall<M> {
    fn lock(&self) -> MutexGuard<'_, Inside<M>> {
        // No code of users runs under it, so a poisoned one is in good order.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes what is a hash already. All of a hall have the same top bits, which a map tells keys apart by.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.rotate_left(2 * HALLS_BITS);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_actor::{Actor, ActorSystem, Context};
    use std::convert::Infallible;

    struct Entity;

    impl Actor for Entity {
        type Msg = ();
        type Err = Infallible;

        async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Infallible> {
            Ok(())
        }
    }

    /// The doors of entities `a` and `b`, which have one hash.
    fn doors(system: &ActorSystem) -> (Arc<Doors<()>>, ActorRef<()>) {
        let doors = Arc::new(Doors::new(true));
        let a = system.spawn("a", Entity).unwrap();
        let b = system.spawn("b", Entity).unwrap();
        doors.open((7, &"a".into()), 0, a.clone());
        doors.open((7, &"b".into()), 1, b);
        (doors, a)
    }

    fn at(nanos: u64) -> impl FnOnce() -> Time {
        move || Time::from_nanos(nanos)
    }

    fn is_open(doors: &Arc<Doors<()>>, id: &str) -> bool {
        matches!(doors.way_to((7, id), at(0)), Way::Past(_))
    }

    #[tokio::test]
    async fn a_door_is_open_while_nothing_is_under_way_and_its_entity_accepts() {
        let system = ActorSystem::new("doors");
        let (doors, a) = doors(&system);
        assert!(is_open(&doors, "a"));
        assert!(!is_open(&doors, "b"), "its hash is taken");
        assert!(is_open(&doors, "a"), "that went away with the answer");
        let first = doors.under_way(8);
        let Way::Through(second) = doors.way_to((7, "a"), at(0)) else {
            panic!("it may overtake the first");
        };
        drop(first);
        assert!(!is_open(&doors, "a"));
        drop(second);
        assert!(is_open(&doors, "a"));
        a.stop();
        assert!(!is_open(&doors, "a"));
    }

    #[tokio::test]
    async fn each_use_is_told_once() {
        let system = ActorSystem::new("doors");
        let (doors, _) = doors(&system);
        let uses = |nanos: [u64; 2]| nanos.map(|nanos| doors.way_to((7, "a"), at(nanos)));
        let used = |at, count| Use {
            at: Time::from_nanos(at),
            place: 0,
            count,
        };
        uses([5, 3]);
        assert_eq!(doors.collect(), [used(5, 2)]);
        assert_eq!(doors.collect(), []);
        uses([6, 8]);
        assert_eq!(doors.shut(7, 1), None, "that of another one");
        assert_eq!(doors.shut(7, 0), Some(used(8, 2)));
        assert_eq!(doors.collect(), []);
        assert_eq!(doors.shut(7, 0), None);
    }
}
