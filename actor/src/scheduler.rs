//! Scheduler: which runnable actor runs next, and on which worker of tokio.
//!
//! # The shape
//! Each worker thread of the runtime carries one task of ours, for as long as the system lives. A
//! task polls runnable actors one after the other; an actor that has nothing to do is in no queue
//! and costs nothing. This is what made a message several times cheaper than with a tokio task for
//! each actor: waking an actor is a push to a queue that the same thread will look at next.
//!
//! # Where a runnable actor waits
//! 1. The **slot** of the task on whose thread it was woken: it runs next, while the message is
//!    still in the cache. At most [`SLOT_RUNS_MAX`] in a row, so that a pair which talks to itself
//!    does not shut out others. Only the watchdog takes something out of another task's slot
//!    ([`crate::slot`]), if that task is stuck.
//! 2. The task's own **queue**, first in, first out. Other tasks steal from it when they have
//!    nothing.
//! 3. The **injector**, for actors woken on any other thread.
//!
//! While a task runs, its slot and queue lie in a thread-local, so that a `tell` in a handler finds
//! them without a lock; they are moved in and out around each poll of the task.
//!
//! # Sleeping
//! A task that finds nothing puts its waker on the list of sleepers and then looks at all queues
//! once more. Whoever pushes looks at the number of sleepers after the push. A fence stands between
//! the two steps on both sides, so either the sleeper sees the work or the pusher sees the sleeper.
//!
//! # Fairness to the runtime
//! After half a millisecond, or some hundred messages where there is one worker, a task yields to tokio, so that timers,
//! sockets and tasks of users get the thread; also as soon as tokio's own budget for the task is
//! used up, for until then its sockets and timers would answer "pending" to every actor. With one
//! worker the clock is not looked at: the order of events depends on nothing but the program.
//!
//! # Stuck tasks
//! An actor may block its thread. What waits behind it in the queue can be stolen, but two things
//! would be lost: the actor in the slot, and whatever tokio keeps for that thread alone, which is
//! the task that was woken last on it, often one of ours. So the watchdog ([`crate::watchdog`])
//! empties the slot and spawns a *spare* task for each stuck one, from its own thread, which also
//! makes sure that some worker of tokio looks after the timers. A spare is as any other task, but
//! ends when it has nothing to do and fewer tasks are stuck than there are spares. There are as many
//! spares as tasks, no more.
//!
//! # The end
//! [`Scheduler::close`] lets the tasks return. If the runtime goes away first, the tasks are
//! dropped, and the last one tells its system (`on_last_worker_gone`).

#![allow(
    unsafe_code,
    reason = "a job that counts references costs two locked instructions a hop, a borrowed thread-local some thirty others"
)]

use crate::slot::{Slot, SlotOwner};
use crate::sync::lock;
use crate::watchdog::{Seat, Watch};
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::coop;

/// Actors run from the slot in a row before the queue gets a turn.
const SLOT_RUNS_MAX: u32 = 16;
/// Messages handled in one poll of a scheduler task, if the runtime has only one worker.
const UNITS_PER_POLL: u32 = 512;
/// The same, where [`POLL_TIME_MAX`] holds as well: yielding wakes another worker for nothing.
const UNITS_PER_TIMED_POLL: u32 = 16_384;
/// How long one poll of a scheduler task may last before it yields (between two actors).
const POLL_TIME_MAX: Duration = Duration::from_micros(500);
/// Every so many runs the injector is looked at first.
const INJECTOR_INTERVAL: u32 = 61;

/// Something that runs for one turn.
pub(crate) trait Runnable: Send + Sync + Sized + 'static {
    /// Runs for one turn and says how many messages that were (at least 1). Never panics.
    ///
    /// # Safety
    /// `actor` comes from a [`Job`] of this type, which is used up.
    unsafe fn run(actor: NonNull<()>) -> u32;

    /// Will never run: the scheduler has ended.
    ///
    /// # Safety
    /// As for [`Runnable::run`].
    unsafe fn discard(actor: NonNull<()>);

    const CALLS: Calls = Calls {
        run: Self::run,
        discard: Self::discard,
    };
}

/// The functions of one type of [`Runnable`].
pub(crate) struct Calls {
    run: unsafe fn(NonNull<()>) -> u32,
    discard: unsafe fn(NonNull<()>),
}

/// A runnable actor in a queue, or the right to run it. It does not keep the actor there: what the
/// actor is to run does that ([`Job::new`]).
pub(crate) struct Job {
    actor: NonNull<()>,
    calls: &'static Calls,
}

// SAFETY: whoever has the job may touch the actor, which is `Send` and `Sync` (`Job::new`).
unsafe impl Send for Job {}

impl Job {
    /// # Safety
    /// The caller has the actor's token, and gives it away with the job. What is to be run holds a
    /// reference to `actor` for as long as the job is in a queue, and at least until it was run.
    #[inline]
    pub(crate) unsafe fn new<T: Runnable>(actor: &Arc<T>) -> Self {
        // Of the whole allocation, so that an `Arc` can be made of it again.
        let actor = Arc::as_ptr(actor).cast_mut().cast();
        Self {
            // SAFETY: an `Arc` is never null.
            actor: unsafe { NonNull::new_unchecked(actor) },
            calls: &T::CALLS,
        }
    }

    #[inline]
    pub(crate) fn run(self) -> u32 {
        // SAFETY: of the type that it was made for, and used up here.
        unsafe { (self.calls.run)(self.actor) }
    }

    fn discard(self) {
        // SAFETY: as above.
        unsafe { (self.calls.discard)(self.actor) }
    }

    /// By which the watchdog finds out whose job it is.
    #[inline]
    fn address(&self) -> usize {
        self.actor.as_ptr().addr()
    }
}

type OnLastGone = Arc<dyn Fn() + Send + Sync>;

/// What others see of a worker task.
struct Post {
    queue: Stealer<Job>,
    slot: Arc<Slot<Job>>,
    seat: Arc<Seat>,
}

/// Spare tasks.
struct Spares {
    /// Of those that do not exist now, by index.
    idle: Vec<(usize, Local)>,
    /// How many there should be.
    wanted: usize,
}

pub(crate) struct Scheduler {
    injector: Injector<Job>,
    /// What others see of each task; the second half are those of spares.
    posts: Box<[Post]>,
    /// Tasks that always exist.
    regular: usize,
    spares: Mutex<Spares>,
    /// Spares that exist.
    spares_out: AtomicUsize,
    watch: Arc<Watch>,
    on_last_worker_gone: OnLastGone,
    sleepers: Mutex<Vec<(usize, Waker)>>,
    sleeping: AtomicUsize,
    closed: AtomicBool,
    /// Worker tasks that exist.
    workers: AtomicUsize,
}

impl Scheduler {
    /// A scheduler with `workers` tasks, which the caller spawns.
    pub(crate) fn new(
        workers: usize,
        on_last_worker_gone: OnLastGone,
    ) -> (Arc<Self>, Vec<WorkerTask>) {
        // Nobody could help a single worker.
        let all = if workers > 1 { 2 * workers } else { workers };
        let (posts, owners): (Vec<_>, Vec<_>) = (0..all)
            .map(|_| {
                let queue = Worker::new_fifo();
                let (owner, slot) = Slot::new();
                let post = Post {
                    queue: queue.stealer(),
                    slot,
                    seat: Arc::default(),
                };
                (post, (queue, owner))
            })
            .unzip();
        let scheduler = Arc::new(Self {
            injector: Injector::new(),
            posts: posts.into(),
            regular: workers,
            spares: Mutex::new(Spares {
                idle: Vec::with_capacity(all - workers),
                wanted: 0,
            }),
            spares_out: AtomicUsize::new(0),
            watch: Arc::default(),
            on_last_worker_gone,
            sleepers: Mutex::new(Vec::with_capacity(all)),
            sleeping: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            workers: AtomicUsize::new(workers),
        });
        let id = scheduler.id();
        let mut locals = owners.into_iter().enumerate().map(|(index, it)| {
            let (queue, slot) = it;
            let local = Local {
                scheduler: id,
                queue,
                slot,
            };
            (index, local)
        });
        let tasks = (locals.by_ref().take(workers))
            .map(|(index, local)| WorkerTask::new(&scheduler, index, local));
        let tasks = tasks.collect();
        lock(&scheduler.spares).idle.extend(locals);
        (scheduler, tasks)
    }

    /// Makes `job` run soon, in the slot if this thread runs actors of this scheduler.
    pub(crate) fn schedule(&self, job: Job) {
        self.place(job, |local, job| local.slot.replace(job));
    }

    /// Makes `job` run after those that wait already.
    pub(crate) fn schedule_last(&self, job: Job) {
        self.place(job, |_, job| Some(job));
    }

    /// Runs `job` here and now, if this thread serves the runtime behind `handle` and is not in the
    /// midst of another actor; else makes it run soon.
    ///
    /// For somebody who will wait for what the job does: waking a task for it, and being woken by
    /// it, costs several times what most jobs need. With one worker nothing runs early, so that the
    /// order of events stays what the queues say.
    ///
    /// `prepare` is called before it runs here.
    pub(crate) fn run_here(&self, handle: &Handle, job: Job, prepare: impl FnOnce()) {
        let may = self.regular > 1
            && !self.closed.load(SeqCst)
            && !HERE.get()
            && CURRENT.get().is_none()
            && Handle::try_current().is_ok_and(|current| current.id() == handle.id());
        if !may {
            return self.schedule(job);
        }
        prepare();
        HERE.set(true);
        // It never panics, so the mark is always taken back.
        self.watch.as_guest(job.address(), || _ = job.run());
        HERE.set(false);
    }

    /// Puts `job` where `choose` says: what it returns goes to the queue.
    fn place(&self, job: Job, choose: impl FnOnce(&mut Local, Job) -> Option<Job>) {
        let local = current().filter(|local| local.scheduler == self.id());
        let Some(local) = local else {
            return self.inject(job);
        };
        if let Some(job) = choose(local, job) {
            local.queue.push(job);
            self.wake_one();
        }
    }

    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Where worker tasks say what they run.
    pub(crate) fn seats(&self) -> impl Iterator<Item = Arc<Seat>> {
        self.posts.iter().map(|post| post.seat.clone())
    }

    /// The actor in the slot of this task is for others: the task is stuck.
    pub(crate) fn rescue(&self, index: usize) {
        if let Some(job) = self.posts.get(index).and_then(|post| post.slot.rescue()) {
            self.inject(job);
        }
    }

    /// So many threads are stuck. Called from a thread that is none of the runtime's, so that what
    /// is spawned here gets to a worker that is not.
    pub(crate) fn help(self: &Arc<Self>, handle: &Handle, stuck: usize) {
        let spares = {
            let mut spares = lock(&self.spares);
            spares.wanted = stuck;
            let missing = stuck.saturating_sub(self.spares_out.load(SeqCst));
            let from = spares.idle.len() - missing.min(spares.idle.len());
            let begun = spares.idle.split_off(from);
            self.spares_out.fetch_add(begun.len(), SeqCst);
            begun
        };
        for (index, local) in spares {
            // It is dropped at once where the runtime is gone.
            self.workers.fetch_add(1, SeqCst);
            drop(handle.spawn(WorkerTask::new(self, index, local)));
        }
        // Also if no actor is stuck: a task that was woken by a task of users lies with that task's
        // thread alone, which may be blocked by now.
        if self.has_work() {
            self.wake_one();
        }
        if self.spares_out.load(SeqCst) > stuck {
            self.wake_spares();
        }
    }

    /// Lets spares see that they may not be wanted any more.
    fn wake_spares(&self) {
        let woken: Vec<_> = {
            let mut sleepers = lock(&self.sleepers);
            let woken = sleepers.extract_if(.., |(index, _)| *index >= self.regular);
            let woken = woken.collect();
            self.sleeping.store(sleepers.len(), SeqCst);
            woken
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Whether the task, which has nothing to do, is a spare that shall end.
    fn retires(&self, index: usize) -> bool {
        index >= self.regular && lock(&self.spares).wanted < self.spares_out.load(SeqCst)
    }

    fn inject(&self, job: Job) {
        self.injector.push(job);
        // Also if the task that is woken here does not get to run: see `help`.
        self.watch.somebody_runs();
        self.wake_one();
        if self.closed.load(SeqCst) {
            self.discard();
        }
    }

    /// Lets all worker tasks return as soon as they are polled again.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.watch.close();
        let sleepers = std::mem::take(&mut *lock(&self.sleepers));
        self.sleeping.store(0, SeqCst);
        for (_, waker) in sleepers {
            waker.wake();
        }
    }

    /// Drops what waits to run: nobody will run it.
    fn discard(&self) {
        let steal_all = |steal: &dyn Fn() -> Steal<Job>| {
            loop {
                match steal() {
                    Steal::Success(job) => job.discard(),
                    Steal::Retry => {}
                    Steal::Empty => break,
                }
            }
        };
        steal_all(&|| self.injector.steal());
    }

    fn wake_one(&self) {
        fence(SeqCst);
        if self.sleeping.load(SeqCst) == 0 {
            return;
        }
        let woken = {
            let mut sleepers = lock(&self.sleepers);
            let woken = sleepers.pop();
            self.sleeping.store(sleepers.len(), SeqCst);
            woken
        };
        if let Some((_, waker)) = woken {
            waker.wake();
        }
    }

    fn add_sleeper(&self, index: usize, waker: &Waker) {
        let mut sleepers = lock(&self.sleepers);
        sleepers.push((index, waker.clone()));
        self.sleeping.store(sleepers.len(), SeqCst);
    }

    fn remove_sleeper(&self, index: usize) {
        let mut sleepers = lock(&self.sleepers);
        sleepers.retain(|(sleeper, _)| *sleeper != index);
        self.sleeping.store(sleepers.len(), SeqCst);
    }

    fn has_work(&self) -> bool {
        !self.injector.is_empty() || self.at_work().any(|(_, queue)| !queue.is_empty())
    }

    /// The queues of all tasks that exist.
    fn at_work(&self) -> impl Iterator<Item = (usize, &Stealer<Job>)> {
        let known = match self.spares_out.load(SeqCst) {
            0 => self.regular,
            _ => self.posts.len(),
        };
        let queues = self.posts.iter().take(known).map(|post| &post.queue);
        queues.enumerate()
    }

    /// Takes work from the injector or from another task, into `queue`.
    fn steal(&self, index: usize, queue: &Worker<Job>) -> Option<Job> {
        loop {
            let mut retry = false;
            let others = self.at_work().filter(|(other, _)| *other != index);
            let sources = std::iter::once(self.injector.steal_batch_and_pop(queue))
                .chain(others.map(|(_, other)| other.steal_batch_and_pop(queue)));
            for stolen in sources {
                match stolen {
                    Steal::Success(job) => return Some(job),
                    Steal::Retry => retry = true,
                    Steal::Empty => {}
                }
            }
            if !retry {
                return None;
            }
        }
    }

    /// Tells schedulers apart, so that systems in one process do not run each other's actors.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// What belongs to one worker task: moved to the thread that polls it.
struct Local {
    scheduler: usize,
    queue: Worker<Job>,
    slot: SlotOwner<Job>,
}

impl Local {
    fn discard(&mut self) {
        while let Some(job) = self.slot.take().or_else(|| self.queue.pop()) {
            job.discard();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.discard();
    }
}

thread_local! {
    /// Whether this thread runs an actor for somebody who waits for it ([`Scheduler::run_here`]).
    static HERE: Cell<bool> = const { Cell::new(false) };
    /// The queues of the worker task that this thread polls right now: see `current`.
    static CURRENT: Cell<Option<NonNull<Local>>> = const { Cell::new(None) };
}

/// The queues of the worker task that this thread polls right now. Nobody keeps what this returns
/// while somebody else's code runs.
#[inline]
fn current<'a>() -> Option<&'a mut Local> {
    // SAFETY: `Entered` has put it there, and takes it away before the task can move or go. Only this
    // thread finds it, and uses of it do not overlap, since none of them calls back.
    CURRENT.get().map(|mut local| unsafe { local.as_mut() })
}

/// Makes a task's queues those of this thread while it lives. Which these were before comes back after
/// it: a handler may run a system of its own inside `block_in_place`.
struct Entered<'a> {
    before: Option<NonNull<Local>>,
    home: PhantomData<&'a mut Local>,
}

impl<'a> Entered<'a> {
    fn new(home: &'a mut Local) -> Self {
        let before = CURRENT.replace(Some(NonNull::from(home)));
        let home = PhantomData;
        Self { before, home }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The task that runs actors on one worker of the runtime.
pub(crate) struct WorkerTask {
    scheduler: Arc<Scheduler>,
    index: usize,
    local: Option<Local>,
    ticks: u32,
}

impl WorkerTask {
    fn new(scheduler: &Arc<Scheduler>, index: usize, local: Local) -> Self {
        Self {
            scheduler: scheduler.clone(),
            index,
            local: Some(local),
            ticks: 0,
        }
    }
}

impl Future for WorkerTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let scheduler = this.scheduler.clone();
        scheduler.remove_sleeper(this.index);
        let Some(local) = &mut this.local else {
            return Poll::Ready(());
        };
        let entered = Entered::new(local);
        scheduler.watch.somebody_runs();
        let ended = run_until_idle(&scheduler, this.index, &mut this.ticks, cx);
        scheduler.posts[this.index].seat.rest();
        drop(entered);
        ended
    }
}

impl Drop for WorkerTask {
    fn drop(&mut self) {
        self.scheduler.remove_sleeper(self.index);
        if self.index >= self.scheduler.regular
            && let Some(mut local) = self.local.take()
        {
            // What it may still hold, if the runtime has dropped it, is found by nobody else.
            local.discard();
            let mut spares = lock(&self.scheduler.spares);
            spares.idle.push((self.index, local));
            self.scheduler.spares_out.fetch_sub(1, SeqCst);
        }
        if self.scheduler.workers.fetch_sub(1, SeqCst) == 1 {
            self.scheduler.closed.store(true, SeqCst);
            (self.scheduler.on_last_worker_gone)();
            self.scheduler.discard();
        }
    }
}

fn run_until_idle(
    scheduler: &Scheduler,
    index: usize,
    ticks: &mut u32,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let seat = &*scheduler.posts[index].seat;
    let begun = (scheduler.regular > 1).then(Instant::now);
    let units_max = begun.map_or(UNITS_PER_POLL, |_| UNITS_PER_TIMED_POLL);
    let (mut units, mut slot_runs, mut next_look) = (0, 0, 32);
    loop {
        if scheduler.closed.load(SeqCst) {
            return Poll::Ready(());
        }
        *ticks = ticks.wrapping_add(1);
        let Some(job) = next_job(scheduler, index, *ticks, &mut slot_runs) else {
            if scheduler.retires(index) {
                return Poll::Ready(());
            }
            scheduler.add_sleeper(index, cx.waker());
            fence(SeqCst);
            if scheduler.has_work() || scheduler.closed.load(SeqCst) {
                scheduler.remove_sleeper(index);
                continue;
            }
            return Poll::Pending;
        };
        seat.begin(job.address());
        units += job.run();
        let too_long = units >= next_look && {
            next_look = units + 32;
            begun.is_some_and(|begun| begun.elapsed() >= POLL_TIME_MAX)
        };
        if units >= units_max || too_long || !coop::has_budget_remaining() {
            release_slot();
            // Leaves a wake-up behind that tokio serves after its driver and other tasks.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
    }
}

#[inline]
fn next_job(scheduler: &Scheduler, index: usize, ticks: u32, slot_runs: &mut u32) -> Option<Job> {
    let local = current()?;
    if *slot_runs < SLOT_RUNS_MAX
        && let Some(job) = local.slot.take()
    {
        *slot_runs += 1;
        return Some(job);
    }
    *slot_runs = 0;
    if let Some(job) = local.slot.take() {
        local.queue.push(job);
    }
    if ticks.is_multiple_of(INJECTOR_INTERVAL)
        && let Steal::Success(job) = scheduler.injector.steal()
    {
        return Some(job);
    }
    local.queue.pop().or_else(|| {
        let stolen = scheduler.steal(index, &local.queue);
        if !local.queue.is_empty() {
            // While a batch moves it is in no queue: whoever was woken for it may have found nothing.
            scheduler.wake_one();
        }
        stolen
    })
}

/// Makes the actor in the slot available to other tasks.
fn release_slot() {
    if let Some(local) = current()
        && let Some(job) = local.slot.take()
    {
        local.queue.push(job);
    }
}
