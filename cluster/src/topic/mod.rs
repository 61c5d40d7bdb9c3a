//! Topic: publish and subscribe in the whole cluster, by a name and a type of message.
//!
//! ```no_run
//! use otava_actor::ActorRef;
//! use otava_cluster::{ClusterReceptionist, Topics};
//! use otava_remote::RemoteMessage;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Deserialize, Serialize)]
//! struct PriceChanged { article: u64, cents: u64 }
//!
//! impl RemoteMessage for PriceChanged {
//!     const NAME: &'static str = "shop.PriceChanged";
//! }
//!
//! # async fn f(receptionist: ClusterReceptionist, shelf: ActorRef<PriceChanged>, printer: ActorRef<PriceChanged>)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! let prices = Topics::start(&receptionist).topic::<PriceChanged>("prices")?;
//! // All of these hear of every change,
//! prices.subscribe(&shelf)?;
//! // and of these, wherever they are, one does.
//! prices.subscribe_group("label-printers", &printer)?;
//! prices.publish(PriceChanged { article: 17, cents: 499 });
//! # Ok(())
//! # }
//! ```
//!
//! # Delivery
//! At most once. What one publisher publishes on one node comes to each subscriber in that order. A
//! message crosses to another node once, however many subscribers are there. Nothing is kept: who
//! subscribes later hears what is published after its node has told the others, a few milliseconds
//! later.

mod hub;

pub use hub::TopicMessage;

use crate::lock::lock;
use crate::logic::topic::{BASE, GROUPS, PLAIN, Plan};
use crate::receptionist::{ClusterListings, ClusterReceptionist, RegisterError, Service};
use hub::{Command, Hub, Subscribers};
use otava_actor::receptionist::KeyError;
use otava_actor::router::key_hash;
use otava_actor::{ActorPath, ActorRef, ServiceKey, SpawnError};
use otava_remote::{NodeId, RemoteMessage};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The longest name of a topic in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The topics of one node. A handle, cheap to clone.
#[derive(Clone)]
pub struct Topics {
    receptionist: ClusterReceptionist,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// A topic, its message type forgotten.
struct Known {
    message_type: &'static str,
    topic: Arc<dyn Any + Send + Sync>,
}

/// Why a topic is not there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name cannot be that of an actor.
    #[error("{0:?} cannot name a topic: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'")]
    BadName(String),
    /// The name is in use for other messages.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its actor on this node could not be started.
    #[error("the topic was not started: {0}")]
    Spawn(#[from] SpawnError),
}

impl Topics {
    /// The topics of a node: once on every node.
    #[must_use]
    pub fn start(receptionist: &ClusterReceptionist) -> Self {
        Self {
            receptionist: receptionist.clone(),
            known: Arc::default(),
        }
    }

    /// The topic of this name. All nodes use it with the same type of messages; those of another type
    /// are another topic.
    ///
    /// # Errors
    /// [`TopicError`].
    pub fn topic<M: RemoteMessage + Clone>(&self, name: &str) -> Result<Topic<M>, TopicError> {
        if name.len() > NAME_BYTES_MAX || !NodeId::is_valid_name(name) {
            return Err(TopicError::BadName(name.to_owned()));
        }
        let mut known = lock(&self.known);
        if let Some(known) = known.get(name) {
            let shared = known.topic.clone().downcast::<Shared<M>>();
            let shared = shared.map_err(|_| KeyError::OtherType {
                key: name.to_owned(),
                known: known.message_type,
                given: std::any::type_name::<M>(),
            })?;
            return Ok(Topic { shared });
        }
        let key = ServiceKey::named(format!("topic/{name}/{}.{}", M::NAME, M::VERSION));
        let subscribers = Arc::new(Mutex::new(Subscribers::new()));
        let hub = Hub::new(subscribers.clone());
        let system = self.receptionist.remote().system();
        let publisher = Publisher {
            listings: self.receptionist.listings(&key)?,
            services: Vec::new(),
            plan: Plan::default(),
        };
        let shared = Arc::new(Shared {
            hub: system.spawn(&format!("topic-{name}"), hub)?,
            receptionist: self.receptionist.clone(),
            key,
            subscribers,
            publisher: Mutex::new(publisher),
        });
        let topic = Known {
            message_type: std::any::type_name::<M>(),
            topic: shared.clone(),
        };
        known.insert(name.to_owned(), topic);
        Ok(Topic { shared })
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topics")
            .field(&lock(&self.known).keys())
            .finish()
    }
}

/// One topic, as one node sees it. A handle, cheap to clone.
pub struct Topic<M: Send + 'static> {
    shared: Arc<Shared<M>>,
}

struct Shared<M: Send + 'static> {
    hub: ActorRef<TopicMessage<M>>,
    receptionist: ClusterReceptionist,
    key: ServiceKey<TopicMessage<M>>,
    /// Who hears of it on this node. Locked while the receptionist is told of the first and the last.
    subscribers: Arc<Mutex<Subscribers<M>>>,
    publisher: Mutex<Publisher<M>>,
}

struct Publisher<M> {
    listings: ClusterListings<TopicMessage<M>>,
    /// Those that can be reached.
    services: Vec<Service<TopicMessage<M>>>,
    plan: Plan,
}

/// How far a message was published.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// Nodes with subscribers that it is on its way to; this one may be among them.
    pub nodes: usize,
    /// Nodes that have no room for it now, so that their subscribers miss it.
    pub refused: usize,
}

impl<M: RemoteMessage + Clone> Topic<M> {
    /// Publishes `message` to all subscribers in the cluster and to one of each group, on all nodes
    /// that can be reached. Never waits.
    ///
    /// # Delivery
    /// See [`crate::topic`]. A subscriber whose mailbox is full misses the message, which is a dead
    /// letter there; in a group, another member of that node is tried.
    #[must_use = "nodes without room miss the message; say `let _ =` where that does not matter"]
    pub fn publish(&self, message: M) -> Published {
        let mut guard = lock(&self.shared.publisher);
        let publisher = &mut *guard;
        if let Some(listing) = publisher.listings.newest() {
            publisher.services = listing.reachable().cloned().collect();
            let entries = publisher.services.iter().map(|s| (&s.node, s.rank));
            publisher.plan.replace(entries);
        }
        let mut published = Published::default();
        for delivery in publisher.plan.deal() {
            let Some(service) = publisher.services.get(delivery.to) else {
                continue;
            };
            let copy = TopicMessage(Command::Deliver {
                plain: delivery.plain,
                groups: delivery.groups,
                message: message.clone(),
            });
            match service.actor.tell(copy) {
                Ok(()) => published.nodes += 1,
                Err(_) => published.refused += 1,
            }
        }
        published
    }

    /// Lets `subscriber` hear of everything from now on, until it ends. Subscribing twice is
    /// subscribing once.
    ///
    /// # Errors
    /// [`RegisterError`]: the other nodes cannot be told.
    pub fn subscribe(&self, subscriber: &ActorRef<M>) -> Result<(), RegisterError> {
        self.add(PLAIN, subscriber)
    }

    /// Lets one member of `group` hear of each message, `subscriber` being one from now on, until it
    /// ends. Nodes with members take turns, and on each node its members.
    ///
    /// # Errors
    /// [`RegisterError`]: the other nodes cannot be told.
    pub fn subscribe_group(
        &self,
        group: &str,
        subscriber: &ActorRef<M>,
    ) -> Result<(), RegisterError> {
        self.add(number_of(group), subscriber)
    }

    /// Ends a subscription; `false` if there is none. A message on its way still arrives.
    pub fn unsubscribe(&self, subscriber: &ActorRef<M>) -> bool {
        self.shared.remove(PLAIN, &id(subscriber))
    }

    /// Ends a membership of a group; `false` if there is none. A message on its way still arrives.
    pub fn unsubscribe_group(&self, group: &str, subscriber: &ActorRef<M>) -> bool {
        self.shared.remove(number_of(group), &id(subscriber))
    }

    fn add(&self, set: u64, subscriber: &ActorRef<M>) -> Result<(), RegisterError> {
        let shared = &self.shared;
        {
            let mut subscribers = lock(&shared.subscribers);
            if subscribers.contains(set, &id(subscriber)) {
                return Ok(());
            }
            if !subscribers.has(set) {
                shared
                    .receptionist
                    .register_as(&shared.key, &shared.hub, BASE)?;
                shared
                    .receptionist
                    .register_as(&shared.key, &shared.hub, set)?;
            }
            subscribers.insert(set, id(subscriber), subscriber.clone());
        }
        let (weak, id) = (Arc::downgrade(shared), id(subscriber));
        let told = move |_| {
            if let Some(shared) = weak.upgrade() {
                shared.remove(set, &id);
            }
        };
        subscriber.on_terminated(told).detach();
        Ok(())
    }
}

impl<M: RemoteMessage> Shared<M> {
    fn remove(&self, set: u64, id: &(ActorPath, u64)) -> bool {
        let removed = {
            let mut subscribers = lock(&self.subscribers);
            let removed = subscribers.remove(set, id);
            let receptionist = &self.receptionist;
            if removed.is_some() && !subscribers.has(set) {
                receptionist.deregister_as(&self.key, &self.hub, set);
            }
            if subscribers.is_empty() {
                receptionist.deregister_as(&self.key, &self.hub, BASE);
            }
            removed
        };
        removed.is_some()
    }
}

/// What a group is called among nodes.
fn number_of(group: &str) -> u64 {
    key_hash(group).max(GROUPS)
}

fn id<M: Send + 'static>(actor: &ActorRef<M>) -> (ActorPath, u64) {
    (actor.path().clone(), actor.uid())
}

impl<M: Send + 'static> Clone for Topic<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<M: Send + 'static> fmt::Debug for Topic<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.shared.key).finish()
    }
}
