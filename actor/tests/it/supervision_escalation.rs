//! Proves: L1 and L2, an escalated failure reaches the parent once, and a storm of failures stays
//! within its limits.

use crate::supervision_support::{Do, Doll, Fail, act, end_of, fail, settle};
use crate::support::{Log, SOON, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, Ended, Fault, Props, Supervision};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn restart(limit: u32) -> Supervision {
    Supervision::Restart {
        limit,
        within: Duration::from_secs(1),
    }
}

/// A child `c` that escalates.
fn escalating(log: &Log) -> Props<Doll> {
    Doll::props("c", log).on_failure(Supervision::Escalate)
}

/// Tells the child `c` of `parent` to fail.
fn fail_child(parent: &ActorRef<Do>) {
    parent
        .tell(act(|_, ctx| {
            ctx.child("c").unwrap().tell(fail(Fail::Hard)).unwrap();
            Ok(())
        }))
        .unwrap();
}

/// L1: the child has ended, failed, before its parent fails and restarts.
#[tokio::test(start_paused = true)]
async fn an_escalated_failure_is_the_parents_failure() {
    let (system, log) = (system(), Log::default());
    let own = log.clone();
    let parent = Doll::starting("p", &log, move |_, ctx| {
        let child = ctx.spawn_with("c", escalating(&own)).unwrap();
        ctx.watch(&child);
        Ok(())
    });
    let parent = system
        .spawn_with("p", parent.on_failure(restart(1)))
        .unwrap();
    fail_child(&parent);
    settle().await;
    let expected = [
        "p1: started",
        "c1: started",
        "c1: stopped",
        "c1: dropped",
        "p1: restarting",
        "p1: dropped",
        "p2: started",
        "c1: started",
    ];
    assert_eq!(log.take(), expected);
    fail_child(&parent);
    assert_eq!(end_of(&system, &parent).await, Ended::Failed);
}

/// L1: up the tree until somebody decides; whoever only escalates ends.
#[tokio::test(start_paused = true)]
async fn a_failure_climbs_until_somebody_decides() {
    let (system, log) = (system(), Log::default());
    let (own, seen) = (log.clone(), Arc::new(Mutex::new(Vec::new())));
    let faults = seen.clone();
    let top = Doll::starting("t", &log, move |_, ctx| {
        let own = own.clone();
        let middle = Doll::starting("p", &own.clone(), move |_, ctx| {
            ctx.spawn_with("c", escalating(&own)).unwrap();
            Ok(())
        });
        ctx.spawn_with("p", middle.on_failure(Supervision::Escalate))
            .unwrap();
        Ok(())
    });
    let top = top.decide(move |fault| {
        if let Fault::Child { path, failure } = fault {
            faults.lock().unwrap().push(format!("{path}: {failure}"));
        }
        Supervision::Resume
    });
    let top = system.spawn_with("t", top).unwrap();
    top.tell(act(|_, ctx| {
        fail_child(&ctx.child("p").unwrap());
        Ok(())
    }))
    .unwrap();
    settle().await;
    assert_eq!(top.ask(Do::Which).await.unwrap(), 1);
    let faults = seen.lock().unwrap().clone();
    assert_eq!(faults, ["test/t/p: the child test/t/p/c failed: Hard"]);
    assert_eq!(system.actors().len(), 1);
}

/// L1: at the top it is the end of the actor, and its watchers see a failure; also when a limit is
/// what is escalated, and when the parent's only strategy is the default.
#[tokio::test(start_paused = true)]
async fn at_the_top_an_escalated_failure_is_an_end() {
    let (system, log) = (system(), Log::default());
    let top = system.spawn_with("top", escalating(&log)).unwrap();
    top.tell(fail(Fail::Unspeakable)).unwrap();
    assert_eq!(end_of(&system, &top).await, Ended::Failed);

    let own = log.clone();
    let parent = Doll::starting("p", &log, move |_, ctx| {
        let child = Doll::props("c", &own).on_failure(restart(1));
        ctx.spawn_with("c", child.escalate_at_limit()).unwrap();
        Ok(())
    });
    let parent = system.spawn_with("p", parent).unwrap();
    fail_child(&parent);
    settle().await;
    assert!(!parent.is_stopped(), "the child restarted by itself");
    fail_child(&parent);
    assert_eq!(end_of(&system, &parent).await, Ended::Failed);
}

/// L1: the failure of a child comes before the messages that wait, but not into the one in work; and
/// it is not lost on a full mailbox.
#[tokio::test(start_paused = true)]
async fn an_escalated_failure_passes_a_full_mailbox() {
    let (system, log) = (system(), Log::default());
    let own = log.clone();
    let parent = Doll::starting("p", &log, move |doll, ctx| {
        if doll.instance == 1 {
            ctx.spawn_with("c", escalating(&own)).unwrap();
        }
        Ok(())
    });
    let props = parent
        .on_failure(restart(1))
        .mailbox_capacity(2.try_into().unwrap());
    let parent = system.spawn_with("p", props).unwrap();
    fail_child(&parent);
    parent.tell(Do::Sleep(SOON)).unwrap();
    tokio::time::sleep(SOON / 2).await;
    while parent.tell(Do::Say("waited")).is_ok() {}
    log.take();
    tokio::time::sleep(SOON).await;
    let expected = [
        "p1: restarting",
        "p1: dropped",
        "p2: started",
        "p2: waited",
        "p2: waited",
    ];
    assert_eq!(log.take(), expected);
}

/// L2: one restart is the answer to all failures that were there before it, whether the children are
/// kept or not.
#[tokio::test(start_paused = true)]
async fn failures_that_one_restart_answers_are_counted_once() {
    for keep in [false, true] {
        let (system, log) = (system(), Log::default());
        let own = log.clone();
        let parent = Doll::starting("p", &log, move |doll, ctx| {
            for name in ["a", "b", "c"] {
                if doll.instance == 1 {
                    let child = Doll::props(name, &own).on_failure(Supervision::Escalate);
                    let child = ctx.spawn_with(name, child).unwrap();
                    child.tell(Do::FailAfter(SOON / 2)).unwrap();
                }
            }
            Ok(())
        });
        let props = parent.on_failure(restart(9));
        let props = if keep { props.keep_children() } else { props };
        let parent = system.spawn_with("p", props).unwrap();
        parent.tell(Do::Sleep(SOON)).unwrap();
        assert_eq!(parent.ask(Do::Which).within(2 * SOON).await.unwrap(), 2);
        assert_eq!(system.actors().len(), 1);
    }
}

/// L2: 10,000 children fail at once and again. None restarts more than three times, all escalate
/// together, the parent restarts once for that, stays responsive, and nothing is left behind.
#[tokio::test(start_paused = true)]
async fn ten_thousand_failing_children_keep_to_their_limits() {
    const CHILDREN: u64 = 10_000;
    let (system, log) = (system(), Log::default());
    let starts: Arc<Vec<_>> = Arc::new((0..CHILDREN).map(|_| AtomicU32::new(0)).collect());
    let (alive, storm) = (Arc::new(()), Arc::new(AtomicU64::new(0)));
    let (own, count, turns) = (starts.clone(), alive.clone(), storm.clone());
    let parent = Doll::starting("p", &log, move |doll, ctx| {
        for n in 0..CHILDREN {
            if doll.instance > 1 {
                break;
            }
            let (starts, turns) = (own.clone(), turns.clone());
            let (quiet, alive) = (Log::default(), count.clone());
            let child = Doll::starting("c", &quiet, move |_, _| {
                let _alive = &alive;
                turns.fetch_add(1, SeqCst);
                starts[n as usize].fetch_add(1, SeqCst);
                Ok(())
            });
            let child = child.on_failure(restart(3)).escalate_at_limit();
            let child = ctx.spawn_with(&format!("c{n}"), child).unwrap();
            // Each failure takes a turn of its own.
            (0..5).for_each(|_| child.tell(Do::FailLater(Ok(Fail::Hard))).unwrap());
        }
        Ok(())
    });
    let parent = system
        .spawn_with("p", parent.on_failure(restart(2)))
        .unwrap();
    let mut slowest = 0;
    let mut pings = 0;
    loop {
        let before = storm.load(SeqCst);
        let instance = parent.ask(Do::Which).await.unwrap();
        slowest = slowest.max(storm.load(SeqCst) - before);
        pings += 1;
        if instance == 2 {
            break;
        }
    }
    assert!(pings > 3, "{pings} answers");
    let turns = storm.load(SeqCst);
    assert!(turns >= 3 * CHILDREN, "{turns} turns");
    // One look at every child is what a fair turn costs, of the three or more that there were.
    assert!(slowest <= CHILDREN + CHILDREN / 10, "{slowest} restarts");
    assert!(starts.iter().all(|starts| starts.load(SeqCst) <= 4));
    assert_eq!(parent.ask(Do::Which).await.unwrap(), 2, "one escalation");
    parent.stop();
    end_of(&system, &parent).await;
    drop(parent);
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 1, "all factories are gone");
}

/// L2: many children that fail on threads while their parent restarts: every one ends, none is told
/// twice, and the parent goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn escalations_race_with_restarts_of_the_parent() {
    for round in 0..20 {
        let (system, log) = (system(), Log::default());
        let own = log.clone();
        let parent = Doll::starting("p", &log, move |_, ctx| {
            for n in 0..20 {
                let child = Doll::props("c", &Log::default()).on_failure(Supervision::Escalate);
                let child = ctx.spawn_with(&format!("c{n}"), child).unwrap();
                child.tell(Do::FailLater(Err("no"))).unwrap();
            }
            own.add("up");
            Ok(())
        });
        let props = parent.on_failure(restart(5));
        let props = if round % 2 == 0 {
            props.keep_children()
        } else {
            props
        };
        let parent = system.spawn_with("p", props).unwrap();
        let mut probe = TestProbe::<()>::new(&system);
        probe.watch(&parent);
        let news = probe.expect_terminated(&parent, SOON).await;
        assert_eq!(news.reason, Ended::Failed);
        let ups = log.take().iter().filter(|line| *line == "up").count();
        assert!(ups <= 6, "{ups}");
        assert_eq!(system.shutdown().await.blocked, []);
    }
}
