//! Props: how an actor is made, what happens when it fails, and how long its queue may grow.

use crate::actor::Actor;
use std::num::NonZeroUsize;
use std::time::Duration;

/// What happens to an actor that failed, that is, returned `Err` or panicked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Supervision {
    /// It stops: its watchers see [`crate::Ended::Failed`].
    #[default]
    Stop,
    /// Its children stop, a new instance is made by the factory, and `started` runs on it. Mailbox,
    /// references and watchers stay; timers, watches and children of the old instance are gone.
    Restart {
        /// How many restarts are allowed in any window of length `within`; the failure that would
        /// need one more stops the actor. Zero means stop at the first failure.
        limit: u32,
        /// The length of the window.
        within: Duration,
    },
}

/// The recipe of an actor: given to `spawn_with`.
///
/// ```
/// use otava_actor::{Actor, Context, Props, Supervision};
/// use std::time::Duration;
/// # struct Worker;
/// # impl Actor for Worker {
/// #     type Msg = ();
/// #     type Err = std::convert::Infallible;
/// #     async fn handle(&mut self, _: (), _: &mut Context<Self>) -> Result<(), Self::Err> { Ok(()) }
/// # }
///
/// let props = Props::new(|| Worker)
///     .on_failure(Supervision::Restart { limit: 3, within: Duration::from_secs(1) });
/// # let _ = props;
/// ```
#[must_use]
pub struct Props<A> {
    pub(crate) make: Make<A>,
    pub(crate) supervision: Supervision,
    pub(crate) capacity: Option<NonZeroUsize>,
}

/// Where instances come from.
pub(crate) enum Make<A> {
    Once(Option<A>),
    Many(Box<dyn FnMut() -> A + Send>),
}

impl<A: Actor> Props<A> {
    /// An actor given by value: one instance, which stops when it fails.
    pub fn once(actor: A) -> Self {
        Self::of(Make::Once(Some(actor)))
    }

    /// An actor made by `factory`, which can therefore be restarted. The factory runs where the
    /// actor runs; a panic in it is a failure of the actor.
    pub fn new(factory: impl FnMut() -> A + Send + 'static) -> Self {
        Self::of(Make::Many(Box::new(factory)))
    }

    fn of(make: Make<A>) -> Self {
        Self {
            make,
            supervision: Supervision::Stop,
            capacity: None,
        }
    }

    /// What to do on failure. [`Supervision::Restart`] needs a factory: with [`Props::once`] the
    /// spawn is refused ([`crate::SpawnError::NoFactory`]).
    pub fn on_failure(mut self, supervision: Supervision) -> Self {
        self.supervision = supervision;
        self
    }

    /// How many messages may wait; the system's setting (65,536 by default) if this is not called.
    pub fn mailbox_capacity(mut self, capacity: NonZeroUsize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Whether what is asked for on failure can be done with this way of making instances.
    pub(crate) fn can_be_supervised(&self) -> bool {
        !matches!(
            (&self.make, self.supervision),
            (Make::Once(_), Supervision::Restart { .. })
        )
    }
}
