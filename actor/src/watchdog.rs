//! Watchdog: finds actors that do not give their thread back, names them, and lets others run.
//!
//! # What it sees
//! Whoever runs actors says in its `Seat` which one, and counts the runs: two plain stores a run.
//! A thread of the system looks at all seats every `TICK_MAX` or sooner. A seat where the same run
//! is seen twice is *stuck*; one that is stuck for longer than the limit is *blocked*.
//!
//! # What it does
//! - Stuck: the scheduler takes what waits behind the actor away from the seat, and starts a spare
//!   worker task (`crate::scheduler`). Nothing is logged: a turn may well take that long.
//! - Work that waits although a task sleeps: the task is woken. Whoever made the work has woken one,
//!   but tokio may keep that one for a thread that is in code of users outside of any actor.
//! - Blocked: a warning names the actor, once, and another tells when and after how long the thread
//!   came back.
//!
//! # What it costs
//! While no actor runs for a while the thread dozes, and whoever runs one or has one to run wakes it.
//! If they miss each other it looks once a second, so no fence is needed between the two.
//!
//! # The end
//! The thread holds no handle of the system, and ends when the scheduler closes.

use crate::path::ActorPath;
use crate::sync::lock;
use crate::system::Core;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

/// How often it looks, at the least, while actors run.
const TICK_MAX: Duration = Duration::from_millis(20);
/// How often it looks, at the most.
const TICK_MIN: Duration = Duration::from_millis(1);
/// How often it looks while it dozes.
const DOZE: Duration = Duration::from_secs(1);
/// How long nobody has run when it begins to doze.
const DOZE_AFTER: Duration = Duration::from_secs(1);

/// What happens to an actor that holds its thread: an endless loop, a lock, blocking input.
///
/// Others are helped as soon as an actor is seen to hold its thread, some 20 to 40 milliseconds
/// after it began, so the limit is about the log and the count only.
///
/// There is no watchdog on a runtime with one worker, whatever is set here: nobody could help, and a
/// run on one thread, perhaps with a paused clock, depends on nothing but the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Watchdog {
    /// Nobody looks, and nobody helps.
    Off,
    /// An actor that holds its thread for longer is named in a warning, and again when it is over.
    WarnAfter(Duration),
}

impl Default for Watchdog {
    /// Warns after one second.
    fn default() -> Self {
        Self::WarnAfter(Duration::from_secs(1))
    }
}

/// Where whoever runs actors says which one. Written by one thread at a time.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Seat {
    /// The address of the actor that runs; 0: none.
    job: AtomicUsize,
    runs: AtomicU32,
}

impl Seat {
    /// The next run begins, of the actor at this address.
    #[inline]
    pub(crate) fn begin(&self, job: usize) {
        self.job.store(job, Relaxed);
        // Only one thread writes, so this needs no locked instruction.
        self.runs
            .store(self.runs.load(Relaxed).wrapping_add(1), Release);
    }

    /// Nothing runs.
    #[inline]
    pub(crate) fn rest(&self) {
        self.job.store(0, Release);
    }

    fn look(&self) -> Option<Run> {
        let number = self.runs.load(Acquire);
        let job = self.job.load(Acquire);
        (job != 0).then_some(Run { number, job })
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Run {
    number: u32,
    job: usize,
}

/// What the scheduler and its watchdog share.
#[derive(Default)]
pub(crate) struct Watch {
    /// Of threads that ran an actor for somebody who waits for it.
    guests: Mutex<Vec<Weak<Seat>>>,
    dozing: AtomicBool,
    closed: AtomicBool,
    thread: OnceLock<Thread>,
    /// By seat.
    blocked: Mutex<BTreeMap<usize, ActorPath>>,
    episodes: AtomicU64,
}

thread_local! {
    /// The seat of this thread where it runs an actor for somebody who waits for it.
    static GUEST: RefCell<Option<(Arc<Watch>, Arc<Seat>)>> = const { RefCell::new(None) };
}

impl Watch {
    /// Somebody runs actors now, or shall: the watchdog must be awake.
    #[inline]
    pub(crate) fn somebody_runs(&self) {
        if self.dozing.load(Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.dozing.store(false, Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The thread ends soon.
    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
        self.wake();
    }

    /// Runs `body`, a run of the actor at this address, on a thread that is no worker's.
    pub(crate) fn as_guest(self: &Arc<Self>, job: usize, body: impl FnOnce()) {
        GUEST.with_borrow_mut(|guest| match guest {
            Some((watch, _)) if Arc::ptr_eq(watch, self) => {}
            _ => *guest = Some((self.clone(), self.new_guest())),
        });
        // Borrowed while it runs, since a clone costs two locked instructions. `Scheduler::run_here`
        // runs nothing inside of this.
        GUEST.with_borrow(|guest| {
            let Some((_, seat)) = guest else { return };
            seat.begin(job);
            self.somebody_runs();
            body();
            seat.rest();
        });
    }

    #[cold]
    fn new_guest(&self) -> Arc<Seat> {
        let seat = Arc::<Seat>::default();
        let mut guests = lock(&self.guests);
        guests.retain(|guest| guest.strong_count() > 0);
        guests.push(Arc::downgrade(&seat));
        seat
    }

    /// The actors that are over the limit now, sorted.
    pub(crate) fn blocked(&self) -> Vec<ActorPath> {
        let mut paths: Vec<ActorPath> = lock(&self.blocked).values().cloned().collect();
        paths.sort();
        paths
    }

    /// How often an actor was over the limit.
    pub(crate) fn episodes(&self) -> u64 {
        self.episodes.load(Relaxed)
    }
}

/// Starts the watchdog of a system.
pub(crate) fn start(core: &Arc<Core>, limit: Duration) {
    let watch = core.scheduler().watch().clone();
    let dog = Dog {
        core: Arc::downgrade(core),
        watch: watch.clone(),
        limit,
        tick: (limit / 4).clamp(TICK_MIN, TICK_MAX),
        seen: BTreeMap::new(),
        quiet_since: None,
    };
    // The subscriber of whoever builds the system also hears of its watchdog. If there is none, one
    // may still be set for the whole process, which the thread then finds by itself.
    let dispatch = tracing::dispatcher::get_default(Dispatch::clone);
    let begun = std::thread::Builder::new()
        .name("otava-watchdog".to_owned())
        .spawn(move || {
            if dispatch.is::<NoSubscriber>() {
                dog.run();
            } else {
                tracing::dispatcher::with_default(&dispatch, || dog.run());
            }
        });
    match begun {
        Ok(thread) => {
            // It was empty: a system has one watchdog.
            let _ = watch.thread.set(thread.thread().clone());
        }
        Err(error) => tracing::warn!(%error, "there is no watchdog: its thread did not start"),
    }
}

/// The watchdog's thread.
struct Dog {
    core: Weak<Core>,
    watch: Arc<Watch>,
    limit: Duration,
    tick: Duration,
    /// The last run seen on each seat; guests by their address.
    seen: BTreeMap<usize, Seen>,
    quiet_since: Option<Instant>,
}

struct Seen {
    run: Run,
    since: Instant,
    stuck: bool,
    /// The actor, once it is over the limit.
    named: Option<ActorPath>,
}

impl Dog {
    fn run(mut self) {
        while !self.watch.closed.load(Acquire) {
            let nap = match self.quiet_since {
                Some(since) if since.elapsed() >= DOZE_AFTER => {
                    self.watch.dozing.store(true, Relaxed);
                    DOZE
                }
                _ => self.tick,
            };
            let dozed = nap == DOZE;
            std::thread::park_timeout(nap);
            if dozed && !self.watch.dozing.swap(false, Relaxed) {
                // Woken by somebody, who shall not have to do it again soon.
                self.quiet_since = None;
            }
            let Some(core) = self.core.upgrade() else {
                return;
            };
            self.look(&core);
        }
    }

    fn look(&mut self, core: &Arc<Core>) {
        let mut seats: Vec<(usize, Arc<Seat>)> = core.scheduler().seats().enumerate().collect();
        let guests: Vec<Arc<Seat>> = {
            let mut guests = lock(&self.watch.guests);
            guests.retain(|guest| guest.strong_count() > 0);
            guests.iter().filter_map(Weak::upgrade).collect()
        };
        seats.extend(
            guests
                .into_iter()
                .map(|seat| (Arc::as_ptr(&seat).addr(), seat)),
        );
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.seen);
        for (key, seat) in seats {
            let known = before.remove(&key);
            if let Some(seen) = self.look_at(core, key, &seat, known, now) {
                self.seen.insert(key, seen);
            }
        }
        // Guests whose thread is gone.
        for (key, seen) in before {
            self.over(key, &seen, now);
        }
        match self.seen.is_empty() {
            true => self.quiet_since = self.quiet_since.or(Some(now)),
            false => self.quiet_since = None,
        }
        let stuck = self.seen.values().filter(|seen| seen.stuck).count();
        core.scheduler().help(&core.handle, stuck);
    }

    fn look_at(
        &self,
        core: &Core,
        key: usize,
        seat: &Seat,
        known: Option<Seen>,
        now: Instant,
    ) -> Option<Seen> {
        let run = seat.look();
        let mut seen = match (known, run) {
            (Some(seen), Some(run)) if seen.run == run => seen,
            (known, run) => {
                if let Some(seen) = known {
                    self.over(key, &seen, now);
                }
                return run.map(|run| Seen {
                    run,
                    since: now,
                    stuck: false,
                    named: None,
                });
            }
        };
        seen.stuck = true;
        // Each time: an actor that never ends its turn may still wake others.
        core.scheduler().rescue(key);
        let held = now.duration_since(seen.since);
        if held >= self.limit && seen.named.is_none() {
            let path = core.path_of_address(seen.run.job);
            // Otherwise the address may be another actor's by now.
            if seat.look() == Some(seen.run) {
                let path = path.unwrap_or_else(|| core.path().child("$ended"));
                self.watch.episodes.fetch_add(1, Relaxed);
                lock(&self.watch.blocked).insert(key, path.clone());
                logged(|| {
                    tracing::warn!(actor = %path, ?held, "the actor does not give its thread back");
                });
                seen.named = Some(path);
            }
        }
        Some(seen)
    }

    /// The run is over.
    fn over(&self, key: usize, seen: &Seen, now: Instant) {
        if let Some(path) = &seen.named {
            let held = now.duration_since(seen.since);
            lock(&self.watch.blocked).remove(&key);
            logged(|| tracing::warn!(actor = %path, ?held, "the actor has given its thread back"));
        }
    }
}

/// A subscriber is code of users: its panic does not end the watchdog.
fn logged(log: impl FnOnce()) {
    // The panic hook has reported it, and there is no better place to do so.
    let _ = catch_unwind(AssertUnwindSafe(log));
}
