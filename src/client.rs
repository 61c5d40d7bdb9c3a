//! Client: reaches a cluster from a program that is no member of it.

use otava_actor::{ActorRef, ActorSystem};
use otava_remote::{
    BindError, Credentials, Network, QuicNetwork, Remote, RemoteConfig, RemoteEvent, RemoteMessage,
    StartError,
};
use otava_sharding::EntityClient;
use std::fmt;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A program that uses a cluster and has no vote in it: when it ends, or cannot be reached, the cluster
/// does not care. It sends commands to entities ([`Client::entities`]) and to actors that are
/// published on the nodes ([`Client::published`]).
///
/// It proves who it is with a certificate of its own kind (`otava cert node --client`), with which
/// nobody becomes a member, and reaches what the nodes export to clients
/// ([`otava_remote::Rights::export_to_clients`]); all else is refused with
/// [`otava_actor::AskError::NotPermitted`]. With the certificate of a node it has the rights of one.
///
/// It is given some nodes as contacts, keeps a connection to each, and uses the others when one is
/// lost.
///
/// ```no_run
/// use otava::{Client, CredentialFiles, Credentials};
/// use std::time::Duration;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let files = CredentialFiles::in_folder("/etc/reports");
/// let contacts: [std::net::SocketAddr; 2] = ["10.0.0.1:7001".parse()?, "10.0.0.2:7001".parse()?];
/// let client = Client::builder("bank", "reports", contacts)
///     .credentials(Credentials::from_files(files)?)
///     .listen("0.0.0.0:0".parse()?)
///     .advertise("10.0.0.9:7002".parse()?)
///     .start()?;
/// client.connected(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    system: ActorSystem,
    remote: Remote,
    contacts: Arc<[SocketAddr]>,
}

impl Client {
    /// Sets up a client of the cluster `cluster` with the name `name`. `contacts` are nodes of the
    /// cluster, any of them; more than one, so that it finds another when one is down.
    pub fn builder(
        cluster: &str,
        name: &str,
        contacts: impl IntoIterator<Item = SocketAddr>,
    ) -> ClientBuilder {
        ClientBuilder {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            contacts: contacts.into_iter().collect(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: None,
            credentials: None,
            network: None,
            seed: None,
            remote_config: RemoteConfig::default(),
        }
    }

    /// Starts a client with these credentials on a free port of 127.0.0.1.
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
        let builder = Self::builder(cluster, name, contacts);
        builder.credentials(credentials).start()
    }

    /// Starts a client over another network, for example one in memory.
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
        let builder = Self::builder(cluster, name, contacts);
        builder.network(network).start()
    }

    /// The way to the entities of one kind. `shards` is the number of shards that the nodes are
    /// configured with; it only decides what [`EntityClient::shard_of`] says.
    ///
    /// From the contacts it learns where the shards are, and sends straight there; what it does not
    /// know yet the contacts pass on.
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

    /// The way to the actors that are published under `name` on the contacts.
    pub fn published<M: RemoteMessage>(&self, name: &str) -> Published<M> {
        Published {
            remote: self.remote.clone(),
            contacts: self.contacts.clone(),
            name: name.into(),
            used: Arc::default(),
            messages: PhantomData,
        }
    }

    /// Waits until there is a connection to one of the contacts.
    ///
    /// # Errors
    /// [`NoContact`]: none could be reached in time, or they refuse this client; why stands in the log.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn connected(&self, within: Duration) -> Result<(), NoContact> {
        let mut events = self.remote.events();
        let connected = async {
            let one = |contact: &SocketAddr| self.remote.is_connected_at(*contact);
            while !self.contacts.iter().any(one) {
                match events.recv().await {
                    Some(RemoteEvent::Connected(node)) if self.contacts.contains(&node.addr) => {
                        break;
                    }
                    Some(_) => {}
                    None => return false,
                }
            }
            true
        };
        match tokio::time::timeout(within, connected).await {
            Ok(true) => Ok(()),
            _ => Err(NoContact {
                contacts: self.contacts.to_vec(),
                within,
            }),
        }
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

/// The way to actors of one name, one on each contact ([`Client::published`]). A handle, cheap to clone.
pub struct Published<M> {
    remote: Remote,
    contacts: Arc<[SocketAddr]>,
    name: Arc<str>,
    /// The place of the contact that was used last.
    used: Arc<AtomicUsize>,
    messages: PhantomData<fn(M)>,
}

impl<M: RemoteMessage> Published<M> {
    /// The actor on the contact that was used last, as long as there is a connection to it, else on the
    /// next one to which there is one; `None` without contacts. Ask for it anew for each message, or at
    /// least after each failure.
    ///
    /// # Delivery
    /// At most once, in order while the contact stays the same. What was under way to a contact that is
    /// lost may have arrived or not: an ask of it ends with an error, and whether it may be asked again
    /// elsewhere is for its protocol to say.
    #[must_use]
    pub fn actor(&self) -> Option<ActorRef<M>> {
        let count = self.contacts.len();
        let used = self.used.load(Ordering::Relaxed);
        let mut places = (0..count).map(|step| (used + step) % count);
        let place = places.find(|&place| self.remote.is_connected_at(self.contacts[place]));
        let place = place.unwrap_or(used);
        self.used.store(place, Ordering::Relaxed);
        let contact = self.contacts.get(place)?;
        Some(self.remote.resolve_at(*contact, &self.name))
    }
}

impl<M> Clone for Published<M> {
    fn clone(&self) -> Self {
        Self {
            remote: self.remote.clone(),
            contacts: self.contacts.clone(),
            name: self.name.clone(),
            used: self.used.clone(),
            messages: PhantomData,
        }
    }
}

impl<M> fmt::Debug for Published<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published")
            .field("name", &self.name)
            .field("contacts", &self.contacts)
            .finish_non_exhaustive()
    }
}

/// Settings of a client that is about to start ([`Client::builder`]).
#[must_use]
pub struct ClientBuilder {
    cluster: String,
    name: String,
    contacts: Arc<[SocketAddr]>,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    credentials: Option<Credentials>,
    network: Option<Arc<dyn Network>>,
    seed: Option<u64>,
    remote_config: RemoteConfig,
}

impl ClientBuilder {
    /// Where nodes reach this client: they call it when an answer is due and the connection was lost.
    /// Default: a free port of 127.0.0.1.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// The address that nodes use, if it is not the one listened at.
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.advertise = Some(addr);
        self
    }

    /// The certificates of this client. Needed, unless a network is given.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The network, for example one in memory. Default: QUIC on [`ClientBuilder::listen`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// Draws everything random from this seed, so that a simulation replays. Ids can be guessed then:
    /// only for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Settings of the remote layer.
    pub fn remote_config(mut self, config: RemoteConfig) -> Self {
        self.remote_config = config;
        self
    }

    /// Starts the client on the caller's tokio runtime. It begins to connect: [`Client::connected`] waits
    /// for that.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<Client, ClientError> {
        let network = match self.network {
            Some(network) => network,
            None => {
                let credentials = self.credentials.ok_or(ClientError::NoCredentials)?;
                let mut network = QuicNetwork::builder(&self.name, self.listen, credentials);
                if let Some(addr) = self.advertise {
                    network = network.advertise(addr);
                }
                Arc::new(network.bind()?)
            }
        };
        let mut system = ActorSystem::builder(&self.name);
        if let Some(seed) = self.seed {
            system = system.seed(seed);
        }
        let system = system.build();
        let mut remote =
            Remote::builder(&system, &self.cluster, &self.name, network).config(self.remote_config);
        if let Some(seed) = self.seed {
            remote = remote.seeded(seed);
        }
        let remote = remote.start()?;
        for contact in self.contacts.iter() {
            remote.keep_connected(*contact);
        }
        Ok(Client {
            system,
            remote,
            contacts: self.contacts,
        })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .field("contacts", &self.contacts)
            .finish_non_exhaustive()
    }
}

/// Why a client was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The network could not be set up.
    #[error("cannot listen: {0}")]
    Bind(#[from] BindError),
    /// Neither credentials nor a network was given.
    #[error(
        "a client needs credentials: make some with `otava cert node --client`, and call `credentials(..)`"
    )]
    NoCredentials,
    /// The remote layer could not be set up.
    #[error("cannot start the remote layer: {0}")]
    Remote(#[from] StartError),
}

/// No node of the cluster could be reached ([`Client::connected`]).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "no connection to any of {contacts:?} within {within:?}: they are down, or refuse this client; see the log"
)]
pub struct NoContact {
    /// Who was tried.
    pub contacts: Vec<SocketAddr>,
    /// For how long.
    pub within: Duration,
}
