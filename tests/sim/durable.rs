//! Proves: entities that keep their newest state only move with their shards, and lose nothing acknowledged.

use crate::world::{World, addr, seed, settled};
use otava::prelude::*;
use otava::{DurableEntity, DurableState, Entities, ShardingConfig, StateEffect};
use otava_persistence::MemoryKeys;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::sleep;

const ENTITIES: u64 = 20;
const TRY: Duration = Duration::from_secs(2);

#[derive(Deserialize, Serialize)]
enum Command {
    Set(u64, #[serde(with = "otava::wire")] ReplyTo<()>),
    Get(#[serde(with = "otava::wire")] ReplyTo<u64>),
}

impl RemoteMessage for Command {
    const NAME: &'static str = "sim.Setting";
}

#[derive(Default, Deserialize, Serialize)]
struct Setting(u64);

impl DurableState for Setting {
    type Command = Command;
    const STATE_NAME: &'static str = "sim.Setting";
    const STATE_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> StateEffect<Self> {
        match command {
            Command::Set(to, reply_to) => StateEffect::set(Self(to)).reply(reply_to, ()),
            Command::Get(reply_to) => StateEffect::none().reply(reply_to, self.0),
        }
    }
}

impl DurableEntity for Setting {
    const KIND: &'static str = "setting";

    fn create(_id: &str) -> Self {
        Self::default()
    }
}

async fn set(settings: &Entities<Command>, id: u64, to: u64) {
    let entity = settings.entity(id.to_string());
    while entity
        .ask(|reply_to| Command::Set(to, reply_to))
        .within(TRY)
        .await
        .is_err()
    {
        sleep(Duration::from_millis(100)).await;
    }
}

async fn get(settings: &Entities<Command>, id: u64) -> u64 {
    let entity = settings.entity(id.to_string());
    loop {
        match entity.ask(Command::Get).within(TRY).await {
            Ok(value) => return value,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// S2: the node of some entities is killed, another one leaves: what was acknowledged is there, on
/// whichever node, encrypted as it was.
#[tokio::test(start_paused = true)]
async fn the_newest_state_is_there_after_a_kill_and_a_leave() {
    let story = async {
        let (mut world, keys) = (World::new(seed(), 3), MemoryKeys::new());
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let node = world.start(number).await;
            let options = EntityOptions::default()
                .sharding(ShardingConfig::default().shards(16))
                .encrypted(Arc::new(keys.clone()));
            let settings = node.durable_entities::<Setting>(options);
            nodes.push((node, settings.unwrap()));
        }
        for (node, _) in &nodes {
            node.join().await.unwrap();
        }
        for (_, settings) in &nodes {
            settings.all_hosted().await;
        }
        for id in 0..ENTITIES {
            set(&nodes[0].1, id, id + 100).await;
        }
        world.net.crash(addr(1));
        settled(&nodes[1].0, 2).await;
        for id in 0..ENTITIES {
            assert_eq!(get(&nodes[1].1, id).await, id + 100);
            set(&nodes[1].1, id, id + 200).await;
        }
        assert_eq!(nodes[1].0.leave().await, otava::Ended::Left);
        for id in 0..ENTITIES {
            assert_eq!(get(&nodes[2].1, id).await, id + 200);
        }
    };
    LocalSet::new().run_until(story).await;
}
