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
mod watched;

use crate::actor_ref::Target;
use crate::body::{Active, Body, Dormant, Form, Outcome, Place, Served};
use crate::dead_letters::DeadLetterReason;
use crate::failure::{describe_panic, drop_guarded};
use crate::family::{self, Children, Refused};
use crate::mailbox::{AtRest, BATCH, Consumer, Left, Mailbox, Order, Phase, Signals, Wake};
use crate::path::ActorPath;
use crate::scheduler::{Job, Runnable};
use crate::sync::AtomicU8;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::system::Core;
use crate::tree::ActorState;
use crate::wait_graph;
use crate::watch::{Ended, Terminated, WatchSink, Watcher};
use futures_util::task::{ArcWake, waker_ref};
pub(crate) use identity::{Above, Identity};
use std::any::Any;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32};
use std::task::{Context, Poll};

/// All that is touched at every message by whoever runs the actor lies together, and apart from what
/// those touch who send to it.
#[repr(C)]
pub(crate) struct Cell<M> {
    pub(crate) mailbox: Mailbox<M, Still, Desk, Kin>,
    body: Place,
}

/// What changes rarely. First what everyone reads who has a reference.
#[repr(C)]
pub(crate) struct Still {
    /// For the layout: its other values say that a [`Target`] is no cell.
    _kind: Kind,
    /// Whoever adds to `kin` changes this first, under the lock, if only to the same; whoever closes
    /// or ends the actor changes it, and then looks for `kin`. So one of the two sees the other, also
    /// where there is nothing to lock yet.
    fate: AtomicU8,
    /// Where it stands in its family: [`family::Place`].
    place_list: AtomicU16,
    place_index: AtomicU32,
    identity: Identity,
}

/// What the holder of the token keeps.
pub(crate) struct Desk {
    form: Form,
    /// Messages that may still be handled in this turn, and [`FRESH`].
    turn: AtomicU8,
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
    /// This actor is told of the end of each child ([`crate::Context::watch_children`]).
    watches_children: bool,
}

/// In place of the number of a registration: the news is of a child of one who watches all of them.
const OF_A_CHILD: u64 = u64::MAX;

/// The bit of `turn` that says: the first message was sent just now, on this thread.
const FRESH: u8 = 1 << 7;
const _: () = assert!(BATCH < FRESH);

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
    fn bury(self: Arc<Self>, child: &dyn Node, reason: Ended);
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
        let still = Still {
            _kind: Kind::Cell,
            fate: AtomicU8::new(0),
            place_list: AtomicU16::new(0),
            place_index: AtomicU32::new(0),
            identity,
        };
        let desk = Desk {
            form: Form::new(),
            turn: AtomicU8::new(0),
        };
        let (mailbox, consumer) = Mailbox::new(capacity, order, still, desk);
        let body = Place::new();
        (Self { mailbox, body }, consumer)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.mailbox.owner().identity
    }

    fn fate(&self) -> &AtomicU8 {
        &self.mailbox.owner().fate
    }

    fn form(&self) -> &Form {
        &self.mailbox.desk().form
    }

    fn turn(&self) -> &AtomicU8 {
        &self.mailbox.desk().turn
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.identity().above.core
    }

    pub(crate) fn uid(&self) -> u64 {
        self.identity().uid
    }

    pub(crate) fn path(&self) -> &ActorPath {
        self.identity().path()
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
            true => self.fate().fetch_or(CLOSED, AcqRel),
            false => self.fate().fetch_and(!CLOSED, AcqRel),
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
            AtRest::No if self.form().is_empty() => ActorState::Running,
            AtRest::No => ActorState::Queued,
        }
    }

    fn ended(&self) -> Option<Ended> {
        ended(self.fate().load(Acquire))
    }

    /// Its fate, for those who are about to add to `kin`.
    fn settled_fate(&self) -> u8 {
        self.fate().fetch_or(0, AcqRel)
    }

    /// It ends so. `false`: it has ended before.
    fn seal(&self, reason: Ended) -> bool {
        let failed = if reason == Ended::Failed { FAILED } else { 0 };
        let sealed = self.fate().fetch_update(AcqRel, Acquire, |fate| {
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
        unsafe { cell.body.put(cell.form(), Body::Newborn(life)) };
        self.schedule();
    }

    /// The same for an actor that has nothing to do until a message comes.
    pub(crate) fn start_idle(self: &Arc<Self>, life: Box<dyn Dormant>) {
        let cell = self.cell();
        // SAFETY: the token is with the one who made the cell until it is put down here.
        let parked = unsafe {
            cell.body.put(cell.form(), Body::Dormant(life));
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
    #[inline(never)]
    pub(crate) fn schedule(self: &Arc<Self>) {
        if let Some(cell) = self.local() {
            // SAFETY: the token goes with the job, and whoever put it down left the body in its place.
            cell.core().scheduler().schedule(unsafe { Job::new(self) });
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
        let parent = &cell.identity().above.parent;
        match (parent, escalated) {
            (_, None) => {}
            // Before it is forgotten: whoever waits for the last child sees this too.
            (Some(parent), Some(failure)) => parent.clone().child_failed(cell.path(), failure),
            (None, Some(failure)) => {
                tracing::error!(actor = %cell.path(), failure, "a failure was escalated to the top");
            }
        }
        match parent {
            Some(parent) => parent.clone().bury(self, reason),
            None => cell.core().bury(self),
        }
    }
}

impl<M: Send + 'static> Runnable for Target<M> {
    unsafe fn run(actor: NonNull<()>) -> u32 {
        // A job is no reference of its own, which would cost two locked instructions a run. The life
        // in the body has one, so the cell stays until the token is put down or the life has ended.
        // SAFETY: the pointer came from an `Arc`, and the cell is there, as the caller promises.
        let this = unsafe { Arc::from_raw(actor.cast::<Self>().as_ptr().cast_const()) };
        let this = ManuallyDrop::new(this);
        // SAFETY: only local actors are scheduled.
        let cell = unsafe { this.cell_unchecked() };
        let mut units = 0;
        loop {
            // SAFETY: a job is the token; this function has it now.
            let body = unsafe { cell.body.take(cell.form()) };
            let Body::Dormant(life) = body else {
                return Arc::clone(&this).run_on(Begun::No(body), units);
            };
            let life = Box::into_raw(life);
            let mut pending = None;
            // SAFETY: it is ours, and nobody uses it meanwhile.
            let served = this.polled(|cx| unsafe { (*life).serve_now(cx, &mut pending) });
            if let Ok(Served::Idle) = served
                && cell.mailbox.has_no_signals()
            {
                units += cell.units_of_turn();
                // SAFETY: the life was not moved away. The token is still here, and is put down after.
                let parked = unsafe {
                    let life = Box::from_raw(life);
                    cell.body.put(cell.form(), Body::Dormant(life));
                    cell.mailbox.park_unseen()
                };
                if parked {
                    // The cell may be gone by now.
                    return units;
                }
                if units >= u32::from(BATCH) {
                    Arc::clone(&this).schedule_last();
                    return units;
                }
                continue;
            }
            let this = Arc::clone(&this);
            // SAFETY: as `served_as` asks for.
            let polled = unsafe { served_as(life, served, pending) };
            return this.run_on(Begun::Polled(polled), units);
        }
    }

    unsafe fn discard(actor: NonNull<()>) {
        // SAFETY: as in `run`.
        let this = unsafe { Arc::from_raw(actor.cast::<Self>().as_ptr().cast_const()) };
        // The life goes below, and its reference with it.
        let this = Arc::clone(&ManuallyDrop::new(this));
        let cell = this.cell();
        // SAFETY: a job is the token; this function has it now. It is not put down again.
        let body = unsafe { cell.body.take(cell.form()) };
        cell.mailbox.abandon();
        drop_guarded(body);
        this.end(Ended::Stopped);
    }
}

/// How a poll went: an outcome, a pending handler, or a panic.
type Polled = std::thread::Result<Result<Outcome, Active>>;

/// What became of a life that has served.
///
/// # Safety
/// `life` came from a box, and the rest from [`Dormant::serve_now`] of it.
unsafe fn served_as(
    life: *mut dyn Dormant,
    served: std::thread::Result<Served>,
    pending: Option<Active>,
) -> Polled {
    let served = match (served, pending) {
        (Ok(_), Some(active)) => return Ok(Err(active)),
        (Ok(served), None) => served,
        // It is leaked, see `serving.rs`.
        (Err(panic), _) => return Err(panic),
    };
    // SAFETY: only a pending handler has taken it away.
    let life = unsafe { Box::from_raw(life) };
    Ok(Ok(match served {
        Served::Idle => Outcome::Idle(life),
        Served::Other | Served::Pending => Outcome::Other(life),
        Served::Started => Outcome::Started(life),
        Served::TurnOver => Outcome::TurnOver(life),
    }))
}

/// How far a run has got.
enum Begun {
    No(Body),
    Polled(Polled),
}

/// Turns. For the holder of the token.
impl<M> Cell<M> {
    /// A turn begins.
    #[inline]
    pub(crate) fn begin_turn(&self) {
        let turn = self.turn();
        turn.store(BATCH | turn.load(Relaxed) & FRESH, Relaxed);
    }

    /// How many messages may still be handled in this turn.
    #[inline]
    pub(crate) fn left_of_turn(&self) -> u8 {
        self.turn().load(Relaxed) & !FRESH
    }

    #[inline]
    pub(crate) fn set_left_of_turn(&self, left: u8) {
        self.turn().store(left, Relaxed);
    }

    /// The next message was sent just now, and so has not expired.
    pub(crate) fn first_is_fresh(&self) {
        self.turn().store(FRESH, Relaxed);
    }

    #[inline]
    pub(crate) fn is_first_fresh(&self) -> bool {
        self.turn().load(Relaxed) & FRESH != 0
    }

    /// What the turn so far counts for the scheduler.
    #[inline]
    fn units_of_turn(&self) -> u32 {
        let handled = BATCH.saturating_sub(self.left_of_turn());
        u32::from(handled.max(1))
    }
}

impl<M: Send + 'static> Target<M> {
    /// The run of an actor, from where `begun` says on. With a reference, since the actor may end.
    fn run_on(self: Arc<Self>, begun: Begun, mut units: u32) -> u32 {
        let cell = self.cell();
        let mut begun = begun;
        loop {
            let (body, more) = self.activate(begun, &mut units);
            let idle = matches!(body, Body::Dormant(_)) && !more;
            let ended = matches!(body, Body::None);
            if cell.mailbox.is_abandoned() {
                drop_guarded(body);
                self.end(Ended::Stopped);
                return units;
            }
            // SAFETY: the token is still here; it is put down after this, below.
            unsafe { cell.body.put(cell.form(), body) };
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
                self.schedule_last();
                return units;
            }
            // SAFETY: the token is still here.
            begun = Begun::No(unsafe { cell.body.take(cell.form()) });
        }
    }

    /// The caller has the token, and puts it down.
    fn schedule_last(self: &Arc<Self>) {
        // SAFETY: the token goes with the job, and the body is in its place.
        let job = unsafe { Job::new(self) };
        self.cell().core().scheduler().schedule_last(job);
    }

    /// Polls the actor once. Returns what is left of it, and whether only its turn is over.
    fn activate(self: &Arc<Self>, begun: Begun, units: &mut u32) -> (Body, bool) {
        let mut polled = match begun {
            Begun::Polled(polled) => polled,
            Begun::No(Body::Active(active)) => self.poll(active),
            Begun::No(Body::Dormant(life)) => self.serve(life),
            Begun::No(Body::Newborn(life)) => self.poll(life.wake_newborn()),
            Begun::No(Body::None) => return (Body::None, false),
        };
        if let Ok(Ok(Outcome::Started(life))) = polled {
            polled = self.serve(life);
        }
        if let Ok(Ok(Outcome::Other(life))) = polled {
            polled = match self.polled(|_| life.wake_for_other()) {
                Ok(Some(active)) => self.poll(active),
                Ok(None) => Ok(Ok(Outcome::Ended)),
                Err(panic) => Err(panic),
            };
        }
        match polled {
            Ok(Err(active)) => {
                *units += 1;
                (Body::Active(active), false)
            }
            Ok(Ok(Outcome::Idle(life))) => {
                *units += self.cell().units_of_turn();
                (Body::Dormant(life), false)
            }
            Ok(Ok(Outcome::Other(life) | Outcome::Started(life) | Outcome::TurnOver(life))) => {
                *units += u32::from(BATCH);
                (Body::Dormant(life), true)
            }
            Ok(Ok(Outcome::Ended)) => {
                *units += 1;
                (Body::None, false)
            }
            Err(panic) => {
                // Every call of user code is guarded on its own: this is a bug of ours.
                let (actor, panic) = (self.cell().path(), describe_panic(panic));
                tracing::error!(%actor, panic, "the actor's own life failed");
                self.cell().mailbox.abandon();
                self.end(Ended::Failed);
                *units += 1;
                (Body::None, false)
            }
        }
    }

    fn serve(self: &Arc<Self>, life: Box<dyn Dormant>) -> Polled {
        let life = Box::into_raw(life);
        let mut pending = None;
        // SAFETY: it is ours, and nobody uses it meanwhile.
        let served = self.polled(|cx| unsafe { (*life).serve_now(cx, &mut pending) });
        // SAFETY: as it asks for.
        unsafe { served_as(life, served, pending) }
    }

    fn poll(self: &Arc<Self>, mut active: Active) -> Polled {
        match self.polled(|cx| active.poll(cx)) {
            Ok(Poll::Ready(outcome)) => Ok(Ok(outcome)),
            Ok(Poll::Pending) => Ok(Err(active)),
            Err(panic) => {
                drop_guarded(active);
                Err(panic)
            }
        }
    }

    /// Calls `step` as a poll of this actor.
    #[inline]
    fn polled<T>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Context<'_>) -> T,
    ) -> std::thread::Result<T> {
        // SAFETY: only local actors are run.
        let cell = unsafe { self.cell_unchecked() };
        let before = wait_graph::enter(Arc::as_ptr(cell.core()).addr(), cell.uid());
        let waker = waker_ref(self);
        let mut cx = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| step(&mut cx)));
        wait_graph::leave(before);
        polled
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
        self.cell().identity().own_name()
    }

    fn uid(&self) -> u64 {
        self.cell().uid()
    }

    fn place(&self) -> family::Place {
        let still = self.cell().mailbox.owner();
        family::Place {
            list: still.place_list.load(Relaxed),
            index: still.place_index.load(Relaxed),
        }
    }

    fn set_place(&self, place: family::Place) {
        let still = self.cell().mailbox.owner();
        still.place_list.store(place.list, Relaxed);
        still.place_index.store(place.index, Relaxed);
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

    fn bury(self: Arc<Self>, child: &dyn Node, reason: Ended) {
        let cell = self.cell();
        let (buried, wait_is_over, is_told) = cell.mailbox.kin_or_new(|kin| {
            let child = kin.children.bury(child.place(), child.uid());
            let childless = kin.children.is_empty();
            if childless {
                kin.children = Children::default();
            }
            let closed = cell.fate().load(Acquire) & CLOSED != 0;
            (child, childless && closed, kin.watches_children)
        });
        if is_told && buried.is_some() {
            let news = Terminated::new(child.path().clone(), child.uid(), reason);
            WatchSink::ended(self.clone(), OF_A_CHILD, news);
        }
        drop(buried);
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
            drop_guarded(unsafe { cell.body.take(cell.form()) });
        }
        self.end(Ended::Stopped);
    }
}

#[cfg(all(test, otava_loom))]
mod loom_models;

#[cfg(all(test, not(otava_loom)))]
mod tests {
    use super::*;
    use std::mem::offset_of;

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

    /// A cell begins at any multiple of 16. So that no cache line of 64 bytes has both, what senders
    /// touch last (the pointer to what all children share) ends at least 48 bytes before what the
    /// holder of the token touches.
    #[test]
    fn senders_and_the_holder_of_the_token_share_no_cache_line() {
        let read_by_senders = offset_of!(Still, identity) + size_of::<Arc<Above>>();
        assert!(Mailbox::<[u64; 3], Still, Desk, Kin>::APART - read_by_senders >= 48);
    }
}
