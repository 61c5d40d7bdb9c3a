//! Proves: L3, the bound of a mailbox is exact, and each message is handled or accounted for.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, act, say, system};
use otava_actor::{Actor, ActorSystem, Context, DeadLetterReason, Props, TellError};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn capacity(messages: usize) -> NonZeroUsize {
    NonZeroUsize::new(messages).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_bound_is_exact_and_the_message_comes_back() {
    let system = system();
    let props = Props::once(Adder(0)).mailbox_capacity(capacity(3));
    let adder = system.spawn_with("a", props).unwrap();
    let hold = |r| Sums::Late(r, Duration::from_millis(10));
    let held = tokio::spawn(adder.ask(hold).into_future());
    tokio::time::sleep(Duration::from_millis(1)).await;
    // One is in work, which does not count.
    for n in 0..3 {
        assert_eq!(adder.queued(), n);
        adder.tell(Sums::Add(1)).unwrap();
    }
    match adder.tell(Sums::Add(77)) {
        Err(TellError::Full(Sums::Add(77))) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(held.await.unwrap(), Ok(0));
    assert_eq!(adder.ask(Sums::Get).await, Ok(3));
    assert_eq!(
        system.dead_letters().count(DeadLetterReason::RefusedFull),
        1
    );
}

/// The bound counts what the actor took in a batch and has not begun.
#[tokio::test(start_paused = true)]
async fn a_batch_does_not_make_room_before_its_messages_are_begun() {
    let system = system();
    let props = Props::once(Adder(0)).mailbox_capacity(capacity(4));
    let adder = system.spawn_with("a", props).unwrap();
    let waits: Vec<_> = (0..4)
        .map(|_| {
            let ask = adder.ask(|r| Sums::Late(r, Duration::from_millis(10)));
            tokio::spawn(ask.into_future())
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Four were taken; one is in work, three wait.
    assert_eq!(adder.queued(), 3);
    adder.tell(Sums::Add(1)).unwrap();
    assert!(adder.tell(Sums::Add(1)).unwrap_err().is_full());
    tokio::time::sleep(Duration::from_millis(10)).await;
    adder.tell(Sums::Add(1)).unwrap();
    assert!(adder.tell(Sums::Add(1)).unwrap_err().is_full());
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    assert_eq!(adder.ask(Sums::Get).await, Ok(2));
}

/// Those who wait are served in their order, one for each message that is begun; one that goes away
/// does not take another's turn.
#[tokio::test(start_paused = true)]
async fn senders_wait_in_line() {
    let (system, log) = (system(), Log::default());
    let props = Props::once(Puppet::new("a", &log)).mailbox_capacity(capacity(1));
    let actor = system.spawn_with("a", props).unwrap();
    actor.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    actor.tell(say("0")).unwrap();
    let mut senders = Vec::new();
    for n in 1..=5 {
        let actor = actor.clone();
        senders.push(tokio::spawn(
            async move { actor.send(say(n.to_string())).await },
        ));
        tokio::task::yield_now().await;
    }
    senders[0].abort();
    senders[2].abort();
    for (n, sender) in senders.into_iter().enumerate() {
        assert_eq!(sender.await.is_ok(), n != 0 && n != 2);
    }
    actor.ask(Order::Sync).await.unwrap();
    assert_eq!(log.take(), ["a: started", "a: 0", "a: 2", "a: 4", "a: 5"]);
}

/// A stop answers those who wait for room, with their message.
#[tokio::test(start_paused = true)]
async fn senders_in_line_get_their_message_back_when_the_actor_stops() {
    let system = system();
    let props = Props::once(Adder(0)).mailbox_capacity(capacity(1));
    let adder = system.spawn_with("a", props).unwrap();
    let held = tokio::spawn(adder.ask(|r| Sums::Late(r, SOON / 10)).into_future());
    tokio::time::sleep(Duration::from_millis(1)).await;
    adder.tell(Sums::Add(1)).unwrap();
    let waiting = adder.clone();
    let sender = tokio::spawn(async move { waiting.send(Sums::Add(8)).await });
    tokio::task::yield_now().await;
    adder.stop_after_queued();
    assert!(matches!(
        sender.await.unwrap(),
        Err(TellError::Stopped(Sums::Add(8)))
    ));
    held.await.unwrap().unwrap();
}

/// Counts what it handles, slowly.
struct Slow(Arc<AtomicU64>);

impl Actor for Slow {
    type Msg = u64;
    type Err = Infallible;

    async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        if n.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// L3: 8 senders, a mailbox of 1,000: sent = handled + refused, and never more than 1,000 wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_handled_or_refused() {
    let system = ActorSystem::new("test");
    let handled = Arc::new(AtomicU64::new(0));
    let props = Props::once(Slow(handled.clone())).mailbox_capacity(capacity(1_000));
    let actor = system.spawn_with("slow", props).unwrap();
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let actor = actor.clone();
            std::thread::spawn(move || {
                let mut refused = 0;
                for n in 0..100_000 {
                    refused += u64::from(actor.tell(n).is_err());
                    assert!(actor.queued() <= 1_000);
                }
                refused
            })
        })
        .collect();
    let refused: u64 = senders
        .into_iter()
        .map(|sender| sender.join().unwrap())
        .sum();
    actor.stop_after_queued();
    assert_eq!(system.shutdown().await.blocked, []);
    let left = system.dead_letters().count(DeadLetterReason::LeftInMailbox);
    assert_eq!(handled.load(SeqCst) + refused + left, 800_000);
    assert_eq!(
        system.dead_letters().count(DeadLetterReason::RefusedFull),
        refused
    );
}

/// L3: a full mailbox takes no message, and everything that the system has to say: the end of a watched
/// actor and of a child, and the stop.
#[tokio::test(start_paused = true)]
async fn a_full_mailbox_takes_what_the_system_says() {
    let (system, log) = (system(), Log::default());
    let props = Puppet::props("a", &log).mailbox_capacity(capacity(1));
    let actor = system.spawn_with("a", props).unwrap();
    let watched = system.spawn("watched", Adder(0)).unwrap();
    let target = watched.clone();
    let watch = act(move |_, ctx| {
        ctx.watch(&target);
        let child = ctx.spawn("child", Adder(0)).map_err(|e| e.to_string())?;
        ctx.watch(&child);
        child.stop();
        Ok(())
    });
    actor.tell(watch).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(log.take(), ["a: started", "a: child ended, Stopped"]);
    actor.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(SOON / 2).await;
    actor.tell(say("it waits")).unwrap();
    watched.stop();
    let refused = actor.tell(say("it has no room")).unwrap_err();
    assert!(refused.is_full());
    tokio::time::sleep(SOON).await;
    // The news of an end keeps its place: behind what was there before.
    assert_eq!(log.take(), ["a: it waits", "a: watched ended, Stopped"]);
    actor.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(SOON / 2).await;
    actor.tell(say("it stays behind")).unwrap();
    actor.stop();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["a: stopped"]);
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::LeftInMailbox), 1);
    assert_eq!(letters.count(DeadLetterReason::RefusedFull), 1);
}

/// L3: those who wait for room lose nothing, under contention, with a mailbox of any small size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_handled() {
    for size in [1, 2, 7, 100] {
        let system = ActorSystem::new("test");
        let handled = Arc::new(AtomicU64::new(0));
        let props = Props::once(Slow(handled.clone())).mailbox_capacity(capacity(size));
        let actor = system.spawn_with("slow", props).unwrap();
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let actor = actor.clone();
                tokio::spawn(async move {
                    for n in 0..2_000 {
                        actor.send(n).await.unwrap();
                    }
                })
            })
            .collect();
        for sender in senders {
            tokio::time::timeout(SOON * 3, sender)
                .await
                .expect("no lost wake-up")
                .unwrap();
        }
        let mut probe = otava_actor::testkit::TestProbe::<()>::new(&system);
        probe.watch(&actor);
        actor.stop_after_queued();
        probe.expect_terminated(&actor, SOON).await;
        assert_eq!(handled.load(SeqCst), 16_000);
    }
}

/// Order is kept for each sender, whatever the other one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_sender_keep_their_order() {
    let (system, log) = (ActorSystem::new("test"), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let senders: Vec<_> = ["x", "y"]
        .into_iter()
        .map(|name| {
            let actor = actor.clone();
            std::thread::spawn(move || {
                for n in 0..2_000 {
                    let log_it = act(move |puppet, _| {
                        puppet.log.add(format!("{name}{n:05}"));
                        Ok(())
                    });
                    actor.tell(log_it).unwrap();
                }
            })
        })
        .collect();
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    actor.ask(Order::Sync).within(SOON).await.unwrap();
    let lines = log.take();
    for name in ["x", "y"] {
        let own: Vec<_> = lines.iter().filter(|line| line.starts_with(name)).collect();
        assert!(own.len() == 2_000 && own.is_sorted());
    }
}

/// L3: four senders, each in its own way, a small mailbox, and a stop in the midst: what was sent is
/// handled, refused, or a dead letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_handled_refused_or_a_dead_letter() {
    for round in 0..40_u64 {
        let system = ActorSystem::new("test");
        let handled = Arc::new(AtomicU64::new(0));
        let size = [1, 2, 15, 16][round as usize % 4];
        let props = Props::once(Slow(handled.clone())).mailbox_capacity(capacity(size));
        let actor = system.spawn_with("slow", props).unwrap();
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let actor = actor.clone();
                tokio::spawn(async move {
                    let (mut accepted, mut refused) = (0, 0);
                    for n in 0..1_000 {
                        let told = match sender % 2 {
                            0 => actor.tell(n),
                            _ => actor.send(n).await,
                        };
                        match told {
                            Ok(()) => accepted += 1,
                            Err(TellError::Full(m) | TellError::Stopped(m)) => {
                                assert_eq!(m, n);
                                refused += 1;
                            }
                            Err(other) => panic!("{other}"),
                        }
                        if sender == 3 && n == 100 * (round % 11) {
                            actor.stop();
                        }
                    }
                    (accepted, refused)
                })
            })
            .collect();
        let (mut accepted, mut refused) = (0, 0);
        for sender in senders {
            let sent = tokio::time::timeout(SOON * 3, sender).await;
            let sent: (u64, u64) = sent.expect("no lost wake-up").unwrap();
            accepted += sent.0;
            refused += sent.1;
        }
        actor.stop();
        assert_eq!(system.shutdown().await.blocked, []);
        let letters = system.dead_letters();
        let left = letters.count(DeadLetterReason::LeftInMailbox);
        assert_eq!(handled.load(SeqCst) + left, accepted);
        assert_eq!(accepted + refused, 4_000);
    }
}

/// Messages that wait behind one that is held, in the order in which they are then handled.
async fn handled_after_a_hold(
    props: impl FnOnce(Props<Keeper>) -> Props<Keeper>,
    told: &[u32],
) -> (ActorSystem, Vec<u32>, Vec<Result<(), TellError<u32>>>) {
    let system = ActorSystem::new("test");
    let (open, gate) = tokio::sync::oneshot::channel();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = Keeper {
        gate: Some(gate),
        kept: kept.clone(),
    };
    let capacity = NonZeroUsize::new(3).unwrap();
    let props = props(Props::once(keeper).mailbox_capacity(capacity));
    let actor = system.spawn_with("keeper", props).unwrap();
    actor.tell(0).unwrap();
    while actor.queued() > 0 {
        tokio::task::yield_now().await;
    }
    let answers = told.iter().map(|&n| actor.tell(n)).collect();
    open.send(()).unwrap();
    let (done, ended) = tokio::sync::oneshot::channel();
    actor
        .on_terminated(move |_| done.send(()).unwrap())
        .detach();
    actor.stop_after_queued();
    ended.await.unwrap();
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    (system, kept, answers)
}

/// Waits at its first message until the gate opens, and notes what it handles.
struct Keeper {
    gate: Option<tokio::sync::oneshot::Receiver<()>>,
    kept: Arc<Mutex<Vec<u32>>>,
}

impl Actor for Keeper {
    type Msg = u32;
    type Err = Infallible;

    async fn handle(&mut self, n: u32, _: &mut Context<Self>) -> Result<(), Infallible> {
        if let Some(gate) = self.gate.take() {
            gate.await.unwrap();
        }
        self.kept.lock().unwrap().push(n);
        Ok(())
    }
}

#[tokio::test]
async fn a_mailbox_that_drops_the_oldest_keeps_the_latest() {
    let (system, kept, answers) =
        handled_after_a_hold(Props::mailbox_drop_oldest, &[1, 2, 3, 4, 5]).await;
    assert_eq!(kept, [0, 3, 4, 5]);
    assert!(answers.iter().all(Result::is_ok));
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::DroppedOldest), 2);
    assert_eq!(letters.total(), 2);
}

#[tokio::test]
async fn a_mailbox_with_priorities_gives_out_the_highest_first() {
    let by_tens = |props: Props<Keeper>| props.mailbox_priority(|n| i64::from(n / 10));
    let (_, kept, answers) = handled_after_a_hold(by_tens, &[11, 31, 12, 32]).await;
    assert_eq!(kept, [0, 31, 11, 12]);
    assert_eq!(answers.last(), Some(&Err(TellError::Full(32))));
}

#[tokio::test]
async fn an_unbounded_mailbox_refuses_nothing() {
    let told: Vec<u32> = (1..200_000).collect();
    let (_, kept, answers) = handled_after_a_hold(Props::mailbox_unbounded, &told).await;
    assert_eq!(kept.len(), 200_000);
    assert!(answers.iter().all(Result::is_ok));
}
