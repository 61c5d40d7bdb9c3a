//! Proves: who watches an actor is told of its end once, and an actor that is ended from outside is
//! dropped once, whoever has its token.

use super::{Above, Identity, Node, Target};
use crate::body::{Active, Body, Dormant, Outcome, Served};
use crate::cell::Cell;
use crate::mailbox::Consumer;
use crate::models::{bounded, exhaustive};
use crate::scheduler::Job;
use crate::sync::{AtomicU64, Ordering};
use crate::system::{ActorSystem, Core};
use crate::watch::{Ended, Terminated, WatchSink, Watchable, Watcher};
use loom::thread;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What all models of a test share: a system that nobody runs, and has no atomics of loom.
fn with_core(test: impl FnOnce(Arc<Core>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let system = runtime.block_on(async { ActorSystem::new("model") });
    test(system.core().clone());
}

fn cell(core: &Arc<Core>, uid: u64) -> (Arc<Target<u32>>, Consumer) {
    let above = Above {
        core: core.clone(),
        parent: None,
    };
    let identity = Identity::new(Arc::new(above), uid, None);
    let (cell, consumer) = Cell::new(identity, 8, None);
    (Arc::new(Target::Local(cell)), consumer)
}

/// Counts what it is told.
struct Told(AtomicU64);

impl WatchSink for Told {
    fn ended(self: Arc<Self>, number: u64, news: Terminated) {
        assert_eq!((number, news.reason), (5, Ended::Stopped));
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn loom_a_watcher_is_told_once() {
    with_core(|core| {
        exhaustive(move || {
            let (target, _consumer) = cell(&core, 1);
            let told = Arc::new(Told(AtomicU64::new(0)));
            let watcher = Watcher::new(5, told.clone());
            let watching = {
                let target = target.clone();
                thread::spawn(move || target.add_watcher(watcher))
            };
            let ending = {
                let target = target.clone();
                thread::spawn(move || target.end(Ended::Stopped))
            };
            // Two at once end it, for example its own life and one from outside.
            target.end(Ended::Stopped);
            watching.join().unwrap();
            ending.join().unwrap();
            assert_eq!(told.0.load(Ordering::Acquire), 1);
        });
    });
}

/// A registration is taken back while the actor ends: it is told once or not at all, and not later.
#[test]
fn loom_a_watcher_that_leaves_is_told_at_most_once() {
    with_core(|core| {
        exhaustive(move || {
            let (target, _consumer) = cell(&core, 1);
            let told = Arc::new(Told(AtomicU64::new(0)));
            let watcher = Watcher::new(5, told.clone());
            let id = watcher.id();
            target.add_watcher(watcher);
            let ending = {
                let target = target.clone();
                thread::spawn(move || target.end(Ended::Stopped))
            };
            target.remove_watcher(id);
            ending.join().unwrap();
            assert!(told.0.load(Ordering::Acquire) <= 1);
            assert_eq!(Arc::strong_count(&told), 1, "no registration is left");
        });
    });
}

/// For the thread that has the token.
fn run(target: &Arc<Target<u32>>) {
    // SAFETY: the token is with the caller, and the target outlives this.
    #[allow(unsafe_code, reason = "the token is under test")]
    unsafe {
        Job::new(target).run();
    }
}

/// A life whose handler waits for ever.
struct Stuck(Arc<AtomicU64>);

impl Dormant for Stuck {
    fn wake_newborn(self: Box<Self>) -> Active {
        Active::new(*self)
    }

    fn serve_now(&mut self, _: &mut Context<'_>, _: &mut Option<Active>) -> Served {
        Served::Other
    }

    fn wake_for_other(self: Box<Self>) -> Option<Active> {
        Some(Active::new(*self))
    }
}

impl Future for Stuck {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
        Poll::Pending
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The actor is ended from outside while a thread polls it, and its handler never ends: one of the two
/// drops it.
#[test]
fn loom_an_abandoned_actor_is_dropped_once() {
    with_core(|core| {
        // A job that is scheduled from now on is given up at once, as after the end of a runtime.
        core.scheduler().close();
        exhaustive(move || {
            let (target, _consumer) = cell(&core, 1);
            let dropped = Arc::new(AtomicU64::new(0));
            {
                let cell = target.cell();
                let life = Box::new(Stuck(dropped.clone()));
                // SAFETY: the token is here until the thread below has it.
                #[allow(unsafe_code, reason = "the token is under test")]
                unsafe {
                    cell.body.put(cell.form(), Body::Newborn(life));
                }
            }
            let running = {
                let target = target.clone();
                thread::spawn(move || {
                    run(&target);
                })
            };
            target.clone().abandon();
            running.join().unwrap();
            assert!(target.has_ended());
            assert_eq!(dropped.load(Ordering::Acquire), 1);
        });
    });
}

/// The same while the handler's waker is called by a third.
#[test]
fn loom_an_abandoned_actor_that_is_woken_is_dropped_once() {
    with_core(|core| {
        core.scheduler().close();
        bounded(3, move || {
            let (target, _consumer) = cell(&core, 1);
            let dropped = Arc::new(AtomicU64::new(0));
            {
                let cell = target.cell();
                let life = Box::new(Stuck(dropped.clone()));
                // SAFETY: the token is here until the thread below has it.
                #[allow(unsafe_code, reason = "the token is under test")]
                unsafe {
                    cell.body.put(cell.form(), Body::Newborn(life));
                }
            }
            let [running, waking] = {
                let (runs, wakes) = (target.clone(), target.clone());
                [
                    thread::spawn(move || {
                        run(&runs);
                    }),
                    thread::spawn(move || wakes.notify()),
                ]
            };
            target.clone().abandon();
            running.join().unwrap();
            waking.join().unwrap();
            assert_eq!(dropped.load(Ordering::Acquire), 1);
        });
    });
}
