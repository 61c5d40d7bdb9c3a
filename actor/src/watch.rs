//! Watch: learning, exactly once, that an actor has ended.
//!
//! Everyone who watches an actor holds one registration with it, a [`Watcher`]. The actor's end
//! takes all registrations out under the lock under which they are added, so each is told once, and
//! a registration that comes too late is told at once by whoever brings it.

use crate::actor_ref::ActorRef;
use crate::failure::drop_guarded;
use crate::path::ActorPath;
use crate::sync::lock;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// Why an actor ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// It failed, and its supervision let it stop.
    Failed,
    /// Its node is gone, or can no longer be reached for good. Whether the actor still ran when the
    /// contact broke is not known.
    NodeLost,
    /// It was asked to stop, by itself, its parent, or anyone else.
    Stopped,
    /// There is no such actor, and whether there ever was is not known.
    Unknown,
}

/// The news that an actor has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Terminated {
    /// The path of the actor that ended. Another actor may have it by now.
    pub path: ActorPath,
    /// The number of the actor that ended, unique in its system.
    pub uid: u64,
    /// Why it ended.
    pub reason: Ended,
}

impl Terminated {
    /// The news about the actor of this path and number; for those who carry it over a network.
    pub fn new(path: ActorPath, uid: u64, reason: Ended) -> Self {
        Self { path, uid, reason }
    }

    /// Whether this is about the actor behind `actor`.
    pub fn is<M: Send + 'static>(&self, actor: &ActorRef<M>) -> bool {
        self.uid == actor.uid() && self.path == *actor.path()
    }
}

/// Names one registration of a watcher with one actor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WatcherId {
    sink: usize,
    number: u64,
}

/// Somebody who wants to know of an actor's end. Made by this crate, carried by
/// [`crate::RemoteTarget::watch`].
#[derive(Clone)]
pub struct Watcher {
    number: u64,
    sink: Arc<dyn WatchSink>,
}

impl Watcher {
    pub(crate) fn new(number: u64, sink: Arc<dyn WatchSink>) -> Self {
        Self { number, sink }
    }

    /// The name under which the registration is taken back.
    pub fn id(&self) -> WatcherId {
        WatcherId {
            sink: Arc::as_ptr(&self.sink).addr(),
            number: self.number,
        }
    }

    /// Tells the watcher. The watcher itself sees to it that it reacts once at most.
    pub fn notify(self, news: Terminated) {
        self.sink.ended(self.number, news);
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watcher").field(&self.id()).finish()
    }
}

/// Where the news goes: an actor's mailbox, or a callback.
pub(crate) trait WatchSink: Send + Sync {
    /// `number` is the one of the registration.
    fn ended(self: Arc<Self>, number: u64, news: Terminated);
}

/// What can be watched, its message type forgotten.
pub(crate) trait Watchable: Send + Sync {
    /// Registers `watcher`, or tells it at once if the actor has ended.
    fn add_watcher(&self, watcher: Watcher);
    /// Takes a registration back; unknown ones are ignored.
    fn remove_watcher(&self, id: WatcherId);
}

/// A callback that waits for an actor's end ([`ActorRef::on_terminated`]). Dropping it takes the
/// callback back.
#[must_use = "dropping this takes the callback back at once; call `detach` to keep it"]
pub struct Watching {
    target: Arc<dyn Watchable>,
    id: WatcherId,
    callback: Arc<CallbackSink>,
    detached: bool,
}

impl Watching {
    pub(crate) fn start(
        target: Arc<dyn Watchable>,
        callback: impl FnOnce(Terminated) + Send + 'static,
    ) -> Self {
        let callback = Arc::new(CallbackSink(Mutex::new(Some(Box::new(callback)))));
        let watcher = Watcher::new(0, callback.clone());
        let id = watcher.id();
        target.add_watcher(watcher);
        Self {
            target,
            id,
            callback,
            detached: false,
        }
    }

    /// Keeps the callback until the actor ends, without a handle.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watching").field(&self.id).finish()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if !self.detached {
            self.target.remove_watcher(self.id);
            // A statement of its own: the lock ends with it, and the callback's destructor is code
            // of users.
            let callback = lock(&self.callback.0).take();
            drop_guarded(callback);
        }
    }
}

type Callback = Box<dyn FnOnce(Terminated) + Send>;

struct CallbackSink(Mutex<Option<Callback>>);

impl WatchSink for CallbackSink {
    fn ended(self: Arc<Self>, _: u64, news: Terminated) {
        let callback = lock(&self.0).take();
        let Some(callback) = callback else { return };
        let path = news.path.clone();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(news))) {
            let panic = crate::failure::describe_panic(panic);
            tracing::warn!(actor = %path, panic, "a callback on the end of an actor panicked");
        }
    }
}
