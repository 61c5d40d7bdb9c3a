//! Draft tests: the laws of joining, over random histories of all shapes, against a plain model.

use super::*;
use crate::logic::replicated::causal::Renaming;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn element(byte: u8) -> Element {
    Element::from([byte].as_slice())
}

/// What a copy may be asked to do.
#[derive(Clone, Debug)]
enum Act {
    Count(u64, u64),
    Switch(bool),
    Write(u8),
    Insert(u8),
    Remove(u8),
    Clear,
    /// On the value of a key.
    Inside(u8, Box<Act>),
}

fn act_on(draft: &mut Draft, act: &Act, inner: &Store) {
    match act {
        Act::Count(up, down) => draft.count(*up, *down),
        Act::Switch(on) => draft.switch(*on),
        Act::Write(value) => draft.set(u64::from(*value), element(*value)),
        Act::Insert(name) => draft.insert(element(*name)),
        Act::Remove(name) => draft.remove(&element(*name)),
        Act::Clear => draft.clear(),
        Act::Inside(key, act) => {
            let key = element(*key);
            let mut value = draft.take(&key, inner.clone());
            act_on(&mut value, act, inner);
            draft.put(key, value.finish());
        }
    }
}

/// The shapes, each with what happens to it; of maps, with the shape of their values.
fn shapes() -> Vec<(Store, Store)> {
    let counter = Store::Counter(Dots::new());
    let set = Store::Set(BTreeMap::new());
    let map = Store::Map(BTreeMap::new());
    vec![
        (counter.clone(), counter.clone()),
        (Store::Flag(Dots::new()), counter.clone()),
        (Store::Register(Dots::new()), counter.clone()),
        (set.clone(), counter.clone()),
        (map.clone(), counter),
        (map, set),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let plain = prop_oneof![
        (0u64..5, 0u64..5).prop_map(|(up, down)| Act::Count(up, down)),
        any::<bool>().prop_map(Act::Switch),
        (0u8..9).prop_map(Act::Write),
        (0u8..4).prop_map(Act::Insert),
        (0u8..4).prop_map(Act::Insert),
        (0u8..4).prop_map(Act::Remove),
        (0u8..10).prop_map(|n| if n == 0 {
            Act::Clear
        } else {
            Act::Remove(n % 4)
        }),
    ];
    (plain, 0u8..3, any::<bool>()).prop_map(|(act, key, inside)| match act {
        Act::Remove(_) | Act::Clear if !inside => act,
        act => Act::Inside(key, Box::new(act)),
    })
}

/// A step of a history over three copies.
#[derive(Clone, Debug)]
enum Step {
    Act(usize, Act),
    /// The second takes over all that the first has.
    Join(usize, usize),
    /// The second takes the delta of this write of the first, whatever it has missed before.
    Delta(usize, usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..3, acts()).prop_map(|(who, act)| Step::Act(who, act)),
        1 => (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Join(from, to)),
        2 => (0usize..3, 0usize..3, any::<prop::sample::Index>())
            .prop_map(|(from, to, which)| Step::Delta(from, to, which.index(16))),
    ];
    prop::collection::vec(step, 0..40)
}

/// Three copies and the deltas that each has made.
struct World {
    copies: Vec<Causal>,
    deltas: Vec<Vec<Causal>>,
}

fn live(shape: &Store, inner: &Store, steps: &[Step]) -> World {
    let mut world = World {
        copies: vec![Causal::empty(shape); 3],
        deltas: vec![Vec::new(); 3],
    };
    let is_map = matches!(shape, Store::Map(_));
    for step in steps {
        match step {
            Step::Act(who, act) => {
                let act = match act {
                    Act::Inside(_, act) if !is_map => act,
                    act => act,
                };
                let value = Arc::new(world.copies[*who].clone());
                let mut draft = Draft::new(value, Replica(*who as u64 + 1), 0);
                act_on(&mut draft, act, inner);
                let Finished {
                    value,
                    delta,
                    failed,
                    ..
                } = draft.finish();
                assert_eq!(failed, None);
                assert!(value.is_sound());
                world.copies[*who] = Arc::unwrap_or_clone(value);
                world.deltas[*who].extend(delta);
            }
            Step::Join(from, to) => {
                let other = world.copies[*from].clone();
                world.copies[*to].join(&other);
            }
            Step::Delta(from, to, which) => {
                if let Some(delta) = world.deltas[*from].get(*which).cloned() {
                    world.copies[*to].join_delta(&delta);
                }
            }
        }
    }
    world
}

fn joined(one: &Causal, other: &Causal) -> Causal {
    let mut all = one.clone();
    all.join(other);
    all
}

fn laws(world: &World) -> Result<(), TestCaseError> {
    let [a, b, c] = [&world.copies[0], &world.copies[1], &world.copies[2]];
    prop_assert_eq!(joined(a, b), joined(b, a), "commutative");
    prop_assert_eq!(
        joined(&joined(a, b), c),
        joined(a, &joined(b, c)),
        "associative"
    );
    let mut again = a.clone();
    prop_assert!(!again.join(a), "idempotent, and says that nothing changed");
    prop_assert_eq!(&again, a);
    for copy in &world.copies {
        prop_assert!(copy.is_sound());
    }
    Ok(())
}

/// All deltas of all copies, one by one or gathered, give what the copies give together.
fn deltas_are_enough(world: &World, shape: &Store) -> Result<(), TestCaseError> {
    let all = world
        .copies
        .iter()
        .fold(Causal::empty(shape), |all, copy| joined(&all, copy));
    let mut by_delta = Causal::empty(shape);
    for delta in world.deltas.iter().flatten().rev() {
        by_delta.join_delta(delta);
    }
    prop_assert_eq!(&by_delta, &all, "one by one, in the wrong order");
    let mut by_group = Causal::empty(shape);
    for deltas in &world.deltas {
        let Some((first, rest)) = deltas.split_first() else {
            continue;
        };
        let mut group = first.clone();
        rest.iter().for_each(|delta| group.join_deltas(delta));
        by_group.join_delta(&group);
        prop_assert!(!by_group.join(&group), "a group is a state too");
    }
    prop_assert_eq!(&by_group, &all, "gathered");
    Ok(())
}

/// Replica 3 is gone: all rename its writes, some before and some after they are joined.
fn renaming_commutes(world: &World) -> Result<(), TestCaseError> {
    let gone = Replica(3);
    let mut owner = joined(&world.copies[0], &world.copies[2]);
    owner.join(&world.copies[1]);
    let renaming = Renaming {
        from: gone,
        to: Replica(1),
        offset: owner.context.highest(Replica(1)),
        count: owner.context.highest(gone),
    };
    let renamed = |copy: &Causal| {
        let mut copy = copy.clone();
        copy.rename(&renaming);
        copy
    };
    let after = renamed(&owner);
    let late = joined(&renamed(&world.copies[1]), &renamed(&world.copies[2]));
    prop_assert_eq!(&renamed(&late), &late, "once is enough");
    prop_assert_eq!(&joined(&after, &late), &after, "before the join or after");
    prop_assert!(after.context.replicas().all(|replica| replica != gone));
    let pieces = |copy: &Causal| {
        let mut pieces = 0;
        copy.store.each_dot(&mut |_| pieces += 1);
        pieces
    };
    prop_assert_eq!(pieces(&after), pieces(&owner), "nothing is lost");
    // The owner makes one count of both, and no old copy brings the other back.
    let mut draft = Draft::new(Arc::new(after.clone()), Replica(1), 0);
    draft.fold();
    let folded = draft.finish().value;
    prop_assert_eq!(total(&folded.store), total(&owner.store), "same sums");
    prop_assert_eq!(&joined(&folded, &late), &*folded);
    Ok(())
}

fn total(store: &Store) -> (u64, u64) {
    match store {
        Store::Counter(dots) => dots
            .values()
            .fold((0, 0), |(up, down), c| (up + c.up, down + c.down)),
        Store::Map(values) => values
            .values()
            .map(total)
            .fold((0, 0), |(up, down), each| (up + each.0, down + each.1)),
        _ => (0, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every shape: joins are commutative, associative, idempotent; deltas in any order are worth
    /// the states; renaming the writes of one that is gone commutes with joining.
    #[test]
    fn every_shape_keeps_the_laws(steps in steps()) {
        for (shape, inner) in shapes() {
            let world = live(&shape, &inner, &steps);
            laws(&world)?;
            deltas_are_enough(&world, &shape)?;
            renaming_commutes(&world)?;
        }
    }

    /// A set against a plain model: an element is there if some addition of it was not seen by any
    /// removal of it.
    #[test]
    fn additions_win(steps in steps()) {
        let set = Store::Set(BTreeMap::new());
        // What each copy has seen: additions by number, and those that a removal has seen.
        let mut model = vec![(BTreeSet::new(), BTreeSet::new()); 3];
        let mut additions = 0u32;
        let mut done = Vec::new();
        for step in &steps {
            match step {
                Step::Act(who, act) => {
                    let act = match act { Act::Inside(_, act) => act, act => act };
                    let (added, removed) = &mut model[*who];
                    match act {
                        Act::Insert(name) => {
                            additions += 1;
                            added.insert((*name, additions));
                        }
                        Act::Remove(name) => {
                            removed.extend(added.iter().filter(|(n, _)| n == name).copied());
                        }
                        Act::Clear => removed.extend(added.iter().copied()),
                        _ => {}
                    }
                }
                Step::Join(from, to) => {
                    let (added, removed) = model[*from].clone();
                    model[*to].0.extend(added);
                    model[*to].1.extend(removed);
                }
                Step::Delta(..) => continue,
            }
            done.push(step.clone());
        }
        let world = live(&set, &set, &done);
        for (copy, (added, removed)) in world.copies.iter().zip(&model) {
            let Store::Set(elements) = &copy.store else { panic!("a set") };
            let there: BTreeSet<u8> = elements.keys().map(|e| e[0]).collect();
            let expected = added.difference(removed).map(|(name, _)| *name).collect();
            prop_assert_eq!(there, expected);
        }
    }
}

/// Ten thousand additions and removals leave one range and no tombstone.
#[test]
fn removed_elements_leave_nothing_behind() {
    let set = Store::Set(BTreeMap::new());
    let mut draft = Draft::new(Arc::new(Causal::empty(&set)), Replica(7), 0);
    for round in 0..5_000u32 {
        let name = Element::from(round.to_le_bytes().as_slice());
        draft.insert(name.clone());
        draft.remove(&name);
    }
    let value = draft.finish().value;
    assert!(value.store.is_empty());
    assert_eq!(value.context.ranges().count(), 1);
    assert!(value.weight() < 64);
}

/// A draft that was lent comes back when it is dropped, when another is put in its place, and out of a
/// panic.
#[test]
fn what_is_lent_comes_back() {
    let set = Store::Set(BTreeMap::new());
    let blank = || Draft::new(Arc::new(Causal::empty(&set)), Replica(1), 0);
    let (mut draft, home) = blank().lend();
    draft.insert(element(1));
    draft = blank();
    draft.insert(element(2));
    let back = home.back();
    let Store::Set(elements) = &back.value.store else {
        panic!("a set");
    };
    assert!(elements.keys().eq([&element(1)]) && back.delta.is_some());

    let (mut draft, home) = blank().lend();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        draft.insert(element(3));
        panic!("as told");
    }));
    assert!(panicked.is_err());
    assert!(!home.back().value.store.is_empty());
}
