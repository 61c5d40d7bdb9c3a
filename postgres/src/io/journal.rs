//! Journal: events in a schema of a PostgreSQL database, for the processes of many machines.

use crate::config::PostgresConfig;
use crate::error::OpenError;
use crate::io::committer::Lane;
use crate::io::fault::Fault;
use crate::io::migrate::prepare;
use crate::io::news::start_notifier;
use crate::io::offsets::PostgresOffsets;
use crate::io::queries::Queries;
use crate::io::rows::{COLUMNS, NEXT_COLUMN, event, number, row_limit, within_bytes};
use crate::io::server::{Params, Server, malformed, only, write};
use crate::io::states::States;
use crate::logic::limits::{check_append, check_id, check_scope, signed, to_bound, to_compare};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::{
    AppendError, AppendRequest, Appended, ClaimError, Damage, DeleteRequest, EventPage,
    EventQueries, Journal, JournalError, OffsetStore, PersistenceId, SaveState, SnapshotStore,
    StateStore,
};
use std::fmt;
use std::sync::Arc;

/// A journal in a schema of a PostgreSQL database, with snapshots, queries, states and offsets.
///
/// Any number of processes open the same schema. Clones are handles on the same connections; when the
/// last one is gone, or after [`Journal::close`], the connections end.
///
/// # Delivery
/// As [`Journal`] says. A lost connection does not halt it: what was under way gets
/// [`JournalError::Unknown`], what comes later goes over a new connection.
#[derive(Clone)]
pub struct PostgresJournal {
    pub(crate) server: Arc<Server>,
    appends: Arc<Lane<AppendRequest>>,
    states: Arc<Lane<SaveState>>,
}

impl PostgresJournal {
    /// Connects, and makes or migrates the schema if [`PostgresConfig::migrate`] allows it. Must be
    /// called within a tokio runtime, which must run as long as the journal is used.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped, it may have migrated the schema or not; it is never half migrated.
    pub async fn open(config: PostgresConfig) -> Result<Self, OpenError> {
        prepare(&config).await?;
        let server = Arc::new(Server::new(config));
        start_notifier(&server);
        Ok(Self {
            appends: Arc::new(Lane::start(Arc::clone(&server))),
            states: Arc::new(Lane::start(Arc::clone(&server))),
            server,
        })
    }

    /// The offsets, with transactions that move them: what [`Journal::offsets`] gives, by its own type.
    #[must_use]
    pub fn postgres_offsets(&self) -> PostgresOffsets {
        PostgresOffsets(Arc::clone(&self.server))
    }

    async fn page(
        &self,
        id: &PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> Result<EventPage, JournalError> {
        check_id(id)?;
        let _permit = self.server.enter().await?;
        let page = within_bytes(
            "*",
            "SELECT * FROM @.events WHERE id = $1 AND seq >= $2 ORDER BY seq LIMIT $3",
            "seq",
        );
        // One statement, so that all of it is of one moment.
        let sql = format!(
            "SELECT {COLUMNS}, highest, deleted FROM (SELECT coalesce(
                (SELECT seq FROM @.events WHERE id = $1 ORDER BY seq DESC LIMIT 1), d.seq, 0) AS highest,
                coalesce(d.seq, 0) AS deleted
                FROM (SELECT 1) one LEFT JOIN @.deletions d ON d.id = $1) numbers
             LEFT JOIN ({page}) page ON true"
        );
        let params: Params<'_> = &[
            &id.as_str().as_bytes(),
            &to_bound(from_seq),
            &row_limit(max),
        ];
        let rows = self.server.rows(&self.server.sql(&sql), params).await;
        let rows = rows.map_err(Fault::of_read)?;
        let first = only(&rows).map_err(Fault::of_read)?;
        let number = |column| number(first, column).map_err(|what| malformed(what).of_read());
        let (highest, deleted) = (number(NEXT_COLUMN)?, number(NEXT_COLUMN + 1)?);
        let mut events = Vec::with_capacity(rows.len());
        let mut name = Arc::from("");
        for row in &rows {
            let nothing = row.try_get::<_, Option<i64>>(0).ok().flatten().is_none();
            if !nothing {
                events.push(event(row, id, &mut name)?);
            }
        }
        events.sort_by_key(|event| event.seq);
        let expected = from_seq.max(1).max(deleted + 1);
        let expected = expected..=highest;
        let missing = |seq, next| JournalError::Corrupt {
            id: id.clone(),
            seq,
            damage: Damage::Missing { next },
        };
        for (seq, event) in expected.clone().zip(&events) {
            if event.seq != seq {
                return Err(missing(seq, event.seq));
            }
        }
        if events.is_empty() && max > 0 && !expected.is_empty() {
            return Err(missing(*expected.start(), highest));
        }
        Ok(EventPage::new(events, highest).deleted(deleted))
    }

    async fn remove(&self, request: DeleteRequest) -> Result<(), AppendError> {
        request.check_limits()?;
        let run = |server: Arc<Server>| {
            async move {
                let fence = request.fence.as_ref();
                let params: Params<'_> = &[
                    &request.id.as_str().as_bytes(),
                    &to_bound(request.seq_max),
                    &fence.map(|fence| fence.scope.as_bytes()),
                    &fence.map(|fence| to_compare(fence.epoch)),
                ];
                let sql = server.sql("SELECT status, number FROM @.delete_1($1, $2, $3, $4)");
                let rows = server.rows(&sql, params).await?;
                let row = only(&rows)?;
                let status: i16 = row.try_get(0).map_err(|_| malformed("status"))?;
                let current = number(row, 1).map_err(malformed)?;
                Ok((status != 0).then_some(current))
            }
            .boxed()
        };
        match write(&self.server, run).await? {
            None => Ok(()),
            Some(current) => Err(AppendError::Fenced { current }),
        }
    }

    async fn number_of_scope(
        &self,
        sql: &'static str,
        scope: &str,
        epoch: Option<i64>,
    ) -> Result<u64, JournalError> {
        check_scope(scope)?;
        let scope = scope.as_bytes().to_vec();
        let run = |server: Arc<Server>| {
            async move {
                let params: Params<'_> = &[&scope, &epoch];
                let params = if epoch.is_some() {
                    params
                } else {
                    &params[..1]
                };
                let rows = server.rows(&server.sql(sql), params).await?;
                number(only(&rows)?, 0).map_err(malformed)
            }
            .boxed()
        };
        write(&self.server, run).await
    }
}

impl Journal for PostgresJournal {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            check_append(&request)?;
            self.appends.ask(request).await
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        self.page(id, from_seq, max).boxed()
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move { Ok(self.page(id, 1, 0).await?.highest_seq) }.boxed()
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        async move {
            let wanted = signed("epoch", epoch)?;
            let sql = "SELECT @.claim_1($1, $2)";
            let current = self.number_of_scope(sql, scope, Some(wanted)).await?;
            if current > epoch {
                return Err(ClaimError::Fenced { current });
            }
            Ok(())
        }
        .boxed()
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.number_of_scope("SELECT @.next_term_1($1)", scope, None)
            .boxed()
    }

    fn delete(&self, request: DeleteRequest) -> BoxFuture<'_, Result<(), AppendError>> {
        self.remove(request).boxed()
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(self.clone()))
    }

    fn queries(&self) -> Option<Arc<dyn EventQueries>> {
        Some(Arc::new(Queries(Arc::clone(&self.server))))
    }

    fn states(&self) -> Option<Arc<dyn StateStore>> {
        Some(Arc::new(States {
            server: Arc::clone(&self.server),
            lane: Arc::clone(&self.states),
        }))
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        Some(Arc::new(self.postgres_offsets()))
    }

    /// All clones, and all stores that came from them, are closed with it.
    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.server.begin_close();
            self.appends.begin_close();
            self.states.begin_close();
            self.appends.ended().await;
            self.states.ended().await;
            self.server.finish_close().await;
        }
        .boxed()
    }
}

impl fmt::Debug for PostgresJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresJournal")
            .field(&self.server.config)
            .finish()
    }
}
