//! Proves: actors that would wait for each other for ever are told at once, with the circle, and nobody else is.

use crate::support::{SOON, system};
use otava_actor::{Actor, ActorRef, ActorSystem, AskError, Context, ReplyTo};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Each is told whom to ask next; the last of a chain answers.
struct Asker;

enum Message {
    /// Asks along `way`, awaiting the answer in the handler, and answers with what comes of it.
    Along(Vec<ActorRef<Message>>, ReplyTo<Outcome>),
    /// As `Along`, after a while.
    LaterAlong(Duration, Vec<ActorRef<Message>>, ReplyTo<Outcome>),
    /// As `Along`, but not in the handler.
    Beside(Vec<ActorRef<Message>>, ReplyTo<Outcome>),
    /// Asks both at once, awaiting them in the handler.
    Both([Vec<ActorRef<Message>>; 2], ReplyTo<Outcome>),
    /// Asks along `way`, gives that up after a while, and answers.
    GiveUp(Duration, Vec<ActorRef<Message>>, ReplyTo<Outcome>),
    Done,
}

/// The error that was met, and the hops that were made.
type Outcome = Result<usize, AskError>;

async fn along(mut way: Vec<ActorRef<Message>>) -> Outcome {
    if way.is_empty() {
        return Ok(0);
    }
    let first = way.remove(0);
    Ok(1 + first
        .ask(|port| Message::Along(way, port))
        .within(SOON)
        .await??)
}

impl Actor for Asker {
    type Msg = Message;
    type Err = Infallible;

    async fn handle(&mut self, msg: Message, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        let (outcome, port) = match msg {
            Message::Along(way, port) => (along(way).await, port),
            Message::LaterAlong(after, way, port) => {
                ctx.system().sleep_until(ctx.now() + after).await;
                (along(way).await, port)
            }
            Message::Beside(way, port) => {
                let beside = async move {
                    let _ = port.send(along(way).await);
                };
                ctx.pipe_to_self(beside, |()| Message::Done);
                return Ok(());
            }
            Message::Both([left, right], port) => {
                let (left, right) = tokio::join!(along(left), along(right));
                (left.and_then(|left| Ok(left + right?)), port)
            }
            Message::GiveUp(after, way, port) => {
                let given_up = tokio::time::timeout(after, along(way)).await.is_err();
                (Ok(usize::from(given_up)), port)
            }
            Message::Done => return Ok(()),
        };
        let _ = port.send(outcome);
        Ok(())
    }
}

fn askers<const N: usize>(system: &ActorSystem) -> [ActorRef<Message>; N] {
    std::array::from_fn(|n| system.spawn(&format!("a{n}"), Asker).unwrap())
}

/// The names in the circle that `outcome` tells of.
fn circle(outcome: &Result<Outcome, AskError>) -> Vec<&str> {
    match outcome {
        Ok(Err(AskError::Cycle { path })) => path.iter().map(|path| path.name()).collect(),
        other => panic!("expected a circle, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn circles_of_any_length_fail_at_once_and_name_the_way() {
    let system = system();
    let begun = Instant::now();
    let [a, b, c] = askers(&system);
    for (way, names) in [
        (vec![a.clone()], vec!["a0"]),
        (vec![b.clone(), a.clone()], vec!["a1", "a0"]),
        (
            vec![b.clone(), c.clone(), a.clone()],
            vec!["a2", "a0", "a1"],
        ),
        (vec![b.clone(), c.clone(), b.clone()], vec!["a2", "a1"]),
    ] {
        let outcome = a.ask(|port| Message::Along(way, port)).await;
        assert_eq!(circle(&outcome), names);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(system.waiting_asks(), 0);
    // The questions were never sent.
    assert_eq!(system.dead_letters().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_circle_says_who_waits_and_what_to_do() {
    let system = system();
    let [a, b] = askers(&system);
    let outcome = a.ask(|port| Message::Along(vec![b, a.clone()], port)).await;
    let Ok(Err(error)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.target(), Some(a.path()));
    assert_eq!(
        error.to_string(),
        "test/a0 was not asked: test/a1 -> test/a0 -> test/a1 would wait for each other for ever; \
         let one of them return from its handler and take the answer as a message"
    );
}

#[tokio::test(start_paused = true)]
async fn chains_and_asks_beside_a_handler_are_no_circles() {
    let system = system();
    let [a, b, c, d] = askers(&system);
    // A long chain.
    let way = vec![b.clone(), c.clone(), d.clone()];
    assert_eq!(a.ask(|port| Message::Along(way, port)).await, Ok(Ok(3)));
    // From outside, the same actor may be asked as often as one likes.
    let way = vec![b.clone(), c.clone()];
    let twice = tokio::join!(
        a.ask(|port| Message::Along(way.clone(), port)),
        a.ask(|port| Message::Along(way.clone(), port)),
    );
    assert_eq!(twice, (Ok(Ok(2)), Ok(Ok(2))));
    // A diamond: a waits for b and c, both of which wait for d.
    let ways = [vec![b.clone(), d.clone()], vec![c.clone(), d.clone()]];
    assert_eq!(a.ask(|port| Message::Both(ways, port)).await, Ok(Ok(4)));
    // The first of the circle does not wait in its handler.
    let way = vec![b.clone(), a.clone()];
    assert_eq!(a.ask(|port| Message::Beside(way, port)).await, Ok(Ok(2)));
    assert_eq!(system.waiting_asks(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_of_two_waits_may_close_a_circle() {
    let system = system();
    let [a, b, c] = askers(&system);
    let ways = [vec![b], vec![c, a.clone()]];
    let outcome = a.ask(|port| Message::Both(ways, port)).await;
    assert_eq!(circle(&outcome), ["a2", "a0"]);
    assert_eq!(system.waiting_asks(), 0);
}

/// The way to an actor: through an adapter, or two of them.
fn adapted(actor: &ActorRef<Message>, adapters: usize) -> ActorRef<Message> {
    (0..adapters).fold(actor.clone(), |actor, _| actor.adapt(|message| message))
}

#[tokio::test(start_paused = true)]
async fn a_circle_through_adapters_fails_at_once() {
    let system = system();
    let begun = Instant::now();
    let [a, b] = askers(&system);
    for (to_b, to_a) in [(1, 0), (0, 1), (1, 2)] {
        let way = vec![adapted(&b, to_b), adapted(&a, to_a)];
        let outcome = a.ask(|port| Message::Along(way, port)).await;
        assert_eq!(circle(&outcome), ["a1", "a0"]);
    }
    let itself = vec![adapted(&a, 1)];
    let outcome = a.ask(|port| Message::Along(itself, port)).await;
    assert_eq!(circle(&outcome), ["a0"]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // What is no circle is answered.
    let way = vec![adapted(&b, 1)];
    assert_eq!(a.ask(|port| Message::Along(way, port)).await, Ok(Ok(1)));
    assert_eq!(system.waiting_asks(), 0);
    assert_eq!(system.dead_letters().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_an_adapter_cannot_convert_leaves_no_wait() {
    let system = system();
    let [a, b] = askers(&system);
    let failing = b.adapt(|_: Message| -> Message { panic!("as the test wants it") });
    let outcome = a.ask(|port| Message::Along(vec![failing], port)).await;
    assert!(
        matches!(&outcome, Ok(Err(AskError::NoReply { .. }))),
        "{outcome:?}"
    );
    assert_eq!(system.waiting_asks(), 0);
    // So `b` may ask `a`.
    assert_eq!(b.ask(|port| Message::Along(vec![a], port)).await, Ok(Ok(1)));
}

/// Not only the newest question in a circle: the one that closes it comes late.
#[tokio::test(start_paused = true)]
async fn whoever_closes_the_circle_fails_and_frees_the_others() {
    let system = system();
    let [a, b] = askers(&system);
    let later = Duration::from_millis(5);
    let (from_a, from_b) = tokio::join!(
        a.ask(|port| Message::LaterAlong(later, vec![b.clone()], port)),
        b.ask(|port| Message::LaterAlong(later, vec![a.clone()], port)),
    );
    let failed =
        [&from_a, &from_b].map(|outcome| matches!(outcome, Ok(Err(AskError::Cycle { .. }))));
    assert_eq!(
        failed.iter().filter(|failed| **failed).count(),
        1,
        "{failed:?}"
    );
    assert!(
        [from_a, from_b].contains(&Ok(Ok(1))),
        "the other is answered"
    );
    assert_eq!(system.waiting_asks(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_that_ask_each_other_at_once_never_both_wait() {
    let system = system();
    let [a, b] = askers(&system);
    for _ in 0..2_000 {
        let (from_a, from_b) = tokio::join!(
            a.ask(|port| Message::Along(vec![b.clone()], port)),
            b.ask(|port| Message::Along(vec![a.clone()], port)),
        );
        for outcome in [from_a, from_b] {
            assert!(
                matches!(outcome, Ok(Ok(1) | Err(AskError::Cycle { .. }))),
                "{outcome:?}"
            );
        }
    }
    assert_eq!(system.waiting_asks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_ask_that_is_given_up_leaves_no_wait() {
    let system = system();
    let [a, b] = askers(&system);
    let blocked = b
        .ask(|port| Message::LaterAlong(SOON, vec![], port))
        .within(2 * SOON);
    let blocked = tokio::spawn(blocked.into_future());
    tokio::task::yield_now().await;
    let after = Duration::from_millis(10);
    let given_up = a
        .ask(|port| Message::GiveUp(after, vec![b.clone()], port))
        .into_future();
    let given_up = tokio::spawn(given_up);
    tokio::time::sleep(after / 2).await;
    assert_eq!(system.waiting_asks(), 1);
    assert_eq!(given_up.await.unwrap(), Ok(Ok(1)));
    assert_eq!(system.waiting_asks(), 0);
    // Nobody waits for b any more, so b may ask a: the old question is answered to nobody first.
    assert_eq!(blocked.await.unwrap(), Ok(Ok(0)));
    assert_eq!(b.ask(|port| Message::Along(vec![a], port)).await, Ok(Ok(1)));
}

/// L8: stopped asker. An actor that is ended from outside takes its waits with it.
#[tokio::test(start_paused = true)]
async fn an_actor_that_is_given_up_leaves_no_wait() {
    let system = ActorSystem::builder("test")
        .shutdown_limit(Duration::from_millis(10))
        .build();
    let [a, b] = askers(&system);
    let blocked = b
        .ask(|port| Message::LaterAlong(SOON, vec![], port))
        .within(2 * SOON);
    let blocked = tokio::spawn(blocked.into_future());
    tokio::task::yield_now().await;
    let waiting = tokio::spawn(a.ask(|port| Message::Along(vec![b], port)).into_future());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(system.waiting_asks(), 1);
    assert_eq!(system.shutdown().await.blocked.len(), 2);
    assert!(matches!(
        waiting.await.unwrap(),
        Err(AskError::NoReply { .. })
    ));
    assert!(matches!(
        blocked.await.unwrap(),
        Err(AskError::NoReply { .. })
    ));
    assert_eq!(system.waiting_asks(), 0);
}

/// Hands the port of each question on to somebody who is no actor.
struct Broker {
    ports: mpsc::UnboundedSender<ReplyTo<u8>>,
}

enum Brokered {
    Question(ReplyTo<u8>),
    /// Asks `0` in the handler, and answers with how that went.
    AskBack(ActorRef<Message>, ReplyTo<Outcome>),
}

impl Actor for Broker {
    type Msg = Brokered;
    type Err = Infallible;

    async fn handle(&mut self, msg: Brokered, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Brokered::Question(port) => self.ports.send(port).unwrap(),
            Brokered::AskBack(whom, port) => {
                let _ = port.send(along(vec![whom]).await);
            }
        }
        Ok(())
    }
}

/// Awaits an answer of a broker in its handler.
struct Client(ActorRef<Brokered>);

impl Actor for Client {
    type Msg = Message;
    type Err = Infallible;

    async fn handle(&mut self, msg: Message, _: &mut Context<Self>) -> Result<(), Infallible> {
        if let Message::Along(_, port) = msg {
            let answer = self.0.ask(Brokered::Question).within(SOON).await;
            let _ = port.send(answer.map(usize::from));
        }
        Ok(())
    }
}

/// A question that was handled is no longer waited for by the one who handled it: its port may be
/// with anybody by then.
#[tokio::test(start_paused = true)]
async fn a_question_whose_port_was_handed_on_closes_no_circle() {
    handed_on_closes_no_circle(Clone::clone).await;
    handed_on_closes_no_circle(|broker| broker.adapt(|message| message)).await;
}

async fn handed_on_closes_no_circle(way: fn(&ActorRef<Brokered>) -> ActorRef<Brokered>) {
    let system = system();
    let (ports, mut handed_on) = mpsc::unbounded_channel();
    let broker = system.spawn("broker", Broker { ports }).unwrap();
    let client = system.spawn("client", Client(way(&broker))).unwrap();
    let asked = client
        .ask(|port| Message::Along(vec![], port))
        .into_future();
    let asked = tokio::spawn(asked);
    let first = handed_on.recv().await.unwrap();
    assert_eq!(system.waiting_asks(), 0, "the question was handled");
    let back = broker
        .ask(|port| Brokered::AskBack(client.clone(), port))
        .into_future();
    let back = tokio::spawn(back);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(system.waiting_asks(), 1, "the broker waits for the client");
    first.send(7).unwrap();
    assert_eq!(asked.await.unwrap(), Ok(Ok(7)));
    // The client handles the question of the broker now, and asks it while it waits: a circle.
    let outcome = back.await.unwrap();
    assert!(
        matches!(&outcome, Ok(Err(AskError::Cycle { path })) if path.len() == 2),
        "{outcome:?}"
    );
    assert_eq!(system.waiting_asks(), 0);
}
