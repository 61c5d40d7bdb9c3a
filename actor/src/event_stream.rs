//! EventStream: publish and subscribe within one system, by the type of the event.
//!
//! ```
//! use otava_actor::{ActorSystem, testkit::TestProbe};
//! use std::time::Duration;
//!
//! #[derive(Clone, Debug, PartialEq)]
//! struct OrderPaid(u32);
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let system = ActorSystem::new("shop");
//! let mut probe = TestProbe::<OrderPaid>::new(&system);
//! system.event_stream().subscribe::<OrderPaid>(probe.actor_ref());
//! assert_eq!(system.event_stream().publish(OrderPaid(17)), 1);
//! assert_eq!(probe.expect_msg(Duration::from_secs(1)).await, OrderPaid(17));
//! # }
//! ```

use crate::actor_ref::ActorRef;
use crate::failure::guarded_call;
use crate::path::ActorPath;
use crate::sync::lock;
use crate::system::ActorSystem;
use crate::watch::Watching;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

impl ActorSystem {
    /// The events of this system.
    pub fn event_stream(&self) -> EventStream {
        EventStream(self.core().extensions.get(Inner::default))
    }
}

/// The event stream of one system ([`ActorSystem::event_stream`]). A handle, cheap to clone.
///
/// # Delivery
/// At most once. Events that one publisher publishes reach each subscriber in order. Nobody waits: a
/// subscriber whose mailbox is full loses the event, which is counted as a dead letter
/// ([`crate::DeadLetterReason::RefusedFull`]). A subscription ends with its actor.
#[derive(Clone)]
pub struct EventStream(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// A [`Topic`] for each type of event that somebody ever subscribed to.
    topics: Mutex<BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl EventStream {
    /// Sends a copy of `event` to everyone who subscribed to its type, in the order of the
    /// subscriptions, and says how many accepted it.
    ///
    /// `Clone` of the event and the conversion into the subscriber's message run here; a panic in
    /// them is logged, and costs that subscriber the event.
    pub fn publish<E: Clone + Send + 'static>(&self, event: E) -> usize {
        let Some(topic) = self.0.topic::<E>() else {
            return 0;
        };
        let subscribers = lock(&topic.subscribers).clone();
        let deliver = |subscriber: &&Arc<Subscriber<E>>| {
            let delivered = guarded_call(|| (subscriber.deliver)(event.clone()));
            delivered.unwrap_or_else(|failure| {
                let to = &subscriber.id.0;
                tracing::warn!(subscriber = %to, %failure, "an event was not made into a message");
                false
            })
        };
        subscribers.iter().filter(deliver).count()
    }

    /// Lets `subscriber` have all events of the type `E` from now on. Subscribing twice is
    /// subscribing once; one actor may subscribe to many types.
    pub fn subscribe<E: Send + 'static>(
        &self,
        subscriber: &ActorRef<impl From<E> + Send + 'static>,
    ) {
        let topic = self.0.topic_or_new::<E>();
        let id = id(subscriber);
        let actor = subscriber.clone();
        let added = topic.add(Subscriber {
            id: id.clone(),
            deliver: Box::new(move |event| actor.tell(event.into()).is_ok()),
            watching: Mutex::new(None),
        });
        let Some(added) = added else { return };
        let topic = Arc::downgrade(&topic);
        let watching = subscriber.on_terminated(move |_| {
            if let Some(topic) = topic.upgrade() {
                topic.remove(&id);
            }
        });
        // If it is gone again by now, the list has dropped it, and this drops the rest.
        *lock(&added.watching) = Some(watching);
    }

    /// Ends a subscription; `false` if there is none. What was published before is still handled.
    pub fn unsubscribe<E: Send + 'static>(
        &self,
        subscriber: &ActorRef<impl Send + 'static>,
    ) -> bool {
        let topic = self.0.topic::<E>();
        topic.is_some_and(|topic| topic.remove(&id(subscriber)))
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("topics", &lock(&self.0.topics).len())
            .finish()
    }
}

impl Inner {
    fn topic<E: Send + 'static>(&self) -> Option<Arc<Topic<E>>> {
        let topic = lock(&self.topics).get(&TypeId::of::<E>()).cloned()?;
        topic.downcast().ok()
    }

    fn topic_or_new<E: Send + 'static>(&self) -> Arc<Topic<E>> {
        let topic = lock(&self.topics)
            .entry(TypeId::of::<E>())
            .or_insert_with(|| Arc::new(Topic::<E>::default()))
            .clone();
        topic
            .downcast()
            .expect("a topic is stored under the type of its events")
    }
}

type Id = (ActorPath, u64);

fn id<M: Send + 'static>(actor: &ActorRef<M>) -> Id {
    (actor.path().clone(), actor.uid())
}

/// The subscribers of one type of event. The list is replaced, never changed: who publishes goes
/// through it without a lock.
struct Topic<E> {
    subscribers: Mutex<Arc<[Arc<Subscriber<E>>]>>,
}

impl<E> Default for Topic<E> {
    fn default() -> Self {
        Self {
            subscribers: Mutex::new(Arc::new([])),
        }
    }
}

struct Subscriber<E> {
    id: Id,
    /// Whether the subscriber accepted it.
    deliver: Box<dyn Fn(E) -> bool + Send + Sync>,
    watching: Mutex<Option<Watching>>,
}

impl<E> Topic<E> {
    /// Adds a subscriber at the end; `None` if it is there already.
    fn add(&self, subscriber: Subscriber<E>) -> Option<Arc<Subscriber<E>>> {
        let mut subscribers = lock(&self.subscribers);
        if subscribers.iter().any(|known| known.id == subscriber.id) {
            return None;
        }
        let subscriber = Arc::new(subscriber);
        let with = subscribers.iter().cloned().chain([subscriber.clone()]);
        let with: Vec<_> = with.collect();
        let before = std::mem::replace(&mut *subscribers, with.into());
        drop(subscribers);
        drop(before);
        Some(subscriber)
    }

    fn remove(&self, id: &Id) -> bool {
        let mut subscribers = lock(&self.subscribers);
        let others = subscribers.iter().filter(|known| known.id != *id);
        let others: Vec<_> = others.cloned().collect();
        let found = others.len() < subscribers.len();
        let before = std::mem::replace(&mut *subscribers, others.into());
        // The subscriber is dropped behind the lock.
        drop(subscribers);
        drop(before);
        found
    }
}
