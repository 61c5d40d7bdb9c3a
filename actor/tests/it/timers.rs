//! Proves: L7, a timer's message comes in time, and never from an old key or an old instance; and
//! what an actor pipes to itself.

use crate::support::{Log, Order, Puppet, SOON, act, say, system};
use otava_actor::{ActorRef, Supervision};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

async fn sync(actor: &ActorRef<Order>) {
    actor.ask(Order::Sync).within(SOON * 10).await.unwrap();
}

/// L7: within [t, t + 10 ms].
#[tokio::test(start_paused = true)]
async fn a_timer_fires_in_time_and_once() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let begun = Instant::now();
    actor
        .tell(act(move |_, ctx| {
            let tick = act(move |puppet, _| {
                puppet.log.add(format!("{}", begun.elapsed().as_millis()));
                Ok(())
            });
            ctx.timer_once("t", 70 * MS, tick);
            Ok(())
        }))
        .unwrap();
    sleep(SOON).await;
    let lines = log.take();
    let at: u64 = lines[1].parse().unwrap();
    assert!((70..=80).contains(&at) && lines.len() == 2, "{lines:?}");
}

/// L7: replaced and cancelled, also when already due while the actor is busy.
#[tokio::test(start_paused = true)]
async fn a_replaced_or_cancelled_timer_never_ticks() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let set = act(|_, ctx| {
        ctx.timer_once("replaced", 10 * MS, say("old"));
        ctx.timer_once("cancelled", 10 * MS, say("cancelled"));
        ctx.timer_every(7, 10 * MS, || say("cancelled too"));
        Ok(())
    });
    actor.tell(set).unwrap();
    actor.tell(Order::Sleep(50 * MS)).unwrap();
    let change = act(|_, ctx| {
        ctx.timer_once("replaced", 10 * MS, say("new"));
        assert!(ctx.cancel_timer("cancelled") && ctx.cancel_timer(7));
        assert!(!ctx.cancel_timer("cancelled") && !ctx.cancel_timer("unknown"));
        Ok(())
    });
    actor.tell(change).unwrap();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: started", "a: new"]);
}

/// L7: a restart leaves no timer of the old instance; a stop leaves none at all.
#[tokio::test(start_paused = true)]
async fn timers_end_with_their_instance() {
    let (system, log) = (system(), Log::default());
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON,
    };
    let actor = system
        .spawn_with("a", Puppet::props("a", &log).on_failure(restart))
        .unwrap();
    let set = |_: &mut Puppet, ctx: &mut otava_actor::Context<Puppet>| {
        ctx.timer_every("every", 10 * MS, || say("tick"));
        ctx.timer_once("once", 10 * MS, say("tick"));
        Ok(())
    };
    actor.tell(act(set)).unwrap();
    // Due while busy, and then the instance fails before it sees them.
    actor.tell(Order::Sleep(50 * MS)).unwrap();
    actor.tell(act(|_, _| Err("no".into()))).unwrap();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: started", "a: started"]);
    actor.tell(act(set)).unwrap();
    actor.tell(Order::Sleep(50 * MS)).unwrap();
    sleep(20 * MS).await;
    actor.stop();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: stopped"]);
}

/// Repeated timers keep their rate, and leave out what they miss.
#[tokio::test(start_paused = true)]
async fn a_repeated_timer_skips_what_it_misses() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let mut n = 0;
    actor
        .tell(act(move |_, ctx| {
            ctx.timer_every("t", 10 * MS, move || {
                n += 1;
                say(format!("{n}"))
            });
            Ok(())
        }))
        .unwrap();
    sleep(35 * MS).await;
    assert_eq!(log.take(), ["a: started", "a: 1", "a: 2", "a: 3"]);
    actor.tell(Order::Sleep(100 * MS)).unwrap();
    sleep(109 * MS).await;
    assert_eq!(log.take(), ["a: 4"], "one tick for all that were missed");
    actor.stop();
}

/// A timer that is always due does not shut out messages.
#[tokio::test(start_paused = true)]
async fn a_timer_that_is_always_due_leaves_room_for_messages() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    actor
        .tell(act(|_, ctx| {
            ctx.timer_every("t", MS, || Order::Sleep(5 * MS));
            Ok(())
        }))
        .unwrap();
    sleep(20 * MS).await;
    sync(&actor).await;
}

/// Results of pipes come, also with a full mailbox; a panic in one does no harm.
#[tokio::test(start_paused = true)]
async fn a_pipe_delivers_its_result() {
    let (system, log) = (system(), Log::default());
    let props = Puppet::props("a", &log).mailbox_capacity(std::num::NonZeroUsize::MIN);
    let actor = system.spawn_with("a", props).unwrap();
    actor
        .tell(act(|_, ctx| {
            ctx.pipe_to_self(sleep(10 * MS), |()| say("slow"));
            ctx.pipe_to_self(async { 5 }, |n| say(format!("{n}")));
            ctx.pipe_to_self(async { panic!("in a pipe") }, |()| say("never"));
            Ok(())
        }))
        .unwrap();
    sleep(5 * MS).await;
    actor.tell(Order::Sleep(50 * MS)).unwrap();
    sleep(MS).await;
    actor.tell(say("fills the mailbox")).unwrap();
    sleep(SOON).await;
    assert_eq!(
        log.take(),
        ["a: started", "a: 5", "a: fills the mailbox", "a: slow"]
    );
    actor
        .tell(act(|_, ctx| {
            ctx.pipe_to_self(sleep(10 * MS), |()| say("never"));
            ctx.stop_self();
            Ok(())
        }))
        .unwrap();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: stopped"], "pipes end with the actor");
}
