//! Measures: what membership costs each node of a large cluster, in messages and bytes. Run by hand:
//!
//! ```text
//! NODES=100 MINUTES=10 cargo test -p otava-cluster --test it whole_nodes_at_rest -- --ignored --nocapture
//! NODES=1000 cargo test --release -p otava-cluster --features fuzzing --test it many_join -- --ignored --nocapture
//! ```
#![allow(clippy::print_stdout, reason = "what is measured is printed")]

use crate::ontop::{MS, SECOND, addr};
#[cfg(feature = "fuzzing")]
use crate::world::World;
use otava_actor::ActorSystem;
use otava_cluster::{Cluster, ClusterConfig, Dissemination};
use otava_remote::{Remote, RemoteStats, VirtualWorld};
use std::sync::Arc;
use tokio::time::{Instant, sleep};

fn number(name: &str, default: u16) -> u16 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// How the gossip is carried, by the variable `GOSSIP`.
fn dissemination(seed: u64) -> Dissemination {
    match std::env::var("GOSSIP").as_deref() {
        Ok("seeded") => Dissemination::Seeded(seed),
        _ => Dissemination::Chitchat,
    }
}

struct Node {
    cluster: Cluster,
    remote: Remote,
    _system: ActorSystem,
}

fn start(net: &VirtualWorld, n: u16) -> Node {
    let name = format!("node-{n}");
    let system = ActorSystem::builder(&name).seed(n.into()).build();
    let network = Arc::new(net.network(addr(n), &name));
    let remote = Remote::builder(&system, "test", &name, network);
    let remote = remote.seeded(n.into()).start().unwrap();
    let config = ClusterConfig::default()
        .with_seeds((1..=3).map(addr))
        .with_dissemination(dissemination(n.into()));
    Node {
        cluster: Cluster::start(&remote, config).unwrap(),
        remote,
        _system: system,
    }
}

/// What all nodes have sent so far.
fn sent(nodes: &[Node]) -> Vec<RemoteStats> {
    nodes.iter().map(|node| node.remote.stats()).collect()
}

fn report(what: &str, nodes: &[Node], before: &[RemoteStats], seconds: f64) {
    let now = sent(nodes);
    let of = |count: fn(&RemoteStats) -> u64| -> Vec<f64> {
        let pairs = now.iter().zip(before);
        pairs
            .map(|(now, before)| (count(now) - count(before)) as f64 / seconds)
            .collect()
    };
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let (frames, bytes) = (of(|s| s.frames_sent), of(|s| s.bytes_sent));
    println!(
        "{what}: {seconds:.0} s; a node and second: {:.1} messages, {:.2} kB; the busiest: {:.1}, {:.2} kB",
        mean(&frames),
        mean(&bytes) / 1e3,
        most(&frames),
        most(&bytes) / 1e3,
    );
}

/// The idle cost of whole nodes over the virtual network: heartbeats, gossip, acknowledgements.
#[tokio::test(start_paused = true)]
#[ignore = "a measurement: minutes"]
async fn whole_nodes_at_rest() {
    let (count, minutes) = (number("NODES", 100), number("MINUTES", 10));
    let net = VirtualWorld::new(1);
    net.set_delay(MS..MS * 10);
    let begin = Instant::now();
    let real = std::time::Instant::now();
    let nodes: Vec<Node> = (1..=count).map(|n| start(&net, n)).collect();
    let nothing = vec![RemoteStats::default(); nodes.len()];
    for node in &nodes {
        let mut state = node.cluster.subscribe();
        let all_up = state.wait_for(|state| state.up().count() == nodes.len() && state.converged);
        tokio::time::timeout(SECOND * 600, all_up)
            .await
            .unwrap()
            .unwrap();
    }
    println!("{count} nodes");
    report(
        "forming, all at once",
        &nodes,
        &nothing,
        begin.elapsed().as_secs_f64(),
    );
    sleep(SECOND * 10).await;
    let (before, from) = (sent(&nodes), Instant::now());
    sleep(SECOND * 60 * u32::from(minutes)).await;
    report("at rest", &nodes, &before, from.elapsed().as_secs_f64());
    for node in &nodes {
        let state = node.cluster.state();
        assert_eq!(state.up().count(), nodes.len());
        assert!(
            state.unreachable.is_empty(),
            "a false alarm: {:?}",
            state.unreachable
        );
    }
    println!("in {:.0} s of real time", real.elapsed().as_secs_f64());
}

/// Nodes that join a cluster in pure logic, with the seeded gossip: some every second, as many as are
/// wanted. How far it goes is told on the way.
#[cfg(feature = "fuzzing")]
#[test]
#[ignore = "a measurement: minutes"]
fn many_join() {
    let count = number("NODES", 300);
    let each_second = number("EACH_SECOND", 20);
    let mut world = World::new(1);
    world.meter = Some(Default::default());
    let real = std::time::Instant::now();
    for n in 1..=count {
        world.start(n);
        if n % each_second == 0 {
            world.run(SECOND, |_| {});
        }
        if n.is_power_of_two() || n % 100 == 0 {
            eprintln!(
                "{n} started, {:.0} s of real time",
                real.elapsed().as_secs_f64()
            );
        }
    }
    let settled = |world: &World| {
        world.nodes.values().all(|node| {
            let state = node.membership.state();
            state.up().count() == usize::from(count) && state.converged
        })
    };
    while !settled(&world) {
        assert!(
            world.now < otava_actor::Time::ZERO + SECOND * 3_600,
            "it does not settle"
        );
        world.run(SECOND * 5, |_| {});
    }
    let seconds = world.now.as_nanos() as f64 / 1e9;
    let per_node = |total: u64| total as f64 / f64::from(count);
    let meter = world.meter.take().unwrap_or_default();
    println!(
        "{count} nodes joined, {each_second} each second, and agree after {seconds:.0} s; a node: {:.0} messages, \
         {:.2} MB",
        per_node(meter.messages),
        per_node(meter.bytes) / 1e6
    );
    world.meter = Some(Default::default());
    let rest = 60 * u32::from(number("MINUTES", 1));
    world.run(SECOND * rest, |_| {});
    let meter = world.meter.take().unwrap_or_default();
    println!(
        "at rest, {rest} s; a node and second: {:.1} messages, {:.2} kB; {:.0} s of real time in all",
        per_node(meter.messages) / f64::from(rest),
        per_node(meter.bytes) / f64::from(rest) / 1e3,
        real.elapsed().as_secs_f64()
    );
    assert!(
        world.ends.is_empty(),
        "some were put down: {:?}",
        world.ends
    );
}
