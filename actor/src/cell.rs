//! Cell: one local actor as others see it: its mailbox, its place in the tree, when it may run.
//!
//! # Parts
//! A cell is shared by everyone who holds a reference to the actor. Its `body` is the actor's life
//! ([`crate::life`]), which owns the instance and the context. While the actor has something to do,
//! the body is one future that takes messages; a handler's future is a part of it, polled in place:
//! no message and no handler is ever boxed. Between two activations the body is the bare life, a
//! few words. It is polled by whichever scheduler task gets the cell.
//!
//! # Who may run it
//! `run` is the only thing that decides it:
//!
//! ```text
//!            notify                 a task takes it             notify
//!   IDLE ------------> QUEUED -----------------------> RUNNING --------> NOTIFIED
//!    ^                    ^                               |                 |
//!    |                    |  end of turn                  |                 |
//!    |                    +-------------------------------(-----------------+
//!    +----------------------------------------------------+ end of turn
//! ```
//!
//! - A cell is in a run queue exactly while it is `QUEUED`, so no two tasks poll the same body, and
//!   the lock around the body is never waited for.
//! - Whoever has news for the actor makes the news visible first and calls `notify` afterwards. If
//!   the body is being polled, `NOTIFIED` makes it run once more: no wake-up is lost.
//! - The waker of a pending handler is the cell itself, with the same `notify`. Messages do not
//!   wake an actor whose handler is pending: its mailbox is not marked idle.
//!
//! # The tree
//! `family` holds the living children and the watchers. A child takes itself out of its parent's
//! family when it has ended; a parent that waits for that is notified. Locks are never nested: no
//! code of users, no other cell and no scheduler is called under one.
//!
//! # What can go wrong
//! A cell and its body refer to each other; the body is dropped when the actor ends. If nobody will
//! ever poll it again (the runtime is gone, or a handler blocks beyond the limit of a shutdown),
//! [`Node::abandon`] ends the actor from outside.

use crate::actor_ref::Target;
use crate::dead_letters::DeadLetterReason;
use crate::failure::{drop_guarded, guarded_call};
use crate::mailbox::{BATCH, Entry, Mailbox, Phase, Wake};
use crate::path::ActorPath;
use crate::scheduler::Runnable;
use crate::sync::lock;
use crate::system::Core;
use crate::tree::{self, ActorState};
use crate::wait_graph;
use crate::watch::{Ended, Terminated, WatchSink, Watchable, Watcher, WatcherId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake as TaskWake, Waker};

/// An actor between two activations.
pub(crate) trait Dormant: Send {
    fn wake(self: Box<Self>) -> Active;
}

/// An actor at work: a future that is polled in place and kept only while a handler is pending.
pub(crate) type Active = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How an activation ended.
pub(crate) enum Outcome {
    Ended,
    Idle(Box<dyn Dormant>),
    TurnOver(Box<dyn Dormant>),
}

/// The actor itself, in whichever form it is.
enum Body {
    Active(Active),
    Dormant(Box<dyn Dormant>),
    /// Not yet there, or no more.
    None,
}

pub(crate) struct Cell<M> {
    pub(crate) path: ActorPath,
    pub(crate) uid: u64,
    pub(crate) core: Arc<Core>,
    pub(crate) mailbox: Mailbox<M>,
    /// `None`: the parent is the system.
    parent: Option<Arc<dyn Node>>,
    run: AtomicU8,
    /// Messages that may still be handled in this turn. Only the running task touches it.
    turn: AtomicU32,
    family: Mutex<Family>,
    body: Mutex<Body>,
    /// A handler or hook is pending: the actor is at work although nothing runs.
    handler_waits: AtomicBool,
    /// Ended from outside: the body is dropped as soon as it lets go of its thread.
    abandoned: AtomicBool,
}

/// The relations of a cell.
#[derive(Default)]
pub(crate) struct Family {
    children: Option<Box<Children>>,
    /// No child may be added.
    closed: bool,
    watchers: Vec<Watcher>,
    ended: Option<Ended>,
}

pub(crate) type Children = BTreeMap<ActorPath, Arc<dyn Node>>;

/// A local actor, its message type forgotten.
pub(crate) trait Node: Send + Sync {
    fn path(&self) -> &ActorPath;
    fn uid(&self) -> u64;
    fn request(self: Arc<Self>, phase: Phase);
    fn has_ended(&self) -> bool;
    fn children(&self) -> Vec<Arc<dyn Node>>;
    /// The first children by name, and how many there are in all.
    fn children_up_to(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize);
    fn message_type(&self) -> &'static str;
    fn activity(&self) -> ActorState;
    fn queued(&self) -> usize;
    /// Adds a child, unless the actor is stopping or the name is taken.
    fn adopt(&self, child: Arc<dyn Node>) -> Result<(), Refused>;
    /// The child of this path and number has ended.
    fn bury(self: Arc<Self>, path: &ActorPath, uid: u64);
    /// Ends the actor, and first its children, from outside. For actors that nobody will run again.
    fn abandon(self: Arc<Self>);
}

/// Why a child was not added.
#[derive(Debug)]
pub(crate) enum Refused {
    NameTaken,
    Stopping,
}

/// Adds `child` to `children`. The name of a child that has ended is free, also if that child is
/// still about to take itself out.
pub(crate) fn adopt_into(children: &mut Children, child: Arc<dyn Node>) -> Result<(), Refused> {
    match children.get(child.path()) {
        Some(other) if !other.has_ended() => Err(Refused::NameTaken),
        _ => {
            children.insert(child.path().clone(), child);
            Ok(())
        }
    }
}

/// Takes a child out, if it is still this one that has the name. Returns what to drop later.
pub(crate) fn bury_from(
    children: &mut Children,
    path: &ActorPath,
    uid: u64,
) -> Option<Arc<dyn Node>> {
    if children.get(path)?.uid() == uid {
        children.remove(path)
    } else {
        None
    }
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const NOTIFIED: u8 = 3;

impl<M: Send + 'static> Cell<M> {
    pub(crate) fn new(
        path: ActorPath,
        uid: u64,
        core: Arc<Core>,
        parent: Option<Arc<dyn Node>>,
        capacity: usize,
    ) -> Self {
        Self {
            path,
            uid,
            core,
            mailbox: Mailbox::new(capacity),
            parent,
            run: AtomicU8::new(IDLE),
            turn: AtomicU32::new(0),
            family: Mutex::default(),
            body: Mutex::new(Body::None),
            handler_waits: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_body(&self, life: Box<dyn Dormant>) {
        *lock(&self.body) = Body::Dormant(life);
        // The system may have ended since the actor was added to its family.
        if self.abandoned.load(SeqCst) {
            let body = std::mem::replace(&mut *lock(&self.body), Body::None);
            drop_guarded(body);
        }
    }

    /// What the actor does at this moment; it may be over when this returns.
    pub(crate) fn activity(&self) -> ActorState {
        match self.run.load(Acquire) {
            QUEUED => ActorState::Queued,
            RUNNING | NOTIFIED => ActorState::Running,
            _ if self.handler_waits.load(Relaxed) => ActorState::Waiting,
            _ => ActorState::Idle,
        }
    }

    /// Takes one message from what this turn allows; `false` if the turn is over.
    pub(crate) fn spend_turn(&self) -> bool {
        let left = self.turn.load(Relaxed);
        self.turn.store(left.saturating_sub(1), Relaxed);
        left > 0
    }

    /// Whether all children have ended. If not, the actor is notified when the last of them does.
    pub(crate) fn is_childless(&self) -> bool {
        lock(&self.family)
            .children
            .as_ref()
            .is_none_or(|children| children.is_empty())
    }

    /// Accepts no child any more, or again.
    pub(crate) fn close_family(&self, closed: bool) {
        lock(&self.family).closed = closed;
    }

    /// The end of the actor: whoever watches is told, the parent forgets it. Once.
    pub(crate) fn end(&self, reason: Ended) {
        let watchers = {
            let mut family = lock(&self.family);
            if family.ended.is_some() {
                return;
            }
            family.ended = Some(reason);
            family.closed = true;
            std::mem::take(&mut family.watchers)
        };
        for watcher in watchers {
            watcher.notify(Terminated::new(self.path.clone(), self.uid, reason));
        }
        match &self.parent {
            Some(parent) => parent.clone().bury(&self.path, self.uid),
            None => self.core.bury(&self.path, self.uid),
        }
    }

    /// Drops messages that nobody will handle, and counts them.
    pub(crate) fn discard(&self, entries: impl IntoIterator<Item = Entry<M>>) {
        for entry in entries {
            let message = match entry {
                Entry::Counted(parcel) => parcel.into_message(),
                Entry::Free(message) => message,
                Entry::Ended(_) => continue,
            };
            let kind = std::any::type_name::<M>();
            self.core
                .dead_letters
                .report(&self.path, DeadLetterReason::LeftInMailbox, kind);
            drop_guarded(message);
        }
    }
}

impl<M: Send + 'static> Target<M> {
    /// There is news for the actor.
    pub(crate) fn notify(self: &Arc<Self>) {
        let Some(cell) = self.local() else { return };
        if cell.transit(|run| match run {
            IDLE => Some(QUEUED),
            RUNNING => Some(NOTIFIED),
            _ => None,
        }) == Some(IDLE)
        {
            cell.core.scheduler().schedule(self.clone());
        }
    }

    /// Passes on what a mailbox said about waking.
    pub(crate) fn wake_if(self: &Arc<Self>, Wake(needed): Wake) {
        if needed {
            self.notify();
        }
    }
}

impl<M> Cell<M> {
    /// Changes the run state as `step` says; returns the state before, `None` if it stays.
    fn transit(&self, step: impl Fn(u8) -> Option<u8>) -> Option<u8> {
        self.run.fetch_update(AcqRel, Acquire, step).ok()
    }
}

impl<M: Send + 'static> Runnable for Target<M> {
    fn run(self: Arc<Self>) -> u32 {
        let Some(cell) = self.local() else { return 1 };
        cell.run.store(RUNNING, Release);
        cell.turn.store(BATCH as u32, Relaxed);
        let turn_over = cell.activate(&Waker::from(self.clone()));
        let units = BATCH as u32 - cell.turn.load(Relaxed);
        let before = cell.transit(|run| {
            let again = turn_over || run == NOTIFIED;
            Some(if again { QUEUED } else { IDLE })
        });
        if turn_over || before == Some(NOTIFIED) {
            cell.core.scheduler().schedule_last(self.clone());
        }
        units.max(1)
    }
}

impl<M: Send + 'static> Cell<M> {
    /// Polls the actor once; `true` if it has more to do and only its turn is over.
    fn activate(&self, waker: &Waker) -> bool {
        let mut place = lock(&self.body);
        let (mut active, resumed) = match std::mem::replace(&mut *place, Body::None) {
            Body::Active(active) => (active, true),
            Body::Dormant(life) => (life.wake(), false),
            Body::None => return false,
        };
        wait_graph::enter(Arc::as_ptr(&self.core).addr(), self.uid);
        let polled = guarded_call(|| active.as_mut().poll(&mut Context::from_waker(waker)));
        wait_graph::leave();
        // Only an actor whose handler is pending pays for these stores.
        if resumed != matches!(polled, Ok(Poll::Pending)) {
            self.handler_waits.store(!resumed, Relaxed);
        }
        let (body, turn_over) = match polled {
            Ok(Poll::Pending) => (Body::Active(active), false),
            Ok(Poll::Ready(Outcome::Idle(life))) => (Body::Dormant(life), false),
            Ok(Poll::Ready(Outcome::TurnOver(life))) => (Body::Dormant(life), true),
            Ok(Poll::Ready(Outcome::Ended)) => (Body::None, false),
            Err(failure) => {
                // Every call of user code is guarded on its own: this is a bug of ours.
                tracing::error!(actor = %self.path, %failure, "the actor's own life failed");
                self.discard(self.mailbox.close());
                self.end(Ended::Failed);
                drop_guarded(active);
                (Body::None, false)
            }
        };
        if self.abandoned.load(Acquire) {
            drop_guarded(body);
            return false;
        }
        *place = body;
        turn_over
    }
}

impl<M: Send + 'static> TaskWake for Target<M> {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

impl<M: Send + 'static> Node for Target<M> {
    fn path(&self) -> &ActorPath {
        &self.cell().path
    }

    fn uid(&self) -> u64 {
        self.cell().uid
    }

    fn request(self: Arc<Self>, phase: Phase) {
        let wake = self.cell().mailbox.request(phase);
        self.wake_if(wake);
    }

    fn has_ended(&self) -> bool {
        lock(&self.cell().family).ended.is_some()
    }

    fn children(&self) -> Vec<Arc<dyn Node>> {
        let family = lock(&self.cell().family);
        family
            .children
            .iter()
            .flat_map(|children| children.values().cloned())
            .collect()
    }

    fn children_up_to(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize) {
        let family = lock(&self.cell().family);
        let children = family.children.as_ref();
        children.map_or((Vec::new(), 0), |children| tree::first_of(children, most))
    }

    fn message_type(&self) -> &'static str {
        std::any::type_name::<M>()
    }

    fn activity(&self) -> ActorState {
        self.cell().activity()
    }

    fn queued(&self) -> usize {
        self.cell().mailbox.len()
    }

    fn adopt(&self, child: Arc<dyn Node>) -> Result<(), Refused> {
        let mut family = lock(&self.cell().family);
        if family.closed {
            return Err(Refused::Stopping);
        }
        adopt_into(family.children.get_or_insert_default(), child)
    }

    fn bury(self: Arc<Self>, path: &ActorPath, uid: u64) {
        let (child, wait_is_over) = {
            let mut family = lock(&self.cell().family);
            let closed = family.closed;
            let Some(children) = family.children.as_mut() else {
                return;
            };
            let child = bury_from(children, path, uid);
            let childless = children.is_empty();
            if childless {
                family.children = None;
            }
            (child, closed && childless)
        };
        drop(child);
        if wait_is_over {
            self.notify();
        }
    }

    fn abandon(self: Arc<Self>) {
        let cell = self.cell();
        cell.close_family(true);
        cell.discard(cell.mailbox.close());
        for child in self.children() {
            child.abandon();
        }
        // While another thread is inside a handler that does not return, the body stays with it.
        cell.abandoned.store(true, SeqCst);
        let body = cell
            .body
            .try_lock()
            .map(|mut body| std::mem::replace(&mut *body, Body::None));
        drop_guarded(body.ok());
        cell.end(Ended::Stopped);
    }
}

impl<M: Send + 'static> WatchSink for Target<M> {
    fn ended(self: Arc<Self>, number: u64, news: Terminated) {
        let entry = Entry::Ended(Box::new((number, news)));
        if let Ok(wake) = self.cell().mailbox.push_free(entry) {
            self.wake_if(wake);
        }
    }
}

impl<M: Send + 'static> Watchable for Target<M> {
    fn add_watcher(&self, watcher: Watcher) {
        let cell = match self {
            Self::Local(cell) => cell,
            Self::Remote(remote) => return remote.watch(watcher),
        };
        let ended = {
            let mut family = lock(&cell.family);
            if family.ended.is_none() {
                let id = watcher.id();
                if family.watchers.iter().all(|known| known.id() != id) {
                    family.watchers.push(watcher);
                }
                return;
            }
            family.ended
        };
        let reason = ended.unwrap_or(Ended::Unknown);
        watcher.notify(Terminated::new(cell.path.clone(), cell.uid, reason));
    }

    fn remove_watcher(&self, id: WatcherId) {
        let cell = match self {
            Self::Local(cell) => cell,
            Self::Remote(remote) => return remote.unwatch(id),
        };
        let watcher = {
            let mut family = lock(&cell.family);
            let place = family.watchers.iter().position(|known| known.id() == id);
            place.map(|place| family.watchers.remove(place))
        };
        drop(watcher);
    }
}
