//! Effects: what an actor did to the world around it, written down for a test that looks.
//!
//! Only actors that the test kit's `ActorRunner` runs have such a log.

use crate::path::ActorPath;
use crate::sync::lock;
use crate::timers::TimerKey;
use crate::watch::Ended;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// One thing that an actor did, or that happened to it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// It ended; nothing follows.
    Ended(Ended),
    /// A hook or handler failed: the text of the error or panic.
    Failed(String),
    /// A message, or the news of an end, was handled without a failure.
    Handled,
    /// A future runs beside it.
    Piped,
    /// It failed and is made anew.
    Restarted,
    /// It started a child.
    Spawned(ActorPath),
    /// Its start hook is done.
    Started,
    /// It asked to be stopped: at once, or after what is queued.
    StopRequested {
        /// What is queued is handled first.
        after_queued: bool,
    },
    /// It removed a timer that was there.
    TimerCancelled(TimerKey),
    /// It set a timer.
    TimerSet {
        /// The timer's name.
        key: TimerKey,
        /// When it comes, and for a repeated one each time between two.
        after: Duration,
        /// Whether it comes again and again.
        repeated: bool,
    },
    /// It stopped watching an actor.
    Unwatched(ActorPath),
    /// It began to watch an actor.
    Watched(ActorPath),
}

/// The log of one actor. A handle, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Effects(Arc<Log>);

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<Effect>>,
    news: Notify,
}

impl Effects {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes everything out, in the order in which it happened.
    pub fn take(&self) -> Vec<Effect> {
        std::mem::take(&mut *lock(&self.0.lines))
    }

    /// Waits until something is written after this was called for the first time.
    ///
    /// # Cancel safety
    /// Dropping it has no effect; news may be missed between two calls.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Whether the end of the actor is in the log.
    pub fn has_ended(&self) -> bool {
        let lines = lock(&self.0.lines);
        matches!(lines.last(), Some(Effect::Ended(_)))
    }

    pub(crate) fn add(&self, effect: Effect) {
        lock(&self.0.lines).push(effect);
        self.0.news.notify_one();
    }
}
