//! Proves: whatever is lost, late or cut off, all members come to list what each of them offers.

use super::*;
use otava_actor::Rng;

fn node(n: u16) -> NodeId {
    NodeId::new(format!("n{n}"), ([10, 0, 0, 1], n).into(), u64::from(n))
}

fn service(n: u64) -> ServiceId {
    ServiceId {
        name: format!("s{n}").into(),
        kind: "test.1".into(),
    }
}

fn offer(number: u64) -> Offer {
    Offer {
        number,
        rank: number * 7,
    }
}

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

const HERE: Presence = Presence {
    listed: true,
    reachable: true,
};

/// Directories that know each other, messages on their way, and what is offered in truth.
struct World {
    rng: Rng,
    now: u64,
    nodes: BTreeMap<NodeId, Directory>,
    members: BTreeMap<NodeId, Presence>,
    wire: Vec<(u64, NodeId, NodeId, Message)>,
    truth: BTreeMap<(NodeId, u64), u64>,
    loss: u64,
    sent: usize,
}

impl World {
    fn new(seed: u64, nodes: u16) -> Self {
        let mut world = Self {
            rng: Rng::seeded(seed),
            now: 0,
            nodes: BTreeMap::new(),
            members: BTreeMap::new(),
            wire: Vec::new(),
            truth: BTreeMap::new(),
            loss: 0,
            sent: 0,
        };
        for n in 1..=nodes {
            world.join(n);
        }
        world
    }

    fn join(&mut self, n: u16) {
        let me = node(n);
        let directory = Directory::new(me.clone(), at(self.now));
        self.nodes.insert(me.clone(), directory);
        self.members.insert(me, HERE);
        self.tell_members();
    }

    fn tell_members(&mut self) {
        for directory in self.nodes.values_mut() {
            directory.set_members(at(self.now), self.members.clone());
        }
    }

    fn crash(&mut self, n: u16) {
        let gone = node(n);
        self.nodes.remove(&gone);
        self.members.remove(&gone);
        self.truth.retain(|(node, _), _| *node != gone);
        self.tell_members();
    }

    /// Lets a moment pass: messages arrive in any order, some never.
    fn step(&mut self, ms: u64) {
        self.now += ms;
        let now = self.now;
        let (due, later) = self.wire.drain(..).partition(|(due, ..)| *due <= now);
        self.wire = later;
        let mut due: Vec<_> = due;
        self.rng.shuffle(&mut due);
        for (_, from, to, message) in due {
            if let Some(directory) = self.nodes.get_mut(&to) {
                directory.handle(&from, message);
            }
        }
        for (me, directory) in &mut self.nodes {
            directory.handle_timeout(at(now));
            while let Some(output) = directory.poll_output() {
                let Output::Send(to, message) = output else {
                    continue;
                };
                self.sent += 1;
                if self.rng.below(100) >= self.loss {
                    let due = now + 1 + self.rng.below(60);
                    self.wire.push((due, me.clone(), to, message));
                }
            }
        }
    }

    fn change(&mut self) {
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let me = &names[self.rng.below(names.len() as u64) as usize];
        let directory = self.nodes.get_mut(me).unwrap();
        let own: Vec<(u64, u64)> = self
            .truth
            .range((me.clone(), 0)..=(me.clone(), u64::MAX))
            .map(|((_, number), service)| (*number, *service))
            .collect();
        if self.rng.below(3) == 0 && !own.is_empty() {
            let (number, of) = own[self.rng.below(own.len() as u64) as usize];
            directory.withdraw(at(self.now), &service(of), number);
            self.truth.remove(&(me.clone(), number));
        } else {
            let (number, of) = (self.rng.next_u64() >> 8, self.rng.below(20));
            directory
                .offer(at(self.now), &service(of), offer(number))
                .unwrap();
            self.truth.insert((me.clone(), number), of);
        }
    }

    fn check(&self, seed: u64) {
        for (me, directory) in &self.nodes {
            for of in 0..20 {
                let listed = directory.listed(&service(of));
                let listed: Vec<_> = listed.iter().map(|l| (&l.node, l.offer.number)).collect();
                let truth = self.truth.iter().filter(|(_, service)| **service == of);
                let truth: Vec<_> = truth.map(|((node, number), _)| (node, *number)).collect();
                assert_eq!(listed, truth, "seed {seed}: {me} about s{of}");
            }
            assert!(directory.is_known_to_all(), "seed {seed}: {me}");
        }
    }
}

/// L9 over nodes: loss, reordering, crashes and newcomers, and at the end all list the same.
#[test]
fn all_come_to_list_the_same() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok());
    for seed in 0..seeds.unwrap_or(60) {
        let mut world = World::new(seed, 4);
        world.loss = world.rng.below(60);
        for step in 0..200 {
            if world.rng.below(2) == 0 {
                world.change();
            }
            match step {
                60 => world.crash(2),
                90 => world.join(7),
                130 => world.crash(1),
                _ => {}
            }
            world.step(25);
        }
        world.loss = 0;
        (0..100).for_each(|_| world.step(50));
        world.check(seed);
    }
}

/// Once all know, a node says a word a second and nothing more.
#[test]
fn it_is_quiet_when_all_know() {
    let mut world = World::new(1, 10);
    (0..30).for_each(|_| world.change());
    (0..100).for_each(|_| world.step(20));
    world.check(1);
    world.sent = 0;
    (0..100).for_each(|_| world.step(100));
    // Ten seconds, ten nodes, a digest and its answer.
    assert!(world.sent <= 220, "{}", world.sent);
}

#[test]
fn services_that_nobody_offers_any_more_are_forgotten() {
    let mut world = World::new(3, 3);
    let me = node(1);
    for round in 0..4 * SERVICES_MAX as u64 {
        let directory = world.nodes.get_mut(&me).unwrap();
        let now = at(world.now);
        directory.offer(now, &service(round), offer(round)).unwrap();
        directory.withdraw(now, &service(round), round);
        if round % 64 == 0 {
            (0..6).for_each(|_| world.step(30));
        }
    }
    (0..6).for_each(|_| world.step(30));
    assert!(world.nodes[&me].own.is_empty());
}

#[test]
fn a_node_offers_so_much_and_no_more() {
    let mut directory = Directory::new(node(1), at(0));
    for number in 0..OFFERS_MAX as u64 {
        let of = service(number % SERVICES_MAX as u64);
        directory.offer(at(0), &of, offer(number)).unwrap();
    }
    assert_eq!(
        directory.offer(at(0), &service(0), offer(9_999)),
        Err(TooMany)
    );
    directory.withdraw(at(0), &service(0), 0);
    // Too many services, although there is room for an offer.
    assert_eq!(
        directory.offer(at(0), &service(5_000), offer(9_999)),
        Err(TooMany)
    );
    directory.offer(at(0), &service(0), offer(9_999)).unwrap();
}

/// Large lists go in several messages, each of use to whoever has the one before.
#[test]
fn large_lists_go_in_parts() {
    let mut world = World::new(5, 1);
    let me = node(1);
    let directory = world.nodes.get_mut(&me).unwrap();
    for number in 0..OFFERS_MAX as u64 {
        let of = service(number % 1_000);
        directory.offer(at(0), &of, offer(number)).unwrap();
    }
    world.join(2);
    world.step(30);
    let parts = world.wire.iter().filter(|(_, from, ..)| *from == me);
    assert!(parts.count() > 3);
    (0..60).for_each(|_| world.step(50));
    let listed = world.nodes[&node(2)].listed(&service(3));
    assert_eq!(listed.len(), 9);
    assert!(world.nodes[&me].is_known_to_all());
}

/// Strangers change nothing, and nobody speaks for others.
#[test]
fn strangers_are_not_heard() {
    let mut directory = Directory::new(node(1), at(0));
    directory.set_members(at(0), BTreeMap::from([(node(2), HERE)]));
    let changes = Changes {
        base: 0,
        version: 1,
        services: vec![(service(1), vec![offer(1)])],
    };
    directory.handle(&node(3), Message::Changes(changes.clone()));
    assert_eq!(directory.listed(&service(1)), []);
    directory.handle(&node(2), Message::Changes(changes));
    assert_eq!(directory.listed(&service(1)).len(), 1);
    let joining = Presence {
        listed: false,
        reachable: true,
    };
    directory.set_members(at(0), BTreeMap::from([(node(2), joining)]));
    assert_eq!(directory.listed(&service(1)), []);
}

/// Somebody who offers without end fills no other node's memory.
#[test]
fn an_author_without_bounds_is_cut_off() {
    let mut directory = Directory::new(node(1), at(0));
    directory.set_members(at(0), BTreeMap::from([(node(2), HERE)]));
    for of in 0..4 {
        let offers = (0..OFFERS_MAX as u64).map(offer).collect();
        let changes = Changes {
            base: of,
            version: of + 1,
            services: vec![(service(of), offers)],
        };
        directory.handle(&node(2), Message::Changes(changes));
    }
    let listed = (0..4).map(|of| directory.listed(&service(of)).len());
    assert_eq!(listed.sum::<usize>(), 2 * OFFERS_MAX);
}
