//! Connect: makes connections, with and without TLS, and prepares their sessions.

use crate::config::PostgresConfig;
use crate::io::fault::describe;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, poll_fn};
use std::fmt;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Notification, Socket};

/// Makes connections to a server.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Connects, and spawns the task that drives the connection. What others notify of goes to
    /// `notifications`.
    ///
    /// # Errors
    /// The error of `tokio-postgres`.
    fn connect<'a>(
        &'a self,
        server: &'a Config,
        notifications: Option<mpsc::Sender<Notification>>,
    ) -> BoxFuture<'a, Result<(Client, JoinHandle<()>), tokio_postgres::Error>>;
}

/// A connector that secures connections by an adapter of a TLS library to `tokio-postgres`, for
/// example `MakeRustlsConnect` of `tokio-postgres-rustls`.
pub fn tls_connector<T>(tls: T) -> impl Connector
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    TlsConnector(tls)
}

struct TlsConnector<T>(T);

impl<T> fmt::Debug for TlsConnector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl<T> Connector for TlsConnector<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect<'a>(
        &'a self,
        server: &'a Config,
        notifications: Option<mpsc::Sender<Notification>>,
    ) -> BoxFuture<'a, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let tls = self.0.clone();
        async move {
            let (client, connection) = server.connect(tls).await?;
            Ok((client, tokio::spawn(drive(connection, notifications))))
        }
        .boxed()
    }
}

/// Connects without TLS.
#[derive(Debug)]
pub(crate) struct PlainConnector;

impl Connector for PlainConnector {
    fn connect<'a>(
        &'a self,
        server: &'a Config,
        notifications: Option<mpsc::Sender<Notification>>,
    ) -> BoxFuture<'a, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        async move {
            let (client, connection) = server.connect(NoTls).await?;
            Ok((client, tokio::spawn(drive(connection, notifications))))
        }
        .boxed()
    }
}

async fn drive<S, T>(
    mut connection: Connection<S, T>,
    notifications: Option<mpsc::Sender<Notification>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => {
                if let Some(to) = &notifications {
                    // Whoever waits looks at the table: one that is waiting already will do.
                    let _ = to.try_send(notification);
                }
            }
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(notice = notice.message(), "the server says");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = describe(&error), "a connection ends");
                return;
            }
        }
    }
}

/// Connects within the limit, and prepares the session.
pub(crate) async fn connect(
    config: &PostgresConfig,
    notifications: Option<mpsc::Sender<Notification>>,
) -> Result<Client, String> {
    let connecting = async {
        let connection = config.connector.connect(&config.server, notifications);
        let (client, _) = connection.await.map_err(|error| describe(&error))?;
        let prepared = client.batch_execute(&session(config)).await;
        prepared.map_err(|error| describe(&error))?;
        Ok(client)
    };
    tokio::time::timeout(config.connect_timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:?}", config.connect_timeout)))
}

/// What each session is set to.
pub(crate) fn session(config: &PostgresConfig) -> String {
    let milliseconds = |limit: Duration| limit.as_millis().clamp(1, i32::MAX as u128);
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; \
         SET idle_in_transaction_session_timeout = {}; \
         SET default_transaction_isolation = 'read committed'; \
         SET synchronous_commit = 'on'; SET jit = off",
        milliseconds(config.statement_timeout),
        milliseconds(config.lock_timeout),
        milliseconds(config.idle_in_transaction_timeout),
    )
}
