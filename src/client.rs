//! Client: reaches the entities of a cluster without being a member of it.

use otava_actor::ActorSystem;
use otava_remote::{
    BindError, Credentials, Network, QuicNetwork, Remote, RemoteConfig, RemoteMessage, StartError,
};
use otava_sharding::EntityClient;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A program that sends commands to entities and gets their answers, with the same certificates and
/// the same types as a member, but no vote: when it ends, or cannot be reached, the cluster does not
/// care.
///
/// From the nodes that it was given as contacts it learns where the shards are, and sends straight
/// there; what it does not know yet the contacts pass on.
#[derive(Clone)]
pub struct Client {
    system: ActorSystem,
    remote: Remote,
    contacts: Arc<[SocketAddr]>,
}

impl Client {
    /// Starts a client of the cluster `cluster` with the name `name`, on a free port of 127.0.0.1.
    /// `contacts` are nodes of the cluster, any of them.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        cluster: &str,
        name: &str,
        credentials: Credentials,
        contacts: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, ClientError> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let network = QuicNetwork::builder(name, listen, credentials).bind()?;
        Self::over(cluster, name, Arc::new(network), contacts)
    }

    /// The same over another network, for example one in memory.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn over(
        cluster: &str,
        name: &str,
        network: Arc<dyn Network>,
        contacts: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, ClientError> {
        let system = ActorSystem::new(name);
        let remote = Remote::builder(&system, cluster, name, network)
            .config(RemoteConfig::default())
            .start()?;
        Ok(Self {
            system,
            remote,
            contacts: contacts.into_iter().collect(),
        })
    }

    /// The way to the entities of one kind. `shards` is the number of shards that the nodes are
    /// configured with; it only decides what [`EntityClient::shard_of`] says.
    ///
    /// # Errors
    /// [`otava_sharding::StartError`]: the number of shards is no power of two, or there is no
    /// contact.
    pub fn entities<M: RemoteMessage>(
        &self,
        kind: &str,
        shards: u32,
    ) -> Result<EntityClient<M>, otava_sharding::StartError> {
        otava_sharding::client(&self.remote, kind, &self.contacts, shards)
    }

    /// The layer that carries the messages.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Ends the client: what is queued is sent, connections are closed.
    pub async fn shutdown(&self) {
        self.system.shutdown().await;
        self.remote.shutdown().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", self.remote.id())
            .field("contacts", &self.contacts)
            .finish()
    }
}

/// Why a client was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The network could not be set up.
    #[error("cannot listen: {0}")]
    Bind(#[from] BindError),
    /// The remote layer could not be set up.
    #[error("cannot start the remote layer: {0}")]
    Remote(#[from] StartError),
}
