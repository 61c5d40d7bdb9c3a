//! Keeper: a producer's durable queue, if it has one, what it has to be told, and the producer's timer.

use super::config::ProducerConfig;
use super::error::StartError;
use super::payload::PayloadError;
use super::queue::{DeliveryQueue, QueueError, QueueState, StoredMessage};
use crate::logic::delivery::ledger::{Ledger, Operation};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use otava_actor::{Actor, ActorSystem, Context, Time};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Holds what a producer takes back until its queue has stored it. Without a queue it holds nothing.
pub(super) struct Keeper<T> {
    queue: Option<Claimed>,
    /// What is not stored yet, by number.
    held: VecDeque<Held<T>>,
    timer: Option<Time>,
}

struct Held<T> {
    number: u64,
    what: T,
    /// Who waits until it is stored.
    waits: Option<oneshot::Sender<()>>,
}

/// What the queue answers.
pub(super) type Kept = Result<(), QueueError>;

impl<T: Send> Keeper<T> {
    /// Claims the queue of `config`. Without one there is nothing to keep, and a numbering of its own.
    /// Each message that it keeps must pass `check`.
    pub(super) async fn claim(
        system: &ActorSystem,
        config: &ProducerConfig,
        check: impl Fn(&[u8]) -> Result<(), PayloadError>,
    ) -> Result<(Self, QueueState), StartError> {
        let series = system.rng().next_u64();
        let mut keeper = Self {
            queue: None,
            held: VecDeque::new(),
            timer: None,
        };
        let Some(queue) = config.queue.clone() else {
            return Ok((keeper, QueueState::new(series, 1, 0, Vec::new())));
        };
        let mut state = queue.claim(series).await?;
        state.unconfirmed.sort_by_key(|message| message.number);
        for message in &state.unconfirmed {
            check(&message.bytes).map_err(|why| StartError::unreadable(message.number, &why))?;
        }
        keeper.queue = Some(Claimed {
            queue,
            claim: state.claim,
            ledger: Ledger::default(),
        });
        Ok((keeper, state))
    }

    /// Stores what `message` makes of `what`, and holds that until it is done; `waits` is told then.
    /// Gives it back at once when there is no queue.
    pub(super) fn store(
        &mut self,
        what: T,
        message: impl FnOnce(&T) -> StoredMessage,
        waits: Option<oneshot::Sender<()>>,
    ) -> Option<T> {
        let Some(claimed) = &mut self.queue else {
            return Some(what);
        };
        let message = message(&what);
        let number = message.number;
        claimed.ledger.store(message);
        self.held.push_back(Held {
            number,
            what,
            waits,
        });
        None
    }

    pub(super) fn confirm(&mut self, number: u64) {
        if let Some(claimed) = &mut self.queue {
            claimed.ledger.confirm(number);
        }
    }

    /// What is stored now that the queue has answered.
    ///
    /// # Errors
    /// [`QueueError::Superseded`]: this producer must end.
    pub(super) fn kept(&mut self, now: Time, answer: Kept) -> Result<Vec<T>, QueueError> {
        let Some(claimed) = &mut self.queue else {
            return Ok(Vec::new());
        };
        match answer {
            Ok(()) => {
                let last = claimed.ledger.done().last().copied().unwrap_or(0);
                let stored = self.held.partition_point(|held| held.number <= last);
                let stored = self.held.drain(..stored).map(|held| {
                    if let Some(waits) = held.waits {
                        // Whether somebody waits for it does not matter.
                        let _ = waits.send(());
                    }
                    held.what
                });
                Ok(stored.collect())
            }
            Err(QueueError::Superseded { claim }) => Err(QueueError::Superseded { claim }),
            Err(error) => {
                tracing::warn!(%error, "the queue of a producer is asked again");
                claimed.ledger.failed(now);
                Ok(Vec::new())
            }
        }
    }

    /// The timer has fired: what the queue could not do is tried again.
    pub(super) fn handle_timeout<A: Actor>(
        &mut self,
        ctx: &mut Context<A>,
        kept: fn(Kept) -> A::Msg,
    ) {
        self.timer = None;
        let now = ctx.now();
        if let Some(claimed) = &mut self.queue
            && let Some(operation) = claimed.ledger.handle_timeout(now)
        {
            ctx.pipe_to_self(claimed.tell(operation), kept);
        }
    }

    /// Tells the queue what there is to tell, and sets the timer to `tick` at `next`, or earlier if the
    /// queue wants that.
    pub(super) fn carry_out<A: Actor>(
        &mut self,
        ctx: &mut Context<A>,
        next: Option<Time>,
        kept: fn(Kept) -> A::Msg,
        tick: A::Msg,
    ) {
        let mut again = None;
        if let Some(claimed) = &mut self.queue {
            if let Some(operation) = claimed.ledger.begin() {
                ctx.pipe_to_self(claimed.tell(operation), kept);
            }
            again = claimed.ledger.poll_timeout();
        }
        let timer = next.into_iter().chain(again).min();
        if timer != self.timer {
            self.timer = timer;
            match timer {
                Some(at) => ctx.timer_at("tick", at, tick),
                None => drop(ctx.cancel_timer("tick")),
            }
        }
    }
}

/// A queue, and by which claim it is told.
struct Claimed {
    queue: Arc<dyn DeliveryQueue>,
    claim: u64,
    ledger: Ledger,
}

impl Claimed {
    fn tell(&self, operation: Operation) -> BoxFuture<'static, Kept> {
        let (queue, claim) = (self.queue.clone(), self.claim);
        let told = async move {
            match operation {
                Operation::Confirm(numbers) => queue.confirm(claim, numbers).await,
                Operation::Store(messages) => queue.store(claim, messages).await,
            }
        };
        // Without an answer nothing would ever be stored again.
        let told = AssertUnwindSafe(told).catch_unwind();
        Box::pin(told.map(|told| {
            told.unwrap_or_else(|panic| {
                let panic = otava_actor::describe_panic(panic);
                Err(QueueError::failed(format_args!("it panicked: {panic}")))
            })
        }))
    }
}
