//! Proves: L8 for an ask whose answer comes as a later turn; and what the handle of a pipe does.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, say, system, with};
use otava_actor::{AskError, DeadLetterReason, Props, ReplyTo};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

fn told(answer: Result<u64, AskError>) -> Order {
    match answer {
        Ok(sum) => say(sum.to_string()),
        // Without the advice, and without what was known of the actor.
        Err(error) => {
            let text = error.to_string();
            let first = text.split([';', '(', ',']).next().unwrap_or_default();
            say(first.trim_end().to_owned())
        }
    }
}

/// L8: an answer; none; none in time; a target that is full or gone. The asker goes on meanwhile.
#[tokio::test(start_paused = true)]
async fn the_answer_or_its_lack_comes_as_a_message() {
    let (system, log) = (system(), Log::default());
    let asker = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let adder = system.spawn("adder", Adder(7)).unwrap();
    let ask = |question: fn(ReplyTo<u64>) -> Sums| {
        let target = adder.clone();
        with(&asker, move |ctx| {
            ctx.ask_then(&target, question, 30 * MS, told);
        });
        asker.tell(say("goes on")).unwrap();
    };
    ask(Sums::Get);
    sleep(MS).await;
    assert_eq!(log.take(), ["a: started", "a: goes on", "a: 7"]);
    ask(Sums::Ignore);
    sleep(MS).await;
    let no_reply = "a: test/adder dropped the question without an answer after 0ns";
    assert_eq!(log.take(), ["a: goes on", no_reply]);
    ask(|reply_to| Sums::Late(reply_to, 50 * MS));
    sleep(29 * MS).await;
    assert_eq!(log.take(), ["a: goes on"]);
    sleep(3 * MS).await;
    assert_eq!(log.take(), ["a: test/adder did not answer within 30ms"]);
    sleep(SOON).await;
    let letters = system.dead_letters();
    assert_eq!(letters.count(DeadLetterReason::LateReply), 1);
    adder.stop();
    ask(Sums::Get);
    sleep(MS).await;
    assert_eq!(
        log.take(),
        ["a: goes on", "a: test/adder was not asked: it has stopped"]
    );
    let props = Props::once(Adder(0)).mailbox_capacity(NonZeroUsize::MIN);
    let full = system.spawn_with("full", props).unwrap();
    with(&asker, move |ctx| {
        full.tell(Sums::Add(1)).unwrap();
        ctx.ask_then(&full, Sums::Get, SOON, told);
    });
    sleep(MS).await;
    assert_eq!(
        log.take(),
        ["a: test/full was not asked: its mailbox is full"]
    );
}

/// The question keeps its place among what the asker tells the target.
#[tokio::test(start_paused = true)]
async fn the_question_is_sent_at_once() {
    let (system, log) = (system(), Log::default());
    let asker = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let adder = system.spawn("adder", Adder(0)).unwrap();
    with(&asker, move |ctx| {
        adder.tell(Sums::Add(1)).unwrap();
        ctx.ask_then(&adder, Sums::Get, SOON, told);
        adder.tell(Sums::Add(10)).unwrap();
        ctx.ask_then(&adder, Sums::Get, SOON, told);
    });
    sleep(MS).await;
    assert_eq!(log.take(), ["a: started", "a: 1", "a: 11"]);
}

/// L8: many at once, and an asker that stops leaves nothing behind but late replies.
#[tokio::test(start_paused = true)]
async fn many_questions_are_under_way_and_end_with_their_asker() {
    let (system, log) = (system(), Log::default());
    let asker = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let adder = system.spawn("adder", Adder(7)).unwrap();
    let target = adder.clone();
    with(&asker, move |ctx| {
        for _ in 0..10_000 {
            ctx.ask_then(&target, Sums::Get, SOON, told);
        }
    });
    sleep(SOON).await;
    let lines = log.take();
    assert_eq!(lines.iter().filter(|line| *line == "a: 7").count(), 10_000);
    let target = adder.clone();
    with(&asker, move |ctx| {
        ctx.ask_then(&target, |r| Sums::Late(r, 20 * MS), SOON, told);
    });
    sleep(MS).await;
    asker.stop();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: stopped"]);
    assert_eq!(system.dead_letters().count(DeadLetterReason::LateReply), 1);
    assert_eq!(system.dead_letters().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_pipe_says_nothing() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    with(&actor, |ctx| {
        let aborted = ctx.pipe_to_self(sleep(10 * MS), |()| say("never"));
        let kept = ctx.pipe_to_self(sleep(10 * MS), |()| say("kept"));
        let again = aborted.clone();
        ctx.pipe_to_self(sleep(5 * MS), move |()| {
            aborted.abort();
            say("aborted")
        });
        ctx.pipe_to_self(sleep(20 * MS), move |()| {
            assert!(again.is_finished() && kept.is_finished());
            kept.abort();
            say("finished")
        });
    });
    sleep(SOON).await;
    let lines = ["a: started", "a: aborted", "a: kept", "a: finished"];
    assert_eq!(log.take(), lines);
}
