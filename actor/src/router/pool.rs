//! Pool: an actor that makes its routees, replaces those that end, and changes their number.

use super::handle::{Router, Shared};
use super::owner::{Sentinel, spawn_owner};
use super::resizer::Resizer;
use super::routing::Routing;
use super::slots::{After, RouteeEnded, Slots};
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::ask::ReplyTo;
use crate::cell::Node;
use crate::context::Context;
use crate::error::{AskError, SpawnError};
use crate::failure::guarded_call;
use crate::props::Props;
use crate::system::{ActorSystem, Core};
use crate::watch::Terminated;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::oneshot;

type Factory<A> = Box<dyn FnMut() -> Props<A> + Send>;

/// The recipe of a pool: given to [`ActorSystem::spawn_pool`] and [`Context::spawn_pool`].
///
/// The routees are children of the pool and have names `routee-0`, `routee-1` and so on. What
/// happens when one *fails* is in the [`Props`] that the factory makes; what happens when one has
/// *ended* is [`Pool::on_routee_ended`].
#[must_use]
pub struct Pool<A: Actor> {
    size: usize,
    factory: Factory<A>,
    routing: Routing<A::Msg>,
    on_ended: RouteeEnded,
    resizer: Option<Resizer>,
}

impl<A: Actor> Pool<A> {
    /// A pool of `size` routees that are made by `factory`, round robin.
    ///
    /// # Panics
    /// If `size` is zero.
    pub fn new(size: usize, factory: impl FnMut() -> Props<A> + Send + 'static) -> Self {
        assert!(size > 0, "a pool has at least one routee");
        Self {
            size,
            factory: Box::new(factory),
            routing: Routing::round_robin(),
            on_ended: RouteeEnded::default(),
            resizer: None,
        }
    }

    /// How a routee is chosen; round robin by default.
    pub fn routing(mut self, routing: Routing<A::Msg>) -> Self {
        self.routing = routing;
        self
    }

    /// What follows the end of a routee; by default it is replaced.
    pub fn on_routee_ended(mut self, policy: RouteeEnded) -> Self {
        self.on_ended = policy;
        self
    }

    /// Lets the size follow the load.
    pub fn resizer(mut self, resizer: Resizer) -> Self {
        self.resizer = Some(resizer);
        self
    }

    fn spawn(
        mut self,
        core: &Arc<Core>,
        parent: Option<Arc<dyn Node>>,
        name: &str,
    ) -> Result<PoolHandle<A::Msg>, SpawnError> {
        let system = ActorSystem::of(core);
        // Code of the user runs before there is anything that a panic could leave behind.
        let props: Vec<Props<A>> = (0..self.size).map(|_| (self.factory)()).collect();
        let mut built = None;
        let orders = spawn_owner(core, parent, name, |ctx: &mut Context<PoolActor<A>>| {
            let shared = Shared::new(self.routing, ctx.me().clone(), &system);
            let mut pool = PoolActor {
                factory: self.factory,
                shared: Arc::new(shared),
                slots: Slots::new(self.on_ended),
                resizer: self.resizer,
                routees: BTreeMap::new(),
                draining: BTreeMap::new(),
                closing: false,
            };
            let slots = pool.slots.resize(self.size).start;
            let started = slots
                .into_iter()
                .zip(props)
                .try_for_each(|(slot, props)| pool.start(slot, props, ctx));
            Sentinel::spawn(&pool.shared, ctx);
            pool.publish();
            built = Some((started, pool.shared.clone()));
            pool
        })?;
        let (started, shared) = built.expect("an owner that was spawned was built");
        let router = Router::new(shared);
        if let Err(error) = started {
            orders.stop();
            return Err(error);
        }
        Ok(PoolHandle { router, orders })
    }
}

impl<A: Actor> fmt::Debug for Pool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .field("routing", &self.routing)
            .field("on_ended", &self.on_ended)
            .field("resizer", &self.resizer)
            .finish_non_exhaustive()
    }
}

impl ActorSystem {
    /// Starts a pool at the top of the tree. Its routees are there when this returns.
    ///
    /// # Errors
    /// As for [`ActorSystem::spawn_with`], for the pool and for its routees.
    ///
    /// # Panics
    /// If the factory does; nothing was started then.
    pub fn spawn_pool<A: Actor>(
        &self,
        name: &str,
        pool: Pool<A>,
    ) -> Result<PoolHandle<A::Msg>, SpawnError> {
        pool.spawn(self.core(), None, name)
    }
}

impl<B: Actor> Context<B> {
    /// Starts a pool as a child. Its routees are there when this returns.
    ///
    /// # Errors
    /// As for [`Context::spawn_with`], for the pool and for its routees.
    ///
    /// # Panics
    /// If the factory does; nothing was started then.
    pub fn spawn_pool<A: Actor>(
        &self,
        name: &str,
        pool: Pool<A>,
    ) -> Result<PoolHandle<A::Msg>, SpawnError> {
        let parent: Arc<dyn Node> = self.me().target().clone();
        pool.spawn(self.system().core(), Some(parent), name)
    }
}

/// A pool from outside: a [`Router`] whose size can be changed. Cheap to clone.
pub struct PoolHandle<M> {
    router: Router<M>,
    orders: ActorRef<PoolOrder>,
}

impl<M: Send + 'static> PoolHandle<M> {
    /// The router alone, to give to those who only send.
    pub fn router(&self) -> &Router<M> {
        &self.router
    }

    /// Changes the number of routees, and says how many there are to be from now on; a pool that
    /// drains stays as it is. A routee that is taken away gets nothing new, handles what is queued,
    /// and stops. With a [`Resizer`] this holds until the next look.
    ///
    /// # Errors
    /// As for [`ActorRef::ask`].
    ///
    /// # Panics
    /// If `size` is zero.
    pub async fn resize(&self, size: usize) -> Result<usize, AskError> {
        assert!(size > 0, "a pool has at least one routee");
        self.orders
            .ask(|reply_to| PoolOrder::Resize(size, reply_to))
            .await
    }

    /// Lets the pool accept nothing more, handle what is queued, and end; waits until it has ended.
    /// Not to be awaited in a handler of one of its routees: it would wait for itself.
    ///
    /// # Cancel safety
    /// Once it was polled, the pool ends also if this is dropped, unless the mailbox of the pool's
    /// own orders was full.
    pub async fn drain(&self) {
        let (sender, ended) = oneshot::channel();
        let _watching = self.router.on_terminated(|_| drop(sender));
        // An error means that the pool is stopping already.
        let _ = self.orders.send(PoolOrder::Drain).await;
        // Nobody sends: the news is that the sender is gone.
        let _: Result<(), _> = ended.await;
    }
}

impl<M> Deref for PoolHandle<M> {
    type Target = Router<M>;

    fn deref(&self) -> &Router<M> {
        &self.router
    }
}

impl<M> Clone for PoolHandle<M> {
    fn clone(&self) -> Self {
        Self {
            router: self.router.clone(),
            orders: self.orders.clone(),
        }
    }
}

impl<M: 'static> fmt::Debug for PoolHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PoolHandle").field(&self.orders).finish()
    }
}

enum PoolOrder {
    /// The resizer looks.
    Check,
    Drain,
    /// Slot so-and-so has waited long enough for its new routee.
    Replace(u32),
    Resize(usize, ReplyTo<usize>),
}

struct PoolActor<A: Actor> {
    factory: Factory<A>,
    shared: Arc<Shared<A::Msg>>,
    slots: Slots,
    resizer: Option<Resizer>,
    /// Those that get messages, by slot.
    routees: BTreeMap<u32, ActorRef<A::Msg>>,
    /// Those that finish what is queued.
    draining: BTreeMap<u32, ActorRef<A::Msg>>,
    closing: bool,
}

impl<A: Actor> Actor for PoolActor<A> {
    type Msg = PoolOrder;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        if let Some(resizer) = &self.resizer {
            ctx.timer_every("resizer", resizer.interval(), || PoolOrder::Check);
        }
        Ok(())
    }

    async fn handle(&mut self, msg: PoolOrder, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            PoolOrder::Check => {
                let queued: Vec<usize> = self.routees.values().map(ActorRef::queued).collect();
                let fitting = |resizer: &Resizer| resizer.fitting(self.slots.size(), &queued);
                if let Some(size) = self.resizer.as_ref().map(fitting) {
                    self.resize(size, ctx);
                }
            }
            PoolOrder::Drain => {
                self.closing = true;
                self.shared.close();
                self.drain_to(0);
                self.stop_if_over(ctx);
            }
            PoolOrder::Replace(slot) => self.replace(slot, ctx),
            PoolOrder::Resize(size, reply_to) => {
                self.resize(size, ctx);
                // Whether anyone still wants to know does not matter.
                let _ = reply_to.send(self.slots.size());
            }
        }
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let mut all = self.routees.iter().chain(&self.draining);
        let Some((&slot, _)) = all.find(|(_, routee)| who.is(routee)) else {
            return Ok(());
        };
        tracing::debug!(routee = %who.path, reason = ?who.reason, "a routee has ended");
        if self.draining.remove(&slot).is_none() {
            self.routees.remove(&slot);
            self.publish();
        }
        self.after_end(slot, ctx);
        self.stop_if_over(ctx);
        Ok(())
    }
}

impl<A: Actor> PoolActor<A> {
    fn start(
        &mut self,
        slot: u32,
        props: Props<A>,
        ctx: &mut Context<Self>,
    ) -> Result<(), SpawnError> {
        let routee = ctx.spawn_with(&format!("routee-{slot}"), props)?;
        ctx.watch(&routee);
        self.slots.started(slot, ctx.now());
        self.routees.insert(slot, routee);
        Ok(())
    }

    /// Gives a vacant slot its routee; tries again later if that fails.
    fn replace(&mut self, slot: u32, ctx: &mut Context<Self>) {
        if !self.slots.is_vacant(slot) {
            return;
        }
        let error = match guarded_call(&mut self.factory) {
            Ok(props) => match self.start(slot, props, ctx) {
                Ok(()) => return self.publish(),
                Err(error) => error.to_string(),
            },
            Err(failure) => failure.to_string(),
        };
        tracing::warn!(pool = %ctx.path(), slot, error, "a routee was not started");
        self.after_end(slot, ctx);
    }

    fn after_end(&mut self, slot: u32, ctx: &mut Context<Self>) {
        if let After::Replace(delay) = self.slots.ended(slot, ctx.now()) {
            ctx.timer_once(u64::from(slot), delay, PoolOrder::Replace(slot));
        }
    }

    fn resize(&mut self, size: usize, ctx: &mut Context<Self>) {
        if self.closing || size == self.slots.size() {
            return;
        }
        for slot in self.drain_to(size) {
            self.replace(slot, ctx);
        }
        self.publish();
        tracing::debug!(pool = %ctx.path(), size, "the pool has another size");
    }

    /// Changes the size, and returns the slots that need a routee. Those who drain leave the list of
    /// routees before they are closed: a sender that is refused finds a list without them.
    fn drain_to(&mut self, size: usize) -> Vec<u32> {
        let change = self.slots.resize(size);
        let leaving = change.drain.iter();
        let leaving: Vec<_> = leaving
            .filter_map(|slot| Some((*slot, self.routees.remove(slot)?)))
            .collect();
        self.publish();
        for (slot, routee) in leaving {
            routee.stop_after_queued();
            self.draining.insert(slot, routee);
        }
        change.start
    }

    fn publish(&self) {
        let routees = self.routees.iter();
        let routees = routees.map(|(&slot, routee)| (u64::from(slot), routee.clone()));
        self.shared.publish(routees.collect());
    }

    fn stop_if_over(&self, ctx: &Context<Self>) {
        if self.slots.is_over() {
            ctx.stop_self();
        }
    }
}
