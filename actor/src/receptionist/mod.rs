//! Receptionist: who offers which service, by typed keys, and who wants to know.
//!
//! ```
//! use otava_actor::{Actor, ActorSystem, Context, ReplyTo, ServiceKey};
//! use std::time::Duration;
//!
//! # struct Printer;
//! # impl Actor for Printer {
//! #     type Msg = &'static str;
//! #     type Err = std::convert::Infallible;
//! #     async fn handle(&mut self, _: &'static str, _: &mut Context<Self>) -> Result<(), Self::Err> { Ok(()) }
//! # }
//! static PRINTERS: ServiceKey<&str> = ServiceKey::new("printers");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let system = ActorSystem::new("office");
//! let receptionist = system.receptionist();
//! receptionist.register(&PRINTERS, &system.spawn("printer", Printer)?)?;
//!
//! let printers = receptionist.wait_for(&PRINTERS, 1, Duration::from_secs(1)).await?;
//! printers.actors()[0].tell("hello")?;
//! # Ok(())
//! # }
//! ```

mod entry;
mod key;

pub use key::{KeyError, Listing, ServiceKey, WaitForError};

use crate::actor_ref::ActorRef;
use crate::sync::lock;
use crate::system::ActorSystem;
use entry::Entry;
use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

impl ActorSystem {
    /// Where the actors of this system are registered by what they do.
    pub fn receptionist(&self) -> Receptionist {
        let handle = self.handle();
        let make = || Inner {
            handle: handle.clone(),
            keys: Mutex::default(),
        };
        Receptionist(self.core().extensions.get(make))
    }
}

/// The receptionist of one system ([`ActorSystem::receptionist`]). A handle, cheap to clone.
///
/// A registration ends when it is taken back or the actor ends, at the moment at which watchers are
/// told: no listing that is made after that has the actor in it. A subscription ends likewise.
///
/// A key's name belongs to the first message type with which an actor is registered or somebody
/// subscribes, for as long as the system lives.
#[derive(Clone)]
pub struct Receptionist(Arc<Inner>);

struct Inner {
    /// Where subscriptions are served.
    handle: Handle,
    keys: Mutex<BTreeMap<Cow<'static, str>, Keyed>>,
}

/// An [`Entry`], its message type forgotten.
struct Keyed {
    message_type: &'static str,
    entry: Arc<dyn Any + Send + Sync>,
}

impl Receptionist {
    /// Registers `actor` under `key`. Registering twice is registering once; an actor may have many
    /// keys. One that has ended is not registered.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn register<M: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
        actor: &ActorRef<M>,
    ) -> Result<(), KeyError> {
        self.entry(key)?.register(actor);
        Ok(())
    }

    /// Takes a registration back; `false` if there is none. The actor lives on.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn deregister<M: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
        actor: &ActorRef<M>,
    ) -> Result<bool, KeyError> {
        let entry = self.known(key)?;
        Ok(entry.is_some_and(|entry| entry.deregister(actor)))
    }

    /// Who is registered under `key` now and accepts messages.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn find<M: Send + 'static>(&self, key: &ServiceKey<M>) -> Result<Listing<M>, KeyError> {
        let listing = self.known(key)?.map(|entry| entry.current());
        Ok(match listing {
            Some(listing) => listing.without_stopped(),
            None => Listing::empty(key),
        })
    }

    /// Sends `subscriber` the listing of `key` as it is, and again after each change. Changes in
    /// quick succession may come as one: the last listing that comes is always the one that holds.
    /// If the mailbox of the subscriber is full, the newest listing waits for room. Subscribing twice
    /// is subscribing once.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn subscribe<M, N>(
        &self,
        key: &ServiceKey<M>,
        subscriber: &ActorRef<N>,
    ) -> Result<(), KeyError>
    where
        M: Send + 'static,
        N: From<Listing<M>> + Send + 'static,
    {
        self.entry(key)?.subscribe(subscriber, &self.0.handle);
        Ok(())
    }

    /// Ends a subscription; `false` if there is none. A listing on its way still arrives.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn unsubscribe<M: Send + 'static, N: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
        subscriber: &ActorRef<N>,
    ) -> Result<bool, KeyError> {
        let entry = self.known(key)?;
        Ok(entry.is_some_and(|entry| entry.unsubscribe(subscriber)))
    }

    /// The listings of `key` from now on, for code that is no actor.
    ///
    /// # Errors
    /// [`KeyError::OtherType`].
    pub fn listings<M: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
    ) -> Result<Listings<M>, KeyError> {
        let mut receiver = self.entry(key)?.listings();
        receiver.mark_changed();
        Ok(Listings { receiver })
    }

    /// Waits until at least `n` actors are registered under `key`, but no longer than `within`.
    ///
    /// # Errors
    /// [`WaitForError::Key`], [`WaitForError::Timeout`].
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn wait_for<M: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
        n: usize,
        within: Duration,
    ) -> Result<Listing<M>, WaitForError> {
        let mut receiver = self.entry(key)?.listings();
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

    /// The entry of `key`, if it was ever used.
    fn known<M: Send + 'static>(
        &self,
        key: &ServiceKey<M>,
    ) -> Result<Option<Arc<Entry<M>>>, KeyError> {
        let keys = lock(&self.0.keys);
        keys.get(key.name())
            .map(|keyed| keyed.typed(key))
            .transpose()
    }

    /// The entry of `key`, made if it is new.
    fn entry<M: Send + 'static>(&self, key: &ServiceKey<M>) -> Result<Arc<Entry<M>>, KeyError> {
        let mut keys = lock(&self.0.keys);
        let keyed = keys.entry(key.0.clone()).or_insert_with(|| Keyed {
            message_type: std::any::type_name::<M>(),
            entry: Arc::new(Entry::new(key)),
        });
        keyed.typed(key)
    }
}

impl Keyed {
    fn typed<M: Send + 'static>(&self, key: &ServiceKey<M>) -> Result<Arc<Entry<M>>, KeyError> {
        let entry = self.entry.clone().downcast();
        entry.map_err(|_| KeyError::OtherType {
            key: key.name().to_owned(),
            known: self.message_type,
            given: std::any::type_name::<M>(),
        })
    }
}

impl fmt::Debug for Receptionist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = lock(&self.0.keys);
        f.debug_tuple("Receptionist")
            .field(&keys.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// The listings of one key, for code that is no actor ([`Receptionist::listings`]).
pub struct Listings<M: Send + 'static> {
    receiver: watch::Receiver<Listing<M>>,
}

impl<M: Send + 'static> Listings<M> {
    /// The listing as it is, the first time; afterwards the newest one after a change. `None` when
    /// the system is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Option<Listing<M>> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }
}

impl<M: Send + 'static> fmt::Debug for Listings<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.receiver.borrow();
        f.debug_tuple("Listings").field(&*current).finish()
    }
}
