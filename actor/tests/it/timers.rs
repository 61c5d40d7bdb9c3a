//! Proves: L7, a timer's message comes in time, and never from an old key or an old instance; and
//! what an actor pipes to itself.

use crate::support::{Log, Order, Puppet, SOON, act, say, system};
use otava_actor::timers::TIMER_CATCH_UP_MAX;
use otava_actor::{ActorRef, Context, Stash, Supervision, Time};
use std::num::NonZeroUsize;
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
    let set = |_: &mut Puppet, ctx: &mut Context<Puppet>| {
        ctx.timer_every("every", 10 * MS, || say("tick"));
        ctx.timer_at_rate("rate", 10 * MS, || say("tick"));
        ctx.timer_with_delay("delay", 10 * MS, || say("tick"));
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

/// Sets the three kinds of repeated timers, lets the actor be busy, and says when the ticks came.
async fn ticks_of(
    set: impl Fn(&mut Context<Puppet>, Box<dyn FnMut() -> Order + Send>) + Send + 'static,
) -> Vec<String> {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let begun = Instant::now();
    let tick = move || {
        act(move |puppet, _| {
            puppet.log.add(begun.elapsed().as_millis().to_string());
            Ok(())
        })
    };
    actor
        .tell(act(move |_, ctx| {
            set(ctx, Box::new(tick));
            Ok(())
        }))
        .unwrap();
    sleep(12 * MS).await;
    // Until 35: the ticks at 20 and 30 are late.
    actor.tell(Order::Sleep(23 * MS)).unwrap();
    sleep(50 * MS).await;
    actor.stop();
    log.take().split_off(1)
}

/// What each kind of repeated timer does about ticks that it misses.
#[tokio::test(start_paused = true)]
async fn repeated_timers_leave_out_delay_or_catch_up() {
    let every = ticks_of(|ctx, tick| ctx.timer_every("t", 10 * MS, tick)).await;
    assert_eq!(every, ["10", "35", "45", "55"]);
    let delay = ticks_of(|ctx, tick| ctx.timer_with_delay("t", 10 * MS, tick)).await;
    assert_eq!(delay, ["10", "35", "45", "55"]);
    let rate = ticks_of(|ctx, tick| ctx.timer_at_rate("t", 10 * MS, tick)).await;
    assert_eq!(rate, ["10", "35", "35", "40", "50", "60"]);
    // Late by less than an interval.
    let every = ticks_of(|ctx, tick| ctx.timer_every("t", 25 * MS, tick)).await;
    assert_eq!(every, ["35", "50"]);
    let delay = ticks_of(|ctx, tick| ctx.timer_with_delay("t", 25 * MS, tick)).await;
    assert_eq!(delay, ["35", "60"]);
}

/// Lets the actors do what they have to do at this very moment.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A fixed rate makes up for so many ticks and no more, and messages have their turns in between.
#[tokio::test(start_paused = true)]
async fn catching_up_is_bounded() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    actor
        .tell(act(|_, ctx| {
            ctx.timer_at_rate("t", MS, || say("tick"));
            Ok(())
        }))
        .unwrap();
    actor.tell(Order::Sleep(1_000 * MS)).unwrap();
    sleep(500 * MS).await;
    actor.tell(say("between")).unwrap();
    sleep(500 * MS).await;
    settle().await;
    let lines = log.take();
    let ticks = lines.iter().filter(|line| *line == "a: tick").count();
    // The one that was late itself, and those that are made up for.
    assert_eq!(ticks, 1 + TIMER_CATCH_UP_MAX as usize);
    let between = lines.iter().position(|line| line == "a: between");
    assert!(between.is_some_and(|place| place < 4), "{lines:?}");
    sleep(10 * MS).await;
    settle().await;
    assert_eq!(log.take().len(), 10, "and then it keeps the rate");
}

/// L7: a long line of messages that came back from a stash holds no timer up.
#[tokio::test(start_paused = true)]
async fn a_timer_passes_a_long_line_of_unstashed_messages() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    actor
        .tell(act(|_, ctx| {
            let mut stash = Stash::new(NonZeroUsize::new(1_000).unwrap());
            for _ in 0..1_000 {
                stash.stash(Order::Sleep(MS), ctx).unwrap();
            }
            ctx.timer_every("t", 10 * MS, || say("tick"));
            assert_eq!(ctx.unstash_all(&mut stash), 1_000);
            Ok(())
        }))
        .unwrap();
    actor.tell(say("queued")).unwrap();
    sleep(500 * MS).await;
    let lines = log.take();
    // Each sleep takes a millisecond or two.
    assert!((3..=8).contains(&(lines.len() - 1)), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line == "a: tick"));
    sleep(SOON).await;
    let lines = log.take();
    assert_eq!(lines.iter().filter(|line| *line == "a: queued").count(), 1);
    assert_eq!(system.dead_letters().total(), 0);
}

/// A point in time; which timers are active; all cancelled at once, also those that are due.
#[tokio::test(start_paused = true)]
async fn timers_at_a_time_are_seen_and_cancelled_together() {
    let (system, log) = (system(), Log::default());
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    sleep(MS).await;
    let begun = Instant::now();
    actor
        .tell(act(move |_, ctx| {
            assert!(!ctx.is_timer_active("at"));
            ctx.cancel_all_timers();
            let tick = act(move |puppet, ctx| {
                puppet.log.add(begun.elapsed().as_millis().to_string());
                assert!(!ctx.is_timer_active("at") && ctx.is_timer_active(1));
                Ok(())
            });
            ctx.timer_at("at", ctx.now() + 10 * MS, tick);
            ctx.timer_at("past", Time::ZERO, say("past"));
            ctx.timer_at("never", Time::MAX, say("never"));
            ctx.timer_once(1, 20 * MS, say("never"));
            ctx.timer_every(2, 20 * MS, || say("never"));
            assert!(ctx.is_timer_active("at") && ctx.is_timer_active(2));
            Ok(())
        }))
        .unwrap();
    sleep(15 * MS).await;
    assert_eq!(log.take(), ["a: started", "a: past", "10"]);
    actor.tell(Order::Sleep(50 * MS)).unwrap();
    actor
        .tell(act(|_, ctx| {
            ctx.cancel_all_timers();
            assert!(!ctx.is_timer_active(1) && !ctx.cancel_timer("never"));
            ctx.timer_once(3, MS, say("after"));
            Ok(())
        }))
        .unwrap();
    sleep(SOON).await;
    assert_eq!(log.take(), ["a: after"]);
}

/// Results of pipes come, also with a full mailbox; a panic in one does no harm.
#[tokio::test(start_paused = true)]
async fn a_pipe_delivers_its_result() {
    let (system, log) = (system(), Log::default());
    let props = Puppet::props("a", &log).mailbox_capacity(NonZeroUsize::MIN);
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
