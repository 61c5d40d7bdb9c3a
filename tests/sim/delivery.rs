//! Proves: what a producer has stored in the journal is handled, once and in order, whichever node its next run
//! is on, and the runs before can send nothing new.

use otava::delivery::{
    Consumer, ConsumerConfig, ConsumerMessage, Delivered, Producer, ProducerConfig, Sent,
    Unconfirmed,
};
use otava::prelude::*;
use otava::testkit::{SimCluster, Simulation, seeds};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize, Serialize)]
struct Order(u64);

impl RemoteMessage for Order {
    const NAME: &'static str = "sim.Order";
}

/// Writes down what it is handed.
#[derive(Clone, Default)]
struct Warehouse(Arc<Mutex<Vec<u64>>>);

impl Actor for Warehouse {
    type Msg = Delivered<Order>;
    type Err = Infallible;

    async fn handle(
        &mut self,
        order: Delivered<Order>,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        sleep(Duration::from_millis(5)).await;
        self.0.lock().unwrap().push(order.message.0);
        order.confirm.send();
        Ok(())
    }
}

/// A warehouse on each node.
fn host(node: &Node) -> Warehouse {
    let warehouse = Warehouse::default();
    let handler = node.system().spawn("warehouse", warehouse.clone()).unwrap();
    let config = ConsumerConfig::default();
    let orders = Consumer::start(node.system(), "orders-in", handler, config).unwrap();
    node.remote()
        .publish("orders-in", orders.actor_ref())
        .unwrap();
    warehouse
}

/// Starts the producer on node `at`, for the warehouse of node `to`.
async fn producer(cluster: &SimCluster<Warehouse>, at: u16, to: u16) -> Producer<Order> {
    let (node, _) = cluster.node(at).unwrap();
    let (target, _) = cluster.node(to).unwrap();
    let config = ProducerConfig::default().with_queue(node.delivery_queue("orders"));
    let producer = Producer::start(node.system(), "orders-out", config);
    let producer = producer.await.unwrap();
    let there = node
        .remote()
        .resolve::<ConsumerMessage<Order>>(target.id(), "orders-in");
    producer.deliver_to(&there).await;
    producer
}

/// Orders the next ones, and waits until they are stored.
async fn order(producer: &Producer<Order>, next: &mut u64, count: u64) -> Sent {
    let mut last = None;
    for _ in 0..count {
        let mut sent = producer.send(Order(*next)).await.unwrap();
        sent.stored().await.unwrap();
        *next += 1;
        last = Some(sent);
    }
    last.unwrap()
}

/// The producer's node crashes with orders under way, then is cut off while the producer is started again on
/// another node: the warehouse, which lives on, sees each order once.
#[test]
fn what_is_stored_in_the_journal_is_handled_once() {
    for seed in seeds(5) {
        Simulation::seeded(seed)
            .nodes(4)
            .run(host, async |cluster| {
                let (_, Warehouse(handled)) = cluster.node(4).unwrap();
                let mut next = 0;
                for at in [1, 2, 1, 3] {
                    let producer = producer(&cluster, at, 4).await;
                    let sent = order(&producer, &mut next, 20 + cluster.random_below(100)).await;
                    if cluster.random_below(2) == 0 {
                        timeout(LIMIT, sent.confirmed()).await.unwrap().unwrap();
                    }
                    cluster.crash(at).await;
                    cluster.start(at).await;
                }

                let first = producer(&cluster, 1, 4).await;
                order(&first, &mut next, 50).await;
                // It reaches the journal, and nobody else.
                let (cut_off, _) = cluster.node(1).unwrap();
                cluster.network().isolate(cut_off.id().addr);
                let second = producer(&cluster, 2, 4).await;
                let mut late = first.send(Order(u64::MAX)).await.unwrap();
                let stored = timeout(LIMIT, late.stored()).await.unwrap();
                assert_eq!(stored, Err(Unconfirmed), "seed {seed}");
                cluster.network().rejoin(cut_off.id().addr);
                let sent = order(&second, &mut next, 50).await;
                timeout(LIMIT, sent.confirmed()).await.unwrap().unwrap();
                let handled = handled.lock().unwrap();
                assert_eq!(*handled, (0..next).collect::<Vec<_>>(), "seed {seed}");
            });
    }
}
