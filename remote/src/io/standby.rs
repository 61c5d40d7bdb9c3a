//! Standby: a thread that polls the tasks a node lives by, while the runtime's threads do not.
//!
//! # The problem
//! User code may hold every worker of the runtime for seconds: a loop, a lock, blocking input. The
//! node then answers no heartbeat, acknowledges no packet, and its peers take it for dead, although
//! it is only rude. Actors that lose their home for that are worse than the wait.
//!
//! # The ways not taken
//! Sockets and heartbeats on a runtime of their own would be safe, but each message then changes the
//! thread twice on each side: measured, a round trip took two and a half times as long. A second
//! connection for heartbeats alone needs a second port, and says nothing about the first.
//!
//! # What is done
//! The tasks stay where they are fast, on the runtime. Each lies behind a lock of its own, and
//! whoever holds the lock may poll it: the runtime, or the thread of this module. The thread looks
//! twenty times a second, and steps in
//! - for all tasks, when the runtime has not run a timer for [`LATE`]: nobody looks at sockets and
//!   timers then, so the thread polls every few milliseconds, and what it polls reads sockets and
//!   clocks itself ([`here`]);
//! - for one task, when it was woken so long ago and not polled. tokio keeps the task that was woken
//!   last for the worker that woke it, and that one may be held.
//!
//! When the runtime is back it finds everything as it would have left it.
//!
//! # What a lock of its own is good for besides
//! Whoever wakes such a task may poll it on the spot ([`poll_what_it_wakes`]). For a message that
//! somebody waits for this saves the way through tokio's queues, where the fourth task in a row that
//! wakes another one also wakes a second thread for it.
//!
//! **Invariant:** what reads messages of users and what runs actors is not among the tasks, so no
//! such code can hold this thread. Callbacks of watchers, which must be short wherever they run, may
//! be called on it.
//!
//! There is no such thread on a runtime with one thread: there nobody else is to run anything, and a
//! simulation depends on nothing but its seed.

use futures_util::future::BoxFuture;
use otava_actor::{ActorSystem, Time};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

/// How often the thread looks, and the runtime shows that it runs.
const LOOK: Duration = Duration::from_millis(50);
/// How long a task or the runtime may be behind before the thread steps in.
const LATE: Duration = Duration::from_millis(150);
/// How often the thread polls while it stands in.
const STAND_IN: Duration = Duration::from_millis(5);

/// How many tasks are polled on the spot in a row: the writer of a lane, then the connection.
const ON_THE_SPOT_MAX: usize = 2;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
    /// Tasks that were woken on this thread and are to be polled on the spot; `None` if none are.
    static WOKEN: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Whether this is the thread that stands in: it must look at clocks and sockets itself, because
/// nobody else does.
pub(crate) fn here() -> bool {
    HERE.get()
}

/// Runs `run`, then polls here the tasks of a [`Standby`] that it has woken, and those that they wake:
/// [`ON_THE_SPOT_MAX`] of them, the runtime the rest. To be called where no lock is held that such a
/// task may want.
pub(crate) fn poll_what_it_wakes<T>(run: impl FnOnce() -> T) -> T {
    /// Also after a panic in `run`.
    struct Rest;
    impl Drop for Rest {
        fn drop(&mut self) {
            for task in WOKEN.take().into_iter().flatten() {
                task.wake_runtime();
            }
        }
    }
    let nested = WOKEN.with_borrow(Option::is_some);
    if nested || here() {
        return run();
    }
    WOKEN.set(Some(VecDeque::new()));
    let rest = Rest;
    let result = run();
    for _ in 0..ON_THE_SPOT_MAX {
        let next = WOKEN.with_borrow_mut(|woken| woken.as_mut()?.pop_front());
        let Some(task) = next else { break };
        if !task.poll_here() {
            task.wake_runtime();
        }
    }
    drop(rest);
    result
}

/// Waits until `time`, also where the runtime's timers do not run.
pub(crate) async fn sleep_until(system: &ActorSystem, time: Time) {
    let mut sleep = pin!(system.sleep_until(time));
    poll_fn(|cx| {
        if here() && system.now() >= time {
            return Poll::Ready(());
        }
        sleep.as_mut().poll(cx)
    })
    .await;
}

/// The thread of one node, and the tasks that it may poll.
#[derive(Clone, Debug)]
pub(crate) struct Standby {
    /// `None` on a runtime with one thread.
    watch: Option<Arc<Watch>>,
    runtime: Handle,
}

#[derive(Debug)]
struct Watch {
    tasks: Mutex<BTreeMap<u64, Arc<Task>>>,
    next: AtomicU64,
    time: Arc<Clock>,
    /// When the runtime last ran a timer.
    seen: AtomicU64,
    /// The runtime has ended.
    over: AtomicBool,
}

/// Milliseconds since the start, from 1, as the thread last saw them.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Standby {
    /// Starts the thread, on a runtime with several.
    pub(crate) fn start(runtime: &Handle) -> Self {
        let several = runtime.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let watch = several.then(|| {
            Arc::new(Watch {
                tasks: Mutex::default(),
                next: AtomicU64::new(0),
                time: Arc::new(Clock(AtomicU64::new(1))),
                seen: AtomicU64::new(1),
                over: AtomicBool::new(false),
            })
        });
        let started = watch.filter(|watch| {
            let (weak, handle) = (Arc::downgrade(watch), runtime.clone());
            let thread = std::thread::Builder::new().name("otava-standby".to_owned());
            let spawned = thread.spawn(move || stand_by(&weak, &handle));
            if let Err(error) = &spawned {
                tracing::warn!(%error, "no thread stands in when user code blocks the others");
            }
            spawned.is_ok()
        });
        if let Some(watch) = &started {
            runtime.spawn(show_life(Arc::downgrade(watch)));
        }
        Self {
            watch: started,
            runtime: runtime.clone(),
        }
    }

    /// The same work as a future that goes on while the runtime's threads are held, once it was
    /// spawned. It must never block, and run no code of users.
    pub(crate) fn keep(&self, work: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        match &self.watch {
            Some(watch) => Box::pin(Kept::new(watch, work)),
            None => work,
        }
    }

    /// Spawns such a task.
    pub(crate) fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.runtime.spawn(self.keep(work));
    }
}

/// Shows the thread that the runtime runs timers.
async fn show_life(watch: Weak<Watch>) {
    struct Over(Weak<Watch>);
    impl Drop for Over {
        fn drop(&mut self) {
            if let Some(watch) = self.0.upgrade() {
                watch.over.store(true, Ordering::Relaxed);
            }
        }
    }
    let over = Over(watch);
    while let Some(watch) = over.0.upgrade() {
        watch.seen.store(watch.time.now(), Ordering::Relaxed);
        drop(watch);
        tokio::time::sleep(LOOK).await;
    }
}

/// The thread.
fn stand_by(watch: &Weak<Watch>, runtime: &Handle) {
    let _entered = runtime.enter();
    HERE.set(true);
    let started = Instant::now();
    let mut pause = LOOK;
    let mut stalled_before = false;
    loop {
        std::thread::park_timeout(pause);
        let Some(watch) = watch.upgrade() else { return };
        if watch.over.load(Ordering::Relaxed) {
            return;
        }
        let now = started.elapsed().as_millis() as u64 + 1;
        watch.time.0.store(now, Ordering::Relaxed);
        let late = LATE.as_millis() as u64;
        let stalled = now.saturating_sub(watch.seen.load(Ordering::Relaxed)) > late;
        if stalled != stalled_before {
            log(stalled);
            stalled_before = stalled;
        }
        let due: Vec<Arc<Task>> = {
            let tasks = lock(&watch.tasks);
            let due = |task: &&Arc<Task>| stalled || task.waits_since(now, late);
            tasks.values().filter(due).cloned().collect()
        };
        pause = if due.is_empty() { LOOK } else { STAND_IN };
        for task in due {
            task.poll_here();
        }
    }
}

fn log(stalled: bool) {
    if stalled {
        tracing::warn!("user code holds every thread of the runtime; the node's own tasks go on");
    } else {
        tracing::info!("the runtime's threads are back");
    }
}

/// A task that both may poll.
struct Task {
    state: Mutex<State>,
    /// Of the runtime's task.
    waker: Mutex<Option<Waker>>,
    /// When it was woken, if it was not polled since; else 0.
    woken: AtomicU64,
    time: Arc<Clock>,
}

#[derive(Default)]
struct State {
    work: Option<BoxFuture<'static, ()>>,
    /// How it ended on this thread, for the runtime to see.
    ended: Option<Result<(), Box<dyn Any + Send>>>,
}

impl Task {
    fn waits_since(&self, now: u64, late: u64) -> bool {
        let woken = self.woken.load(Ordering::Relaxed);
        woken != 0 && now.saturating_sub(woken) > late
    }

    /// Polls it in place of the runtime, which is woken if that was the end of it. `false`: somebody
    /// else is polling it.
    fn poll_here(self: &Arc<Self>) -> bool {
        let Ok(mut state) = self.state.try_lock() else {
            return false;
        };
        self.woken.store(0, Ordering::Relaxed);
        let Some(work) = state.work.as_mut() else {
            return true;
        };
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        // What it touched is dropped with it.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
        let ended = match polled {
            Ok(Poll::Pending) => return true,
            Ok(Poll::Ready(())) => Ok(()),
            Err(panic) => Err(panic),
        };
        let work = state.work.take();
        state.ended = Some(ended);
        drop(state);
        drop(work);
        self.wake_runtime();
        true
    }

    fn wake_runtime(&self) {
        let waker = lock(&self.waker);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let now = self.time.now();
        let _ = self
            .woken
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        // An error: this thread is ending.
        let noted = WOKEN.try_with(|woken| {
            let mut woken = woken.borrow_mut();
            woken.as_mut().map(|woken| woken.push_back(self.clone()))
        });
        if !matches!(noted, Ok(Some(()))) {
            self.wake_runtime();
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

/// The runtime's side of a task.
struct Kept {
    task: Arc<Task>,
    waker: Waker,
    number: u64,
    watch: Arc<Watch>,
}

impl Kept {
    fn new(watch: &Arc<Watch>, work: BoxFuture<'static, ()>) -> Self {
        let task = Arc::new(Task {
            state: Mutex::new(State {
                work: Some(work),
                ended: None,
            }),
            waker: Mutex::default(),
            woken: AtomicU64::new(0),
            time: watch.time.clone(),
        });
        let number = watch.next.fetch_add(1, Ordering::Relaxed);
        lock(&watch.tasks).insert(number, task.clone());
        Self {
            waker: Waker::from(task.clone()),
            task,
            number,
            watch: watch.clone(),
        }
    }
}

impl Future for Kept {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &*self;
        {
            let mut waker = lock(&this.task.waker);
            if !waker
                .as_ref()
                .is_some_and(|known| known.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        let mut state = lock(&this.task.state);
        this.task.woken.store(0, Ordering::Relaxed);
        if let Some(ended) = state.ended.take() {
            drop(state);
            return match ended {
                Ok(()) => Poll::Ready(()),
                Err(panic) => resume_unwind(panic),
            };
        }
        let mut own = Context::from_waker(&this.waker);
        match state.work.as_mut() {
            Some(work) => work.as_mut().poll(&mut own),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        lock(&self.watch.tasks).remove(&self.number);
        let work = lock(&self.task.state).work.take();
        drop(work);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::ThreadId;
    use tokio::runtime::Runtime;
    use tokio::sync::Notify;

    /// tokio keeps the task that was woken last for the worker that woke it. That one is held here,
    /// and the other one may not help.
    #[test]
    fn a_task_that_waits_for_a_held_thread_is_polled() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let standby = Standby::start(runtime.handle());
        let (wake, waiting) = (Arc::new(Notify::new()), mpsc::channel());
        let (done, is_done) = mpsc::channel();
        let woken = wake.clone();
        standby.spawn(Box::pin(async move {
            let mut notified = pin!(woken.notified());
            notified.as_mut().enable();
            waiting.0.send(()).unwrap();
            notified.await;
            done.send(()).unwrap();
        }));
        waiting.1.recv().unwrap();
        let (release, held) = mpsc::channel::<()>();
        runtime.spawn(async move {
            wake.notify_one();
            // Until it is dropped.
            let _ = held.recv();
        });
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(release);
    }

    /// A runtime with two workers, a standby, and a task of it that counts how often it was woken.
    fn counting() -> (Runtime, Arc<Notify>, Arc<Mutex<Vec<ThreadId>>>) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let standby = Standby::start(runtime.handle());
        let (wake, polled_by) = (Arc::new(Notify::new()), Arc::<Mutex<Vec<_>>>::default());
        let (woken, noted) = (wake.clone(), polled_by.clone());
        let (waits, is_waiting) = mpsc::channel();
        standby.spawn(Box::pin(async move {
            loop {
                let mut notified = pin!(woken.notified());
                notified.as_mut().enable();
                let _ = waits.send(());
                notified.await;
                lock(&noted).push(std::thread::current().id());
            }
        }));
        is_waiting.recv().unwrap();
        // Until its first poll is over nobody else gets it.
        while standby.watch.as_ref().is_some_and(|watch| {
            let tasks = lock(&watch.tasks);
            tasks.values().any(|task| task.state.try_lock().is_err())
        }) {
            std::thread::yield_now();
        }
        (runtime, wake, polled_by)
    }

    #[test]
    fn a_task_is_polled_where_it_was_woken() {
        let (_runtime, wake, polled_by) = counting();
        let here = std::thread::current().id();
        for times in 1..=3 {
            let result = poll_what_it_wakes(|| {
                poll_what_it_wakes(|| wake.notify_one());
                assert_eq!(lock(&polled_by).len(), times - 1);
                "done"
            });
            assert_eq!(result, "done");
            assert_eq!(*lock(&polled_by), vec![here; times]);
        }
    }

    #[test]
    fn a_task_that_was_woken_before_a_panic_is_left_to_the_runtime() {
        let (_runtime, wake, polled_by) = counting();
        let panics = || {
            poll_what_it_wakes(|| {
                wake.notify_one();
                panic!("on purpose");
            });
        };
        assert!(catch_unwind(panics).is_err());
        let since = Instant::now();
        while lock(&polled_by).is_empty() {
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        assert_ne!(lock(&polled_by)[0], std::thread::current().id());
    }

    /// A panic on this thread is one of the task, as it would be anywhere.
    #[test]
    fn a_panic_ends_the_task_and_not_the_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let standby = Standby::start(runtime.handle());
        let wake = Arc::new(Notify::new());
        let woken = wake.clone();
        let work = standby.keep(Box::pin(async move {
            woken.notified().await;
            panic!("on purpose");
        }));
        let task = runtime.spawn(work);
        let (release, held) = mpsc::channel::<()>();
        let (holds, is_held) = mpsc::channel();
        runtime.spawn(async move {
            holds.send(()).unwrap();
            let _ = held.recv();
        });
        is_held.recv().unwrap();
        wake.notify_one();
        let watch = standby.watch.clone().unwrap();
        let ended = || {
            let tasks = lock(&watch.tasks);
            tasks.values().any(|task| lock(&task.state).ended.is_some())
        };
        let since = Instant::now();
        while !ended() {
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        drop(release);
        assert!(runtime.block_on(task).unwrap_err().is_panic());
    }
}
