//! Entry: all that a node holds for one key: the value, what peers have of its writes, what it has of
//! theirs.

use crate::logic::digest::Digest;
use crate::logic::replicated::causal::{Causal, Renaming};
use crate::logic::replicated::deltas::DeltaLog;
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::message::{Content, Delta, Key, State};
use crate::logic::replicated::pruning::{self, Marks, Pruning};
use crate::logic::replicated::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The entry of a key.
#[derive(Clone, Debug)]
pub struct Entry {
    state: State,
    /// This node's writes, on their way to the others.
    pub log: DeltaLog,
    /// About how large the value is, or more: what was removed is not taken off.
    bytes: usize,
    /// Up to which number the writes of others are in the value.
    applied: BTreeMap<Replica, u64>,
    /// How often the state has changed.
    version: u64,
    /// Which version is stored, for entries that last.
    pub stored: u64,
    /// Whether it is to be stored.
    pub durable: bool,
}

/// Who joins, and when: what pruning must know.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// This node.
    pub me: Replica,
    /// Milliseconds of the wall clock.
    pub wall: u64,
    /// Who is a member.
    pub members: &'a BTreeSet<Replica>,
}

/// What became of a delta.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// Deltas before it are missing.
    Behind,
    /// It is in the value; whether it changed it.
    Joined(bool),
}

impl Entry {
    /// An entry whose value nobody has written.
    #[must_use]
    pub fn blank(key: Key, type_name: Arc<str>, shape: &Store, durable: bool) -> Self {
        let content = Content::Live(Arc::new(Causal::empty(shape)));
        Self::new(key, type_name, content, durable)
    }

    /// An entry that was deleted.
    #[must_use]
    pub fn deleted(key: Key, type_name: Arc<str>, durable: bool) -> Self {
        Self::new(key, type_name, Content::Deleted, durable)
    }

    fn new(key: Key, type_name: Arc<str>, content: Content, durable: bool) -> Self {
        Self {
            state: State {
                key,
                type_name,
                content,
                marks: Marks::new(),
            },
            log: DeltaLog::default(),
            bytes: 0,
            applied: BTreeMap::new(),
            version: 1,
            stored: 0,
            durable,
        }
    }

    /// What others may know.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The value; `None` if it was deleted.
    #[must_use]
    pub fn value(&self) -> Option<&Arc<Causal>> {
        match &self.state.content {
            Content::Deleted => None,
            Content::Live(value) => Some(value),
        }
    }

    /// How often the state has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether what is here now will outlive this process, or need not.
    #[must_use]
    pub fn is_stored(&self, version: u64) -> bool {
        !self.durable || self.stored >= version
    }

    /// Takes the value out to be changed; to be given back by [`Entry::changed`].
    #[must_use]
    pub fn take(&mut self) -> Option<Arc<Causal>> {
        match &mut self.state.content {
            Content::Deleted => None,
            Content::Live(value) => {
                let blank = Arc::new(Causal::empty(&value.store));
                Some(std::mem::replace(value, blank))
            }
        }
    }

    /// By how much `value` may grow if it may have `bytes_max`. Exact only when that is little: working
    /// out the size of a large value costs as much as it is large.
    pub fn room(&mut self, value: &Causal, bytes_max: usize) -> usize {
        if self.bytes >= bytes_max / 2 {
            self.bytes = value.weight();
        }
        bytes_max.saturating_sub(self.bytes)
    }

    /// The value after changes of this node. Returns whether there were any.
    pub fn changed(&mut self, value: Arc<Causal>, delta: Option<Causal>) -> bool {
        self.state.content = Content::Live(value);
        let changed = delta.is_some();
        if let Some(delta) = delta {
            self.bytes = self.bytes.saturating_add(delta.weight());
            self.log.push(delta);
            self.version += 1;
        }
        changed
    }

    /// Deletes it, for good.
    pub fn delete(&mut self) {
        if self.state.content != Content::Deleted {
            self.bury();
        }
        self.log.reset();
    }

    fn bury(&mut self) {
        self.state.content = Content::Deleted;
        self.state.marks.clear();
        self.log.drop_kept();
        self.version += 1;
    }

    /// Joins what another node has; whether that changed this.
    pub fn join(&mut self, other: &State, scene: Scene<'_>) -> bool {
        match (&self.state.content, &other.content) {
            (Content::Deleted, _) => false,
            (Content::Live(_), Content::Deleted) => {
                self.bury();
                true
            }
            (Content::Live(_), Content::Live(theirs)) => {
                let mut changed = self.join_marks(&other.marks, scene);
                changed |= self.join_value(theirs, Causal::join);
                changed |= self.sign(scene);
                self.version += u64::from(changed);
                changed
            }
        }
    }

    /// Joins writes of `from`, if those before them are here.
    pub fn join_delta(&mut self, from: Replica, delta: &Delta, scene: Scene<'_>) -> Applied {
        if self.state.content == Content::Deleted {
            return Applied::Joined(false);
        }
        let applied = self.applied.get(&from).copied().unwrap_or(0);
        if delta.base > applied {
            return Applied::Behind;
        }
        let mut changed = self.join_marks(&delta.marks, scene);
        changed |= self.join_value(&delta.delta, Causal::join_delta);
        self.has_applied(from, delta.last);
        self.version += u64::from(changed);
        Applied::Joined(changed)
    }

    /// The state of `from` that was joined had all its writes up to `last`.
    pub fn has_applied(&mut self, from: Replica, last: u64) {
        let applied = self.applied.entry(from).or_default();
        *applied = last.max(*applied);
    }

    fn join_value(
        &mut self,
        theirs: &Arc<Causal>,
        join: impl Fn(&mut Causal, &Causal) -> bool,
    ) -> bool {
        let Content::Live(mine) = &mut self.state.content else {
            return false;
        };
        if Arc::ptr_eq(mine, theirs) {
            return false;
        }
        self.bytes = self.bytes.saturating_add(theirs.weight());
        let marks = &self.state.marks;
        if pruning::concerns(theirs, marks) {
            let mut theirs = Causal::clone(theirs);
            pruning::rename_all(&mut theirs, marks);
            join(Arc::make_mut(mine), &theirs)
        } else {
            join(Arc::make_mut(mine), theirs)
        }
    }

    fn join_marks(&mut self, marks: &Marks, scene: Scene<'_>) -> bool {
        if marks.is_empty() && self.state.marks.is_empty() {
            return false;
        }
        let changed = pruning::join(&mut self.state.marks, marks, scene.wall, |replica| {
            scene.members.contains(&replica)
        });
        self.rename() | changed
    }

    /// Gives writes the names that the marks say.
    fn rename(&mut self) -> bool {
        let marks = &self.state.marks;
        let Content::Live(value) = &mut self.state.content else {
            return false;
        };
        if !pruning::concerns(value, marks) {
            return false;
        }
        // What is kept has the old names.
        self.log.drop_kept();
        pruning::rename_all(Arc::make_mut(value), marks)
    }

    /// Signs the marks that this node has not signed: its own copy is in the state now.
    fn sign(&mut self, scene: Scene<'_>) -> bool {
        let mut signed = false;
        if scene.members.contains(&scene.me) {
            for mark in self.state.marks.values_mut() {
                if let Pruning::Started { seen, .. } = mark {
                    signed |= seen.insert(scene.me);
                }
            }
        }
        signed
    }

    /// Drops marks that have expired or whose owner is gone; whether there were any.
    pub fn tidy(&mut self, scene: Scene<'_>) -> bool {
        let changed = self.join_marks(&Marks::new(), scene);
        self.version += u64::from(changed);
        changed
    }

    /// Marks the writes of `gone` as to be taken over by this node.
    pub fn start_pruning(&mut self, gone: Replica, scene: Scene<'_>) -> bool {
        let writes = self.value().map_or(0, |value| value.context.highest(gone));
        if writes == 0 || self.state.marks.contains_key(&gone) {
            return false;
        }
        let mark = Pruning::Started {
            owner: scene.me,
            seen: [scene.me].into(),
        };
        self.state.marks.insert(gone, mark);
        self.version += 1;
        true
    }

    /// Takes over the writes of those who are gone, whose marks all members have signed; whether
    /// there were any.
    pub fn perform_pruning(&mut self, scene: Scene<'_>, expires: u64) -> bool {
        let me = scene.me;
        let signed = |mark: &Pruning| match mark {
            Pruning::Started { owner, seen } => *owner == me && scene.members.is_subset(seen),
            Pruning::Performed { .. } => false,
        };
        let marks = &mut self.state.marks;
        let due: Vec<Replica> = marks
            .iter()
            .filter(|(_, mark)| signed(mark))
            .map(|(gone, _)| *gone)
            .collect();
        let Content::Live(value) = &mut self.state.content else {
            return false;
        };
        for gone in &due {
            let offset = value.context.highest(me);
            let count = value.context.highest(*gone);
            let Some(last) = offset.checked_add(count) else {
                continue;
            };
            let renaming = Renaming {
                from: *gone,
                to: me,
                offset,
                count,
            };
            let mark = Pruning::Performed { renaming, expires };
            marks.insert(*gone, mark);
            let value = Arc::make_mut(value);
            value.rename(&renaming);
            // Of what nobody has nothing will come.
            value.context.insert_range(me, offset + 1, last);
        }
        if !due.is_empty() {
            self.log.drop_kept();
            self.version += 1;
        }
        !due.is_empty()
    }

    /// Forgets what it has from nodes that are gone.
    pub fn retain_peers(&mut self, is_peer: impl Fn(Replica) -> bool) {
        self.applied.retain(|peer, _| is_peer(*peer));
        self.log.retain(is_peer);
    }

    /// The fingerprint of the state, never 0. Nodes that hold the same have the same.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut digest = Digest::new();
        let State {
            key,
            type_name,
            content,
            marks,
        } = &self.state;
        digest.number(key.len() as u64).bytes(key.as_bytes());
        digest.number(type_name.len() as u64);
        digest.bytes(type_name.as_bytes());
        if let Content::Live(value) = content {
            value.digest(&mut digest);
        }
        pruning::digest(marks, &mut digest);
        digest.finish().max(1)
    }
}
