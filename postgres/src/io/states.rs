//! States: the state store in the schema of the journal.

use crate::io::committer::Lane;
use crate::io::fault::Fault;
use crate::io::rows::{corrupt, id, number, record, row_limit, within_bytes};
use crate::io::server::{Params, Server, malformed};
use crate::logic::columns::kind_hash;
use crate::logic::limits::{check_id, to_bound};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{
    AppendError, EventQuery, JournalError, PersistenceId, SaveState, SavedState, StateStore,
    StoredState,
};
use std::sync::Arc;
use tokio_postgres::Row;

/// The state store of a [`crate::PostgresJournal`].
pub(crate) struct States {
    pub(crate) server: Arc<Server>,
    pub(crate) lane: Arc<Lane<SaveState>>,
}

const COLUMNS: &str = "id, position, revision, written_at_ms, version, name, tags, payload";

impl StateStore for States {
    fn load<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<Option<StoredState>, JournalError>> {
        async move {
            check_id(id)?;
            let _permit = self.server.enter().await?;
            let sql = format!("SELECT {COLUMNS} FROM @.states WHERE id = $1");
            let params: Params<'_> = &[&id.as_str().as_bytes()];
            let rows = self.server.rows(&self.server.sql(&sql), params).await;
            let rows = rows.map_err(Fault::of_read)?;
            rows.first().map(state).transpose()
        }
        .boxed()
    }

    fn save(&self, request: SaveState) -> BoxFuture<'_, Result<SavedState, AppendError>> {
        async move {
            request.check_limits()?;
            self.lane.ask(request).await
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredState>, JournalError>> {
        async move {
            let _permit = self.server.enter().await?;
            let (kind, id) = (query.kind.as_deref().map(kind_hash), query.id.as_ref());
            let id = id.map(|id| id.as_str().as_bytes());
            let tag = query.tag.as_ref().map(|tag| tag.as_bytes());
            let slice = |slice: u16| i16::try_from(slice).unwrap_or(i16::MAX);
            let (first, last) = (*query.slice_range().start(), *query.slice_range().end());
            let params: Params<'_> = &[
                &to_bound(after),
                &row_limit(max),
                &slice(first),
                &slice(last),
                &kind,
                &id,
                &tag,
            ];
            let from = "SELECT * FROM @.states WHERE position > $1 AND slice BETWEEN $3 AND $4 \
                AND ($5::integer IS NULL OR kind = $5) AND ($6::bytea IS NULL OR id = $6) \
                AND ($7::bytea IS NULL OR $7 = ANY (tags)) ORDER BY position LIMIT $2";
            let sql = within_bytes(COLUMNS, from, "position");
            let rows = self.server.rows(&self.server.sql(&sql), params).await;
            let rows = rows.map_err(Fault::of_read)?;
            let mut states = rows.iter().map(state).collect::<Result<Vec<_>, _>>()?;
            states.sort_by_key(|state| state.position);
            Ok(states)
        }
        .boxed()
    }
}

/// Reads a row of [`COLUMNS`].
fn state(row: &Row) -> Result<StoredState, JournalError> {
    let id = id(row, 0).map_err(|what| malformed(what).of_read())?;
    let number = |column| number(row, column).unwrap_or_default();
    let (position, revision, written_at_ms) = (number(1), number(2), number(3));
    let removed = row.try_get::<_, Option<&[u8]>>(5).ok().flatten().is_none();
    let record = if removed {
        None
    } else {
        let record = record(row, 4, &mut Arc::from(""));
        Some(record.map_err(|what| corrupt(&id, revision, position, what))?)
    };
    Ok(StoredState::new(
        id,
        (revision, position),
        written_at_ms,
        record,
    ))
}
