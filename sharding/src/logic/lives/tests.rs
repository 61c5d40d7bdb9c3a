//! Tests: lives against actors that stop, fail and are passivated at any moment.

use super::*;
use std::collections::BTreeMap;

fn config() -> LivesConfig {
    LivesConfig {
        waiting_max: 1_000,
        waiting_in_all_max: 10_000,
        restart_min: Duration::from_nanos(100),
        restart_max: Duration::from_nanos(1_600),
        restart_jitter_percent: 20,
        starts_max: 2,
        starts_pause: Duration::from_nanos(10),
        passivation: Passivation::never(),
    }
}

/// What an instance has: its messages, and whether it takes more.
#[derive(Debug, Default)]
struct Instance {
    queue: VecDeque<u64>,
    /// It ends when the queue is empty.
    closed: bool,
}

/// Lives, with instances as an actor system has them.
struct World {
    lives: Lives<u64, u64>,
    now: Time,
    names: BTreeMap<Arc<str>, u32>,
    /// The instances by number, and at which place they are.
    instances: BTreeMap<u64, (u32, u32, Instance)>,
    by_place: BTreeMap<u32, u64>,
    next: u64,
    broken: bool,
    handled: BTreeMap<Arc<str>, Vec<u64>>,
    refused: Vec<u64>,
    lost: usize,
    stored: Vec<u32>,
    forgetting: Vec<u32>,
    births: usize,
}

impl World {
    fn new(config: LivesConfig, seed: u64) -> Self {
        Self {
            lives: Lives::new(config, Rng::seeded(seed)),
            now: Time::ZERO,
            names: BTreeMap::new(),
            instances: BTreeMap::new(),
            by_place: BTreeMap::new(),
            next: 0,
            broken: false,
            handled: BTreeMap::new(),
            refused: Vec::new(),
            lost: 0,
            stored: Vec::new(),
            forgetting: Vec::new(),
            births: 0,
        }
    }

    fn send(&mut self, id: &str, message: u64, kept: Kept) {
        let place = match self.names.get(id) {
            Some(place) => *place,
            None => {
                let place = self.lives.insert(1, id.into(), kept);
                self.names.insert(id.into(), place);
                place
            }
        };
        let back = match self.lives.message(self.now, place, message) {
            Put::Tell(instance, message) => {
                let instance = *instance;
                let (_, _, instance) = self.instances.get_mut(&instance).expect("it has ended");
                if instance.closed {
                    self.lives.refused(place, message).err()
                } else {
                    instance.queue.push_back(message);
                    None
                }
            }
            Put::Full(message) | Put::NotStarted(message) => Some(message),
            Put::Waits => None,
        };
        self.refused.extend(back);
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(output) = self.lives.poll_output() {
            match output {
                Output::Forget(place) => self.forgetting.push(place),
                Output::Remember(place) => self.stored.push(place),
                Output::Gone { id, .. } => {
                    self.names.remove(&id);
                }
                Output::Start(place) => self.start(place),
                Output::Stop(place) => {
                    let number = self.lives.instance(place).expect("nobody to stop");
                    self.instances.get_mut(number).unwrap().2.closed = true;
                }
            }
        }
    }

    fn start(&mut self, place: u32) {
        assert!(!self.by_place.contains_key(&place), "two at once");
        let birth = self.lives.begin(place).unwrap();
        self.births += 1;
        if self.broken {
            let waited = self.lives.not_started(self.now, place);
            self.refused.extend(waited);
            return;
        }
        self.next += 1;
        let queue = self.lives.started(self.now, place, self.next);
        let instance = Instance {
            queue,
            closed: false,
        };
        self.instances
            .insert(self.next, (place, birth.instance, instance));
        self.by_place.insert(place, self.next);
    }

    /// One instance handles a message, or ends if it is to.
    fn run(&mut self, number: u64) {
        let Some((place, _, instance)) = self.instances.get_mut(&number) else {
            return;
        };
        let place = *place;
        match instance.queue.pop_front() {
            Some(message) => {
                let id = self.lives.name(place).unwrap().1.clone();
                self.handled.entry(id).or_default().push(message);
            }
            None if instance.closed => self.end(number, false),
            None => {}
        }
    }

    fn end(&mut self, number: u64, failed: bool) {
        if let Some((place, _, instance)) = self.instances.remove(&number) {
            self.lost += instance.queue.len();
            self.by_place.remove(&place);
            self.lives.ended(self.now, place, failed);
            self.pump();
        }
    }

    fn passivate(&mut self, number: u64) {
        if let Some((place, instance, _)) = self.instances.get(&number) {
            self.lives.passivate(*place, *instance);
            self.pump();
        }
    }

    fn pass(&mut self, nanos: u64) {
        self.now += Duration::from_nanos(nanos);
        self.lives.handle_timeout(self.now);
        self.pump();
    }

    fn run_all(&mut self) {
        loop {
            let numbers: Vec<u64> = self.instances.keys().copied().collect();
            let busy = |(_, _, instance): &(u32, u32, Instance)| {
                instance.closed || !instance.queue.is_empty()
            };
            if !self.instances.values().any(busy) {
                return;
            }
            numbers.into_iter().for_each(|number| self.run(number));
        }
    }

    fn handled(&self, id: &str) -> &[u64] {
        self.handled.get(id).map_or(&[], Vec::as_slice)
    }
}

/// S5: 1,000,000 races of messages against passivation and against entities that stop by themselves: no
/// message is lost or handled by one that has ended, order is kept, and there is one instance at a time.
#[test]
fn a_million_races_lose_nothing() {
    let seed = 55;
    let mut rng = Rng::seeded(seed);
    let config = LivesConfig {
        waiting_max: usize::MAX,
        waiting_in_all_max: usize::MAX,
        passivation: Passivation::least_recently_used(6).idle_after(Duration::from_nanos(50)),
        ..config()
    };
    let mut world = World::new(config, seed);
    let ids: Vec<String> = (0..8).map(|id| id.to_string()).collect();
    let (mut sent, mut races) = (0_u64, 0);
    while races < 1_000_000 {
        let id = &ids[rng.below(8) as usize];
        let number = world.names.get(id.as_str());
        let number = number.and_then(|place| world.by_place.get(place).copied());
        match (rng.below(16), number) {
            (0, Some(number)) => world.passivate(number),
            (1, Some(number)) => world.instances.get_mut(&number).unwrap().2.closed = true,
            (2, Some(number)) => (0..17).for_each(|_| world.run(number)),
            (3, _) => world.pass(rng.below(20)),
            _ => {
                let closing = |number| world.instances[&number].2.closed;
                races += u32::from(number.is_some_and(closing));
                sent += 1;
                world.send(id, sent, Kept::No);
            }
        }
    }
    world.run_all();
    let all: usize = world.handled.values().map(Vec::len).sum();
    assert_eq!(all as u64, sent, "seed {seed}");
    assert_eq!((world.refused.len(), world.lost), (0, 0), "seed {seed}");
    assert_eq!(world.lives.waiting(), 0, "seed {seed}");
    for (id, handled) in &world.handled {
        assert!(handled.is_sorted(), "seed {seed}: {id} out of order");
    }
    assert!(world.births > 20_000, "{}", world.births);
}

/// S6: one that fails is started again after a wait that grows, for the messages that came meanwhile.
#[test]
fn one_that_fails_comes_back_after_a_wait() {
    let mut world = World::new(config(), 1);
    world.send("a", 1, Kept::No);
    for (message, wait) in (2..).zip([100, 200, 400, 800, 1_600, 1_600]) {
        let number = *world.instances.keys().next().unwrap();
        world.run(number);
        world.end(number, true);
        world.send("a", message, Kept::No);
        world.pass(wait - 1);
        assert!(world.instances.is_empty(), "after {wait}");
        world.pass(wait / 5 + 1);
        assert_eq!(world.instances.len(), 1, "after {wait}");
    }
    world.pass(1_600);
    world.run_all();
    let number = *world.instances.keys().next().unwrap();
    world.end(number, true);
    world.send("a", 8, Kept::No);
    world.pass(120);
    world.run_all();
    assert_eq!(world.handled("a"), [1, 2, 3, 4, 5, 6, 7, 8]);
    // Without messages it stays away, and is forgotten in the end.
    let number = *world.instances.keys().next().unwrap();
    world.end(number, true);
    world.pass(2_000);
    assert_eq!((world.instances.len(), world.names.len()), (0, 1));
    world.pass(1_600);
    assert_eq!((world.names.len(), world.lives.poll_timeout()), (0, None));
}

#[test]
fn one_that_cannot_start_refuses_at_once_and_tries_later() {
    let mut world = World::new(config(), 2);
    world.broken = true;
    world.send("a", 1, Kept::No);
    world.send("a", 2, Kept::No);
    assert_eq!((world.refused.as_slice(), world.births), (&[1, 2][..], 1));
    world.pass(120);
    world.send("a", 3, Kept::No);
    assert_eq!((world.refused.len(), world.births), (3, 2));
    world.pass(240);
    world.broken = false;
    world.send("a", 4, Kept::No);
    world.run_all();
    assert_eq!(world.handled("a"), [4]);
    // One that is kept alive tries again by itself.
    let mut world = World::new(config(), 2);
    world.broken = true;
    world.lives.insert_in_line(1, "b".into(), Kept::Always);
    world.pass(1);
    assert_eq!((world.births, world.instances.len()), (1, 0));
    world.broken = false;
    world.pass(120);
    assert_eq!((world.births, world.instances.len()), (2, 1));
}

#[test]
fn what_waits_is_bounded_and_comes_back() {
    let config = LivesConfig {
        waiting_max: 2,
        waiting_in_all_max: 3,
        ..config()
    };
    let mut world = World::new(config, 3);
    for id in ["a", "b"] {
        world.send(id, 0, Kept::No);
    }
    world.run_all();
    for id in ["a", "b"] {
        let number = world.by_place[&world.names[id]];
        world.passivate(number);
        (1..=3).for_each(|message| world.send(id, message, Kept::No));
    }
    assert_eq!(
        (world.refused.as_slice(), world.lives.waiting()),
        (&[3, 2, 3][..], 3)
    );
}

/// S6: a message waits until its entity is remembered; one that stops by itself is forgotten first, and a
/// message that comes meanwhile has it remembered again.
#[test]
fn the_store_comes_before_the_first_message_and_after_the_last() {
    let mut world = World::new(config(), 4);
    world.send("a", 1, Kept::Remembered);
    world.send("a", 2, Kept::Remembered);
    assert_eq!((world.births, world.stored.len()), (0, 1));
    let place = world.stored.pop().unwrap();
    world.lives.remembered(place);
    world.pump();
    world.run_all();
    assert_eq!(world.handled("a"), [1, 2]);
    world.passivate(1);
    world.run_all();
    assert_eq!(
        (world.forgetting.as_slice(), world.instances.len()),
        (&[place][..], 0)
    );
    world.send("a", 3, Kept::Remembered);
    world.lives.forgotten(place);
    world.pump();
    assert_eq!((world.stored.as_slice(), world.births), (&[place][..], 1));
    world.lives.remembered(place);
    world.pump();
    world.run_all();
    assert_eq!(world.handled("a"), [1, 2, 3]);
    // A message that comes while it ends keeps it: nothing has to be forgotten.
    world.passivate(2);
    world.send("a", 4, Kept::Remembered);
    world.run_all();
    assert_eq!(
        (world.handled("a"), world.forgetting.len()),
        (&[1, 2, 3, 4][..], 1)
    );
    let number = *world.instances.keys().next().unwrap();
    world.end(number, false);
    world.lives.forgotten(place);
    world.pump();
    assert!(world.names.is_empty());
}

/// S6: remembered ones start in groups, and one that is asked for first.
#[test]
fn remembered_ones_start_in_groups() {
    let mut world = World::new(config(), 5);
    for id in 0..5 {
        let id: Arc<str> = id.to_string().into();
        let place = world.lives.insert_in_line(1, id.clone(), Kept::Remembered);
        world.names.insert(id, place);
    }
    world.send("4", 1, Kept::Remembered);
    assert_eq!(world.births, 1);
    let mut births = Vec::new();
    for _ in 0..4 {
        world.pass(10);
        births.push(world.births);
    }
    assert_eq!(births, [3, 5, 5, 5]);
    assert_eq!(world.stored.len(), 0);
    // Whoever fails comes back without a message.
    let number = world.by_place[&world.names["0"]];
    world.end(number, true);
    assert_eq!(world.lives.instances(), 4);
    world.pass(130);
    assert_eq!(world.lives.instances(), 5);
}

#[test]
fn a_shard_that_leaves_takes_what_waits_along() {
    let mut world = World::new(config(), 6);
    world.send("a", 1, Kept::No);
    world.send("b", 1, Kept::Remembered);
    world.passivate(1);
    world.send("a", 2, Kept::No);
    let (a, b) = (world.names["a"], world.names["b"]);
    assert_eq!(
        (world.lives.leave(a), world.lives.leave(b)),
        (VecDeque::from([2]), VecDeque::from([1]))
    );
    world.pump();
    assert_eq!(world.names.len(), 1);
    world.run_all();
    assert_eq!(
        (world.names.len(), world.lives.waiting(), world.lost),
        (0, 0, 0)
    );
    assert_eq!(world.handled("a"), [1]);
}

/// An instance that is gone can neither passivate nor weigh down the one that took its place.
#[test]
fn words_of_an_earlier_instance_are_not_heard() {
    let mut world = World::new(config(), 7);
    world.send("a", 1, Kept::No);
    let (place, instance, _) = world.instances[&1];
    world.end(1, false);
    world.send("a", 2, Kept::No);
    assert_eq!(world.names["a"], place);
    world.lives.passivate(place, instance);
    world.pump();
    assert!(!world.instances[&2].2.closed);
}
