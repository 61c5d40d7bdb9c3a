//! Offsets: how far projections have come, and transactions that move an offset with its result.

use crate::io::fault::Fault;
use crate::io::rows::number;
use crate::io::server::{Params, Server, malformed, write};
use crate::logic::limits::signed;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{JournalError, OffsetStore, check_offset_key};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio_postgres::Transaction;

/// The offset store of a [`crate::PostgresJournal`].
///
/// Beside what every [`OffsetStore`] does, it moves an offset in the transaction in which a
/// projection writes its tables, so that the effect of each event is there exactly once.
#[derive(Clone)]
pub struct PostgresOffsets(pub(crate) Arc<Server>);

/// Why nothing was written by [`PostgresOffsets::with_offset`], or nobody knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OffsetError<E> {
    /// The handler failed. Nothing was written.
    #[error("the handler failed: {0}")]
    Handler(E),
    /// The offset is another one: somebody else moved it. Nothing was written.
    #[error("the offset is not {expected:?} any more: somebody else has moved it")]
    Moved {
        /// What it should have been.
        expected: Option<u64>,
    },
    /// The store could not do it. After [`JournalError::Unknown`] it may have happened: load the
    /// offset to see.
    #[error(transparent)]
    Store(#[from] JournalError),
}

impl fmt::Debug for PostgresOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresOffsets")
            .field(&self.0.config)
            .finish()
    }
}

impl PostgresOffsets {
    /// Moves the offset of `key` from `expected` to `new`, and does what `handler` does, both or
    /// neither: it gets the transaction in which the offset is moved. Others who want to move the same
    /// offset wait, and are then refused.
    ///
    /// The handler may use any table of the database. It should be quick: the transaction ends with an
    /// error when a statement takes longer than
    /// [`statement_timeout`](crate::PostgresConfig::statement_timeout), or when nothing happens in it
    /// for [`idle_in_transaction_timeout`](crate::PostgresConfig::idle_in_transaction_timeout).
    ///
    /// ```no_run
    /// # use futures_util::FutureExt as _;
    /// # async fn example(offsets: otava_postgres::PostgresOffsets) -> Result<(), Box<dyn std::error::Error>> {
    /// offsets
    ///     .with_offset("totals/0-127", Some(41), 42, |transaction| {
    ///         async move {
    ///             let sql = "UPDATE totals SET cents = cents + $1 WHERE account = $2";
    ///             transaction.execute(sql, &[&250_i64, &"4711"]).await
    ///         }
    ///         .boxed()
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`OffsetError`].
    ///
    /// # Cancel safety
    /// Dropped before the handler is done, nothing is written. Dropped later, it may be.
    pub async fn with_offset<T, E>(
        &self,
        key: &str,
        expected: Option<u64>,
        new: u64,
        handler: impl for<'t> FnOnce(&'t Transaction<'t>) -> BoxFuture<'t, Result<T, E>> + Send,
    ) -> Result<T, OffsetError<E>> {
        check_offset_key(key)?;
        let _permit = self.0.enter().await?;
        let new = signed("offset", new)?;
        let mut client = self.0.client().await.map_err(Fault::of_write)?;
        let begin = Instant::now();
        // Until the commit is asked for, a lost connection means that nothing was written.
        let before = |error: tokio_postgres::Error| Fault::new(&error, begin.elapsed()).of_read();
        let transaction = client.transaction().await.map_err(before)?;
        let sql = match expected {
            Some(_) => "UPDATE @.offsets SET position = $2 WHERE key = $1 AND position = $3",
            None => "INSERT INTO @.offsets (key, position) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        };
        let sql = self.0.sql(sql);
        let key = key.as_bytes();
        let old = expected.map_or(0, crate::logic::limits::to_compare);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&key, &new, &old];
        let params = if expected.is_some() {
            &params[..]
        } else {
            &params[..2]
        };
        let statement = transaction.prepare_cached(&sql).await.map_err(before)?;
        let moved = transaction
            .execute(&statement, params)
            .await
            .map_err(before)?;
        if moved != 1 {
            return Err(OffsetError::Moved { expected });
        }
        let result = handler(&transaction).await.map_err(OffsetError::Handler)?;
        let committed = transaction.commit().await;
        committed.map_err(|error| Fault::new(&error, begin.elapsed()).of_write())?;
        Ok(result)
    }

    /// A connection of the pool that the stores use, for statements of the caller.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`] when there is none, [`JournalError::Closed`] after the end.
    pub async fn client(&self) -> Result<deadpool_postgres::Object, JournalError> {
        let _permit = self.0.enter().await?;
        self.0.client().await.map_err(Fault::of_write)
    }
}

impl OffsetStore for PostgresOffsets {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>, JournalError>> {
        async move {
            check_offset_key(key)?;
            let _permit = self.0.enter().await?;
            let sql = self.0.sql("SELECT position FROM @.offsets WHERE key = $1");
            let rows = self.0.rows(&sql, &[&key.as_bytes()]).await;
            let rows = rows.map_err(Fault::of_read)?;
            let offset = rows.first().map(|row| number(row, 0));
            offset.transpose().map_err(|what| malformed(what).of_read())
        }
        .boxed()
    }

    fn save<'a>(&'a self, key: &'a str, offset: u64) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            check_offset_key(key)?;
            let offset = signed("offset", offset)?;
            self.write(
                "INSERT INTO @.offsets (key, position) VALUES ($1, $2) \
                 ON CONFLICT (key) DO UPDATE SET position = EXCLUDED.position",
                key,
                Some(offset),
            )
            .await
        }
        .boxed()
    }

    fn clear<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            check_offset_key(key)?;
            self.write("DELETE FROM @.offsets WHERE key = $1", key, None)
                .await
        }
        .boxed()
    }
}

impl PostgresOffsets {
    async fn write(
        &self,
        sql: &'static str,
        key: &str,
        offset: Option<i64>,
    ) -> Result<(), JournalError> {
        let key = key.as_bytes().to_vec();
        write(&self.0, |server| {
            async move {
                let params: Params<'_> = &[&key, &offset];
                let params = if offset.is_some() {
                    params
                } else {
                    &params[..1]
                };
                server.rows(&server.sql(sql), params).await.map(drop)
            }
            .boxed()
        })
        .await
    }
}
