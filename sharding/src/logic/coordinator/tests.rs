//! Tests: a coordinator among regions that do at once what its tables say.

use super::*;
use crate::logic::allocation::LeastShards;
use crate::logic::epoch::Epoch;
use crate::logic::view::Host;
use crate::wire::{Claim, Entry, Phase, Table};
use otava_actor::Rng;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);

fn node(n: u16) -> NodeId {
    NodeId::new(format!("n{n:03}"), ([127, 0, 0, 1], n).into(), 1)
}

fn config(shards: u32) -> CoordinatorConfig {
    CoordinatorConfig {
        shards,
        strategy: Arc::new(LeastShards::default()),
        gather_limit: SECOND * 5,
        drain_shards_max: 32,
        rebalance_interval: SECOND,
        resend: SECOND / 2,
        table_pause: Duration::from_millis(5),
        superseded_pause: SECOND * 5,
    }
}

/// A region without delays: it has what the last table gave it.
#[derive(Default)]
struct Region {
    number: u64,
    term: u32,
    revision: u64,
    claims: BTreeMap<u32, (Epoch, Phase)>,
    table: Option<Arc<Table>>,
    /// It hears nothing.
    silent: bool,
    /// It ends nothing that moves.
    busy: bool,
}

struct Desk {
    coordinator: Coordinator,
    view: View,
    now: Time,
    next_term: u32,
    regions: BTreeMap<NodeId, Region>,
    table: Option<Arc<Table>>,
    legacies: Vec<Legacy>,
    /// Moves that began in one table, at most; and how many at all.
    most: usize,
    moves: usize,
}

impl Desk {
    fn new(shards: u32, regions: u16) -> Self {
        let mut desk = Self {
            coordinator: Coordinator::new(node(1), config(shards)),
            view: View::empty(node(1)),
            now: Time::ZERO + SECOND,
            next_term: 1,
            regions: BTreeMap::new(),
            table: None,
            legacies: Vec::new(),
            most: 0,
            moves: 0,
        };
        desk.view.oldest = Some(node(1));
        for n in 1..=regions {
            desk.add(n);
        }
        desk
    }

    fn add(&mut self, n: u16) {
        self.view.hosts.insert(node(n), Host::Up);
        self.regions.insert(node(n), Region::default());
    }

    fn tell_view(&mut self) {
        self.coordinator.change_view(self.now, self.view.clone());
        self.run();
        // A region says what it has when it first hears of the oldest member.
        let shards = self.coordinator.config.shards;
        for (node, region) in &mut self.regions {
            if !region.silent {
                self.coordinator
                    .status(self.now, region.status(node, shards));
            }
        }
        self.run();
    }

    fn run_for(&mut self, length: Duration) {
        let until = self.now + length;
        while self.now < until {
            self.now += SECOND / 100;
            self.coordinator.handle_timeout(self.now);
            self.run();
        }
    }

    /// Everybody does what is to be done, until there is nothing.
    fn run(&mut self) {
        while let Some(output) = self.coordinator.poll_output() {
            match output {
                Output::NextTerm => {
                    let term = self.next_term;
                    self.next_term += 1;
                    let layout = Layout::first(self.coordinator.config.shards);
                    self.coordinator
                        .term_claimed(self.now, Some((term, layout)));
                }
                Output::Layout { .. } => panic!("nobody wants another layout"),
                Output::Send { to, message } => self.hear(&to, message),
            }
        }
    }

    fn hear(&mut self, to: &NodeId, message: ProtocolMessage) {
        match &message {
            ProtocolMessage::Table(table) => self.saw(table),
            ProtocolMessage::Legacy(legacy) => return self.legacies.push((**legacy).clone()),
            _ => {}
        }
        let Some(region) = self.regions.get_mut(to).filter(|region| !region.silent) else {
            return;
        };
        match message {
            ProtocolMessage::Gather { term, .. } => region.term = region.term.max(term),
            ProtocolMessage::Table(table) if table.term >= region.term => {
                region.obey(to, &table);
            }
            _ => return,
        }
        // The coordinator may push a table while it hears of this one.
        let status = region.status(to, self.coordinator.config.shards);
        self.coordinator.status(self.now, status);
    }

    fn saw(&mut self, table: &Arc<Table>) {
        if self
            .table
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, table))
        {
            return;
        }
        let moving = |table: &Table, shard: usize| {
            let entry = table.entries.get(shard);
            matches!(entry, Some(Entry::Moving { .. }))
        };
        let before = |shard: usize| {
            self.table
                .as_ref()
                .is_some_and(|known| moving(known, shard))
        };
        let all = 0..table.entries.len();
        let begun = all.filter(|shard| moving(table, *shard) && !before(*shard));
        let begun = begun.count();
        let hosted = |entry: &&Entry| matches!(entry, Entry::Hosted { .. });
        let rest = table.entries.len() - table.entries.iter().filter(hosted).count();
        assert!(
            begun == 0 || begun == rest,
            "a round begins while another is under way"
        );
        (self.most, self.moves) = (self.most.max(begun), self.moves + begun);
        self.table = Some(table.clone());
    }

    fn counts(&self) -> BTreeMap<NodeId, usize> {
        let counts = self.regions.iter();
        counts
            .map(|(node, region)| (node.clone(), region.claims.len()))
            .collect()
    }

    fn spread(&self) -> usize {
        let counts = self.counts();
        counts.values().max().unwrap() - counts.values().min().unwrap()
    }
}

impl Region {
    fn obey(&mut self, me: &NodeId, table: &Arc<Table>) {
        (self.term, self.revision) = (table.term, table.revision);
        self.table = Some(table.clone());
        for (shard, entry) in (0..).zip(&table.entries) {
            let mine = table.home(*entry).is_some_and(|(at, _)| at == me);
            match *entry {
                Entry::Starting { epoch, .. } if mine => {
                    self.claims.insert(shard, (epoch, Phase::Active));
                }
                Entry::Moving { .. } if mine && self.busy => {
                    if let Some((_, phase)) = self.claims.get_mut(&shard) {
                        *phase = Phase::Stopping;
                    }
                }
                Entry::Moving { .. } if mine => {
                    self.claims.remove(&shard);
                }
                _ => {}
            }
        }
    }

    fn status(&mut self, me: &NodeId, shards: u32) -> Status {
        self.number += 1;
        let claims = self.claims.iter();
        let of_term = self
            .table
            .as_ref()
            .is_some_and(|table| table.term == self.term);
        Status {
            from: me.clone(),
            number: self.number,
            term: self.term,
            revision: if of_term { self.revision } else { 0 },
            begins_with: shards,
            shards,
            resize: None,
            claims: claims
                .map(|(shard, (epoch, phase))| Claim {
                    shard: *shard,
                    epoch: *epoch,
                    phase: *phase,
                })
                .collect(),
            refused: Vec::new(),
            loads: Vec::new(),
            table: self.table.clone().filter(|_| !of_term),
        }
    }
}

/// S4: nothing moves for balance while somebody joins, is unreachable or runs another version; then it does.
#[test]
fn nothing_moves_while_members_change() {
    type Change = fn(&mut View, bool);
    let changes: [Change; 3] = [
        |view, on| view.joining = on,
        |view, on| view.unreachable = on.then(|| node(2)).into_iter().collect(),
        |view, on| view.outdated = on.then(|| node(2)).into_iter().collect(),
    ];
    for change in changes {
        let mut desk = Desk::new(64, 2);
        desk.tell_view();
        assert_eq!(desk.spread(), 0);
        desk.add(3);
        change(&mut desk.view, true);
        desk.tell_view();
        desk.run_for(SECOND * 10);
        assert_eq!((desk.moves, desk.counts()[&node(3)]), (0, 0));
        change(&mut desk.view, false);
        desk.tell_view();
        desk.run_for(SECOND * 10);
        assert_eq!((desk.moves, desk.spread()), (21, 1));
    }
}

/// C9: while a new version is rolled out, what leaves goes to nodes that have it, so that it moves once.
#[test]
fn what_leaves_an_old_version_goes_to_the_new_one() {
    let mut desk = Desk::new(64, 3);
    desk.tell_view();
    desk.add(4);
    desk.view.outdated = [1, 2, 3].map(node).into();
    desk.tell_view();
    desk.view.hosts.insert(node(2), Host::Leaving);
    desk.tell_view();
    desk.run_for(SECOND * 5);
    let counts = desk.counts();
    assert_eq!((counts[&node(2)], counts[&node(4)]), (0, 21));
    assert_eq!(desk.moves, 21, "nothing else has moved");
    // Without a node that has it, the others do.
    desk.view.hosts.remove(&node(4));
    desk.regions.remove(&node(4));
    desk.tell_view();
    desk.run_for(SECOND * 5);
    let counts = desk.counts();
    assert_eq!(counts[&node(1)] + counts[&node(3)], 64);
}

/// S4: up to 100 regions and 1,024 shards, with regions that come and go at random: at most 10 % a round,
/// no round before the last one is done, and in the end no region has more than one above another.
#[test]
fn rounds_are_limited_and_end_in_balance() {
    for (seed, regions, shards) in [(1, 20, 32), (2, 40, 256), (3, 100, 1_024)] {
        let mut rng = Rng::seeded(seed);
        let mut desk = Desk::new(shards, 2);
        desk.tell_view();
        for n in 3..=regions {
            desk.add(n);
            if rng.below(4) == 0 {
                desk.tell_view();
                desk.run_for(SECOND / 5);
            }
        }
        desk.tell_view();
        desk.run_for(SECOND * 30);
        assert!(desk.spread() <= 1, "SEED={seed}: {:?}", desk.counts());
        let limit = (shards as usize / 10).max(1);
        assert!(desk.most <= limit, "SEED={seed}: {} in a round", desk.most);
        let hosted: usize = desk.counts().values().sum();
        assert_eq!(hosted, shards as usize);
    }
}

/// The state of a coordinator that leaves while shards move and one region is silent, given to the next.
fn leaving_in_the_middle() -> (Desk, Legacy) {
    let mut desk = Desk::new(16, 3);
    desk.tell_view();
    for region in desk.regions.values_mut() {
        region.busy = true;
    }
    desk.view.hosts.insert(node(1), Host::Leaving);
    desk.view.oldest = Some(node(2));
    desk.tell_view();
    assert_eq!(desk.coordinator.term(), Some(1), "it reigns on");
    let gather = ProtocolMessage::Gather {
        from: node(2),
        term: 2,
        shards: 16,
    };
    let for_region = desk.coordinator.handle(desk.now, gather);
    assert!(for_region.is_some());
    desk.run();
    assert_eq!(desk.coordinator.term(), None, "it gives way");
    let legacy = desk.legacies.remove(0);
    (desk, legacy)
}

/// S2: the next coordinator goes on with all that was decided: it asks nobody, takes no move back, and waits
/// for no silent region.
#[test]
fn the_next_coordinator_goes_on_from_the_legacy() {
    let (before, legacy) = leaving_in_the_middle();
    let moving = |table: &Table| -> Vec<usize> {
        let entries = table.entries.iter().enumerate();
        let moving = entries.filter(|(_, entry)| matches!(entry, Entry::Moving { .. }));
        moving.map(|(shard, _)| shard).collect()
    };
    let under_way = moving(&legacy.table);
    assert_eq!(under_way.len(), before.regions[&node(1)].claims.len());
    assert_eq!(legacy.targets.len(), under_way.len());

    let mut desk = Desk::new(16, 3);
    desk.regions = before.regions;
    desk.coordinator = Coordinator::new(node(2), config(16));
    (desk.view, desk.next_term) = (before.view, 2);
    desk.view.me = node(2);
    for n in [1, 3] {
        desk.regions.get_mut(&node(n)).unwrap().silent = true;
    }
    desk.tell_view();
    assert!(desk.table.is_none(), "it waits for two regions");
    let message = ProtocolMessage::Legacy(Box::new(legacy.clone()));
    assert!(desk.coordinator.handle(desk.now, message).is_none());
    // This table begins no round, so it is compared with what it goes on from.
    desk.table = Some(legacy.table.clone());
    desk.run();
    let table = desk.table.clone().unwrap();
    assert_eq!((table.term, moving(&table)), (2, under_way.clone()));
    assert_eq!(table.regions, legacy.table.regions);
    for (before, after) in legacy.table.entries.iter().zip(&table.entries) {
        assert_eq!(legacy.table.home(*before), table.home(*after));
    }
    for region in desk.regions.values_mut() {
        (region.silent, region.busy) = (false, false);
    }
    desk.run_for(SECOND * 2);
    let counts = desk.counts();
    assert_eq!(counts[&node(1)], 0);
    for (shard, to) in legacy.targets {
        assert!(desk.regions[&to].claims.contains_key(&shard), "as decided");
    }
}

/// A legacy of a term that is not the last one says nothing: others may have decided since.
#[test]
fn a_legacy_of_another_term_is_not_believed() {
    for (legacy_for, table_of) in [(3, 2), (2, 0), (3, 1), (2, 2)] {
        let (before, mut legacy) = leaving_in_the_middle();
        legacy.term = legacy_for;
        let mut table = Table::clone(&legacy.table);
        table.term = table_of;
        legacy.table = Arc::new(table);
        let mut desk = Desk::new(16, 3);
        desk.coordinator = Coordinator::new(node(2), config(16));
        (desk.view, desk.next_term) = (before.view, 2);
        desk.view.me = node(2);
        for region in desk.regions.values_mut() {
            region.silent = true;
        }
        desk.tell_view();
        let message = ProtocolMessage::Legacy(Box::new(legacy));
        desk.coordinator.handle(desk.now, message);
        desk.run();
        assert!(desk.table.is_none(), "{legacy_for} {table_of}");
    }
}
