//! Delivery: messages to entities that are delivered until they were handled.
//!
//! An entity of such a kind is a shell: beside the actor that handles its messages it has the consumer that
//! receives them. The two end together, and with them the entity; its next message starts it again.

use crate::ShardingConfig;
use crate::entities::Entities;
use crate::entity::EntityContext;
use crate::error::StartError;
use crate::start::Sharding;
use crate::store::AllocationStore;
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Props, SpawnError, Terminated};
use otava_cluster::Cluster;
use otava_cluster::delivery::{
    self, Consumer, ConsumerConfig, ConsumerMessage, Delivered, KeyedProducer, ProducerConfig,
};
use otava_remote::RemoteMessage;
use std::sync::Arc;

impl Sharding {
    /// Starts a kind of entities that handle reliable messages: as [`Sharding::start`], with an actor that
    /// takes [`Delivered`] messages and confirms each one. [`Entities::producer`] sends to them.
    ///
    /// The entity ends when that actor does: one that has nothing to do may stop itself.
    ///
    /// # Errors
    /// [`StartError`]: a setting that cannot be used, or the kind runs here already.
    ///
    /// # Examples
    /// ```no_run
    /// # use otava_actor::{Actor, Context, Props};
    /// use otava_cluster::delivery::{ConsumerConfig, Delivered, ProducerConfig};
    /// # use otava_remote::RemoteMessage;
    /// use otava_sharding::{AllocationStore, EntityContext, Sharding, ShardingConfig};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::sync::Arc;
    /// # #[derive(Deserialize, Serialize)]
    /// struct Deposit { cents: u64 }
    /// # impl RemoteMessage for Deposit { const NAME: &'static str = "bank.Deposit"; }
    /// # struct Account(EntityContext);
    ///
    /// impl Actor for Account {
    ///     type Msg = Delivered<Deposit>;
    ///     type Err = std::convert::Infallible;
    ///
    ///     async fn handle(&mut self, deposit: Delivered<Deposit>, _: &mut Context<Self>) -> Result<(), Self::Err> {
    ///         println!("{} cents for {}", deposit.message.cents, self.0.id);
    ///         deposit.confirm.send();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # async fn f(cluster: otava_cluster::Cluster, store: Arc<dyn AllocationStore>, system: otava_actor::ActorSystem)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let (config, consumer) = (ShardingConfig::default(), ConsumerConfig::default());
    /// let make = |context: EntityContext| Props::once(Account(context));
    /// let accounts = Sharding::start_reliable(&cluster, "account", store, config, consumer, make)?;
    ///
    /// let deposits = accounts.producer(&system, "deposits", ProducerConfig::default()).await?;
    /// deposits.send("DE-1234", Deposit { cents: 500 }).await?.confirmed().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_reliable<M: RemoteMessage, A: Actor<Msg = Delivered<M>>>(
        cluster: &Cluster,
        kind: &str,
        store: Arc<dyn AllocationStore>,
        config: ShardingConfig,
        consumer: ConsumerConfig,
        factory: impl Fn(EntityContext) -> Props<A> + Send + 'static,
    ) -> Result<Entities<ConsumerMessage<M>>, StartError> {
        Self::start(cluster, kind, store, config, shells(consumer, factory))
    }
}

/// Makes the shells of entities.
pub(crate) fn shells<M: RemoteMessage, A: Actor<Msg = Delivered<M>>>(
    config: ConsumerConfig,
    factory: impl Fn(EntityContext) -> Props<A> + Send + 'static,
) -> impl Fn(EntityContext) -> Props<Shell<M, A>> + Send + 'static {
    move |context| {
        Props::once(Shell {
            props: Some(factory(context)),
            config: config.clone(),
            parts: None,
        })
    }
}

impl<M: RemoteMessage> Entities<ConsumerMessage<M>> {
    /// Starts a producer of messages to these entities, on this node. The key of a message is the id of
    /// its entity.
    ///
    /// # Errors
    /// [`delivery::StartError`].
    pub async fn producer(
        &self,
        system: &ActorSystem,
        name: &str,
        config: ProducerConfig,
    ) -> Result<KeyedProducer<M>, delivery::StartError> {
        let entities = self.clone();
        let route = move |id: &str, message| {
            // What is refused is lost, as on the way: it is sent again.
            let _ = entities.entity(id).tell(message);
        };
        KeyedProducer::start(system, name, config, route).await
    }
}

/// An entity that hands its messages to an actor beside it.
pub(crate) struct Shell<M: RemoteMessage, A: Actor<Msg = Delivered<M>>> {
    props: Option<Props<A>>,
    config: ConsumerConfig,
    parts: Option<(ActorRef<Delivered<M>>, Consumer<M>)>,
}

impl<M: RemoteMessage, A: Actor<Msg = Delivered<M>>> Actor for Shell<M, A> {
    type Msg = ConsumerMessage<M>;
    type Err = SpawnError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), SpawnError> {
        if let Some(props) = self.props.take() {
            let handler = ctx.spawn_with("handler", props)?;
            ctx.watch(&handler);
            let config = self.config.clone();
            let consumer = Consumer::start_beside(ctx, "consumer", handler.clone(), config)?;
            self.parts = Some((handler, consumer));
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        message: ConsumerMessage<M>,
        _: &mut Context<Self>,
    ) -> Result<(), SpawnError> {
        if let Some((_, consumer)) = &self.parts {
            // What is refused is lost, as on the way: it is sent again.
            let _ = consumer.actor_ref().tell(message);
        }
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), SpawnError> {
        if self.parts.as_ref().is_some_and(|parts| who.is(&parts.0)) {
            ctx.stop_self();
        }
        Ok(())
    }
}
