//! Delivery: messages that are delivered until they were handled, to one consumer or to many workers.
//!
//! What is told to an actor on another node arrives at most once: a lost connection, or a node that ends,
//! takes messages with it. A [`Producer`] keeps each message until the handler at a [`Consumer`] has
//! confirmed it, and sends it again until then, also to the next consumer. A [`WorkProducer`] gives each
//! message to one of many consumers, a [`KeyedProducer`] to the one that its key leads to, such as an entity.
//!
//! ```no_run
//! use otava_actor::{Actor, ActorRef, ActorSystem, Context};
//! use otava_cluster::delivery::{
//!     Consumer, ConsumerConfig, ConsumerMessage, Delivered, Producer, ProducerConfig,
//! };
//! use otava_remote::RemoteMessage;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Order { article: u64 }
//!
//! impl RemoteMessage for Order {
//!     const NAME: &'static str = "shop.Order";
//! }
//!
//! struct Warehouse;
//!
//! impl Actor for Warehouse {
//!     type Msg = Delivered<Order>;
//!     type Err = std::io::Error;
//!
//!     async fn handle(&mut self, order: Delivered<Order>, _: &mut Context<Self>) -> Result<(), Self::Err> {
//!         println!("article {} goes out", order.message.article);
//!         order.confirm.send();
//!         Ok(())
//!     }
//! }
//!
//! # async fn f(here: ActorSystem, there: ActorSystem) -> Result<(), Box<dyn std::error::Error>> {
//! // On one node,
//! let warehouse = there.spawn("warehouse", Warehouse)?;
//! let orders = Consumer::start(&there, "orders", warehouse, ConsumerConfig::default())?;
//! // and on another one, which has got the reference.
//! let producer = Producer::start(&here, "orders-out", ProducerConfig::default()).await?;
//! producer.deliver_to(orders.actor_ref()).await;
//! let sent = producer.send(Order { article: 17 }).await?;
//! sent.confirmed().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//! - The messages of a producer are handed over in the order in which it took them, one at a time: the
//!   next one when the handler has confirmed the one before.
//! - One run of a consumer hands a message over once, unless the handler drops [`Confirm`] unused. That
//!   holds over lost connections, and over restarts of a producer with a durable queue.
//! - Another run of a consumer, or another consumer, begins with the first message that is not
//!   confirmed: what was handled and not confirmed yet comes again. So effects belong under a key that is
//!   in the message, as everywhere.
//! - Nothing is confirmed that no handler has confirmed.
//! - Without a queue, messages end with their producer; with one ([`DeliveryQueue`]) they are stored before
//!   they are sent, and the next run sends what is not confirmed.
//!
//! # How it works
//! A consumer grants its producer a window, and says how far it is when half of it is used, or when it has
//! nothing left to do: so there is one small message back for 25 messages, and none while all is quiet. A
//! producer that hears nothing asks, after four round trips, then ever less often. Large messages are
//! cut into chunks, so that they hold nothing else up.
//!
//! Messages are encoded when they are sent: references to actors inside of them have no form there
//! ([`SendError::NotEncodable`]).

mod config;
mod consumer;
mod error;
mod intake;
mod keeper;
mod keyed;
pub(crate) mod payload;
mod producer;
mod queue;
pub(crate) mod wire;
mod work;

pub use config::{ConsumerConfig, ProducerConfig};
pub use consumer::{Confirm, Consumer, Delivered};
pub use error::{SendError, StartError, Unconfirmed};
pub use intake::Sent;
pub use keyed::KeyedProducer;
pub use producer::Producer;
pub use queue::{DeliveryQueue, MemoryDeliveryQueue, QueueError, QueueState, StoredMessage};
pub use wire::{ConsumerMessage, ProducerMessage};
pub use work::WorkProducer;
