//! Entry: the actors of one key, here and elsewhere, as typed references, and who follows them.
//!
//! What a change gives up (references, callbacks) is dropped behind all locks: its drop may run code
//! of users.

use super::listing::{ClusterListing, Service};
use super::lock;
use crate::logic::receptionist::{Listed, ServiceId};
use otava_actor::{ActorPath, ActorRef, ServiceKey};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

pub(super) struct Entry<M> {
    key: ServiceKey<M>,
    pub(super) service: ServiceId,
    remote: Remote,
    listing: watch::Sender<ClusterListing<M>>,
    state: Mutex<State<M>>,
}

struct State<M> {
    /// The registrations of this node, and their numbers by what was registered.
    own: BTreeMap<u64, ActorRef<M>>,
    numbers: BTreeMap<(Id, u64), u64>,
    /// The actors of other nodes that are listed.
    elsewhere: BTreeMap<(NodeId, u64), ActorRef<M>>,
    subscribed: BTreeMap<Id, AbortHandle>,
}

type Id = (ActorPath, u64);

fn id<N: Send + 'static>(actor: &ActorRef<N>) -> Id {
    (actor.path().clone(), actor.uid())
}

/// An [`Entry`], its message type forgotten.
pub(super) trait AnyEntry: Send + Sync {
    /// Publishes what is listed now; what that gives up is returned, to be dropped behind the lock.
    fn refresh(&self, listed: Vec<Listed>) -> Option<Box<dyn Any + Send>>;

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<M: RemoteMessage> Entry<M> {
    pub(super) fn new(key: &ServiceKey<M>, service: ServiceId, remote: Remote) -> Self {
        Self {
            key: key.clone(),
            service,
            remote,
            listing: watch::Sender::new(ClusterListing::new(key.clone(), [])),
            state: Mutex::new(State {
                own: BTreeMap::new(),
                numbers: BTreeMap::new(),
                elsewhere: BTreeMap::new(),
                subscribed: BTreeMap::new(),
            }),
        }
    }

    pub(super) fn current(&self) -> ClusterListing<M> {
        self.listing.borrow().clone()
    }

    pub(super) fn listings(&self) -> watch::Receiver<ClusterListing<M>> {
        self.listing.subscribe()
    }

    /// Remembers an actor of this node under `number`; `false` if it is registered already.
    pub(super) fn add(&self, number: u64, rank: u64, actor: &ActorRef<M>) -> bool {
        let mut state = lock(&self.state);
        let registered = (id(actor), rank);
        if state.numbers.contains_key(&registered) {
            return false;
        }
        state.numbers.insert(registered, number);
        state.own.insert(number, actor.clone());
        true
    }

    /// The numbers under which `actor` is registered here.
    pub(super) fn numbers_of(&self, actor: &ActorRef<M>) -> Vec<u64> {
        let state = lock(&self.state);
        let id = id(actor);
        let ranks = state.numbers.range((id.clone(), 0)..=(id, u64::MAX));
        ranks.map(|(_, number)| *number).collect()
    }

    /// The number under which `actor` is registered here with this rank.
    pub(super) fn number_of(&self, actor: &ActorRef<M>, rank: u64) -> Option<u64> {
        lock(&self.state).numbers.get(&(id(actor), rank)).copied()
    }

    /// Whether there is a registration of this number.
    pub(super) fn has(&self, number: u64) -> bool {
        lock(&self.state).own.contains_key(&number)
    }

    /// Forgets a registration of this node; `false` if there is none.
    pub(super) fn remove(&self, number: u64) -> bool {
        let actor = {
            let mut state = lock(&self.state);
            state.numbers.retain(|_, known| *known != number);
            state.own.remove(&number)
        };
        actor.is_some()
    }

    pub(super) fn subscribe<N>(self: &Arc<Self>, subscriber: &ActorRef<N>)
    where
        N: From<ClusterListing<M>> + Send + 'static,
    {
        let id = id(subscriber);
        let (end, ended) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.subscribed.contains_key(&id) {
            return;
        }
        let deliver = deliver(self.listings(), subscriber.clone(), ended);
        let handle = self.remote.system().handle();
        let task = handle.spawn(deliver).abort_handle();
        state.subscribed.insert(id.clone(), task);
        drop(state);
        let entry = Arc::downgrade(self);
        let told = move |_| {
            drop(end);
            if let Some(entry) = entry.upgrade() {
                entry.forget(&id);
            }
        };
        subscriber.on_terminated(told).detach();
    }

    pub(super) fn unsubscribe<N: Send + 'static>(&self, subscriber: &ActorRef<N>) -> bool {
        self.forget(&id(subscriber))
    }

    fn forget(&self, id: &Id) -> bool {
        let task = lock(&self.state).subscribed.remove(id);
        task.map(|task| task.abort()).is_some()
    }
}

/// The name under which a registration is reached from other nodes.
pub(super) fn published(service: &ServiceId, number: u64) -> String {
    format!("service/{number:x}/{}", service.name)
}

impl<M: RemoteMessage> AnyEntry for Entry<M> {
    fn refresh(&self, listed: Vec<Listed>) -> Option<Box<dyn Any + Send>> {
        let me = self.remote.id();
        let mut state = lock(&self.state);
        let mut before = std::mem::take(&mut state.elsewhere);
        let mut services = Vec::with_capacity(listed.len());
        for Listed {
            node,
            reachable,
            offer,
        } in listed
        {
            let actor = if node == *me {
                state.own.get(&offer.number).cloned()
            } else {
                let at = (node.clone(), offer.number);
                let known = before.remove(&at);
                let actor = known.unwrap_or_else(|| {
                    let name = published(&self.service, offer.number);
                    self.remote.resolve::<M>(&node, &name)
                });
                state.elsewhere.insert(at, actor.clone());
                Some(actor)
            };
            services.extend(actor.map(|actor| Service {
                actor,
                node,
                is_reachable: reachable,
                rank: offer.rank,
            }));
        }
        let listing = ClusterListing::new(self.key.clone(), services);
        if *self.listing.borrow() == listing {
            return None;
        }
        let listing = self.listing.send_replace(listing);
        Some(Box::new((listing, before)))
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Serves one subscription: always the newest listing, one after the other.
async fn deliver<M: RemoteMessage, N: From<ClusterListing<M>> + Send + 'static>(
    mut listings: watch::Receiver<ClusterListing<M>>,
    subscriber: ActorRef<N>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        let listing = listings.borrow_and_update().clone();
        match catch_unwind(AssertUnwindSafe(|| N::from(listing))) {
            Ok(message) => {
                if subscriber.send(message).await.is_err() {
                    return;
                }
            }
            Err(panic) => {
                let panic = otava_actor::describe_panic(panic);
                let subscriber = subscriber.path();
                tracing::warn!(%subscriber, panic, "a listing was not made into a message");
            }
        }
        tokio::select! {
            biased;
            _ = &mut ended => return,
            changed = listings.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
