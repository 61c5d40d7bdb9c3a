//! Entry: the registrations and subscriptions of one key.
//!
//! The listing is changed and published under one lock, so listings are published in the order of
//! the changes. What a change gives up (references, callbacks) is dropped behind the lock.

use super::key::{Listing, ServiceKey};
use crate::actor_ref::ActorRef;
use crate::failure::guarded_call;
use crate::path::ActorPath;
use crate::sync::lock;
use crate::watch::Watching;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(super) struct Entry<M: Send + 'static> {
    key: ServiceKey<M>,
    listing: watch::Sender<Listing<M>>,
    state: Mutex<State<M>>,
}

struct State<M> {
    registered: BTreeMap<Id, Registered<M>>,
    subscribed: BTreeMap<Id, Subscribed>,
}

type Id = (ActorPath, u64);

struct Registered<M> {
    actor: ActorRef<M>,
    /// Set a moment after the registration, because an actor that has ended answers at once.
    watching: Option<Watching>,
}

#[derive(Default)]
struct Subscribed {
    /// Both are set a moment after the subscription.
    watching: Option<Watching>,
    task: Option<AbortHandle>,
}

impl<M: Send + 'static> Entry<M> {
    pub(super) fn new(key: &ServiceKey<M>) -> Self {
        Self {
            key: key.clone(),
            listing: watch::Sender::new(Listing::empty(key)),
            state: Mutex::new(State {
                registered: BTreeMap::new(),
                subscribed: BTreeMap::new(),
            }),
        }
    }

    pub(super) fn current(&self) -> Listing<M> {
        self.listing.borrow().clone()
    }

    pub(super) fn listings(&self) -> watch::Receiver<Listing<M>> {
        self.listing.subscribe()
    }

    pub(super) fn register(self: &Arc<Self>, actor: &ActorRef<M>) {
        let id = id(actor);
        let registered = Registered {
            actor: actor.clone(),
            watching: None,
        };
        let before = {
            let mut state = lock(&self.state);
            if state.registered.contains_key(&id) {
                return;
            }
            state.registered.insert(id.clone(), registered);
            self.publish(&state)
        };
        drop(before);
        let (entry, own) = (Arc::downgrade(self), id.clone());
        let mut watching = Some(actor.on_terminated(move |_| {
            if let Some(entry) = entry.upgrade() {
                entry.remove(&own);
            }
        }));
        if let Some(registered) = lock(&self.state).registered.get_mut(&id) {
            registered.watching = watching.take();
        }
    }

    pub(super) fn deregister(&self, actor: &ActorRef<M>) -> bool {
        self.remove(&id(actor))
    }

    fn remove(&self, id: &Id) -> bool {
        let (removed, before) = {
            let mut state = lock(&self.state);
            let Some(removed) = state.registered.remove(id) else {
                return false;
            };
            (removed, self.publish(&state))
        };
        drop((removed, before));
        true
    }

    /// Publishes the listing, and returns the one before, to be dropped behind the lock.
    fn publish(&self, state: &State<M>) -> Listing<M> {
        let actors = state.registered.values();
        let actors = actors.map(|registered| registered.actor.clone());
        let listing = Listing::new(self.key.clone(), actors);
        self.listing.send_replace(listing)
    }

    pub(super) fn subscribe<N>(self: &Arc<Self>, subscriber: &ActorRef<N>, handle: &Handle)
    where
        N: From<Listing<M>> + Send + 'static,
    {
        let id = id(subscriber);
        {
            let mut state = lock(&self.state);
            if state.subscribed.contains_key(&id) {
                return;
            }
            state.subscribed.insert(id.clone(), Subscribed::default());
        }
        let deliver = deliver(self.listings(), subscriber.clone());
        let task = handle.spawn(deliver).abort_handle();
        let (entry, own, ended) = (Arc::downgrade(self), id.clone(), task.clone());
        let mut watching = Some(subscriber.on_terminated(move |_| {
            ended.abort();
            if let Some(entry) = entry.upgrade() {
                entry.forget(&own);
            }
        }));
        let task = match lock(&self.state).subscribed.get_mut(&id) {
            Some(subscribed) => {
                subscribed.watching = watching.take();
                subscribed.task = Some(task);
                return;
            }
            None => task,
        };
        // It has ended, or was taken back, in the meantime.
        task.abort();
    }

    pub(super) fn unsubscribe<N: Send + 'static>(&self, subscriber: &ActorRef<N>) -> bool {
        self.forget(&id(subscriber))
    }

    fn forget(&self, id: &Id) -> bool {
        let removed = lock(&self.state).subscribed.remove(id);
        if let Some(task) = removed.as_ref().and_then(|removed| removed.task.as_ref()) {
            task.abort();
        }
        removed.is_some()
    }
}

fn id<N: Send + 'static>(actor: &ActorRef<N>) -> Id {
    (actor.path().clone(), actor.uid())
}

/// Serves one subscription: always the newest listing, one after the other.
async fn deliver<M: Send + 'static, N: From<Listing<M>> + Send + 'static>(
    mut listings: watch::Receiver<Listing<M>>,
    subscriber: ActorRef<N>,
) {
    loop {
        let listing = listings.borrow_and_update().clone();
        match guarded_call(|| N::from(listing)) {
            Ok(message) => {
                if subscriber.send(message).await.is_err() {
                    return;
                }
            }
            Err(failure) => {
                let subscriber = subscriber.path();
                tracing::warn!(%subscriber, %failure, "a listing was not made into a message");
            }
        }
        // An error means that the system is gone.
        if listings.changed().await.is_err() {
            return;
        }
    }
}
