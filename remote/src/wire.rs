//! Wire: how references inside messages are written and read: `#[serde(with = "otava_remote::wire")]`.
//!
//! A reference only means something between two nodes: writing it exports what it reaches, reading
//! it makes a reference that leads back. So both happen inside a scope, which the remote layer enters
//! around each message. Outside of it, for example in a snapshot, a reference has no serde form and
//! says so.
//!
//! The attribute works on fields that hold an [`ActorRef`] or a [`ReplyTo`], and on an `Option` or
//! `Vec` of those; everything else holds plain values and needs none.

use crate::core::Core;
use crate::exports::{Asked, tag_of};
use crate::message::RemoteMessage;
use crate::node_id::NodeId;
use crate::remote_ref::{Address, RemoteRef};
use crate::wire_format::{ExportId, Target, decode};
use otava_actor::{ActorPath, ActorRef, ReplyTo};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// Writes a field; named by `#[serde(with = "otava_remote::wire")]`.
///
/// # Errors
/// Those of the serializer, and outside of a message between nodes.
pub fn serialize<T: Portable, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let form = with_scope(|scope| value.to_wire(scope)).map_err(S::Error::custom)?;
    form.serialize(serializer)
}

/// Reads a field; named by `#[serde(with = "otava_remote::wire")]`.
///
/// # Errors
/// Those of the deserializer, and outside of a message between nodes.
pub fn deserialize<'de, T: Portable, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let form = T::Form::deserialize(deserializer)?;
    with_scope(|scope| T::from_wire(form, scope)).map_err(D::Error::custom)
}

/// What can be in a field with `#[serde(with = "otava_remote::wire")]`: references, and collections
/// of them.
pub trait Portable: Sized {
    /// How it is written.
    #[doc(hidden)]
    type Form: Serialize + DeserializeOwned;

    #[doc(hidden)]
    fn to_wire(&self, scope: &mut Scope) -> Result<Self::Form, WireError>;

    #[doc(hidden)]
    fn from_wire(form: Self::Form, scope: &mut Scope) -> Result<Self, WireError>;
}

/// Why a reference was not written or read.
#[derive(Debug, thiserror::Error)]
#[doc(hidden)]
#[non_exhaustive]
pub enum WireError {
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
#[doc(hidden)]
pub struct Scope {
    core: Arc<Core>,
    peer: Address,
    ports: Vec<ExportId>,
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
    };
    let restore = Restore(SCOPE.replace(Some(scope)));
    let result = run();
    let ports = SCOPE.take().map_or_else(Vec::new, |scope| scope.ports);
    drop(restore);
    (result, ports)
}

/// A reference to an actor as it stands in a message.
#[derive(Deserialize, Serialize)]
#[doc(hidden)]
pub struct RefForm {
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
    type Form = RefForm;

    fn to_wire(&self, scope: &mut Scope) -> Result<RefForm, WireError> {
        let remote = self
            .remote_target()
            .and_then(|remote| remote.as_any().downcast_ref::<RemoteRef<M>>());
        let (node, target, path) = match remote.map(|remote| (remote.node(), remote.target())) {
            Some((Some(node), target)) => (
                node.clone(),
                target.clone(),
                self.path().as_str().to_owned(),
            ),
            // A reference to whoever is at an address goes through this node, as does one that
            // another layer made.
            Some((None, _)) | None => (
                scope.core.id.clone(),
                Target::Export(scope.core.exports.export(self)),
                format!("{}/{}", scope.core.id, self.path()),
            ),
        };
        Ok(RefForm {
            node,
            target: match target {
                Target::Export(ExportId(id)) => TargetForm::Export(id),
                Target::Name(name) => TargetForm::Name(name),
            },
            path,
            uid: self.uid(),
            tag: tag_of::<M>(),
        })
    }

    fn from_wire(form: RefForm, scope: &mut Scope) -> Result<Self, WireError> {
        let expected = M::NAME;
        if form.tag != tag_of::<M>() {
            return Err(WireError::OtherType { expected });
        }
        if form.path.len() > PATH_BYTES_MAX {
            return Err(WireError::PathTooLong(form.path.len()));
        }
        let target = match form.target {
            TargetForm::Export(id) => Target::Export(ExportId(id)),
            TargetForm::Name(name) => Target::Name(name),
        };
        if form.node == scope.core.id {
            // It came home. What has ended meanwhile stays a remote reference, that leads nowhere.
            if let Some(actor) = scope.core.exports.find_as::<M>(&target) {
                return Ok(actor);
            }
        }
        let path = ActorPath::new(&form.path);
        let address = Address::Exactly(form.node);
        let remote = RemoteRef::new(scope.core.clone(), address, target, path, form.uid);
        Ok(ActorRef::from_remote(Arc::new(remote)))
    }
}

/// A reply port as it stands in a message.
#[derive(Deserialize, Serialize)]
#[doc(hidden)]
pub struct PortForm {
    /// Who waits there. Always `None`: whoever sent the message. Nobody else's answer would be taken,
    /// and a peer must not make this node call whomever it names.
    node: Option<NodeId>,
    port: u128,
    /// How long the asker still waits.
    within: Option<Duration>,
}

impl<R: Serialize + DeserializeOwned + Send + 'static> Portable for ReplyTo<R> {
    type Form = PortForm;

    fn to_wire(&self, scope: &mut Scope) -> Result<PortForm, WireError> {
        let handle = self.share();
        let asked = Asked {
            addr: scope.peer.addr(),
            incarnation: scope.peer.incarnation(),
        };
        let answer = move |payload: &[u8]| {
            let answer = decode::<R>(payload)?;
            // Whether the asker still waits does not matter here.
            let _ = handle.send(answer);
            Ok(())
        };
        let (exports, deadline) = (&scope.core.exports, self.deadline());
        let port = exports
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

    fn from_wire(form: PortForm, scope: &mut Scope) -> Result<Self, WireError> {
        if form.node.is_some() {
            return Err(WireError::AskerElsewhere);
        }
        let asker = scope.peer.clone();
        let deadline = form.within.map(|within| scope.core.system.now() + within);
        let line = AnswerLine {
            core: scope.core.clone(),
            asker,
            port: ExportId(form.port),
            answered: false,
        };
        Ok(ReplyTo::from_fn(
            move |answer| line.answer(&answer),
            deadline,
        ))
    }
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
}

impl Drop for AnswerLine {
    fn drop(&mut self) {
        if !self.answered {
            self.core.send_port_dropped(&self.asker, self.port);
        }
    }
}

impl<T: Portable> Portable for Option<T> {
    type Form = Option<T::Form>;

    fn to_wire(&self, scope: &mut Scope) -> Result<Self::Form, WireError> {
        self.as_ref().map(|value| value.to_wire(scope)).transpose()
    }

    fn from_wire(form: Self::Form, scope: &mut Scope) -> Result<Self, WireError> {
        form.map(|form| T::from_wire(form, scope)).transpose()
    }
}

impl<T: Portable> Portable for Vec<T> {
    type Form = Vec<T::Form>;

    fn to_wire(&self, scope: &mut Scope) -> Result<Self::Form, WireError> {
        self.iter().map(|value| value.to_wire(scope)).collect()
    }

    fn from_wire(form: Self::Form, scope: &mut Scope) -> Result<Self, WireError> {
        form.into_iter()
            .map(|form| T::from_wire(form, scope))
            .collect()
    }
}
