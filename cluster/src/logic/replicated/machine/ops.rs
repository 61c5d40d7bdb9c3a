//! Ops: reads and writes that wait for the answers of other nodes, and when they are done.

use super::{Machine, Moment, Output};
use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::draft::{Draft, Finished, Unmade};
use crate::logic::replicated::entry::Entry;
use crate::logic::replicated::level::Level;
use crate::logic::replicated::machine::is_durable;
use crate::logic::replicated::message::{Key, Message, ReadAnswer};
use crate::logic::replicated::store::Store;
use otava_actor::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Why an operation did not succeed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The key cannot be used, or there are too many.
    BadKey,
    /// The key was deleted.
    Deleted,
    /// Nobody who was asked has it.
    NotFound,
    /// It could not be stored here.
    NotStored,
    /// Not enough nodes have answered in time.
    Timeout {
        /// How many did.
        answered: usize,
        /// How many had to.
        needed: usize,
    },
    /// The key holds another type.
    TypeMismatch {
        /// Which it holds.
        held: Arc<str>,
    },
    /// A change could not be made.
    Unmade(Unmade),
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The key.
    pub key: Key,
    /// The type that it is taken to have.
    pub type_name: Arc<str>,
    /// Whose answers are needed.
    pub level: Level,
    /// For how long they are waited for.
    pub within: Duration,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Ops {
    last_id: u64,
    waiting: BTreeMap<u64, Op>,
    by_key: BTreeMap<Key, BTreeSet<u64>>,
    /// When each is looked at next.
    due: BTreeSet<(Time, u64)>,
}

#[derive(Debug)]
struct Op {
    request: Request,
    kind: Kind,
    deadline: Time,
    due: Time,
}

#[derive(Debug)]
enum Kind {
    Read {
        /// Who has answered.
        answered: BTreeSet<Replica>,
    },
    Write {
        /// The number that the delta of the write has in the log.
        number: u64,
        /// The version of the entry that it made.
        version: u64,
        /// It deletes.
        deletes: bool,
    },
}

impl Ops {
    pub(super) fn next(&self) -> Time {
        self.due.first().map_or(Time::MAX, |(at, _)| *at)
    }

    fn add(&mut self, op: Op) -> u64 {
        let id = self.last_id;
        let keys = self.by_key.entry(op.request.key.clone()).or_default();
        keys.insert(id);
        self.due.insert((op.due, id));
        self.waiting.insert(id, op);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Op> {
        let op = self.waiting.remove(&id)?;
        self.due.remove(&(op.due, id));
        let key = &op.request.key;
        if let Some(ids) = self.by_key.get_mut(key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_key.remove(key);
            }
        }
        Some(op)
    }

    fn of(&self, key: &Key) -> Vec<u64> {
        let ids = self.by_key.get(key);
        ids.map_or_else(Vec::new, |ids| ids.iter().copied().collect())
    }
}

impl Machine {
    /// Reads a value; [`Output::Done`] has it.
    pub fn read(&mut self, now: Moment, request: Request) -> u64 {
        let answered = BTreeSet::new();
        let id = self.begin(now, request, Kind::Read { answered });
        self.ask_peers(id);
        self.resume_op(id);
        self.flush();
        id
    }

    /// Changes a value by `edit`; [`Output::Done`] says when enough nodes have the change. If no such
    /// value is there yet, it begins as an empty one of the shape of `blank`.
    ///
    /// What `edit` does stands on this node at once, whatever becomes of the rest.
    ///
    /// # Panics
    /// If `edit` keeps the draft.
    pub fn write(
        &mut self,
        now: Moment,
        request: Request,
        blank: &Store,
        edit: impl FnOnce(Draft),
    ) -> u64 {
        if let Err(failure) = self.admit(&request) {
            return self.fail_at_once(failure);
        }
        let key = request.key.clone();
        if self.table.get(&key).is_none() {
            let durable = is_durable(&self.config.durable, &key);
            let type_name = request.type_name.clone();
            let entry = Entry::blank(key.clone(), type_name, blank, durable);
            self.table.insert(entry);
            self.has_changed(&key);
        }
        let room_max = self.config.value_bytes_max;
        let Some(entry) = self.table.get_mut(&key) else {
            return self.fail_at_once(Failure::BadKey);
        };
        let Some(value) = entry.take() else {
            return self.fail_at_once(Failure::Deleted);
        };
        let room = entry.room(&value, room_max);
        let draft = Draft::new(value, self.replica, now.wall).with_room(room);
        let (draft, home) = draft.lend();
        edit(draft);
        let Finished {
            value,
            delta,
            failed,
            ..
        } = home.back();
        let waits_for_others = request.level != Level::Local;
        if entry.changed(value, delta) {
            self.unsynced.insert(key.clone());
            self.has_changed(&key);
        } else if waits_for_others {
            // Others may not have yet what makes this change none.
            entry.log.reset();
            self.unsynced.insert(key.clone());
        }
        if let Some(unmade) = failed {
            return self.fail_at_once(Failure::Unmade(unmade));
        }
        self.wait_for_write(now, request, false)
    }

    /// Deletes a key for good: it can never be used again.
    pub fn delete(&mut self, now: Moment, request: Request) -> u64 {
        match self.admit(&request) {
            Ok(()) => {}
            // Others may not know it yet.
            Err(Failure::Deleted) => {}
            Err(failure) => return self.fail_at_once(failure),
        }
        let key = request.key.clone();
        match self.table.get_mut(&key) {
            Some(entry) => entry.delete(),
            None => {
                let durable = is_durable(&self.config.durable, &key);
                let type_name = request.type_name.clone();
                let mut entry = Entry::deleted(key.clone(), type_name, durable);
                entry.log.reset();
                self.table.insert(entry);
            }
        }
        self.unsynced.insert(key.clone());
        self.has_changed(&key);
        self.wait_for_write(now, request, true)
    }

    fn admit(&self, request: &Request) -> Result<(), Failure> {
        match self.table.get(&request.key) {
            Some(entry) => match check(entry, &request.type_name) {
                Ok(_) => Ok(()),
                Err(failure) => Err(failure),
            },
            None => {
                let room = self.table.len() < self.config.entries_max;
                let fits = Self::is_name(&request.key) && Self::is_name(&request.type_name);
                if room && fits {
                    Ok(())
                } else {
                    Err(Failure::BadKey)
                }
            }
        }
    }

    fn fail_at_once(&mut self, failure: Failure) -> u64 {
        self.ops.last_id += 1;
        let id = self.ops.last_id;
        self.outputs.push_back(Output::Done(id, Err(failure)));
        self.flush();
        id
    }

    fn wait_for_write(&mut self, now: Moment, request: Request, deletes: bool) -> u64 {
        let key = request.key.clone();
        let entry = self.table.get(&key);
        let number = entry.map_or(0, |entry| entry.log.last());
        let version = entry.map_or(0, Entry::version);
        if request.level != Level::Local {
            self.spread(now, &key);
        }
        let kind = Kind::Write {
            number,
            version,
            deletes,
        };
        let id = self.begin(now, request, kind);
        self.resume_op(id);
        self.flush();
        id
    }

    fn begin(&mut self, now: Moment, request: Request, kind: Kind) -> u64 {
        let deadline = now.time + request.within;
        let due = deadline.min(now.time + self.config.resend);
        self.ops.last_id += 1;
        self.ops.add(Op {
            request,
            kind,
            deadline,
            due,
        })
    }

    /// Asks all peers that count and have not answered.
    fn ask_peers(&mut self, id: u64) {
        let Some(Op { request, kind, .. }) = self.ops.waiting.get(&id) else {
            return;
        };
        let Kind::Read { answered } = kind else {
            return;
        };
        if request.level == Level::Local {
            return;
        }
        let key = request.key.clone();
        let silent = self.peers.iter().filter(|(_, peer)| peer.counts);
        let silent = silent.map(|(replica, _)| *replica);
        let silent: Vec<Replica> = silent.filter(|peer| !answered.contains(peer)).collect();
        let known = self.table.fingerprint(&key);
        for peer in silent {
            let key = key.clone();
            self.push(peer, Message::Read { id, key, known });
        }
    }

    /// A peer asks what is here.
    pub(super) fn asked(&mut self, from: Replica, id: u64, key: &Key, known: u64) {
        let here = self.table.fingerprint(key);
        let answer = match self.table.get(key) {
            None => ReadAnswer::Nothing,
            Some(_) if here == known => ReadAnswer::Same,
            Some(entry) => ReadAnswer::State(entry.state().clone()),
        };
        self.push(from, Message::ReadAnswer { id, answer });
    }

    /// A peer has answered.
    pub(super) fn answered(&mut self, now: Moment, from: Replica, id: u64, answer: ReadAnswer) {
        let Some(op) = self.ops.waiting.get(&id) else {
            return;
        };
        if let ReadAnswer::State(state) = &answer {
            // An answer about something else is none; one of another type counts, and is told.
            if state.key != op.request.key {
                return;
            }
            if !self.join(now, state) {
                let held = state.type_name.clone();
                return self.end(id, Err(Failure::TypeMismatch { held }));
            }
        }
        if let Some(op) = self.ops.waiting.get_mut(&id)
            && let Kind::Read { answered } = &mut op.kind
        {
            answered.insert(from);
        }
        self.resume_op(id);
    }

    /// A peer has this node's writes up to a number.
    pub(super) fn acked(&mut self, from: Replica, key: &Key, last: u64) {
        let Some(entry) = self.table.get_mut(key) else {
            return;
        };
        entry.log.ack(from, last);
        if self.unsynced.contains(key) {
            let peers = self.peers.keys().copied();
            if entry.log.is_everywhere(peers) {
                self.unsynced.remove(key);
            }
        }
        self.resume(key);
    }

    /// Looks whether operations on `key` are done.
    pub(super) fn resume(&mut self, key: &Key) {
        for id in self.ops.of(key) {
            self.resume_op(id);
        }
    }

    /// The same for all operations: who counts has changed. New members are asked too.
    pub(super) fn resume_all(&mut self, now: Moment) {
        let ids: Vec<u64> = self.ops.waiting.keys().copied().collect();
        for id in ids {
            self.resume_op(id);
            if let Some(op) = self.ops.waiting.get(&id)
                && op.request.level != Level::Local
            {
                let key = op.request.key.clone();
                match op.kind {
                    Kind::Read { .. } => self.ask_peers(id),
                    Kind::Write { .. } => self.spread(now, &key),
                }
            }
        }
    }

    fn resume_op(&mut self, id: u64) {
        let Some(op) = self.ops.waiting.get(&id) else {
            return;
        };
        let (answered, needed) = self.count(op);
        if answered >= needed && self.is_stored(op) {
            let result = self.result(op);
            self.end(id, result);
        }
    }

    /// How many have answered, and how many must.
    fn count(&self, op: &Op) -> (usize, usize) {
        let has = |replica: &Replica| match &op.kind {
            Kind::Read { answered } => answered.contains(replica),
            Kind::Write { number, .. } => {
                let entry = self.table.get(&op.request.key);
                entry.is_some_and(|entry| entry.log.has(*replica, *number))
            }
        };
        let counting = self.peers.iter().filter(|(_, peer)| peer.counts);
        let me = usize::from(self.members.me_counts);
        let members = counting.clone().count() + me;
        let answered = counting.filter(|(replica, _)| has(replica)).count() + me;
        (answered, op.request.level.needed(members))
    }

    fn is_stored(&self, op: &Op) -> bool {
        let Kind::Write { version, .. } = op.kind else {
            return true;
        };
        let entry = self.table.get(&op.request.key);
        entry.is_none_or(|entry| entry.is_stored(version))
    }

    fn result(&self, op: &Op) -> Result<Option<Arc<Causal>>, Failure> {
        let entry = self.table.get(&op.request.key);
        let entry = entry.ok_or(Failure::NotFound)?;
        match op.kind {
            Kind::Write { deletes: true, .. } => Ok(None),
            Kind::Write { .. } => check(entry, &op.request.type_name).map(|_| None),
            Kind::Read { .. } => check(entry, &op.request.type_name).map(Some),
        }
    }

    fn end(&mut self, id: u64, result: Result<Option<Arc<Causal>>, Failure>) {
        if self.ops.remove(id).is_some() {
            self.outputs.push_back(Output::Done(id, result));
        }
    }

    /// Writes that wait until `key` is stored have waited in vain.
    pub(super) fn fail_unstored(&mut self, key: &Key) {
        for id in self.ops.of(key) {
            let op = self.ops.waiting.get(&id);
            if op.is_some_and(|op| !self.is_stored(op)) {
                self.end(id, Err(Failure::NotStored));
            }
        }
    }

    /// Ends what is over, and asks again.
    pub(super) fn ops_timeout(&mut self, now: Moment) {
        while self.ops.next() <= now.time {
            let Some((_, id)) = self.ops.due.pop_first() else {
                return;
            };
            let Some(op) = self.ops.waiting.get_mut(&id) else {
                continue;
            };
            op.due = op.deadline.min(now.time + self.config.resend);
            if op.deadline > now.time {
                self.ops.due.insert((op.due, id));
                let is_read = matches!(op.kind, Kind::Read { .. });
                let key = op.request.key.clone();
                if is_read {
                    self.ask_peers(id);
                } else if op.request.level != Level::Local {
                    self.spread(now, &key);
                }
                continue;
            }
            let op = &self.ops.waiting[&id];
            let (answered, needed) = self.count(op);
            let failure = if answered >= needed {
                Failure::NotStored
            } else {
                Failure::Timeout { answered, needed }
            };
            self.end(id, Err(failure));
        }
    }
}

/// The value of an entry, if it has this type and was not deleted.
fn check(entry: &Entry, type_name: &str) -> Result<Arc<Causal>, Failure> {
    let held = &entry.state().type_name;
    if **held != *type_name {
        let held = held.clone();
        return Err(Failure::TypeMismatch { held });
    }
    entry.value().cloned().ok_or(Failure::Deleted)
}
