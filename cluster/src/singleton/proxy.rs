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
/// up to [`buffer_max`](field@crate::singleton::SingletonConfig::buffer_max) on each node; one more is refused with
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

    /// How many messages were refused by `tell` because too many waited here.
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

    /// Sends the message, if nothing waits and there is somebody; keeps it otherwise.
    fn take(&mut self, mut message: M, buffer_max: usize) -> Offered<M> {
        if self.buffer.is_empty()
            && let Some(target) = self.target.as_ref().filter(|t| !t.actor.is_stopped())
        {
            match target.actor.tell(message) {
                Ok(()) => return Offered::Taken,
                Err(TellError::Stopped(back)) => {
                    self.target = None;
                    message = back;
                }
                Err(refused) => return Offered::Refused(refused, target.actor.clone()),
            }
        }
        if self.buffer.len() >= buffer_max {
            return Offered::NoRoom(message);
        }
        self.buffer.push_back(message);
        Offered::Taken
    }
}

/// What became of a message.
enum Offered<M> {
    /// The proxy has ended.
    Closed(M),
    /// Nobody is there, and too much waits.
    NoRoom(M),
    /// The singleton, or the way to it, refuses it.
    Refused(TellError<M>, ActorRef<M>),
    /// It is sent, or waits.
    Taken,
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

    /// Sends or keeps the message.
    fn offer(&self, message: M) -> Offered<M> {
        let (offered, unsendable, has_room) = {
            let mut state = self.lock();
            if state.closed || self.owner.is_stopped() {
                return Offered::Closed(message);
            }
            state.look();
            let before = state.buffer.len();
            let unsendable = state.flush();
            let has_room = state.buffer.len() < before;
            (state.take(message, self.buffer_max), unsendable, has_room)
        };
        drop(unsendable);
        if has_room {
            self.room.notify_waiters();
        }
        offered
    }

    /// Counts a message that goes back to its sender.
    fn count(&self, reason: DeadLetterReason) {
        let kind = std::any::type_name::<M>();
        let letters = self.system.dead_letters();
        letters.report(self.owner.path(), reason, kind);
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
        for message in left {
            self.count(DeadLetterReason::LeftInMailbox);
            drop(message);
        }
    }
}

impl<M: RemoteMessage> RemoteTarget<M> for Shared<M> {
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        match self.offer(message) {
            Offered::Taken => Ok(()),
            // Counted where it was refused.
            Offered::Refused(refused, _) => Err(refused),
            Offered::NoRoom(message) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.count(DeadLetterReason::RefusedFull);
                Err(TellError::Full(message))
            }
            Offered::Closed(message) => {
                self.count(DeadLetterReason::RefusedStopped);
                Err(TellError::Stopped(message))
            }
        }
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
                    Offered::Taken => return Ok(()),
                    Offered::Refused(TellError::Full(message), target) => {
                        match target.send(message).await {
                            // It has ended while there was no room: to the next one, then.
                            Err(TellError::Full(message) | TellError::Stopped(message)) => message,
                            sent => return sent,
                        }
                    }
                    Offered::Refused(refused, _) => return Err(refused),
                    Offered::NoRoom(message) => {
                        room.await;
                        message
                    }
                    Offered::Closed(message) => {
                        self.count(DeadLetterReason::RefusedStopped);
                        return Err(TellError::Stopped(message));
                    }
                };
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
