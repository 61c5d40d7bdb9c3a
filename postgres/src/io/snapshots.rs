//! Snapshots: the snapshot store in the schema of the journal.

use crate::io::journal::PostgresJournal;
use crate::io::rows::{corrupt, number, record};
use crate::io::server::{Params, write};
use crate::logic::limits::{check_id, signed, to_bound};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{JournalError, PersistenceId, Snapshot, SnapshotStore};
use std::num::NonZeroU32;
use std::sync::Arc;

impl SnapshotStore for PostgresJournal {
    fn save(
        &self,
        snapshot: Snapshot,
        keep: NonZeroU32,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        async move {
            snapshot.check_limits()?;
            let seq = signed("sequence number", snapshot.seq)?;
            write(&self.server, |server| {
                async move {
                    let params: Params<'_> = &[
                        &snapshot.id.as_str().as_bytes(),
                        &seq,
                        &snapshot.name.as_bytes(),
                        &i32::from(snapshot.version),
                        &snapshot.payload,
                        &i64::from(keep.get()),
                    ];
                    let sql = server.sql("SELECT @.save_snapshot_1($1, $2, $3, $4, $5, $6)");
                    server.rows(&sql, params).await.map(drop)
                }
                .boxed()
            })
            .await
        }
        .boxed()
    }

    fn latest<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, JournalError>> {
        async move {
            check_id(id)?;
            let mut seq_max = to_bound(seq_max);
            loop {
                let Some(found) = self.newest_snapshot(id, seq_max).await? else {
                    return Ok(None);
                };
                match found {
                    Ok(snapshot) => return Ok(Some(snapshot)),
                    Err((seq, error)) => {
                        tracing::warn!(%error, "a broken snapshot is passed over");
                        seq_max = seq - 1;
                    }
                }
            }
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        id: &'a PersistenceId,
        seq_max: u64,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let id = id.clone();
        async move {
            check_id(&id)?;
            write(&self.server, |server| {
                async move {
                    let sql = server.sql("DELETE FROM @.snapshots WHERE id = $1 AND seq <= $2");
                    let params: Params<'_> = &[&id.as_str().as_bytes(), &to_bound(seq_max)];
                    server.rows(&sql, params).await.map(drop)
                }
                .boxed()
            })
            .await
        }
        .boxed()
    }
}

/// A snapshot, or the number of one that cannot be read.
type Found = Result<Snapshot, (i64, JournalError)>;

impl PostgresJournal {
    async fn newest_snapshot(
        &self,
        id: &PersistenceId,
        seq_max: i64,
    ) -> Result<Option<Found>, JournalError> {
        let _permit = self.server.enter().await?;
        let sql = self.server.sql(
            "SELECT version, name, NULL::bytea[], payload, seq FROM @.snapshots \
             WHERE id = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1",
        );
        let params: Params<'_> = &[&id.as_str().as_bytes(), &seq_max];
        let rows = self
            .server
            .rows(&sql, params)
            .await
            .map_err(crate::io::fault::Fault::of_read)?;
        let read = rows.first().map(|row| {
            let seq = number(row, 4).unwrap_or_default();
            let record = record(row, 0, &mut Arc::from(""));
            record
                .map(|record| {
                    let payload = record.payload.into();
                    Snapshot::new(id.clone(), seq, record.name, record.version, payload)
                })
                .map_err(|what| (seq.cast_signed(), corrupt(id, seq, 0, what)))
        });
        Ok(read)
    }
}
