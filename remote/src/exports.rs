//! Exports: what of this node others can reach: actors by id or name, and reply ports.
//!
//! An actor is exported when a reference to it is put into a message, or when it is published under
//! a name. A port is exported when a question leaves the node, and lives until it is answered,
//! dropped over there, past its deadline, or the peer is gone.
//!
//! **Invariant:** an entry knows the one type that its messages decode into. There is no table of
//! types, so bytes can never choose what they become.
//!
//! **Invariant:** no entry leaks: an actor's ends with the actor, a port's with its ask.

use crate::core::FEW;
use crate::identity::PeerKind;
use crate::logic::slots::Slots;
use crate::message::RemoteMessage;
use crate::wire::reading;
use crate::wire_format::{DecodeError, ExportId, Target, decode};
use otava_actor::adapter::Conversion;
use otava_actor::{ActorPath, ActorRef, Refusal, Rng, TellError, Terminated, Time, Watching};
use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How long a port outlives its deadline: the answer may be on its way.
const PORT_GRACE: std::time::Duration = std::time::Duration::from_secs(1);

pub(crate) struct Exports {
    actors: Mutex<Actors>,
    /// Locked alone, or while the actors are.
    ports: Mutex<Ports>,
    ports_max: usize,
    /// How many ports there are, for those who only want to know about.
    open: AtomicUsize,
}

#[derive(Default)]
struct Actors {
    by_id: Slots<Arc<dyn Exported>>,
    /// The id of an actor that was exported before.
    ids: BTreeMap<Identity, ExportId>,
    by_name: BTreeMap<Arc<str>, Arc<dyn Exported>>,
}

struct Ports {
    by_id: Slots<Port>,
    /// Of actors too: their ids are drawn less often.
    ids: Ids,
}

/// What tells exported references apart: number, path and type of message, and the function behind
/// an adapted one. References to actors of other nodes may share a number.
type Identity = (u64, ActorPath, u64, Option<Conversion>);

fn identity_of<M: RemoteMessage>(actor: &ActorRef<M>) -> Identity {
    let (uid, path) = (actor.uid(), actor.path().clone());
    (uid, path, tag_of::<M>(), actor.conversion())
}

/// An exported actor, its message type forgotten.
pub(crate) trait Exported: Send + Sync {
    /// Decodes a message and hands it to the actor. The caller has entered the wire scope.
    fn deliver(&self, tag: u64, payload: &[u8], from: PeerKind) -> Result<(), Undelivered>;
    /// Hands over what was not delivered for want of room ([`Undelivered::Full`]), or has it refused.
    fn deliver_late(&self, message: Box<dyn Any + Send>) -> Result<(), Undelivered>;
    /// Whether the actor has made so much room that it seems to keep up.
    fn has_room(&self) -> bool;
    /// Nobody waits for room any more until there is some.
    fn do_not_wait(&self);
    /// The protocol whose rights decide who may send to it.
    fn protocol(&self) -> &'static str;
    /// Calls back when the actor ends.
    fn on_terminated(&self, callback: Box<dyn FnOnce(Terminated) + Send>) -> Watching;
    fn path(&self) -> &ActorPath;
    fn as_any(&self) -> &dyn Any;
}

/// Why a message from another node did not reach its actor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undelivered {
    #[error("its sender has no right to send it")]
    NotPermitted,
    #[error("{message_type} was expected, the sender meant another type or version of it")]
    OtherType { message_type: &'static str },
    #[error("it is no {message_type}: {source}")]
    Undecodable {
        message_type: &'static str,
        source: DecodeError,
    },
    /// Not refused yet: whoever reads the lane may wait for room.
    #[error("the mailbox is full")]
    Full { message: Box<dyn Any + Send> },
    /// Counted by the mailbox.
    #[error("the mailbox refused it")]
    Refused {
        why: Refusal,
        /// Kept until the asker is told: the reply ports in it say something less when they are
        /// dropped.
        message: Box<dyn Any + Send>,
    },
}

impl Undelivered {
    fn refused<M: Send + 'static>(refused: TellError<M>) -> Self {
        let why = match &refused {
            TellError::Full(_) => Refusal::Full,
            _ => Refusal::Stopped,
        };
        let message = Box::new(refused.into_message());
        Self::Refused { why, message }
    }

    /// What an asker is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::NotPermitted => Refusal::NotPermitted,
            Self::OtherType { .. } | Self::Undecodable { .. } => Refusal::NotUnderstood,
            Self::Full { .. } => Refusal::Full,
            Self::Refused { why, .. } => *why,
        }
    }
}

pub(crate) struct LocalActor<M> {
    actor: ActorRef<M>,
    past: Option<Past<M>>,
    /// It was waited for in vain, and has not caught up since.
    slow: AtomicBool,
}

/// Who has made room for so many messages, and for an eighth of the mailbox, keeps up. A smaller mailbox is
/// not waited for: a few messages at a time would be slow for all that share the lane.
const ROOM_MIN: u64 = 256;

impl<M: RemoteMessage> LocalActor<M> {
    fn new(actor: ActorRef<M>, past: Option<Past<M>>) -> Self {
        let slow = AtomicBool::new(false);
        Self { actor, past, slow }
    }

    /// How many more messages the mailbox takes, of how many in all; `None` if it is not known.
    fn room(&self) -> Option<(u64, u64)> {
        let (room, waiting) = self.actor.mailbox_room()?;
        Some((room, room.saturating_add(waiting)))
    }

    /// Tells what may wait for room.
    fn tell(&self, message: M) -> Result<(), Undelivered> {
        match self.actor.tell_uncounted(message, None) {
            Ok(()) => {
                if self.slow.load(Ordering::Relaxed) && self.has_room() {
                    self.slow.store(false, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(TellError::Full(message)) if self.is_waited_for() => {
                let message = Box::new(message);
                Err(Undelivered::Full { message })
            }
            // What is no plain reference has counted it.
            Err(refused) if self.room().is_none() => Err(Undelivered::refused(refused)),
            Err(refused) => self.tell_counted(refused.into_message()),
        }
    }

    fn tell_counted(&self, message: M) -> Result<(), Undelivered> {
        self.actor.tell(message).map_err(Undelivered::refused)
    }

    fn is_waited_for(&self) -> bool {
        let large = |(_, capacity)| capacity >= 2 * ROOM_MIN;
        !self.slow.load(Ordering::Relaxed) && self.room().is_some_and(large)
    }
}

/// A way past the mailbox of an actor: takes a message, which is of no use from a time on, or gives it
/// back.
pub(crate) type Past<M> = Box<dyn Fn(M, Option<Time>) -> Option<M> + Send + Sync>;

impl<M: RemoteMessage> Exported for LocalActor<M> {
    fn deliver(&self, tag: u64, payload: &[u8], from: PeerKind) -> Result<(), Undelivered> {
        let message_type = std::any::type_name::<M>();
        if tag != const { tag_of::<M>() } {
            return Err(Undelivered::OtherType { message_type });
        }
        let (message, awaited_until) = reading(|| decode::<M>(payload));
        let message = message.map_err(|source| Undelivered::Undecodable {
            message_type,
            source,
        })?;
        if from == PeerKind::Client && !message.is_for_clients() {
            return Err(Undelivered::NotPermitted);
        }
        let message = match &self.past {
            Some(past) => match past(message, awaited_until) {
                Some(message) => message,
                None => return Ok(()),
            },
            None => message,
        };
        match awaited_until {
            // Its asker can do something better than wait, and is told.
            Some(deadline) => {
                let told = self.actor.tell_expiring(message, deadline);
                told.map_err(Undelivered::refused)
            }
            None => self.tell(message),
        }
    }

    fn deliver_late(&self, message: Box<dyn Any + Send>) -> Result<(), Undelivered> {
        match message.downcast::<M>() {
            Ok(message) => self.tell_counted(*message),
            Err(message) => Err(Undelivered::Refused {
                why: Refusal::NotUnderstood,
                message,
            }),
        }
    }

    fn has_room(&self) -> bool {
        self.room()
            .is_none_or(|(room, capacity)| room >= ROOM_MIN.max(capacity / 8))
    }

    fn do_not_wait(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    fn on_terminated(&self, callback: Box<dyn FnOnce(Terminated) + Send>) -> Watching {
        self.actor.on_terminated(callback)
    }

    fn protocol(&self) -> &'static str {
        M::RIGHTS
    }

    fn path(&self) -> &ActorPath {
        self.actor.path()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What stands for a message type in a frame.
pub(crate) const fn tag_of<M: RemoteMessage>() -> u64 {
    M::LAYOUT
}

/// Decodes an answer and hands it, or why there is none, to whoever waits for it.
pub(crate) type AnswerTaker =
    Box<dyn FnOnce(Result<&[u8], Refusal>) -> Result<(), DecodeError> + Send>;

/// A question that left the node and waits for its answer.
struct Port {
    asked: Asked,
    deadline: Option<Time>,
    answer: AnswerTaker,
}

/// Who was asked: an address, and the run of the node there if it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub(crate) addr: SocketAddr,
    pub(crate) incarnation: Option<u64>,
}

impl Exports {
    pub(crate) fn new(ids: Ids, ports_max: usize) -> Self {
        Self {
            actors: Mutex::default(),
            ports: Mutex::new(Ports {
                by_id: Slots::default(),
                ids,
            }),
            ports_max,
            open: AtomicUsize::new(0),
        }
    }

    /// The id under which `actor` is reached from other nodes, from now until it ends.
    pub(crate) fn export<M: RemoteMessage>(self: &Arc<Self>, actor: &ActorRef<M>) -> ExportId {
        let identity = identity_of(actor);
        let id = {
            let mut actors = self.actors();
            if let Some(&id) = actors.ids.get(&identity) {
                return id;
            }
            let drawn = self.ports().ids.draw();
            let actor = actor.clone();
            let entry = Arc::new(LocalActor::new(actor, None));
            let id = actors.by_id.insert(drawn, entry);
            actors.ids.insert(identity.clone(), id);
            id
        };
        let exports = Arc::downgrade(self);
        // Outside the lock: an actor that has ended calls back at once.
        actor
            .on_terminated(move |_| {
                let Some(exports) = exports.upgrade() else {
                    return;
                };
                let mut actors = exports.actors();
                actors.ids.remove(&identity);
                let entry = actors.by_id.take_if(id, |_| true);
                drop(actors);
                drop(entry);
            })
            .detach();
        id
    }

    /// Publishes `actor` under `name`, with a way past its mailbox; `false` if the name is taken.
    pub(crate) fn publish<M: RemoteMessage>(
        self: &Arc<Self>,
        name: &str,
        actor: &ActorRef<M>,
        past: Option<Past<M>>,
    ) -> bool {
        let name: Arc<str> = name.into();
        let entry: Arc<dyn Exported> = Arc::new(LocalActor::new(actor.clone(), past));
        let published = Arc::downgrade(&entry);
        {
            let mut actors = self.actors();
            if actors.by_name.contains_key(&name) {
                return false;
            }
            actors.by_name.insert(name.clone(), entry);
        }
        let exports = Arc::downgrade(self);
        actor
            .on_terminated(move |_| {
                if let Some(exports) = exports.upgrade() {
                    exports.withdraw_this(&name, &published);
                }
            })
            .detach();
        true
    }

    /// Takes a name back, unless it was given to another actor meanwhile.
    fn withdraw_this(&self, name: &str, published: &Weak<dyn Exported>) {
        let mut actors = self.actors();
        let present = actors.by_name.get(name);
        let entry = match present.zip(published.upgrade()) {
            Some((present, published)) if Arc::ptr_eq(present, &published) => {
                actors.by_name.remove(name)
            }
            _ => None,
        };
        drop(actors);
        drop(entry);
    }

    /// Takes a name back.
    pub(crate) fn withdraw(&self, name: &str) {
        let entry = self.actors().by_name.remove(name);
        drop(entry);
    }

    pub(crate) fn find(&self, target: &Target) -> Option<Arc<dyn Exported>> {
        let actors = self.actors();
        match target {
            Target::Export(id) => actors.by_id.get(*id).cloned(),
            Target::Name(name) => actors.by_name.get(name).cloned(),
        }
    }

    /// The local actor behind `target`, if its messages are of this type.
    pub(crate) fn find_as<M: RemoteMessage>(&self, target: &Target) -> Option<ActorRef<M>> {
        let found = self.find(target)?;
        let actor = found.as_any().downcast_ref::<LocalActor<M>>()?;
        Some(actor.actor.clone())
    }

    /// Opens a port; `None` if there are too many.
    pub(crate) fn open_port(
        &self,
        asked: Asked,
        deadline: Option<Time>,
        answer: AnswerTaker,
    ) -> Option<ExportId> {
        let mut ports = self.ports();
        if ports.by_id.len() >= self.ports_max {
            return None;
        }
        let port = Port {
            asked,
            deadline,
            answer,
        };
        let drawn = ports.ids.draw();
        let id = ports.by_id.insert(drawn, port);
        self.open.store(ports.by_id.len(), Ordering::Relaxed);
        Some(id)
    }

    /// Hands an answer from `addr` to its port. `Ok(false)`: there is no such port any more.
    pub(crate) fn answer(
        &self,
        addr: SocketAddr,
        id: ExportId,
        payload: &[u8],
    ) -> Result<bool, DecodeError> {
        match self.take_port(addr, id) {
            Some(port) => (port.answer)(Ok(payload)).map(|()| true),
            None => Ok(false),
        }
    }

    /// Tells whoever waits at a port of `addr` why there is no answer.
    pub(crate) fn refuse_port(&self, addr: SocketAddr, id: ExportId, why: Refusal) {
        if let Some(port) = self.take_port(addr, id) {
            // No answer is read, so this does not fail.
            let _ = (port.answer)(Err(why));
        }
    }

    /// Closes a port of `addr` unanswered: its asker learns that there will be no answer.
    pub(crate) fn close_port(&self, addr: SocketAddr, id: ExportId) {
        drop(self.take_port(addr, id));
    }

    /// Only who was asked may answer.
    fn take_port(&self, addr: SocketAddr, id: ExportId) -> Option<Port> {
        let mut ports = self.ports();
        let port = ports.by_id.take_if(id, |port| port.asked.addr == addr);
        self.open.store(ports.by_id.len(), Ordering::Relaxed);
        port
    }

    /// Closes the ports of questions that went to a run of a node which is gone; of those to
    /// whichever run is there, if it was the `present` one.
    pub(crate) fn close_ports_of(&self, addr: SocketAddr, incarnation: u64, present: bool) {
        let of_it = |port: &Port| {
            let asked = port.asked.incarnation;
            port.asked.addr == addr && asked.map_or(present, |asked| asked == incarnation)
        };
        self.close_ports_where(of_it);
    }

    /// Closes the ports of questions without a deadline that went to `addr`. The connection is gone,
    /// and with it perhaps question or answer: their askers would wait for ever.
    pub(crate) fn close_endless_ports_to(&self, addr: SocketAddr) {
        self.close_ports_where(|port| port.asked.addr == addr && port.deadline.is_none());
    }

    /// Whether an answer from `addr` is waited for.
    pub(crate) fn waits_for(&self, addr: SocketAddr) -> bool {
        let ports = self.ports();
        ports.by_id.iter().any(|(_, port)| port.asked.addr == addr)
    }

    /// Closes the ports whose askers do not wait any more.
    pub(crate) fn close_expired_ports(&self, now: Time) {
        self.close_ports_where(|port| port.deadline.is_some_and(|d| d + PORT_GRACE <= now));
    }

    /// Whether few questions wait for their answers.
    pub(crate) fn few_ports(&self) -> bool {
        self.open.load(Ordering::Relaxed) <= FEW
    }

    /// The number of open ports.
    pub(crate) fn open_ports(&self) -> usize {
        self.ports().by_id.len()
    }

    fn close_ports_where(&self, ends: impl Fn(&Port) -> bool) {
        let ended: Vec<Port> = {
            let mut ports = self.ports();
            let of_ended = ports.by_id.iter().filter(|(_, port)| ends(port));
            let ids: Vec<ExportId> = of_ended.map(|(id, _)| id).collect();
            let ended = ids.into_iter();
            let ended = ended.filter_map(|id| ports.by_id.take_if(id, |_| true));
            let ended = ended.collect();
            self.open.store(ports.by_id.len(), Ordering::Relaxed);
            ended
        };
        // Outside the lock: dropping a port wakes its asker.
        drop(ended);
    }

    fn actors(&self) -> MutexGuard<'_, Actors> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the ids of exports come from.
pub(crate) enum Ids {
    /// The operating system: ids that nobody can guess. Drawn in stocks, to save system calls.
    Os { stock: Vec<u8> },
    /// A seed, for simulations that replay.
    Seeded(Rng),
}

impl Ids {
    const STOCK_BYTES: usize = 4096;

    pub(crate) fn os() -> Self {
        Self::Os { stock: Vec::new() }
    }

    pub(crate) fn draw(&mut self) -> u128 {
        match self {
            Self::Os { stock } => {
                if stock.len() < 16 {
                    stock.resize(Self::STOCK_BYTES, 0);
                    getrandom::fill(stock)
                        .expect("without the system's random numbers nothing is safe");
                }
                let rest = stock.len() - 16;
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&stock[rest..]);
                stock.truncate(rest);
                u128::from_le_bytes(bytes)
            }
            Self::Seeded(rng) => {
                let high = u128::from(rng.next_u64());
                high << 64 | u128::from(rng.next_u64())
            }
        }
    }
}
