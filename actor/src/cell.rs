//! Cell: one local actor as others see it: its mailbox, its place in the tree, who may run it.
//!
//! # Parts
//! A cell is shared by everyone who holds a reference to the actor, and is its one allocation while
//! it idles, beside the bare [`crate::life::Life`]. While the actor has something to do, its body is
//! one future that takes messages; a handler's future is a part of it, polled in place: no message
//! and no handler is ever boxed. It is polled by whichever scheduler task gets the cell.
//!
//! # Who may run it
//! Whoever has the actor's token ([`crate::mailbox`]). It lies in the mailbox while the actor idles
//! or waits, is in a run queue with the job, or with the thread that polls the body:
//!
//! ```text
//!              push, news, wake                a task takes it
//!   IN THE MAILBOX ----------------> QUEUED -----------------------> RUNNING
//!         ^                            ^      end of turn, notified     |
//!         |                            +--------------------------------+
//!         +------------------------------------------ nothing to do ----+
//! ```
//!
//! - There is one token, so no two threads poll the same body, and nobody waits for anybody.
//! - Whoever has news for the actor makes the news visible first and tells the mailbox afterwards.
//!   If the body is being polled, a notice makes it run once more: no wake-up is lost.
//! - The waker of a pending handler is the cell itself. Messages do not wake an actor whose handler
//!   is pending.
//!
//! # The tree
//! `kin` holds the living children and the watchers. A child takes itself out of its parent's
//! family when it has ended (at the top it leaves a note: [`crate::top`]); a parent that waits for
//! that is notified. Locks are never nested: no code of users, no other cell and no scheduler is
//! called under one.
//!
//! # What can go wrong
//! A cell and its body refer to each other; the body is dropped when the actor ends. If nobody will
//! ever poll it again (the runtime is gone, or a handler blocks beyond the limit of a shutdown),
//! [`Node::abandon`] ends the actor from outside; the body is dropped by the holder of the token.
#![allow(
    unsafe_code,
    reason = "the body is touched without a lock, by the holder of the token (body.rs)"
)]

mod identity;

use crate::actor_ref::Target;
use crate::body::{Body, Dormant, Form, Outcome, Place};
use crate::dead_letters::DeadLetterReason;
use crate::failure::{describe_panic, drop_guarded};
use crate::family::{self, Children, Refused};
use crate::mailbox::{AtRest, BATCH, Consumer, Free, Left, Mailbox, Order, Phase, Signals, Wake};
use crate::path::ActorPath;
use crate::scheduler::Runnable;
use crate::sync::AtomicU8;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::system::Core;
use crate::tree::ActorState;
use crate::wait_graph;
use crate::watch::{Ended, Terminated, WatchSink, Watchable, Watcher, WatcherId};
use futures_util::task::{ArcWake, waker_ref};
pub(crate) use identity::{Above, Identity};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::{Context, Poll};

pub(crate) struct Cell<M> {
    pub(crate) mailbox: Mailbox<M, Identity, Kin>,
    body: Place,
    form: Form,
    /// Whoever adds to `kin` changes this first, under the lock, if only to the same; whoever closes
    /// or ends the actor changes it, and then looks for `kin`. So one of the two sees the other, also
    /// where there is nothing to lock yet.
    fate: AtomicU8,
    /// Where it stands in its family, with the mailbox's spare bytes: [`family::Place`].
    place: AtomicU32,
    /// Messages that may still be handled in this turn. For the holder of the token.
    pub(crate) turn: AtomicU8,
    /// For the layout: its other values say that a [`Target`] is no cell.
    _kind: Kind,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Cell,
}

/// The relations of a cell.
#[derive(Default)]
pub(crate) struct Kin {
    children: Children,
    /// Since the first child was born.
    above_children: Option<Arc<Above>>,
    /// Failures that children left to this actor. While there are some, `CHILD_FAILED` is signalled.
    escalated: VecDeque<(ActorPath, String)>,
    watchers: Vec<Watcher>,
}

/// Bits of a cell's fate.
const CLOSED: u8 = 1;
const ENDED: u8 = 2;
const FAILED: u8 = 4;

/// A local actor, its message type forgotten.
pub(crate) trait Node: Send + Sync {
    fn path(&self) -> &ActorPath;
    /// The last part of its path, if it was given one.
    fn own_name(&self) -> Option<&str>;
    fn uid(&self) -> u64;
    fn place(&self) -> family::Place;
    fn set_place(&self, place: family::Place);
    fn request(self: Arc<Self>, phase: Phase);
    fn has_ended(&self) -> bool;
    fn children(&self) -> Vec<Arc<dyn Node>>;
    /// The first children, and how many there are in all.
    fn children_up_to(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize);
    fn message_type(&self) -> &'static str;
    fn activity(&self) -> ActorState;
    fn queued(&self) -> usize;
    /// What its children share.
    fn above_children(self: Arc<Self>) -> Arc<Above>;
    /// Goes among these children.
    fn join(self: Arc<Self>, children: &mut Children) -> Result<(), Refused>;
    /// Adds a child, unless the actor is stopping or the name is taken.
    fn adopt(&self, child: Arc<dyn Node>) -> Result<(), Refused>;
    /// This child has ended.
    fn bury(self: Arc<Self>, child: &dyn Node);
    /// The child of this path has failed, has ended, and leaves the failure to this actor.
    fn child_failed(self: Arc<Self>, path: &ActorPath, failure: String);
    /// The actor's group wants something ([`crate::supervision`]).
    fn flag_request(self: Arc<Self>);
    /// The [`Target`] itself, for whoever knows its message type.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// Ends the actor, and first its children, from outside. For actors that nobody will run again.
    fn abandon(self: Arc<Self>);
}

impl<M> Cell<M> {
    pub(crate) fn new(
        identity: Identity,
        capacity: u32,
        order: Option<Box<Order<M>>>,
    ) -> (Self, Consumer) {
        let (mailbox, consumer) = Mailbox::new(capacity, order, identity);
        let cell = Self {
            mailbox,
            body: Place::new(),
            form: Form::new(),
            fate: AtomicU8::new(0),
            place: AtomicU32::new(0),
            turn: AtomicU8::new(0),
            _kind: Kind::Cell,
        };
        (cell, consumer)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.mailbox.owner().above.core
    }

    pub(crate) fn uid(&self) -> u64 {
        self.mailbox.owner().uid
    }

    pub(crate) fn path(&self) -> &ActorPath {
        self.mailbox.owner().path()
    }

    /// Whether all children have ended. If not, the actor is notified when the last of them does.
    pub(crate) fn is_childless(&self) -> bool {
        self.mailbox
            .kin(|kin| kin.is_none_or(|kin| kin.children.is_empty()))
    }

    /// Accepts no child any more; whether there is none.
    pub(crate) fn close_family_if_empty(&self) -> bool {
        self.close_family(true);
        self.is_childless()
    }

    /// Accepts no child any more, or again.
    pub(crate) fn close_family(&self, closed: bool) {
        match closed {
            true => self.fate.fetch_or(CLOSED, AcqRel),
            false => self.fate.fetch_and(!CLOSED, AcqRel),
        };
    }

    /// Whether the actor's group wants something.
    pub(crate) fn group_wants(&self) -> bool {
        self.mailbox.signals() & Signals::GROUP_WANTS != 0
    }

    /// The actor looks at what its group wants now.
    pub(crate) fn requests_seen(&self) {
        self.mailbox.clear(Signals::GROUP_WANTS);
    }

    /// The oldest failure that a child left to this actor.
    pub(crate) fn take_child_failure(&self) -> Option<(ActorPath, String)> {
        self.mailbox.kin_or_new(|kin| {
            let failure = kin.escalated.pop_front();
            if kin.escalated.is_empty() {
                self.mailbox.clear(Signals::CHILD_FAILED);
            }
            failure
        })
    }

    /// A restart is the answer to all failures that children left to this actor so far.
    pub(crate) fn forget_child_failures(&self) {
        let failures = self.mailbox.kin(|kin| {
            kin.map(|kin| {
                self.mailbox.clear(Signals::CHILD_FAILED);
                std::mem::take(&mut kin.escalated)
            })
        });
        drop(failures);
    }

    /// The living child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<Arc<dyn Node>> {
        let child = self.mailbox.kin(|kin| kin?.children.named(name));
        child.filter(|child| !child.has_ended())
    }

    /// What the actor does at this moment; it may be over when this returns.
    pub(crate) fn activity(&self) -> ActorState {
        match self.mailbox.rest() {
            AtRest::Idle => ActorState::Idle,
            AtRest::Waiting => ActorState::Waiting,
            // Whoever runs it has taken the body out.
            AtRest::No if self.form.is_empty() => ActorState::Running,
            AtRest::No => ActorState::Queued,
        }
    }

    fn ended(&self) -> Option<Ended> {
        ended(self.fate.load(Acquire))
    }

    /// Its fate, for those who are about to add to `kin`.
    fn settled_fate(&self) -> u8 {
        self.fate.fetch_or(0, AcqRel)
    }

    /// It ends so. `false`: it has ended before.
    fn seal(&self, reason: Ended) -> bool {
        let failed = if reason == Ended::Failed { FAILED } else { 0 };
        let sealed = self.fate.fetch_update(AcqRel, Acquire, |fate| {
            (fate & ENDED == 0).then_some(fate | CLOSED | ENDED | failed)
        });
        sealed.is_ok()
    }
}

fn ended(fate: u8) -> Option<Ended> {
    match fate & (ENDED | FAILED) {
        0 => None,
        ENDED => Some(Ended::Stopped),
        _ => Some(Ended::Failed),
    }
}

impl<M: Send + 'static> Cell<M> {
    /// Drops messages that nobody will handle, and counts them.
    pub(crate) fn discard(&self, left: impl IntoIterator<Item = Left<M>>) {
        for Left(message) in left {
            self.count_lost(DeadLetterReason::LeftInMailbox);
            drop_guarded(message);
        }
    }

    pub(crate) fn count_lost(&self, reason: DeadLetterReason) {
        let kind = std::any::type_name::<M>();
        self.core().dead_letters.report(self.path(), reason, kind);
    }
}

impl<M: Send + 'static> Target<M> {
    /// The actor's first activation is due. The caller has its token.
    pub(crate) fn start(self: &Arc<Self>, life: Box<dyn Dormant>) {
        let cell = self.cell();
        // SAFETY: the token is with the one who made the cell until it is scheduled here.
        unsafe { cell.body.put(&cell.form, Body::Newborn(life)) };
        self.schedule();
    }

    /// The same for an actor that has nothing to do until a message comes.
    pub(crate) fn start_idle(self: &Arc<Self>, life: Box<dyn Dormant>) {
        let cell = self.cell();
        // SAFETY: the token is with the one who made the cell until it is put down here.
        let parked = unsafe {
            cell.body.put(&cell.form, Body::Dormant(life));
            cell.mailbox.park_idle()
        };
        // Its parent may want it to stop already.
        if !parked {
            self.schedule();
        }
    }

    /// There is news for whatever the actor waits for.
    pub(crate) fn notify(self: &Arc<Self>) {
        let Some(cell) = self.local() else { return };
        self.wake_if(cell.mailbox.notify());
    }

    /// Passes on what a mailbox said about waking.
    #[inline]
    pub(crate) fn wake_if(self: &Arc<Self>, Wake(needed): Wake) {
        if needed {
            self.schedule();
        }
    }

    /// The caller has the token: the actor will run.
    pub(crate) fn schedule(self: &Arc<Self>) {
        if let Some(cell) = self.local() {
            cell.core().scheduler().schedule(self.clone());
        }
    }

    /// Asks the actor for a later phase; also one that waits for something, for example for the end
    /// of a back-off.
    pub(crate) fn request_of(self: &Arc<Self>, phase: Phase) {
        self.wake_if(self.cell().mailbox.request(phase));
    }

    pub(crate) fn end(&self, reason: Ended) {
        self.end_with(reason, None);
    }

    /// The end of the actor: whoever watches is told, the parent forgets it, and fails with
    /// `escalated` if there is one. Once.
    pub(crate) fn end_with(&self, reason: Ended, escalated: Option<String>) {
        let cell = self.cell();
        if !cell.seal(reason) {
            return;
        }
        let kin = cell.mailbox.kin(|kin| kin.map(std::mem::take));
        if let Some(kin) = kin {
            for watcher in kin.watchers {
                watcher.notify(Terminated::new(cell.path().clone(), cell.uid(), reason));
            }
        }
        let parent = &cell.mailbox.owner().above.parent;
        match (parent, escalated) {
            (_, None) => {}
            // Before it is forgotten: whoever waits for the last child sees this too.
            (Some(parent), Some(failure)) => parent.clone().child_failed(cell.path(), failure),
            (None, Some(failure)) => {
                tracing::error!(actor = %cell.path(), failure, "a failure was escalated to the top");
            }
        }
        match parent {
            Some(parent) => parent.clone().bury(self),
            None => cell.core().bury(self),
        }
    }
}

impl<M: Send + 'static> Runnable for Target<M> {
    fn run(self: Arc<Self>) -> u32 {
        let Some(cell) = self.local() else { return 1 };
        let mut units = 0;
        loop {
            // SAFETY: a job in a run queue is the token; `self` is it now.
            let body = unsafe { cell.body.take(&cell.form) };
            let (body, more) = self.activate(body, &mut units);
            let idle = matches!(body, Body::Dormant(_)) && !more;
            let ended = matches!(body, Body::None);
            if cell.mailbox.is_abandoned() {
                drop_guarded(body);
                self.end(Ended::Stopped);
                return units;
            }
            // SAFETY: the token is still here; it is put down after this, below.
            unsafe { cell.body.put(&cell.form, body) };
            if ended {
                return units;
            }
            let parked = match (idle, more) {
                // SAFETY: the token is still here.
                (true, _) => unsafe { cell.mailbox.park_idle() },
                (false, true) => {
                    cell.mailbox.after_turn();
                    false
                }
                (false, false) => cell.mailbox.park(),
            };
            if parked {
                return units;
            }
            if !idle || units >= u32::from(BATCH) {
                cell.core().scheduler().schedule_last(self.clone());
                return units;
            }
        }
    }

    fn discard(self: Arc<Self>) {
        // SAFETY: a job in a run queue is the token; `self` is it now. It is not put down again.
        let body = unsafe { self.cell().body.take(&self.cell().form) };
        self.cell().mailbox.abandon();
        drop_guarded(body);
        self.end(Ended::Stopped);
    }
}

impl<M: Send + 'static> Target<M> {
    /// Polls the actor once. Returns what is left of it, and whether only its turn is over.
    #[inline]
    fn activate(self: &Arc<Self>, body: Body, units: &mut u32) -> (Body, bool) {
        let mut active = match body {
            Body::Active(active) => active,
            Body::Dormant(life) => life.wake(false),
            Body::Newborn(life) => life.wake(true),
            Body::None => return (Body::None, false),
        };
        let before = wait_graph::enter(Arc::as_ptr(self.cell().core()).addr(), self.cell().uid());
        let waker = waker_ref(self);
        let mut cx = Context::from_waker(&waker);
        let mut polled = catch_unwind(AssertUnwindSafe(|| active.poll(&mut cx)));
        if let Ok(Poll::Ready(Outcome::Started(life))) = polled {
            active = life.wake(false);
            polled = catch_unwind(AssertUnwindSafe(|| active.poll(&mut cx)));
        }
        if let Ok(Poll::Ready(Outcome::Other(life))) = polled {
            polled = match life.wake_for_other() {
                Some(other) => {
                    active = other;
                    catch_unwind(AssertUnwindSafe(|| active.poll(&mut cx)))
                }
                None => Ok(Poll::Ready(Outcome::Ended)),
            };
        }
        wait_graph::leave(before);
        match polled {
            Ok(Poll::Pending) => {
                *units += 1;
                (Body::Active(active), false)
            }
            Ok(Poll::Ready(Outcome::Idle(life))) => {
                let handled = BATCH.saturating_sub(self.cell().turn.load(Relaxed));
                *units += u32::from(handled.max(1));
                (Body::Dormant(life), false)
            }
            Ok(Poll::Ready(
                Outcome::Other(life) | Outcome::Started(life) | Outcome::TurnOver(life),
            )) => {
                *units += u32::from(BATCH);
                (Body::Dormant(life), true)
            }
            Ok(Poll::Ready(Outcome::Ended)) => {
                *units += 1;
                (Body::None, false)
            }
            Err(panic) => {
                // Every call of user code is guarded on its own: this is a bug of ours.
                let (actor, panic) = (self.cell().path(), describe_panic(panic));
                tracing::error!(%actor, panic, "the actor's own life failed");
                drop_guarded(active);
                self.cell().mailbox.abandon();
                self.end(Ended::Failed);
                *units += 1;
                (Body::None, false)
            }
        }
    }
}

impl<M: Send + 'static> ArcWake for Target<M> {
    fn wake_by_ref(target: &Arc<Self>) {
        target.notify();
    }
}

impl<M: Send + 'static> Node for Target<M> {
    fn path(&self) -> &ActorPath {
        self.cell().path()
    }

    fn own_name(&self) -> Option<&str> {
        self.cell().mailbox.owner().own_name()
    }

    fn uid(&self) -> u64 {
        self.cell().uid()
    }

    fn place(&self) -> family::Place {
        family::Place {
            list: self.cell().mailbox.spare().load(Relaxed),
            index: self.cell().place.load(Relaxed),
        }
    }

    fn set_place(&self, place: family::Place) {
        self.cell().mailbox.spare().store(place.list, Relaxed);
        self.cell().place.store(place.index, Relaxed);
    }

    fn request(self: Arc<Self>, phase: Phase) {
        self.request_of(phase);
    }

    fn has_ended(&self) -> bool {
        self.cell().ended().is_some()
    }

    fn children(&self) -> Vec<Arc<dyn Node>> {
        self.cell()
            .mailbox
            .kin(|kin| kin.map_or_else(Vec::new, |kin| kin.children.all()))
    }

    fn children_up_to(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize) {
        self.cell()
            .mailbox
            .kin(|kin| kin.map_or((Vec::new(), 0), |kin| kin.children.first(most)))
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

    fn above_children(self: Arc<Self>) -> Arc<Above> {
        let cell = self.cell();
        let new = || {
            Arc::new(Above {
                core: cell.core().clone(),
                parent: Some(self.clone()),
            })
        };
        cell.mailbox.kin_or_new(|kin| {
            // Nobody would ever break the circle.
            if ended(cell.settled_fate()).is_some() {
                return new();
            }
            kin.above_children.get_or_insert_with(new).clone()
        })
    }

    fn join(self: Arc<Self>, children: &mut Children) -> Result<(), Refused> {
        children.adopt(self)
    }

    fn adopt(&self, child: Arc<dyn Node>) -> Result<(), Refused> {
        let cell = self.cell();
        cell.mailbox.kin_or_new(|kin| {
            if cell.settled_fate() & CLOSED != 0 {
                return Err(Refused::Stopping);
            }
            child.join(&mut kin.children)
        })
    }

    fn bury(self: Arc<Self>, child: &dyn Node) {
        let cell = self.cell();
        let (child, wait_is_over) = cell.mailbox.kin_or_new(|kin| {
            let child = kin.children.bury(child.place(), child.uid());
            let childless = kin.children.is_empty();
            if childless {
                kin.children = Children::default();
            }
            (child, childless && cell.fate.load(Acquire) & CLOSED != 0)
        });
        drop(child);
        if wait_is_over {
            self.notify();
        }
    }

    fn child_failed(self: Arc<Self>, path: &ActorPath, failure: String) {
        let cell = self.cell();
        let flagged = cell.mailbox.kin_or_new(|kin| {
            if ended(cell.settled_fate()).is_some() {
                return false;
            }
            kin.escalated.push_back((path.clone(), failure));
            cell.mailbox.flag(Signals::CHILD_FAILED);
            true
        });
        if flagged {
            self.notify();
        }
    }

    fn flag_request(self: Arc<Self>) {
        self.cell().mailbox.flag(Signals::GROUP_WANTS);
        self.notify();
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn abandon(self: Arc<Self>) {
        let cell = self.cell();
        cell.close_family(true);
        for child in self.children() {
            child.abandon();
        }
        if cell.mailbox.abandon() {
            // SAFETY: the token was just taken, and is not put down again.
            drop_guarded(unsafe { cell.body.take(&cell.form) });
        }
        self.end(Ended::Stopped);
    }
}

impl<M: Send + 'static> WatchSink for Target<M> {
    fn ended(self: Arc<Self>, number: u64, news: Terminated) {
        let entry = Free::Ended(Box::new((number, news)));
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
            Self::Adapted(adapted) => return adapted.actor().watchable().add_watcher(watcher),
        };
        let refused = cell.mailbox.kin_or_new(|kin| {
            if let Some(reason) = ended(cell.settled_fate()) {
                return Some((watcher, reason));
            }
            let id = watcher.id();
            if kin.watchers.iter().all(|known| known.id() != id) {
                kin.watchers.push(watcher);
            }
            None
        });
        let Some((watcher, reason)) = refused else {
            return;
        };
        watcher.notify(Terminated::new(cell.path().clone(), cell.uid(), reason));
    }

    fn remove_watcher(&self, id: WatcherId) {
        let cell = match self {
            Self::Local(cell) => cell,
            Self::Remote(remote) => return remote.unwatch(id),
            Self::Adapted(adapted) => return adapted.actor().watchable().remove_watcher(id),
        };
        let watcher = cell.mailbox.kin(|kin| {
            let watchers = &mut kin?.watchers;
            let place = watchers.iter().position(|known| known.id() == id)?;
            Some(watchers.remove(place))
        });
        drop(watcher);
    }
}

#[cfg(all(test, otava_loom))]
mod loom_models;

#[cfg(all(test, not(otava_loom)))]
mod tests {
    use super::*;

    /// With the counts of its `Arc`, 152 bytes: what a common allocator gives out without a rest.
    #[test]
    fn a_cell_is_as_small_as_it_was_meant_to_be() {
        assert_eq!(size_of::<Target<[u64; 3]>>(), 136);
        assert_eq!(
            size_of::<Target<[u64; 9]>>(),
            136,
            "large messages lie elsewhere"
        );
    }
}
