//! Strategy: what can be chosen for a failure, and what a decider sees of it.

use crate::path::ActorPath;
use crate::rng::Rng;
use crate::watch::Ended;
use std::fmt::{self, Display};
use std::time::Duration;

/// What happens to an actor that failed, that is, returned `Err` or panicked.
///
/// The message that failed is not handled again, whatever is chosen. The mailbox, references and
/// watchers of an actor stay over a restart: a restart is no end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Supervision {
    /// A restart, but only after a while that grows from failure to failure.
    Backoff(Backoff),
    /// It ends ([`crate::Ended::Failed`]), and then its parent fails with this failure, as if it had
    /// failed on its own: the parent's strategy decides. At the top of the tree there is no parent,
    /// and the failure is logged as an error. A member of a [`crate::Group`] does not end: the group
    /// decides.
    Escalate,
    /// A new instance is made at once by the factory: see [`crate::Actor::restarting`] for the order.
    /// Timers and watches of the old instance are gone, and so are its children unless
    /// [`crate::Props::keep_children`] was chosen.
    Restart {
        /// How many restarts are allowed in any window of length `within`; the failure that would
        /// need one more stops the actor. Zero means stop at the first failure, `u32::MAX` means
        /// that there is no limit.
        limit: u32,
        /// The length of the window.
        within: Duration,
    },
    /// The same instance goes on with the next message: its state, timers, watches and children stay
    /// as the failure left them. A failure before the instance was ready, in the factory or in
    /// [`crate::Actor::started`], cannot be passed over and stops the actor.
    Resume,
    /// It stops: its watchers see [`crate::Ended::Failed`].
    #[default]
    Stop,
}

/// How long an actor waits between a failure and its restart.
///
/// The first wait is the shortest one; each further failure doubles it, up to the longest. Each wait
/// is made longer by a random part of itself, so that actors which failed together do not come back
/// together. An instance that was ready and stayed well for the quiet time ends the series.
///
/// While it waits, the actor has no instance. Messages wait in the mailbox, bounded as always. A stop
/// is obeyed at once. The wait is on tokio's clock, and its random part comes from the system's seed.
///
/// ```
/// use otava_actor::{Backoff, Supervision};
/// use std::time::Duration;
///
/// // 1 s, 2 s, 4 s, 8 s, 10 s, 10 s ..., each up to a fifth longer.
/// let slowly = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
/// // The same, but the ninth failure in a row stops the actor.
/// let not_forever = Supervision::from(slowly.limit(8));
/// # let _ = not_forever;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Backoff {
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
    /// In millionths.
    pub(crate) jitter: u32,
    pub(crate) quiet: Duration,
    pub(crate) limit: Option<u32>,
}

impl Backoff {
    /// Waits of `shortest`, then twice that, and so on up to `longest`. A fifth of each wait is
    /// random, the quiet time is `longest`, and there is no limit.
    ///
    /// # Panics
    /// If `shortest` is zero, or longer than `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        assert!(!shortest.is_zero(), "a back-off needs a wait above zero");
        assert!(
            shortest <= longest,
            "the shortest wait is longer than the longest one"
        );
        Self {
            shortest,
            longest,
            jitter: 200_000,
            quiet: longest,
            limit: None,
        }
    }

    /// How much longer than planned a wait may be, at random: 0.2 is up to a fifth longer, 0 is
    /// exact.
    ///
    /// # Panics
    /// If `part` is not between 0 and 1.
    pub fn jitter(mut self, part: f64) -> Self {
        assert!((0.0..=1.0).contains(&part), "a part is between 0 and 1");
        self.jitter = (part * 1e6) as u32;
        self
    }

    /// How many restarts without a quiet time between them are allowed. The failure that would need
    /// one more stops the actor.
    pub fn limit(mut self, restarts: u32) -> Self {
        self.limit = Some(restarts);
        self
    }

    /// How long an instance must have been ready, without a failure, for the next wait to be the
    /// shortest again.
    pub fn reset_after(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// The wait after `before` others, with its random part: for whatever backs off by the same rules
    /// and is no actor.
    #[must_use]
    pub fn wait(self, before: u32, rng: &mut Rng) -> Duration {
        let doubled = 2_u32.saturating_pow(before);
        let planned = self.shortest.saturating_mul(doubled);
        let nanos = planned.min(self.longest).as_nanos();
        let span = nanos.saturating_mul(u128::from(self.jitter)) / 1_000_000;
        let bound = u64::try_from(span).unwrap_or(u64::MAX).saturating_add(1);
        let total = nanos.saturating_add(u128::from(rng.below(bound)));
        Duration::from_nanos(u64::try_from(total).unwrap_or(u64::MAX))
    }

    /// What [`Self::reset_after`] set.
    #[must_use]
    pub fn quiet_time(self) -> Duration {
        self.quiet
    }

    /// What [`Self::limit`] set.
    #[must_use]
    pub fn limit_set(self) -> Option<u32> {
        self.limit
    }
}

impl From<Backoff> for Supervision {
    fn from(backoff: Backoff) -> Self {
        Self::Backoff(backoff)
    }
}

/// A failure, as a decider sees it ([`crate::Props::decide`]).
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault<'a, E> {
    /// A child escalated its failure.
    Child {
        /// The child, which has ended.
        path: &'a ActorPath,
        /// What was wrong with it, as text.
        failure: &'a str,
    },
    /// A hook, a handler or the factory returned this error.
    Error(&'a E),
    /// An actor to which this one is linked ([`crate::Context::link`]) has ended.
    Linked {
        /// The other actor.
        path: &'a ActorPath,
        /// How it ended.
        reason: Ended,
    },
    /// User code panicked. The text of the panic, or "(not a text)".
    Panic(&'a str),
}

impl<E> Clone for Fault<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Fault<'_, E> {}

impl<E: Display> Display for Fault<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Child { path, failure } => write!(f, "the child {path} failed: {failure}"),
            Self::Error(error) => Display::fmt(error, f),
            Self::Linked { path, reason } => {
                write!(
                    f,
                    "{path}, to which the actor is linked, has ended: {reason:?}"
                )
            }
            Self::Panic(text) => write!(f, "panic: {text}"),
        }
    }
}
