//! Proves: what a producer has taken is handled, in order, over cuts, crashes and restarts, and nothing counts
//! as confirmed that was not.

use crate::ontop::{MS, Note, SECOND, World};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, ReplyTo};
use otava_cluster::delivery::{
    Consumer, ConsumerConfig, ConsumerMessage, Delivered, DeliveryQueue, MemoryDeliveryQueue,
    Producer, ProducerConfig, QueueError, SendError, StartError, StoredMessage, Unconfirmed,
};
use otava_remote::RemoteMessage;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

/// Says what it was handed, and confirms it, some time later.
struct Handler<M> {
    takes: Duration,
    said: tokio::sync::mpsc::UnboundedSender<M>,
}

impl<M: RemoteMessage> Actor for Handler<M> {
    type Msg = Delivered<M>;
    type Err = Infallible;

    async fn handle(
        &mut self,
        delivered: Delivered<M>,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        if !self.takes.is_zero() {
            sleep(self.takes).await;
        }
        let _ = self.said.send(delivered.message);
        delivered.confirm.send();
        Ok(())
    }
}

/// A consumer with a handler that confirms.
fn consumer<M: RemoteMessage>(
    system: &ActorSystem,
    name: &str,
    takes: Duration,
) -> (Consumer<M>, UnboundedReceiver<M>) {
    let (said, heard) = unbounded_channel();
    let handler = Handler { takes, said };
    let handler = system.spawn(&format!("{name}-handler"), handler).unwrap();
    let consumer = Consumer::start(system, name, handler, ConsumerConfig::default());
    (consumer.unwrap(), heard)
}

/// The consumer of another node, as this node reaches it.
fn seen_from<M: RemoteMessage>(
    world: &World,
    from: u16,
    to: u16,
    consumer: &Consumer<M>,
) -> ActorRef<ConsumerMessage<M>> {
    let there = &world.nodes[&to];
    there
        .remote
        .publish("orders", consumer.actor_ref())
        .unwrap();
    world.nodes[&from].remote.resolve(there.id(), "orders")
}

fn drain(heard: &mut UnboundedReceiver<Note>) -> Vec<u64> {
    std::iter::from_fn(|| heard.try_recv().ok())
        .map(|note| note.number)
        .collect()
}

fn note(number: u64) -> Note {
    Note { from: 1, number }
}

/// The connection breaks again and again, for up to three seconds: each message is handled once, in order.
#[tokio::test(start_paused = true)]
async fn cuts_lose_nothing_and_repeat_nothing() {
    let world = World::formed(31, 3).await;
    let node = &world.nodes[&1];
    let config = ProducerConfig::default().with_buffer(40, 1 << 20);
    let producer = Producer::start(&node.system, "orders-out", config);
    let producer = producer.await.unwrap();
    let (orders, mut heard) = consumer::<Note>(&world.nodes[&2].system, "orders", MS);
    let there = seen_from(&world, 1, 2, &orders);
    producer.deliver_to(&there).await;
    let sender = producer.clone();
    let sending = tokio::spawn(async move {
        let mut last = None;
        for number in 1..=2_000 {
            last = Some(sender.send(note(number)).await.unwrap());
            sleep(MS * 5).await;
        }
        last.unwrap().confirmed().await
    });
    let (a, b) = (crate::ontop::addr(1), crate::ontop::addr(2));
    for round in 0..8 {
        sleep(MS * 700).await;
        match round % 3 {
            0 => world.net.cut(a, b),
            1 => world.net.cut_one_way(a, b),
            _ => world.net.cut_one_way(b, a),
        }
        sleep(MS * (100 + round * 400)).await;
        world.net.heal(a, b);
    }
    timeout(SECOND * 60, sending)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(drain(&mut heard), (1..=2_000).collect::<Vec<_>>());
    assert_eq!(producer.unconfirmed(), 0);
}

/// The node of the consumer is lost: the next consumer begins with the first message that was not confirmed.
#[tokio::test(start_paused = true)]
async fn the_next_consumer_goes_on() {
    let mut world = World::formed(32, 3).await;
    let node = &world.nodes[&1];
    let producer = Producer::start(&node.system, "orders-out", ProducerConfig::default());
    let producer = producer.await.unwrap();
    node.remote
        .publish("orders-out", producer.actor_ref())
        .unwrap();
    let id = node.id().clone();
    let (first, mut heard) = consumer::<Note>(&world.nodes[&2].system, "orders", MS * 10);
    let at = world.nodes[&2].remote.resolve(&id, "orders-out");
    first.register_with(&at).await;
    let mut sent = Vec::new();
    for number in 1..=200 {
        sent.push(producer.send(note(number)).await.unwrap());
    }
    sleep(SECOND).await;
    world.crash(2).await;
    let before = drain(&mut heard);
    assert!(!before.is_empty() && before.len() < 200);
    assert!(before.iter().copied().eq(1..=before.len() as u64));

    let (second, mut heard) = consumer::<Note>(&world.nodes[&3].system, "orders", MS);
    let at = world.nodes[&3].remote.resolve(&id, "orders-out");
    second.register_with(&at).await;
    for sent in sent {
        timeout(SECOND * 30, sent.confirmed())
            .await
            .unwrap()
            .unwrap();
    }
    let after = drain(&mut heard);
    let begin = after[0];
    // At most what was under way when the first one ended comes twice.
    assert!(begin <= before.len() as u64 + 1 && begin + 50 > before.len() as u64);
    assert!(after.iter().copied().eq(begin..=200));
}

/// A message that the handler has not confirmed is handed again, and nothing overtakes it; one that is asked
/// confirms with its answer.
#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_comes_again() {
    let system = ActorSystem::new("one");
    let producer = Producer::<Note>::start(&system, "out", ProducerConfig::default());
    let producer = producer.await.unwrap();
    let (said, mut heard) = unbounded_channel();
    struct Asked(tokio::sync::mpsc::UnboundedSender<(u64, ReplyTo<bool>)>);
    impl Actor for Asked {
        type Msg = (u64, ReplyTo<bool>);
        type Err = Infallible;
        async fn handle(
            &mut self,
            asked: Self::Msg,
            _: &mut Context<Self>,
        ) -> Result<(), Infallible> {
            let _ = self.0.send(asked);
            Ok(())
        }
    }
    let asked = system.spawn("asked", Asked(said)).unwrap();
    let handler = asked.adapt(|delivered: Delivered<Note>| {
        (delivered.message.number, delivered.confirm.into_reply_to())
    });
    let orders = Consumer::start(&system, "orders", handler, ConsumerConfig::default()).unwrap();
    orders.register_with(producer.actor_ref()).await;
    let mut sent = Vec::new();
    for number in 1..=3 {
        sent.push(producer.send(note(number)).await.unwrap());
    }
    for times in 0..3 {
        let begin = tokio::time::Instant::now();
        let (number, reply_to) = heard.recv().await.unwrap();
        assert_eq!(number, 1);
        assert_eq!(begin.elapsed() >= MS * 900, times > 0);
        drop(reply_to);
    }
    for expected in [1, 2, 3] {
        let (number, reply_to) = heard.recv().await.unwrap();
        assert_eq!(number, expected);
        assert!(heard.try_recv().is_err());
        reply_to.send(true).unwrap();
    }
    for sent in sent {
        sent.confirmed().await.unwrap();
    }
    // The consumer ends with its handler, the producer when it is stopped; its messages with it.
    asked.stop();
    let last = producer.send(note(4)).await.unwrap();
    producer.stop();
    assert_eq!(last.confirmed().await, Err(Unconfirmed));
    let refused = producer.send(note(5)).await;
    assert!(matches!(refused, Err(SendError::Ended(note)) if note.number == 5));
}

/// Without a consumer a producer takes what its buffer holds, and no more.
#[tokio::test(start_paused = true)]
async fn a_producer_takes_what_it_has_room_for() {
    let system = ActorSystem::new("one");
    let config = ProducerConfig::default().with_buffer(10, 1 << 20);
    let producer = Producer::start(&system, "out", config).await.unwrap();
    for number in 1..=10 {
        producer.try_send(note(number)).unwrap();
    }
    let refused = producer.try_send(note(11));
    assert!(matches!(refused, Err(SendError::Full(note)) if note.number == 11));
    let waits = timeout(SECOND * 60, producer.send(note(11))).await;
    assert!(waits.is_err());
    assert_eq!(producer.unconfirmed(), 10);
    let (orders, mut heard) = consumer::<Note>(&system, "orders", Duration::ZERO);
    producer.deliver_to(orders.actor_ref()).await;
    let last = timeout(SECOND, producer.send(note(11))).await.unwrap();
    last.unwrap().confirmed().await.unwrap();
    assert_eq!(drain(&mut heard), (1..=11).collect::<Vec<_>>());
}

#[derive(Deserialize, Serialize)]
struct Scan {
    number: u64,
    pixels: Vec<u8>,
}

impl RemoteMessage for Scan {
    const NAME: &'static str = "test.Scan";
}

/// Messages of many chunks, larger than a frame and the window, cross in order between small ones, over cuts.
#[tokio::test(start_paused = true)]
async fn large_messages_go_in_chunks() {
    let world = World::formed(33, 2).await;
    let config = ProducerConfig::default()
        .with_chunk_bytes(16 << 10)
        .with_message_bytes_max(3 << 20);
    let producer = Producer::start(&world.nodes[&1].system, "scans-out", config);
    let producer = producer.await.unwrap();
    let (scans, mut heard) = consumer::<Scan>(&world.nodes[&2].system, "scans", MS);
    let there = seen_from(&world, 1, 2, &scans);
    producer.deliver_to(&there).await;
    let pixels = |number: u64| {
        let length = if number.is_multiple_of(3) {
            2 << 20
        } else {
            100
        };
        vec![number as u8; length + number as usize]
    };
    let mut sent = Vec::new();
    for number in 1..=12 {
        let scan = Scan {
            number,
            pixels: pixels(number),
        };
        sent.push(producer.send(scan).await.unwrap());
    }
    let (a, b) = (crate::ontop::addr(1), crate::ontop::addr(2));
    for _ in 0..3 {
        sleep(MS * 60).await;
        world.net.cut(a, b);
        sleep(MS * 300).await;
        world.net.heal(a, b);
    }
    for sent in sent {
        timeout(SECOND * 60, sent.confirmed())
            .await
            .unwrap()
            .unwrap();
    }
    for number in 1..=12 {
        let scan = heard.try_recv().unwrap();
        assert_eq!(scan.number, number);
        assert!(scan.pixels == pixels(number));
    }
    assert!(heard.try_recv().is_err());
    let too_large = Scan {
        number: 0,
        pixels: vec![0; 3 << 20],
    };
    let refused = producer.send(too_large).await.unwrap_err();
    assert!(matches!(refused, SendError::TooLarge { bytes_max, .. } if bytes_max == 3 << 20));
}
