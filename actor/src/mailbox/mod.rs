//! Mailbox: what is accepted, in which order it is taken, who is woken.
//!
//! # Lanes
//! - The **queue** ([`queue`]) holds messages, bounded by count. Mailboxes with an order or a bound
//!   of their own (priority, drop-oldest) divert theirs to an [`Order`] behind a lock.
//! - The **side lane** holds what must not be refused: news that a watched actor ended, which must
//!   arrive behind what that actor sent, and results of the actor's own pipes. Each entry knows the
//!   index in the queue that it stands behind. It is not counted against the bound.
//! - The **system lane** is a set of bits, the [`Signals`]: a request folds into its bit, so the lane
//!   needs no memory, cannot be full, and nothing in it can be lost. They are looked at between any
//!   two messages.
//!
//! # Who wakes whom
//! - The queue says whether the caller has to schedule the actor. News is written first, then its
//!   signal is set, then the queue is told ([`queue::Queue::unpark_idle`]). If the token is away, that
//!   leaves a notice, with which the consumer does not get to park: it looks at the signals once more.
//!   So it need not look after it has parked, when the mailbox may be gone.
//! - A sender that waits for room stands in line under the lock, sets its signal, goes through the
//!   queue's word, and looks at the room once more. The consumer wakes the first of the line whenever
//!   it parks or ends its turn, so that they fill the room of a turn at once. A sender keeps
//!   its place until it has sent or is dropped, so a wake-up that meets a dropped sender, or one
//!   whose room was taken by a `tell`, is not lost: the next look counts from the front again.
//!
//! # What can go wrong
//! A message is dropped only by those who count it. Destructors of messages are code of users and
//! never run under a lock.

mod block;
mod line;
#[cfg(all(test, otava_loom))]
mod loom_models;
mod order;
mod queue;
#[cfg(all(test, not(otava_loom)))]
mod random;

use crate::error::TellError;
use crate::failure::guarded_call;
use crate::late::Late;
use crate::observe::mark::Extra;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::sync::{Mutex, lock};
use crate::watch::Terminated;
use line::Line;
pub(crate) use order::{Order, Rank};
pub(crate) use queue::{AtRest, Claim, Consumer, Look, Refusal, Seen, Wake};
use queue::{Popped, Queue};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// How many messages an actor handles before others get their turn.
pub(crate) const BATCH: u8 = 64;

/// Bits of the system lane.
pub(crate) struct Signals;

impl Signals {
    /// Something is in the side lane, or in the order of a diverted mailbox.
    pub(crate) const NEWS: u8 = 1;
    /// Stop before the next message.
    pub(crate) const STOP: u8 = 1 << 1;
    /// Senders wait for room.
    pub(crate) const SENDERS: u8 = 1 << 2;
    /// The actor was ended from outside: whoever has the token drops it.
    pub(crate) const ABANDONED: u8 = 1 << 3;
    /// A child has failed and left the failure to this actor.
    pub(crate) const CHILD_FAILED: u8 = 1 << 4;
    /// The actor's group wants something.
    pub(crate) const GROUP_WANTS: u8 = 1 << 5;
}

/// What the system lane asks for; later ones win over earlier ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// What is queued is handled, nothing more is accepted, then the actor stops.
    Draining,
    /// The actor stops after the message in work.
    Stopping,
}

/// What does not count against the bound.
pub(crate) enum Free<M> {
    /// A message of the actor to itself, or one that could not be given back; and what lies beside it.
    Message(M, Extra),
    /// The end of a watched actor, with the number of the registration.
    Ended(Box<(u64, Terminated)>),
}

/// What the consumer found.
pub(crate) enum Taken<M> {
    /// A message, and what lay beside it.
    Message(M, Extra),
    Free(Free<M>),
    /// Nothing: the actor may park.
    Nothing,
    /// A message is just being put there: come again.
    Soon,
    /// The actor shall stop now.
    Stop,
}

/// A message that was left when its actor ended.
pub(crate) struct Left<M>(pub(crate) M);

/// `T` is what the owner wants to have between the words of producers and those of the consumer, so
/// that these do not share a cache line; `S` is what it wants beside the latter; `K` is what it has
/// only at times, kept under the same lock as what the mailbox has only at times.
pub(crate) struct Mailbox<M, T, S, K> {
    queue: Queue<M, Middle<M, T, K>, S>,
}

#[repr(C)]
struct Middle<M, T, K> {
    owner: T,
    rest: Late<Mutex<Rest<M, K>>>,
}

/// What only some mailboxes have, or only at times.
struct Rest<M, K> {
    /// Behind which index of the queue each entry stands.
    side: VecDeque<(u64, Free<M>)>,
    line: Line,
    order: Option<Box<Order<M>>>,
    kin: K,
}

impl<M, K: Default> Rest<M, K> {
    fn new(order: Option<Box<Order<M>>>) -> Self {
        Self {
            side: VecDeque::new(),
            line: Line::new(),
            order,
            kin: K::default(),
        }
    }
}

impl<M, T, S, K: Default> Mailbox<M, T, S, K> {
    #[cfg(all(test, not(otava_loom)))]
    pub(crate) const APART: usize = Queue::<M, Middle<M, T, K>, S>::APART;

    /// A mailbox for at most `capacity` messages whose token is with the caller.
    pub(crate) fn new(
        capacity: u32,
        order: Option<Box<Order<M>>>,
        owner: T,
        desk: S,
    ) -> (Self, Consumer) {
        let diverted = order.is_some();
        let rest = diverted.then(|| Box::new(Mutex::new(Rest::new(order))));
        let middle = Middle {
            owner,
            rest: Late::new(rest),
        };
        let (queue, consumer) = Queue::new(capacity, diverted, middle, desk);
        (Self { queue }, consumer)
    }

    pub(crate) fn owner(&self) -> &T {
        &self.queue.middle.owner
    }

    #[inline]
    pub(crate) fn desk(&self) -> &S {
        &self.queue.desk
    }

    /// What the owner keeps under the same lock. `body` is short and calls nobody. Without a lock,
    /// if there is nothing: somebody may be about to make it, and what orders the two is the caller's
    /// to say.
    pub(crate) fn kin<R>(&self, body: impl FnOnce(Option<&mut K>) -> R) -> R {
        match self.more() {
            Some(rest) => body(Some(&mut lock(rest).kin)),
            None => body(None),
        }
    }

    pub(crate) fn kin_or_new<R>(&self, body: impl FnOnce(&mut K) -> R) -> R {
        body(&mut lock(self.more_or_new()).kin)
    }

    fn more(&self) -> Option<&Mutex<Rest<M, K>>> {
        self.queue.middle.rest.get()
    }

    fn more_or_new(&self) -> &Mutex<Rest<M, K>> {
        let rest = &self.queue.middle.rest;
        rest.get_or_make(|| Mutex::new(Rest::new(None)))
    }

    /// Looks at the order of a diverted mailbox.
    fn with_order<R>(&self, body: impl FnOnce(&mut Order<M>) -> R) -> Option<R> {
        let mut rest = lock(self.more()?);
        rest.order.as_mut().map(|order| body(order))
    }

    /// Queues `message`. What a mailbox gives up for it goes to `given_up`.
    pub(crate) fn push(
        &self,
        message: M,
        extra: Extra,
        given_up: impl FnOnce(M),
    ) -> Result<Wake, TellError<M>> {
        match self.claim() {
            Ok(claim) => Ok(claim.fill(message, extra)),
            Err(refusal) => self.push_refused(refusal, message, extra, given_up),
        }
    }

    /// A place in the queue, for one who fills it at once; else [`Mailbox::push_refused`] goes on.
    #[inline(always)]
    pub(crate) fn claim(&self) -> Result<Claim<M>, Refusal> {
        self.queue.claim()
    }

    /// What becomes of a message that got no place in the queue.
    #[cold]
    pub(crate) fn push_refused(
        &self,
        refusal: Refusal,
        message: M,
        extra: Extra,
        given_up: impl FnOnce(M),
    ) -> Result<Wake, TellError<M>> {
        match refusal {
            Refusal::Full => Err(TellError::Full(message)),
            Refusal::Closed => Err(TellError::Stopped(message)),
            Refusal::Diverted => self.push_diverted(message, extra, given_up),
        }
    }

    fn push_diverted(
        &self,
        message: M,
        extra: Extra,
        given_up: impl FnOnce(M),
    ) -> Result<Wake, TellError<M>> {
        let ranks = self.with_order(|order| order.rank()).flatten();
        let rank = ranks.map_or(Ok(0), |ranks| guarded_call(|| ranks(&message)));
        let rank = rank.unwrap_or_else(|failure| {
            tracing::warn!(%failure, "the rank of a message could not be told: it comes last");
            i64::MIN
        });
        let pushed = {
            let mut rest = lock(self.more_or_new());
            match rest.order.as_mut() {
                Some(order) if !self.queue.is_closed() => order.push(message, extra, rank),
                _ => return Err(TellError::Stopped(message)),
            }
        };
        let dropped = pushed.map_err(TellError::Full)?;
        self.queue.signals.fetch_or(Signals::NEWS, AcqRel);
        let wake = self.queue.unpark_idle();
        if let Some(oldest) = dropped {
            given_up(oldest);
        }
        Ok(wake)
    }

    /// What [`Mailbox::push`] would say now, for those who must know before they make the message.
    pub(crate) fn admits(&self) -> Result<(), TellError<()>> {
        if self.queue.is_closed() {
            return Err(TellError::Stopped(()));
        }
        if self.room() == 0 {
            Err(TellError::Full(()))
        } else {
            Ok(())
        }
    }

    /// How many more messages would be taken.
    pub(crate) fn room(&self) -> u64 {
        match self.queue.is_diverted() {
            false => self.queue.room(),
            true => self.with_order(|order| order.room()).unwrap_or(0),
        }
    }

    /// News that was taken and is to be looked at once more, before everything else.
    pub(crate) fn return_news(&self, news: Box<(u64, Terminated)>) {
        let mut rest = lock(self.more_or_new());
        rest.side.push_front((0, Free::Ended(news)));
        self.queue.signals.fetch_or(Signals::NEWS, AcqRel);
    }

    /// Queues `entry` beyond the bound; gives it back if the actor accepts nothing any more.
    pub(crate) fn push_free(&self, entry: Free<M>) -> Result<Wake, Free<M>> {
        if self.queue.is_closed() {
            return Err(entry);
        }
        {
            let mut rest = lock(self.more_or_new());
            // Whoever closes the queue after this sees what is made above, and looks here.
            self.queue.settle();
            if self.queue.is_closed() {
                return Err(entry);
            }
            let behind = match &rest.order {
                Some(order) => order.pushed(),
                None => self.queue.end(),
            };
            rest.side.push_back((behind, entry));
            self.queue.signals.fetch_or(Signals::NEWS, AcqRel);
        }
        Ok(self.queue.unpark_idle())
    }

    /// One look of a sender that waits for room. `place` is where it stands in the line, from its
    /// second look on.
    pub(crate) fn poll_push(
        &self,
        message: &mut Option<M>,
        extra: impl Fn() -> Extra,
        place: &mut Option<u64>,
        cx: &mut Context<'_>,
        given_up: impl Fn(M),
    ) -> Poll<Result<Wake, TellError<M>>> {
        let mut result = self.try_push(message, extra(), &given_up);
        if matches!(result, Err(TellError::Full(()))) {
            let waker = cx.waker().clone();
            let before = {
                let mut rest = lock(self.more_or_new());
                let (stands, before) = rest.line.stand(*place, waker);
                *place = Some(stands);
                self.queue.signals.fetch_or(Signals::SENDERS, AcqRel);
                before
            };
            drop(before);
            // The word orders this look and the consumer's: room that is not seen here yet is seen
            // by the consumer together with the signal.
            self.queue.settle();
            result = self.try_push(message, extra(), &given_up);
        }
        let result = match result {
            Err(TellError::Full(())) => return Poll::Pending,
            Err(_) => Err(TellError::Stopped(
                message
                    .take()
                    .expect("a sender is not polled after it is done"),
            )),
            Ok(pushed) => Ok(pushed),
        };
        if let Some(place) = place.take() {
            self.leave_line(place);
        }
        Poll::Ready(result)
    }

    fn try_push(
        &self,
        message: &mut Option<M>,
        extra: Extra,
        given_up: impl FnOnce(M),
    ) -> Result<Wake, TellError<()>> {
        let taken = message
            .take()
            .expect("a sender is not polled after it is done");
        self.push(taken, extra, given_up)
            .map_err(|refused| refused.map(|back| *message = Some(back)))
    }

    /// A waiting sender goes away; the wake-up it may have got goes to the next.
    pub(crate) fn leave_line(&self, place: u64) {
        let (gone, woken) = {
            let Some(rest) = self.more() else { return };
            let mut rest = lock(rest);
            (rest.line.leave(place), self.next_in_line(&mut rest))
        };
        drop(gone);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Wakes as many waiting senders as there is room for. For the consumer.
    #[cold]
    pub(crate) fn wake_senders(&self) {
        let woken = {
            let Some(rest) = self.more() else { return };
            self.next_in_line(&mut lock(rest))
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn next_in_line(&self, rest: &mut Rest<M, K>) -> Vec<Waker> {
        let room = match &rest.order {
            Some(order) => order.room(),
            None => self.queue.room(),
        };
        let room = if self.queue.is_closed() {
            u64::MAX
        } else {
            room
        };
        let woken = rest.line.wake(room);
        if rest.line.is_empty() {
            self.queue.signals.fetch_and(!Signals::SENDERS, AcqRel);
        }
        woken
    }

    /// Asks for a later phase. Nothing happens if that or more was asked for before. Whatever the
    /// actor waits for, it looks at this.
    pub(crate) fn request(&self, phase: Phase) -> Wake {
        if phase == Phase::Stopping {
            self.queue.signals.fetch_or(Signals::STOP, AcqRel);
        }
        let wake = self.queue.close_and_notify();
        self.after_turn();
        wake
    }

    /// Accepts nothing any more. For the consumer, which stops.
    pub(crate) fn shut(&self) {
        if self.is_open() {
            let Wake(_) = self.request(Phase::Stopping);
        }
    }

    /// Whether it is closed and nothing is left in it. For the consumer.
    #[inline]
    pub(crate) fn is_over(&self, consumer: &Consumer) -> bool {
        self.queue.is_over(consumer) && self.signals() & Signals::NEWS == 0
    }

    /// The actor is ended from outside. `true`: the caller has its token now and drops it; else
    /// whoever has the token does, and is kept from putting it down by a notice.
    pub(crate) fn abandon(&self) -> bool {
        self.queue
            .signals
            .fetch_or(Signals::ABANDONED | Signals::STOP, AcqRel);
        let wake = self.queue.close_and_notify();
        self.wake_senders();
        wake == Wake(true)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// The signals that are set. For the consumer, between messages.
    #[inline]
    pub(crate) fn signals(&self) -> u8 {
        self.queue.signals.load(Relaxed)
    }

    /// Sets a signal. Whoever does notifies the actor afterwards.
    pub(crate) fn flag(&self, signal: u8) {
        self.queue.signals.fetch_or(signal, AcqRel);
    }

    /// Takes a signal back.
    pub(crate) fn clear(&self, signal: u8) {
        self.queue.signals.fetch_and(!signal, AcqRel);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.queue.signals.load(Acquire) & Signals::ABANDONED != 0
    }

    /// Whether the actor shall stop before the next message.
    pub(crate) fn stop_requested(&self) -> bool {
        self.queue.signals.load(Relaxed) & Signals::STOP != 0
    }

    /// How many messages wait, without the one in work.
    pub(crate) fn len(&self) -> usize {
        let mut len = self.queue.len();
        if self.queue.is_diverted() {
            len = self.with_order(|order| order.len()).unwrap_or(0);
        }
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// What comes next, at a glance.
    #[inline]
    pub(crate) fn look(&self, consumer: &Consumer) -> Look<M> {
        if self.queue.signals.load(Relaxed) & !Signals::SENDERS != 0 {
            return Look::Other;
        }
        self.queue.look(consumer)
    }

    /// The message that [`Mailbox::look`] has seen.
    ///
    /// # Safety
    /// `seen` is from the last look at this mailbox, and nothing was taken since.
    #[allow(unsafe_code, reason = "passes on what the queue asks for")]
    #[inline]
    pub(crate) unsafe fn take_seen(&self, consumer: &mut Consumer, seen: Seen<M>) -> M {
        // SAFETY: as the caller promises.
        unsafe { self.queue.pop_seen(consumer, seen) }
    }

    /// The next thing to do.
    #[inline]
    pub(crate) fn take(&self, consumer: &mut Consumer) -> Taken<M> {
        let signals = self.queue.signals.load(Relaxed);
        if signals & !Signals::SENDERS != 0
            && let Some(taken) = self.attend(signals)
        {
            return taken;
        }
        match self.queue.pop(consumer) {
            Popped::Message(message, extra) => Taken::Message(message, extra),
            Popped::Empty => Taken::Nothing,
            Popped::Coming => Taken::Soon,
            Popped::Over => self.last(),
        }
    }

    /// Looks at the system lane and the side lane.
    #[cold]
    fn attend(&self, signals: u8) -> Option<Taken<M>> {
        if signals & Signals::STOP != 0 {
            return Some(Taken::Stop);
        }
        if signals & Signals::NEWS == 0 {
            return None;
        }
        let mut rest = lock(self.more()?);
        let rest = &mut *rest;
        let begin = match &rest.order {
            Some(order) => order.taken(),
            None => self.queue.begin(),
        };
        if rest
            .side
            .front()
            .is_some_and(|(behind, _)| *behind <= begin)
        {
            return rest.side.pop_front().map(|(_, entry)| Taken::Free(entry));
        }
        if let Some(order) = rest.order.as_mut()
            && let Some((message, extra)) = order.pop()
        {
            return Some(Taken::Message(message, extra));
        }
        if rest.side.is_empty() {
            self.queue.signals.fetch_and(!Signals::NEWS, AcqRel);
        }
        None
    }

    /// The queue is empty and closed. What came to the side lane before it was closed is still due.
    #[cold]
    fn last(&self) -> Taken<M> {
        let Some(rest) = self.more() else {
            return Taken::Stop;
        };
        let mut rest = lock(rest);
        if let Some((message, extra)) = rest.order.as_mut().and_then(|order| order.pop()) {
            return Taken::Message(message, extra);
        }
        let entry = rest.side.pop_front();
        entry.map_or(Taken::Stop, |(_, entry)| Taken::Free(entry))
    }

    /// The end of a turn, or a handler is pending: puts the token down. `false`: it was notified
    /// meanwhile, the token stays with the caller.
    pub(crate) fn park(&self) -> bool {
        let parked = self.queue.park();
        self.after_turn();
        parked
    }

    /// Puts the token down if there is nothing to do. `false`: there is, and the token stays with
    /// the caller.
    ///
    /// # Safety
    /// The caller holds the token.
    #[allow(unsafe_code, reason = "passes on what the queue asks for")]
    #[inline]
    pub(crate) unsafe fn park_idle(&self) -> bool {
        // SAFETY: as the caller promises.
        if !unsafe { self.queue.park_idle() } {
            return false;
        }
        let signals = self.queue.signals.load(Acquire);
        if signals == 0 {
            return true;
        }
        self.after_turn();
        let urgent = !Signals::SENDERS;
        // If it is idle no more, somebody else has taken the token and runs it.
        signals & urgent == 0 || self.queue.unpark_idle() == Wake(false)
    }

    /// Puts the token down if there is nothing to do, for one who has just seen that there are no
    /// signals. The mailbox is not looked at afterwards: if this returns `true`, it may be gone.
    ///
    /// # Safety
    /// The caller holds the token.
    #[allow(unsafe_code, reason = "passes on what the queue asks for")]
    #[inline]
    pub(crate) unsafe fn park_unseen(&self) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.queue.park_idle() }
    }

    /// Whether no signal is set. One that is set after this keeps the token from being put down, since
    /// whoever sets it tells the queue afterwards.
    #[inline]
    pub(crate) fn has_no_signals(&self) -> bool {
        self.queue.signals.load(Relaxed) == 0
    }

    /// Senders get what room there is.
    pub(crate) fn after_turn(&self) {
        if self.queue.signals.load(Acquire) & Signals::SENDERS != 0 {
            self.wake_senders();
        }
    }

    /// What the holder of the token is about.
    pub(crate) fn rest(&self) -> AtRest {
        self.queue.at_rest()
    }

    /// Something that the actor waits for may have come.
    pub(crate) fn notify(&self) -> Wake {
        self.queue.notify()
    }

    /// Gives out what is left in a mailbox that was closed, one by one; `None` at the end. For the
    /// consumer.
    pub(crate) fn take_left(&self, consumer: &mut Consumer) -> Option<Left<M>> {
        debug_assert!(!self.is_open(), "or more would come");
        if !self.queue.is_over(consumer) {
            let mut tries = 0;
            loop {
                match self.queue.pop(consumer) {
                    Popped::Message(message, _) => return Some(Left(message)),
                    Popped::Coming => crate::sync::spin(&mut tries),
                    Popped::Empty | Popped::Over => break,
                }
            }
        }
        if self.signals() & Signals::NEWS == 0 {
            return None;
        }
        let mut rest = lock(self.more()?);
        if let Some((message, _)) = rest.order.as_mut().and_then(|order| order.pop()) {
            return Some(Left(message));
        }
        while let Some((_, entry)) = rest.side.pop_front() {
            if let Free::Message(message, _) = entry {
                return Some(Left(message));
            }
        }
        None
    }
}
