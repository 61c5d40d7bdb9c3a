//! Proves: a receive timeout comes when nothing else did, again and again, and never otherwise.

use crate::support::{Log, Order, Puppet, SOON, act, say, system, with};
use futures_util::FutureExt;
use otava_actor::{ActorRef, Context, Supervision};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

/// Sets a timeout of 100 ms, whose message says when it came.
fn set(actor: &ActorRef<Order>) {
    let begun = Instant::now();
    with(actor, move |ctx| {
        ctx.set_receive_timeout(100 * MS, move || {
            say(format!("{}", begun.elapsed().as_millis() / 10))
        });
    });
}

#[tokio::test(start_paused = true)]
async fn it_comes_after_silence_and_again_until_it_is_cancelled() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    set(&actor);
    sleep(350 * MS).await;
    assert_eq!(log.take(), ["a: started", "a: 10", "a: 20", "a: 30"]);
    // A message begins a new silence; a long one begins it when it is done.
    actor.tell(say("hello")).unwrap();
    sleep(95 * MS).await;
    assert_eq!(log.take(), ["a: hello"]);
    actor.tell(Order::Sleep(200 * MS)).unwrap();
    sleep(290 * MS).await;
    assert_eq!(log.take(), [] as [&str; 0]);
    sleep(20 * MS).await;
    assert_eq!(log.take().len(), 1);
    with(&actor, |ctx| {
        assert!(ctx.cancel_receive_timeout());
        assert!(!ctx.cancel_receive_timeout());
        ctx.keep_receive_timeout();
    });
    sleep(SOON).await;
    assert_eq!(log.take(), [] as [&str; 0]);
}

/// Regular messages, one just before each timeout, hold it off; those that do not count do not.
#[tokio::test(start_paused = true)]
async fn messages_hold_it_off_unless_they_do_not_count() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    set(&actor);
    for _ in 0..10 {
        sleep(90 * MS).await;
        with(&actor, |_| {});
    }
    assert_eq!(log.take(), ["a: started"]);
    sleep(10 * MS).await;
    for _ in 0..8 {
        sleep(10 * MS).await;
        with(&actor, Context::keep_receive_timeout);
    }
    sleep(15 * MS).await;
    assert_eq!(log.take(), ["a: 100"]);
    // Timers count, as messages do.
    with(&actor, |ctx| {
        ctx.timer_every("t", 50 * MS, || act(|_, _| Ok(())));
    });
    sleep(SOON).await;
    assert_eq!(log.take(), [] as [&str; 0]);
}

/// It does not overtake what waits in the mailbox.
#[tokio::test(start_paused = true)]
async fn it_never_comes_before_a_queued_message() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    set(&actor);
    sleep(50 * MS).await;
    // Time passes, and before the actor gets to run there is a message as well.
    assert!(tokio::time::advance(500 * MS).now_or_never().is_none());
    actor.tell(say("first")).unwrap();
    sleep(MS).await;
    assert_eq!(log.take(), ["a: started", "a: first"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_it_and_setting_it_anew_replaces_it() {
    let (system, log) = (system(), Log::default());
    let restart = Supervision::Restart {
        limit: 5,
        within: SOON,
    };
    let props = Puppet::props("a", &log).on_failure(restart);
    let actor = system.spawn_with("a", props).unwrap();
    set(&actor);
    with(&actor, |ctx| {
        ctx.set_receive_timeout(20 * MS, || say("shorter"));
    });
    sleep(50 * MS).await;
    assert_eq!(log.take(), ["a: started", "a: shorter", "a: shorter"]);
    actor.tell(act(|_, _| Err("no".into()))).unwrap();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: started"]);
    // A panic in the function is a failure.
    with(&actor, |ctx| {
        ctx.set_receive_timeout(20 * MS, || panic!("in a timeout"));
    });
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: started"]);
    actor.ask(Order::Sync).await.unwrap();
}
