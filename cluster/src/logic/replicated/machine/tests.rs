//! Machine tests: any number of replicators in one thread, on virtual time, over a network that loses,
//! repeats, reorders and cuts. `SEED=7 cargo test -p otava-cluster --lib machine` runs one seed.

use super::*;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::level::Level;
use crate::logic::replicated::pruning::Pruning;
use crate::logic::replicated::store::{Dots, Element, Store};
use crate::replicated::wire;

mod faults;
mod scenarios;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn config() -> MachineConfig {
    MachineConfig {
        delta_interval: Duration::from_millis(200),
        durable: vec!["kept-*".into()],
        durable_mark_ttl: Duration::from_secs(900),
        entries_max: 10_000,
        gossip_interval: SECOND,
        mark_ttl: Duration::from_secs(600),
        message_bytes_max: 4_096,
        notify_interval: Duration::from_millis(100),
        pruning_after: Duration::from_secs(5),
        pruning_interval: Duration::from_secs(5),
        resend: Duration::from_millis(500),
        value_bytes_max: 100_000,
    }
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) machine: Machine,
    /// How operations have ended.
    pub(super) done: BTreeMap<u64, Result<Option<Arc<Causal>>, Failure>>,
    pub(super) changes: Vec<(Key, Content)>,
    /// What is on its disk.
    pub(super) disk: BTreeMap<Key, Vec<u8>>,
    /// Whether its disk takes anything.
    pub(super) disk_works: bool,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) nodes: BTreeMap<u16, Node>,
    /// Members that nobody has declared out, though they may not run.
    pub(super) members: BTreeMap<u16, NodeId>,
    queue: BTreeMap<(Time, u64), (NodeId, NodeId, Vec<u8>)>,
    order: u64,
    pub(super) rng: Rng,
    pub(super) cut: BTreeSet<(u16, u16)>,
    pub(super) loss_percent: u64,
    pub(super) repeat_percent: u64,
    pub(super) config: MachineConfig,
    pub(super) sent: u64,
    pub(super) largest: usize,
}

impl World {
    pub(super) fn new(seed: u64, nodes: u16) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            members: BTreeMap::new(),
            queue: BTreeMap::new(),
            order: 0,
            rng: Rng::seeded(seed),
            cut: BTreeSet::new(),
            loss_percent: 0,
            repeat_percent: 0,
            config: config(),
            sent: 0,
            largest: 0,
        };
        for number in 1..=nodes {
            world.start(number, BTreeMap::new());
        }
        world.tell_members();
        world
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            time: self.now,
            wall: 1_700_000_000_000_000 + self.now.as_nanos() / 1_000,
        }
    }

    /// Starts a run of a node with what is on its disk.
    pub(super) fn start(&mut self, number: u16, disk: BTreeMap<Key, Vec<u8>>) {
        let addr = ([10, 0, 0, 1], number).into();
        let id = NodeId::new(format!("n{number}"), addr, self.rng.next_u64());
        let stored = disk
            .values()
            .map(|bytes| wire::decode_state(bytes).unwrap());
        let stored = stored.collect();
        let rng = self.rng.fork();
        let config = self.config.clone();
        let machine = Machine::new(id.clone(), config, rng, self.moment(), stored);
        let node = Node {
            id: id.clone(),
            machine,
            done: BTreeMap::new(),
            changes: Vec::new(),
            disk,
            disk_works: true,
        };
        self.nodes.insert(number, node);
        self.members.insert(number, id);
    }

    /// The node vanishes; the others still count it. Returns what is on its disk.
    pub(super) fn crash(&mut self, number: u16) -> BTreeMap<Key, Vec<u8>> {
        self.nodes
            .remove(&number)
            .map_or_else(BTreeMap::new, |node| node.disk)
    }

    /// All learn who is a member.
    pub(super) fn tell_members(&mut self) {
        let members = self.members.clone();
        let numbers: Vec<u16> = self.nodes.keys().copied().collect();
        let leader = members
            .keys()
            .find(|number| self.nodes.contains_key(number))
            .copied();
        for number in numbers {
            let seen = Members {
                me_counts: true,
                peers: members.values().map(|id| (id.clone(), true)).collect(),
                all: members.values().map(|id| Replica(id.incarnation)).collect(),
                leads: leader == Some(number),
                all_reachable: members.keys().all(|number| self.nodes.contains_key(number)),
            };
            self.with(number, |machine, now| machine.set_members(now, seen));
        }
    }

    pub(super) fn split(&mut self, one: &[u16], other: &[u16]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cut.extend([(a, b), (b, a)]);
        }
    }

    /// Lets a node do something, and does what it wants done.
    pub(super) fn with<T>(
        &mut self,
        number: u16,
        act: impl FnOnce(&mut Machine, Moment) -> T,
    ) -> Option<T> {
        let now = self.moment();
        let node = self.nodes.get_mut(&number)?;
        let result = act(&mut node.machine, now);
        let mut sends = Vec::new();
        while let Some(output) = node.machine.poll_output() {
            match output {
                Output::Changed(key, content) => node.changes.push((key, content)),
                Output::Done(id, result) => {
                    assert_eq!(node.done.insert(id, result), None, "ends once");
                }
                Output::Send(to, messages) => {
                    let bytes = wire::encode_messages(&messages).unwrap();
                    assert_eq!(wire::decode_messages(&bytes).as_ref(), Ok(&messages));
                    sends.push((to, bytes));
                }
                Output::Store(states) => {
                    if node.disk_works {
                        let states = states.iter();
                        let rows = states
                            .map(|state| (state.key.clone(), wire::encode_state(state).unwrap()));
                        node.disk.extend(rows);
                    }
                    let is_stored = node.disk_works;
                    node.machine.stored(now, is_stored);
                }
            }
        }
        let from = node.id.clone();
        for (to, bytes) in sends {
            self.transmit(&from, &to, bytes);
        }
        Some(result)
    }

    fn transmit(&mut self, from: &NodeId, to: &NodeId, bytes: Vec<u8>) {
        self.sent += 1;
        self.largest = self.largest.max(bytes.len());
        let cut = self.cut.contains(&(from.addr.port(), to.addr.port()));
        if cut || self.rng.below(100) < self.loss_percent {
            return;
        }
        let copies = 1 + u32::from(self.rng.below(100) < self.repeat_percent);
        for _ in 0..copies {
            let delay = Duration::from_micros(1_000 + self.rng.below(20_000));
            self.order += 1;
            let packet = (from.clone(), to.clone(), bytes.clone());
            self.queue.insert((self.now + delay, self.order), packet);
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let packet = self
                .queue
                .first_key_value()
                .map_or(Time::MAX, |((at, _), _)| *at);
            let timers = self.nodes.iter();
            let timer = timers
                .map(|(number, node)| (node.machine.poll_timeout(), *number))
                .min();
            let (at, number) = timer.unwrap_or((Time::MAX, 0));
            if packet.min(at) > end {
                break;
            }
            self.now = self.now.max(packet.min(at));
            if packet <= at {
                if let Some((_, (from, to, bytes))) = self.queue.pop_first() {
                    self.deliver(&from, &to, &bytes);
                }
            } else {
                self.with(number, Machine::handle_timeout);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, from: &NodeId, to: &NodeId, bytes: &[u8]) {
        let number = to.addr.port();
        if self.nodes.get(&number).is_some_and(|node| node.id == *to) {
            for message in wire::decode_messages(bytes).unwrap() {
                self.with(number, |machine, now| machine.message(now, from, message));
            }
        }
    }

    pub(super) fn request(&self, key: &str, type_name: &str, level: Level) -> Request {
        Request {
            key: key.into(),
            type_name: type_name.into(),
            level,
            within: 5 * SECOND,
        }
    }

    /// Begins to change a value at a node.
    pub(super) fn edit(
        &mut self,
        number: u16,
        key: &str,
        level: Level,
        blank: &Store,
        edit: impl FnOnce(&mut Draft),
    ) -> u64 {
        let request = self.request(key, name_of(blank), level);
        let begun = self.with(number, |machine, now| {
            machine.write(now, request, blank, |mut draft| edit(&mut draft))
        });
        begun.unwrap()
    }

    pub(super) fn insert(&mut self, number: u16, key: &str, level: Level, name: u32) -> u64 {
        self.edit(number, key, level, &set(), |draft| {
            draft.insert(element(name))
        })
    }

    /// Reads a value, however long it takes.
    pub(super) fn read(
        &mut self,
        number: u16,
        key: &str,
        blank: &Store,
        level: Level,
    ) -> Result<Store, Failure> {
        let request = self.request(key, name_of(blank), level);
        let id = self
            .with(number, |machine, now| machine.read(now, request))
            .unwrap();
        while !self.nodes[&number].done.contains_key(&id) {
            self.run(Duration::from_millis(50));
        }
        let result = self.nodes[&number].done[&id].clone();
        result.map(|value| value.unwrap().store.clone())
    }

    /// How an operation has ended; it must have.
    pub(super) fn done(&self, number: u16, id: u64) -> Result<(), Failure> {
        self.nodes[&number].done[&id].clone().map(drop)
    }

    /// What a node holds.
    pub(super) fn local(&self, number: u16, key: &str) -> Option<Store> {
        let entry = self.nodes[&number].machine.entry(key)?;
        entry.value().map(|value| value.store.clone())
    }

    /// Whether all nodes hold exactly the same.
    pub(super) fn agree(&mut self) -> bool {
        let nodes = self.nodes.values_mut();
        let summaries: BTreeSet<Vec<u64>> =
            nodes.map(|node| node.machine.table.summary()).collect();
        summaries.len() <= 1
    }
}

pub(super) fn set() -> Store {
    Store::Set(BTreeMap::new())
}

pub(super) fn counter() -> Store {
    Store::Counter(Dots::new())
}

pub(super) fn element(name: u32) -> Element {
    Element::from(name.to_le_bytes().as_slice())
}

fn name_of(blank: &Store) -> &'static str {
    match blank {
        Store::Counter(_) => "counter",
        Store::Flag(_) => "flag",
        Store::Map(_) => "map",
        Store::Register(_) => "register",
        Store::Set(_) => "set",
    }
}

pub(super) fn elements(store: &Store) -> BTreeSet<u32> {
    let Store::Set(elements) = store else {
        panic!("{store:?} is no set");
    };
    let name = |element: &Element| u32::from_le_bytes((&**element).try_into().unwrap());
    elements.keys().map(name).collect()
}

pub(super) fn total(store: &Store) -> u64 {
    let Store::Counter(dots) = store else {
        panic!("{store:?} is no counter");
    };
    dots.values().map(|count| count.up).sum()
}

/// Whether nothing of an entry names `gone`, but for the marks.
pub(super) fn is_pruned(entry: &Entry, gone: Replica) -> bool {
    let mark = entry.state().marks.get(&gone);
    let named = entry.value().map_or(0, |value| value.context.highest(gone));
    named == 0 && mark.is_none_or(Pruning::is_performed)
}
