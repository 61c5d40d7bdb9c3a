//! Singleton: one actor in the whole cluster, on its oldest member, and the way to it from any node.
//!
//! ```no_run
//! use otava_actor::{Actor, Context, Props, ReplyTo};
//! use otava_cluster::singleton::{SingletonConfig, SingletonContext};
//! use otava_cluster::{Cluster, ClusterReceptionist, Singletons};
//! use otava_remote::RemoteMessage;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct NextNumber(#[serde(with = "otava_remote::wire")] ReplyTo<u64>);
//!
//! impl RemoteMessage for NextNumber {
//!     const NAME: &'static str = "shop.NextNumber";
//! }
//!
//! /// Numbers that nobody else gives: the upper half is the term.
//! struct Numbers(u64);
//!
//! impl Actor for Numbers {
//!     type Msg = NextNumber;
//!     type Err = std::convert::Infallible;
//!
//!     async fn handle(&mut self, NextNumber(reply_to): NextNumber, _: &mut Context<Self>) -> Result<(), Self::Err> {
//!         self.0 += 1;
//!         let _ = reply_to.send(self.0);
//!         Ok(())
//!     }
//! }
//!
//! # async fn f(cluster: Cluster, receptionist: ClusterReceptionist) -> Result<(), Box<dyn std::error::Error>> {
//! let singletons = Singletons::start(&cluster, &receptionist);
//! let config = SingletonConfig::default();
//! let make = |context: SingletonContext| Props::once(Numbers(context.term << 32));
//! let numbers = singletons.host("numbers", config, make)?;
//! println!("{}", numbers.ask(NextNumber).await?);
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//! - The actor runs on the oldest member that is up. When that one leaves, the actor has ended there
//!   before it starts on the next, which is at once.
//! - When the oldest is lost, the next one starts the actor [`margin`](field@SingletonConfig::margin) after it was
//!   declared out. Within that time the lost node learns that it is out, if it runs and its clock does.
//! - Each start has a greater term than the one before. Two that live at once, because a node was
//!   paused or cut off for longer than the margin, are told apart by that: whoever they write to can
//!   refuse the lower one ([`SingletonContext::term`]).
//!
//! Start a singleton on all nodes, or on all of its role: the oldest member is to host it, whether it
//! knows it or not.

mod config;
mod error;
mod host;
mod hub;
mod proxy;
mod tenure;
mod terms;
mod wire;

pub use config::{SingletonConfig, SingletonContext};
pub use error::{SingletonError, SingletonHandOverError};
pub use proxy::SingletonProxy;
pub use terms::{MemoryTerms, TermError, TermStore};

use crate::io::cluster::Cluster;
use crate::lock::lock;
use crate::receptionist::ClusterReceptionist;
use futures_util::future::join_all;
use host::{Handle, Recipe};
use otava_actor::receptionist::KeyError;
use otava_actor::{Actor, Props, ServiceKey};
use otava_remote::{Channel, NodeId, RemoteMessage};
use proxy::{Owner, Shared};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The control channel of singletons.
const CHANNEL: Channel = Channel(6);
/// The longest name of a singleton in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The singletons of one node: those that it may host, and the ways to all. A handle, cheap to clone.
#[derive(Clone)]
pub struct Singletons {
    inner: Arc<Inner>,
}

struct Inner {
    /// To start hosts with: only while somebody has a handle.
    cluster: Cluster,
    receptionist: ClusterReceptionist,
    hosts: Arc<Hosts>,
    proxies: Mutex<BTreeMap<String, Proxy>>,
}

type Hosts = Mutex<BTreeMap<String, Arc<Handle>>>;

/// A proxy, its message type forgotten.
struct Proxy {
    message_type: &'static str,
    shared: Arc<dyn Any + Send + Sync>,
}

impl Singletons {
    /// Starts what singletons need: once on every node, right after its membership.
    #[must_use]
    pub fn start(cluster: &Cluster, receptionist: &ClusterReceptionist) -> Self {
        let hosts = Arc::new(Hosts::default());
        hub::start(cluster, hosts.clone());
        let inner = Inner {
            cluster: cluster.clone(),
            receptionist: receptionist.clone(),
            hosts,
            proxies: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes this node one that may host the singleton `name`, and returns the way to it. Call it on
    /// every node with the same `name`, message type and settings.
    ///
    /// `factory` gives the recipe of the actor. It is called for each start on this node, should be
    /// quick, and learns the term of the start.
    ///
    /// # Errors
    /// [`SingletonError`].
    pub fn host<A: Actor<Msg: RemoteMessage>>(
        &self,
        name: &str,
        config: SingletonConfig,
        factory: impl Fn(SingletonContext) -> Props<A> + Send + 'static,
    ) -> Result<SingletonProxy<A::Msg>, SingletonError> {
        let proxy = self.proxy_with::<A::Msg>(name, config.buffer_max)?;
        let inner = &self.inner;
        let mut hosts = lock(&inner.hosts);
        if hosts.contains_key(name) {
            return Err(SingletonError::Started(name.to_owned()));
        }
        let recipe = Recipe {
            name: name.into(),
            key: key(name),
            config,
            factory: Box::new(factory),
        };
        let host = host::start(&inner.cluster, inner.receptionist.clone(), recipe);
        hosts.insert(name.to_owned(), Arc::new(host));
        Ok(proxy)
    }

    /// The way to the singleton `name` from a node that does not host it. There is one proxy a name
    /// and node.
    ///
    /// # Errors
    /// [`SingletonError`].
    pub fn proxy<M: RemoteMessage>(&self, name: &str) -> Result<SingletonProxy<M>, SingletonError> {
        self.proxy_with(name, SingletonConfig::default().buffer_max)
    }

    fn proxy_with<M: RemoteMessage>(
        &self,
        name: &str,
        buffer_max: usize,
    ) -> Result<SingletonProxy<M>, SingletonError> {
        if name.len() > NAME_BYTES_MAX || !NodeId::is_valid_name(name) {
            return Err(SingletonError::BadName(name.to_owned()));
        }
        let inner = &self.inner;
        let mut proxies = lock(&inner.proxies);
        if let Some(known) = proxies.get(name) {
            let shared = known.shared.clone().downcast::<Shared<M>>();
            let shared = shared.map_err(|_| KeyError::OtherType {
                key: name.to_owned(),
                known: known.message_type,
                given: std::any::type_name::<M>(),
            })?;
            return Ok(SingletonProxy::new(shared));
        }
        let key = key::<M>(name);
        let listings = inner.receptionist.listings(&key)?;
        let system = inner.cluster.remote().system();
        let shared = Owner::start(system, name, listings, buffer_max)?;
        inner.receptionist.subscribe(&key, shared.owner())?;
        let proxy = Proxy {
            message_type: std::any::type_name::<M>(),
            shared: shared.clone(),
        };
        proxies.insert(name.to_owned(), proxy);
        Ok(SingletonProxy::new(shared))
    }

    /// Ends the singletons that run here, so that the next oldest node starts them, and hosts none any
    /// more: after [`Cluster::begin_leave`], before [`Cluster::finish_leave`].
    ///
    /// # Errors
    /// [`SingletonHandOverError`]: some have not ended in time.
    ///
    /// # Cancel safety
    /// Dropped, the hand-over goes on.
    pub async fn hand_over(&self, within: Duration) -> Result<(), SingletonHandOverError> {
        let hosts: Vec<(String, Arc<Handle>)> = {
            let hosts = lock(&self.inner.hosts);
            hosts
                .iter()
                .map(|(name, host)| (name.clone(), host.clone()))
                .collect()
        };
        hosts.iter().for_each(|(_, host)| host.hand_over());
        let all = join_all(hosts.iter().map(|(_, host)| host.done()));
        if tokio::time::timeout(within, all).await.is_ok() {
            return Ok(());
        }
        let left = hosts.iter().filter(|(_, host)| !host.is_done());
        let names = left.map(|(name, _)| name.clone()).collect();
        Err(SingletonHandOverError { names, within })
    }
}

/// The key under which the actor of a singleton is found.
fn key<M>(name: &str) -> ServiceKey<M> {
    ServiceKey::named(format!("singleton/{name}"))
}

impl fmt::Debug for Singletons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = lock(&self.inner.hosts);
        f.debug_tuple("Singletons").field(&hosts.keys()).finish()
    }
}
