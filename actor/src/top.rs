//! Top: the actors at the top of a tree, where threads that spawn and threads that end actors meet.
//!
//! The two kinds of threads do not wait for each other. An actor that ends leaves a note, behind a
//! lock of its own, and stays in the family until somebody sweeps: the thread that spawns, every
//! [`SPAWNS_PER_SWEEP`] actors, or the one that ends them, if too many notes lie there. So the memory
//! of an actor goes back, as a rule, to the thread that asks for more of it, and the family stays in
//! the cache of that thread.
//!
//! In a small family, and in one that is closed, everyone is swept at once: whoever ends the last
//! actor sees that it was the last, because the family is closed before the notes are read once more.

use crate::cell::Node;
use crate::family::{Children, Place, Refused};
use crate::sync::{Apart, lock};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const SPAWNS_PER_SWEEP: u32 = 32;
/// How many actors that have ended may still be in the family.
const NOTES_MAX: usize = 128;
/// And at most one for so many that live.
const LIVING_PER_NOTE: usize = 4;

#[derive(Default)]
pub(crate) struct Top {
    family: Apart<Mutex<Family>>,
    notes: Apart<Mutex<Notes>>,
    /// Changed under the lock of the family.
    closed: AtomicBool,
}

#[derive(Default)]
struct Family {
    children: Children,
    spawned: u32,
}

/// Who has ended, by place and number.
#[derive(Default)]
struct Notes {
    ended: Vec<(Place, u64)>,
    limit: usize,
}

impl Top {
    pub(crate) fn adopt(&self, child: Arc<dyn Node>) -> Result<(), Refused> {
        let sweeps = {
            let mut family = lock(&self.family.0);
            if self.is_closed() {
                return Err(Refused::Stopping);
            }
            child.join(&mut family.children)?;
            family.spawned = family.spawned.wrapping_add(1);
            family.spawned.is_multiple_of(SPAWNS_PER_SWEEP)
        };
        if sweeps {
            // It does not find the family empty: the new child has not begun to live, and only whoever
            // ends all actors can have ended it.
            let _ = self.sweep();
        }
        Ok(())
    }

    /// `child` has ended. Whether it was the last of a closed family.
    pub(crate) fn bury(&self, child: &dyn Node) -> bool {
        let many = {
            let mut notes = lock(&self.notes.0);
            notes.ended.push((child.place(), child.uid()));
            notes.ended.len() > notes.limit
        };
        (many || self.is_closed()) && self.sweep()
    }

    /// Lets nobody in any more, and gives out those who live.
    pub(crate) fn close(&self) -> Vec<Arc<dyn Node>> {
        {
            let _family = lock(&self.family.0);
            self.closed.store(true, SeqCst);
        }
        self.living()
    }

    pub(crate) fn living(&self) -> Vec<Arc<dyn Node>> {
        self.sweep();
        lock(&self.family.0).children.all()
    }

    /// As [`Children::first`].
    pub(crate) fn first(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize) {
        self.sweep();
        lock(&self.family.0).children.first(most)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Takes those out who have ended. Whether nobody is left of a closed family.
    fn sweep(&self) -> bool {
        let ended = {
            let mut notes = lock(&self.notes.0);
            let room = Vec::with_capacity(notes.limit);
            std::mem::replace(&mut notes.ended, room)
        };
        let mut gone = Vec::with_capacity(ended.len());
        let (living, is_over) = {
            let children = &mut lock(&self.family.0).children;
            gone.extend((ended.iter()).filter_map(|&(place, uid)| children.bury(place, uid)));
            let living = children.len();
            (living, living == 0 && self.is_closed())
        };
        lock(&self.notes.0).limit = (living / LIVING_PER_NOTE).min(NOTES_MAX);
        drop(gone);
        is_over
    }
}
