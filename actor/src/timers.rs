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
    Repeated(Duration, Repeat, Make<M>),
}

/// Makes the messages of a repeated timer.
pub(crate) type Make<M> = Box<dyn FnMut() -> M + Send>;

/// When the next tick of a repeated timer is due.
#[derive(Clone, Copy)]
pub(crate) enum Repeat {
    /// At the next multiple of the interval that has not passed, or an interval after a tick that was
    /// late by more than one.
    LeaveOut,
    /// An interval after this one.
    Delay,
    /// At the next multiple, also if that has passed, for up to [`TIMER_CATCH_UP_MAX`] ticks.
    CatchUp,
}

/// How many missed ticks a timer of a fixed rate makes up for
/// ([`crate::Context::timer_at_rate`]).
pub const TIMER_CATCH_UP_MAX: u32 = 100;

impl Repeat {
    fn next(self, due: Instant, now: Instant, every: Duration) -> Instant {
        let after = |from: Instant| from.checked_add(every).unwrap_or_else(far_away);
        let next = after(due);
        match self {
            Self::LeaveOut if next > now => next,
            Self::LeaveOut | Self::Delay => after(now),
            Self::CatchUp => {
                let late = now.saturating_duration_since(next).as_nanos() / every.as_nanos();
                let left_out = late.saturating_sub(u128::from(TIMER_CATCH_UP_MAX) - 1);
                let nanos = every.as_nanos().saturating_mul(left_out);
                next + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        }
    }
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
        self.at(key, later(after), message);
    }

    pub(crate) fn at(&mut self, key: TimerKey, due: Instant, message: M) {
        self.insert(key, due, Tick::Once(message));
    }

    /// # Panics
    /// If `every` is zero.
    pub(crate) fn every(&mut self, key: TimerKey, every: Duration, repeat: Repeat, make: Make<M>) {
        assert!(!every.is_zero(), "a timer needs an interval above zero");
        self.insert(key, later(every), Tick::Repeated(every, repeat, make));
    }

    pub(crate) fn is_active(&self, key: &TimerKey) -> bool {
        self.by_key.contains_key(key)
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

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.sleep = None;
        std::mem::take(&mut self.by_key)
            .into_values()
            .for_each(drop_guarded);
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
            Tick::Repeated(every, repeat, mut make) => {
                let message = guarded_call(&mut make);
                let next = repeat.next(place.0, now, every);
                self.insert(key, next, Tick::Repeated(every, repeat, make));
                Some(message)
            }
        }
    }

    /// Waits for the earliest timer, or for `other` if that is earlier: `Ready` when one is due.
    pub(crate) fn poll_due(&mut self, other: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let first = self.queue.first_key_value().map(|(place, _)| place.0);
        let Some(due) = first.into_iter().chain(other).min() else {
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

pub(crate) fn later(after: Duration) -> Instant {
    Instant::now().checked_add(after).unwrap_or_else(far_away)
}
