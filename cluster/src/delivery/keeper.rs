//! Keeper: a producer's durable queue, and what it has to be told.

use super::config::ProducerConfig;
use super::error::StartError;
use super::payload::PayloadError;
use super::queue::{DeliveryQueue, QueueError, QueueState, StoredMessage};
use crate::logic::delivery::ledger::{Ledger, Operation};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use otava_actor::{ActorSystem, Time};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The queue of a producer that has one.
pub(super) struct Keeper {
    queue: Arc<dyn DeliveryQueue>,
    claim: u64,
    ledger: Ledger,
    /// Who waits until a message is stored, by number.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Keeper {
    /// Claims the queue of `config`. Without one there is nothing to keep, and a numbering of its own.
    /// Each message that it keeps must pass `check`.
    pub(super) async fn claim(
        system: &ActorSystem,
        config: &ProducerConfig,
        check: impl Fn(&[u8]) -> Result<(), PayloadError>,
    ) -> Result<(Option<Self>, QueueState), StartError> {
        let series = system.rng().next_u64();
        let Some(queue) = config.queue.clone() else {
            return Ok((None, QueueState::new(series, 1, 0, Vec::new())));
        };
        let mut state = queue.claim(series).await?;
        state.unconfirmed.sort_by_key(|message| message.number);
        for message in &state.unconfirmed {
            check(&message.bytes).map_err(|why| StartError::unreadable(message.number, &why))?;
        }
        let keeper = Self {
            queue,
            claim: state.claim,
            ledger: Ledger::default(),
            waiting: VecDeque::new(),
        };
        Ok((Some(keeper), state))
    }

    pub(super) fn store(&mut self, message: StoredMessage, stored: Option<oneshot::Sender<()>>) {
        if let Some(stored) = stored {
            self.waiting.push_back((message.number, stored));
        }
        self.ledger.store(message);
    }

    pub(super) fn confirm(&mut self, number: u64) {
        self.ledger.confirm(number);
    }

    /// What the queue is to be told now; the answer goes to [`Keeper::finished`].
    pub(super) fn begin(&mut self) -> Option<BoxFuture<'static, Result<(), QueueError>>> {
        self.ledger.begin().map(|operation| self.tell(operation))
    }

    /// Which messages are stored by what has ended.
    ///
    /// # Errors
    /// [`QueueError::Superseded`]: this producer must end.
    pub(super) fn finished(
        &mut self,
        now: Time,
        result: Result<(), QueueError>,
    ) -> Result<Vec<u64>, QueueError> {
        match result {
            Ok(()) => {
                let stored = self.ledger.done();
                let last = stored.last().copied().unwrap_or(0);
                while self.waiting.front().is_some_and(|(n, _)| *n <= last) {
                    if let Some((_, waits)) = self.waiting.pop_front() {
                        // Whether somebody waits for it does not matter.
                        let _ = waits.send(());
                    }
                }
                Ok(stored)
            }
            Err(QueueError::Superseded { claim }) => Err(QueueError::Superseded { claim }),
            Err(error) => {
                tracing::warn!(%error, "the queue of a producer is asked again");
                self.ledger.failed(now);
                Ok(Vec::new())
            }
        }
    }

    /// As [`Keeper::begin`], for what has failed before.
    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
    ) -> Option<BoxFuture<'static, Result<(), QueueError>>> {
        let operation = self.ledger.handle_timeout(now)?;
        Some(self.tell(operation))
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.ledger.poll_timeout()
    }

    fn tell(&self, operation: Operation) -> BoxFuture<'static, Result<(), QueueError>> {
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
