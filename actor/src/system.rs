//! ActorSystem: the root of one tree of actors, its clock, its randomness, and its end.

use crate::actor::Actor;
use crate::actor_ref::{ActorRef, Target};
use crate::cell::{Above, Cell, Identity, Node};
use crate::context::Context;
use crate::dead_letters::DeadLetters;
use crate::error::SpawnError;
use crate::family::Refused;
use crate::life::Life;
use crate::mailbox::{Order, Phase};
use crate::observe::Observer;
use crate::observe::metrics::SystemMetrics;
use crate::path::{ActorPath, is_valid_name};
use crate::props::{MailboxKind, Props};
use crate::rng::Rng;
use crate::scheduler::Scheduler;
use crate::sync::{Apart, lock};
use crate::time::{Clock, Time};
use crate::top::Top;
#[cfg(feature = "testkit")]
use crate::tree::ActorState;
use crate::tree::{TREE_ACTORS_MAX, Tree};
use crate::wait_graph::WaitGraph;
use crate::watchdog::{self, Watchdog};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How many messages wait in a mailbox unless configured otherwise.
const MAILBOX_CAPACITY_DEFAULT: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not zero");
/// How long a shutdown waits unless configured otherwise.
const SHUTDOWN_LIMIT_DEFAULT: Duration = Duration::from_secs(10);
/// How many blocked actors a shutdown names in the log.
const BLOCKED_NAMED_MAX: usize = 20;

/// A tree of actors on one tokio runtime. A handle, cheap to clone.
///
/// Nothing is shared between systems: a process may hold any number of them.
///
/// When the last handle is dropped, all actors are stopped as by [`ActorSystem::shutdown`], in the
/// background and without a limit. Handles that come from [`crate::Context::system`] count.
#[derive(Clone)]
pub struct ActorSystem {
    core: Arc<Core>,
    /// `None` for a handle that an actor got after the last handle outside was gone.
    _lifeline: Option<Arc<Lifeline>>,
}

impl ActorSystem {
    /// A system with default settings.
    ///
    /// # Panics
    /// As [`SystemBuilder::build`].
    pub fn new(name: &str) -> Self {
        Self::builder(name).build()
    }

    /// Sets up a system. Its name is the first part of the paths of its actors.
    pub fn builder(name: &str) -> SystemBuilder {
        SystemBuilder {
            name: ActorPath::new(name),
            seed: 0,
            capacity: MAILBOX_CAPACITY_DEFAULT,
            shutdown_limit: SHUTDOWN_LIMIT_DEFAULT,
            metrics: false,
            watchdog: Watchdog::default(),
        }
    }

    /// Starts an actor at the top of the tree.
    ///
    /// # Errors
    /// [`SpawnError::BadName`]; [`SpawnError::NameTaken`] by a living actor at the top;
    /// [`SpawnError::Stopping`] once a shutdown has begun, or the runtime is gone.
    pub fn spawn<A: Actor>(&self, name: &str, actor: A) -> Result<ActorRef<A::Msg>, SpawnError> {
        self.spawn_with(name, Props::once(actor))
    }

    /// Starts an actor at the top of the tree from a recipe.
    ///
    /// # Errors
    /// As for [`ActorSystem::spawn`], and [`SpawnError::NoFactory`].
    pub fn spawn_with<A: Actor>(
        &self,
        name: &str,
        props: Props<A>,
    ) -> Result<ActorRef<A::Msg>, SpawnError> {
        self.core.spawn(None, Some(name), props)
    }

    /// Starts an actor at the top of the tree, with a made-up name that begins with `$`.
    ///
    /// # Errors
    /// [`SpawnError::Stopping`], [`SpawnError::NoFactory`].
    pub fn spawn_anonymous<A: Actor>(
        &self,
        props: Props<A>,
    ) -> Result<ActorRef<A::Msg>, SpawnError> {
        self.core.spawn(None, None, props)
    }

    /// The system's name.
    pub fn name(&self) -> &str {
        self.core.name.as_str()
    }

    /// The time since the system was built: tokio's clock, so a paused runtime pauses it.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    /// Waits until `time` on the system's clock.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn sleep_until(&self, time: Time) {
        tokio::time::sleep_until(self.core.clock.instant(time)).await;
    }

    /// A random generator of its own, split off from the system's seed: the n-th one handed out is
    /// the same in every run with that seed.
    pub fn rng(&self) -> Rng {
        lock(&self.core.rng).fork()
    }

    /// What could not be delivered.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.core.dead_letters
    }

    /// How many asks are awaited in handlers at this moment; for tests that look for leaks.
    pub fn waiting_asks(&self) -> usize {
        self.core.waits.len()
    }

    /// The tokio runtime on which the actors run.
    pub fn handle(&self) -> &Handle {
        &self.core.handle
    }

    /// The paths of all living actors, sorted. Takes a walk through the whole tree.
    pub fn actors(&self) -> Vec<ActorPath> {
        let mut paths: Vec<ActorPath> = self
            .core
            .living()
            .iter()
            .map(|actor| actor.path().clone())
            .collect();
        paths.sort();
        paths
    }

    /// A picture of the living actors: what each one does and how much waits for it. At most
    /// [`crate::tree::TREE_ACTORS_MAX`] of them, the high ones first; printing it gives an indented
    /// tree. Taking it stops nobody.
    ///
    /// ```
    /// # use otava_actor::ActorSystem;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let system = ActorSystem::new("shop");
    /// println!("{}", system.tree());
    /// # }
    /// ```
    pub fn tree(&self) -> Tree {
        self.tree_up_to(TREE_ACTORS_MAX)
    }

    /// As [`ActorSystem::tree`], with at most `limit` actors.
    pub fn tree_up_to(&self, limit: usize) -> Tree {
        let top = self.core.top.first(limit);
        Tree::take(self.core.name.clone(), top, limit)
    }

    /// Stops all actors, children before their parents, and waits until they have ended, but no
    /// longer than the system's limit (10 seconds by default). Actors that have not ended by then
    /// are named in a warning and in the result, and are ended from outside: pending handlers are
    /// dropped, hooks of theirs do not run. From the first call on nothing can be spawned.
    ///
    /// Not to be awaited in a handler of the same system: it would wait for itself.
    ///
    /// # Cancel safety
    /// Dropped, it no longer waits, but the actors stop nevertheless, without a limit.
    pub async fn shutdown(&self) -> Shutdown {
        let mut ended = self.core.ended.subscribe();
        self.core.begin_stop();
        let all_ended = ended.wait_for(|ended| *ended);
        // An error would mean that the system is gone, which this handle prevents.
        if tokio::time::timeout(self.core.shutdown_limit, all_ended)
            .await
            .is_ok()
        {
            return Shutdown {
                blocked: Vec::new(),
            };
        }
        let blocked = self.core.blocked();
        for path in blocked.iter().take(BLOCKED_NAMED_MAX) {
            tracing::warn!(actor = %path, "the actor blocks the shutdown and is given up");
        }
        if blocked.len() > BLOCKED_NAMED_MAX {
            let more = blocked.len() - BLOCKED_NAMED_MAX;
            tracing::warn!(more, "more actors block the shutdown");
        }
        self.core.abandon_all();
        Shutdown { blocked }
    }

    /// Waits until the system has ended: after a shutdown, or when its runtime is gone.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn ended(&self) {
        // An error would mean that the system is gone, which this handle prevents.
        let _ = self.core.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// The paths of the actors that hold their threads for longer than the watchdog allows, now and
    /// as far as it has noticed; sorted. Empty where there is no watchdog.
    pub fn blocked_actors(&self) -> Vec<ActorPath> {
        self.core.scheduler().watch().blocked()
    }

    /// How often so far an actor has held its thread for longer than the watchdog allows.
    pub fn times_blocked(&self) -> u64 {
        self.core.scheduler().watch().episodes()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn of(core: &Arc<Core>) -> Self {
        let lifeline = core.lifeline.get().and_then(Weak::upgrade);
        Self {
            core: core.clone(),
            _lifeline: lifeline,
        }
    }
}

impl fmt::Debug for ActorSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActorSystem").field(&self.name()).finish()
    }
}

/// How a shutdown went.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Shutdown {
    /// The actors that did not end within the limit; of a family only those that kept the others
    /// waiting. Empty if all went well.
    pub blocked: Vec<ActorPath>,
}

/// Settings of a system that is about to start ([`ActorSystem::builder`]).
#[derive(Clone, Debug)]
#[must_use]
pub struct SystemBuilder {
    name: ActorPath,
    seed: u64,
    capacity: NonZeroUsize,
    shutdown_limit: Duration,
    metrics: bool,
    watchdog: Watchdog,
}

impl SystemBuilder {
    /// The seed of all randomness that the system hands out; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many messages may wait in each mailbox; 65,536 by default. [`Props::mailbox_capacity`]
    /// sets it for one actor.
    pub fn mailbox_capacity(mut self, messages: NonZeroUsize) -> Self {
        self.capacity = messages;
        self
    }

    /// How long [`ActorSystem::shutdown`] waits for actors; 10 seconds by default.
    pub fn shutdown_limit(mut self, limit: Duration) -> Self {
        self.shutdown_limit = limit;
        self
    }

    /// Whether actors are counted and timed through the `metrics` facade ([`crate::observe::metrics`]
    /// lists the names); off by default, which costs one branch a message.
    pub fn metrics(mut self, on: bool) -> Self {
        self.metrics = on;
        self
    }

    /// What happens to an actor that holds its thread; by default it is named in the log after one
    /// second. Not on a runtime with one worker: see [`Watchdog`].
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// Starts the system on the tokio runtime of the caller: one scheduler task for each of its
    /// workers, so exactly one on a current-thread runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> ActorSystem {
        let handle = Handle::current();
        // Loom's models run actors themselves, and the scheduler's slots are models too.
        let workers = match cfg!(otava_loom) {
            true => 0,
            false => handle.metrics().num_workers().max(1),
        };
        let clock = Clock::start();
        let metrics = self.metrics.then(|| SystemMetrics::new(self.name.as_str()));
        let core = Arc::new(Core {
            dead_letters: DeadLetters::new(clock, metrics.as_ref()),
            metrics,
            waits: WaitGraph::default(),
            name: self.name,
            clock,
            handle,
            capacity: self.capacity,
            shutdown_limit: self.shutdown_limit,
            extensions: Default::default(),
            rng: Mutex::new(Rng::seeded(self.seed)),
            seed: self.seed,
            numbers: Apart(AtomicU64::new(0)),
            top: Top::default(),
            ended: watch::Sender::new(false),
            scheduler: OnceLock::new(),
            above: OnceLock::new(),
            lifeline: OnceLock::new(),
        });
        let lifeline = Arc::new(Lifeline(Arc::new(Above {
            core: core.clone(),
            parent: None,
        })));
        // The core holds the scheduler, and living actors hold the core.
        let for_workers = Arc::downgrade(&core);
        let last_worker_gone = move || {
            if let Some(core) = for_workers.upgrade() {
                core.abandon_all();
            }
        };
        let (scheduler, tasks) = Scheduler::new(workers, Arc::new(last_worker_gone));
        // Both were empty a moment ago.
        let _ = core.scheduler.set(scheduler);
        let _ = core.above.set(Arc::downgrade(&lifeline.0));
        let _ = core.lifeline.set(Arc::downgrade(&lifeline));
        for task in tasks {
            drop(core.handle.spawn(task));
        }
        if let Watchdog::WarnAfter(limit) = self.watchdog
            && workers > 1
        {
            watchdog::start(&core, limit);
        }
        ActorSystem {
            core,
            _lifeline: Some(lifeline),
        }
    }
}

/// What the handles outside hold; its end begins the end of the system.
struct Lifeline(Arc<Above>);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.core.begin_stop();
    }
}

/// What all actors of one system share. Kept alive by handles and actors.
pub(crate) struct Core {
    name: ActorPath,
    pub(crate) clock: Clock,
    pub(crate) handle: Handle,
    capacity: NonZeroUsize,
    shutdown_limit: Duration,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) waits: WaitGraph,
    metrics: Option<SystemMetrics>,
    pub(crate) extensions: crate::extensions::Extensions,
    rng: Mutex<Rng>,
    seed: u64,
    /// Numbers of actors and of watch registrations.
    numbers: Apart<AtomicU64>,
    top: Top,
    ended: watch::Sender<bool>,
    /// Set once, while the system is built.
    scheduler: OnceLock<Arc<Scheduler>>,
    /// What all actors at the top share, which have it, as the handles outside do.
    above: OnceLock<Weak<Above>>,
    lifeline: OnceLock<Weak<Lifeline>>,
}

impl Core {
    pub(crate) fn scheduler(&self) -> &Arc<Scheduler> {
        self.scheduler
            .get()
            .expect("it is set before anything is spawned")
    }

    /// The path of the top of the tree.
    pub(crate) fn path(&self) -> &ActorPath {
        &self.name
    }

    /// A number that was never given before in this system.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A generator for the actor `uid` alone: what it yields depends on the seed and on nothing that
    /// other actors do.
    pub(crate) fn rng_of(&self, uid: u64) -> Rng {
        let mut mix = Rng::seeded(uid);
        Rng::seeded(self.seed ^ mix.next_u64())
    }

    pub(crate) fn spawn<A: Actor>(
        self: &Arc<Self>,
        parent: Option<Arc<dyn Node>>,
        name: Option<&str>,
        props: Props<A>,
    ) -> Result<ActorRef<A::Msg>, SpawnError> {
        self.spawn_into(parent, name, props, |_| {})
    }

    /// Spawns, and lets `prepare` change the context before the actor's life begins.
    pub(crate) fn spawn_into<A: Actor>(
        self: &Arc<Self>,
        parent: Option<Arc<dyn Node>>,
        name: Option<&str>,
        props: Props<A>,
        prepare: impl FnOnce(&mut Context<A>),
    ) -> Result<ActorRef<A::Msg>, SpawnError> {
        let uid = self.next_number();
        let above = match &parent {
            Some(parent) => Some(parent.clone().above_children()),
            None => self.above.get().and_then(Weak::upgrade),
        };
        let Some(above) = above else {
            // The last handle is gone, so the system stops.
            let path = self.name.child(name.unwrap_or("$"));
            return Err(SpawnError::Stopping { path });
        };
        let path = match name {
            Some(name) if is_valid_name(name) => Some(above.child(Some(name), uid)),
            Some(name) => {
                return Err(SpawnError::BadName {
                    name: name.to_owned(),
                });
            }
            None => None,
        };
        if !props.can_be_supervised() {
            let path = above.child(name, uid);
            return Err(SpawnError::NoFactory { path });
        }
        let capacity = props.capacity.unwrap_or(self.capacity).get();
        let (capacity, order) = match props.mailbox {
            MailboxKind::Queue => (u32::try_from(capacity).unwrap_or(u32::MAX), None),
            MailboxKind::Unbounded => (u32::MAX, None),
            MailboxKind::DropOldest => (u32::MAX, Some(Box::new(Order::drop_oldest(capacity)))),
            MailboxKind::Priority(rank) => {
                (u32::MAX, Some(Box::new(Order::priority(rank, capacity))))
            }
        };
        let identity = Identity::new(above, uid, path);
        let (cell, consumer) = Cell::new(identity, capacity, order);
        let me = ActorRef::from_target(Arc::new(Target::Local(cell)));
        let adopted = match &parent {
            Some(parent) => parent.adopt(me.target().clone()),
            None => self.top.adopt(me.target().clone()),
        };
        adopted.map_err(|refused| {
            let path = me.path().clone();
            match refused {
                Refused::NameTaken => SpawnError::NameTaken { path },
                Refused::Stopping => SpawnError::Stopping { path },
            }
        })?;
        let mut ctx = Context::new(me.clone(), consumer);
        if let Some(observer) = self.observer_of::<A>() {
            ctx.observe(observer);
        }
        prepare(&mut ctx);
        let life = Life::new(ctx, props.actor, props.plan);
        tracing::debug!(actor = %me.path(), uid, "an actor starts");
        let life = Box::new(life);
        if life.is_born_idle() {
            me.target().start_idle(life);
        } else {
            me.target().start(life);
        }
        Ok(me)
    }

    /// Whether actors are counted and timed.
    pub(crate) fn measures(&self) -> bool {
        self.metrics.is_some()
    }

    fn observer_of<A: Actor>(&self) -> Option<Arc<Observer>> {
        let metrics = self.metrics.as_ref()?.of::<A>();
        metrics.spawned();
        Some(Arc::new(Observer {
            metrics: Some(metrics),
            effects: None,
        }))
    }

    /// An actor at the top has ended.
    pub(crate) fn bury(&self, child: &dyn Node) {
        if self.top.bury(child) {
            self.end();
        }
    }

    /// Lets nothing start any more and asks all actors to stop.
    fn begin_stop(&self) {
        let children = self.top.close();
        if children.is_empty() {
            self.end();
        }
        for child in children {
            child.request(Phase::Stopping);
        }
    }

    /// Ends all actors from outside.
    fn abandon_all(&self) {
        for child in self.top.close() {
            child.abandon();
        }
        self.end();
    }

    /// The tree is empty and stays so: the scheduler tasks may go.
    fn end(&self) {
        self.scheduler().close();
        self.ended.send_replace(true);
    }

    fn living(&self) -> Vec<Arc<dyn Node>> {
        let mut found = self.top.living();
        let mut next = 0;
        while let Some(actor) = found.get(next) {
            let children = actor.children();
            found.extend(children);
            next += 1;
        }
        found
    }

    /// Whether an actor runs or waits for its turn.
    #[cfg(feature = "testkit")]
    pub(crate) fn is_busy(&self) -> bool {
        let busy = [ActorState::Queued, ActorState::Running];
        let living = self.living();
        living.iter().any(|actor| busy.contains(&actor.activity()))
    }

    /// The path of the living actor whose cell lies at this address.
    pub(crate) fn path_of_address(&self, address: usize) -> Option<ActorPath> {
        let living = self.living();
        let found = living
            .iter()
            .find(|actor| Arc::as_ptr(actor).addr() == address)?;
        Some(found.path().clone())
    }

    /// The living actors that wait for no child of theirs.
    fn blocked(&self) -> Vec<ActorPath> {
        let leaves = self
            .living()
            .into_iter()
            .filter(|actor| actor.children().is_empty());
        let mut paths: Vec<ActorPath> = leaves.map(|actor| actor.path().clone()).collect();
        paths.sort();
        paths
    }
}
