//! Letters: brings letters between entities over sharding, and starts those whose letters wait.

use crate::entity::{EntityOptions, PersistentEntity};
use crate::node::Node;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_actor::{Actor, Context, Props, ReplyTo};
use otava_cluster::SingletonProxy;
use otava_cluster::singleton::{SingletonConfig, SingletonError};
use otava_persistence::{
    Courier, CourierError, Delivery, JournalError, OutboxFinder, Parcel, Receipt,
};
use otava_remote::RemoteMessage;
use otava_sharding::{Entities, StartError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A letter that has arrived, as a variant of an entity's command. What is in it is had by
/// [`otava_persistence::Effect::receive`] only.
///
/// Clients of the cluster should not be able to send it: say so in
/// [`RemoteMessage::is_for_clients`].
///
/// # Examples
/// ```
/// use otava::Arrived;
/// use otava::prelude::*;
///
/// #[derive(Deserialize, Serialize)]
/// enum Command {
///     Pay { to: String, cents: u64 },
///     Arrived(Arrived),
/// }
///
/// impl From<Arrived> for Command {
///     fn from(arrived: Arrived) -> Self {
///         Self::Arrived(arrived)
///     }
/// }
///
/// impl RemoteMessage for Command {
///     const NAME: &'static str = "bank.Command";
///
///     fn is_for_clients(&self) -> bool {
///         !matches!(self, Self::Arrived(_))
///     }
/// }
/// ```
#[derive(Deserialize, Serialize)]
pub struct Arrived {
    parcel: Parcel,
    #[serde(with = "otava_remote::wire")]
    reply_to: ReplyTo<Receipt>,
}

impl From<Arrived> for Delivery {
    fn from(Arrived { parcel, reply_to }: Arrived) -> Self {
        Self::new(parcel, reply_to)
    }
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arrived").field(&self.parcel.number).finish()
    }
}

type Route =
    Arc<dyn Fn(&str, Parcel) -> BoxFuture<'static, Result<Receipt, CourierError>> + Send + Sync>;

/// The ways to the kinds of entities that take letters, of one node.
#[derive(Clone, Default)]
pub(crate) struct Ways(Arc<Mutex<BTreeMap<String, Route>>>);

impl Ways {
    fn add<C: RemoteMessage + From<Arrived>>(&self, entities: Entities<C>) {
        let kind = entities.kind().to_owned();
        let route: Route = Arc::new(move |id, parcel| {
            let entity = entities.entity(id);
            let asked = entity.ask(|reply_to| Arrived { parcel, reply_to }.into());
            async move { asked.await.map_err(|e| CourierError::new(e.to_string())) }.boxed()
        });
        lock(&self.0).insert(kind, route);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Courier for Ways {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>> {
        let Some(target) = parcel.target() else {
            let reason = format!("{:?} is no persistence id", parcel.to);
            return async { Err(CourierError::new(reason)) }.boxed();
        };
        let route = lock(&self.0).get(target.kind()).cloned();
        match route {
            Some(route) => route(target.entity(), parcel),
            None => {
                let kind = target.kind();
                let reason = format!("this node started no entities {kind:?} that take letters");
                async { Err(CourierError::new(reason)) }.boxed()
            }
        }
    }
}

impl Node {
    /// As [`Node::entities`], for entities that take letters from others
    /// ([`otava_persistence::Effect::receive`]). Every node that has senders of such letters starts the
    /// kind this way.
    ///
    /// # Errors
    /// As [`Node::entities`].
    pub fn entities_with_letters<E: PersistentEntity<Command: From<Arrived>>>(
        &self,
        options: EntityOptions,
    ) -> Result<Entities<E::Command>, StartError> {
        let entities = self.entities::<E>(options)?;
        self.ways().add(entities.clone());
        Ok(entities)
    }

    /// How letters go from this node to entities: for event-sourced actors that sharding does not place
    /// ([`otava_persistence::EventSourcedBuilder::courier`]).
    pub fn courier(&self) -> Arc<dyn Courier> {
        Arc::new(self.ways().clone())
    }

    /// Starts the singleton that looks for entities whose letters wait and which nobody touches, and
    /// wakes them ([`OutboxFinder`]). Call it on every node, after the kinds that send letters were
    /// started by [`Node::entities_with_letters`]. Entities that sharding remembers need none.
    ///
    /// # Errors
    /// [`SingletonError`]. When the journal has no queries or no offsets, the singleton says so in the
    /// log and does nothing.
    pub fn deliver_waiting_letters(
        &self,
        config: SingletonConfig,
    ) -> Result<SingletonProxy<NoMessage>, SingletonError> {
        let (journal, courier) = (self.journal().clone(), self.courier());
        self.singleton("otava-letters", config, move |_| {
            let finder = OutboxFinder::new(journal.clone(), courier.clone());
            Props::once(Finder(finder))
        })
    }
}

/// The message type of an actor that is sent nothing.
#[derive(Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub enum NoMessage {}

impl RemoteMessage for NoMessage {
    const NAME: &'static str = "otava.NoMessage";

    fn is_for_clients(&self) -> bool {
        false
    }
}

struct Finder(Option<OutboxFinder>);

impl Actor for Finder {
    type Msg = NoMessage;
    type Err = JournalError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), JournalError> {
        match self.0.take() {
            // It ends with the journal, or is dropped with this actor; no message comes of it.
            Some(finder) => drop(ctx.pipe_to_self(forever(finder), |never| match never {})),
            None => tracing::error!(
                "the journal has no queries or no offsets: letters that wait are not looked for"
            ),
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        message: NoMessage,
        _: &mut Context<Self>,
    ) -> Result<(), JournalError> {
        match message {}
    }
}

async fn forever(finder: OutboxFinder) -> std::convert::Infallible {
    finder.run().await;
    std::future::pending().await
}
