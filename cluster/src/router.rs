//! Routers over the cluster: one reference for all who offer a service, and for pools on many nodes.
//!
//! A [`ClusterGroup`] is an [`otava_actor::RouteeGroup`] whose routees are those of a listing: it
//! chooses among the actors under a key that can be reached, and follows as they come and go. A pool
//! that spans the cluster is a pool on each node, registered as one service, and a group of them.
//!
//! ```no_run
//! use otava_actor::{Actor, Context, Pool, Props, ReplyTo, Routing, ServiceKey};
//! use otava_cluster::{ClusterGroup, ClusterReceptionist};
//! use otava_remote::RemoteMessage;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Resize { picture: String, #[serde(with = "otava_remote::wire")] reply_to: ReplyTo<u64> }
//!
//! impl RemoteMessage for Resize {
//!     const NAME: &'static str = "pictures.Resize";
//! }
//!
//! static RESIZERS: ServiceKey<Resize> = ServiceKey::new("resizers");
//! # struct Resizer;
//! # impl Actor for Resizer {
//! #     type Msg = Resize;
//! #     type Err = std::convert::Infallible;
//! #     async fn handle(&mut self, _: Resize, _: &mut Context<Self>) -> Result<(), Self::Err> { Ok(()) }
//! # }
//!
//! # async fn f(receptionist: ClusterReceptionist) -> Result<(), Box<dyn std::error::Error>> {
//! // On each node that has processors to spare: four workers.
//! receptionist.spawn_pool("resizers", &RESIZERS, Pool::new(4, || Props::new(|| Resizer)))?;
//!
//! // On each node that has work: a picture always goes to the same node.
//! let by_picture = Routing::consistent_hash(|resize: &Resize| resize.picture.clone());
//! let group = ClusterGroup::of(&RESIZERS).routing(by_picture);
//! let resizers = receptionist.spawn_routee_group("all-resizers", group).await?;
//! let bytes = resizers.ask(|reply_to| Resize { picture: "cat.png".into(), reply_to }).await?;
//! # let _ = bytes;
//! # Ok(())
//! # }
//! ```

use crate::receptionist::{
    ClusterListing, ClusterListings, ClusterReceptionist, RegisterError, place,
};
use otava_actor::receptionist::KeyError;
use otava_actor::{
    Actor, ActorRef, AskError, Pool, PoolHandle, RouteeGroup, RouteeGroupHandle, Router, Routing,
    ServiceKey, SpawnError,
};
use otava_remote::{NodeId, RemoteMessage};
use std::fmt;
use tokio::sync::oneshot;

/// The recipe of a group over the cluster ([`ClusterReceptionist::spawn_routee_group`]).
#[must_use]
pub struct ClusterGroup<M> {
    key: ServiceKey<M>,
    routing: Routing<M>,
    prefers_local: bool,
}

impl<M: RemoteMessage> ClusterGroup<M> {
    /// A group of those who are registered under `key` and can be reached, round robin.
    pub fn of(key: &ServiceKey<M>) -> Self {
        Self {
            key: key.clone(),
            routing: Routing::round_robin(),
            prefers_local: false,
        }
    }

    /// How a routee is chosen. Consistent hashing chooses the same one on every node, as soon as all
    /// have the same listing, also after the program of a node was started again.
    pub fn routing(mut self, routing: Routing<M>) -> Self {
        self.routing = routing;
        self
    }

    /// Chooses only among the routees of this node, as long as there are any.
    pub fn prefer_local(mut self) -> Self {
        self.prefers_local = true;
        self
    }
}

impl<M: 'static> fmt::Debug for ClusterGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterGroup")
            .field("key", &self.key)
            .field("routing", &self.routing)
            .field("prefers_local", &self.prefers_local)
            .finish()
    }
}

/// Why a router over the cluster was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// The group ended while it was started.
    #[error("the group did not take its first routees: {0}")]
    Ended(#[source] AskError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The pool was not registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The group or pool could not be started under this name.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl ClusterReceptionist {
    /// Starts a group over the cluster at the top of this node's tree. It has the routees that are
    /// listed now when this returns. Without any it waits for some: meanwhile `tell` says full, and
    /// `send` waits.
    ///
    /// # Errors
    /// [`RouterError`].
    ///
    /// # Cancel safety
    /// Dropped, a group may be left that has no routees.
    pub async fn spawn_routee_group<M: RemoteMessage>(
        &self,
        name: &str,
        group: ClusterGroup<M>,
    ) -> Result<Router<M>, RouterError> {
        let mut listings = self.listings(&group.key)?;
        let empty = RouteeGroup::of([]).routing(group.routing);
        let system = self.remote().system();
        let handle = system.spawn_routee_group(name, empty.keep_when_empty())?;
        let follower = Follower {
            me: self.remote().id().clone(),
            prefers_local: group.prefers_local,
            group: handle.clone(),
        };
        if let Some(listing) = listings.newest() {
            follower.take(&listing).await.map_err(RouterError::Ended)?;
        }
        system.handle().spawn(follower.run(listings));
        Ok(handle.router().clone())
    }

    /// Starts a pool at the top of this node's tree and registers it under `key` as one service: a
    /// group over the cluster chooses the node, and the pool there the routee.
    ///
    /// # Errors
    /// [`RouterError`].
    pub fn spawn_pool<A: Actor<Msg: RemoteMessage>>(
        &self,
        name: &str,
        key: &ServiceKey<A::Msg>,
        pool: Pool<A>,
    ) -> Result<PoolHandle<A::Msg>, RouterError> {
        let pool = self.remote().system().spawn_pool(name, pool)?;
        if let Err(error) = self.register(key, pool.actor_ref()) {
            pool.stop();
            return Err(error.into());
        }
        Ok(pool)
    }
}

/// Brings a group what is listed.
struct Follower<M: Send + 'static> {
    me: NodeId,
    prefers_local: bool,
    group: RouteeGroupHandle<M>,
}

impl<M: RemoteMessage> Follower<M> {
    async fn run(self, mut listings: ClusterListings<M>) {
        let (end, mut ended) = oneshot::channel::<()>();
        self.group.on_terminated(move |_| drop(end)).detach();
        loop {
            tokio::select! {
                biased;
                _ = &mut ended => return,
                listing = listings.recv() => match listing {
                    Some(listing) => if self.take(&listing).await.is_err() {
                        // A busy group is asked again with the next listing; one that has ended, never.
                        tracing::warn!(group = %self.group.path(), "a listing was not taken");
                    },
                    None => return,
                },
            }
        }
    }

    async fn take(&self, listing: &ClusterListing<M>) -> Result<usize, AskError> {
        self.group.replace(self.choose(listing)).await
    }

    /// Who may be chosen, with their places.
    fn choose(&self, listing: &ClusterListing<M>) -> Vec<(u64, ActorRef<M>)> {
        let local = |node: &NodeId| *node == self.me;
        let only_local = self.prefers_local && listing.reachable().any(|s| local(&s.node));
        let chosen = listing
            .reachable()
            .filter(|s| !only_local || local(&s.node));
        chosen.map(|s| (place(s), s.actor.clone())).collect()
    }
}
