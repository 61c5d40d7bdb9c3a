//! Lease: rows that one owner holds for a time, by the clock of the server.

use crate::io::fault::Fault;
use crate::io::journal::PostgresJournal;
use crate::io::rows::{number, text};
use crate::io::server::{Params, Server, malformed, write};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_cluster::{Grant, Lease, LeaseError};
use otava_persistence::JournalError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Leases in the schema of a journal, for `Strategy::LeaseMajority` and singletons.
///
/// The clock is that of the server. Should the server be replaced by a standby that is behind, a lease
/// that was given last can be lost with it: use synchronous replication.
#[derive(Clone)]
pub struct PostgresLease(Arc<Server>);

impl PostgresJournal {
    /// Leases in the same schema.
    #[must_use]
    pub fn lease(&self) -> PostgresLease {
        PostgresLease(Arc::clone(&self.server))
    }
}

impl fmt::Debug for PostgresLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresLease")
            .field(&self.0.config)
            .finish()
    }
}

/// Of the same owner it goes on with its term; of another, or after its time, the next term begins.
const ACQUIRE: &str = "INSERT INTO @.leases AS l (name, owner, until, term) \
    VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond', 1) \
    ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until, \
    term = CASE WHEN l.owner = EXCLUDED.owner AND l.until > clock_timestamp() \
        THEN l.term ELSE l.term + 1 END \
    WHERE l.owner = EXCLUDED.owner OR l.until <= clock_timestamp() RETURNING l.term";

const HOLDER: &str = "SELECT owner FROM @.leases WHERE name = $1 AND until > clock_timestamp()";

impl Lease for PostgresLease {
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        length: Duration,
    ) -> BoxFuture<'a, Result<Grant, LeaseError>> {
        async move {
            let (key, by) = (name.as_bytes().to_vec(), owner.as_bytes().to_vec());
            let milliseconds = length.as_secs_f64() * 1000.0;
            let run = |server: Arc<Server>| {
                async move {
                    loop {
                        let params: Params<'_> = &[&key, &by, &milliseconds];
                        let rows = server.rows(&server.sql(ACQUIRE), params).await?;
                        if let Some(row) = rows.first() {
                            let term = number(row, 0).map_err(malformed)?;
                            return Ok(Grant::Held { term });
                        }
                        // It may be over by now, then it is asked for again.
                        let rows = server.rows(&server.sql(HOLDER), &[&key]).await?;
                        if let Some(row) = rows.first() {
                            let by = text(row, 0, "owner").map_err(malformed)?.to_owned();
                            return Ok(Grant::Taken { by });
                        }
                    }
                }
                .boxed()
            };
            write(&self.0, run)
                .await
                .map_err(|error| fault(name, &error))
        }
        .boxed()
    }

    fn release<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), LeaseError>> {
        async move {
            let (key, by) = (name.as_bytes().to_vec(), owner.as_bytes().to_vec());
            let run = |server: Arc<Server>| {
                async move {
                    let sql =
                        "UPDATE @.leases SET until = '-infinity' WHERE name = $1 AND owner = $2";
                    server.rows(&server.sql(sql), &[&key, &by]).await.map(drop)
                }
                .boxed()
            };
            write(&self.0, run)
                .await
                .map_err(|error| fault(name, &error))
        }
        .boxed()
    }

    fn holder<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, LeaseError>> {
        async move {
            let holder = async {
                let _permit = self.0.enter().await?;
                let rows = self.0.rows(&self.0.sql(HOLDER), &[&name.as_bytes()]).await;
                let rows = rows.map_err(Fault::of_read)?;
                let holder = rows
                    .first()
                    .map(|row| text(row, 0, "owner").map(str::to_owned));
                holder.transpose().map_err(|what| malformed(what).of_read())
            };
            holder.await.map_err(|error| fault(name, &error))
        }
        .boxed()
    }
}

fn fault(name: &str, error: &JournalError) -> LeaseError {
    LeaseError::new(name, error.to_string())
}
