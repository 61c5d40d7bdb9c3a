//! Proves: what a producer has taken for an entity is handled by it, in order, while shards move and nodes die.

use crate::support::{SECOND, SHARDS, addr};
use otava_actor::{Actor, ActorSystem, Context, Props};
use otava_cluster::delivery::{
    ConsumerConfig, ConsumerMessage, Delivered, MemoryDeliveryQueue, ProducerConfig, SendError,
};
use otava_cluster::{Cluster, ClusterConfig, Dissemination};
use otava_remote::{Remote, RemoteMessage, VirtualWorld};
use otava_sharding::{
    AllocationStore, Entities, EntityContext, MemoryAllocationStore, Sharding, ShardingConfig,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

#[derive(Deserialize, Serialize)]
struct Put(u64);

impl RemoteMessage for Put {
    const NAME: &'static str = "test.Put";
}

/// What was handled: by which entity, in which life of it, and what.
type Book = Arc<Mutex<Vec<(String, u64, u64)>>>;

struct Account {
    context: EntityContext,
    book: Book,
    life: u64,
}

impl Actor for Account {
    type Msg = Delivered<Put>;
    type Err = std::convert::Infallible;

    async fn handle(
        &mut self,
        put: Delivered<Put>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Self::Err> {
        sleep(MS * 2).await;
        let number = put.message.0;
        let row = (self.context.id.to_string(), self.life, number);
        self.book.lock().unwrap().push(row);
        put.confirm.send();
        if number.is_multiple_of(25) {
            // It has done enough, and comes again with its next message.
            ctx.stop_self();
        }
        Ok(())
    }
}

struct Node {
    cluster: Cluster,
    remote: Remote,
    system: ActorSystem,
    entities: Entities<ConsumerMessage<Put>>,
}

fn start(world: &VirtualWorld, store: &Arc<MemoryAllocationStore>, book: &Book, n: u16) -> Node {
    let name = format!("n{n}");
    let system = ActorSystem::builder(&name).seed(u64::from(n)).build();
    let network = Arc::new(world.network(addr(n), &name));
    let builder = Remote::builder(&system, "test", &name, network);
    let remote = builder.seeded(u64::from(n)).start().unwrap();
    let config = ClusterConfig::default()
        .with_seeds([addr(1), addr(2)])
        .with_dissemination(Dissemination::Seeded(u64::from(n)));
    let cluster = Cluster::start(&remote, config).unwrap();
    let (book, lives) = (book.clone(), system.clone());
    let make = move |context: EntityContext| {
        Props::once(Account {
            context,
            book: book.clone(),
            life: lives.rng().next_u64(),
        })
    };
    let store: Arc<dyn AllocationStore> = store.clone();
    let config = ShardingConfig::default().shards(SHARDS);
    let consumer = ConsumerConfig::default();
    let entities = Sharding::start_reliable(&cluster, "account", store, config, consumer, make);
    Node {
        cluster,
        remote,
        system,
        entities: entities.unwrap(),
    }
}

/// Each entity has handled these, in order; each life of it once, if the producer lived all the time.
fn check(book: &Book, messages: std::ops::RangeInclusive<u64>, once: bool) {
    let mut by_entity: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for (id, life, number) in book.lock().unwrap().drain(..) {
        by_entity.entry(id).or_default().push((life, number));
    }
    assert_eq!(by_entity.len(), 40);
    for (id, rows) in by_entity {
        let (mut done, mut last) = (messages.start() - 1, None);
        for (life, number) in rows {
            if let Some((before, known)) = last
                && before == life
                && once
            {
                assert_eq!(number, known + 1, "{id}: out of order or twice in one life");
            }
            assert!(number <= done + 1, "{id}: {number} after {done}");
            done = done.max(number);
            last = Some((life, number));
        }
        assert_eq!(done, *messages.end(), "{id}");
    }
}

/// One node leaves and another is killed while 40 entities get messages: of these no more than 16 at once.
#[tokio::test(start_paused = true)]
async fn entities_get_their_messages_wherever_they_go() {
    let (world, store, book) = (
        VirtualWorld::new(3),
        Arc::new(MemoryAllocationStore::new()),
        Book::default(),
    );
    world.set_delay(MS..MS * 5);
    let mut nodes: Vec<Node> = (1..=5).map(|n| start(&world, &store, &book, n)).collect();
    for node in &nodes {
        node.cluster.join().await.unwrap();
        node.entities.all_hosted().await;
    }
    let queue = Arc::new(MemoryDeliveryQueue::new());
    let config = || {
        let config = ProducerConfig::default().with_keys_max(16);
        config.with_queue(queue.clone())
    };
    let system = nodes[0].system.clone();
    let producer = nodes[0].entities.producer(&system, "puts", config());
    let producer = producer.await.unwrap();
    let refused = producer.send("", Put(0)).await;
    assert!(matches!(refused, Err(SendError::BadKey(_))));
    let sender = producer.clone();
    let sending = tokio::spawn(async move {
        for number in 1..=60 {
            for entity in 0..40 {
                sender
                    .send(format!("a-{entity}"), Put(number))
                    .await
                    .unwrap();
            }
            sleep(MS * 100).await;
        }
    });
    sleep(SECOND).await;
    let leaver = nodes.pop().unwrap();
    leaver.cluster.begin_leave().await;
    leaver.entities.hand_over(SECOND * 10).await.unwrap();
    leaver.cluster.finish_leave().await.unwrap();
    leaver.remote.shutdown().await;
    leaver.system.shutdown().await;
    let victim = nodes.pop().unwrap();
    world.crash(victim.cluster.me().addr);
    timeout(SECOND * 120, sending).await.unwrap().unwrap();
    emptied(&queue).await;
    check(&book, 1..=60, true);

    // The producer ends in the middle of it; the next run, on another node, has its queue.
    for number in 61..=70 {
        for entity in 0..40 {
            let sent = producer.send(format!("a-{entity}"), Put(number)).await;
            sent.unwrap().stored().await.unwrap();
        }
    }
    producer.stop();
    assert!(!queue.is_empty());
    let producer = nodes[1]
        .entities
        .producer(&nodes[1].system, "puts", config());
    let _producer = producer.await.unwrap();
    emptied(&queue).await;
    check(&book, 61..=70, false);
}

async fn emptied(queue: &MemoryDeliveryQueue) {
    for _ in 0..600 {
        if queue.is_empty() {
            return;
        }
        sleep(MS * 200).await;
    }
    panic!("{} messages are left", queue.len());
}
