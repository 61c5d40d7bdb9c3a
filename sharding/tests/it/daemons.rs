//! Proves: workers of a daemon process run once each and are spread, and roles say who hosts.

use crate::living::{Do, Ledger, Living, count};
use crate::support::{SECOND, SHARDS, addr};
use otava_actor::{ActorSystem, AskError, Props};
use otava_cluster::{Cluster, ClusterConfig, Dissemination};
use otava_remote::{Remote, VirtualWorld};
use otava_sharding::{
    AllocationStore, DaemonProcess, Entities, EntityContext, MemoryAllocationStore, Sharding,
    ShardingConfig, StartError, WorkerContext,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

struct Node {
    cluster: Cluster,
    remote: Remote,
    system: ActorSystem,
}

/// A node that has not joined.
fn node(world: &VirtualWorld, n: u16, roles: &[&str]) -> Node {
    let name = format!("n{n}");
    let system = ActorSystem::builder(&name).seed(u64::from(n)).build();
    let network = Arc::new(world.network(addr(n), &name));
    let builder = Remote::builder(&system, "test", &name, network);
    let remote = builder.seeded(u64::from(n)).start().unwrap();
    let mut config = ClusterConfig::default()
        .with_seeds([addr(1), addr(2), addr(3)])
        .with_roles(roles.iter().copied())
        .with_dissemination(Dissemination::Seeded(u64::from(n)));
    // Settings are compared at the door.
    config.join_when_told = true;
    let cluster = Cluster::start(&remote, config).unwrap();
    Node {
        cluster,
        remote,
        system,
    }
}

const WORKERS: u32 = 5;

fn workers(
    node: &Node,
    ledger: &Arc<Ledger>,
    store: &Arc<MemoryAllocationStore>,
) -> Result<DaemonProcess<Do>, StartError> {
    let ledger = ledger.clone();
    let make = move |worker: WorkerContext| {
        assert!(worker.index < worker.workers && worker.workers == WORKERS);
        Props::once(Living::new(worker.entity, &ledger))
    };
    let store: Arc<dyn AllocationStore> = store.clone();
    let config = ShardingConfig::default().roles(["work"]);
    DaemonProcess::start(&node.cluster, "mail", store, WORKERS, config, make)
}

/// Waits until all workers run, as evenly spread as they can be; on which nodes.
async fn until_spread(daemon: &DaemonProcess<Do>, nodes: usize, ledger: &Ledger) -> Vec<usize> {
    let begin = Instant::now();
    loop {
        let mut counts = BTreeMap::new();
        let homes = daemon.homes();
        for home in homes.iter().flatten() {
            *counts.entry(home.clone()).or_insert(0_usize) += 1;
        }
        let spread = counts.values().max().zip(counts.values().min());
        let even = spread.is_some_and(|(most, least)| most - least <= 1);
        if homes.iter().all(Option::is_some)
            && counts.len() == nodes
            && even
            && ledger.alive().len() == WORKERS as usize
        {
            return counts.into_values().collect();
        }
        assert!(
            begin.elapsed() < SECOND * 60,
            "{homes:?} {:?}",
            ledger.alive()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// S1, S2, S6: five workers on three nodes run once each; they go on when a node leaves, when one dies and
/// when one comes, on members with the role only.
#[tokio::test(start_paused = true)]
async fn workers_are_always_there() {
    let world = VirtualWorld::new(1);
    let (ledger, store) = (Arc::default(), Arc::new(MemoryAllocationStore::new()));
    let mut nodes: Vec<Node> = (1..=3).map(|n| node(&world, n, &["work"])).collect();
    let front = node(&world, 9, &[]);
    let here = workers(&front, &ledger, &store).unwrap();
    let start = |node: &Node| workers(node, &ledger, &store).unwrap();
    let mut daemons: Vec<DaemonProcess<Do>> = nodes.iter().map(start).collect();
    for node in nodes.iter().chain([&front]) {
        node.cluster.join().await.unwrap();
    }
    assert_eq!(
        until_spread(&here, 3, &ledger).await.iter().sum::<usize>(),
        5
    );
    assert_eq!(here.entities().local_stats().shards, 0);
    let before = ledger.all_starts();
    for index in 0..WORKERS {
        let worker = here.worker(index).unwrap();
        worker.send(count(1)).await.unwrap();
        worker.send(Do::Fail).await.unwrap();
    }
    assert!(here.worker(WORKERS).is_none());
    let stranger = here.entities().entity("nobody");
    let stranger = stranger.ask(|reply_to| Do::Count {
        number: 1,
        reply_to: Some(reply_to),
    });
    assert!(matches!(stranger.await, Err(AskError::Unreachable { .. })));
    sleep(SECOND).await;
    until_spread(&here, 3, &ledger).await;
    assert_eq!(ledger.all_starts() - before, 5, "each has failed once");

    let (leaver, daemon) = (nodes.remove(0), daemons.remove(0));
    leaver.cluster.begin_leave().await;
    daemon.hand_over(SECOND * 10).await.unwrap();
    leaver.cluster.finish_leave().await.unwrap();
    leaver.system.shutdown().await;
    leaver.remote.shutdown().await;
    until_spread(&here, 2, &ledger).await;

    let (victim, _) = (nodes.remove(0), daemons.remove(0));
    victim.system.shutdown().await;
    world.crash(victim.cluster.me().addr);
    until_spread(&here, 1, &ledger).await;

    let newcomer = node(&world, 4, &["work"]);
    let daemon = workers(&newcomer, &ledger, &store).unwrap();
    newcomer.cluster.join().await.unwrap();
    until_spread(&here, 2, &ledger).await;
    assert!(daemon.entities().local_stats().entities >= 2);
    ledger.check();
}

fn accounts(node: &Node, ledger: &Arc<Ledger>, store: &Arc<MemoryAllocationStore>) -> Entities<Do> {
    let ledger = ledger.clone();
    let make = move |context: EntityContext| Props::once(Living::new(context, &ledger));
    let store: Arc<dyn AllocationStore> = store.clone();
    let config = ShardingConfig::default().shards(SHARDS).roles(["data"]);
    Sharding::start(&node.cluster, "account", store, config, make).unwrap()
}

/// Members without a role host nothing: as proxies they reach the entities in order while shards move, and
/// those where the kind was not started at all hold nobody up.
#[tokio::test(start_paused = true)]
async fn members_without_the_role_are_proxies() {
    let world = VirtualWorld::new(2);
    let (ledger, store) = (Arc::default(), Arc::new(MemoryAllocationStore::new()));
    // The oldest member of all does not have the role.
    let bystander = node(&world, 1, &["other"]);
    let front = node(&world, 2, &["front", "web"]);
    let data = [3, 4, 5].map(|n| node(&world, n, &["data"]));
    let config = ShardingConfig::default().shards(SHARDS);
    let none = Sharding::proxy::<Do>(&front.cluster, "account", config.clone());
    assert_eq!(none.unwrap_err(), StartError::NoRoles);
    let config = config.roles(["data"]);
    let proxy = Sharding::proxy::<Do>(&front.cluster, "account", config).unwrap();
    let hosts = [&data[0], &data[1], &data[2]].map(|node| accounts(node, &ledger, &store));
    let begin = Instant::now();
    for node in [&bystander, &front].into_iter().chain(&data) {
        node.cluster.join().await.unwrap();
    }
    proxy.all_hosted().await;
    assert!(begin.elapsed() < SECOND * 30);
    let sender = proxy.clone();
    let sender = tokio::spawn(async move {
        for number in 1..=1_000 {
            for id in 0..10 {
                let entity = sender.entity(format!("e{id}"));
                entity.send(count(number)).await.unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    sleep(SECOND * 2).await;
    // The oldest host leaves, the coordinator with it: nobody waits for those who host nothing.
    data[0].cluster.begin_leave().await;
    hosts[0].hand_over(SECOND * 4).await.unwrap();
    data[0].cluster.finish_leave().await.unwrap();
    sender.await.unwrap();
    sleep(SECOND).await;
    assert_eq!(ledger.check(), 10_000);
    assert_eq!(proxy.local_stats().shards, 0);
    let there = hosts.each_ref().map(|host| host.local_stats().shards);
    assert_eq!(
        (there[0], there.iter().sum::<usize>()),
        (0, SHARDS as usize)
    );
    let stats = proxy.stats(SECOND).await;
    assert!(stats.is_complete() && stats.entities() == 10, "{stats:?}");
    front.cluster.begin_leave().await;
    proxy.hand_over(SECOND).await.unwrap();
    front.cluster.finish_leave().await.unwrap();
}
