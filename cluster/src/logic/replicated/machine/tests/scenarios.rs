//! Scenarios: what each of the replicator's promises means, one at a time.

use super::*;

/// ddata, Replicator: a write to this node reaches all others by itself; a deleted key is deleted
/// everywhere and for good.
#[test]
fn local_writes_spread_and_deletes_are_final() {
    let mut world = World::new(1, 3);
    let id = world.insert(1, "k", Level::Local, 7);
    assert_eq!(world.done(1, id), Ok(()), "at once");
    world.run(SECOND);
    for number in 1..=3 {
        assert_eq!(elements(&world.local(number, "k").unwrap()), [7].into());
    }
    let request = world.request("k", "set", Level::All);
    let id = world
        .with(2, |machine, now| machine.delete(now, request))
        .unwrap();
    world.run(SECOND);
    assert_eq!(world.done(2, id), Ok(()));
    assert_eq!(
        world.read(3, "k", &set(), Level::Local),
        Err(Failure::Deleted)
    );
    let id = world.insert(3, "k", Level::Local, 8);
    assert_eq!(world.done(3, id), Err(Failure::Deleted));
    assert!(world.agree());
}

/// The other type is refused by its name, here and by others.
#[test]
fn another_type_is_refused() {
    let mut world = World::new(2, 2);
    world.insert(1, "k", Level::All, 7);
    world.run(SECOND);
    let mismatch = Failure::TypeMismatch { held: "set".into() };
    assert_eq!(
        world.read(2, "k", &counter(), Level::Local),
        Err(mismatch.clone())
    );
    let id = world.edit(2, "k", Level::Local, &counter(), |draft| draft.count(1, 0));
    assert_eq!(world.done(2, id), Err(mismatch));
    // Both begin apart: neither takes the other's, both say so.
    world.split(&[1], &[2]);
    world.insert(1, "both", Level::Local, 1);
    world.edit(2, "both", Level::Local, &counter(), |draft| {
        draft.count(1, 0)
    });
    world.cut.clear();
    world.run(5 * SECOND);
    assert!(world.nodes[&1].machine.refused() > 0);
    let held = Failure::TypeMismatch {
        held: "counter".into(),
    };
    assert_eq!(world.read(1, "both", &set(), Level::All), Err(held));
    let none = world.read(1, "nothing", &set(), Level::majority());
    assert_eq!(none, Err(Failure::NotFound));
}

/// ddata, JepsenInspiredInsert: 5 nodes insert 200 elements each, a cut into 3 and 2 in the middle.
/// What was written to a majority is read from any majority, and all copies agree in the end.
#[test]
fn majority_writes_are_read_back_over_a_partition() {
    let mut world = World::new(3, 5);
    let mut begun = Vec::new();
    for round in 0..200u32 {
        if round == 60 {
            world.split(&[1, 2, 3], &[4, 5]);
        }
        for number in 1..=5u16 {
            let name = round * 10 + u32::from(number);
            let id = world.insert(number, "jepsen", Level::majority(), name);
            begun.push((number, id, name));
        }
        world.run(Duration::from_millis(40));
    }
    world.run(6 * SECOND);
    let is_done = |(number, id, _): &&(u16, u64, u32)| world.done(*number, *id).is_ok();
    let confirmed: BTreeSet<u32> = begun
        .iter()
        .filter(is_done)
        .map(|(.., name)| *name)
        .collect();
    // Those of the three all, those of the two only before the cut.
    assert!(confirmed.len() >= 3 * 200 + 2 * 55 && confirmed.len() < 3 * 200 + 2 * 65);
    let timeout = Failure::Timeout {
        answered: 2,
        needed: 3,
    };
    assert_eq!(world.done(4, begun.last().unwrap().1), Err(timeout.clone()));
    let read = world.read(2, "jepsen", &set(), Level::majority()).unwrap();
    assert!(elements(&read).is_superset(&confirmed), "before the heal");
    assert_eq!(
        world.read(4, "jepsen", &set(), Level::majority()),
        Err(timeout)
    );
    world.cut.clear();
    world.run(5 * SECOND);
    assert!(world.agree());
    let all = elements(&world.local(5, "jepsen").unwrap());
    assert_eq!(all.len(), 1_000, "what timed out is not undone");
}

/// ddata, Delta: writes go as deltas, as small as they are, not as the value is; a message stays near
/// its limit.
#[test]
fn deltas_are_small_and_messages_bounded() {
    let mut world = World::new(4, 3);
    for name in 0..300 {
        world.insert(1, "k", Level::Local, name);
    }
    world.run(5 * SECOND);
    assert!(world.agree());
    world.largest = 0;
    world.insert(1, "k", Level::Local, 300);
    world.run(Duration::from_millis(900));
    assert!(
        world.largest < 400,
        "{} bytes for one more element",
        world.largest
    );
    assert_eq!(elements(&world.local(3, "k").unwrap()).len(), 301);

    // A fourth node gets everything, many keys in messages of a bounded size.
    for key in 0..1_000 {
        world.insert(1, &format!("key-{key}"), Level::Local, key);
    }
    world.run(10 * SECOND);
    world.largest = 0;
    world.start(4, BTreeMap::new());
    world.tell_members();
    world.run(30 * SECOND);
    assert!(world.agree());
    assert_eq!(world.nodes[&4].machine.len(), 1_001);
    assert!(
        world.largest < 2 * world.config.message_bytes_max,
        "{}",
        world.largest
    );
}

/// Nodes that agree say little: one summary a round.
#[test]
fn agreement_is_quiet() {
    let mut world = World::new(5, 5);
    for key in 0..500 {
        world.insert(1, &format!("k{key}"), Level::Local, key);
    }
    world.run(20 * SECOND);
    assert!(world.agree());
    world.sent = 0;
    world.run(10 * SECOND);
    assert!(world.sent <= 5 * 10, "{} messages", world.sent);
}

/// ddata, Pruning: the writes of a node that is gone become another's, sums and elements stay, and no
/// copy names it any more.
#[test]
fn writes_of_the_gone_are_taken_over() {
    let mut world = World::new(6, 4);
    for number in 1..=4u16 {
        let up = u64::from(number);
        world.edit(number, "sum", Level::Local, &counter(), |draft| {
            draft.count(up, 0)
        });
        world.insert(number, "all", Level::Local, u32::from(number));
    }
    world.run(3 * SECOND);
    let gone = Replica(world.nodes[&4].id.incarnation);
    world.crash(4);
    world.members.remove(&4);
    world.tell_members();
    // Meanwhile somebody removes one of its elements, and somebody counts on.
    world.run(7 * SECOND);
    world.edit(2, "all", Level::Local, &set(), |draft| {
        draft.remove(&element(4))
    });
    for _ in 0..50 {
        world.edit(1, "sum", Level::Local, &counter(), |draft| {
            draft.count(1, 0)
        });
        world.edit(2, "sum", Level::Local, &counter(), |draft| {
            draft.count(1, 0)
        });
        world.run(SECOND);
    }
    assert!(world.agree());
    for number in 1..=3 {
        assert_eq!(total(&world.local(number, "sum").unwrap()), 10 + 100);
        assert_eq!(
            elements(&world.local(number, "all").unwrap()),
            [1, 2, 3].into()
        );
        for key in ["sum", "all"] {
            let entry = world.nodes[&number].machine.entry(key).unwrap();
            assert!(is_pruned(entry, gone), "{number}: {entry:?}");
            assert_eq!(entry.state().marks.len(), 1, "the mark stays for a while");
        }
    }
    let Some(Store::Counter(dots)) = world.local(1, "sum") else {
        panic!("a counter");
    };
    assert_eq!(dots.len(), 3, "one count a node");
    world.run(Duration::from_secs(700));
    let entry = world.nodes[&1].machine.entry("sum").unwrap();
    assert!(entry.state().marks.is_empty(), "then it is forgotten");
    assert!(world.agree());
}

/// A hundred runs of a node leave no trace but what they wrote.
#[test]
fn vectors_do_not_grow_with_restarts() {
    let mut world = World::new(7, 3);
    world.config.mark_ttl = Duration::from_secs(60);
    for _ in 0..40 {
        world.edit(3, "sum", Level::All, &counter(), |draft| draft.count(1, 0));
        world.run(SECOND);
        world.crash(3);
        world.start(3, BTreeMap::new());
        world.tell_members();
        world.run(5 * SECOND);
    }
    world.run(120 * SECOND);
    assert!(world.agree());
    let entry = world.nodes[&2].machine.entry("sum").unwrap();
    assert_eq!(total(&entry.value().unwrap().store), 40);
    assert!(entry.value().unwrap().context.ranges().count() <= 3);
}

/// ddata, Durable: what a majority has stored survives the end of all nodes; what is not durable does not.
#[test]
fn durable_entries_survive_all_nodes() {
    let mut world = World::new(8, 3);
    let id = world.insert(1, "kept-set", Level::All, 7);
    world.insert(1, "other", Level::All, 8);
    world.run(SECOND);
    assert_eq!(world.done(1, id), Ok(()));
    let disks: Vec<_> = (1..=3).map(|number| world.crash(number)).collect();
    world.members.clear();
    for (number, disk) in (1..=3).zip(disks) {
        world.start(number, disk);
    }
    world.tell_members();
    for number in 1..=3 {
        let kept = world
            .read(number, "kept-set", &set(), Level::Local)
            .unwrap();
        assert_eq!(elements(&kept), [7].into());
    }
    let other = world.read(1, "other", &set(), Level::majority());
    assert_eq!(other, Err(Failure::NotFound));
}

/// ddata, Durable: a write that cannot be stored here fails, and one that others cannot store is not
/// confirmed by them.
#[test]
fn what_is_not_stored_is_not_confirmed() {
    let mut world = World::new(9, 3);
    world.nodes.get_mut(&1).unwrap().disk_works = false;
    let id = world.insert(1, "kept-a", Level::Local, 1);
    assert_eq!(world.done(1, id), Err(Failure::NotStored));
    world.nodes.get_mut(&1).unwrap().disk_works = true;
    world.nodes.get_mut(&2).unwrap().disk_works = false;
    let id = world.insert(1, "kept-b", Level::All, 2);
    world.run(6 * SECOND);
    let failed = world.done(1, id);
    assert_eq!(
        failed,
        Err(Failure::Timeout {
            answered: 2,
            needed: 3
        })
    );
    world.nodes.get_mut(&2).unwrap().disk_works = true;
    let id = world.insert(1, "kept-b", Level::All, 3);
    world.run(6 * SECOND);
    assert_eq!(world.done(1, id), Ok(()));
    assert!(
        world
            .nodes
            .values()
            .all(|node| node.disk.contains_key("kept-b"))
    );
    assert!(
        world.nodes[&1].disk.contains_key("kept-a"),
        "it was tried again"
    );
}

/// Subscribers are told of the newest value, at most so often.
#[test]
fn changes_are_told_gathered() {
    let mut world = World::new(10, 2);
    world.with(2, |machine, _| machine.watch(&"k".into()));
    for name in 0..200 {
        world.insert(1, "k", Level::majority(), name);
        world.run(Duration::from_millis(5));
    }
    world.run(SECOND);
    let changes = &world.nodes[&2].changes;
    assert!(
        (5..=12).contains(&changes.len()),
        "{} in a second",
        changes.len()
    );
    let Some((_, Content::Live(last))) = changes.last() else {
        panic!("a value");
    };
    assert_eq!(elements(&last.store).len(), 200);
    let told = changes.len();
    world.with(2, |machine, _| machine.unwatch(&"k".into()));
    world.insert(1, "k", Level::All, 999);
    world.run(SECOND);
    assert_eq!(world.nodes[&2].changes.len(), told);
}

/// A delta whose predecessors are missing is not taken, and not acknowledged: the state is asked for.
#[test]
fn deltas_are_taken_in_order_only() {
    let mut world = World::new(14, 2);
    for name in 0..5 {
        world.insert(1, "k", Level::Local, name);
    }
    world.run(SECOND);
    let (writer, me) = (world.nodes[&1].id.clone(), world.nodes[&2].id.clone());
    for key in ["k", "unknown"] {
        let mut draft = Draft::new(Arc::new(Causal::empty(&set())), Replica(77), 0);
        draft.insert(element(77));
        let later = Message::Delta(Delta {
            key: key.into(),
            type_name: "set".into(),
            base: 900,
            last: 901,
            delta: Arc::new(draft.finish().delta.unwrap()),
            marks: BTreeMap::new(),
        });
        let now = world.moment();
        let machine = &mut world.nodes.get_mut(&2).unwrap().machine;
        machine.message(now, &writer, later);
        let answer = machine.poll_output();
        let behind = Message::Behind { key: key.into() };
        assert!(
            matches!(&answer, Some(Output::Send(to, messages)) if *to == writer && *messages == [behind.clone()]),
            "{answer:?}"
        );
        world.with(1, |machine, now| machine.message(now, &me, behind));
        world.run(SECOND);
    }
    assert_eq!(elements(&world.local(2, "k").unwrap()), (0..5).collect());
    assert_eq!(world.local(2, "unknown"), None);
    assert!(world.agree());
}

/// An old copy or delta that still has the old names of writes which were taken over changes nothing.
#[test]
fn old_names_of_pruned_writes_count_once() {
    let mut world = World::new(15, 3);
    world.edit(3, "sum", Level::All, &counter(), |draft| draft.count(5, 0));
    world.run(SECOND);
    let old = world.nodes[&2]
        .machine
        .entry("sum")
        .unwrap()
        .state()
        .clone();
    let gone = Replica(world.nodes[&3].id.incarnation);
    world.crash(3);
    world.members.remove(&3);
    world.tell_members();
    world.run(30 * SECOND);
    let Content::Live(value) = &old.content else {
        panic!("a value");
    };
    let from = world.nodes[&1].id.clone();
    let stale = Delta {
        key: "sum".into(),
        type_name: "counter".into(),
        base: 0,
        last: 1,
        delta: value.clone(),
        marks: BTreeMap::new(),
    };
    for message in [
        Message::State {
            last: None,
            state: old.clone(),
        },
        Message::Delta(stale),
    ] {
        let now = world.moment();
        let machine = &mut world.nodes.get_mut(&2).unwrap().machine;
        machine.message(now, &from, message);
        let entry = machine.entry("sum").unwrap();
        assert!(is_pruned(entry, gone), "{entry:?}");
        assert_eq!(total(&entry.value().unwrap().store), 5);
    }
    assert!(world.agree());
}

/// Only members that count make a quorum, and it follows the members.
#[test]
fn quorums_follow_the_members() {
    let mut world = World::new(11, 5);
    (2..=5).for_each(|number| drop(world.crash(number)));
    let id = world.insert(1, "k", Level::majority(), 1);
    world.run(2 * SECOND);
    (3..=5).for_each(|number| drop(world.members.remove(&number)));
    let joining = world.members[&2].clone();
    let seen = Members {
        me_counts: true,
        peers: [(joining, false)].into(),
        ..Members::default()
    };
    assert!(!world.nodes[&1].done.contains_key(&id));
    world.with(1, |machine, now| machine.set_members(now, seen));
    assert_eq!(world.done(1, id), Ok(()), "alone it is a majority");
    let id = world.insert(1, "k", Level::From(2), 2);
    world.run(6 * SECOND);
    assert_eq!(
        world.done(1, id),
        Err(Failure::Timeout {
            answered: 1,
            needed: 2
        })
    );
}

/// A value has a limit; what is beyond it is refused by name, and what was there stays.
#[test]
fn values_are_bounded() {
    let mut world = World::new(12, 2);
    world.config.value_bytes_max = 2_000;
    world.start(1, BTreeMap::new());
    world.tell_members();
    let blank = set();
    let mut inserted = 0u32;
    loop {
        let id = world.insert(1, "k", Level::Local, inserted);
        match world.done(1, id) {
            Ok(()) => inserted += 1,
            Err(failure) => {
                assert_eq!(
                    failure,
                    Failure::Unmade(crate::logic::replicated::draft::Unmade::TooLarge)
                );
                break;
            }
        }
    }
    assert!((50..200).contains(&inserted));
    let value = world.read(1, "k", &blank, Level::All).unwrap();
    assert_eq!(elements(&value).len(), inserted as usize);
    let id = world.edit(1, "k", Level::Local, &blank, Draft::clear);
    assert_eq!(world.done(1, id), Ok(()), "removing is always possible");
    let id = world.insert(1, "k", Level::Local, 0);
    assert_eq!(world.done(1, id), Ok(()));
    // Keys of maps count too; a count that has its place can always go on.
    let map = Store::Map(BTreeMap::new());
    let mut count = |name| {
        world.edit(1, "m", Level::Local, &map, |draft| {
            let key = element(name);
            let mut inner = draft.take(&key, counter());
            inner.count(1, 0);
            draft.put(key, inner.finish());
        })
    };
    let ids: Vec<u64> = (0..500).map(&mut count).collect();
    let again = count(0);
    let made = ids.iter().filter(|id| world.done(1, **id).is_ok()).count();
    assert!((50..200).contains(&made), "{made}");
    assert_eq!(world.done(1, again), Ok(()));
    let long = "k".repeat(NAME_BYTES_MAX + 1);
    let id = world.insert(1, &long, Level::Local, 0);
    assert_eq!(world.done(1, id), Err(Failure::BadKey));
}

/// What others say than members is ignored, and so is what makes no sense.
#[test]
fn strangers_are_ignored() {
    let mut world = World::new(13, 2);
    world.insert(1, "k", Level::All, 1);
    world.run(SECOND);
    let member = world.nodes[&2].id.clone();
    let stranger = NodeId::new("x", ([10, 0, 0, 9], 9).into(), 99);
    let forged = NodeId::new("n2", ([10, 0, 0, 1], 2).into(), 99);
    let deleted = |key: &str| State {
        key: key.into(),
        type_name: "set".into(),
        content: Content::Deleted,
        marks: BTreeMap::new(),
    };
    for from in [stranger, forged] {
        let message = Message::State {
            last: Some(1),
            state: deleted("k"),
        };
        world.with(1, |machine, now| machine.message(now, &from, message));
    }
    let odd = [
        Message::Ack {
            key: "k".into(),
            last: u64::MAX,
        },
        Message::Ack {
            key: "none".into(),
            last: 1,
        },
        Message::Behind { key: "none".into() },
        Message::Summary(vec![1, 2, 3]),
        Message::Bucket {
            bucket: u16::MAX,
            after: Some("z".into()),
            until: Some("a".into()),
            held: Vec::new(),
        },
        Message::Want(vec!["none".into()]),
        Message::State {
            last: None,
            state: deleted(""),
        },
    ];
    for message in odd {
        world.with(1, |machine, now| machine.message(now, &member, message));
    }
    assert_eq!(elements(&world.local(1, "k").unwrap()), [1].into());
    world.insert(1, "k", Level::All, 2);
    world.run(SECOND);
    assert!(world.agree());
}
