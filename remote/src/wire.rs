//! Wire: how references inside messages are written and read: `#[serde(with = "otava_remote::wire")]`.
//!
//! A reference only means something between two nodes: writing it exports what it reaches, reading
//! it makes a reference that leads back. So both happen inside a scope, which the remote layer enters
//! around each message. Outside of it, for example in a snapshot, a reference has no serde form and
//! says so.
//!
//! The attribute works on fields that hold an [`ActorRef`] or a [`ReplyTo`], and on collections that
//! hold them, at any depth: `Option`, `Result`, `Vec`, `VecDeque`, arrays, tuples, sets, and the values
//! of maps. A type of one's own that holds references has the attribute on its fields, and needs none
//! where it is used. Beside references in one collection, a type without any is [`Plain`].
//!
//! ```
//! use otava_actor::{ActorRef, ReplyTo};
//! use otava_remote::RemoteMessage;
//! use serde::{Deserialize, Serialize};
//! use std::collections::BTreeMap;
//!
//! #[derive(Deserialize, Serialize)]
//! enum Room {
//!     Join {
//!         seat: Seat,
//!         #[serde(with = "otava_remote::wire")]
//!         friends: BTreeMap<String, Vec<(u32, ActorRef<Line>)>>,
//!     },
//!     /// The answer holds references itself.
//!     Guests(#[serde(with = "otava_remote::wire::answer")] ReplyTo<Vec<ActorRef<Line>>>),
//! }
//!
//! #[derive(Deserialize, Serialize)]
//! struct Seat {
//!     number: u32,
//!     #[serde(with = "otava_remote::wire")]
//!     guest: ActorRef<Line>,
//! }
//!
//! #[derive(Deserialize, Serialize)]
//! struct Line(String);
//! # impl RemoteMessage for Line { const NAME: &'static str = "chat.Line"; }
//! # impl RemoteMessage for Room { const NAME: &'static str = "chat.Room"; }
//! ```
//!
//! # Delivery
//! A reference leads to its actor's own node, whoever passes it on: what is sent through it takes no
//! other way. A reply port leads back the way that its question came.

use crate::core::Core;
use crate::exports::{Asked, tag_of};
use crate::message::RemoteMessage;
use crate::node_id::NodeId;
use crate::portable::{Reading, Writing};
use crate::remote_ref::{Address, RemoteRef};
use crate::wire_format::{DecodeError, ExportId, Target, decode};
use otava_actor::{ActorPath, ActorRef, Refusal, ReplyTo, Time};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use crate::portable::{Plain, Portable};

/// Writes a field; named by `#[serde(with = "otava_remote::wire")]`.
///
/// # Errors
/// Those of the serializer, and outside of a message between nodes.
pub fn serialize<T: Portable, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// Reads a field; named by `#[serde(with = "otava_remote::wire")]`.
///
/// # Errors
/// Those of the deserializer, and outside of a message between nodes.
pub fn deserialize<'de, T: Portable, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

/// What [`Remote::provide`](crate::Remote::provide) keeps under `name` on the node where a message is
/// read or written: for the serde forms of references that other layers make. `None` outside of a
/// message between nodes, and if there is nothing of this name.
#[must_use]
pub fn provided(name: &str) -> Option<Arc<dyn Any + Send + Sync>> {
    let core = SCOPE.with_borrow(|scope| Some(scope.as_ref()?.core.clone()))?;
    core.provided(name)
}

/// Ports whose answers hold references: `#[serde(with = "otava_remote::wire::answer")]` on a field
/// that is a `ReplyTo<Option<ActorRef<M>>>` or the like.
pub mod answer {
    use super::{
        Deserialize as _, Deserializer, PortForm, Portable, Reading, ReplyTo, Serialize as _,
        Serializer, Writing, decode, open_port, port_to, with_scope,
    };
    use serde::de::Error as _;
    use serde::ser::Error as _;

    /// Writes a field; named by `#[serde(with = "otava_remote::wire::answer")]`.
    ///
    /// # Errors
    /// As [`super::serialize()`].
    pub fn serialize<R: Portable + Send + 'static, S: Serializer>(
        port: &ReplyTo<R>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let read = |payload: &[u8]| decode::<Reading<R>>(payload).map(|Reading(answer)| answer);
        let form = with_scope(|scope| open_port(port, scope, read)).map_err(S::Error::custom)?;
        form.serialize(serializer)
    }

    /// Reads a field; named by `#[serde(with = "otava_remote::wire::answer")]`.
    ///
    /// # Errors
    /// As [`super::deserialize()`].
    pub fn deserialize<'de, R: Portable + Send + 'static, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ReplyTo<R>, D::Error> {
        let form = PortForm::deserialize(deserializer)?;
        with_scope(|scope| {
            port_to(form, scope, |line, answer: R| {
                line.answer(&Writing(&answer))
            })
        })
        .map_err(D::Error::custom)
    }
}

/// Why a reference was not written or read.
#[derive(Debug, thiserror::Error)]
enum WireError {
    #[error("a question names another node than its sender as the one who waits")]
    AskerElsewhere,
    #[error("a reference was sent as one to a `{expected}`, but its actor takes something else")]
    OtherType { expected: &'static str },
    #[error("references can only be written and read inside messages between nodes")]
    OutsideOfMessage,
    #[error("a path of {0} bytes is too long")]
    PathTooLong(usize),
    #[error("too many asks to other nodes are unanswered")]
    TooManyAsks,
}

/// The longest path of an actor that is taken from a message.
const PATH_BYTES_MAX: usize = 4096;

/// The message that is being written or read: between which nodes, and which ports were opened.
struct Scope {
    core: Arc<Core>,
    peer: Address,
    ports: Vec<ExportId>,
    /// The latest deadline of the ports that were read; the end of time for one without.
    latest: Option<Time>,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

fn with_scope<T>(run: impl FnOnce(&mut Scope) -> Result<T, WireError>) -> Result<T, WireError> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Some(scope) => run(scope),
        None => Err(WireError::OutsideOfMessage),
    })
}

/// Runs `run` inside a scope. Returns also the ports that were opened in it.
///
/// Scopes nest: a message may be sent while another one is encoded. A panic in `run` leaves no scope
/// behind, and no port.
pub(crate) fn in_scope<T>(
    core: &Arc<Core>,
    peer: Address,
    run: impl FnOnce() -> T,
) -> (T, Vec<ExportId>) {
    struct Restore(Option<Scope>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(scope) = SCOPE.replace(self.0.take()) {
                scope.core.close_ports(scope.peer.addr(), &scope.ports);
            }
        }
    }
    let scope = Scope {
        core: core.clone(),
        peer,
        ports: Vec::new(),
        latest: None,
    };
    let restore = Restore(SCOPE.replace(Some(scope)));
    let result = run();
    let ports = SCOPE.take().map_or_else(Vec::new, |scope| scope.ports);
    drop(restore);
    (result, ports)
}

/// Reads one message with `read`, inside a scope. Returns also until when somebody waits for an answer to
/// it; `None` if nobody does, or one of them without end.
pub(crate) fn reading<T>(read: impl FnOnce() -> T) -> (T, Option<Time>) {
    let take = || SCOPE.with_borrow_mut(|scope| scope.as_mut()?.latest.take());
    // Of a message in which reading it has panicked.
    take();
    let message = read();
    (message, take().filter(|&latest| latest < Time::MAX))
}

/// A reference to an actor as it stands in a message.
#[derive(Deserialize, Serialize)]
struct RefForm {
    node: NodeId,
    target: TargetForm,
    path: String,
    uid: u64,
    tag: u64,
}

#[derive(Deserialize, Serialize)]
enum TargetForm {
    Export(u128),
    Name(Arc<str>),
}

impl<M: RemoteMessage> Portable for ActorRef<M> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = with_scope(|scope| Ok(RefForm::of(self, scope))).map_err(S::Error::custom)?;
        form.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = RefForm::deserialize(deserializer)?;
        with_scope(|scope| form.resolve(scope)).map_err(D::Error::custom)
    }
}

impl RefForm {
    fn of<M: RemoteMessage>(actor: &ActorRef<M>, scope: &Scope) -> Self {
        let remote = actor
            .remote_target()
            .and_then(|remote| remote.as_any().downcast_ref::<RemoteRef<M>>());
        let (node, target, path) = match remote.map(|remote| (remote.node(), remote.target())) {
            Some((Some(node), target)) => (
                node.clone(),
                target.clone(),
                actor.path().as_str().to_owned(),
            ),
            // A reference to whoever is at an address goes through this node, as does one that
            // another layer made.
            Some((None, _)) | None => (
                scope.core.id.clone(),
                Target::Export(scope.core.exports.export(actor)),
                format!("{}/{}", scope.core.id, actor.path()),
            ),
        };
        Self {
            node,
            target: match target {
                Target::Export(ExportId(id)) => TargetForm::Export(id),
                Target::Name(name) => TargetForm::Name(name),
            },
            path,
            uid: actor.uid(),
            tag: tag_of::<M>(),
        }
    }

    fn resolve<M: RemoteMessage>(self, scope: &Scope) -> Result<ActorRef<M>, WireError> {
        let expected = M::NAME;
        if self.tag != tag_of::<M>() {
            return Err(WireError::OtherType { expected });
        }
        if self.path.len() > PATH_BYTES_MAX {
            return Err(WireError::PathTooLong(self.path.len()));
        }
        let target = match self.target {
            TargetForm::Export(id) => Target::Export(ExportId(id)),
            TargetForm::Name(name) => Target::Name(name),
        };
        if self.node == scope.core.id {
            // It came home. What has ended meanwhile stays a remote reference, that leads nowhere.
            if let Some(actor) = scope.core.exports.find_as::<M>(&target) {
                return Ok(actor);
            }
        }
        let path = ActorPath::new(&self.path);
        let address = Address::Exactly(self.node);
        let remote = RemoteRef::new(scope.core.clone(), address, target, path, self.uid);
        Ok(ActorRef::from_remote(Arc::new(remote)))
    }
}

/// A reply port as it stands in a message.
#[derive(Deserialize, Serialize)]
struct PortForm {
    /// Who waits there. Always `None`: whoever sent the message. Nobody else's answer would be taken,
    /// and a peer must not make this node call whomever it names.
    node: Option<NodeId>,
    port: u128,
    /// How long the asker still waits.
    within: Option<Duration>,
}

impl<R: Serialize + DeserializeOwned + Send + 'static> Portable for ReplyTo<R> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = with_scope(|scope| open_port(self, scope, decode::<R>));
        form.map_err(S::Error::custom)?.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = PortForm::deserialize(deserializer)?;
        with_scope(|scope| port_to(form, scope, |line, answer: R| line.answer(&answer)))
            .map_err(D::Error::custom)
    }
}

/// Makes a port reachable for whom the message is for. `read` reads the answer.
fn open_port<R: Send + 'static>(
    port: &ReplyTo<R>,
    scope: &mut Scope,
    read: impl FnOnce(&[u8]) -> Result<R, DecodeError> + Send + 'static,
) -> Result<PortForm, WireError> {
    let handle = port.share();
    let asked = Asked {
        addr: scope.peer.addr(),
        incarnation: scope.peer.incarnation(),
    };
    let answer = move |answer: Result<&[u8], Refusal>| {
        match answer.map(read) {
            // Whether the asker still waits does not matter here.
            Ok(answer) => drop(handle.send(answer?)),
            Err(why) => handle.refuse(why),
        }
        Ok(())
    };
    let deadline = port.deadline();
    let port = scope
        .core
        .exports
        .open_port(asked, deadline, Box::new(answer))
        .ok_or(WireError::TooManyAsks)?;
    scope.ports.push(port);
    let now = scope.core.system.now();
    Ok(PortForm {
        node: None,
        port: port.0,
        within: deadline.map(|deadline| deadline.saturating_since(now)),
    })
}

/// The port that leads back to the sender of the message. `write` sends the answer.
fn port_to<R: Send + 'static>(
    form: PortForm,
    scope: &mut Scope,
    write: impl FnOnce(AnswerLine, R) + Send + 'static,
) -> Result<ReplyTo<R>, WireError> {
    if form.node.is_some() {
        return Err(WireError::AskerElsewhere);
    }
    let asker = scope.peer.clone();
    let deadline = form.within.map(|within| scope.core.system.now() + within);
    scope.latest = scope.latest.max(Some(deadline.unwrap_or(Time::MAX)));
    scope.core.unanswered.fetch_add(1, Ordering::Relaxed);
    let line = AnswerLine {
        core: scope.core.clone(),
        asker,
        port: ExportId(form.port),
        answered: false,
    };
    let carry = move |answer| match answer {
        Ok(answer) => write(line, answer),
        Err(why) => line.refuse(why),
    };
    Ok(ReplyTo::from_outcome(carry, deadline))
}

/// The way back to an asker on another node. Dropped unanswered, it says so over there.
struct AnswerLine {
    core: Arc<Core>,
    asker: Address,
    port: ExportId,
    answered: bool,
}

impl AnswerLine {
    fn answer<R: Serialize>(mut self, answer: &R) {
        self.answered = self.core.send_answer(&self.asker, self.port, answer);
    }

    fn refuse(mut self, why: Refusal) {
        self.answered = true;
        self.core.send_no_answer(&self.asker, self.port, why);
    }
}

impl Drop for AnswerLine {
    fn drop(&mut self) {
        self.core.unanswered.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.core.send_port_dropped(&self.asker, self.port);
        }
    }
}

#[cfg(test)]
mod tests;
