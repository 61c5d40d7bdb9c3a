//! Proves: there are never two, and soon one again, whatever leaves, crashes, is late or is lost.

use super::*;
use otava_actor::Rng;

fn node(n: u16) -> NodeId {
    NodeId::new(format!("n{n}"), ([10, 0, 0, 1], n).into(), u64::from(n))
}

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn member(n: u16, status: Status) -> (NodeId, Member) {
    let id = node(n);
    let age = Some(u64::from(n));
    let profile = None;
    let member = Member {
        id: id.clone(),
        status,
        age,
        profile,
    };
    (id, member)
}

fn outputs(singleton: &mut Singleton) -> Vec<Output> {
    std::iter::from_fn(|| singleton.poll_output()).collect()
}

fn machine(n: u16) -> Singleton {
    Singleton::new(node(n), SingletonSettings::default())
}

/// The oldest starts at once, and the next one as soon as it hears that the first has stopped.
#[test]
fn a_leave_hands_over_without_a_wait() {
    let (mut first, mut second) = (machine(1), machine(2));
    let up = BTreeMap::from([member(1, Status::Up), member(2, Status::Up)]);
    for singleton in [&mut first, &mut second] {
        singleton.set_members(at(0), up.clone());
    }
    let attempt = 1;
    let acquire = Output::Acquire {
        attempt,
        by_age: 1 << 32 | 1,
    };
    assert_eq!(outputs(&mut first), [acquire]);
    assert_eq!(outputs(&mut second), []);
    first.acquired(at(1), attempt, Some(7));
    assert_eq!(outputs(&mut first), [Output::Start { term: 7 }]);

    let leaving = BTreeMap::from([member(1, Status::Leaving), member(2, Status::Up)]);
    second.set_members(at(10), leaving.clone());
    let claim = Output::Send(node(1), Message::Claim);
    assert_eq!(outputs(&mut second), std::slice::from_ref(&claim));
    first.handle(at(11), &node(2), Message::Claim);
    first.set_members(at(12), leaving);
    assert_eq!(outputs(&mut first), [Output::Stop { in_peace: true }]);
    // The claim is said again, for it may have been lost.
    assert_eq!(second.poll_timeout(), Some(at(210)));
    second.handle_timeout(at(210));
    assert_eq!(outputs(&mut second), [claim]);
    first.ended(at(300));
    let released = Output::Send(node(2), Message::Released);
    assert_eq!(outputs(&mut first), [released]);
    assert!(first.is_done());
    second.handle(at(301), &node(1), Message::Released);
    assert!(matches!(outputs(&mut second)[..], [Output::Acquire { .. }]));
}

/// After a loss there is a margin; an older node that is still leaving is waited for besides.
#[test]
fn a_loss_is_followed_by_a_margin() {
    let mut third = machine(3);
    let members = |first, second| {
        let of = [member(1, first), member(2, second), member(3, Status::Up)];
        BTreeMap::from(of)
    };
    third.set_members(at(0), members(Status::Up, Status::Leaving));
    third.set_members(at(1_000), members(Status::Down, Status::Leaving));
    assert_eq!(outputs(&mut third), [Output::Send(node(2), Message::Claim)]);
    third.handle(at(1_100), &node(2), Message::Released);
    assert_eq!(outputs(&mut third), []);
    assert_eq!(third.poll_timeout(), Some(at(4_000)));
    third.handle_timeout(at(4_000));
    assert!(matches!(outputs(&mut third)[..], [Output::Acquire { .. }]));
}

#[test]
fn what_ends_by_itself_or_gets_no_term_comes_again() {
    let mut only = machine(1);
    only.set_members(at(0), BTreeMap::from([member(1, Status::Up)]));
    only.acquired(at(0), 1, None);
    only.handle_timeout(at(1_000));
    only.acquired(at(1_000), 2, Some(5));
    only.ended(at(2_000));
    assert_eq!(only.poll_timeout(), Some(at(3_000)));
    only.handle_timeout(at(3_000));
    // An answer to an earlier attempt is not taken.
    only.acquired(at(3_000), 2, Some(6));
    assert!(!only.is_running());
    only.acquired(at(3_000), 3, Some(6));
    assert!(only.is_running());
    only.out(at(3_500));
    let all = outputs(&mut only);
    assert_eq!(all.last(), Some(&Output::Stop { in_peace: false }));
    only.ended(at(3_600));
    assert!(only.is_done());
}

/// Who gets no term asks ever more rarely, and often again after it has got one.
#[test]
fn attempts_become_rare() {
    let mut only = machine(1);
    only.set_members(at(0), BTreeMap::from([member(1, Status::Up)]));
    let mut now = 0;
    for (attempt, pause) in [200, 400, 800, 1_600, 3_200, 5_000, 5_000]
        .iter()
        .enumerate()
    {
        let attempt = attempt as u64 + 1;
        assert_eq!(only.tenure(), Some(attempt));
        only.acquired(at(now), attempt, None);
        assert_eq!(only.tenure(), None);
        now += pause;
        assert_eq!(only.poll_timeout(), Some(at(now)));
        only.handle_timeout(at(now));
    }
    only.acquired(at(now), 8, Some(1));
    only.ended(at(now));
    only.handle_timeout(at(now + 1_000));
    only.acquired(at(now + 1_000), 9, None);
    assert_eq!(only.poll_timeout(), Some(at(now + 1_200)));
}

/// What is lost stops the actor at once, and is got again when the actor has ended.
#[test]
fn a_lost_tenure_stops_the_actor() {
    let mut only = machine(1);
    only.set_members(at(0), BTreeMap::from([member(1, Status::Up)]));
    only.acquired(at(0), 1, Some(1));
    drop(outputs(&mut only));
    only.lost(7);
    assert_eq!(outputs(&mut only), [], "not of this attempt");
    only.lost(1);
    let stop = Output::Stop { in_peace: false };
    assert_eq!(outputs(&mut only), [stop]);
    assert_eq!(only.tenure(), Some(1), "until it has ended");
    only.ended(at(100));
    assert!(matches!(
        outputs(&mut only)[..],
        [Output::Acquire { attempt: 2, .. }]
    ));
    assert_eq!(only.tenure(), Some(2));
}

/// A cluster whose members see its changes late, each in its own time, and lose messages.
struct World {
    rng: Rng,
    seed: u64,
    now: u64,
    nodes: BTreeMap<u16, (Singleton, Actor)>,
    /// What is so, and what each node will see when.
    truth: BTreeMap<NodeId, Member>,
    views: Vec<(u64, u16, BTreeMap<NodeId, Member>)>,
    wire: Vec<(u64, NodeId, NodeId, Message)>,
    last_term: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Actor {
    runs: bool,
    acquired_at: Option<(u64, u64, u64)>,
    ends_at: Option<u64>,
    out_at: Option<u64>,
}

impl World {
    fn new(seed: u64, nodes: u16) -> Self {
        let truth: BTreeMap<_, _> = (1..=nodes).map(|n| member(n, Status::Up)).collect();
        let mut world = Self {
            rng: Rng::seeded(seed),
            seed,
            now: 0,
            nodes: (1..=nodes)
                .map(|n| (n, (machine(n), Actor::default())))
                .collect(),
            truth,
            views: Vec::new(),
            wire: Vec::new(),
            last_term: 0,
        };
        world.tell();
        world
    }

    /// News reaches each node in up to 600 ms, and never out of order.
    fn tell(&mut self) {
        for n in self.nodes.keys() {
            let last = self.views.iter().filter(|(_, to, _)| to == n).map(|v| v.0);
            let due = (self.now + self.rng.below(600)).max(last.max().unwrap_or(0));
            self.views.push((due, *n, self.truth.clone()));
        }
    }

    fn set(&mut self, n: u16, status: Status) {
        self.truth.get_mut(&node(n)).unwrap().status = status;
        self.tell();
    }

    /// A node is lost: it crashes, or lives on for a while before it knows.
    fn lose(&mut self, n: u16) {
        self.set(n, Status::Down);
        if self.rng.below(2) == 0 {
            self.nodes.remove(&n);
        } else {
            self.nodes.get_mut(&n).unwrap().1.out_at = Some(self.now + 2_000);
            self.views.retain(|(_, to, _)| *to != n);
        }
        self.truth.remove(&node(n));
        self.tell();
        self.views
            .retain(|(_, to, view)| *to != n || view.contains_key(&node(n)));
    }

    fn step(&mut self) {
        self.now += 10;
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.views.drain(..).partition(|v| v.0 <= now);
        self.views = later;
        for (_, to, view) in due {
            if let Some((singleton, _)) = self.nodes.get_mut(&to) {
                singleton.set_members(at(now), view);
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = self.wire.drain(..).partition(|m| m.0 <= now);
        self.wire = later;
        for (_, from, to, message) in due {
            if let Some((singleton, _)) = self.nodes.get_mut(&to.addr.port()) {
                singleton.handle(at(now), &from, message);
            }
        }
        let mut running = 0;
        for (n, (singleton, actor)) in &mut self.nodes {
            if let Some((due, attempt, term)) = actor.acquired_at
                && due <= now
            {
                actor.acquired_at = None;
                singleton.acquired(at(now), attempt, Some(term));
            }
            if actor.out_at.is_some_and(|due| due <= now) {
                singleton.out(at(now));
            }
            if actor.ends_at.is_some_and(|due| due <= now) {
                (actor.runs, actor.ends_at) = (false, None);
                singleton.ended(at(now));
            }
            if singleton.poll_timeout().is_some_and(|due| due <= at(now)) {
                singleton.handle_timeout(at(now));
            }
            while let Some(output) = singleton.poll_output() {
                match output {
                    Output::Acquire { attempt, by_age } => {
                        actor.acquired_at = Some((now + self.rng.below(50), attempt, by_age));
                    }
                    Output::Send(to, message) => {
                        if self.rng.below(5) > 0 {
                            let due = now + 1 + self.rng.below(80);
                            self.wire.push((due, node(*n), to, message));
                        }
                    }
                    Output::Start { term } => {
                        assert!(term > self.last_term, "seed {}: term {term}", self.seed);
                        self.last_term = term;
                        actor.runs = true;
                    }
                    Output::Stop { .. } => actor.ends_at = Some(now + self.rng.below(500)),
                }
            }
            running += usize::from(actor.runs);
        }
        assert!(
            running <= 1,
            "seed {}: {running} run at {now} ms",
            self.seed
        );
    }

    fn runs(&self) -> Option<u16> {
        let running = self.nodes.iter().find(|(_, (_, actor))| actor.runs);
        running.map(|(n, _)| *n)
    }
}

/// Leaves and losses of the oldest, several at once, in any order: never two, terms grow, and at the
/// end the oldest has it.
#[test]
fn there_are_never_two() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok());
    for seed in 0..seeds.unwrap_or(300) {
        let mut world = World::new(seed, 6);
        (0..100).for_each(|_| world.step());
        assert_eq!(world.runs(), Some(1), "seed {seed}");
        let mut n = 1;
        while n <= 4 {
            match world.rng.below(4) {
                0 => world.lose(n),
                1 => {
                    // Also one that is lost while it leaves.
                    world.set(n, Status::Leaving);
                    let wait = world.rng.below(100);
                    (0..wait).for_each(|_| world.step());
                    world.lose(n);
                }
                _ => world.set(n, Status::Leaving),
            }
            n += 1;
            let wait = world.rng.below(3) * world.rng.below(150);
            (0..wait).for_each(|_| world.step());
        }
        // Who leaves says that it exits when it is done, and is removed a little later.
        for _ in 0..1_500 {
            world.step();
            let is_done = |n: u16| {
                let member = world.truth.get(&node(n));
                let leaving = member.is_some_and(|member| member.status == Status::Leaving);
                leaving && world.nodes.get(&n).is_some_and(|(s, _)| s.is_done())
            };
            let done: Vec<u16> = (1..=4).filter(|n| is_done(*n)).collect();
            for n in done {
                world.set(n, Status::Exiting);
                world.truth.remove(&node(n));
                world.tell();
            }
        }
        assert_eq!(world.runs(), Some(5), "seed {seed}");
    }
}
