//! Adapter: a reference that understands `T` and reaches an actor that understands `M`.
//!
//! The function runs in the sender, before the message is queued: the mailbox holds messages of the
//! actor and nothing else, and a message through an adapter keeps its place among the others of its
//! sender. What the function takes cannot be given back, so the adapter first asks whether there is
//! room and only then converts.

use crate::actor_ref::{ActorRef, Target};
use crate::ask::Late;
use crate::cell::Cell;
use crate::dead_letters::DeadLetterReason;
use crate::error::TellError;
use crate::failure::{drop_guarded, guarded_call};
use crate::mailbox::{Free, Left, Wake};
use crate::observe::mark::{Extra, Question};
use crate::path::ActorPath;
use crate::system::Core;
use crate::time::Time;
use crate::watch::{WatchSink, Watchable};
use std::any::{TypeId, type_name};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

impl<M: Send + 'static> ActorRef<M> {
    /// The same actor for those who know only a part of what it understands: [`ActorRef::adapt`] with
    /// `M::from`.
    ///
    /// ```
    /// use otava_actor::ActorRef;
    ///
    /// struct Deposit(u64);
    /// enum Account {
    ///     Deposit(Deposit),
    ///     Close,
    /// }
    /// impl From<Deposit> for Account {
    ///     fn from(deposit: Deposit) -> Self {
    ///         Self::Deposit(deposit)
    ///     }
    /// }
    ///
    /// /// Whoever gets this can pay in, and cannot close the account.
    /// fn for_payers(account: &ActorRef<Account>) -> ActorRef<Deposit> {
    ///     account.narrow()
    /// }
    /// ```
    pub fn narrow<T: Send + 'static>(&self) -> ActorRef<T>
    where
        M: From<T>,
    {
        self.adapt(M::from)
    }

    /// A reference of the same actor that understands `T`, by way of `convert`. It is equal to every
    /// other reference of this type to the actor, and watching, stopping and counting mean the actor.
    ///
    /// `convert` runs where the sender runs and should be short. If it panics, the sender sees
    /// nothing of that: it is logged, and the message is a dead letter
    /// ([`DeadLetterReason::NotConverted`]).
    ///
    /// # Delivery
    /// As for a reference without a conversion, in the same order. A message that is refused comes
    /// back as it was, because there is a look at the mailbox before it is converted. Three cases are
    /// left in which it is converted already:
    /// - the last free place is taken in between: the message is queued beyond the bound. So the
    ///   bound can be exceeded by as many messages as there are senders in that very moment;
    /// - the actor stops in between, or while a [`ActorRef::send`] waits for room: the message was
    ///   accepted and not handled, and is a dead letter;
    /// - an actor on another node is behind it, and the connection has no room for the message or
    ///   cannot carry it: it is a dead letter, and `Ok` is said.
    pub fn adapt<T: Send + 'static>(
        &self,
        convert: impl Fn(T) -> M + Send + Sync + 'static,
    ) -> ActorRef<T> {
        let adapter = Adapter {
            target: self.clone(),
            convert,
        };
        ActorRef::from_target(Arc::new(Target::Adapted(Box::new(adapter))))
    }

    /// What [`ActorRef::tell`] would say now.
    pub(crate) fn admits(&self) -> Result<(), TellError<()>> {
        match &**self.target() {
            Target::Local(cell) => cell.mailbox.admits(),
            Target::Remote(remote) if remote.is_stopped() => Err(TellError::Stopped(())),
            Target::Remote(_) => Ok(()),
            Target::Adapted(adapted) => adapted.admits(),
        }
    }

    /// Queues a message that cannot be given back. It is queued or counted.
    pub(crate) fn accept(&self, message: M, question: Option<&Question>) {
        let wake = match &**self.target() {
            Target::Local(cell) => cell.accept(message, question),
            // Whoever carries it further has counted what it refused.
            Target::Remote(remote) => {
                return drop_guarded(match question {
                    None => remote.tell(message),
                    Some(question) => remote.tell_expiring(message, question.expires),
                });
            }
            Target::Adapted(adapted) => return adapted.accept(message, question),
        };
        match question {
            None => self.target().wake_if(wake),
            Some(question) => self.target().wake_for(wake, question),
        }
    }
}

impl<M: Send + 'static> Cell<M> {
    /// Queues `message` in any case, unless the actor has stopped.
    fn accept(&self, message: M, question: Option<&Question>) -> Wake {
        let extra = || Extra::now(self.core(), question);
        let pushed = self
            .mailbox
            .push(message, extra(), |oldest| self.give_up(oldest));
        let message = match pushed {
            Ok(wake) => return wake,
            Err(TellError::Full(message)) => {
                let message = Free::Message(message, extra());
                match self.mailbox.push_free(message) {
                    Ok(wake) => return wake,
                    Err(Free::Message(message, _)) => message,
                    Err(Free::Ended(_)) => return Wake(false),
                }
            }
            Err(TellError::Stopped(message) | TellError::Unsendable(message, _)) => message,
        };
        self.discard([Left(message)]);
        Wake(false)
    }
}

/// What is behind an adapter, the actor's own message type forgotten.
pub(crate) trait Adapted<T>: Send + Sync {
    fn tell(&self, message: T, question: Option<&Question>) -> Result<(), TellError<T>>;
    fn send(&self, message: T) -> Sending<'_, T>;
    fn admits(&self) -> Result<(), TellError<()>>;
    fn accept(&self, message: T, question: Option<&Question>);
    fn actor(&self) -> &dyn Reached;
    fn conversion(&self) -> Conversion;
}

type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<(), TellError<T>>> + Send + 'a>>;

/// What a reference tells about its actor and does to it, whatever the messages are.
pub(crate) trait Reached: Send + Sync {
    fn path(&self) -> &ActorPath;
    fn uid(&self) -> u64;
    fn is_stopped(&self) -> bool;
    fn queued(&self) -> usize;
    fn stop(&self);
    fn stop_after_queued(&self);
    fn watchable(&self) -> Arc<dyn Watchable>;
    fn time_of(&self, instant: Instant) -> Option<Time>;
    fn late(&self) -> Option<Late>;
    fn depth(&self) -> Option<usize>;
    fn is_in_work(&self) -> Option<bool>;
    fn core(&self) -> Option<&Arc<Core>>;
    fn root(&self) -> Root<'_>;
    /// Where news for the actor goes, if it is a local one.
    fn sink(&self) -> Option<Arc<dyn WatchSink>>;
}

/// Which actor is meant.
#[derive(Eq, PartialEq)]
pub(crate) enum Root<'a> {
    /// The address of its cell.
    Local(usize),
    Remote(u64, &'a ActorPath),
}

/// Names what an adapter does with a message. Functions that capture nothing have one name; one that
/// captures something is told apart from all others that live.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Conversion {
    function: TypeId,
    place: usize,
}

struct Adapter<M, F> {
    target: ActorRef<M>,
    convert: F,
}

impl<M: Send + 'static, F> Adapter<M, F> {
    /// The message for the actor; `None` if the function panicked, which is counted.
    fn convert<T>(&self, message: T) -> Option<M>
    where
        F: Fn(T) -> M,
    {
        let converted = guarded_call(|| (self.convert)(message));
        if let Err(failure) = &converted {
            let path = self.target.path();
            tracing::warn!(actor = %path, %failure, "the function of an adapter failed");
            self.report::<T>(DeadLetterReason::NotConverted);
        }
        converted.ok()
    }

    fn report<T>(&self, reason: DeadLetterReason) {
        if let Some(core) = self.target.core() {
            core.dead_letters
                .report(self.target.path(), reason, type_name::<T>());
        }
    }

    /// Gives a message back that was not converted, and counts it.
    fn refuse<T>(&self, refusal: TellError<()>, message: T) -> TellError<T> {
        self.report::<T>(match refusal {
            TellError::Full(()) => DeadLetterReason::RefusedFull,
            TellError::Stopped(()) | TellError::Unsendable((), _) => {
                DeadLetterReason::RefusedStopped
            }
        });
        refusal.map(|()| message)
    }
}

impl<T, M, F> Adapted<T> for Adapter<M, F>
where
    T: Send + 'static,
    M: Send + 'static,
    F: Fn(T) -> M + Send + Sync + 'static,
{
    fn tell(&self, message: T, question: Option<&Question>) -> Result<(), TellError<T>> {
        if let Err(refusal) = self.target.admits() {
            return Err(self.refuse(refusal, message));
        }
        Adapted::accept(self, message, question);
        Ok(())
    }

    fn send(&self, message: T) -> Sending<'_, T> {
        Box::pin(async move {
            if self.target.is_stopped() {
                return Err(self.refuse(TellError::Stopped(()), message));
            }
            if let Some(message) = self.convert(message) {
                // What is refused after all was counted by whoever refused it.
                drop_guarded(self.target.send(message).await);
            }
            Ok(())
        })
    }

    fn admits(&self) -> Result<(), TellError<()>> {
        self.target.admits()
    }

    fn accept(&self, message: T, question: Option<&Question>) {
        if let Some(message) = self.convert(message) {
            self.target.accept(message, question);
        }
    }

    fn actor(&self) -> &dyn Reached {
        &self.target
    }

    fn conversion(&self) -> Conversion {
        let captures = size_of::<F>() > 0 || self.target.conversion().is_some();
        Conversion {
            function: TypeId::of::<F>(),
            place: if captures {
                std::ptr::from_ref(self).addr()
            } else {
                0
            },
        }
    }
}

impl<M: Send + 'static> Reached for ActorRef<M> {
    fn path(&self) -> &ActorPath {
        self.path()
    }

    fn uid(&self) -> u64 {
        self.uid()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped()
    }

    fn queued(&self) -> usize {
        self.queued()
    }

    fn stop(&self) {
        self.stop();
    }

    fn stop_after_queued(&self) {
        self.stop_after_queued();
    }

    fn watchable(&self) -> Arc<dyn Watchable> {
        self.watchable()
    }

    fn time_of(&self, instant: Instant) -> Option<Time> {
        self.time_of(instant)
    }

    fn late(&self) -> Option<Late> {
        self.late()
    }

    fn depth(&self) -> Option<usize> {
        self.depth()
    }

    fn is_in_work(&self) -> Option<bool> {
        self.is_in_work()
    }

    fn core(&self) -> Option<&Arc<Core>> {
        self.core()
    }

    fn root(&self) -> Root<'_> {
        self.root()
    }

    fn sink(&self) -> Option<Arc<dyn WatchSink>> {
        match &**self.target() {
            Target::Local(_) => Some(self.target().clone()),
            Target::Remote(_) => None,
            Target::Adapted(adapted) => adapted.actor().sink(),
        }
    }
}
