//! Config: where the server is, and every limit of the stores.

use crate::error::ConfigError;
use crate::io::connect::{Connector, PlainConnector};
use crate::logic::batch::BatchLimits;
use crate::logic::migrations::is_plain_name;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Where the server is, and the limits of the stores.
///
/// ```
/// use otava_postgres::PostgresConfig;
/// use std::time::Duration;
///
/// let config = PostgresConfig::parse("postgres://bank:secret@db.example:5432/bank")?
///     .schema("bank_journal")
///     .statement_timeout(Duration::from_secs(5));
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), otava_postgres::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct PostgresConfig {
    pub(crate) server: tokio_postgres::Config,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) schema: String,
    pub(crate) pool_max: NonZeroUsize,
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) idle_in_transaction_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) batch: BatchLimits,
    pub(crate) migrate: bool,
}

impl PostgresConfig {
    /// Takes an address: `postgres://user:password@host:port/database?option=value`, or
    /// `host=/run/postgresql user=bank dbname=bank`, with all options of
    /// [`tokio_postgres::Config`].
    ///
    /// # Errors
    /// [`ConfigError::Address`] when it cannot be understood.
    pub fn parse(address: &str) -> Result<Self, ConfigError> {
        let server = address.parse().map_err(|error| ConfigError::Address {
            reason: describe_parse_error(&error),
        })?;
        Ok(Self::new(server))
    }

    /// Takes settings as `tokio-postgres` has them.
    ///
    /// What they leave open, keep-alive probes and the limit for unacknowledged data, is set to notice a
    /// server that is gone within some 30 s.
    pub fn new(mut server: tokio_postgres::Config) -> Self {
        if server.get_keepalives_idle() == KEEPALIVES_IDLE_UNSET {
            server.keepalives_idle(Duration::from_secs(15));
            server.keepalives_interval(Duration::from_secs(5));
            server.keepalives_retries(3);
        }
        if server.get_tcp_user_timeout().is_none() {
            server.tcp_user_timeout(Duration::from_secs(30));
        }
        Self {
            server,
            connector: Arc::new(PlainConnector),
            schema: "otava".to_owned(),
            pool_max: NonZeroUsize::new(8).expect("not zero"),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_secs(1),
            batch: BatchLimits {
                requests: BATCH_REQUESTS_MAX,
                bytes: 8 << 20,
            },
            migrate: true,
        }
    }

    /// What connects. Default: without TLS, so that `sslmode=require` fails.
    /// [`crate::tls_connector`] makes one of any TLS library that has an adapter for `tokio-postgres`.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = connector;
        self
    }

    /// The schema that holds all tables. Default: `otava`. Several journals share a database by
    /// having schemas of their own. At most 40 characters of `a-z`, `0-9` and `_`.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// The most connections of the pool. Default: 8. Beside the pool there are two for writers, and
    /// one that listens when somebody waits for new events.
    pub fn pool_max(mut self, connections: NonZeroUsize) -> Self {
        self.pool_max = connections;
        self
    }

    /// How long is waited for a connection, to be made or to become free. Default: 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// After how long the server gives a statement up. Default: 10 s; at least 1 ms. If no answer
    /// comes for [`Self::GRACE`] longer, the connection is given up, and what was asked for may have
    /// happened.
    pub fn statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit;
        self
    }

    /// After how long the server gives the wait for a lock up. Default: 5 s; at least 1 ms.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_timeout = limit;
        self
    }

    /// After how long the server ends the session of a process that has a transaction open and says
    /// nothing, for example because it was paused. Default: 10 s; at least 1 ms.
    pub fn idle_in_transaction_timeout(mut self, limit: Duration) -> Self {
        self.idle_in_transaction_timeout = limit;
        self
    }

    /// How long [`changed`](otava_persistence::EventQueries::changed) waits for the server to tell of
    /// new events before it looks itself. Default: 1 s.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// The most requests that are written by one statement. Default, and at most: 1,000.
    pub fn batch_requests_max(mut self, requests: NonZeroUsize) -> Self {
        self.batch.requests = requests.get().min(BATCH_REQUESTS_MAX);
        self
    }

    /// Whether opening brings the schema up to date. Default: yes. Without it, a role that may only
    /// use the schema will do.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// How much longer than a statement may take an answer is waited for.
    pub const GRACE: Duration = Duration::from_secs(5);

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if is_plain_name(&self.schema) {
            return Ok(());
        }
        Err(ConfigError::Schema {
            name: self.schema.clone(),
        })
    }

    /// When an answer is given up.
    pub(crate) fn answer_limit(&self) -> Duration {
        self.statement_timeout.saturating_add(Self::GRACE)
    }

    /// The server in words, without secrets.
    pub(crate) fn server_name(&self) -> String {
        let hosts: Vec<_> = self.server.get_hosts().iter().map(host_name).collect();
        let ports: Vec<_> = self.server.get_ports().iter().map(u16::to_string).collect();
        let database = self.server.get_dbname().unwrap_or("(default)");
        format!(
            "{}:{} database {database}",
            hosts.join(","),
            ports.join(",")
        )
    }
}

/// The answer to so many requests fits into the buffers of any socket: a server never waits for a
/// paused process to take it while it holds a lock.
const BATCH_REQUESTS_MAX: usize = 1000;

/// What `tokio-postgres` has when nothing was said.
const KEEPALIVES_IDLE_UNSET: Duration = Duration::from_secs(2 * 60 * 60);

fn host_name(host: &tokio_postgres::config::Host) -> String {
    match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    }
}

/// Only what cannot hold a part of a password: a password with a strange character can end up as the
/// "name" of an option.
fn describe_parse_error(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    let inner = error.source().map(ToString::to_string).unwrap_or_default();
    if inner.starts_with("invalid value for option") {
        inner
    } else {
        error.to_string()
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("server", &self.server_name())
            .field("schema", &self.schema)
            .field("pool_max", &self.pool_max)
            .field("statement_timeout", &self.statement_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let secret = "hunter2";
        for address in [
            "postgres://u:hunter2@h/db",
            "host=h user=u password=hunter2",
            "host=h user=u password=x hunter2=1",
            "host=h port=x password=hunter2",
            "postgres://u:a b=hunter2@h:x/db?hunter2=3",
        ] {
            let shown = match PostgresConfig::parse(address) {
                Ok(config) => format!("{config:?} {}", config.server_name()),
                Err(error) => format!("{error:?} {error}"),
            };
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_schema_needs_a_plain_name() {
        let config = PostgresConfig::parse("host=h user=u").unwrap();
        assert_eq!(config.check(), Ok(()));
        let refused = config.schema("a; drop").check();
        assert!(matches!(refused, Err(ConfigError::Schema { .. })));
    }
}
