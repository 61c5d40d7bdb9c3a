//! RouteeGroup: an actor that knows the routees which others made, and drops those that end.

use super::handle::{Router, Shared};
use super::hash::key_hash;
use super::owner::{Sentinel, spawn_owner};
use super::routing::Routing;
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::ask::ReplyTo;
use crate::cell::Node;
use crate::context::Context;
use crate::error::{AskError, SpawnError};
use crate::system::{ActorSystem, Core};
use crate::watch::Terminated;
use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The recipe of a group: given to [`ActorSystem::spawn_routee_group`] and [`Context::spawn_routee_group`].
///
/// A group watches its routees and drops one that has ended. With its last routee it ends, unless
/// [`RouteeGroup::keep_when_empty`] says otherwise. When the group ends its routees live on.
///
/// ```
/// # use otava_actor::{ActorRef, ActorSystem, RouteeGroup, Routing, SpawnError};
/// # use otava_actor::RouteeGroupHandle;
/// # #[derive(Clone)] struct Notice;
/// fn tell_all(system: &ActorSystem, desks: Vec<ActorRef<Notice>>) -> Result<RouteeGroupHandle<Notice>, SpawnError> {
///     system.spawn_routee_group("desks", RouteeGroup::of(desks).routing(Routing::broadcast()))
/// }
/// ```
#[must_use]
pub struct RouteeGroup<M> {
    routees: Vec<ActorRef<M>>,
    routing: Routing<M>,
    keep_when_empty: bool,
}

impl<M: Send + 'static> RouteeGroup<M> {
    /// A group of these actors, here or on other nodes, round robin. Named twice is named once.
    pub fn of(routees: impl IntoIterator<Item = ActorRef<M>>) -> Self {
        let mut group = Self {
            routees: Vec::new(),
            routing: Routing::round_robin(),
            keep_when_empty: false,
        };
        for routee in routees {
            if !group.routees.contains(&routee) {
                group.routees.push(routee);
            }
        }
        group
    }

    /// How a routee is chosen; round robin by default.
    pub fn routing(mut self, routing: Routing<M>) -> Self {
        self.routing = routing;
        self
    }

    /// The group waits for new routees when it has none left, instead of ending.
    pub fn keep_when_empty(mut self) -> Self {
        self.keep_when_empty = true;
        self
    }

    fn spawn(
        self,
        core: &Arc<Core>,
        parent: Option<Arc<dyn Node>>,
        name: &str,
    ) -> Result<RouteeGroupHandle<M>, SpawnError> {
        let system = ActorSystem::of(core);
        let mut built = None;
        let orders = spawn_owner(core, parent, name, |ctx: &mut Context<GroupActor<M>>| {
            let shared = Arc::new(Shared::new(self.routing, ctx.me().clone(), &system));
            self.routees.iter().for_each(|routee| ctx.watch(routee));
            let group = GroupActor {
                shared: shared.clone(),
                routees: self.routees.into_iter().map(placed).collect(),
                keep_when_empty: self.keep_when_empty,
            };
            Sentinel::spawn(&shared, ctx);
            group.publish();
            built = Some(shared);
            group
        })?;
        let router = Router::new(built.expect("an owner that was spawned was built"));
        Ok(RouteeGroupHandle { router, orders })
    }
}

impl<M: 'static> fmt::Debug for RouteeGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteeGroup")
            .field("routees", &self.routees)
            .field("routing", &self.routing)
            .field("keep_when_empty", &self.keep_when_empty)
            .finish()
    }
}

impl ActorSystem {
    /// Starts a group at the top of the tree.
    ///
    /// # Errors
    /// As for [`ActorSystem::spawn`].
    pub fn spawn_routee_group<M: Send + 'static>(
        &self,
        name: &str,
        group: RouteeGroup<M>,
    ) -> Result<RouteeGroupHandle<M>, SpawnError> {
        group.spawn(self.core(), None, name)
    }
}

impl<B: Actor> Context<B> {
    /// Starts a group as a child.
    ///
    /// # Errors
    /// As for [`Context::spawn`].
    pub fn spawn_routee_group<M: Send + 'static>(
        &self,
        name: &str,
        group: RouteeGroup<M>,
    ) -> Result<RouteeGroupHandle<M>, SpawnError> {
        let parent: Arc<dyn Node> = self.me().target().clone();
        group.spawn(self.system().core(), Some(parent), name)
    }
}

/// A group from outside: a [`Router`] whose routees can be changed. Cheap to clone.
pub struct RouteeGroupHandle<M: Send + 'static> {
    router: Router<M>,
    orders: ActorRef<GroupOrder<M>>,
}

impl<M: Send + 'static> RouteeGroupHandle<M> {
    /// The router alone, to give to those who only send.
    pub fn router(&self) -> &Router<M> {
        &self.router
    }

    /// Adds a routee, and says how many there are now. One that has ended leaves at once.
    ///
    /// # Errors
    /// As for [`ActorRef::ask`].
    pub async fn add(&self, routee: &ActorRef<M>) -> Result<usize, AskError> {
        let routee = routee.clone();
        self.orders
            .ask(|reply_to| GroupOrder::Add(routee, reply_to))
            .await
    }

    /// Takes a routee out, without stopping it, and says how many there are now. The group ends if
    /// it was the last, unless it is kept.
    ///
    /// # Errors
    /// As for [`ActorRef::ask`].
    pub async fn remove(&self, routee: &ActorRef<M>) -> Result<usize, AskError> {
        let routee = routee.clone();
        self.orders
            .ask(|reply_to| GroupOrder::Remove(routee, reply_to))
            .await
    }

    /// Makes these the routees in place of those that were there, each with the number that decides
    /// its place on the ring of consistent hashing. They are not watched: for those who follow in
    /// another way who is there, such as the listings of a cluster.
    ///
    /// # Errors
    /// As for [`ActorRef::ask`].
    pub async fn replace(&self, routees: Vec<(u64, ActorRef<M>)>) -> Result<usize, AskError> {
        self.orders
            .ask(|reply_to| GroupOrder::Replace(routees, reply_to))
            .await
    }
}

impl<M: Send + 'static> Deref for RouteeGroupHandle<M> {
    type Target = Router<M>;

    fn deref(&self) -> &Router<M> {
        &self.router
    }
}

impl<M: Send + 'static> Clone for RouteeGroupHandle<M> {
    fn clone(&self) -> Self {
        Self {
            router: self.router.clone(),
            orders: self.orders.clone(),
        }
    }
}

impl<M: Send + 'static> fmt::Debug for RouteeGroupHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RouteeGroupHandle")
            .field(&self.orders)
            .finish()
    }
}

enum GroupOrder<M> {
    Add(ActorRef<M>, ReplyTo<usize>),
    Remove(ActorRef<M>, ReplyTo<usize>),
    Replace(Vec<(u64, ActorRef<M>)>, ReplyTo<usize>),
}

struct GroupActor<M> {
    shared: Arc<Shared<M>>,
    /// With their places on the ring.
    routees: Vec<(u64, ActorRef<M>)>,
    keep_when_empty: bool,
}

/// The path places a routee on the ring: it is the same after a restart of the program.
fn placed<M: Send + 'static>(routee: ActorRef<M>) -> (u64, ActorRef<M>) {
    (key_hash(routee.path().as_str()), routee)
}

impl<M: Send + 'static> Actor for GroupActor<M> {
    type Msg = GroupOrder<M>;
    type Err = Infallible;

    async fn handle(
        &mut self,
        msg: GroupOrder<M>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let reply_to = match msg {
            GroupOrder::Add(routee, reply_to) => {
                if !self.routees.iter().any(|(_, known)| *known == routee) {
                    ctx.watch(&routee);
                    self.routees.push(placed(routee));
                    self.publish();
                }
                reply_to
            }
            GroupOrder::Remove(routee, reply_to) => {
                ctx.unwatch(&routee);
                self.leave(|known| *known == routee, ctx);
                reply_to
            }
            GroupOrder::Replace(routees, reply_to) => {
                self.routees.iter().for_each(|(_, gone)| ctx.unwatch(gone));
                self.routees = routees;
                self.publish();
                self.end_if_empty(ctx);
                reply_to
            }
        };
        // Whether anyone still wants to know does not matter.
        let _ = reply_to.send(self.routees.len());
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.leave(|known| who.is(known), ctx);
        Ok(())
    }
}

impl<M: Send + 'static> GroupActor<M> {
    fn leave(&mut self, is_it: impl Fn(&ActorRef<M>) -> bool, ctx: &Context<Self>) {
        let before = self.routees.len();
        self.routees.retain(|(_, known)| !is_it(known));
        if self.routees.len() < before {
            self.publish();
            self.end_if_empty(ctx);
        }
    }

    fn end_if_empty(&self, ctx: &Context<Self>) {
        if self.routees.is_empty() && !self.keep_when_empty {
            ctx.stop_self();
        }
    }

    fn publish(&self) {
        self.shared.publish(self.routees.clone());
    }
}
