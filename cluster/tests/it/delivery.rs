//! Proves: what a producer has taken is handled, in order, over cuts, crashes and restarts, and nothing counts
//! as confirmed that was not.

use crate::ontop::{MS, Note, SECOND, World};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, ReplyTo, ServiceKey};
use otava_cluster::delivery::{
    Consumer, ConsumerConfig, ConsumerMessage, Delivered, DeliveryQueue, KeyedProducer,
    MemoryDeliveryQueue, Producer, ProducerConfig, QueueError, SendError, StartError,
    StoredMessage, Unconfirmed, WorkProducer,
};
use otava_remote::RemoteMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
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

/// What a handler confirms right before it ends is confirmed, and the next one goes on after it.
#[tokio::test(start_paused = true)]
async fn the_last_word_of_a_handler_counts() {
    struct Three(u64);
    impl Actor for Three {
        type Msg = Delivered<Note>;
        type Err = Infallible;
        async fn handle(
            &mut self,
            delivered: Delivered<Note>,
            ctx: &mut Context<Self>,
        ) -> Result<(), Infallible> {
            // Never one that was handled before.
            self.0 += 1;
            assert_eq!(delivered.message.number, self.0);
            delivered.confirm.send();
            if self.0.is_multiple_of(3) {
                ctx.stop_self();
            }
            Ok(())
        }
    }
    let system = ActorSystem::new("one");
    let producer = Producer::<Note>::start(&system, "out", ProducerConfig::default());
    let producer = producer.await.unwrap();
    let mut sent = Vec::new();
    for number in 1..=30 {
        sent.push(producer.send(note(number)).await.unwrap());
    }
    for round in 0..10 {
        let name = format!("three-{round}");
        let handler = system.spawn(&name, Three(round * 3)).unwrap();
        let name = format!("orders-{round}");
        let orders = Consumer::start(&system, &name, handler, ConsumerConfig::default());
        producer.deliver_to(orders.unwrap().actor_ref()).await;
        for sent in sent.drain(..3) {
            timeout(SECOND, sent.confirmed()).await.unwrap().unwrap();
        }
    }
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

fn durable(queue: &Arc<MemoryDeliveryQueue>) -> ProducerConfig {
    ProducerConfig::default().with_queue(queue.clone())
}

/// A producer that ends goes on with its queue: nothing is lost, the consumer that lives on gets nothing twice,
/// and of two runs the earlier one is out.
#[tokio::test(start_paused = true)]
async fn a_queue_outlives_its_producer() {
    let queue = Arc::new(MemoryDeliveryQueue::new());
    let mut world = World::formed(34, 3).await;
    let (orders, mut heard) = consumer::<Note>(&world.nodes[&2].system, "orders", MS * 3);
    let there = seen_from(&world, 1, 2, &orders);
    let producer = Producer::start(&world.nodes[&1].system, "out", durable(&queue));
    let producer = producer.await.unwrap();
    producer.deliver_to(&there).await;
    for number in 1..=200 {
        let mut sent = producer.send(note(number)).await.unwrap();
        sent.stored().await.unwrap();
    }
    let some_are_confirmed = async {
        while queue.len() == 200 {
            sleep(MS * 10).await;
        }
    };
    timeout(SECOND * 10, some_are_confirmed).await.unwrap();
    let crashed = queue.len();
    assert!(crashed > 0);
    world.crash(1).await;

    // On another node, with the same queue.
    let system = world.nodes[&3].system.clone();
    let producer = Producer::start(&system, "out", durable(&queue)).await;
    let producer = producer.unwrap();
    let node = &world.nodes[&2];
    let there = world.nodes[&3].remote.resolve(node.id(), "orders");
    producer.deliver_to(&there).await;
    let last = producer.send(note(201)).await.unwrap();
    timeout(SECOND * 60, last.confirmed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drain(&mut heard), (1..=201).collect::<Vec<_>>());
    sleep(SECOND).await;
    assert!(queue.is_empty());

    // A third run takes the queue over while the second one still believes that it has it.
    let third = Producer::<Note>::start(&system, "out-3", durable(&queue));
    let third = third.await.unwrap();
    let mut sent = producer.send(note(202)).await.unwrap();
    assert_eq!(sent.stored().await, Err(Unconfirmed));
    assert!(matches!(
        producer.send(note(203)).await,
        Err(SendError::Ended(_))
    ));
    third.deliver_to(&there).await;
    let sent = third.send(note(204)).await.unwrap();
    timeout(SECOND * 60, sent.confirmed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drain(&mut heard), [204]);
}

/// A queue that fails or panics now and then is asked again; nothing is sent before it is stored.
#[tokio::test(start_paused = true)]
async fn a_queue_may_fail_for_a_time() {
    #[derive(Default)]
    struct Failing {
        queue: MemoryDeliveryQueue,
        asked: std::sync::atomic::AtomicU64,
    }
    impl Failing {
        fn fails(&self) -> bool {
            let asked = self
                .asked
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            !asked.is_multiple_of(3)
        }
    }
    type Done<'a, T> = futures_util::future::BoxFuture<'a, Result<T, QueueError>>;
    impl DeliveryQueue for Failing {
        fn claim(&self, series: u64) -> Done<'_, otava_cluster::delivery::QueueState> {
            self.queue.claim(series)
        }
        fn store(&self, claim: u64, messages: Vec<StoredMessage>) -> Done<'_, ()> {
            if self.fails() {
                return Box::pin(async { Err(QueueError::failed("no space")) });
            }
            self.queue.store(claim, messages)
        }
        fn confirm(&self, claim: u64, numbers: Vec<u64>) -> Done<'_, ()> {
            if self.fails() {
                panic!("confirm fails in the worst way");
            }
            self.queue.confirm(claim, numbers)
        }
    }
    let system = ActorSystem::new("one");
    let queue = Arc::new(Failing::default());
    let config = ProducerConfig::default().with_queue(queue.clone());
    let producer = Producer::start(&system, "out", config).await.unwrap();
    let (orders, mut heard) = consumer::<Note>(&system, "orders", Duration::ZERO);
    producer.deliver_to(orders.actor_ref()).await;
    for number in 1..=20 {
        let mut sent = producer.send(note(number)).await.unwrap();
        timeout(SECOND * 60, sent.stored()).await.unwrap().unwrap();
        timeout(SECOND * 60, sent.confirmed())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(drain(&mut heard), (1..=20).collect::<Vec<_>>());
}

/// What is in a queue and is not of this producer stops it at its start, before anything is lost.
#[tokio::test(start_paused = true)]
async fn a_queue_with_other_messages_is_refused() {
    let queue = Arc::new(MemoryDeliveryQueue::new());
    let system = ActorSystem::new("one");
    let producer = Producer::start(&system, "out", durable(&queue))
        .await
        .unwrap();
    producer
        .send(note(1))
        .await
        .unwrap()
        .stored()
        .await
        .unwrap();
    producer.stop();
    let other = Producer::<Scan>::start(&system, "scans", durable(&queue)).await;
    let unreadable = other.unwrap_err();
    assert!(matches!(
        unreadable,
        StartError::Unreadable { number: 1, .. }
    ));
    assert_eq!(
        unreadable.to_string(),
        "message 1 of the queue cannot be sent: it is a message of another type or version of one than \
         `test.Scan`"
    );
    assert_eq!(queue.len(), 1);
}

static WORKERS: ServiceKey<ConsumerMessage<Note>> = ServiceKey::new("workers");

fn worker(world: &World, n: u16, takes: Duration) -> (Consumer<Note>, UnboundedReceiver<Note>) {
    let node = &world.nodes[&n];
    let (worker, heard) = consumer::<Note>(&node.system, "worker", takes);
    node.receptionist
        .register(&WORKERS, worker.actor_ref())
        .unwrap();
    (worker, heard)
}

/// Each message is done by one worker, the fast one does more, and the work of one that is lost is done by the
/// others.
#[tokio::test(start_paused = true)]
async fn workers_pull_what_they_can_do() {
    let mut world = World::formed(35, 4).await;
    let config = ProducerConfig::default().with_buffer(50, 1 << 20);
    let receptionist = world.nodes[&1].receptionist.clone();
    let work = WorkProducer::start(&receptionist, "work", &WORKERS, config);
    let work = work.await.unwrap();
    // There is nobody yet: it takes what its buffer holds.
    for number in 1..=50 {
        work.try_send(note(number)).unwrap();
    }
    assert!(matches!(work.try_send(note(51)), Err(SendError::Full(_))));
    let (_fast, mut fast) = worker(&world, 2, MS * 5);
    let (_slow, mut slow) = worker(&world, 3, MS * 50);
    let (_lost, mut lost) = worker(&world, 4, MS * 20);
    let sender = work.clone();
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        for number in 51..=400 {
            sent.push(sender.send(note(number)).await.unwrap());
        }
        sent
    });
    sleep(SECOND).await;
    world.crash(4).await;
    let sent = timeout(SECOND * 60, sending).await.unwrap().unwrap();
    for sent in sent {
        timeout(SECOND * 60, sent.confirmed())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(work.unconfirmed(), 0);
    let (fast, slow, lost) = (drain(&mut fast), drain(&mut slow), drain(&mut lost));
    assert!(
        !lost.is_empty() && fast.len() > 3 * slow.len(),
        "{} {}",
        fast.len(),
        slow.len()
    );
    let mut all = [fast, slow, lost].concat();
    all.sort_unstable();
    let repeated = all.len();
    all.dedup();
    assert_eq!(all, (1..=400).collect::<Vec<_>>());
    // At most what the lost one had.
    assert!(repeated - all.len() <= 8, "{repeated}");
}

/// Work that was not done when its producer ended is done for the next run of it.
#[tokio::test(start_paused = true)]
async fn a_queue_of_work_outlives_its_producer() {
    let queue = Arc::new(MemoryDeliveryQueue::new());
    let world = World::formed(36, 3).await;
    let (_worker, mut heard) = worker(&world, 3, MS * 10);
    let receptionist = &world.nodes[&1].receptionist;
    let work = WorkProducer::start(receptionist, "work", &WORKERS, durable(&queue));
    let work = work.await.unwrap();
    for number in 1..=100 {
        let mut sent = work.send(note(number)).await.unwrap();
        sent.stored().await.unwrap();
    }
    sleep(MS * 300).await;
    work.stop();
    assert!(!queue.is_empty());
    let receptionist = &world.nodes[&2].receptionist;
    let work = WorkProducer::start(receptionist, "work", &WORKERS, durable(&queue));
    let work = work.await.unwrap();
    let last = work.send(note(101)).await.unwrap();
    timeout(SECOND * 60, last.confirmed())
        .await
        .unwrap()
        .unwrap();
    sleep(SECOND).await;
    assert!(queue.is_empty());
    let mut all = drain(&mut heard);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (1..=101).collect::<Vec<_>>());
}

async fn refuses_bad_keys(producer: &KeyedProducer<Note>) {
    let empty = producer.try_send("", note(0));
    assert!(matches!(empty, Err(SendError::BadKey(_))));
    let long = producer.send(&"x".repeat(513), note(0)).await;
    assert!(matches!(long, Err(SendError::BadKey(_))));
}

/// Each key has its own order. One that leads nowhere for a time holds its own messages up; the next run of a consumer
/// gets what the one before had not confirmed; and the next run of the producer has its queue.
#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_order() {
    type Routes = Arc<Mutex<BTreeMap<String, ActorRef<ConsumerMessage<Note>>>>>;
    let world = World::formed(37, 2).await;
    let (here, there) = (&world.nodes[&1], &world.nodes[&2]);
    let (routes, queue) = (Routes::default(), Arc::new(MemoryDeliveryQueue::new()));
    let start = |name: &'static str, keys: usize| {
        let routes = routes.clone();
        let route = move |key: &str, message| {
            if let Some(consumer) = routes.lock().unwrap().get(key) {
                let _ = consumer.tell(message);
            }
        };
        let config = durable(&queue).with_keys_max(keys);
        KeyedProducer::<Note>::start(&here.system, name, config, route)
    };
    let add = |key: &str, name: &str| {
        let (consumer, heard) = consumer::<Note>(&there.system, name, MS * 3);
        there.remote.publish(name, consumer.actor_ref()).unwrap();
        let seen = here.remote.resolve(there.id(), name);
        routes.lock().unwrap().insert(key.to_owned(), seen);
        (consumer, heard)
    };
    let mut heard = ["a", "b", "d"].map(|key| add(key, key));
    let producer = start("out", 2).await.unwrap();
    refuses_bad_keys(&producer).await;
    let mut sent = Vec::new();
    for number in 1..=50 {
        for key in ["a", "b", "c", "d"] {
            sent.push((key, producer.send(key, note(number)).await.unwrap()));
        }
    }
    sleep(SECOND * 20).await;
    // Only those without a consumer are left.
    assert_eq!((producer.unconfirmed(), queue.len()), (50, 50));
    for (_, heard) in &mut heard {
        assert_eq!(drain(heard), (1..=50).collect::<Vec<_>>());
    }
    let (first, mut before) = add("c", "c-1");
    while before.len() < 10 {
        sleep(MS * 10).await;
    }
    first.stop();
    let (_second, mut after) = add("c", "c-2");
    for (_, sent) in sent {
        timeout(SECOND * 60, sent.confirmed())
            .await
            .unwrap()
            .unwrap();
    }
    let (before, after) = (drain(&mut before), drain(&mut after));
    assert!(before.iter().copied().eq(1..=before.len() as u64));
    let begin = after[0];
    assert!((2..=before.len() as u64 + 1).contains(&begin), "{begin}");
    assert!(after.iter().copied().eq(begin..=50));

    for number in 51..=70 {
        let mut sent = producer.send("a", note(number)).await.unwrap();
        sent.stored().await.unwrap();
    }
    producer.stop();
    assert!(!queue.is_empty());
    let producer = start("out-2", 10).await.unwrap();
    let last = producer.send("a", note(71)).await.unwrap();
    timeout(SECOND * 60, last.confirmed())
        .await
        .unwrap()
        .unwrap();
    let mut all = drain(&mut heard[0].1);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (51..=71).collect::<Vec<_>>());
}

#[test]
fn the_page_of_defaults_is_true() {
    use crate::defaults::{said, shown};
    let (producer, consumer) = (ProducerConfig::default(), ConsumerConfig::default());
    assert_eq!(said("window"), consumer.window.to_string());
    assert_eq!(said("resend_min"), shown(producer.resend_min));
    assert_eq!(said("resend_max"), shown(producer.resend_max));
    assert_eq!(
        said("chunk_bytes"),
        format!("{} KiB", producer.chunk_bytes >> 10)
    );
    assert_eq!(said("buffer_max"), "1,000");
    assert_eq!((producer.buffer_max, producer.keys_max), (1_000, 1_000));
    assert_eq!(said("keys_max"), "1,000");
    assert_eq!(said("per_worker_max"), producer.per_worker_max.to_string());
}
