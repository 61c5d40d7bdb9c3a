//! Delivering: takes letters to their targets, each target by a child of the entity's actor.
//!
//! A child has the letters that waited for its target when it began. It ends when the target has taken
//! all of them, or some and then no more; its end tells the entity, which writes down how far the
//! target is, and begins the next child. So a target that answers nothing holds up no other, and
//! the entity's own mailbox sees nothing of it.

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

/// The children of one entity that deliver, by their numbers in the system.
#[derive(Default)]
pub(super) struct Deliveries {
    running: BTreeMap<u64, (PersistenceId, Arc<AtomicU64>)>,
    targets: BTreeSet<PersistenceId>,
    /// The target behind which to look for the next one, so that each has its turn.
    last: Option<PersistenceId>,
}

impl Deliveries {
    /// Begins a child for each target that letters wait for and that has none, as far as is allowed.
    pub(super) fn start<A: Actor>(&mut self, outbox: &Outbox, place: &Place, ctx: &mut Context<A>) {
        let Some(courier) = &place.courier else {
            return;
        };
        while self.targets.len() < place.options.letter_targets.get() {
            let Some(target) = self.next_target(outbox) else {
                return;
            };
            let confirmed = Arc::new(AtomicU64::new(0));
            let child = Child {
                courier: Arc::clone(courier),
                letters: letters(outbox, &place.id, &target),
                retry: place.options.letter_retry,
                in_flight_max: place.options.letters_in_flight.get(),
                in_flight: 0,
                next: 0,
                taken: 0,
                failed: false,
                round: 0,
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
            self.running
                .insert(child.uid(), (target.clone(), confirmed));
            self.targets.insert(target.clone());
            self.last = Some(target);
        }
    }

    /// The next target without a child, behind the last one that got one.
    fn next_target(&self, outbox: &Outbox) -> Option<PersistenceId> {
        let mut waiting = outbox.targets(self.last.as_ref());
        waiting
            .find(|target| !self.targets.contains(*target))
            .cloned()
    }

    /// Which letters a child that has ended brought to its target.
    pub(super) fn ended(&mut self, who: &Terminated) -> Option<(PersistenceId, u64)> {
        let (target, confirmed) = self.running.remove(&who.uid)?;
        self.targets.remove(&target);
        Some((target, confirmed.load(Ordering::Acquire)))
    }
}

fn letters(outbox: &Outbox, from: &PersistenceId, to: &PersistenceId) -> VecDeque<Parcel> {
    let (from, target): (Arc<str>, Arc<str>) = (from.as_str().into(), to.as_str().into());
    let mut bytes = 0;
    let waiting = outbox.waiting(to, LETTERS_OF_CHILD);
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
    retry: (Duration, Duration),
    in_flight_max: usize,
    in_flight: usize,
    /// How many of `letters` were handed to the courier since the last pause.
    next: usize,
    /// How many letters the target has taken since this child began.
    taken: u64,
    /// Some letter of this round was not taken.
    failed: bool,
    /// How often nothing was taken.
    round: u32,
    /// What the entity reads when this has ended.
    confirmed: Arc<AtomicU64>,
}

enum Message {
    Answered(Result<Receipt, CourierError>),
    Again,
}

impl Actor for Child {
    type Msg = Message;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        self.hand_over(ctx);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: Message,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match message {
            Message::Again => self.failed = false,
            Message::Answered(answer) => self.answered(answer),
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
                    self.taken += 1;
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

    /// Sends what may be under way; after a round in which something was not taken, ends or waits.
    fn hand_over(&mut self, ctx: &mut Context<Self>) {
        if self.letters.is_empty() {
            ctx.stop_self();
            return;
        }
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
        if self.in_flight > 0 {
            return;
        }
        // Nothing is under way and letters are left: something was not taken.
        self.next = 0;
        if self.taken > 0 {
            ctx.stop_self();
            return;
        }
        self.warn_now_and_then();
        ctx.timer_once("again", self.wait(), Message::Again);
        self.round = self.round.saturating_add(1);
    }

    fn wait(&self) -> Duration {
        let (shortest, longest) = self.retry;
        let factor = 1_u32.checked_shl(self.round).unwrap_or(u32::MAX);
        shortest.saturating_mul(factor).min(longest)
    }

    fn warn_now_and_then(&self) {
        if let Some(letter) = self.letters.front()
            && (self.round + 1).is_multiple_of(8)
        {
            let (from, to, number, rounds) =
                (&letter.from, &letter.to, letter.number, self.round + 1);
            tracing::warn!(%from, %to, number, rounds, "a letter is not taken");
        }
    }
}
