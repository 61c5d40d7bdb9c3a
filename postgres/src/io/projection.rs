//! Projection: results in tables of this database, stored in one transaction with the offset.

use crate::io::fault::Fault;
use crate::io::offsets::PostgresOffsets;
use crate::io::rows::number;
use crate::io::server::{Params, malformed};
use crate::logic::limits::{signed, to_compare};
use crate::logic::migrations::{LOCK_CLASS, lock_object};
use otava_persistence::{
    Envelope, JournalError, ProjectionCommit, ProjectionRun, SliceOffset, TransactionError,
    TransactionalHandler, carve,
};
use std::fmt::Display;
use std::future::Future;
use std::time::Instant;
use tokio_postgres::{Row, Transaction};

/// Stores what events lead to, in a transaction that is given to it.
pub trait PostgresHandler<E>: Send + 'static {
    /// Why events could not be handled.
    type Error: Display + Send + 'static;

    /// Writes what the events lead to, by `transaction`, in which the offset is stored too. There may
    /// be no events: then only the offset moves.
    ///
    /// It should be quick: see [`PostgresOffsets::with_offset`].
    ///
    /// # Errors
    /// Nothing is stored, and the events are given again after a back-off.
    ///
    /// # Cancel safety
    /// It may be dropped where it waits. Then nothing is stored.
    fn handle(
        &mut self,
        events: &[Envelope<E>],
        transaction: &Transaction<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether an error is one that passes and that no event is to blame for. Default: no error is.
    fn passes(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// What a projection is given to store its results exactly once: a [`PostgresHandler`], and the place
/// where the offsets are.
///
/// ```no_run
/// use otava_persistence::{Envelope, EventQuery, Journal, Projection};
/// use otava_postgres::tokio_postgres::{Error, Transaction};
/// use otava_postgres::{PostgresHandler, PostgresJournal, PostgresResults};
/// use std::sync::Arc;
///
/// struct Totals;
///
/// impl PostgresHandler<i64> for Totals {
///     type Error = Error;
///
///     async fn handle(&mut self, events: &[Envelope<i64>], transaction: &Transaction<'_>) -> Result<(), Error> {
///         for event in events {
///             let sql = "UPDATE totals SET cents = cents + $1 WHERE account = $2";
///             transaction.execute(sql, &[&event.event, &event.id.entity()]).await?;
///         }
///         Ok(())
///     }
/// }
///
/// # async fn example(journal: PostgresJournal) -> Result<(), Box<dyn std::error::Error>> {
/// let offsets = journal.postgres_offsets();
/// let decode = |_: &otava_persistence::FoundEvent| Ok::<_, std::fmt::Error>(Some(1_i64));
/// let journal: Arc<dyn Journal> = Arc::new(journal);
/// let running = Projection::decoded_by("totals", journal, decode)
///     .query(EventQuery::all().kind("account"))
///     .exactly_once(move || PostgresResults::new(offsets.clone(), Totals))
///     .start()?;
/// # running.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresResults<H> {
    offsets: PostgresOffsets,
    handler: H,
}

/// Why results were not stored, or nobody knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError<X> {
    /// The handler failed.
    #[error("{0}")]
    Handler(X),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] JournalError),
}

impl<H> PostgresResults<H> {
    /// Results of `handler`, in the database of `offsets`
    /// ([`PostgresJournal::postgres_offsets`](crate::PostgresJournal::postgres_offsets)), which need
    /// not be that of the events.
    #[must_use]
    pub fn new(offsets: PostgresOffsets, handler: H) -> Self {
        Self { offsets, handler }
    }
}

/// A refusal, before it is known what a handler's error looks like.
enum Refusal {
    Fenced(u64),
    Store(JournalError),
}

impl<X> From<Refusal> for TransactionError<ResultsError<X>> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fenced(current) => Self::Fenced { current },
            Refusal::Store(error) => Self::Failed(ResultsError::Store(error)),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.of_write())
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::Store(error)
    }
}

impl<E, H> TransactionalHandler<E> for PostgresResults<H>
where
    E: Send + Sync + 'static,
    H: PostgresHandler<E>,
{
    type Error = ResultsError<H::Error>;

    async fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<Self::Error>> {
        Ok(claim(&self.offsets, run).await?)
    }

    async fn handle(
        &mut self,
        events: &[Envelope<E>],
        commit: &ProjectionCommit,
    ) -> Result<(), TransactionError<Self::Error>> {
        let server = &self.offsets.0;
        let store = |error| TransactionError::Failed(ResultsError::Store(error));
        let _permit = server.enter().await.map_err(store)?;
        let mut client = server.client().await.map_err(Refusal::from)?;
        let begin = Instant::now();
        let fault = |error: tokio_postgres::Error| Fault::new(&error, begin.elapsed());
        let transaction = client.transaction().await;
        let transaction = transaction.map_err(fault).map_err(Refusal::from)?;
        // First, so that a run that was replaced does no work, and one that takes over waits for us.
        advance(&self.offsets, &transaction, commit).await?;
        let handled = self.handler.handle(events, &transaction).await;
        handled.map_err(|error| TransactionError::Failed(ResultsError::Handler(error)))?;
        let committed = transaction.commit().await;
        Ok(committed.map_err(fault).map_err(Refusal::from)?)
    }

    fn passes(error: &Self::Error) -> bool {
        match error {
            ResultsError::Handler(error) => H::passes(error),
            ResultsError::Store(error) => matches!(
                error,
                JournalError::Busy { .. }
                    | JournalError::Unavailable { .. }
                    | JournalError::Unknown { .. }
            ),
        }
    }
}

/// Takes the slices of a run, and says where they are.
async fn claim(
    offsets: &PostgresOffsets,
    run: &ProjectionRun,
) -> Result<Vec<SliceOffset>, Refusal> {
    let server = &offsets.0;
    let _permit = server.enter().await?;
    let epoch = signed("epoch", run.epoch)?;
    let mut client = server.client().await?;
    let begin = Instant::now();
    let fault = |error: tokio_postgres::Error| Fault::new(&error, begin.elapsed());
    let transaction = client.transaction().await.map_err(fault)?;
    let of_projection = format!("projection {}", run.name);
    let object = lock_object(&server.config.schema, &of_projection).cast_signed();
    // One claim of a projection at a time: what follows sees all that was claimed before.
    let lock = "SELECT pg_advisory_xact_lock($1, $2)";
    let params: Params<'_> = &[&LOCK_CLASS.cast_signed(), &object];
    transaction.query(lock, params).await.map_err(fault)?;
    let name = run.name.as_bytes();
    let (first, last) = (run.first.cast_signed(), run.last.cast_signed());
    // Waits for a commit of the run that had them.
    let taken = server.sql(
        "SELECT position, epoch, first, last FROM @.projection_slices \
         WHERE name = $1 AND first <= $3 AND last >= $2 FOR UPDATE",
    );
    let params: Params<'_> = &[&name, &first, &last];
    let rows = transaction.query(&taken, params).await.map_err(fault)?;
    let taken: Vec<_> = rows.iter().map(taken_row).collect::<Result<_, _>>()?;
    let newest = taken.iter().map(|(_, epoch)| *epoch).max().unwrap_or(0);
    if newest > run.epoch {
        return Err(Refusal::Fenced(newest));
    }
    let insert = server.sql(
        "INSERT INTO @.projection_slices (position, epoch, first, last, name) \
         VALUES ($1, $2, $3, $4, $5)",
    );
    let insert = transaction.prepare_cached(&insert).await.map_err(fault)?;
    let remove = server
        .sql("DELETE FROM @.projection_slices WHERE name = $1 AND first <= $3 AND last >= $2");
    transaction.execute(&remove, params).await.map_err(fault)?;
    // What is cut off keeps the epoch of the run that had it, which can no longer commit.
    let mut kept = Vec::new();
    for (at, epoch) in &taken {
        let outside = carve(&[*at], run.first, run.last).outside;
        kept.extend(outside.into_iter().map(|at| (at, to_compare(*epoch))));
    }
    let taken: Vec<_> = taken.into_iter().map(|(at, _)| at).collect();
    let inside = carve(&taken, run.first, run.last).inside;
    kept.extend(inside.iter().map(|at| (*at, epoch)));
    for (at, epoch) in kept {
        let position = signed("offset", at.offset)?;
        let (first, last) = (at.first.cast_signed(), at.last.cast_signed());
        let params: Params<'_> = &[&position, &epoch, &first, &last, &name];
        transaction.execute(&insert, params).await.map_err(fault)?;
    }
    transaction.commit().await.map_err(fault)?;
    Ok(inside)
}

fn taken_row(row: &Row) -> Result<(SliceOffset, u64), Fault> {
    let (offset, epoch) = (number(row, 0), number(row, 1));
    let slice = |column| {
        let slice: Option<i16> = row.try_get(column).ok();
        slice.and_then(|slice| u16::try_from(slice).ok())
    };
    match (slice(2), slice(3), offset, epoch) {
        (Some(first), Some(last), Ok(offset), Ok(epoch)) => {
            Ok((SliceOffset::new(first, last, offset), epoch))
        }
        _ => Err(malformed("slices of a projection")),
    }
}

/// Moves the offset of a run that still has all its slices.
async fn advance(
    offsets: &PostgresOffsets,
    transaction: &deadpool_postgres::Transaction<'_>,
    commit: &ProjectionCommit,
) -> Result<(), Refusal> {
    let begin = Instant::now();
    let fault = |error: tokio_postgres::Error| Fault::new(&error, begin.elapsed());
    let ProjectionCommit {
        run,
        offset,
        restart,
        ..
    } = commit;
    let name = run.name.as_bytes();
    let (first, last) = (run.first.cast_signed(), run.last.cast_signed());
    let offset = signed("offset", *offset)?;
    let update = offsets.0.sql(
        "UPDATE @.projection_slices \
         SET position = CASE WHEN $6 THEN $5 ELSE greatest(position, $5) END \
         WHERE name = $1 AND first <= $3 AND last >= $2 AND epoch = $4 RETURNING last - first + 1",
    );
    let update = transaction.prepare_cached(&update).await.map_err(fault)?;
    let epoch = to_compare(run.epoch);
    let params: Params<'_> = &[&name, &first, &last, &epoch, &offset, restart];
    let rows = transaction.query(&update, params).await.map_err(fault)?;
    let slices: i32 = rows.iter().map(|row| row.get::<_, i32>(0)).sum();
    if slices == i32::from(last) - i32::from(first) + 1 {
        return Ok(());
    }
    let newest = offsets.0.sql(
        "SELECT coalesce(max(epoch), 0) FROM @.projection_slices \
         WHERE name = $1 AND first <= $3 AND last >= $2",
    );
    let params: Params<'_> = &[&name, &first, &last];
    let row = transaction
        .query_one(&newest, params)
        .await
        .map_err(fault)?;
    let current = number(&row, 0).map_err(malformed)?;
    Err(Refusal::Fenced(current))
}
