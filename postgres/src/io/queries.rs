//! Queries: the events of many entities, in the order of their positions.

use crate::io::fault::Fault;
use crate::io::rows::{
    COLUMNS, NEXT_COLUMN, PAGE_BYTES_MAX, event, id, number, row_limit, within_bytes,
};
use crate::io::server::{Server, malformed, only};
use crate::logic::columns::kind_hash;
use crate::logic::limits::to_bound;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{
    EventQueries, EventQuery, FoundEvent, JournalError, PersistenceId, QueryPage,
};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// The queries of a [`crate::PostgresJournal`].
pub(crate) struct Queries(pub(crate) Arc<Server>);

/// Positions that are looked at in one page, when a query passes over some of them.
const SCAN_MAX: i64 = 200_000;

impl EventQueries for Queries {
    fn events<'a>(
        &'a self,
        query: &'a EventQuery,
        after: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<QueryPage, JournalError>> {
        async move {
            let _permit = self.0.enter().await?;
            page(&self.0, query, after, max).await
        }
        .boxed()
    }

    fn changed(&self, after: u64) -> BoxFuture<'_, Result<u64, JournalError>> {
        async move {
            if self.0.is_closed() {
                return Err(JournalError::Closed);
            }
            self.0.news.changed(&self.0, after).await
        }
        .boxed()
    }

    fn ids<'a>(
        &'a self,
        after: Option<&'a PersistenceId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<PersistenceId>, JournalError>> {
        async move {
            let _permit = self.0.enter().await?;
            // From one id to the next by the index: the events between are not touched.
            let sql = self.0.sql(
                "WITH RECURSIVE ids AS (
                    (SELECT id FROM @.events WHERE id > $1 ORDER BY id LIMIT 1)
                    UNION ALL
                    SELECT (SELECT e.id FROM @.events e WHERE e.id > i.id ORDER BY e.id LIMIT 1)
                    FROM ids i WHERE i.id IS NOT NULL)
                 SELECT id FROM ids WHERE id IS NOT NULL LIMIT $2",
            );
            let after = after.map_or(&[][..], |after| after.as_str().as_bytes());
            let rows = self.0.rows(&sql, &[&after, &row_limit(max)]).await;
            let rows = rows.map_err(Fault::of_read)?;
            let ids = rows.iter().map(|row| id(row, 0));
            ids.collect::<Result<_, _>>()
                .map_err(|what| malformed(what).of_read())
        }
        .boxed()
    }
}

/// The position of the newest event that is there; 0 if there is none.
pub(crate) async fn newest(server: &Server) -> Result<u64, JournalError> {
    let sql = server.sql("SELECT coalesce(max(position), 0) FROM @.events");
    let rows = server.rows(&sql, &[]).await.map_err(Fault::of_read)?;
    let row = only(&rows).map_err(Fault::of_read)?;
    number(row, 0).map_err(|what| malformed(what).of_read())
}

/// Positions are given behind a lock that is held until the commit: when an event is visible, all
/// with lower positions are. So nothing can appear later at or below `newest`.
async fn page(
    server: &Server,
    query: &EventQuery,
    after: u64,
    max: usize,
) -> Result<QueryPage, JournalError> {
    let newest = newest(server).await?;
    if newest <= after || query.slice_range().is_empty() {
        return Ok(QueryPage::new(Vec::new(), newest.max(after), false));
    }
    if max == 0 {
        return Ok(QueryPage::new(Vec::new(), after, true));
    }
    let (from, end) = (to_bound(after), to_bound(newest));
    let scans = query.id.is_none() && query.tag.is_none();
    let through = if scans {
        end.min(from.saturating_add(SCAN_MAX))
    } else {
        end
    };
    let limit = row_limit(max);
    let (sql, params) = statement(query, (from, through), limit);
    let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| &**param as _).collect();
    let rows = server.rows(&server.sql(&sql), &params).await;
    let mut events = found(&rows.map_err(Fault::of_read)?)?;
    let bytes: usize = events
        .iter()
        .map(|found| found.event.record.payload.len())
        .sum();
    let full = i64::try_from(events.len()).is_ok_and(|rows| rows >= limit)
        || i64::try_from(bytes).is_ok_and(|bytes| bytes >= PAGE_BYTES_MAX);
    let last = events.last().filter(|_| full);
    let through = last.map_or(through.cast_unsigned(), |last| last.event.position);
    // The index knows kinds by their hashes only.
    events.retain(|found| query.matches(&found.id, &found.event.record.tags));
    Ok(QueryPage::new(events, through, through < newest))
}

fn found(rows: &[Row]) -> Result<Vec<FoundEvent>, JournalError> {
    let mut name = Arc::from("");
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let id = id(row, NEXT_COLUMN).map_err(|what| malformed(what).of_read())?;
        let event = event(row, &id, &mut name)?;
        events.push(FoundEvent::new(id, event));
    }
    events.sort_by_key(|found| found.event.position);
    Ok(events)
}

type Param = Box<dyn ToSql + Send + Sync>;

/// The statement for a query between two positions, the first one excluded, and its parameters.
fn statement(query: &EventQuery, (after, through): (i64, i64), limit: i64) -> (String, Vec<Param>) {
    let mut params: Vec<Param> = vec![Box::new(after), Box::new(through), Box::new(limit)];
    let mut conditions = "position > $1 AND position <= $2".to_owned();
    let mut also = |text: &str, param: Param| {
        params.push(param);
        let number = format!("${}", params.len());
        conditions.push_str(&text.replace('?', &number));
    };
    if !query.is_all_slices() {
        let slice = |slice: u16| Box::new(i16::try_from(slice).unwrap_or(i16::MAX));
        also(" AND slice >= ?", slice(*query.slice_range().start()));
        also(" AND slice <= ?", slice(*query.slice_range().end()));
    }
    if let Some(kind) = &query.kind {
        also(" AND kind = ?", Box::new(kind_hash(kind)));
    }
    if let Some(id) = &query.id {
        also(" AND id = ?", Box::new(id.as_str().as_bytes().to_vec()));
    }
    // Of one id the tags are looked at in the events.
    let by_tag = query.id.is_none() && query.tag.is_some();
    if let Some(tag) = &query.tag {
        let condition = if by_tag {
            " AND tag = ?"
        } else {
            " AND ? = ANY (tags)"
        };
        also(condition, Box::new(tag.as_bytes().to_vec()));
    }
    let from = if by_tag {
        format!(
            "SELECT e.* FROM (SELECT position, slice, kind FROM @.event_tags \
             WHERE {conditions} ORDER BY position LIMIT $3) t \
             JOIN @.events e USING (position, slice, kind)"
        )
    } else {
        format!("SELECT * FROM @.events WHERE {conditions} ORDER BY position LIMIT $3")
    };
    let columns = format!("{COLUMNS}, id");
    (within_bytes(&columns, &from, "position"), params)
}
