//! Faults: random operations over random faults; what was confirmed is there in the end, counted once,
//! and all copies agree. `SEED=7` runs one seed, `SEEDS=5000` more of them.

use super::*;

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED").map(|seed| seed.parse()) {
        Ok(Ok(seed)) => vec![seed],
        _ => {
            let more = std::env::var("SEEDS").map(|count| count.parse());
            (0..more.ok().and_then(Result::ok).unwrap_or(count)).collect()
        }
    }
}

/// What is known from outside of what was asked for.
#[derive(Default)]
struct Ledger {
    /// Counted up, whether confirmed or not.
    tried: u64,
    /// Operations on the counter that have not ended: node's run, operation, how much.
    open: Vec<(u16, NodeId, u64, u64)>,
    /// Counted up, and confirmed by a majority.
    confirmed: u64,
    /// Elements whose addition may be confirmed.
    open_names: Vec<(u16, NodeId, u64, u32)>,
    names: BTreeSet<u32>,
    tried_names: BTreeSet<u32>,
    next_name: u32,
}

impl Ledger {
    /// Looks which operations have ended well.
    fn settle(&mut self, world: &World) {
        let ended = |number: &u16, run: &NodeId, id: &u64| {
            let node = world.nodes.get(number).filter(|node| node.id == *run)?;
            node.done.get(id).map(Result::is_ok)
        };
        self.open.retain(|(number, run, id, up)| {
            let ended = ended(number, run, id);
            self.confirmed += ended.filter(|ok| *ok).map_or(0, |_| *up);
            ended.is_none()
        });
        self.open_names.retain(|(number, run, id, name)| {
            let ended = ended(number, run, id);
            if ended == Some(true) {
                self.names.insert(*name);
            }
            ended.is_none()
        });
    }
}

fn act(world: &mut World, ledger: &mut Ledger) {
    let numbers: Vec<u16> = world.nodes.keys().copied().collect();
    let number = numbers[world.rng.below(numbers.len() as u64) as usize];
    let run = world.nodes[&number].id.clone();
    match world.rng.below(10) {
        0..=2 => {
            let up = 1 + world.rng.below(5);
            let id = world.edit(number, "kept-sum", Level::majority(), &counter(), |draft| {
                draft.count(up, 0);
            });
            ledger.tried += up;
            ledger.open.push((number, run, id, up));
        }
        3..=5 => {
            let name = ledger.next_name;
            ledger.next_name += 1;
            ledger.tried_names.insert(name);
            let id = world.insert(number, "all", Level::majority(), name);
            ledger.open_names.push((number, run, id, name));
        }
        // Elements that come and go.
        6 | 7 => {
            let name = world.rng.below(8) as u32;
            world.insert(number, "some", Level::Local, name);
        }
        8 => {
            let name = world.rng.below(8) as u32;
            world.edit(number, "some", Level::Local, &set(), |draft| {
                draft.remove(&element(name))
            });
        }
        _ => {
            let map = Store::Map(BTreeMap::new());
            let key = element(world.rng.below(3) as u32);
            let remove = world.rng.below(4) == 0;
            world.edit(number, "map", Level::Local, &map, |draft| {
                if remove {
                    return draft.remove(&key);
                }
                let mut inner = draft.take(&key, counter());
                inner.count(1, 0);
                draft.put(key, inner.finish());
            });
        }
    }
}

fn fault(world: &mut World, nodes: u16) {
    let number = 1 + world.rng.below(u64::from(nodes)) as u16;
    match world.rng.below(6) {
        0 => {
            let other: Vec<u16> = (1..=nodes).filter(|n| *n != number).collect();
            let some = world.rng.below(other.len() as u64) as usize;
            let (one, rest) = other.split_at(some);
            let one = [one, &[number]].concat();
            world.split(&one, rest);
        }
        1 => {
            world.cut.insert((number, 1 + number % nodes));
        }
        2 => {
            world.loss_percent = world.rng.below(40);
            world.repeat_percent = world.rng.below(40);
        }
        // A minority crashes for good, or comes back with its disk or without: as a new run.
        3 if world.nodes.len() == usize::from(nodes) => {
            let disk = world.crash(number);
            let wait = Duration::from_millis(world.rng.below(4_000));
            world.run(wait);
            let with_disk = world.rng.below(2) == 0;
            let disk = if with_disk { disk } else { BTreeMap::new() };
            world.start(number, disk);
            // A majority must never lose what it has confirmed: let the new run catch up.
            world.cut.clear();
            world.loss_percent = 0;
            world.tell_members();
            world.run(Duration::from_secs(4));
        }
        _ => {
            world.cut.clear();
            world.loss_percent = 0;
        }
    }
}

fn live(seed: u64) {
    let mut world = World::new(seed, 5);
    let mut ledger = Ledger::default();
    for _ in 0..12 {
        fault(&mut world, 5);
        for _ in 0..12 {
            act(&mut world, &mut ledger);
            let pause = Duration::from_millis(world.rng.below(150));
            world.run(pause);
            ledger.settle(&world);
        }
    }
    world.cut.clear();
    world.loss_percent = 0;
    world.repeat_percent = 0;
    world.run(Duration::from_secs(60));
    ledger.settle(&world);
    assert!(world.agree(), "seed {seed}: the copies differ");
    let sum = total(&world.local(1, "kept-sum").unwrap_or_else(counter));
    assert!(
        (ledger.confirmed..=ledger.tried).contains(&sum),
        "seed {seed}: {sum}, but {} are confirmed of {}",
        ledger.confirmed,
        ledger.tried
    );
    let all = elements(&world.local(2, "all").unwrap_or_else(set));
    assert!(
        all.is_superset(&ledger.names),
        "seed {seed}: {:?} are lost",
        &ledger.names - &all
    );
    assert!(all.is_subset(&ledger.tried_names), "seed {seed}: made up");
    // Nobody who is gone is named any more.
    let live: BTreeSet<Replica> = world
        .nodes
        .values()
        .map(|node| Replica(node.id.incarnation))
        .collect();
    for key in ["kept-sum", "all", "some", "map"] {
        if let Some(value) = world.nodes[&3].machine.entry(key).and_then(Entry::value) {
            let gone = value
                .context
                .replicas()
                .find(|replica| !live.contains(replica));
            assert_eq!(gone, None, "seed {seed}: {key} names one who is gone");
        }
    }
}

/// ddata, Chaos, DurablePruning: loss, repetition, reordering, cuts, crashes, restarts with and without
/// the disk.
#[test]
fn random_faults_lose_and_repeat_nothing() {
    for seed in seeds(6) {
        live(seed);
    }
}
