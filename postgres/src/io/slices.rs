//! Slices: the offsets of a projection whose results are tables of the same database.

use crate::io::fault::Fault;
use crate::io::offsets::{OffsetError, PostgresOffsets};
use crate::io::rows::number;
use crate::io::server::malformed;
use crate::logic::limits::signed;
use futures_util::future::BoxFuture;
use otava_persistence::{
    JournalError, ProjectionCommit, ProjectionRun, SliceOffset, TransactionError, carve,
};
use std::time::Instant;
use tokio_postgres::{Row, Transaction};

/// One claim of a name at a time: rows that are not there yet cannot be locked.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 1330921814))";
const TAKEN: &str = "SELECT epoch, position, first, last FROM @.slice_offsets \
    WHERE name = $1 AND first <= $3 AND last >= $2 FOR UPDATE";
const REMOVE: &str = "DELETE FROM @.slice_offsets WHERE name = $1 AND first <= $3 AND last >= $2";
const PUT: &str = "INSERT INTO @.slice_offsets (name, epoch, position, first, last) \
    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::smallint[], $5::smallint[])";
const ADVANCE: &str = "UPDATE @.slice_offsets \
    SET position = CASE WHEN $6 THEN $5 ELSE greatest(position, $5) END \
    WHERE name = $1 AND first >= $2 AND last <= $3 AND epoch = $4 RETURNING last - first + 1";
const NEWEST: &str = "SELECT coalesce(max(epoch), 0) FROM @.slice_offsets \
    WHERE name = $1 AND first <= $3 AND last >= $2";

/// Rows that a claim puts in place of others.
#[derive(Default)]
struct Rows {
    epochs: Vec<i64>,
    positions: Vec<i64>,
    firsts: Vec<i16>,
    lasts: Vec<i16>,
}

impl Rows {
    fn push(&mut self, epoch: u64, at: SliceOffset) -> Result<(), JournalError> {
        self.epochs.push(signed("epoch", epoch)?);
        self.positions.push(signed("offset", at.offset)?);
        self.firsts.push(slice(at.first)?);
        self.lasts.push(slice(at.last)?);
        Ok(())
    }
}

impl PostgresOffsets {
    /// Takes the slices of a run, as [`otava_persistence::TransactionalHandler::claim`] has to.
    ///
    /// # Errors
    /// [`TransactionError::Fenced`] when a later run has some of them; else [`OffsetError::Store`].
    ///
    /// # Cancel safety
    /// Dropped, it may have been done. Doing it again does no harm.
    pub async fn claim_slices<E>(
        &self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<OffsetError<E>>> {
        match self.claim_now(run).await {
            Ok(Ok(offsets)) => Ok(offsets),
            Ok(Err(current)) => Err(TransactionError::Fenced { current }),
            Err(error) => Err(TransactionError::Failed(OffsetError::Store(error))),
        }
    }

    async fn claim_now(
        &self,
        run: &ProjectionRun,
    ) -> Result<Result<Vec<SliceOffset>, u64>, JournalError> {
        let _permit = self.0.enter().await?;
        let (name, first, last) = (run.name.as_bytes(), slice(run.first)?, slice(run.last)?);
        let begin = Instant::now();
        let before = |error: tokio_postgres::Error| Fault::new(&error, begin.elapsed()).of_read();
        let mut client = self.0.client().await.map_err(Fault::of_write)?;
        let transaction = client.transaction().await.map_err(before)?;
        transaction.query(LOCK, &[&name]).await.map_err(before)?;
        let taken = self.0.sql(TAKEN);
        let taken = transaction.query(&taken, &[&name, &first, &last]).await;
        let taken = taken.map_err(before)?;
        let taken: Result<Vec<_>, &str> = taken.iter().map(stored).collect();
        let taken = taken.map_err(|what| malformed(what).of_read())?;
        let newest = taken.iter().map(|(epoch, _)| *epoch).max().unwrap_or(0);
        if newest > run.epoch {
            return Ok(Err(newest));
        }
        let mut rows = Rows::default();
        for &(epoch, at) in &taken {
            // What is cut off stays with the run that had it, which can no longer commit.
            for outside in carve(&[at], run.first, run.last).outside {
                rows.push(epoch, outside)?;
            }
        }
        let offsets: Vec<_> = taken.iter().map(|(_, at)| *at).collect();
        let inside = carve(&offsets, run.first, run.last).inside;
        for &at in &inside {
            rows.push(run.epoch, at)?;
        }
        let (remove, put) = (self.0.sql(REMOVE), self.0.sql(PUT));
        let removed = transaction.execute(&remove, &[&name, &first, &last]).await;
        removed.map_err(before)?;
        let Rows {
            epochs,
            positions,
            firsts,
            lasts,
        } = rows;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&name, &epochs, &positions, &firsts, &lasts];
        transaction.execute(&put, &params).await.map_err(before)?;
        let committed = transaction.commit().await;
        committed.map_err(|error| Fault::new(&error, begin.elapsed()).of_write())?;
        Ok(Ok(inside))
    }

    /// Moves the offset as `commit` says and does what `handler` does, both or neither, as
    /// [`otava_persistence::TransactionalHandler::handle`] has to. What [`Self::with_offset`] says of
    /// its handler holds here too.
    ///
    /// # Errors
    /// [`TransactionError::Fenced`] when the run does not have all its slices any more, and nothing
    /// was written; else [`OffsetError`].
    ///
    /// # Cancel safety
    /// Dropped before the handler is done, nothing is written. Dropped later, it may be.
    pub async fn commit<T, E>(
        &self,
        commit: &ProjectionCommit,
        handler: impl for<'t> FnOnce(&'t Transaction<'t>) -> BoxFuture<'t, Result<T, E>> + Send,
    ) -> Result<T, TransactionError<OffsetError<E>>> {
        let store = |error| TransactionError::Failed(OffsetError::Store(error));
        let _permit = self.0.enter().await.map_err(store)?;
        let begin = Instant::now();
        let before =
            |error: tokio_postgres::Error| store(Fault::new(&error, begin.elapsed()).of_read());
        let client = self.0.client().await;
        let mut client = client.map_err(|fault| store(fault.of_write()))?;
        let transaction = client.transaction().await.map_err(before)?;
        let run = &commit.run;
        let name = run.name.as_bytes();
        let (first, last) = (
            slice(run.first).map_err(store)?,
            slice(run.last).map_err(store)?,
        );
        let epoch = signed("epoch", run.epoch).map_err(store)?;
        let offset = signed("offset", commit.offset).map_err(store)?;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&name, &first, &last, &epoch, &offset, &commit.restart];
        let advance = transaction.prepare_cached(&self.0.sql(ADVANCE)).await;
        let advance = advance.map_err(before)?;
        let mine = transaction.query(&advance, &params).await.map_err(before)?;
        let slices: i64 = mine.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum();
        if slices != i64::from(run.last) - i64::from(run.first) + 1 {
            let newest = self.0.sql(NEWEST);
            let newest = transaction
                .query_one(&newest, &[&name, &first, &last])
                .await;
            let current = number(&newest.map_err(before)?, 0);
            let current = current.map_err(|what| store(malformed(what).of_read()))?;
            return Err(TransactionError::Fenced { current });
        }
        let done = handler(&transaction).await;
        let result = done.map_err(|error| TransactionError::Failed(OffsetError::Handler(error)))?;
        let committed = transaction.commit().await;
        committed.map_err(|error| store(Fault::new(&error, begin.elapsed()).of_write()))?;
        Ok(result)
    }
}

/// A slice as the database holds it.
fn slice(slice: u16) -> Result<i16, JournalError> {
    i16::try_from(slice).map_err(|_| JournalError::TooLarge {
        what: "slice",
        actual: slice.into(),
        limit: u64::from(otava_persistence::SLICES) - 1,
    })
}

fn stored(row: &Row) -> Result<(u64, SliceOffset), &'static str> {
    let slice = |column: usize| {
        let slice: i16 = row.try_get(column).map_err(|_| "slice")?;
        u16::try_from(slice).map_err(|_| "slice")
    };
    let at = SliceOffset::new(slice(2)?, slice(3)?, number(row, 1)?);
    Ok((number(row, 0)?, at))
}
