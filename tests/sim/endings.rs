//! Proves: whatever ends a node, at whatever moment, it ends soon and says how.

use crate::counter::{Command, Counter};
use crate::fleet::{Member, SHARDS, options, start};
use crate::world::{World, addr, seed, settled};
use otava::prelude::*;
use otava::{ClusterConfig, Dissemination, Ended, JoinError, Refusal, ShardingConfig};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(5);

/// Nodes 1 to `size`, all up, all shards hosted.
async fn formed(world: &mut World, size: u16) -> Vec<Member> {
    let mut members = Vec::new();
    for number in 1..=size {
        members.push(start(world, number).await);
    }
    for member in &members {
        member.node.join().await.unwrap();
    }
    for member in &members {
        settled(&member.node, members.len()).await;
        member.counters.all_hosted().await;
    }
    members
}

async fn leaves_soon(member: &Member) {
    let left = timeout(SOON, member.node.leave()).await;
    assert_eq!(left.expect("leaving takes too long"), Ended::Left);
}

/// C5: a node that is put down while it leaves stops at once, and says that it was put down.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_downed_while_it_leaves_stops_at_once() {
    let mut world = World::new(seed(), 3);
    let members = formed(&mut world, 3).await;
    world.net.isolate(addr(3));
    let cut = Instant::now();
    let how = timeout(Duration::from_secs(12), members[2].node.leave()).await;
    assert_eq!(how, Ok(Ended::Downed), "after {:?}", cut.elapsed());
    settled(&members[0].node, 2).await;
}

/// The last node has nobody to hand over to: what waits there is refused, and it leaves.
#[tokio::test(start_paused = true)]
async fn the_last_node_leaves_soon_and_keeps_nobody_waiting() {
    let mut world = World::new(seed(), 1);
    let members = formed(&mut world, 1).await;
    let counters = members[0].counters.clone();
    let asker = tokio::spawn(async move {
        for n in 0.. {
            let entity = counters.entity(format!("c-{n}"));
            let asked = entity.ask(|reply_to| Command::Take(n, reply_to));
            if asked.within(Duration::from_secs(60)).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    sleep(Duration::from_millis(100)).await;
    leaves_soon(&members[0]).await;
    timeout(SOON, asker).await.unwrap().unwrap();
}

/// A node that never became a member has messages that wait for homes; it leaves nevertheless.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_no_member_leaves_soon() {
    let mut world = World::new(seed(), 1);
    let stranger = start(&mut world, 2).await;
    let asked = stranger.counters.entity("c-1").ask(Command::Get);
    let asked = tokio::spawn(async move { asked.within(Duration::from_secs(60)).await });
    let joining = stranger.node.clone();
    let joining = tokio::spawn(async move { joining.join().await });
    sleep(Duration::from_millis(700)).await;
    leaves_soon(&stranger).await;
    assert!(timeout(SOON, asked).await.unwrap().unwrap().is_err());
    let joined = timeout(SOON, joining).await.unwrap().unwrap();
    assert_eq!(joined, Err(JoinError::Ended));
}

/// C2: all leave at once, each is asked twice.
#[tokio::test(start_paused = true)]
async fn all_nodes_leave_at_once() {
    let mut world = World::new(seed(), 3);
    let members = formed(&mut world, 3).await;
    for e in 0..24 {
        let entity = members[0].counters.entity(format!("c-{e}"));
        let asked = entity.ask(|reply_to| Command::Take(e, reply_to));
        asked.await.unwrap();
    }
    let leaves = members.iter().chain(&members).map(|m| m.node.leave());
    let all = timeout(
        Duration::from_secs(15),
        futures_util::future::join_all(leaves),
    );
    let all = all.await.expect("leaving takes too long");
    assert!(all.iter().all(|how| *how == Ended::Left), "{all:?}");
}

/// A node that is refused says why, and can be ended like any other.
#[tokio::test(start_paused = true)]
async fn a_refused_node_says_why_and_ends() {
    let mut world = World::new(seed(), 1);
    let _members = formed(&mut world, 1).await;
    let config = ClusterConfig::default().with_setting("color", "red");
    let node = world.start_with(2, config).await;
    let counters = node.entities::<Counter>(options()).unwrap();
    let refused = node.join().await.unwrap_err();
    assert!(matches!(refused, JoinError::Refused(_)), "{refused}");
    leaves_soon(&Member { node, counters }).await;
}

/// The seeds of the membership's settings count if the builder is given none.
#[tokio::test(start_paused = true)]
async fn seeds_may_stand_in_the_settings() {
    let seed = seed();
    let mut world = World::new(seed, 1);
    let members = formed(&mut world, 1).await;
    let config = ClusterConfig::default()
        .with_seeds([addr(1)])
        .with_dissemination(Dissemination::Seeded(seed));
    let node = Node::builder("sim", "node-2")
        .network(std::sync::Arc::new(world.net.network(addr(2), "node-2")))
        .journal(world.journal.clone())
        .cluster_config(config)
        .start()
        .await
        .unwrap();
    node.join().await.unwrap();
    settled(&members[0].node, 2).await;
}

/// C11: a node that starts a kind with another number of shards is not let in, and is told both.
#[tokio::test(start_paused = true)]
async fn another_number_of_shards_is_refused_at_the_door() {
    let mut world = World::new(seed(), 1);
    let members = formed(&mut world, 2).await;
    let node = world.start(3).await;
    let differs = ShardingConfig::default().shards(SHARDS * 2);
    let differs = EntityOptions::default().sharding(differs);
    let counters = node.entities::<Counter>(differs).unwrap();
    let refused = node.join().await.unwrap_err();
    let ours = (SHARDS * 2).to_string();
    let theirs = SHARDS.to_string();
    let setting = format!("shards of {}", Counter::KIND);
    let differs = Refusal::SettingDiffers {
        setting,
        ours,
        theirs,
    };
    assert_eq!(refused, JoinError::Refused(differs));
    settled(&members[0].node, 2).await;
    leaves_soon(&Member { node, counters }).await;
}

/// Nodes that differ in the number of shards do not share entities: whoever asks on the one that
/// differs is refused at once, it is given nothing, and what the others host is not torn apart when
/// it becomes the oldest.
#[tokio::test(start_paused = true)]
async fn a_node_with_another_number_of_shards_hosts_nothing() {
    let mut world = World::new(seed(), 3);
    let mut members = formed(&mut world, 1).await;
    let node = world.start(2).await;
    // What is started before joining is compared at the door.
    node.join().await.unwrap();
    let differs = ShardingConfig::default().shards(SHARDS * 2);
    let differs = EntityOptions::default().sharding(differs);
    let counters = node.entities::<Counter>(differs).unwrap();
    let third = start(&mut world, 3).await;
    third.node.join().await.unwrap();
    members.push(third);
    settled(&node, 3).await;
    sleep(SOON).await;
    let asked = counters.entity("c-1").ask(Command::Get);
    let refused = timeout(Duration::from_secs(1), asked).await;
    assert!(refused.expect("it has to wait").is_err());
    let asked = members[0].counters.entity("c-1").ask(Command::Get);
    assert_eq!(asked.await.unwrap(), Vec::<u64>::new());

    world.net.crash(addr(1));
    settled(&node, 2).await;
    assert_eq!(
        node.state().oldest().map(|oldest| &oldest.id),
        Some(node.id())
    );
    sleep(Duration::from_secs(20)).await;
    assert_eq!(counters.local_stats().shards, 0);
    let kept = &members[1].counters;
    let here = members[1].node.id();
    let homes = kept.homes();
    let ids: Vec<String> = (0..24).map(|n| format!("c-{n}")).collect();
    let hosted = ids
        .iter()
        .filter(|id| homes[&kept.shard_of(id)].as_ref() == Some(here));
    let hosted: Vec<_> = hosted.collect();
    assert!(!hosted.is_empty());
    for id in hosted {
        let asked = kept.entity(id).ask(|reply_to| Command::Take(1, reply_to));
        asked.within(Duration::from_secs(1)).await.unwrap();
    }
    // The one that differs is ended: now all entities are hosted again.
    let left = timeout(Duration::from_secs(30), node.leave()).await;
    assert_eq!(left, Ok(Ended::Left));
    for id in ids {
        let asked = kept.entity(id).ask(Command::Get);
        asked.within(Duration::from_secs(10)).await.unwrap();
    }
}

/// Whoever lets go of the last handle has not ended the node.
#[tokio::test(start_paused = true)]
async fn a_node_goes_on_without_its_handle() {
    let mut world = World::new(seed(), 2);
    let mut members = formed(&mut world, 2).await;
    drop(members.remove(1));
    sleep(Duration::from_secs(30)).await;
    settled(&members[0].node, 2).await;
    let homes = members[0].counters.homes();
    assert!(homes.values().all(Option::is_some));
}
