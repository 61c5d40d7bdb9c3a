//! Keys and listings: what a service is called, and who offers it at one time.

use crate::actor_ref::ActorRef;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The name of a service, and the messages that its actors understand.
pub struct ServiceKey<M>(
    pub(super) Cow<'static, str>,
    /// A key holds no message: it may be sent and shared whatever `M` is.
    PhantomData<fn(M)>,
);

impl<M> ServiceKey<M> {
    /// The key of this name.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name), PhantomData)
    }

    /// A key whose name is made while the program runs.
    pub fn named(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()), PhantomData)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl<M> Clone for ServiceKey<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<M> PartialEq for ServiceKey<M> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<M> Eq for ServiceKey<M> {}

impl<M> fmt::Debug for ServiceKey<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = std::any::type_name::<M>();
        write!(f, "ServiceKey::<{kind}>({:?})", self.0)
    }
}

/// Who is registered under a key, at one time. Cheap to clone.
pub struct Listing<M> {
    key: ServiceKey<M>,
    actors: Arc<[ActorRef<M>]>,
}

impl<M> Listing<M> {
    pub(super) fn new(key: ServiceKey<M>, actors: impl IntoIterator<Item = ActorRef<M>>) -> Self {
        let actors = actors.into_iter().collect();
        Self { key, actors }
    }

    pub(super) fn empty(key: &ServiceKey<M>) -> Self {
        Self::new(key.clone(), [])
    }

    /// The key.
    pub fn key(&self) -> &ServiceKey<M> {
        &self.key
    }

    /// The actors, by path.
    pub fn actors(&self) -> &[ActorRef<M>] {
        &self.actors
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.actors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }
}

impl<M: Send + 'static> Listing<M> {
    pub(super) fn without_stopped(self) -> Self {
        if self.actors.iter().all(|actor| !actor.is_stopped()) {
            return self;
        }
        let open = self.actors.iter().filter(|actor| !actor.is_stopped());
        Self::new(self.key.clone(), open.cloned())
    }
}

impl<M> Clone for Listing<M> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            actors: self.actors.clone(),
        }
    }
}

impl<M: 'static> PartialEq for Listing<M> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.actors == other.actors
    }
}

impl<M: 'static> Eq for Listing<M> {}

impl<M: 'static> fmt::Debug for Listing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("key", &self.key)
            .field("actors", &self.actors)
            .finish()
    }
}

/// Why a key cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name is in use for actors that understand other messages.
    #[error("the key {key:?} is for actors that understand {known}, not {given}")]
    OtherType {
        /// The name.
        key: String,
        /// The message type that the name belongs to.
        known: &'static str,
        /// The message type of the refused key.
        given: &'static str,
    },
}

/// Why a service was not found in time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitForError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There were too few for all of the time.
    #[error("{found} of {wanted} actors were registered as {key:?} within {waited:?}")]
    Timeout {
        /// The name of the key.
        key: String,
        /// How many were wanted.
        wanted: usize,
        /// How many there were at last.
        found: usize,
        /// How long it was waited.
        waited: Duration,
    },
}
