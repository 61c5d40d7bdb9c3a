//! Proxy: one reference for a singleton, wherever it runs, which keeps messages while it runs nowhere.
//!
//! The proxy chooses where its sender runs: as long as the singleton is known, a message takes the
//! same way as through a reference to it. While there is none, messages wait here, in order and
//! bounded; nothing overtakes them. An actor beside it follows the listings, so that what waits is
//! sent on when the singleton appears, and gives the proxy its path and its end.

use crate::receptionist::{ClusterListing, ClusterListings, Service};
use otava_actor::{
    Actor, ActorPath, ActorRef, ActorSystem, Context, DeadLetterReason, RemoteTarget, TellError,
    Terminated, Time, Watcher, WatcherId,
};
use otava_remote::{NodeId, RemoteMessage};
use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How soon what found no room on the way is tried again.
const FLUSH_AGAIN: Duration = Duration::from_millis(5);

/// The way to a singleton, from any node: `tell`, `send`, `ask` and all else of an [`ActorRef`], which
/// it derefs to. Cheap to clone.
///
/// # Delivery
/// At most once. While the singleton runs nowhere, or is not known here yet, messages wait in order,
/// up to [`crate::singleton::SingletonConfig::buffer_max`] on each node; one more is refused with
/// [`TellError::Full`], and counted. A planned move loses nothing in the ordinary case: the old actor
/// handles what has reached it, and the rest waits for the new one. What was on its way to a node that
/// was lost is lost.
pub struct SingletonProxy<M> {
    shared: Arc<Shared<M>>,
    reference: ActorRef<M>,
}

impl<M: RemoteMessage> SingletonProxy<M> {
    pub(super) fn new(shared: Arc<Shared<M>>) -> Self {
        let reference = ActorRef::from_remote(shared.clone());
        Self { shared, reference }
    }

    /// The proxy as an ordinary reference. It may be sent to other nodes, who then go through this one.
    #[must_use]
    pub fn actor_ref(&self) -> &ActorRef<M> {
        &self.reference
    }

    /// Where the singleton runs, as far as this node knows.
    #[must_use]
    pub fn host(&self) -> Option<NodeId> {
        let mut state = self.shared.lock();
        state.look();
        state.target.as_ref().map(|target| target.node.clone())
    }

    /// How many messages wait here.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.shared.lock().buffer.len()
    }

    /// How many messages were refused here because too many waited.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl<M> Deref for SingletonProxy<M> {
    type Target = ActorRef<M>;

    fn deref(&self) -> &ActorRef<M> {
        &self.reference
    }
}

impl<M> Clone for SingletonProxy<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            reference: self.reference.clone(),
        }
    }
}

impl<M: 'static> fmt::Debug for SingletonProxy<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SingletonProxy")
            .field(&self.reference)
            .finish()
    }
}

/// What all handles on one proxy share.
pub(super) struct Shared<M> {
    state: Mutex<State<M>>,
    buffer_max: usize,
    /// Woken when messages have left the buffer, and at the end.
    room: Notify,
    refused: AtomicU64,
    system: ActorSystem,
    /// Whose path, number and end are those of the proxy.
    owner: ActorRef<OwnerMsg<M>>,
}

struct State<M> {
    listings: ClusterListings<M>,
    target: Option<Service<M>>,
    buffer: VecDeque<M>,
    closed: bool,
}

impl<M: RemoteMessage> State<M> {
    /// Takes the newest listing. If there are two for a moment, the later term is the right one.
    fn look(&mut self) {
        if let Some(listing) = self.listings.newest() {
            let reachable = listing.reachable();
            self.target = reachable.max_by_key(|service| service.rank).cloned();
        }
    }

    /// Sends on what waits, as far as there is room. What cannot be sent at all comes back, to be
    /// dropped behind the lock.
    fn flush(&mut self) -> Vec<M> {
        let mut unsendable = Vec::new();
        while let Some(target) = &self.target
            && let Some(message) = self.buffer.pop_front()
        {
            match target.actor.tell(message) {
                Ok(()) => {}
                Err(TellError::Full(message)) => {
                    self.buffer.push_front(message);
                    break;
                }
                // Its end will be in the next listing.
                Err(TellError::Stopped(message)) => {
                    self.buffer.push_front(message);
                    self.target = None;
                }
                Err(refused) => unsendable.push(refused.into_message()),
            }
        }
        unsendable
    }
}

impl<M: RemoteMessage> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends on what waits; whether something waits still that could go on.
    fn flush(&self) -> bool {
        let (unsendable, again) = {
            let mut state = self.lock();
            state.look();
            let unsendable = state.flush();
            (
                unsendable,
                state.target.is_some() && !state.buffer.is_empty(),
            )
        };
        drop(unsendable);
        self.room.notify_waiters();
        again
    }

    /// Sends or keeps the message. Without room it comes back.
    fn offer(&self, message: M) -> Result<(), TellError<M>> {
        let mut state = self.lock();
        if state.closed || self.owner.is_stopped() {
            return Err(TellError::Stopped(message));
        }
        state.look();
        let unsendable = state.flush();
        let mut message = message;
        if state.buffer.is_empty()
            && let Some(target) = state.target.as_ref().filter(|t| !t.actor.is_stopped())
        {
            match target.actor.tell(message) {
                Err(TellError::Stopped(back)) => {
                    state.target = None;
                    message = back;
                }
                told => return told,
            }
        }
        if state.buffer.len() >= self.buffer_max {
            return Err(TellError::Full(message));
        }
        state.buffer.push_back(message);
        drop(state);
        drop(unsendable);
        Ok(())
    }

    /// Counts a message that goes back to its sender.
    fn refuse(&self, refused: TellError<M>) -> TellError<M> {
        let reason = match &refused {
            TellError::Full(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                DeadLetterReason::RefusedFull
            }
            TellError::Stopped(_) => DeadLetterReason::RefusedStopped,
            // Counted by the way to the other node.
            _ => return refused,
        };
        let kind = std::any::type_name::<M>();
        self.system
            .dead_letters()
            .report(self.owner.path(), reason, kind);
        refused
    }

    /// Keeps nothing any more.
    fn close(&self) {
        let left = {
            let mut state = self.lock();
            state.closed = true;
            state.target = None;
            std::mem::take(&mut state.buffer)
        };
        self.room.notify_waiters();
        let kind = std::any::type_name::<M>();
        for message in left {
            let letters = self.system.dead_letters();
            letters.report(self.owner.path(), DeadLetterReason::LeftInMailbox, kind);
            drop(message);
        }
    }
}

impl<M: RemoteMessage> RemoteTarget<M> for Shared<M> {
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        self.offer(message).map_err(|refused| self.refuse(refused))
    }

    fn send(
        &self,
        mut message: M,
    ) -> Pin<Box<dyn Future<Output = Result<(), TellError<M>>> + Send + '_>> {
        Box::pin(async move {
            loop {
                // Before the try, so that room which comes in between is not missed.
                let mut room = std::pin::pin!(self.room.notified());
                room.as_mut().enable();
                message = match self.offer(message) {
                    Ok(()) => return Ok(()),
                    Err(TellError::Full(message)) => message,
                    Err(refused) => return Err(self.refuse(refused)),
                };
                // The lane to the singleton's node may be what is full: it does not wake anybody here.
                tokio::select! {
                    biased;
                    () = room => {}
                    () = tokio::time::sleep(FLUSH_AGAIN) => {}
                }
            }
        })
    }

    fn path(&self) -> &ActorPath {
        self.owner.path()
    }

    fn uid(&self) -> u64 {
        self.owner.uid()
    }

    fn watch(&self, watcher: Watcher) {
        let told = move |news: Terminated| watcher.notify(news);
        // The watcher itself forgets what it took back.
        self.owner.on_terminated(told).detach();
    }

    fn unwatch(&self, _: WatcherId) {}

    fn is_stopped(&self) -> bool {
        self.owner.is_stopped()
    }

    fn stop(&self) {
        self.owner.stop();
    }

    fn now(&self) -> Option<Time> {
        Some(self.system.now())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What the actor beside a proxy hears.
pub(super) enum OwnerMsg<M> {
    /// It is time to try again.
    Flush,
    /// The singleton has come, gone, or cannot be reached.
    Listing,
    /// Its proxy is made.
    Made(Arc<Shared<M>>),
}

impl<M> From<ClusterListing<M>> for OwnerMsg<M> {
    /// The proxy looks at the newest one itself.
    fn from(_: ClusterListing<M>) -> Self {
        Self::Listing
    }
}

/// The actor beside a proxy.
pub(super) struct Owner<M: RemoteMessage>(Option<Arc<Shared<M>>>);

impl<M: RemoteMessage> Owner<M> {
    /// Starts the actor beside a new proxy, and makes the proxy.
    pub(super) fn start(
        system: &ActorSystem,
        name: &str,
        listings: ClusterListings<M>,
        buffer_max: usize,
    ) -> Result<Arc<Shared<M>>, otava_actor::SpawnError> {
        let owner = system.spawn(&format!("singleton-proxy-{name}"), Self(None))?;
        let state = State {
            listings,
            target: None,
            buffer: VecDeque::new(),
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            buffer_max,
            room: Notify::new(),
            refused: AtomicU64::new(0),
            system: system.clone(),
            owner,
        });
        if shared.owner.tell(OwnerMsg::Made(shared.clone())).is_err() {
            shared.close();
        }
        Ok(shared)
    }
}

impl<M: RemoteMessage> Shared<M> {
    pub(super) fn owner(&self) -> &ActorRef<OwnerMsg<M>> {
        &self.owner
    }
}

impl<M: RemoteMessage> Drop for Owner<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.close();
        }
    }
}

impl<M: RemoteMessage> Actor for Owner<M> {
    type Msg = OwnerMsg<M>;
    type Err = Infallible;

    async fn handle(
        &mut self,
        message: OwnerMsg<M>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        if let OwnerMsg::Made(shared) = message {
            self.0 = Some(shared);
        }
        let again = self.0.as_ref().is_some_and(|shared| shared.flush());
        if again {
            ctx.timer_once("flush", FLUSH_AGAIN, OwnerMsg::Flush);
        }
        Ok(())
    }
}
