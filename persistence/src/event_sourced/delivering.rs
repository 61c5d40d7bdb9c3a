//! Delivering: takes letters to their targets, each target by a child of the entity's actor.
//!
//! A child has the letters that waited for its target when it began. It ends when the target has taken
//! all of them, or some and then no more; its end tells the entity, which writes down how far the
//! target is, and begins the next child. The entity's own mailbox sees nothing of it.
//!
//! A target that took nothing gets a child that waits first and then tries one letter; such children do
//! not count among those that may be at work. So targets that answer nothing hold up no other.

use crate::event_sourced::entity::Place;
use crate::event_sourced::{Courier, CourierError, Parcel, Receipt};
use crate::id::PersistenceId;
use crate::logic::outbox::Outbox;
use futures_util::FutureExt as _;
use otava_actor::watch::Terminated;
use otava_actor::{Actor, ActorRef, Context, Props};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Letters that one child has at most, and their bytes, unless one is larger.
const LETTERS_OF_CHILD: usize = 256;
const BYTES_OF_CHILD: usize = 4 << 20;

/// Children of one entity that wait before they try; more targets have to wait for their turn.
const RESTING_MAX: usize = 64;

/// The children of one entity that deliver.
#[derive(Default)]
pub(super) struct Deliveries {
    /// By their numbers in the system.
    running: BTreeMap<u64, Running>,
    targets: BTreeSet<PersistenceId>,
    /// Targets that took nothing, and how often in a row.
    silent: BTreeMap<PersistenceId, u32>,
    /// The target behind which to look for the next one, so that each has its turn.
    last: Option<PersistenceId>,
}

struct Running {
    target: PersistenceId,
    is_resting: bool,
    confirmed: Arc<AtomicU64>,
}

impl Deliveries {
    /// Begins a child for each target that letters wait for and that has none, as far as is allowed.
    pub(super) fn start<A: Actor>(&mut self, outbox: &Outbox, place: &Place, ctx: &mut Context<A>) {
        let Some(courier) = &place.courier else {
            return;
        };
        let at_work_max = place.options.letter_targets.get();
        while let Some(target) = self.next_target(outbox, at_work_max) {
            let confirmed = Arc::new(AtomicU64::new(0));
            let rounds = self.silent.get(&target).copied();
            let most = if rounds.is_some() {
                1
            } else {
                LETTERS_OF_CHILD
            };
            let child = Child {
                courier: Arc::clone(courier),
                letters: letters(outbox, &place.id, &target, most),
                rest: rounds.map(|rounds| rest(place.options.letter_retry, rounds)),
                in_flight_max: place.options.letters_in_flight.get(),
                in_flight: 0,
                next: 0,
                failed: false,
                confirmed: Arc::clone(&confirmed),
            };
            let child: ActorRef<_> = match ctx.spawn_anonymous(Props::once(child)) {
                Ok(child) => child,
                Err(error) => {
                    let id = &place.id;
                    tracing::warn!(%id, %target, %error, "letters cannot be delivered now");
                    return;
                }
            };
            ctx.watch(&child);
            let running = Running {
                target: target.clone(),
                is_resting: rounds.is_some(),
                confirmed,
            };
            self.running.insert(child.uid(), running);
            self.targets.insert(target.clone());
            self.last = Some(target);
        }
    }

    /// The next target without a child, behind the last one that got one.
    fn next_target(&self, outbox: &Outbox, at_work_max: usize) -> Option<PersistenceId> {
        let resting = self.running.values().filter(|child| child.is_resting);
        let resting = resting.count();
        let may_rest = resting < RESTING_MAX;
        let may_work = self.running.len() - resting < at_work_max;
        if !may_rest && !may_work {
            return None;
        }
        let may_begin = |target: &&PersistenceId| {
            let is_silent = self.silent.contains_key(*target);
            !self.targets.contains(*target) && if is_silent { may_rest } else { may_work }
        };
        let mut waiting = outbox.targets(self.last.as_ref());
        waiting.find(may_begin).cloned()
    }

    /// Which letters a child that has ended brought to its target.
    pub(super) fn ended(&mut self, who: &Terminated) -> Option<(PersistenceId, u64)> {
        let Running {
            target, confirmed, ..
        } = self.running.remove(&who.uid)?;
        self.targets.remove(&target);
        let confirmed = confirmed.load(Ordering::Acquire);
        if confirmed > 0 {
            self.silent.remove(&target);
        } else {
            let rounds = self.silent.entry(target.clone()).or_default();
            *rounds = rounds.saturating_add(1);
            if rounds.is_multiple_of(8) {
                tracing::warn!(%target, rounds, "a target does not take its letters");
            }
        }
        Some((target, confirmed))
    }
}

/// How long to wait after a target took nothing, `rounds` times in a row.
fn rest((shortest, longest): (Duration, Duration), rounds: u32) -> Duration {
    let factor = 1_u32.checked_shl(rounds.saturating_sub(1));
    let rest = shortest.saturating_mul(factor.unwrap_or(u32::MAX));
    rest.min(longest)
}

/// The first letters to a target, at most `most`.
fn letters(
    outbox: &Outbox,
    from: &PersistenceId,
    to: &PersistenceId,
    most: usize,
) -> VecDeque<Parcel> {
    let (from, target): (Arc<str>, Arc<str>) = (from.as_str().into(), to.as_str().into());
    let mut bytes = 0;
    let waiting = outbox.waiting(to, most);
    waiting
        .take_while(|(_, letter)| {
            let is_first = bytes == 0;
            bytes += letter.payload.len() + 1;
            is_first || bytes <= BYTES_OF_CHILD
        })
        .map(|(number, letter)| Parcel {
            from: Arc::clone(&from),
            to: Arc::clone(&target),
            number,
            name: Arc::clone(&letter.name),
            version: letter.version,
            payload: letter.payload.clone(),
        })
        .collect()
}

struct Child {
    courier: Arc<dyn Courier>,
    /// In order; those that the target has are gone.
    letters: VecDeque<Parcel>,
    /// How long to wait first.
    rest: Option<Duration>,
    in_flight_max: usize,
    in_flight: usize,
    /// How many of `letters` were handed to the courier and not taken.
    next: usize,
    /// Some letter was not taken: no more are handed over.
    failed: bool,
    /// What the entity reads when this has ended.
    confirmed: Arc<AtomicU64>,
}

enum Message {
    Answered(Result<Receipt, CourierError>),
    Rested,
}

impl Actor for Child {
    type Msg = Message;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match self.rest {
            Some(rest) => ctx.timer_once("rested", rest, Message::Rested),
            None => self.hand_over(ctx),
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        message: Message,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match message {
            Message::Answered(answer) => self.answered(answer),
            Message::Rested => {}
        }
        self.hand_over(ctx);
        Ok(())
    }
}

impl Child {
    fn answered(&mut self, answer: Result<Receipt, CourierError>) {
        self.in_flight -= 1;
        match answer {
            Ok(Receipt::Taken { up_to }) => {
                while self.letters.front().is_some_and(|l| l.number <= up_to) {
                    self.letters.pop_front();
                    self.next = self.next.saturating_sub(1);
                    self.confirmed.fetch_max(up_to, Ordering::AcqRel);
                }
            }
            Ok(other) => self.not_taken(&format!("{other:?}")),
            Err(error) => self.not_taken(&error.reason),
        }
    }

    fn not_taken(&mut self, reason: &str) {
        self.failed = true;
        let Some(letter) = self.letters.front() else {
            return;
        };
        let (from, to, number) = (&letter.from, &letter.to, letter.number);
        tracing::debug!(%from, %to, number, reason, "a letter was not taken, and comes again");
    }

    /// Sends what may be under way. Ends when nothing is: all are taken, or one is not.
    fn hand_over(&mut self, ctx: &mut Context<Self>) {
        while !self.failed && self.in_flight < self.in_flight_max {
            let Some(parcel) = self.letters.get(self.next).cloned() else {
                break;
            };
            self.next += 1;
            self.in_flight += 1;
            let courier = Arc::clone(&self.courier);
            let answer = async move {
                let answer = AssertUnwindSafe(async { courier.deliver(parcel).await });
                let answer = answer.catch_unwind().await;
                answer.unwrap_or_else(|_| Err(CourierError::new("the courier panicked")))
            };
            ctx.pipe_to_self(answer, Message::Answered);
        }
        if self.in_flight == 0 {
            ctx.stop_self();
        }
    }
}
