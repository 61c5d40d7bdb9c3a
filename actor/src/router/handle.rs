//! Router: the handle through which messages reach the routees, and the table behind it.
//!
//! The owner (the actor of a pool or group) publishes the list of routees; whoever sends reads it
//! and chooses. A sender may hold a list that is a moment old: a routee that has left refuses, and
//! the sender looks at the new list.

use super::ring::Ring;
use super::routing::{Kind, Routing, least, round};
use crate::actor_ref::{ActorRef, RemoteTarget};
use crate::ask::{Ask, ReplyTo};
use crate::dead_letters::{DeadLetterReason, DeadLetters};
use crate::error::{TellError, Unsendable};
use crate::path::ActorPath;
use crate::rng::Rng;
use crate::sync::lock;
use crate::system::ActorSystem;
use crate::time::{Clock, Time};
use crate::watch::{Terminated, Watchable, Watcher, WatcherId, Watching};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// A handle on a pool or group: each message goes to the routee that its [`Routing`] chooses, chosen
/// where the sender runs. Cheap to clone; dropping it stops nobody.
///
/// # Delivery
/// At most once, as to any actor. Messages that one sender sends to the same routee keep their
/// order; who gets a message, and what happens when that one cannot take it, is said in
/// [`crate::router`].
///
/// # Panics
/// What the key function of the routing, or `Clone` of a message that is broadcast, panics with comes
/// out of `tell`, `send` and `ask`.
pub struct Router<M> {
    shared: Arc<Shared<M>>,
    /// The same thing as a reference.
    direct: ActorRef<M>,
}

impl<M: Send + 'static> Router<M> {
    pub(super) fn new(shared: Arc<Shared<M>>) -> Self {
        let direct = ActorRef::from_remote(shared.clone());
        Self { shared, direct }
    }

    /// Queues `message` at a routee without waiting.
    ///
    /// # Errors
    /// The message comes back: [`TellError::Full`] if the routees that it may go to have no room, or
    /// there is no living routee at the moment; [`TellError::Stopped`] if the router has ended;
    /// [`TellError::Unsendable`] as for [`ActorRef::tell`].
    pub fn tell(&self, message: M) -> Result<(), TellError<M>> {
        self.shared.route(message, None)
    }

    /// Queues `message` at a routee, and waits if there is no room, or no living routee. A broadcast
    /// waits for one routee after the other.
    ///
    /// # Errors
    /// [`TellError::Stopped`] if the router has ended or ends meanwhile; [`TellError::Unsendable`].
    ///
    /// # Cancel safety
    /// A message whose `send` is dropped is dropped with it, unsent; of a broadcast, some routees may
    /// have it.
    pub async fn send(&self, message: M) -> Result<(), TellError<M>> {
        self.shared.send(message).await
    }

    /// Asks a routee, as [`ActorRef::ask`]. Errors name the router.
    ///
    /// # Errors
    /// As for [`ActorRef::ask`].
    pub fn ask<R: Send + 'static>(&self, question: impl FnOnce(ReplyTo<R>) -> M) -> Ask<M, R> {
        self.direct.ask(question)
    }

    /// The router as an ordinary reference, for those who need not know that there are many. It also
    /// routes at the sender. It is watched and stopped as the pool or group itself.
    pub fn actor_ref(&self) -> &ActorRef<M> {
        &self.direct
    }

    /// Who gets messages at present, in the order in which they take turns.
    pub fn routees(&self) -> Vec<ActorRef<M>> {
        self.shared.table().routees.clone()
    }

    /// The path of the pool or group.
    pub fn path(&self) -> &ActorPath {
        self.shared.owner.path()
    }

    /// Whether the router accepts no message any more.
    pub fn is_stopped(&self) -> bool {
        self.direct.is_stopped()
    }

    /// Stops the pool with its routees, or the group without them.
    pub fn stop(&self) {
        self.direct.stop();
    }

    /// Calls `callback` once when the router has ended, as [`ActorRef::on_terminated`].
    pub fn on_terminated(&self, callback: impl FnOnce(Terminated) + Send + 'static) -> Watching {
        Watching::start(self.shared.owner.watchable(), callback)
    }
}

impl<M> Clone for Router<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            direct: self.direct.clone(),
        }
    }
}

impl<M: 'static> fmt::Debug for Router<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Router").field(&self.direct).finish()
    }
}

/// The actor that keeps the list of routees, its message type forgotten.
trait Owner: Send + Sync {
    fn path(&self) -> &ActorPath;
    fn uid(&self) -> u64;
    fn is_stopped(&self) -> bool;
    fn stop(&self);
    fn watchable(&self) -> Arc<dyn Watchable>;
}

impl<N: Send + 'static> Owner for ActorRef<N> {
    fn path(&self) -> &ActorPath {
        self.path()
    }

    fn uid(&self) -> u64 {
        self.uid()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped()
    }

    fn stop(&self) {
        self.stop();
    }

    fn watchable(&self) -> Arc<dyn Watchable> {
        self.watchable()
    }
}

/// What all handles on one router share.
pub(super) struct Shared<M> {
    routing: Routing<M>,
    table: watch::Sender<Arc<Table<M>>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    rng: Mutex<Rng>,
    owner: Box<dyn Owner>,
    clock: Clock,
    dead_letters: DeadLetters,
}

/// The routees at one time.
struct Table<M> {
    routees: Vec<ActorRef<M>>,
    /// Empty unless messages are routed by their keys.
    ring: Ring,
    /// The router has ended.
    closed: bool,
}

/// Why a message was not accepted by any routee.
enum Miss<M> {
    /// There is nobody.
    Nobody(M),
    /// The routees that may have it are full; the index of the one that was tried first.
    Full(M, usize),
    Unsendable(M, Unsendable),
}

impl<M: Send + 'static> Shared<M> {
    pub(super) fn new<N: Send + 'static>(
        routing: Routing<M>,
        owner: ActorRef<N>,
        system: &ActorSystem,
    ) -> Self {
        let table = Table {
            routees: Vec::new(),
            ring: Ring::default(),
            closed: false,
        };
        Self {
            routing,
            table: watch::Sender::new(Arc::new(table)),
            turn: AtomicUsize::new(0),
            rng: Mutex::new(system.rng()),
            owner: Box::new(owner),
            clock: system.core().clock,
            dead_letters: system.dead_letters().clone(),
        }
    }

    /// Makes these the routees, each with the id that decides its place on the ring.
    pub(super) fn publish(&self, routees: Vec<(u64, ActorRef<M>)>) {
        let ring = match self.routing.0 {
            Kind::Hashed(_) => Ring::new(routees.iter().map(|&(id, _)| id)),
            _ => Ring::default(),
        };
        let routees = routees.into_iter().map(|(_, routee)| routee).collect();
        self.replace(Table {
            routees,
            ring,
            closed: false,
        });
    }

    /// Routes nothing any more and wakes all who wait.
    pub(super) fn close(&self) {
        self.replace(Table {
            routees: Vec::new(),
            ring: Ring::default(),
            closed: true,
        });
    }

    fn replace(&self, table: Table<M>) {
        let mut next = Some(Arc::new(table));
        // What was there is dropped behind the lock.
        let mut before = None;
        self.table.send_if_modified(|current| {
            if let (false, Some(next)) = (current.closed, next.take()) {
                before = Some(std::mem::replace(current, next));
            }
            before.is_some()
        });
    }

    fn table(&self) -> Arc<Table<M>> {
        self.table.borrow().clone()
    }

    /// `expires`: when nobody has a use for the message any more, on this router's clock.
    fn route(&self, mut message: M, expires: Option<Time>) -> Result<(), TellError<M>> {
        loop {
            let table = self.table();
            let miss = match self.offer(&table, message, expires) {
                Ok(()) => return Ok(()),
                Err(miss) => miss,
            };
            let is_current = Arc::ptr_eq(&table, &self.table());
            message = match miss {
                Miss::Unsendable(message, why) => return Err(TellError::Unsendable(message, why)),
                Miss::Full(message, _) if is_current => return Err(TellError::Full(message)),
                Miss::Nobody(message) if table.closed => return Err(self.refuse_stopped(message)),
                Miss::Nobody(message) if is_current => {
                    self.count(DeadLetterReason::RefusedFull);
                    return Err(TellError::Full(message));
                }
                Miss::Full(message, _) | Miss::Nobody(message) => message,
            };
        }
    }

    async fn send(&self, message: M) -> Result<(), TellError<M>> {
        if let Kind::Broadcast(copy) = self.routing.0 {
            return self.send_all(copy, message).await;
        }
        let mut message = match self.offer(&self.table(), message, None) {
            Ok(()) => return Ok(()),
            Err(Miss::Unsendable(message, why)) => return Err(TellError::Unsendable(message, why)),
            Err(Miss::Full(message, _) | Miss::Nobody(message)) => message,
        };
        let mut changes = self.table.subscribe();
        loop {
            let table = changes.borrow_and_update().clone();
            message = match self.offer(&table, message, None) {
                Ok(()) => return Ok(()),
                Err(Miss::Unsendable(message, why)) => {
                    return Err(TellError::Unsendable(message, why));
                }
                Err(Miss::Full(message, first)) => match table.routees[first].send(message).await {
                    Ok(()) => return Ok(()),
                    Err(TellError::Stopped(message) | TellError::Full(message)) => message,
                    Err(unsendable) => return Err(unsendable),
                },
                Err(Miss::Nobody(message)) if table.closed => {
                    return Err(self.refuse_stopped(message));
                }
                Err(Miss::Nobody(message)) => {
                    // An error would mean that the table is gone, which `self` prevents.
                    let _ = changes.changed().await;
                    message
                }
            };
        }
    }

    async fn send_all(&self, copy: fn(&M) -> M, message: M) -> Result<(), TellError<M>> {
        let mut changes = self.table.subscribe();
        loop {
            let table = changes.borrow_and_update().clone();
            if table.closed {
                return Err(self.refuse_stopped(message));
            }
            let (mut accepted, mut unsendable) = (false, None);
            for routee in &table.routees {
                let one = copy(&message);
                match routee.send(one).await {
                    Ok(()) => accepted = true,
                    Err(TellError::Unsendable(_, why)) => unsendable = Some(why),
                    Err(TellError::Stopped(_) | TellError::Full(_)) => {}
                }
            }
            match unsendable {
                _ if accepted => return Ok(()),
                Some(why) => return Err(TellError::Unsendable(message, why)),
                None => {}
            }
            let _ = changes.changed().await;
        }
    }

    /// Tries the routees of `table` in the order of the routing.
    fn offer(&self, table: &Table<M>, message: M, expires: Option<Time>) -> Result<(), Miss<M>> {
        let n = table.routees.len();
        if n == 0 {
            return Err(Miss::Nobody(message));
        }
        let tell = |routee: &ActorRef<M>, message| match expires {
            None => routee.tell(message),
            Some(expires) => routee.tell_expiring(message, self.time_of(routee, expires)),
        };
        match &self.routing.0 {
            Kind::Broadcast(copy) => table.tell_all(tell, *copy, message),
            Kind::Hashed(hash) => {
                let hash = hash(&message);
                table.tell_one(tell, message, table.ring.walk(hash), true)
            }
            Kind::LeastLoaded => {
                let first = least(self.turn() % n, n, |index| table.load(index));
                table.tell_one(tell, message, round(first, n), false)
            }
            Kind::Random => {
                let first = lock(&self.rng).below(n as u64) as usize;
                table.tell_one(tell, message, round(first, n), false)
            }
            Kind::RoundRobin => table.tell_one(tell, message, round(self.turn() % n, n), false),
        }
    }

    /// `time`, a time of this router, on the clock of a routee, which may be another system's.
    fn time_of(&self, routee: &ActorRef<M>, time: Time) -> Time {
        let core = routee.core();
        core.map_or(time, |core| core.clock.time(self.clock.instant(time)))
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn refuse_stopped(&self, message: M) -> TellError<M> {
        self.count(DeadLetterReason::RefusedStopped);
        TellError::Stopped(message)
    }

    /// Counts a message that no routee refused, because there is none.
    fn count(&self, reason: DeadLetterReason) {
        let kind = std::any::type_name::<M>();
        self.dead_letters.report(self.owner.path(), reason, kind);
    }
}

impl<M: Send + 'static> Table<M> {
    fn load(&self, index: usize) -> usize {
        let routee = &self.routees[index];
        match routee.is_stopped() {
            true => usize::MAX,
            false => routee.queued(),
        }
    }

    /// The first in `order` that accepts gets the message; `full_ends`: a full one ends the search.
    fn tell_one(
        &self,
        tell: impl Fn(&ActorRef<M>, M) -> Result<(), TellError<M>>,
        mut message: M,
        order: impl Iterator<Item = usize>,
        full_ends: bool,
    ) -> Result<(), Miss<M>> {
        let mut full = None;
        for index in order {
            message = match tell(&self.routees[index], message) {
                Ok(()) => return Ok(()),
                Err(TellError::Full(message)) if full_ends => {
                    return Err(Miss::Full(message, index));
                }
                Err(TellError::Full(message)) => {
                    full.get_or_insert(index);
                    message
                }
                Err(TellError::Stopped(message)) => message,
                Err(TellError::Unsendable(message, why)) => {
                    return Err(Miss::Unsendable(message, why));
                }
            };
        }
        Err(match full {
            Some(first) => Miss::Full(message, first),
            None => Miss::Nobody(message),
        })
    }

    fn tell_all(
        &self,
        tell: impl Fn(&ActorRef<M>, M) -> Result<(), TellError<M>>,
        copy: fn(&M) -> M,
        message: M,
    ) -> Result<(), Miss<M>> {
        let (mut accepted, mut full, mut unsendable) = (false, None, None);
        for (index, routee) in self.routees.iter().enumerate() {
            match tell(routee, copy(&message)) {
                Ok(()) => accepted = true,
                Err(TellError::Full(_)) => {
                    full.get_or_insert(index);
                }
                Err(TellError::Stopped(_)) => {}
                Err(TellError::Unsendable(_, why)) => unsendable = Some(why),
            }
        }
        match (accepted, full, unsendable) {
            (true, ..) => Ok(()),
            (false, Some(first), _) => Err(Miss::Full(message, first)),
            (false, None, Some(why)) => Err(Miss::Unsendable(message, why)),
            (false, None, None) => Err(Miss::Nobody(message)),
        }
    }
}

/// A router is reached like an actor that is elsewhere: no mailbox of its own.
impl<M: Send + 'static> RemoteTarget<M> for Shared<M> {
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        self.route(message, None)
    }

    fn tell_expiring(&self, message: M, expires: Time) -> Result<(), TellError<M>> {
        self.route(message, Some(expires))
    }

    fn send(
        &self,
        message: M,
    ) -> Pin<Box<dyn Future<Output = Result<(), TellError<M>>> + Send + '_>> {
        Box::pin(Self::send(self, message))
    }

    fn path(&self) -> &ActorPath {
        self.owner.path()
    }

    fn uid(&self) -> u64 {
        self.owner.uid()
    }

    fn watch(&self, watcher: Watcher) {
        self.owner.watchable().add_watcher(watcher);
    }

    fn unwatch(&self, watcher: WatcherId) {
        self.owner.watchable().remove_watcher(watcher);
    }

    fn is_stopped(&self) -> bool {
        self.owner.is_stopped() || self.table.borrow().closed
    }

    fn stop(&self) {
        self.owner.stop();
    }

    fn now(&self) -> Option<Time> {
        Some(self.clock.now())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
