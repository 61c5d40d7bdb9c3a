//! Listing: who offers a service in the cluster at one time, and which of them can be reached.

use otava_actor::{ActorRef, ServiceKey};
use otava_remote::NodeId;
use std::fmt;
use std::sync::Arc;

/// One actor that is registered under a key, somewhere in the cluster.
pub struct Service<M> {
    /// The actor.
    pub actor: ActorRef<M>,
    /// The node that it lives on.
    pub node: NodeId,
    /// Whether all members reach that node, as far as this node knows.
    pub is_reachable: bool,
    pub(crate) rank: u64,
}

impl<M> Clone for Service<M> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            node: self.node.clone(),
            is_reachable: self.is_reachable,
            rank: self.rank,
        }
    }
}

impl<M: 'static> PartialEq for Service<M> {
    fn eq(&self, other: &Self) -> bool {
        let key = |service: &Self| (service.is_reachable, service.rank);
        key(self) == key(other) && self.node == other.node && self.actor == other.actor
    }
}

impl<M: 'static> Eq for Service<M> {}

impl<M: 'static> fmt::Debug for Service<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("actor", &self.actor)
            .field("node", &self.node)
            .field("is_reachable", &self.is_reachable)
            .finish_non_exhaustive()
    }
}

/// Who is registered under a key in the whole cluster, at one time, as one node knows it. Ordered by
/// node, and on each node in the order of the registrations. Cheap to clone.
pub struct ClusterListing<M> {
    key: ServiceKey<M>,
    services: Arc<[Service<M>]>,
}

impl<M> ClusterListing<M> {
    pub(crate) fn new(key: ServiceKey<M>, services: impl IntoIterator<Item = Service<M>>) -> Self {
        let services = services.into_iter().collect();
        Self { key, services }
    }

    /// The key.
    pub fn key(&self) -> &ServiceKey<M> {
        &self.key
    }

    /// All that are registered, also on nodes that cannot be reached at the moment.
    pub fn all(&self) -> &[Service<M>] {
        &self.services
    }

    /// Those on nodes that can be reached.
    pub fn reachable(&self) -> impl Iterator<Item = &Service<M>> {
        self.services.iter().filter(|service| service.is_reachable)
    }

    /// The actors on nodes that can be reached.
    pub fn actors(&self) -> impl Iterator<Item = &ActorRef<M>> {
        self.reachable().map(|service| &service.actor)
    }

    /// How many can be reached.
    pub fn len(&self) -> usize {
        self.reachable().count()
    }

    /// Whether none can be reached.
    pub fn is_empty(&self) -> bool {
        self.reachable().next().is_none()
    }
}

impl<M: Send + 'static> ClusterListing<M> {
    /// The listing without actors that are known to accept nothing any more.
    pub(super) fn without_stopped(self) -> Self {
        if self.services.iter().all(|s| !s.actor.is_stopped()) {
            return self;
        }
        let open = self.services.iter().filter(|s| !s.actor.is_stopped());
        Self::new(self.key.clone(), open.cloned())
    }
}

impl<M> Clone for ClusterListing<M> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            services: self.services.clone(),
        }
    }
}

impl<M: 'static> PartialEq for ClusterListing<M> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.services == other.services
    }
}

impl<M: 'static> Eq for ClusterListing<M> {}

impl<M: 'static> fmt::Debug for ClusterListing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterListing")
            .field("key", &self.key)
            .field("services", &self.services)
            .finish()
    }
}
