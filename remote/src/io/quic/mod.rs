//! QUIC: the network between nodes, every byte of it mutually authenticated and encrypted.
//!
//! ```text
//! QuicNetwork --connect--> handshake --------------------------> QuicConnection
//!      |                                                           (lanes.rs)
//!      '--acceptor task--> handshakes, a bounded number, each --> accept()
//!                          in a task of its own
//! ```
//!
//! `tls.rs` says who is let in, `config.rs` holds the limits, `socket.rs` frees the port at the end.
//!
//! **Invariant:** nobody gets past the handshake without a certificate of an authority that this
//! node trusts, whichever side called.
//!
//! With TLS 1.3 the caller is ready half a round trip before the called one has looked at its
//! certificate. `connect` may therefore succeed towards a peer that refuses this node: the first
//! read tells. Whoever needs to know asks for an answer first, as the handshake above does.

mod acceptor;
mod config;
mod lanes;
mod runtime;
mod socket;
pub(crate) mod tls;

use config::DATAGRAM_BYTES_MAX;
pub use config::QuicConfig;

use crate::io::credentials::Credentials;
use crate::io::files;
use crate::io::standby::Standby;
use crate::network::{ConnectError, Connection, Network};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lanes::{CODE, QuicConnection, reason};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, EndpointConfig};
use runtime::KeptRuntime;
use socket::Socket;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

/// Handed to TLS, which wants a name. It is not sent, and not what the peer's certificate is
/// checked for.
const ANY_NODE: &str = "node.otava.internal";

/// How long [`Network::close`] waits for the last packets to be answered before it frees the port.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// A network over QUIC: one UDP port, mutual TLS 1.3 on every connection.
///
/// Dropping it closes all connections, without waiting for anything.
pub struct QuicNetwork {
    endpoint: quinn::Endpoint,
    socket: Arc<Socket>,
    credentials: Credentials,
    addr: SocketAddr,
    connect_timeout: Duration,
    accepted: Mutex<mpsc::Receiver<Arc<dyn Connection>>>,
    acceptor: AbortHandle,
    standby: Standby,
}

impl QuicNetwork {
    /// Begins the network of the node `node_name`, which listens at `listen`.
    pub fn builder(
        node_name: &str,
        listen: SocketAddr,
        credentials: Credentials,
    ) -> QuicNetworkBuilder {
        QuicNetworkBuilder {
            node_name: node_name.to_owned(),
            listen,
            advertise: None,
            insecure_beyond_loopback: false,
            credentials,
            config: QuicConfig::default(),
        }
    }

    async fn dial(&self, to: SocketAddr) -> Result<Arc<dyn Connection>, ConnectError> {
        let unreachable = |reason: String| ConnectError::Unreachable { to, reason };
        let connecting = self.endpoint.connect(to, ANY_NODE).map_err(|e| match e {
            quinn::ConnectError::EndpointStopping => ConnectError::Closed,
            other => unreachable(other.to_string()),
        })?;
        let limit = self.connect_timeout;
        let Ok(connected) = tokio::time::timeout(limit, connecting).await else {
            return Err(unreachable(format!("no answer within {limit:?}")));
        };
        let connection = connected.map_err(|error| match error {
            ConnectionError::LocallyClosed => ConnectError::Closed,
            ConnectionError::TimedOut => unreachable("no answer".to_owned()),
            error if is_refusal(&error) => ConnectError::Refused {
                to,
                reason: reason(&error),
            },
            other => unreachable(reason(&other)),
        })?;
        match QuicConnection::start(connection, self.credentials.inner()) {
            Some(connection) => Ok(connection),
            None => Err(ConnectError::Refused {
                to,
                reason: "it has no certificate".to_owned(),
            }),
        }
    }
}

impl Network for QuicNetwork {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, Result<Arc<dyn Connection>, ConnectError>> {
        self.dial(to).boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        async move { self.accepted.lock().await.recv().await }.boxed()
    }

    fn isolated(&self, task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        self.standby.keep(task)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.acceptor.abort();
            self.endpoint.close(CODE, b"the node has stopped");
            if tokio::time::timeout(CLOSE_LIMIT, self.endpoint.wait_idle())
                .await
                .is_err()
            {
                tracing::debug!(addr = %self.addr, "closed before all peers had answered");
            }
            self.socket.release();
        }
        .boxed()
    }
}

impl Drop for QuicNetwork {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.endpoint.close(CODE, b"the node has stopped");
    }
}

impl fmt::Debug for QuicNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicNetwork")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// Whether TLS has turned a peer down, here or over there (RFC 9001, 4.8).
pub(crate) fn is_refusal(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return false,
    };
    (0x100..0x200).contains(&u64::from(code))
}

/// A [`QuicNetwork`] that is being set up.
#[derive(Debug)]
#[must_use = "nothing listens before `bind`"]
pub struct QuicNetworkBuilder {
    node_name: String,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    insecure_beyond_loopback: bool,
    credentials: Credentials,
    config: QuicConfig,
}

impl QuicNetworkBuilder {
    /// Sets the address that others use, if it is not the one listened at: behind a translation of
    /// addresses, or when listening at all addresses of the machine.
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.advertise = Some(addr);
        self
    }

    /// Sets limits and times.
    pub fn config(mut self, config: QuicConfig) -> Self {
        self.config = config;
        self
    }

    /// Lets a node with [`Credentials::insecure`] listen where others than this machine reach it.
    /// **Whoever does is in.** For other credentials it changes nothing.
    pub fn insecure_beyond_loopback(mut self) -> Self {
        self.insecure_beyond_loopback = true;
        self
    }

    /// Listens. It must be called inside a tokio runtime, on which everything runs.
    ///
    /// # Errors
    /// [`BindError`]; nothing listens then.
    pub fn bind(self) -> Result<QuicNetwork, BindError> {
        let Some(identity) = self.credentials.identity_as(&self.node_name) else {
            return Err(BindError::Name {
                name: self.node_name,
            });
        };
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        if self.credentials.are_insecure() {
            if !self.insecure_beyond_loopback && !self.listen.ip().is_loopback() {
                return Err(BindError::Insecure { addr: self.listen });
            }
            tracing::warn!(
                addr = %self.listen,
                "INSECURE: this node checks nobody and proves nothing; whoever reaches it is in"
            );
        }
        let transport = self.config.transport();
        let transport = Arc::new(transport.map_err(|e| setting(&e))?);
        let client = client_config(&self.credentials, &transport)?;
        let server = server_config(&self.credentials, &transport, &self.config)?;
        let address = |source| BindError::Address {
            addr: self.listen,
            source,
        };
        let socket = Socket::bind(self.listen).map_err(address)?;
        let standby = Standby::start(&runtime);
        let mut limits = EndpointConfig::default();
        limits
            .max_udp_payload_size(DATAGRAM_BYTES_MAX)
            .map_err(|e| setting(&e))?;
        let mut endpoint = quinn::Endpoint::new_with_abstract_socket(
            limits,
            Some(server),
            socket.clone(),
            Arc::new(KeptRuntime(standby.clone())),
        )
        .map_err(address)?;
        endpoint.set_default_client_config(client);
        let addr = match self.advertise {
            Some(addr) => addr,
            None => endpoint.local_addr().map_err(address)?,
        };
        if !identity.may_listen_at(addr) {
            return Err(BindError::OtherAddress { addr });
        }
        runtime.spawn(files::watch(Arc::downgrade(self.credentials.inner())));
        let (ready, accepted) = mpsc::channel(self.config.handshakes_max.max(1));
        let run = acceptor::run(
            endpoint.clone(),
            self.config.clone(),
            self.credentials.clone(),
            ready,
        );
        Ok(QuicNetwork {
            endpoint,
            socket,
            credentials: self.credentials,
            addr,
            connect_timeout: self.config.connect_timeout,
            accepted: Mutex::new(accepted),
            acceptor: runtime.spawn(run).abort_handle(),
            standby,
        })
    }
}

fn setting(error: &dyn fmt::Display) -> BindError {
    BindError::Setting {
        reason: error.to_string(),
    }
}

fn client_config(
    credentials: &Credentials,
    transport: &Arc<quinn::TransportConfig>,
) -> Result<quinn::ClientConfig, BindError> {
    let tls = tls::client(credentials).map_err(|e| setting(&e))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| setting(&e))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport.clone());
    Ok(config)
}

fn server_config(
    credentials: &Credentials,
    transport: &Arc<quinn::TransportConfig>,
    limits: &QuicConfig,
) -> Result<quinn::ServerConfig, BindError> {
    let tls = tls::server(credentials).map_err(|e| setting(&e))?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| setting(&e))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport.clone())
        // A peer stays where its connection was made.
        .migration(false)
        // Callers that the acceptor has not looked at yet, and what they may send meanwhile.
        .max_incoming(limits.handshakes_max.max(1))
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES * limits.handshakes_max.max(1) as u64);
    Ok(config)
}

/// The first flight of a caller: its hello, and retransmissions of it.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;

/// Why a network does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be listened at.
    #[error("cannot listen at {addr}: {source}")]
    Address {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is that of another node.
    #[error("the certificate does not say that this is the node `{name}`")]
    Name {
        /// The name that this node should have.
        name: String,
    },
    /// Not inside a tokio runtime.
    #[error("a network needs a tokio runtime to run on")]
    NoRuntime,
    /// Nodes that check nobody listen at loopback addresses only.
    #[error(
        "{addr} can be reached from elsewhere, and these credentials check nobody: use certificates \
         (`otava cert`), or call `insecure_beyond_loopback`"
    )]
    Insecure {
        /// Where it should listen.
        addr: SocketAddr,
    },
    /// The certificate says where this node may listen, and this is not it.
    #[error("the certificate is for other addresses than {addr}")]
    OtherAddress {
        /// The address that others would use.
        addr: SocketAddr,
    },
    /// A setting, or a kind of key, that QUIC cannot work with.
    #[error("QUIC cannot be set up: {reason}")]
    Setting {
        /// What was wrong.
        reason: String,
    },
}
