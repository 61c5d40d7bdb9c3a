//! Proves: L8, an ask ends with its answer, or with an error that names the target, in time.

use crate::support::{Adder, SOON, Sums, system};
use otava_actor::{
    Actor, ActorPath, AskError, Context, DeadLetterReason, Props, Refusal, ReplyTo, RouteeGroup,
};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{self, Waker};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn an_ask_is_answered() {
    let system = system();
    let adder = system.spawn("adder", Adder(1)).unwrap();
    adder.tell(Sums::Add(41)).unwrap();
    assert_eq!(adder.ask(Sums::Get).await, Ok(42));
}

/// L8: no reply.
#[tokio::test(start_paused = true)]
async fn a_dropped_port_is_known_at_once() {
    let system = system();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    let begun = Instant::now();
    let path = adder.path().clone();
    assert_eq!(
        adder.ask(Sums::Ignore).await,
        Err(AskError::NoReply {
            path,
            waited: Some(Duration::ZERO),
            queued: Some(0)
        })
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// L8: late reply: timeout in time, then the answer becomes a dead letter.
#[tokio::test(start_paused = true)]
async fn a_late_reply_times_out_and_is_counted() {
    let system = system();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    let waited = Duration::from_millis(30);
    let begun = Instant::now();
    let ask = adder.ask(|reply_to| Sums::Late(reply_to, Duration::from_millis(50)));
    let path = adder.path().clone();
    assert_eq!(
        ask.within(waited).await,
        Err(AskError::Timeout {
            path,
            waited,
            queued: Some(0),
            in_work: Some(true)
        })
    );
    let late = begun.elapsed() - waited;
    assert!(late <= Duration::from_millis(10), "{late:?}");
    assert_eq!(adder.ask(Sums::Get).await, Ok(0));
    assert_eq!(system.dead_letters().count(DeadLetterReason::LateReply), 1);
}

/// L8: a question whose asker has stopped waiting is not handled when its turn comes, and counted.
#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_waits_for_is_skipped_and_counted() {
    let system = system();
    let adder = system.spawn("adder", Adder(7)).unwrap();
    let busy = adder.ask(|reply_to| Sums::Late(reply_to, Duration::from_secs(1)));
    let busy = tokio::spawn(busy.into_future());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let expires = adder.ask(Sums::Get).within(Duration::from_millis(100));
    assert!(matches!(expires.await, Err(AskError::Timeout { .. })));
    assert_eq!(busy.await.unwrap(), Ok(7));
    assert_eq!(adder.ask(Sums::Get).await, Ok(7));
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::Expired), 1);
    assert_eq!(
        letters.total(),
        1,
        "it was not handled, so no answer was late"
    );
}

/// L8: the same through whatever leads to the actor. What is sent by hand may expire too.
#[tokio::test(start_paused = true)]
async fn a_question_expires_on_whatever_way_it_comes() {
    let system = system();
    let adder = system.spawn("adder", Adder(7)).unwrap();
    let group = RouteeGroup::of([adder.clone()]);
    let router = system.spawn_routee_group("router", group).unwrap();
    let narrowed = adder.adapt(Sums::Get);
    let twice = adder.adapt(|sums: Sums| sums).adapt(Sums::Get);
    let busy = adder.ask(|reply_to| Sums::Late(reply_to, Duration::from_secs(1)));
    let busy = tokio::spawn(busy.into_future());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let soon = Duration::from_millis(100);
    let answers = tokio::join!(
        narrowed.ask(|port| port).within(soon).into_future(),
        twice.ask(|port| port).within(soon).into_future(),
        router.ask(Sums::Get).within(soon).into_future(),
    );
    for answer in [answers.0, answers.1, answers.2] {
        assert!(
            matches!(answer, Err(AskError::Timeout { .. })),
            "{answer:?}"
        );
    }
    let (expires, lasts) = (system.now() + soon, system.now() + SOON);
    adder.tell_expiring(Sums::Add(100), expires).unwrap();
    let add = adder.adapt(Sums::Add);
    add.tell_expiring(1_000, expires).unwrap();
    add.tell_expiring(10, lasts).unwrap();
    assert_eq!(busy.await.unwrap(), Ok(7));
    assert_eq!(narrowed.ask(|port| port).await, Ok(17));
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::Expired), 5);
    assert_eq!(
        letters.total(),
        5,
        "none was handled, so no answer was late"
    );
}

/// L8: dead target, and a full one.
#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_accept_is_named() {
    let system = system();
    let one = NonZeroUsize::new(1).unwrap();
    let adder = system
        .spawn_with("adder", Props::once(Adder(0)).mailbox_capacity(one))
        .unwrap();
    let path = ActorPath::new("test/adder");
    adder.tell(Sums::Add(1)).unwrap();
    assert_eq!(
        adder.ask(Sums::Get).await,
        Err(AskError::Full {
            path: path.clone(),
            queued: Some(1)
        })
    );
    adder.stop();
    assert_eq!(adder.ask(Sums::Get).await, Err(AskError::Stopped { path }));
}

/// L8: the question is dropped with the mailbox of an actor that stops.
#[tokio::test(start_paused = true)]
async fn a_question_in_the_mailbox_of_a_stopped_actor_has_no_reply() {
    let system = system();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    let asking = tokio::spawn(adder.ask(Sums::Get).into_future());
    tokio::task::yield_now().await;
    let busy = system.spawn("busy", Adder(0)).unwrap();
    let first = tokio::spawn(
        busy.ask(|r| Sums::Late(r, Duration::from_secs(1)))
            .into_future(),
    );
    let second = tokio::spawn(busy.ask(Sums::Get).into_future());
    tokio::time::sleep(Duration::from_millis(10)).await;
    busy.stop();
    assert_eq!(asking.await.unwrap(), Ok(0));
    assert_eq!(
        first.await.unwrap(),
        Ok(0),
        "the message in work is finished"
    );
    assert!(matches!(
        second.await.unwrap(),
        Err(AskError::NoReply { .. })
    ));
}

/// L8: the asker goes away; its port is closed and nothing is left of it.
#[tokio::test(start_paused = true)]
async fn an_asker_that_goes_away_closes_the_port() {
    let system = system();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    let ask = adder.ask(|reply_to| Sums::Late(reply_to, Duration::from_secs(1)));
    let given_up = tokio::time::timeout(Duration::from_millis(1), ask).await;
    assert!(given_up.is_err());
    assert_eq!(adder.ask(Sums::Get).await, Ok(0));
    assert_eq!(system.dead_letters().count(DeadLetterReason::LateReply), 1);
}

/// L8: many at once.
#[tokio::test(start_paused = true)]
async fn many_asks_are_in_flight() {
    let system = system();
    let capacity = NonZeroUsize::new(100_000).unwrap();
    let props = Props::once(Adder(7)).mailbox_capacity(capacity);
    let adder = system.spawn_with("adder", props).unwrap();
    let asks: Vec<_> = (0..100_000)
        .map(|_| tokio::spawn(adder.ask(Sums::Get).within(SOON).into_future()))
        .collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap(), Ok(7));
    }
    assert_eq!(system.dead_letters().total(), 0);
}

/// Keeps all ports until it is told to answer.
#[derive(Default)]
struct Keeper(Vec<ReplyTo<Arc<()>>>);

enum Keep {
    Ask(ReplyTo<Arc<()>>),
    AnswerAll(Arc<()>, ReplyTo<usize>),
}

impl Actor for Keeper {
    type Msg = Keep;
    type Err = Infallible;

    async fn handle(&mut self, msg: Keep, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Keep::Ask(reply_to) => self.0.push(reply_to),
            Keep::AnswerAll(answer, reply_to) => {
                let answered = self.0.len();
                for port in self.0.drain(..) {
                    let _ = port.send(answer.clone());
                }
                let _ = reply_to.send(answered);
            }
        }
        Ok(())
    }
}

/// L8: 100,000 at the same time, half of whose askers go away: those who wait are answered, the others
/// are counted, and nothing is left of any.
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_asks_leave_nothing_behind() {
    const ASKS: usize = 100_000;
    let system = system();
    let room = NonZeroUsize::new(ASKS + 1).unwrap();
    let keeper = Props::once(Keeper::default()).mailbox_capacity(room);
    let keeper = system.spawn_with("keeper", keeper).unwrap();
    let mut asks: Vec<_> = (0..ASKS)
        .map(|_| Box::pin(keeper.ask(Keep::Ask).within(SOON).into_future()))
        .collect();
    for ask in &mut asks {
        let mut nobody = task::Context::from_waker(Waker::noop());
        assert!(ask.as_mut().poll(&mut nobody).is_pending());
    }
    // The keeper takes them all.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let gone = asks.split_off(ASKS / 2);
    drop(gone);
    let token = Arc::new(());
    let answer = |reply_to| Keep::AnswerAll(token.clone(), reply_to);
    assert_eq!(keeper.ask(answer).await, Ok(ASKS));
    for ask in asks {
        drop(ask.await.unwrap());
    }
    let letters = system.dead_letters();
    let late = letters.count(DeadLetterReason::LateReply);
    let expired = letters.count(DeadLetterReason::Expired);
    assert_eq!((late, expired), (ASKS as u64 / 2, 0));
    assert_eq!(letters.total(), ASKS as u64 / 2);
    assert_eq!(Arc::strong_count(&token), 1, "an answer is kept somewhere");
}

/// L8: many at once that nobody answers: each ends at its own time, to the tick of the clock, and
/// leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn many_asks_time_out_exactly() {
    struct Keeper(Vec<ReplyTo<u8>>);
    impl Actor for Keeper {
        type Msg = ReplyTo<u8>;
        type Err = Infallible;
        async fn handle(
            &mut self,
            port: ReplyTo<u8>,
            _: &mut Context<Self>,
        ) -> Result<(), Infallible> {
            self.0.push(port);
            Ok(())
        }
    }
    let system = system();
    let capacity = NonZeroUsize::new(100_000).unwrap();
    let props = Props::once(Keeper(Vec::new())).mailbox_capacity(capacity);
    let keeper = system.spawn_with("keeper", props).unwrap();
    let begun = Instant::now();
    let asks: Vec<_> = (0..100_000_u64)
        .map(|n| {
            let within = Duration::from_millis(1 + n % 1_000);
            let ask = keeper.ask(|port| port).within(within);
            tokio::spawn(async move { (ask.await, begun.elapsed(), within) })
        })
        .collect();
    for ask in asks {
        let (answer, elapsed, within) = ask.await.unwrap();
        assert!(matches!(answer, Err(AskError::Timeout { waited, .. }) if waited == within));
        assert_eq!(elapsed, within);
    }
    assert_eq!(system.waiting_asks(), 0);
    // The keeper drops its ports: nobody is left to hear of it.
    keeper.stop();
    system.shutdown().await;
    assert_eq!(system.dead_letters().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_travels_with_the_question() {
    let system = system();
    let (reply_to, reply) = ReplyTo::channel(Some(system.now() + SOON));
    assert_eq!(reply_to.deadline(), Some(system.now() + SOON));
    reply_to.send(3_u8).unwrap();
    assert_eq!(reply.await, Ok(3));
    let (without, reply) = ReplyTo::<u8>::channel(None);
    assert_eq!(without.deadline(), None);
    drop(reply);
    assert!(without.is_closed());
    assert_eq!(without.send(1), Err(1));
}

#[tokio::test]
async fn a_shared_port_takes_the_first_answer_and_closes_with_its_last_handle() {
    let (first, reply) = ReplyTo::channel(None);
    let second = first.share();
    drop(first);
    second.send("second").unwrap();
    assert_eq!(reply.await, Ok("second"));

    let (first, reply) = ReplyTo::<&str>::channel(None);
    let second = first.share();
    drop((first, second));
    assert!(
        matches!(reply.of(ActorPath::new("n/a")).await, Err(AskError::NoReply { path, .. }) if path.as_str() == "n/a")
    );
}

#[tokio::test]
async fn a_forwarding_port_hands_its_answer_on_once() {
    let (answered, reply) = ReplyTo::channel(None);
    let port = ReplyTo::from_fn(move |n: u32| answered.send(n).unwrap(), None);
    let second = port.share();
    port.send(5).unwrap();
    assert_eq!(second.send(6), Err(6));
    assert_eq!(reply.await, Ok(5));

    let (answered, reply) = ReplyTo::<u32>::channel(None);
    drop(ReplyTo::from_fn(
        move |n: u32| answered.send(n).unwrap(),
        None,
    ));
    assert!(
        matches!(reply.await, Err(AskError::NoReply { .. })),
        "dropped uncalled"
    );
}

/// Whoever carries a question on may say why there is no answer, over any number of stations.
#[tokio::test]
async fn a_refused_port_says_why() {
    for (why, text) in [
        (Refusal::Full, "was not asked: its mailbox is full"),
        (Refusal::NotUnderstood, "does not understand the question"),
        (Refusal::Stopped, "it has stopped"),
    ] {
        let (first, reply) = ReplyTo::<u32>::channel(None);
        let carry = move |answer: Result<u32, Refusal>| match answer {
            Ok(answer) => first.send(answer).unwrap(),
            Err(why) => first.refuse(why),
        };
        let second = ReplyTo::from_outcome(carry, None);
        // The other handle comes too late.
        let late = second.share();
        second.refuse(why);
        assert_eq!(late.send(7), Err(7));
        let path = ActorPath::new("s/a");
        let error = reply.of(path.clone()).await.unwrap_err();
        assert_eq!(error, why.of(path));
        assert!(error.to_string().contains(text), "{error}");
    }

    // What is answered stays answered, and whoever only takes answers hears of none.
    let (port, reply) = ReplyTo::channel(None);
    let shared = port.share();
    port.send(1).unwrap();
    shared.refuse(Refusal::Stopped);
    assert_eq!(reply.await, Ok(1));
    let (answered, reply) = ReplyTo::channel(None);
    let port = ReplyTo::from_fn(move |n: u32| answered.send(n).unwrap(), None);
    port.refuse(Refusal::Full);
    assert!(matches!(reply.await, Err(AskError::NoReply { .. })));
}
