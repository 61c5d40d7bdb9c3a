//! Proves: L1, a back-off waits as long as it says, on the paused clock, and keeps nobody waiting
//! longer than that.

use crate::supervision_support::{Do, Doll, Fail, act, end_of, fail, settle};
use crate::support::{Log, SOON, system};
use otava_actor::{ActorSystem, Backoff, DeadLetterReason, Ended, Props, TellError};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A backed-off actor, and the seconds at which instances were ready.
fn spawn(
    system: &ActorSystem,
    backoff: Backoff,
    log: &Log,
) -> (otava_actor::ActorRef<Do>, Arc<Mutex<Vec<f64>>>) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let own = times.clone();
    let props = Doll::starting("a", log, move |_, ctx| {
        let seconds = ctx.now().as_nanos() as f64 / 1e9;
        own.lock().unwrap().push(seconds);
        Ok(())
    });
    let props = props
        .on_failure(backoff)
        .mailbox_capacity(NonZeroUsize::new(8).unwrap());
    (system.spawn_with("a", props).unwrap(), times)
}

/// L1: the waits double up to the longest; after a quiet time they begin anew.
#[tokio::test(start_paused = true)]
async fn waits_grow_and_a_quiet_time_resets_them() {
    let (system, log) = (system(), Log::default());
    let backoff = Backoff::new(SECOND, 5 * SECOND).jitter(0.0);
    let (actor, times) = spawn(&system, backoff, &log);
    for _ in 0..4 {
        actor.tell(fail(Fail::Hard)).unwrap();
    }
    tokio::time::sleep(20 * SECOND).await;
    // Ready at 12; the failure at 20 is 8 seconds later, the next one comes at once.
    for _ in 0..2 {
        actor.tell(fail(Fail::Hard)).unwrap();
    }
    tokio::time::sleep(20 * SECOND).await;
    let times: Vec<u64> = times
        .lock()
        .unwrap()
        .iter()
        .map(|time| time.round() as u64)
        .collect();
    assert_eq!(times, [0, 1, 3, 7, 12, 21, 23]);
}

/// L1: over the limit of restarts in a row it stops.
#[tokio::test(start_paused = true)]
async fn the_limit_of_a_backoff_stops_the_actor() {
    let (system, log) = (system(), Log::default());
    let backoff = Backoff::new(SECOND, SECOND).limit(2);
    let (actor, times) = spawn(&system, backoff, &log);
    for _ in 0..3 {
        actor.tell(fail(Fail::Hard)).unwrap();
    }
    assert_eq!(end_of(&system, &actor).await, Ended::Failed);
    assert_eq!(times.lock().unwrap().len(), 3);
}

/// L1: messages wait in the mailbox, bounded as always, and are handled in order by the new
/// instance; there is none meanwhile.
#[tokio::test(start_paused = true)]
async fn messages_wait_bounded_while_there_is_no_instance() {
    let (system, log) = (system(), Log::default());
    let (actor, _) = spawn(&system, Backoff::new(SECOND, SECOND).jitter(0.0), &log);
    actor.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    assert_eq!(log.take(), ["a1: started", "a1: restarting", "a1: dropped"]);
    for text in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        actor.tell(Do::Say(text)).unwrap();
    }
    let full = actor.tell(Do::Say("9"));
    assert!(matches!(full, Err(TellError::Full(_))));
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(log.take(), [""; 0]);
    // Who drains waits for what is queued, and so for the instance.
    actor.stop_after_queued();
    assert_eq!(end_of(&system, &actor).await, Ended::Stopped);
    let lines = log.take();
    assert_eq!(lines[0], "a2: started");
    assert_eq!(
        lines[1..9].concat(),
        "a2: 1a2: 2a2: 3a2: 4a2: 5a2: 6a2: 7a2: 8"
    );
    assert_eq!(lines[9..], ["a2: stopped", "a2: dropped"]);
}

/// L1: a stop during the wait works at once: no hook, what is queued is accounted for, children that
/// were kept end first. So does the end of the system.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_the_end_of_a_backoff() {
    for shutdown in [false, true] {
        let (system, log) = (system(), Log::default());
        let own = log.clone();
        let props = Doll::starting("a", &log, move |_, ctx| {
            ctx.spawn_with("c", Doll::props("c", &own)).unwrap();
            Ok(())
        });
        let props = props
            .on_failure(Backoff::new(100 * SECOND, 100 * SECOND))
            .keep_children();
        let actor = system.spawn_with("a", props).unwrap();
        actor.tell(fail(Fail::Hard)).unwrap();
        settle().await;
        actor.tell(Do::Say("never")).unwrap();
        log.take();
        let before = system.now();
        match shutdown {
            true => assert_eq!(system.shutdown().await.blocked, []),
            false => {
                actor.stop();
                assert_eq!(end_of(&system, &actor).await, Ended::Stopped);
            }
        }
        assert_eq!(system.now(), before);
        assert_eq!(log.take(), ["c1: stopped", "c1: dropped"]);
        let left = DeadLetterReason::LeftInMailbox;
        assert_eq!(system.dead_letters().count(left), 1);
    }
}

/// L1: a factory that fails makes the waits longer too, however long it took to fail.
#[tokio::test(start_paused = true)]
async fn a_slow_failing_factory_is_no_quiet_time() {
    let (system, log) = (system(), Log::default());
    let (tries, mut tried) = (log.clone(), 0);
    let props = Props::new_async(move || {
        tried += 1;
        let (tried, log) = (tried, tries.clone());
        async move {
            tokio::time::sleep(10 * SECOND).await;
            if tried < 4 {
                Err(Fail::Soft)
            } else {
                Ok(Doll::new("a", tried, &log))
            }
        }
    });
    let backoff = Backoff::new(SECOND, 4 * SECOND).jitter(0.0);
    let actor = system.spawn_with("a", props.on_failure(backoff)).unwrap();
    let instance = actor.ask(Do::Which).within(100 * SOON).await;
    assert_eq!(instance.unwrap(), 4);
    let seconds = system.now().as_nanos() / 1_000_000_000;
    assert_eq!(seconds, 4 * 10 + 1 + 2 + 4);
}

/// The random part of the waits comes from the seed and the actor, and from nothing else.
#[tokio::test(start_paused = true)]
async fn the_jitter_replays_from_the_seed() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let system = ActorSystem::builder("test").seed(seed).build();
        let log = Log::default();
        let backoff = Backoff::new(SECOND, SECOND).jitter(0.5);
        let (actor, times) = spawn(&system, backoff, &log);
        for _ in 0..4 {
            actor.tell(fail(Fail::Hard)).unwrap();
        }
        // What others draw changes nothing.
        actor
            .tell(act(move |_, ctx| {
                let drawn: Vec<_> = (0..seed).map(|_| ctx.system().rng()).collect();
                assert_eq!(drawn.len() as u64, seed);
                Ok(())
            }))
            .unwrap();
        tokio::time::sleep(10 * SECOND).await;
        let times = times.lock().unwrap().clone();
        let waits: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits.len(), 4);
        // The runtime's timers count milliseconds.
        assert!(
            waits.iter().all(|wait| (1.0..1.502).contains(wait)),
            "{waits:?}"
        );
        runs.push(
            times
                .windows(2)
                .map(|pair| ((pair[1] - pair[0]) * 1e3) as u64)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

/// L4: on threads, stops race with failures, waits and restarts: the end is told once, every message
/// is handled or accounted for, and no instance is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_race_with_backoffs() {
    for round in 0..100_u64 {
        let system = ActorSystem::builder("test").seed(round).build();
        let (log, handled) = (Log::default(), Arc::new(AtomicU64::new(0)));
        let wait = Backoff::new(Duration::from_micros(1), Duration::from_micros(100));
        let props = Doll::props("a", &log).on_failure(wait);
        let actor = system.spawn_with("a", props).unwrap();
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        let _watching = actor.on_terminated(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (actor, handled) = (actor.clone(), handled.clone());
                tokio::task::spawn_blocking(move || {
                    let refused = (0..100).filter(|n| {
                        let (handled, fails) = (handled.clone(), n % 10 == 9);
                        let message = act(move |_, _| {
                            handled.fetch_add(1, SeqCst);
                            if fails { Err(Fail::Hard) } else { Ok(()) }
                        });
                        actor.tell(message).is_err()
                    });
                    refused.count() as u64
                })
            })
            .collect();
        while handled.load(SeqCst) < round.min(80) {
            tokio::task::yield_now().await;
        }
        actor.stop();
        let mut refused = 0;
        for sender in senders {
            refused += sender.await.unwrap();
        }
        assert_eq!(system.shutdown().await.blocked, []);
        let left = system.dead_letters().count(DeadLetterReason::LeftInMailbox);
        let accounted = handled.load(SeqCst) + refused + left;
        assert_eq!((accounted, told.load(SeqCst)), (200, 1), "round {round}");
        let lines = log.take();
        let of = |what: &str| lines.iter().filter(|line| line.ends_with(what)).count();
        assert_eq!(of(": started"), of(": dropped"), "round {round}");
        assert!(of(": stopped") <= 1);
    }
}
