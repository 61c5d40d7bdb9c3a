//! Replicator: the handle of one node's copy of all replicated data.

use super::actor::{Answer, Local, NAME, ReplicatorActor, ReplicatorMessage, Start};
use super::config::ReplicatorConfig;
use super::crdt::{Crdt, Key};
use super::durable::StoredEntry;
use super::error::{About, DeleteError, Fault, GetError, StartError, SubscribeError, UpdateError};
use super::wire;
use crate::Cluster;
use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::level::Level;
use crate::logic::replicated::machine::Request;
use crate::logic::replicated::message::{Content, State};
use futures_util::future::BoxFuture;
use otava_actor::{ActorRef, ReplyTo};
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long an operation takes at most unless told.
const WITHIN: Duration = Duration::from_secs(5);
/// How much longer its answer is waited for: the replicator itself ends it in time.
const GRACE: Duration = Duration::from_secs(5);

/// One node's copy of all replicated data. A handle, cheap to clone; the copy lives as long as the node's
/// actor system.
#[derive(Clone)]
pub struct Replicator {
    actor: ActorRef<ReplicatorMessage>,
}

impl Replicator {
    /// Starts the replicator of this node; all nodes should have one. Loads what is durable first.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(cluster: &Cluster, config: ReplicatorConfig) -> Result<Self, StartError> {
        let mut stored = Vec::new();
        if let Some((store, _)) = &config.durable {
            for StoredEntry { key, bytes } in store.load().await? {
                stored.push(read(key, &bytes)?);
            }
        }
        let remote = cluster.remote();
        let actor = ReplicatorActor::new(Start {
            remote: remote.clone(),
            config,
            stored,
            states: cluster.subscribe(),
        });
        let not_started = |error: &dyn fmt::Display| StartError::NotStarted(error.to_string());
        let actor = remote.system().spawn("replicator", actor);
        let actor = actor.map_err(|error| not_started(&error))?;
        if let Err(error) = remote.publish(NAME, &actor) {
            actor.stop();
            return Err(not_started(&error));
        }
        Ok(Self { actor })
    }

    /// Reads a value. Await it; before that, say how many nodes must answer.
    pub fn get<C: Crdt>(&self, key: &Key<C>) -> Get<C> {
        Get(Operation::new(self, key))
    }

    /// Changes a value by `change`, which is given what this node has and should be quick: other
    /// operations wait for it. If there is nothing yet, it begins with an empty value.
    ///
    /// What `change` returns is returned. It must not keep the value; a panic in it is an error.
    pub fn update<C: Crdt, R: Send + 'static>(
        &self,
        key: &Key<C>,
        change: impl FnOnce(&mut C) -> R + Send + 'static,
    ) -> Update<C, R> {
        Update {
            operation: Operation::new(self, key),
            change: Box::new(change),
        }
    }

    /// Deletes a key, for good: it cannot be used again, and its name is kept by all nodes. To empty a
    /// value, remove what is in it.
    pub fn delete<C: Crdt>(&self, key: &Key<C>) -> Delete<C> {
        Delete(Operation::new(self, key))
    }

    /// Follows the value of a key on this node: what there is, and then each change, of several in a
    /// short time the last ([`ReplicatorConfig::notify_interval`]).
    ///
    /// # Errors
    /// [`SubscribeError`].
    ///
    /// # Cancel safety
    /// Nothing is left behind if the future is dropped.
    pub async fn subscribe<C: Crdt>(
        &self,
        key: &Key<C>,
    ) -> Result<Subscription<C>, SubscribeError> {
        let operation = Operation::new(self, key);
        let (changes, receiver) = watch::channel(None);
        let request = operation.request.clone();
        let asked = operation.ask(|reply_to| Local::Subscribe {
            request,
            changes,
            reply_to,
        });
        match asked.await {
            Ok(_) => Ok(Subscription {
                changes: receiver,
                value: PhantomData,
            }),
            Err((about, fault)) => Err(SubscribeError::new(about, fault)),
        }
    }
}

impl fmt::Debug for Replicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replicator")
            .field(self.actor.path())
            .finish()
    }
}

fn read(key: String, bytes: &[u8]) -> Result<State, StartError> {
    let unreadable = |why: String| StartError::Unreadable {
        key: key.clone(),
        why,
    };
    let state = wire::decode_state(bytes).map_err(|error| unreadable(error.to_string()))?;
    if *state.key == *key {
        Ok(state)
    } else {
        Err(unreadable(format!("it belongs to `{}`", state.key)))
    }
}

/// What all operations have.
struct Operation<C> {
    actor: ActorRef<ReplicatorMessage>,
    request: Request,
    value: PhantomData<fn() -> C>,
}

impl<C: Crdt> Operation<C> {
    fn new(replicator: &Replicator, key: &Key<C>) -> Self {
        Self {
            actor: replicator.actor.clone(),
            request: Request {
                key: key.shared_name(),
                type_name: C::type_name().into(),
                level: Level::Local,
                within: WITHIN,
            },
            value: PhantomData,
        }
    }

    async fn ask(
        self,
        question: impl FnOnce(ReplyTo<Answer>) -> Local + Send,
    ) -> Result<Option<Arc<Causal>>, (About, Fault)> {
        let within = self.request.within.saturating_add(GRACE);
        let asked = self
            .actor
            .ask(|reply_to| ReplicatorMessage::local(question(reply_to)))
            .within(within);
        let fault = match asked.await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => Fault::Failed(failure),
            Err(error) => Fault::Unavailable(error.to_string()),
        };
        let about = About {
            key: self.request.key.to_string(),
            asked: self.request.type_name.to_string(),
        };
        Err((about, fault))
    }
}

macro_rules! options {
    ($($field:tt)+) => {
        /// How many nodes must have answered. Default: [`Level::Local`].
        pub fn level(mut self, level: Level) -> Self {
            self.$($field)+.level = level;
            self
        }

        /// For how long that is waited for. Default: 5 s.
        pub fn within(mut self, within: Duration) -> Self {
            self.$($field)+.within = within;
            self
        }
    };
}

/// A read that begins when it is awaited ([`Replicator::get`]).
///
/// # Errors
/// [`GetError`].
///
/// # Cancel safety
/// Nothing changes but that this node may have learnt something, whether it is dropped or not.
#[must_use = "it is read when this is awaited"]
pub struct Get<C>(Operation<C>);

impl<C: Crdt> Get<C> {
    options!(0.request);
}

impl<C: Crdt> IntoFuture for Get<C> {
    type Output = Result<C, GetError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let request = self.0.request.clone();
            let asked = self.0.ask(|reply_to| Local::Get { request, reply_to });
            match asked.await {
                Ok(value) => Ok(open(value)),
                Err((about, fault)) => Err(GetError::new(about, fault)),
            }
        })
    }
}

/// A value to look at. What is done to it goes nowhere.
fn open<C: Crdt>(value: Option<Arc<Causal>>) -> C {
    let value = value.unwrap_or_else(|| Arc::new(Causal::empty(&C::blank())));
    C::open(Draft::new(value, Replica(0), 0))
}

/// A change that begins when it is awaited ([`Replicator::update`]).
///
/// # Errors
/// [`UpdateError`]. After [`UpdateError::Timeout`] the change stands here, and may reach the others.
///
/// # Cancel safety
/// Dropped before it was awaited, nothing happens; after that the change is made, or is not, and nobody
/// hears whether others have it.
///
/// # Delivery
/// `Ok` means that the change was made here, and that the nodes of its level have it, in memory, or stored
/// if the entry is durable.
#[must_use = "the change is made when this is awaited"]
pub struct Update<C, R> {
    operation: Operation<C>,
    change: Box<dyn FnOnce(&mut C) -> R + Send>,
}

impl<C: Crdt, R: Send + 'static> Update<C, R> {
    options!(operation.request);
}

impl<C: Crdt, R: Send + 'static> IntoFuture for Update<C, R> {
    type Output = Result<R, UpdateError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let result = Arc::new(Mutex::new(None));
            let (slot, change) = (result.clone(), self.change);
            // The draft finds its way back when it is dropped, also out of a panic.
            let edit = move |draft: Draft| {
                let changed = catch_unwind(AssertUnwindSafe(|| change(&mut C::open(draft))));
                let changed = changed.map_err(otava_actor::describe_panic);
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(changed);
            };
            let request = self.operation.request.clone();
            let about = About {
                key: request.key.to_string(),
                asked: request.type_name.to_string(),
            };
            let blank = C::blank();
            let asked = self.operation.ask(|reply_to| Local::Update {
                request,
                blank,
                edit: Box::new(edit),
                reply_to,
            });
            let asked = asked.await;
            let changed = result.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (asked, changed) {
                (_, Some(Err(panic))) => {
                    Err(UpdateError::new(about, Fault::Panicked(panic.to_string())))
                }
                (Ok(_), Some(Ok(result))) => Ok(result),
                (Err((about, fault)), _) => Err(UpdateError::new(about, fault)),
                (Ok(_), None) => {
                    let why = "the change was not made".to_owned();
                    Err(UpdateError::Unavailable { why })
                }
            }
        })
    }
}

/// A deletion that begins when it is awaited ([`Replicator::delete`]).
///
/// # Errors
/// [`DeleteError`].
///
/// # Cancel safety
/// As for [`Update`].
#[must_use = "it is deleted when this is awaited"]
pub struct Delete<C>(Operation<C>);

impl<C: Crdt> Delete<C> {
    options!(0.request);
}

impl<C: Crdt> IntoFuture for Delete<C> {
    type Output = Result<(), DeleteError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let request = self.0.request.clone();
            let asked = self.0.ask(|reply_to| Local::Delete { request, reply_to });
            match asked.await {
                Ok(_) => Ok(()),
                Err((about, fault)) => Err(DeleteError::new(about, fault)),
            }
        })
    }
}

macro_rules! debugs {
    ($($type:ident<$($parameter:ident),*>;)*) => {
        $(impl<$($parameter),*> fmt::Debug for $type<$($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        })*
    };
}

debugs! {
    Delete<C>;
    Get<C>;
    Subscription<C>;
    Update<C, R>;
}

/// What became of a value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change<C> {
    /// It was deleted; nothing comes any more.
    Deleted,
    /// It is this now.
    Updated(C),
}

/// The changes of a value, as this node comes to know them ([`Replicator::subscribe`]). Whoever is slow
/// sees the newest and misses what was between.
pub struct Subscription<C> {
    changes: watch::Receiver<Option<Content>>,
    value: PhantomData<fn() -> C>,
}

impl<C: Crdt> Subscription<C> {
    /// The next change, the first time what there is; `None` when the replicator has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Change<C>> {
        self.changes.changed().await.ok()?;
        let content = self.changes.borrow_and_update().clone();
        Some(match content? {
            Content::Deleted => Change::Deleted,
            Content::Live(value) => Change::Updated(open(Some(value))),
        })
    }
}
