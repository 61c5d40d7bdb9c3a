//! Tests: one instance against a store, a handler and people that do whatever a seed wants.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    Rules {
        batch_max: 1,
        save_every: 3,
        save_after: SECOND,
        backoff: Backoff::new(SECOND, 4 * SECOND)
            .jitter(0.0)
            .reset_after(10 * SECOND),
        on_poison: OnPoison::Retry,
        with_results: false,
    }
}

fn at(seconds: u64) -> Time {
    Time::from_nanos(seconds * 1_000_000_000)
}

fn events(positions: &[u64]) -> impl Iterator<Item = Queued> {
    positions.iter().map(|&position| Queued {
        position,
        broken: false,
    })
}

fn machine(rules: Rules, positions: &[u64], through: u64) -> Machine {
    let mut machine = Machine::new(rules, 1);
    assert_eq!(machine.step(at(0)), Step::Load);
    machine.loaded(0);
    assert_eq!(machine.step(at(0)), Step::Read { after: 0 });
    machine.page(at(0), events(positions), through, false);
    machine
}

fn handle(count: usize, offset: u64) -> Step {
    Step::Handle { count, offset }
}

fn save(offset: u64) -> Step {
    Step::Save {
        offset,
        restart: false,
    }
}

#[test]
fn the_offset_is_saved_after_some_events_or_some_time() {
    let mut machine = machine(rules(), &[2, 4, 6, 8], 9);
    for offset in [2, 4, 6] {
        assert_eq!(machine.step(at(0)), handle(1, offset));
        machine.handled(at(0));
    }
    assert_eq!(machine.step(at(0)), save(6));
    machine.saved_now();
    // The last one brings it to where the store was looked through.
    assert_eq!(machine.step(at(1)), handle(1, 9));
    machine.handled(at(1));
    let until = Some(at(2));
    assert_eq!(machine.step(at(1)), Step::Wait { after: 9, until });
    assert_eq!(machine.step(at(2)), save(9));
    machine.saved_now();
    let until = None;
    assert_eq!(machine.step(at(2)), Step::Wait { after: 9, until });
    machine.news();
    assert_eq!(machine.step(at(2)), Step::Read { after: 9 });
    // What is passed over is saved only when it is much.
    machine.page(at(3), events(&[]), 500, false);
    assert_eq!(machine.step(at(3)), Step::Wait { after: 500, until });
    machine.page(at(3), events(&[]), 20_000, false);
    assert_eq!(machine.step(at(3)), save(20_000));
}

#[test]
fn waits_grow_and_begin_anew_after_a_quiet_time() {
    let rules = Rules {
        save_after: 100 * SECOND,
        ..rules()
    };
    let mut machine = machine(rules, &[1, 2, 3, 4], 4);
    let step = machine.step(at(0));
    let mut now = 0;
    for wait in [1, 2, 4, 4] {
        assert_eq!(machine.failed(at(now), step, Blame::Other), Verdict::Retry);
        let until = at(now + wait);
        assert_eq!(machine.step(at(now)), Step::Sleep { until });
        now += wait;
        assert_eq!(machine.step(at(now)), step);
    }
    machine.handled(at(now));
    let step = machine.step(at(now + 9));
    machine.failed(at(now + 9), step, Blame::Other);
    assert_eq!(
        machine.step(at(now + 9)),
        Step::Sleep {
            until: at(now + 13)
        }
    );
    now += 13;
    assert_eq!(machine.step(at(now)), handle(1, 2));
    machine.handled(at(now));
    let step = machine.step(at(now + 10));
    machine.failed(at(now + 10), step, Blame::Other);
    assert_eq!(
        machine.step(at(now + 10)),
        Step::Sleep {
            until: at(now + 11)
        }
    );
}

#[test]
fn a_batch_that_fails_is_tried_again_one_by_one_and_only_the_poison_is_skipped() {
    let rules = Rules {
        batch_max: 10,
        save_after: 100 * SECOND,
        on_poison: OnPoison::Skip { retries: 1 },
        ..rules()
    };
    let mut machine = machine(rules, &[1, 2, 3, 4], 4);
    let all = handle(4, 4);
    assert_eq!(machine.step(at(0)), all);
    assert_eq!(machine.failed(at(0), all, Blame::Event), Verdict::Retry);
    assert_eq!(machine.step(at(10)), handle(1, 1));
    machine.handled(at(10));
    let poison = handle(1, 2);
    assert_eq!(machine.step(at(10)), poison);
    assert_eq!(machine.failed(at(10), poison, Blame::Event), Verdict::Retry);
    assert_eq!(machine.step(at(20)), poison);
    // What is not its fault does not count against it.
    assert_eq!(machine.failed(at(20), poison, Blame::Other), Verdict::Retry);
    assert_eq!(machine.step(at(30)), poison);
    assert_eq!(machine.failed(at(30), poison, Blame::Event), Verdict::Skip);
    assert_eq!(machine.step(at(30)), save(2));
    machine.saved_now();
    assert_eq!(machine.step(at(30)), handle(1, 3));
    let counts = Counts {
        handled: 1,
        skipped: 1,
        failures: 4,
    };
    assert_eq!(machine.counts(), counts);
}

#[test]
fn rules_end_it_by_poison_by_a_limit_and_by_another_run() {
    let stop = Rules {
        on_poison: OnPoison::Stop { retries: 0 },
        ..rules()
    };
    let limited = Rules {
        backoff: rules().backoff.limit(0),
        ..rules()
    };
    for (rules, blame, end) in [
        (stop, Blame::Event, End::Failed),
        (limited, Blame::Other, End::Failed),
        (rules(), Blame::Final, End::Failed),
        (rules(), Blame::Newer, End::Fenced),
    ] {
        let mut machine = machine(rules, &[1], 1);
        let step = machine.step(at(0));
        assert_eq!(machine.failed(at(0), step, blame), Verdict::End(end));
        assert_eq!(machine.step(at(0)), Step::End(end));
    }
}

#[test]
fn a_pause_and_an_end_save_the_offset_and_a_restart_waits_for_neither() {
    let mut machine = machine(rules(), &[1, 2], 2);
    machine.step(at(0));
    machine.handled(at(0));
    machine.pause();
    assert_eq!(machine.step(at(0)), save(1));
    machine.saved_now();
    assert_eq!(machine.step(at(9)), Step::Rest);
    machine.restart_from(0);
    let restart = Step::Save {
        offset: 0,
        restart: true,
    };
    assert_eq!(machine.step(at(9)), restart);
    machine.saved_now();
    assert_eq!(machine.step(at(9)), Step::Rest);
    machine.resume();
    assert_eq!(machine.step(at(9)), Step::Read { after: 0 });
    machine.page(at(9), events(&[1]), 1, true);
    machine.step(at(9));
    machine.handled(at(9));
    machine.stop();
    assert_eq!(machine.step(at(9)), save(1));
    // An end is not held up by a store that cannot be reached.
    assert_eq!(machine.failed(at(9), save(1), Blame::Other), Verdict::Retry);
    assert_eq!(machine.step(at(9)), Step::End(End::Stopped));
}

/// A store with events at some positions, and what was made of them.
struct World {
    rng: Rng,
    positions: Vec<u64>,
    offset: u64,
    /// How often each event was handled with an effect, by its place.
    effects: Vec<u32>,
    /// The highest place up to which everything was handled once.
    poison: Option<usize>,
}

impl World {
    fn place(&self, after: u64) -> usize {
        self.positions
            .partition_point(|&position| position <= after)
    }

    fn chance(&mut self, of: u64) -> bool {
        self.rng.below(of) == 0
    }

    /// One life of an instance, up to a crash or its end; the number of steps is bounded by the caller.
    fn live(&mut self, rules: &Rules, now: &mut Time, crashes: bool) {
        let with_results = rules.with_results;
        let mut machine = Machine::new(rules.clone(), self.rng.next_u64());
        let mut place = 0;
        for _ in 0..10_000 {
            if crashes && self.chance(60) {
                return;
            }
            *now += Duration::from_millis(self.rng.below(300));
            if crashes && self.chance(40) {
                machine.pause();
            }
            if self.chance(10) {
                machine.resume();
            }
            let step = machine.step(*now);
            let fails = crashes && self.chance(8);
            match step {
                Step::End(_) => return,
                Step::Rest => machine.resume(),
                Step::Sleep { until } => *now = until,
                _ if fails && !matches!(step, Step::Handle { .. } | Step::Save { .. }) => {
                    machine.failed(*now, step, Blame::Other);
                }
                Step::Load => {
                    machine.loaded(self.offset);
                    place = self.place(self.offset);
                }
                Step::Read { after } => {
                    assert_eq!(self.place(after), place, "events were lost or read twice");
                    let page = self.positions[place..]
                        .iter()
                        .take(4)
                        .copied()
                        .collect::<Vec<_>>();
                    let last = place + page.len() == self.positions.len();
                    let through = page.last().map_or(after, |last| last + last % 2);
                    let through = if last { through } else { page[page.len() - 1] };
                    machine.page(*now, events(&page), through, !last);
                }
                Step::Wait { until, .. } => match until {
                    Some(until) => *now = until,
                    None => machine.stop(),
                },
                Step::Handle { count, .. } => {
                    place += self.handle(rules, &mut machine, *now, (place, count), fails);
                }
                Step::Save { offset, .. } => {
                    assert!(
                        self.place(offset) <= place,
                        "the offset is ahead of the handler"
                    );
                    if fails {
                        machine.failed(*now, step, Blame::Other);
                    } else {
                        self.offset = offset.max(if with_results { self.offset } else { 0 });
                        machine.saved_now();
                    }
                }
            }
        }
        panic!("it does not come to an end");
    }

    /// One batch from `place` on; a failure may come before or after its effect. How many events are
    /// behind the machine afterwards.
    fn handle(
        &mut self,
        rules: &Rules,
        machine: &mut Machine,
        now: Time,
        (place, count): (usize, usize),
        fails: bool,
    ) -> usize {
        let step = machine.step(now);
        let Step::Handle { offset, .. } = step else {
            panic!("{step:?} is another step than before");
        };
        let batch = place..place + count;
        let poisoned = self.poison.is_some_and(|poison| batch.contains(&poison));
        let refused = poisoned || (fails && self.chance(2));
        if !refused {
            batch.for_each(|event| self.effects[event] += 1);
            if rules.with_results {
                self.offset = offset;
            }
        }
        if !refused && !fails {
            machine.handled(now);
            return count;
        }
        let blame = if poisoned { Blame::Event } else { Blame::Other };
        usize::from(machine.failed(now, step, blame) == Verdict::Skip)
    }
}

/// P10: whatever fails, crashes and pauses: nothing is lost; with the offset in the transaction nothing
/// comes twice either; a poison is skipped alone.
#[test]
fn any_story_loses_nothing() {
    for seed in 0..3_000_u64 {
        let mut rng = Rng::seeded(seed);
        let mut position = 0;
        let positions: Vec<u64> = (0..rng.below(40))
            .map(|_| {
                position += 1 + 2 * rng.below(3);
                position
            })
            .collect();
        let poison = (rng.below(3) == 0 && !positions.is_empty())
            .then(|| rng.below(positions.len() as u64) as usize);
        let rules = Rules {
            batch_max: 1 + rng.below(5) as usize,
            save_every: 1 + rng.below(6),
            on_poison: OnPoison::Skip {
                retries: rng.below(3) as u32,
            },
            with_results: rng.below(2) == 0,
            ..rules()
        };
        let mut world = World {
            rng,
            effects: vec![0; positions.len()],
            positions,
            offset: 0,
            poison,
        };
        let mut now = Time::ZERO;
        for _ in 0..6 {
            world.live(&rules, &mut now, true);
        }
        world.live(&rules, &mut now, false);
        for (place, &effects) in world.effects.iter().enumerate() {
            let expected = match (Some(place) == poison, rules.with_results) {
                (true, _) => effects == 0,
                (false, true) => effects == 1,
                (false, false) => effects >= 1,
            };
            assert!(
                expected,
                "SEED={seed}: event {place} had {effects} effects, {rules:?}"
            );
        }
    }
}
