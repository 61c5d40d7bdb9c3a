//! Props: how an actor is made, what happens when it fails, and how long its queue may grow.

use crate::actor::Actor;
use crate::mailbox::Rank;
use crate::supervision::{Factory, Fault, Plan, Strategy, Supervision};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// The recipe of an actor: given to `spawn_with`.
///
/// ```
/// use otava_actor::{Actor, Backoff, Context, Fault, Props, Supervision};
/// use std::io::{Error, ErrorKind};
/// use std::time::Duration;
/// # struct Worker;
/// # impl Actor for Worker {
/// #     type Msg = ();
/// #     type Err = Error;
/// #     async fn handle(&mut self, _: (), _: &mut Context<Self>) -> Result<(), Self::Err> { Ok(()) }
/// # }
/// # impl Worker { async fn connect() -> Result<Self, Error> { Ok(Worker) } }
///
/// let slowly = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
/// let props = Props::new_async(Worker::connect).decide(move |fault| match fault {
///     Fault::Error(error) if error.kind() == ErrorKind::InvalidData => Supervision::Resume,
///     Fault::Error(_) => slowly.into(),
///     _ => Supervision::Escalate,
/// });
/// # let _ = props;
/// ```
#[must_use]
pub struct Props<A: Actor> {
    /// The one instance, if there is no factory.
    pub(crate) actor: Option<A>,
    /// `None` for an instance by value that stops when it fails.
    pub(crate) plan: Option<Box<Plan<A>>>,
    pub(crate) capacity: Option<NonZeroUsize>,
    pub(crate) mailbox: MailboxKind<A::Msg>,
}

/// What a mailbox does when it is full, and in which order it gives its messages out.
pub(crate) enum MailboxKind<M> {
    DropOldest,
    Priority(Rank<M>),
    /// Refuses what has no room.
    Queue,
    Unbounded,
}

impl<A: Actor> Props<A> {
    /// An actor given by value: one instance, which stops when it fails.
    pub fn once(actor: A) -> Self {
        Self {
            actor: Some(actor),
            plan: None,
            capacity: None,
            mailbox: MailboxKind::Queue,
        }
    }

    /// An actor made by `factory`, which can therefore be restarted. The factory runs where the
    /// actor runs; a panic in it is a failure of the actor.
    pub fn new(mut factory: impl FnMut() -> A + Send + 'static) -> Self {
        Self::try_new(move || Ok(factory()))
    }

    /// As [`Props::new`], for a factory that may fail. An `Err` from it is a failure like any other:
    /// it counts against limits and makes a back-off longer. No hook runs, because there is no
    /// instance.
    pub fn try_new(factory: impl FnMut() -> Result<A, A::Err> + Send + 'static) -> Self {
        Self::made_by(Factory::Now(Box::new(factory)))
    }

    /// As [`Props::try_new`], for a factory that has to wait, for example for a connection. Messages
    /// wait in the mailbox meanwhile. A stop does not wait for it: the future is dropped.
    pub fn new_async<F>(mut factory: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<A, A::Err>> + Send + 'static,
    {
        Self::made_by(Factory::Later(Box::new(move || Box::pin(factory()))))
    }

    fn made_by(factory: Factory<A>) -> Self {
        let mut props = Self {
            actor: None,
            plan: None,
            capacity: None,
            mailbox: MailboxKind::Queue,
        };
        props.plan().factory = Some(factory);
        props
    }

    /// What to do on failure, whatever it is. [`Supervision::Restart`] and [`Supervision::Backoff`]
    /// need a factory: with [`Props::once`] the spawn is refused ([`crate::SpawnError::NoFactory`]).
    pub fn on_failure(mut self, supervision: impl Into<Supervision>) -> Self {
        self.plan().strategy = Some(Strategy::Fixed(supervision.into()));
        self
    }

    /// Lets `decider` choose for each failure what to do. A limit that it names counts all restarts
    /// of the actor, also those that it chose with other limits. If it panics, the actor stops, as
    /// it does when a restart is chosen and there is no factory.
    pub fn decide(
        mut self,
        decider: impl FnMut(Fault<'_, A::Err>) -> Supervision + Send + 'static,
    ) -> Self {
        self.plan().strategy = Some(Strategy::Decider(Box::new(decider)));
        self
    }

    /// Escalates the failure that reaches a limit of restarts ([`Supervision::Escalate`]). Without
    /// this the actor stops.
    pub fn escalate_at_limit(mut self) -> Self {
        self.plan().escalates_when_exhausted = true;
        self
    }

    /// Keeps the children over a restart. They go on as if nothing had happened, also while there is
    /// no instance, and the next one finds them by [`crate::Context::child`]. Watches are gone all
    /// the same: an instance watches what it needs.
    pub fn keep_children(mut self) -> Self {
        self.plan().keeps_children = true;
        self
    }

    /// How many messages may wait; the system's setting (65,536 by default) if this is not called.
    pub fn mailbox_capacity(mut self, capacity: NonZeroUsize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Lets any number of messages wait. A sender that is faster than this actor then fills the
    /// memory of the process: use it only where something else bounds what is under way.
    pub fn mailbox_unbounded(mut self) -> Self {
        self.mailbox = MailboxKind::Unbounded;
        self
    }

    /// Lets a full mailbox give up its oldest message for a new one, instead of refusing the new one.
    /// For news of which only the latest matters. What is given up is counted as a dead letter
    /// ([`crate::DeadLetterReason::DroppedOldest`]); an asker whose question it was learns at once
    /// that no answer comes.
    ///
    /// ```
    /// # use otava_actor::{Actor, ActorSystem, Context, Props};
    /// # use std::num::NonZeroUsize;
    /// # struct Gauge;
    /// # impl Actor for Gauge {
    /// #     type Msg = u32;
    /// #     type Err = std::convert::Infallible;
    /// #     async fn handle(&mut self, _: u32, _: &mut Context<Self>) -> Result<(), Self::Err> { Ok(()) }
    /// # }
    /// let props = Props::once(Gauge)
    ///     .mailbox_capacity(NonZeroUsize::new(16).expect("it is not zero"))
    ///     .mailbox_drop_oldest();
    /// # let _ = props;
    /// ```
    pub fn mailbox_drop_oldest(mut self) -> Self {
        self.mailbox = MailboxKind::DropOldest;
        self
    }

    /// Takes messages by the rank that `rank` gives them, the highest first, and equals in the order
    /// in which they came. `rank` runs where the sender is; a message on which it panics comes last.
    /// A flood of high ranks keeps lower ones waiting for as long as it lasts.
    ///
    /// Stops and failures of children do not stand in this order: they come before all messages. The
    /// end of a watched actor may come before messages of lower rank that it sent.
    pub fn mailbox_priority(
        mut self,
        rank: impl Fn(&A::Msg) -> i64 + Send + Sync + 'static,
    ) -> Self {
        self.mailbox = MailboxKind::Priority(Arc::new(rank));
        self
    }

    pub(crate) fn plan(&mut self) -> &mut Plan<A> {
        self.plan.get_or_insert_default()
    }

    /// Whether what is asked for on failure can be done with this way of making instances.
    pub(crate) fn can_be_supervised(&self) -> bool {
        self.plan.as_ref().is_none_or(|plan| plan.can_be_done())
    }
}
