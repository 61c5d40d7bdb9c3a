//! Timers: the messages that an actor sends to itself later, by key.
//!
//! A tick is never queued. The table says what is due, and the actor takes it from there when its
//! turn comes: a timer that was cancelled or replaced, or whose instance is gone, has no tick left
//! anywhere. One runtime timer an actor waits for the earliest entry.

use crate::failure::{Failure, drop_guarded, guarded_call};
use crate::time::far_away;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The name of a timer within its actor: a text, or a number.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TimerKey(Key);

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Key {
    Number(u64),
    Text(Cow<'static, str>),
}

impl From<&'static str> for TimerKey {
    fn from(text: &'static str) -> Self {
        Self(Key::Text(Cow::Borrowed(text)))
    }
}

impl From<String> for TimerKey {
    fn from(text: String) -> Self {
        Self(Key::Text(Cow::Owned(text)))
    }
}

impl From<u64> for TimerKey {
    fn from(number: u64) -> Self {
        Self(Key::Number(number))
    }
}

impl fmt::Display for TimerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Key::Number(number) => write!(f, "{number}"),
            Key::Text(text) => f.write_str(text),
        }
    }
}

/// The timers of one actor.
pub(crate) struct Timers<M> {
    by_key: BTreeMap<TimerKey, Timer<M>>,
    /// By time, and among equals in the order in which they were set.
    queue: BTreeMap<(Instant, u64), TimerKey>,
    set: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

struct Timer<M> {
    place: (Instant, u64),
    tick: Tick<M>,
}

enum Tick<M> {
    Once(M),
    Every(Duration, Box<dyn FnMut() -> M + Send>),
}

impl<M> Timers<M> {
    pub(crate) fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            queue: BTreeMap::new(),
            set: 0,
            sleep: None,
        }
    }

    pub(crate) fn once(&mut self, key: TimerKey, after: Duration, message: M) {
        self.insert(key, later(after), Tick::Once(message));
    }

    pub(crate) fn every(
        &mut self,
        key: TimerKey,
        every: Duration,
        make: Box<dyn FnMut() -> M + Send>,
    ) {
        self.insert(key, later(every), Tick::Every(every, make));
    }

    pub(crate) fn cancel(&mut self, key: &TimerKey) -> bool {
        let Some(timer) = self.by_key.remove(key) else {
            return false;
        };
        self.queue.remove(&timer.place);
        drop_guarded(timer);
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The message of a timer that is due, the earliest first.
    pub(crate) fn pop_due(&mut self) -> Option<Result<M, Failure>> {
        let (&place, _) = self.queue.first_key_value()?;
        let now = Instant::now();
        if place.0 > now {
            return None;
        }
        let key = self.queue.remove(&place)?;
        let timer = self.by_key.remove(&key)?;
        match timer.tick {
            Tick::Once(message) => Some(Ok(message)),
            Tick::Every(every, mut make) => {
                let message = guarded_call(&mut make);
                // Ticks that were missed are left out, not made up for.
                let next = place.0.checked_add(every).unwrap_or_else(far_away);
                let next = if next > now { next } else { now + every };
                self.insert(key, next, Tick::Every(every, make));
                Some(message)
            }
        }
    }

    /// Waits for the earliest timer: `Ready` when one is due.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((&(due, _), _)) = self.queue.first_key_value() else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx)
    }

    fn insert(&mut self, key: TimerKey, due: Instant, tick: Tick<M>) {
        self.set += 1;
        let place = (due, self.set);
        if let Some(before) = self.by_key.insert(key.clone(), Timer { place, tick }) {
            self.queue.remove(&before.place);
            drop_guarded(before);
        }
        self.queue.insert(place, key);
    }
}

fn later(after: Duration) -> Instant {
    Instant::now().checked_add(after).unwrap_or_else(far_away)
}
