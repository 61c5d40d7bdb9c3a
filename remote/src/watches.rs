//! Watches: what this node watches at one peer, and what that peer watches here.

use crate::node_id::NodeId;
use crate::remote_ref::Address;
use crate::wire_format::{ExportId, SystemMessage, Target};
use otava_actor::{ActorPath, Ended, Terminated, Watcher, WatcherId, Watching};
use std::collections::BTreeMap;

/// What this node watches at one peer, by the number that the peer knows and by target. The peer is told of each once, however many watchers it has.
#[derive(Default)]
pub(crate) struct Watches {
    by_number: BTreeMap<u64, Watch>,
    numbers: BTreeMap<(Target, Option<NodeId>), u64>,
    last: u64,
}

pub(crate) struct Watch {
    pub(crate) address: Address,
    pub(crate) target: Target,
    path: ActorPath,
    uid: u64,
    watchers: Vec<Watcher>,
}

impl Watches {
    /// Registers a watcher. Returns the number of the watch if the peer does not know it yet.
    pub(crate) fn add(
        &mut self,
        address: &Address,
        target: &Target,
        path: &ActorPath,
        uid: u64,
        watcher: Watcher,
    ) -> Option<u64> {
        let key = (target.clone(), address.node().cloned());
        if let Some(number) = self.numbers.get(&key)
            && let Some(watch) = self.by_number.get_mut(number)
        {
            let id = watcher.id();
            if watch.watchers.iter().all(|known| known.id() != id) {
                watch.watchers.push(watcher);
            }
            return None;
        }
        self.last += 1;
        let watch = Watch {
            address: address.clone(),
            target: target.clone(),
            path: path.clone(),
            uid,
            watchers: vec![watcher],
        };
        self.numbers.insert(key, self.last);
        self.by_number.insert(self.last, watch);
        Some(self.last)
    }

    /// Takes a watcher back. Returns the watch if it has no watcher any more.
    pub(crate) fn take_back(
        &mut self,
        address: &Address,
        target: &Target,
        id: WatcherId,
    ) -> Option<(u64, Watch)> {
        let key = (target.clone(), address.node().cloned());
        let number = *self.numbers.get(&key)?;
        let watch = self.by_number.get_mut(&number)?;
        watch.watchers.retain(|watcher| watcher.id() != id);
        if !watch.watchers.is_empty() {
            return None;
        }
        self.take(number).map(|watch| (number, watch))
    }

    /// Takes out the watch of this number.
    pub(crate) fn take(&mut self, number: u64) -> Option<Watch> {
        let watch = self.by_number.remove(&number)?;
        let key = (watch.target.clone(), watch.address.node().cloned());
        self.numbers.remove(&key);
        Some(watch)
    }

    /// Takes out the watches of which this holds, in the order in which they began.
    pub(crate) fn take_where(&mut self, holds: impl Fn(&Watch) -> bool) -> Vec<Watch> {
        let of_them = self.by_number.iter().filter(|(_, watch)| holds(watch));
        let numbers: Vec<u64> = of_them.map(|(&number, _)| number).collect();
        let watches = numbers.into_iter().map(|number| self.take(number));
        watches.flatten().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Watch> {
        self.by_number.get(&number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Watch)> {
        self.by_number
            .iter()
            .map(|(&number, watch)| (number, watch))
    }
}

impl Watch {
    /// How the peer is told of it, if `run` of it is the present one.
    ///
    /// A watch of another run must not take hold there, and yet be answered: that the present run
    /// answers shows that the other one is over. So it names what cannot be.
    pub(crate) fn message(&self, number: u64, run: Option<u64>) -> SystemMessage {
        let target = match run {
            Some(run) if !self.means(run) => Target::Export(ExportId(0)),
            _ => self.target.clone(),
        };
        let watch = number;
        SystemMessage::Watch { watch, target }
    }

    /// Whether an actor of this run may be meant.
    pub(crate) fn means(&self, run: u64) -> bool {
        self.address.incarnation().is_none_or(|of| of == run)
    }

    /// Whom to tell of the end of the watched actor, and what.
    pub(crate) fn news(self, reason: Ended) -> impl Iterator<Item = (Watcher, Terminated)> {
        let Self { path, uid, .. } = self;
        let watchers = self.watchers.into_iter();
        watchers.map(move |watcher| (watcher, Terminated::new(path.clone(), uid, reason)))
    }
}

/// What a peer watches here, by its numbers.
#[derive(Default)]
pub(crate) struct Watched {
    /// `None`: just being registered.
    by_number: BTreeMap<u64, (Target, Option<Watching>)>,
    of_target: BTreeMap<Target, usize>,
}

/// A peer watches more than it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooManyWatched;

impl Watched {
    /// Actors of this node that one peer may watch at once.
    const MAX: usize = 1_000_000;
    /// Watches of one actor that a peer may hold. It needs one for each way of addressing it; and
    /// registering with an actor takes the longer the more watch it.
    const OF_TARGET_MAX: usize = 16;

    /// Makes room for a watch. Returns what had its number before, to be dropped unlocked.
    pub(crate) fn begin(
        &mut self,
        number: u64,
        target: &Target,
    ) -> Result<Option<Watching>, TooManyWatched> {
        let before = self.remove(number).flatten();
        let of_target = self.of_target.get(target).copied().unwrap_or_default();
        if self.by_number.len() >= Self::MAX || of_target >= Self::OF_TARGET_MAX {
            return Err(TooManyWatched);
        }
        self.of_target.insert(target.clone(), of_target + 1);
        self.by_number.insert(number, (target.clone(), None));
        Ok(before)
    }

    /// Keeps the registration of a watch that was begun; returns it if the watch is over already.
    pub(crate) fn began(&mut self, number: u64, watching: Watching) -> Option<Watching> {
        match self.by_number.get_mut(&number) {
            Some((_, place)) => place.replace(watching),
            None => Some(watching),
        }
    }

    /// Takes a watch out; `None` if there is none of this number.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Option<Watching>> {
        let (target, watching) = self.by_number.remove(&number)?;
        if let Some(count) = self.of_target.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.of_target.remove(&target);
            }
        }
        Some(watching)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Takes all out.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Option<Watching>> + use<> {
        let Self { by_number, .. } = std::mem::take(self);
        by_number.into_values().map(|(_, watching)| watching)
    }
}
