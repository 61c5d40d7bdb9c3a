//! Server: the pool, and what all stores of one schema share.

use crate::config::PostgresConfig;
use crate::io::connect::{Connector, session};
use crate::io::fault::{Fault, describe};
use crate::io::news::News;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError};
use deadpool_postgres::{RecyclingMethod, Runtime, TimeoutType};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_persistence::JournalError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};

/// The parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The pool, and who uses it.
pub(crate) struct Server {
    pub(crate) config: PostgresConfig,
    pub(crate) pool: Pool,
    pub(crate) news: News,
    closed: AtomicBool,
    /// Each operation under way holds one permit.
    running: Arc<Semaphore>,
    /// When it was tried to connect last, and why it failed, if it did.
    failed: Mutex<Option<(Instant, Arc<str>)>>,
}

/// After a failure to connect there is one attempt in this time, and the others get the same answer: a
/// server that comes back is not to be kept busy by those who wait for it.
const RECONNECT_WAIT: Duration = Duration::from_millis(100);

/// Operations that may be under way at once; one above that waits.
const RUNNING_MAX: u32 = 4096;

impl Server {
    pub(crate) fn new(config: PostgresConfig) -> Self {
        let pool = pool(&config);
        Self {
            pool,
            news: News::new(),
            config,
            closed: AtomicBool::new(false),
            running: Arc::new(Semaphore::new(RUNNING_MAX as usize)),
            failed: Mutex::new(None),
        }
    }

    /// A statement in which `@` stands for the schema.
    pub(crate) fn sql(&self, text: &str) -> String {
        text.replace('@', &format!("\"{}\"", self.config.schema))
    }

    /// Lets an operation in, unless the store is closed.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, JournalError> {
        if self.is_closed() {
            return Err(JournalError::Closed);
        }
        let permit = Arc::clone(&self.running).acquire_owned().await;
        match permit {
            Ok(permit) if !self.is_closed() => Ok(permit),
            _ => Err(JournalError::Closed),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Lets nothing in any more.
    pub(crate) fn begin_close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.close();
    }

    /// Waits for what is under way, then ends all connections of the pool.
    pub(crate) async fn finish_close(&self) {
        let all = self.running.acquire_many(RUNNING_MAX).await;
        drop(all);
        self.pool.close();
    }

    /// Runs one statement on a connection of the pool, in a transaction of its own.
    pub(crate) async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        let client = self.client().await?;
        let begin = Instant::now();
        let running = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        };
        match tokio::time::timeout(self.config.answer_limit(), running).await {
            Ok(done) => done.map_err(|error| Fault::new(&error, begin.elapsed())),
            Err(_) => {
                // The connection ends with its client, and does not go back to the pool.
                drop(Object::take(client));
                Err(Fault::Lost("the server gave no answer".into()))
            }
        }
    }

    /// A connection of the pool.
    pub(crate) async fn client(&self) -> Result<Object, Fault> {
        if self.pool.status().available == 0 {
            self.may_connect()?;
        }
        let error = match self.pool.get().await {
            Ok(client) => {
                self.connected();
                return Ok(client);
            }
            Err(error) => error,
        };
        let of_pool = matches!(
            error,
            PoolError::Closed | PoolError::Timeout(TimeoutType::Wait)
        );
        let reason = match error {
            PoolError::Backend(error) => describe(&error),
            PoolError::PostCreateHook(HookError::Backend(error)) => describe(&error),
            other => other.to_string(),
        };
        Err(if of_pool {
            Fault::Unreachable(reason.into())
        } else {
            self.not_connected(&reason)
        })
    }

    /// Whether a new connection may be tried. After a failure one at a time may.
    pub(crate) fn may_connect(&self) -> Result<(), Fault> {
        match &mut *self.failed() {
            Some((when, reason)) if when.elapsed() < RECONNECT_WAIT => {
                Err(Fault::Unreachable(Arc::clone(reason)))
            }
            Some((when, _)) => {
                *when = Instant::now();
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn connected(&self) {
        *self.failed() = None;
    }

    pub(crate) fn not_connected(&self, reason: &str) -> Fault {
        let reason: Arc<str> = format!("{}: {reason}", self.config.server_name()).into();
        *self.failed() = Some((Instant::now(), Arc::clone(&reason)));
        Fault::Unreachable(reason)
    }

    fn failed(&self) -> MutexGuard<'_, Option<(Instant, Arc<str>)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what writes in a task of its own: whoever waits for it may go away.
pub(crate) async fn write<T: Send + 'static>(
    server: &Arc<Server>,
    run: impl FnOnce(Arc<Server>) -> BoxFuture<'static, Result<T, Fault>>,
) -> Result<T, JournalError> {
    let permit = server.enter().await?;
    let running = run(Arc::clone(server));
    let task = tokio::spawn(async move {
        let _permit = permit;
        running.await.map_err(Fault::of_write)
    });
    task.await.unwrap_or_else(|error| {
        let reason = format!("the task that writes ended: {error}").into();
        Err(JournalError::Unknown { reason })
    })
}

/// The only row of an answer.
pub(crate) fn only(rows: &[Row]) -> Result<&Row, Fault> {
    rows.first().ok_or_else(|| malformed("there is no row"))
}

/// The server answered with something that no version of the schema gives.
pub(crate) fn malformed(what: &str) -> Fault {
    Fault::Refused(JournalError::Refused {
        reason: format!("the answer of the server makes no sense: {what}"),
    })
}

fn pool(config: &PostgresConfig) -> Pool {
    let manager = Manager::from_connect(
        config.server.clone(),
        PoolConnector(Arc::clone(&config.connector)),
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let session = session(config);
    let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let session = session.clone();
        async move {
            let prepared = client.batch_execute(&session).await;
            prepared.map_err(HookError::Backend)
        }
        .boxed()
    });
    let limit = Some(config.connect_timeout);
    Pool::builder(manager)
        .max_size(config.pool_max.get())
        .runtime(Runtime::Tokio1)
        .wait_timeout(limit)
        .create_timeout(limit)
        .recycle_timeout(limit)
        .post_create(prepare)
        .build()
        .expect("a runtime is given, so that timeouts work")
}

struct PoolConnector(Arc<dyn Connector>);

impl deadpool_postgres::Connect for PoolConnector {
    fn connect(
        &self,
        server: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let server = server.clone();
        async move { self.0.connect(&server, None).await }.boxed()
    }
}
