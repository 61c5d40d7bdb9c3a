//! Proves: an attached stream is taken item by item as its actor handles them, ends with a message, and
//! never outlives its instance.

use crate::support::{Log, Order, Puppet, SOON, act, say, system, with};
use futures_util::{Stream, StreamExt, stream};
use otava_actor::{ActorRef, DeadLetterReason, StreamEvent, Supervision};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;

const MS: Duration = Duration::from_millis(1);

fn told(event: StreamEvent<u32>) -> Order {
    match event {
        StreamEvent::Item(n) => say(n.to_string()),
        StreamEvent::Failed(text) => say(text),
        other => say(format!("{other:?}")),
    }
}

/// What comes out of `receiver`.
fn received(mut receiver: mpsc::UnboundedReceiver<u32>) -> impl Stream<Item = u32> + Send {
    stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// A stream that says when it is dropped.
struct Told<S>(Pin<Box<S>>, Log);

impl<S: Stream> Stream for Told<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<S::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<S> Drop for Told<S> {
    fn drop(&mut self) {
        self.1.add("stream dropped");
    }
}

fn told_when_dropped<S: Stream>(stream: S, log: &Log) -> Told<S> {
    Told(Box::pin(stream), log.clone())
}

/// Back pressure: the next item is taken when the one before has been handled.
#[tokio::test(start_paused = true)]
async fn an_item_is_taken_when_the_one_before_is_handled() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let taken = log.clone();
    with(&actor, move |ctx| {
        let items = stream::iter(0..3).inspect(move |n| taken.add(format!("{n} taken")));
        ctx.attach_stream(items, |event| match event {
            StreamEvent::Item(_) => Order::Sleep(100 * MS),
            other => say(format!("{other:?}")),
        });
    });
    sleep_and_expect(&log, 50 * MS, &["a: started", "0 taken"]).await;
    sleep_and_expect(&log, 100 * MS, &["1 taken"]).await;
    sleep_and_expect(&log, 100 * MS, &["2 taken"]).await;
    sleep_and_expect(&log, 100 * MS, &["a: Ended"]).await;
    sleep_and_expect(&log, SOON, &[]).await;
}

async fn sleep_and_expect(log: &Log, time: Duration, lines: &[&str]) {
    tokio::time::sleep(time).await;
    assert_eq!(log.take(), lines);
}

/// A stream that has nothing now wakes its actor when it has.
#[tokio::test(start_paused = true)]
async fn a_stream_wakes_its_idle_actor() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    let (other, second) = mpsc::unbounded_channel();
    with(&actor, move |ctx| {
        ctx.attach_stream(received(receiver), told);
        ctx.attach_stream(received(second), told);
    });
    sleep_and_expect(&log, MS, &["a: started"]).await;
    for n in 0..3 {
        sender.send(n).unwrap();
        other.send(n + 10).unwrap();
    }
    tokio::time::sleep(MS).await;
    let lines = log.take();
    let of = |wanted: [&str; 3]| {
        let told = lines.iter().map(String::as_str);
        assert!(
            told.filter(|line| wanted.contains(line)).eq(wanted),
            "{lines:?}"
        );
    };
    of(["a: 0", "a: 1", "a: 2"]);
    of(["a: 10", "a: 11", "a: 12"]);
    drop(sender);
    sleep_and_expect(&log, MS, &["a: Ended"]).await;
    other.send(13).unwrap();
    sleep_and_expect(&log, MS, &["a: 13"]).await;
}

/// From another thread, with a thousand wake-ups that race with the actor falling idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_of_a_stream_is_lost() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    let (handled, mut done) = mpsc::unbounded_channel();
    with(&actor, move |ctx| {
        ctx.attach_stream(received(receiver), move |event| {
            let _ = handled.send(event);
            act(|_, _| Ok(()))
        });
    });
    for n in 0..10_000 {
        sender.send(n).unwrap();
        assert_eq!(done.recv().await, Some(StreamEvent::Item(n)));
    }
    drop(sender);
    assert_eq!(done.recv().await, Some(StreamEvent::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_stream_ends_it_and_one_in_the_function_is_a_failure() {
    let (system, log) = (system(), Log::default());
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let props = Puppet::props("a", &log).on_failure(restart);
    let actor = system.spawn_with("a", props).unwrap();
    with(&actor, |ctx| {
        let broken = stream::iter(0..9).map(|n| {
            assert!(n < 1, "in a stream");
            n
        });
        ctx.attach_stream(broken, told);
    });
    let lines = ["a: started", "a: 0", "a: panic: in a stream"];
    sleep_and_expect(&log, SOON, &lines).await;
    let own = log.clone();
    with(&actor, move |ctx| {
        let endless = told_when_dropped(stream::iter(0_u32..), &own);
        ctx.attach_stream(endless, |_| panic!("in the function"));
    });
    sleep_and_expect(&log, SOON, &["stream dropped", "a: started"]).await;
    actor.ask(Order::Sync).await.unwrap();
}

/// Stop, restart and detaching drop a stream, and nothing comes from it afterwards.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_instance_or_when_it_is_detached() {
    let (system, log) = (system(), Log::default());
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let props = Puppet::props("a", &log).on_failure(restart);
    let actor = system.spawn_with("a", props).unwrap();
    let attach = |actor: &ActorRef<Order>| {
        let (sender, receiver) = mpsc::unbounded_channel();
        let log = log.clone();
        with(actor, move |ctx| {
            ctx.attach_stream(told_when_dropped(received(receiver), &log), told);
        });
        sender
    };
    let sender = attach(&actor);
    actor.tell(act(|_, _| Err("no".into()))).unwrap();
    sleep_and_expect(&log, SOON, &["a: started", "stream dropped", "a: started"]).await;
    assert!(sender.send(1).is_err());
    let sender = attach(&actor);
    // Ready while the actor is busy, and then it stops.
    actor.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(MS).await;
    sender.send(2).unwrap();
    actor.stop();
    sleep_and_expect(&log, SOON, &["stream dropped", "a: stopped"]).await;

    let other = system.spawn("b", Puppet::new("b", &log)).unwrap();
    let own = log.clone();
    with(&other, move |ctx| {
        let stream = ctx.attach_stream(told_when_dropped(stream::iter(0..), &own), told);
        assert!(ctx.detach_stream(stream) && !ctx.detach_stream(stream));
    });
    sleep_and_expect(&log, SOON, &["b: started", "stream dropped"]).await;
    assert_eq!(system.dead_letters().total(), 0);
}

/// Streams without an end, and a flood of messages, leave each other and other actors room; a drain
/// does not wait for streams.
#[tokio::test(start_paused = true)]
async fn endless_streams_take_turns() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let own = log.clone();
    with(&actor, move |ctx| {
        for name in ["x", "y"] {
            let endless = told_when_dropped(stream::repeat(name), &own);
            let mut n = 0;
            ctx.attach_stream(endless, move |_| {
                n += 1;
                let line = format!("{name}{n}");
                act(move |puppet, _| {
                    if line.len() == 2 {
                        puppet.log.add(line);
                    }
                    Ok(())
                })
            });
        }
        for n in 0..6 {
            ctx.me().tell(say(format!("m{n}"))).unwrap();
        }
    });
    actor.ask(Order::Sync).await.unwrap();
    let other = system.spawn("b", Puppet::new("b", &log)).unwrap();
    other.ask(Order::Sync).await.unwrap();
    let lines = log.take();
    // The order to answer came between the first two.
    assert_eq!(
        lines[..10],
        [
            "a: started",
            "x1",
            "y1",
            "a: m0",
            "x2",
            "a: m1",
            "y2",
            "a: m2",
            "x3",
            "a: m3"
        ]
    );
    (0..100).for_each(|_| actor.tell(say("queued")).unwrap());
    actor.stop_after_queued();
    while !log.take().contains(&"a: stopped".to_owned()) {
        tokio::task::yield_now().await;
    }
    let left = system.dead_letters().count(DeadLetterReason::LeftInMailbox);
    assert_eq!(left, 0);
}
