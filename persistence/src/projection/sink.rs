//! Sink: a handler of whichever kind, with the place that keeps its offset.

use crate::error::{ClaimError, JournalError};
use crate::journal::{Fence, Journal};
use crate::logic::projection::Blame;
use crate::logic::slices::{SliceOffset, carve, range_of};
use crate::offset::OffsetStore;
use crate::projection::{
    BatchHandler, Envelope, Handler, ProjectionCommit, ProjectionRun, TransactionError,
    TransactionalHandler,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::fmt::Display;
use std::sync::Arc;

/// A failure, as the machine and people need it.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) blame: Blame,
    pub(super) text: Arc<str>,
    /// Whether the handler may be in any state.
    pub(super) renew: bool,
}

impl Trouble {
    pub(super) fn new(blame: Blame, what: &str, error: impl Display) -> Self {
        let text = format!("{what}: {error}").into();
        Self {
            blame,
            text,
            renew: false,
        }
    }

    /// What a store says. One that is closed or has halted does not come back.
    pub(super) fn of_store(what: &str, error: JournalError) -> Self {
        let blame = match error {
            JournalError::Closed | JournalError::Halted { .. } => Blame::Final,
            _ => Blame::Other,
        };
        Self::new(blame, what, error)
    }

    fn of_handler(passes: bool, error: impl Display) -> Self {
        let blame = if passes { Blame::Other } else { Blame::Event };
        Self::new(blame, "the handler failed", error)
    }
}

/// What the driver needs of handler and offset.
pub(super) trait Sink<E>: Send {
    /// The offsets to go on behind, without a gap.
    fn load(&mut self) -> BoxFuture<'_, Result<Vec<SliceOffset>, Trouble>>;

    /// Handles events; `offset` is where the projection is afterwards.
    fn handle<'a>(
        &'a mut self,
        events: &'a [Envelope<E>],
        offset: u64,
    ) -> BoxFuture<'a, Result<(), Trouble>>;

    fn save(&mut self, offset: u64, restart: bool) -> BoxFuture<'_, Result<(), Trouble>>;

    /// Drops the handler: the next one is made anew.
    fn renew(&mut self);
}

/// A handler that is made when it is needed.
pub(super) struct Made<H> {
    make: Arc<dyn Fn() -> H + Send + Sync>,
    handler: Option<H>,
}

impl<H> Made<H> {
    pub(super) fn new(make: Arc<dyn Fn() -> H + Send + Sync>) -> Self {
        let handler = None;
        Self { make, handler }
    }

    fn get(&mut self) -> &mut H {
        self.handler.get_or_insert_with(|| (self.make)())
    }
}

/// A handler of single events as one of many.
pub(super) struct OneByOne<H>(pub(super) H);

impl<E: Send + Sync + 'static, H: Handler<E>> BatchHandler<E> for OneByOne<H> {
    type Error = H::Error;

    async fn handle(&mut self, events: &[Envelope<E>]) -> Result<(), H::Error> {
        for event in events {
            self.0.handle(event).await?;
        }
        Ok(())
    }

    fn passes(error: &H::Error) -> bool {
        H::passes(error)
    }
}

/// Many events at a time.
pub(super) struct Batches<H> {
    pub(super) handler: Made<H>,
    pub(super) kept: Kept,
}

impl<E: Send + Sync + 'static, H: BatchHandler<E>> Sink<E> for Batches<H> {
    fn load(&mut self) -> BoxFuture<'_, Result<Vec<SliceOffset>, Trouble>> {
        self.kept.load().boxed()
    }

    fn handle<'a>(
        &'a mut self,
        events: &'a [Envelope<E>],
        _: u64,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        async move {
            let done = self.handler.get().handle(events).await;
            done.map_err(|error| Trouble::of_handler(H::passes(&error), error))
        }
        .boxed()
    }

    fn save(&mut self, offset: u64, _: bool) -> BoxFuture<'_, Result<(), Trouble>> {
        self.kept.save(offset).boxed()
    }

    fn renew(&mut self) {
        self.handler.handler = None;
    }
}

/// An offset in an [`OffsetStore`], under the key `name/first-last`. How many instances there are is
/// kept beside it, under `name/instances`.
pub(super) struct Kept {
    pub(super) store: Arc<dyn OffsetStore>,
    pub(super) name: Arc<str>,
    pub(super) slices: (u16, u16),
    pub(super) instances: u16,
}

impl Kept {
    async fn load(&self) -> Result<Vec<SliceOffset>, Trouble> {
        let offset = self.find().await;
        let offset = offset.map_err(|error| Trouble::of_store("cannot load the offset", error))?;
        Ok(vec![SliceOffset::new(self.slices.0, self.slices.1, offset)])
    }

    async fn save(&self, offset: u64) -> Result<(), Trouble> {
        let saved = self.store.save(&self.key(self.slices), offset).await;
        saved.map_err(|error| Trouble::of_store("cannot save the offset", error))
    }

    fn key(&self, (first, last): (u16, u16)) -> String {
        format!("{}/{first}-{last}", self.name)
    }

    async fn find(&self) -> Result<u64, JournalError> {
        let instances = format!("{}/instances", self.name);
        match self.store.load(&instances).await? {
            Some(before) if before == u64::from(self.instances) => {}
            None => self.store.save(&instances, self.instances.into()).await?,
            Some(before) => {
                self.divide_anew(before).await?;
                // Only now: until all offsets are there, whoever starts derives them again.
                self.store.save(&instances, self.instances.into()).await?;
            }
        }
        let offset = self.store.load(&self.key(self.slices)).await?;
        Ok(offset.unwrap_or(0))
    }

    /// Derives the offsets of all instances from those of an earlier division: each goes on where the
    /// one is of which it has slices and that is behind the others.
    async fn divide_anew(&self, before: u64) -> Result<(), JournalError> {
        let before = u16::try_from(before)
            .ok()
            .filter(|&before| (1..=crate::SLICES).contains(&before));
        let before = before.ok_or_else(|| JournalError::Refused {
            reason: format!(
                "the number of instances of projection {} is damaged",
                self.name
            ),
        })?;
        let mut old = Vec::new();
        for slices in (0..before).map(|index| range_of(index, before)) {
            old.push((
                slices,
                self.store.load(&self.key(slices)).await?.unwrap_or(0),
            ));
        }
        for slices in (0..self.instances).map(|index| range_of(index, self.instances)) {
            let overlaps = |range: &(u16, u16)| range.0 <= slices.1 && range.1 >= slices.0;
            let theirs = old.iter().filter(|(range, _)| overlaps(range));
            let offset = theirs.map(|&(_, offset)| offset).min().unwrap_or(0);
            self.store.save(&self.key(slices), offset).await?;
        }
        tracing::info!(projection = %self.name, before, now = self.instances, "slices are divided anew");
        Ok(())
    }
}

/// Many events at a time, their offset stored with their results.
pub(super) struct Exact<H> {
    pub(super) handler: Made<H>,
    pub(super) journal: Arc<dyn Journal>,
    /// By which this run was started; it must hold when the slices are taken.
    pub(super) fence: Option<Fence>,
    pub(super) run: ProjectionRun,
}

impl<H> Exact<H> {
    /// Draws the epoch of this run. The fence is compared after that: whoever replaced this run by
    /// then stops it here, and whoever replaces it later draws a higher number.
    async fn draw_epoch(&mut self) -> Result<(), Trouble> {
        if self.run.epoch == 0 {
            let scope = format!("projection/{}", self.run.name);
            let term = self.journal.next_term(&scope).await;
            self.run.epoch =
                term.map_err(|error| Trouble::of_store("cannot draw an epoch", error))?;
        }
        let Some(fence) = &self.fence else {
            return Ok(());
        };
        match self.journal.claim(&fence.scope, fence.epoch).await {
            Ok(()) => Ok(()),
            Err(ClaimError::Store(error)) => {
                Err(Trouble::of_store("cannot check the fence", error))
            }
            Err(error) => Err(Trouble::new(Blame::Newer, "it was replaced", error)),
        }
    }

    async fn commit<E>(
        &mut self,
        events: &[Envelope<E>],
        offset: u64,
        restart: bool,
    ) -> Result<(), Trouble>
    where
        H: TransactionalHandler<E>,
    {
        let commit = ProjectionCommit::new(self.run.clone(), offset, restart);
        let done = self.handler.get().handle(events, &commit).await;
        done.map_err(of_transaction::<E, H>)
    }
}

fn of_transaction<E, H: TransactionalHandler<E>>(error: TransactionError<H::Error>) -> Trouble {
    match error {
        TransactionError::Failed(error) => Trouble::of_handler(H::passes(&error), error),
        TransactionError::Fenced { current } => {
            Trouble::new(Blame::Newer, "it was replaced", format!("epoch {current}"))
        }
    }
}

impl<E: Send + Sync + 'static, H: TransactionalHandler<E>> Sink<E> for Exact<H> {
    fn load(&mut self) -> BoxFuture<'_, Result<Vec<SliceOffset>, Trouble>> {
        async move {
            self.draw_epoch().await?;
            let claimed = self.handler.get().claim(&self.run).await;
            let stored = claimed.map_err(of_transaction::<E, H>)?;
            Ok(carve(&stored, self.run.first, self.run.last).inside)
        }
        .boxed()
    }

    fn handle<'a>(
        &'a mut self,
        events: &'a [Envelope<E>],
        offset: u64,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        self.commit(events, offset, false).boxed()
    }

    fn save(&mut self, offset: u64, restart: bool) -> BoxFuture<'_, Result<(), Trouble>> {
        self.commit(&[], offset, restart).boxed()
    }

    fn renew(&mut self) {
        self.handler.handler = None;
    }
}
