//! Proves: groups over the cluster choose among those that can be reached, alike on every node.

use crate::ontop::{MS, SECOND, World};
use otava_actor::{Actor, Context, Pool, Props, ReplyTo, Router, Routing, ServiceKey};
use otava_cluster::ClusterGroup;
use otava_remote::RemoteMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::time::sleep;

/// Who handles it?
#[derive(Deserialize, Serialize)]
struct Who {
    key: u64,
    #[serde(with = "otava_remote::wire")]
    reply_to: ReplyTo<String>,
}

impl RemoteMessage for Who {
    const NAME: &'static str = "test.Who";
}

struct Worker;

impl Actor for Worker {
    type Msg = Who;
    type Err = std::convert::Infallible;

    async fn handle(&mut self, who: Who, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        let _ = who.reply_to.send(ctx.path().to_string());
        Ok(())
    }
}

static WORKERS: ServiceKey<Who> = ServiceKey::new("workers");

async fn ask(router: &Router<Who>, key: u64) -> String {
    let asked = router.ask(|reply_to| Who { key, reply_to });
    asked.within(SECOND).await.unwrap()
}

/// How often each one answered.
async fn shares(router: &Router<Who>, asks: u64) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for key in 0..asks {
        *shares.entry(ask(router, key).await).or_default() += 1;
    }
    shares
}

fn add_worker(world: &World, n: u16) {
    let node = &world.nodes[&n];
    let worker = node.system.spawn("worker", Worker).unwrap();
    node.receptionist.register(&WORKERS, &worker).unwrap();
}

async fn group(world: &World, n: u16, group: ClusterGroup<Who>) -> Router<Who> {
    let receptionist = &world.nodes[&n].receptionist;
    receptionist
        .wait_for(&WORKERS, 3, SECOND * 5)
        .await
        .unwrap();
    let name = format!("group-{}", world.nodes[&n].system.actors().len());
    receptionist.spawn_routee_group(&name, group).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn all_that_can_be_reached_take_turns() {
    let mut world = World::formed(31, 4).await;
    (1..=3).for_each(|n| add_worker(&world, n));
    let far = group(&world, 4, ClusterGroup::of(&WORKERS)).await;
    assert_eq!(
        shares(&far, 30).await.into_values().collect::<Vec<_>>(),
        [10, 10, 10]
    );
    let near = group(&world, 2, ClusterGroup::of(&WORKERS).prefer_local()).await;
    let only_here = BTreeMap::from([("node-2/worker".to_owned(), 10)]);
    assert_eq!(shares(&near, 10).await, only_here);
    let random = ClusterGroup::of(&WORKERS).routing(Routing::random());
    let random = group(&world, 4, random).await;
    assert_eq!(shares(&random, 60).await.len(), 3);

    // One that ends, and a node that dies, get nothing any more.
    let dead = world.crash(3).await;
    let state = world.nodes[&4].cluster.subscribe();
    world.nodes[&4]
        .sees("its death", |state| state.is_unreachable(&dead))
        .await;
    drop(state);
    sleep(MS * 50).await;
    assert_eq!(
        shares(&far, 20).await.into_values().collect::<Vec<_>>(),
        [10, 10]
    );
    assert_eq!(far.routees().len(), 2);
    far.stop();
    sleep(SECOND).await;
    assert!(far.is_stopped());
}

/// A key belongs to the same routee as seen from every node, and few keys move when a node is lost.
#[tokio::test(start_paused = true)]
async fn a_key_belongs_to_one_routee_in_the_whole_cluster() {
    let mut world = World::formed(32, 4).await;
    (1..=4).for_each(|n| add_worker(&world, n));
    let hashed = || {
        let routing = Routing::consistent_hash(|who: &Who| who.key);
        ClusterGroup::of(&WORKERS).routing(routing)
    };
    let mut routers = Vec::new();
    for n in 1..=4 {
        let receptionist = &world.nodes[&n].receptionist;
        receptionist
            .wait_for(&WORKERS, 4, SECOND * 5)
            .await
            .unwrap();
        routers.push(group(&world, n, hashed()).await);
    }
    let mut owners = BTreeMap::new();
    for key in 0..60 {
        let owner = ask(&routers[0], key).await;
        for router in &routers[1..] {
            assert_eq!(ask(router, key).await, owner, "key {key}");
        }
        owners.insert(key, owner);
    }
    let dead = world.crash(4).await;
    world.nodes[&1]
        .sees("its death", |state| state.is_unreachable(&dead))
        .await;
    sleep(MS * 50).await;
    for (key, owner) in owners {
        let heir = ask(&routers[0], key).await;
        assert!(
            heir == owner || owner.starts_with("node-4"),
            "key {key}: {owner}, {heir}"
        );
    }
}

/// A pool on each node is one routee of the group, and its routees take turns within.
#[tokio::test(start_paused = true)]
async fn pools_on_many_nodes_are_one() {
    let world = World::formed(33, 3).await;
    for node in world.nodes.values() {
        let pool = Pool::new(2, || Props::new(|| Worker));
        node.receptionist
            .spawn_pool("pool", &WORKERS, pool)
            .unwrap();
    }
    let router = group(&world, 1, ClusterGroup::of(&WORKERS)).await;
    let shares = shares(&router, 60).await;
    assert_eq!(shares.len(), 6, "{shares:?}");
    assert!(shares.values().all(|share| *share == 10), "{shares:?}");
}
