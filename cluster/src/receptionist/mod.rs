//! Receptionist: who offers which service in the whole cluster, by typed keys, and who wants to know.
//!
//! What [`otava_actor::Receptionist`] is for the actors of one system, with the same words. Each node
//! tells all others what is registered there, and nothing about anybody else; how that gets to all is
//! in `logic/receptionist`. The actors of a node are listed from the moment at which it is a full
//! member, and are off all listings the moment it is out.
//!
//! ```no_run
//! use otava_actor::{ActorRef, ServiceKey};
//! use otava_cluster::{Cluster, ClusterReceptionist};
//! # use otava_remote::RemoteMessage;
//! # use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! # #[derive(Deserialize, Serialize)]
//! struct Print(String);
//! # impl RemoteMessage for Print { const NAME: &'static str = "office.Print"; }
//! static PRINTERS: ServiceKey<Print> = ServiceKey::new("printers");
//!
//! # async fn f(cluster: Cluster, printer: ActorRef<Print>) -> Result<(), Box<dyn std::error::Error>> {
//! let receptionist = ClusterReceptionist::start(&cluster);
//! receptionist.register(&PRINTERS, &printer)?;
//!
//! let printers = receptionist.wait_for(&PRINTERS, 3, Duration::from_secs(10)).await?;
//! for printer in printers.actors() {
//!     printer.tell(Print("a page to try".into()))?;
//! }
//! # Ok(())
//! # }
//! ```

mod driver;
mod entry;
mod error;
mod listing;
mod wire;

pub use error::RegisterError;
pub use listing::{ClusterListing, Service};

use crate::io::cluster::Cluster;
use crate::lock::lock;
use crate::logic::receptionist::{Directory, NAME_BYTES_MAX, Offer, Output, ServiceId};
use entry::{AnyEntry, Entry, published};
use otava_actor::receptionist::{KeyError, WaitForError};
use otava_actor::{ActorRef, ServiceKey};
use otava_remote::{Channel, Remote, RemoteMessage};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// The control channel of receptionists.
const CHANNEL: Channel = Channel(5);
/// Messages that wait for the driver; more are dropped, as a network would, and said again.
const INBOX_MAX: usize = 256;

/// The receptionist of the cluster, on one node. A handle, cheap to clone.
///
/// A registration ends when it is taken back or the actor ends: no listing that is made on this node
/// after that has the actor in it, and those of the other nodes follow as soon as they are told,
/// within a few milliseconds, or a second after a message was lost. It ends everywhere with the node.
///
/// Whoever is a member can reach what is registered: registering publishes the actor.
#[derive(Clone)]
pub struct ClusterReceptionist {
    inner: Arc<Inner>,
}

struct Inner {
    remote: Remote,
    state: Mutex<State>,
    /// Tells the driver that there is something to send.
    wake: Notify,
    /// Changes when a member has said what it knows, or the members have changed.
    settled: watch::Sender<()>,
}

struct State {
    directory: Directory,
    keys: BTreeMap<String, Keyed>,
    next_number: u64,
}

/// An [`Entry`], its message type forgotten.
struct Keyed {
    message_type: &'static str,
    service: ServiceId,
    entry: Arc<dyn AnyEntry>,
}

impl ClusterReceptionist {
    /// Starts the receptionist of this node: once on every node, right after its membership.
    #[must_use]
    pub fn start(cluster: &Cluster) -> Self {
        let remote = cluster.remote();
        let now = remote.system().now();
        let state = State {
            directory: Directory::new(cluster.me().clone(), now),
            keys: BTreeMap::new(),
            next_number: 1,
        };
        let inner = Arc::new(Inner {
            remote: remote.clone(),
            state: Mutex::new(state),
            wake: Notify::new(),
            settled: watch::Sender::new(()),
        });
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        remote.on_control(CHANNEL, move |from, bytes| match wire::decode(&bytes) {
            Ok(message) => {
                // What is dropped is said again.
                let _ = sender.try_send((from.clone(), message));
            }
            Err(error) => tracing::warn!(%from, %error, "a receptionist's message is ignored"),
        });
        driver::start(inner.clone(), cluster, inbox);
        Self { inner }
    }

    /// Registers `actor` under `key` for the whole cluster. Registering twice is registering once; an
    /// actor may have many keys. One that has ended is not registered.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
        actor: &ActorRef<M>,
    ) -> Result<(), RegisterError> {
        let place = otava_actor::router::key_hash(actor.path().as_str());
        self.register_as(key, actor, place)
    }

    /// Registers with something to say about it: each rank of an actor is a registration of its own.
    pub(crate) fn register_as<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
        actor: &ActorRef<M>,
        rank: u64,
    ) -> Result<(), RegisterError> {
        for name in [key.name(), M::NAME] {
            // The kind has a version after its name.
            if name.is_empty() || name.len() > NAME_BYTES_MAX - 8 {
                return Err(RegisterError::BadName(name.to_owned()));
            }
        }
        let inner = &self.inner;
        let entry = inner.entry(key)?;
        let number = {
            let mut state = inner.lock();
            state.next_number += 1;
            state.next_number
        };
        if !entry.add(number, rank, actor) {
            return Ok(());
        }
        // Before anybody hears of it.
        let name = published(&entry.service, number);
        if let Err(error) = inner.remote.publish(&name, actor) {
            tracing::error!(%error, "an actor is not registered");
            entry.remove(number);
            return Err(RegisterError::BadName(name));
        }
        let offer = Offer { number, rank };
        let now = inner.remote.system().now();
        let offered = inner.change(|directory| directory.offer(now, &entry.service, offer));
        if offered.is_err() {
            inner.remote.withdraw(&name);
            entry.remove(number);
            return Err(RegisterError::TooMany);
        }
        if !entry.has(number) {
            // Somebody took it back before it was offered.
            inner.change(|directory| directory.withdraw(now, &entry.service, number));
        }
        let (inner, entry) = (Arc::downgrade(inner), Arc::downgrade(&entry));
        let told = move |_| {
            if let (Some(inner), Some(entry)) = (inner.upgrade(), entry.upgrade()) {
                inner.withdraw(&entry, number);
            }
        };
        actor.on_terminated(told).detach();
        Ok(())
    }

    /// Takes a registration back; `false` if there is none on this node. The actor lives on, and is
    /// reached by who has a reference to it that came another way.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn deregister<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
        actor: &ActorRef<M>,
    ) -> Result<bool, KeyError> {
        let Some(entry) = self.inner.known(key)? else {
            return Ok(false);
        };
        let numbers = entry.numbers_of(actor);
        for number in &numbers {
            self.inner.withdraw(&entry, *number);
        }
        Ok(!numbers.is_empty())
    }

    /// Takes back the registration of `actor` with this rank. What is on its way to it still arrives.
    pub(crate) fn deregister_as<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
        actor: &ActorRef<M>,
        rank: u64,
    ) {
        if let Ok(Some(entry)) = self.inner.known(key)
            && let Some(number) = entry.number_of(actor, rank)
        {
            self.inner.unlist(&entry, number);
        }
    }

    /// Who is registered under `key` now and accepts messages, as far as this node knows.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn find<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
    ) -> Result<ClusterListing<M>, KeyError> {
        Ok(self.inner.entry(key)?.current().without_stopped())
    }

    /// Sends `subscriber` the listing of `key` as it is, and again after each change, also of who can
    /// be reached. Changes in quick succession may come as one: the last listing that comes is always
    /// the one that holds. If the mailbox of the subscriber is full, the newest listing waits for
    /// room. Subscribing twice is subscribing once.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn subscribe<M, N>(
        &self,
        key: &ServiceKey<M>,
        subscriber: &ActorRef<N>,
    ) -> Result<(), KeyError>
    where
        M: RemoteMessage,
        N: From<ClusterListing<M>> + Send + 'static,
    {
        self.inner.entry(key)?.subscribe(subscriber);
        Ok(())
    }

    /// Ends a subscription; `false` if there is none. A listing on its way still arrives.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn unsubscribe<M: RemoteMessage, N: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
        subscriber: &ActorRef<N>,
    ) -> Result<bool, KeyError> {
        let entry = self.inner.known(key)?;
        Ok(entry.is_some_and(|entry| entry.unsubscribe(subscriber)))
    }

    /// The listings of `key` from now on, for code that is no actor.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn listings<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
    ) -> Result<ClusterListings<M>, KeyError> {
        let mut receiver = self.inner.entry(key)?.listings();
        receiver.mark_changed();
        Ok(ClusterListings { receiver })
    }

    /// Waits until at least `n` actors are registered under `key` that can be reached, but no longer
    /// than `within`.
    ///
    /// # Errors
    /// [`WaitForError::Key`], [`WaitForError::Timeout`].
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn wait_for<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
        n: usize,
        within: Duration,
    ) -> Result<ClusterListing<M>, WaitForError> {
        let mut receiver = self.inner.entry(key)?.listings();
        let enough = receiver.wait_for(|listing| listing.len() >= n);
        if let Ok(Ok(listing)) = tokio::time::timeout(within, enough).await {
            return Ok(listing.clone());
        }
        let found = receiver.borrow().len();
        Err(WaitForError::Timeout {
            key: key.name().to_owned(),
            wanted: n,
            found,
            waited: within,
        })
    }

    /// Waits until all members that can be reached have said that they know what is registered here,
    /// but no longer than `within`; `false` if that was too short.
    pub(crate) async fn settled(&self, within: Duration) -> bool {
        let mut settled = self.inner.settled.subscribe();
        let all_know = async {
            while !self.inner.lock().directory.is_known_to_all() {
                if settled.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(within, all_know).await.is_ok()
    }

    /// The remote layer of this node.
    pub(crate) fn remote(&self) -> &Remote {
        &self.inner.remote
    }
}

impl Inner {
    /// Takes a registration of this node back.
    fn withdraw<M: RemoteMessage>(&self, entry: &Entry<M>, number: u64) {
        if self.unlist(entry, number) {
            self.remote.withdraw(&published(&entry.service, number));
        }
    }

    /// Takes a registration off all listings; `false` if there is none. Until its actor ends, whoever
    /// had it from a listing still reaches it.
    fn unlist<M: RemoteMessage>(&self, entry: &Entry<M>, number: u64) -> bool {
        let known = entry.remove(number);
        if known {
            let now = self.remote.system().now();
            self.change(|directory| directory.withdraw(now, &entry.service, number));
        }
        known
    }

    /// Changes the directory, and does what it wants.
    fn drive<T>(&self, change: impl FnOnce(&mut Directory) -> T) -> T {
        let (result, leftovers) = {
            let mut state = self.lock();
            let result = change(&mut state.directory);
            (result, self.carry_out(&mut state))
        };
        drop(leftovers);
        result
    }

    /// The same for the changes that are made here, so that the driver sends them.
    fn change<T>(&self, change: impl FnOnce(&mut Directory) -> T) -> T {
        let result = self.drive(change);
        self.wake.notify_one();
        result
    }

    /// What this gives up is returned, to be dropped behind the lock.
    fn carry_out(&self, state: &mut State) -> Vec<Box<dyn Any + Send>> {
        let mut leftovers = Vec::new();
        while let Some(output) = state.directory.poll_output() {
            match output {
                Output::AllChanged => {
                    let all = state.keys.values();
                    leftovers.extend(all.filter_map(|keyed| keyed.refresh(&state.directory)));
                    self.settled.send_replace(());
                }
                Output::Changed(service) => {
                    let keyed = state.keys.get(&*service.name);
                    let keyed = keyed.filter(|keyed| keyed.service == service);
                    leftovers.extend(keyed.and_then(|keyed| keyed.refresh(&state.directory)));
                }
                Output::Send(to, message) => {
                    if let Some(bytes) = wire::encode(&message) {
                        self.remote.send_control(to.addr, CHANNEL, bytes.into());
                    }
                }
            }
        }
        leftovers
    }

    /// The entry of `key`, if it was ever used.
    fn known<M: RemoteMessage>(
        &self,
        key: &ServiceKey<M>,
    ) -> Result<Option<Arc<Entry<M>>>, KeyError> {
        let state = self.lock();
        let keyed = state.keys.get(key.name());
        keyed.map(|keyed| keyed.typed(key)).transpose()
    }

    /// The entry of `key`, made if it is new.
    fn entry<M: RemoteMessage>(&self, key: &ServiceKey<M>) -> Result<Arc<Entry<M>>, KeyError> {
        let mut state = self.lock();
        if let Some(keyed) = state.keys.get(key.name()) {
            return keyed.typed(key);
        }
        let service = ServiceId {
            name: key.name().into(),
            kind: format!("{}.{}", M::NAME, M::VERSION).into(),
        };
        let entry = Arc::new(Entry::new(key, service.clone(), self.remote.clone()));
        let keyed = Keyed {
            message_type: std::any::type_name::<M>(),
            service,
            entry: entry.clone(),
        };
        // It is new: there is nothing that this could give up.
        let _ = keyed.refresh(&state.directory);
        state.keys.insert(key.name().to_owned(), keyed);
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Keyed {
    fn refresh(&self, directory: &Directory) -> Option<Box<dyn Any + Send>> {
        self.entry.refresh(directory.listed(&self.service))
    }

    fn typed<M: RemoteMessage>(&self, key: &ServiceKey<M>) -> Result<Arc<Entry<M>>, KeyError> {
        let entry = self.entry.clone().into_any().downcast();
        entry.map_err(|_| KeyError::OtherType {
            key: key.name().to_owned(),
            known: self.message_type,
            given: std::any::type_name::<M>(),
        })
    }
}

/// Where a service stands on a ring: the same as seen from every node, and after a restart of its
/// node.
pub(crate) fn place<M>(service: &Service<M>) -> u64 {
    struct Place<'a>(&'a str, std::net::SocketAddr, u64);
    impl Hash for Place<'_> {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
            self.1.to_string().hash(state);
            self.2.hash(state);
        }
    }
    let node = &service.node;
    otava_actor::router::key_hash(&Place(&node.name, node.addr, service.rank))
}

impl fmt::Debug for ClusterReceptionist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterReceptionist")
            .field(self.inner.remote.id())
            .finish()
    }
}

/// The listings of one key, for code that is no actor ([`ClusterReceptionist::listings`]).
pub struct ClusterListings<M> {
    receiver: watch::Receiver<ClusterListing<M>>,
}

impl<M: RemoteMessage> ClusterListings<M> {
    /// The listing as it is, the first time; afterwards the newest one after a change. `None` when
    /// the receptionist is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Option<ClusterListing<M>> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }

    /// The newest listing, if there is one that was not taken yet.
    pub(crate) fn newest(&mut self) -> Option<ClusterListing<M>> {
        let changed = self.receiver.has_changed().unwrap_or(false);
        changed.then(|| self.receiver.borrow_and_update().clone())
    }
}

impl<M: 'static> fmt::Debug for ClusterListings<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.receiver.borrow();
        f.debug_tuple("ClusterListings").field(&*current).finish()
    }
}
